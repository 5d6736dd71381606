"""Sampled responses: their log-probabilities against the trainer's, how they end, and whether they teach something.

P problems, G responses each, N response tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from grpo.algorithm.advantages import equal_rewards
from grpo.diagnosis.ends import named
from grpo.diagnosis.findings import Finding, fault, not_checked, ok, printable, warning
from grpo.outcomes import correct, lengths, truncated
from grpo.records import Group, Rewards

ENGINE, RESPONSES, REWARDS = "engine against trainer", "responses", "rewards"
MAX_OF_MEAN = 20
"""Largest gap of a token, in tolerances of the mean, that passes: single tokens are off by more than the mean."""
MANY_TRUNCATED = 0.25
MANY_FAILURES = 0.1


def gap_findings(sampler: Tensor, trainer: Tensor, tolerance: float) -> Iterator[Finding]:
    """[N] log-probabilities of the same tokens, by the engine and by the trainer; tolerance of their mean gap."""
    gaps = (sampler - trainer).abs()
    mean, largest = gaps.mean().item(), gaps.max().item()
    found = (
        f"log-probabilities of {gaps.numel()} tokens of real responses differ by {mean:.2g} nats on average, at most "
    )
    found += f"{largest:.2g}; tolerance of the mean {tolerance:g}"
    if not mean <= tolerance:  # NaN included
        yield fault(
            ENGINE,
            found,
            "The engine computes another distribution than the trainer: use --engine hf, which generates with the "
            "trainer's own model; if the difference is only rounding, raise --sync-tolerance.",
        )
    elif largest > MAX_OF_MEAN * tolerance:
        yield warning(
            ENGINE,
            found,
            "A few tokens are far off. Keep the correction of --importance on (truncate or mask, not none), and watch "
            "policy/importance_cut.",
        )
    else:
        yield ok(ENGINE, found)


def response_findings(
    groups: Sequence[Group],
    tokenizer: PreTrainedTokenizerBase,
    ends: Sequence[int],
    *,
    marker: int | None,
    max_tokens: int,
    max_response_tokens: int,
) -> Iterator[Finding]:
    """How responses end. `marker`: the template's own end; `max_tokens`: where the rehearsal cut them."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    length = lengths(groups)
    yield ok(RESPONSES, f"the first of {len(rollouts)}: {printable(rollouts[0].text)}")
    by_id = sum(rollout.tokens[-1:] != () and rollout.tokens[-1] in ends for rollout in rollouts)
    cut = int(truncated(groups).sum())
    found = (
        f"{by_id} of {len(rollouts)} end by {named(tokenizer, ends)}, {len(rollouts) - by_id - cut} by a text "
        f"of --stop, {cut} are cut at {max_tokens} tokens; mean length {length.mean().item():.0f}"
    )
    if max_tokens < max_response_tokens:
        yield ok(RESPONSES, f"{found} (the rehearsal stops there to save time, a run at {max_response_tokens})")
    elif cut == len(rollouts):
        yield fault(
            RESPONSES,
            found,
            "No response ends: raise --max-response-tokens, see to the ends above, or choose another --template or "
            "--model: a base model may not know how to end.",
        )
    elif cut > MANY_TRUNCATED * len(rollouts):
        advice = "Raise --max-response-tokens: a response that is cut is not rewarded as it could be."
        yield warning(RESPONSES, found, advice)
    else:
        yield ok(RESPONSES, found)
    passed = sum(marker in rollout.tokens[:-1] for rollout in rollouts) if marker is not None else 0
    if passed and marker not in ends:
        yield fault(
            RESPONSES,
            f"{passed} of {len(rollouts)} write the template's end {named(tokenizer, [marker])}, and go on behind it",
            f'Write "eos_token_id": [{", ".join(map(str, [*ends, marker]))}] into generation_config.json of the '
            "model's folder.",
        )


def reward_findings(rewards: Rewards, total: Tensor, *, unfinished: bool) -> Iterator[Finding]:
    """Is some response better than the others of its group?

    total: [P, G], what the row makes of the rewards. unfinished: the rehearsal has cut many responses, to save time.
    """
    responses = rewards.total.numel()
    failures = {name: rewards.errors[name] + rewards.timeouts[name] for name in rewards.by_verifier}
    for name, count in failures.items():
        if count:
            yield (fault if count > MANY_FAILURES * responses else warning)(
                REWARDS,
                f"{name} failed on {count} of {responses} responses ({rewards.errors[name]} errors, "
                f"{rewards.timeouts[name]} time-outs); what it said is in the error output",
                "Mend the verifier or the data, trying both with python -m grpo.verifiers."
                + (" For more time, --verifier-time-limit." if rewards.timeouts[name] else ""),
            )
    right, uniform = correct(rewards), equal_rewards(total)
    found = (
        f"{int(right.sum())} of {responses} responses are correct; in {int(uniform.sum())} of {len(uniform)} groups "
        "all rewards are equal, and nothing is learnt from these"
    )
    if not uniform.all():
        yield ok(REWARDS, found)
    elif unfinished:
        yield not_checked(REWARDS, f"{found}; but the rehearsal has cut many of them before they could end")
    elif right.all():
        yield warning(REWARDS, found, "The problems are too easy for this model: use harder ones (--data).")
    else:
        yield warning(
            REWARDS,
            found,
            "If it is like this for more problems, a run learns nothing. Read the response above: is the answer in the "
            "form that the verifier reads (--template, --reward)? Else use easier problems (--data), more "
            "--responses-per-problem, or another --model.",
        )
