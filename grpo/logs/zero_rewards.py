"""A first step without any reward: a response, the gold answer and what the verifiers said, side by side.

Nothing can be learned from rewards that are all 0, and most often the reason is seen at a glance: an answer that is
right and written otherwise than the verifier wants it, a response that was cut, a question that is too hard.

P problems a step, G responses a problem.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from grpo.outcomes import first_of, truncated
from grpo.records import Group, Rewards, Rollout

SHOWN = 400
"""Characters of a text that are shown; of a longer one the end, because answers stand there."""


def zero_rewards(groups: Sequence[Group], rewards: Rewards, total: Tensor) -> str | None:
    """What is said of a step whose rewards are all 0, or whose first verifier gave every response 0; else None.

    total: [P, G], the rewards that the advantages were computed from, truncated responses as `--truncated` says.
    """
    first = next(iter(rewards.by_verifier))
    if first_of(rewards.by_verifier).any() and total.any():
        return None
    cut, count = truncated(groups), total.numel()
    p, g = next(((p, g) for p, g in cut.logical_not().nonzero().tolist()), (0, 0))  # one that ended, if there is one
    group, rollout = groups[p], groups[p].rollouts[g]
    said = {name: _reward(part[p, g].item()) for name, part in rewards.by_verifier.items()}
    lines = [
        f"warning: {_what(first, rewards, total)} in all {count} responses of the first step. One of them:",
        f"  problem      {_shown(_question(group))}",
        f"  response     {_shown(rollout.text)}{_end(rollout)}",
        f"  gold answer  {_shown(str(group.problem.columns.get('answer', 'no column answer')))}",
        *(f"  {name:12s} {reward}" for name, reward in said.items()),
        _advice(first, int(cut.sum()), count),
    ]
    return "\n".join(lines)


def _what(first: str, rewards: Rewards, total: Tensor) -> str:
    if not total.any():
        return "the reward is 0, so there is nothing to learn from,"
    return f"the first verifier, {first}, gives 0, so none is correct,"


def _advice(first: str, cut: int, count: int) -> str:
    if cut > count / 2:
        return (
            f"Look at the length first: {cut} of {count} responses were cut at --max-response-tokens, before they had "
            "answered. Raise it, or see whether the model ends its responses under this --template."
        )
    return (
        "Is the response right? Then the verifier wants it written otherwise: try it on texts by python -m "
        "grpo.verifiers, and ask for the form that it wants in the prompt (--template). Is it wrong? Then the problems "
        "are too hard for this model, or the column of the gold answers is another one (--answer-column)."
    )


def _question(group: Group) -> str:
    prompt = group.problem.prompt
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def _end(rollout: Rollout) -> str:
    return f" (cut after {len(rollout.tokens)} tokens)" if rollout.truncated else ""


def _reward(value: float) -> str:
    return "does not apply" if value != value else f"{value:g}"


def _shown(text: str) -> str:
    return repr(text) if len(text) <= SHOWN else f"...{text[-SHOWN:]!r}"
