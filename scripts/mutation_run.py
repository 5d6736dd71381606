"""Put classic mistakes into the formulas, one at a time, and see whether the tests catch each one.

    python scripts/mutation_run.py            all of them, a few seconds each
    python scripts/mutation_run.py --only 3

Every mistake is in print somewhere: most are silent bugs of published trainers. The code is copied to a temporary
folder; the work tree is not touched. Exit status 1 where a mistake survives.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
TESTS = ("tests/algorithm", "tests/model", "tests/preferences", "tests/problems/test_documents.py")
"""The tests of the formulas: a mistake must be caught by these, not by a run that happens to learn less."""


@dataclass(frozen=True)
class Mistake:
    """One edit of one file."""

    name: str
    file: str
    right: str
    wrong: str


MISTAKES = (
    Mistake("group std with ddof 0", "algorithm/advantages.py", "rewards.std(dim=1, correction=1", "rewards.std(dim=1, correction=0"),
    Mistake("batch std of the rewards, not of what is centred", "algorithm/advantages.py", "centre.std(", "rewards.std("),
    Mistake("leave-one-out without G/(G-1)", "algorithm/advantages.py", "(size / max(1, size - 1))", "1.0"),
    Mistake("mean over the batch instead of the group", "algorithm/advantages.py", "centre = rewards - rewards.mean(dim=1, keepdim=True)",
            "centre = rewards - rewards.mean()"),
    Mistake("only one of several maxima kept", "algorithm/advantages.py", "rewards == rewards.amax(dim=1, keepdim=True)",
            "torch.arange(rewards.shape[1]) == rewards.argmax(dim=1, keepdim=True)"),
    Mistake("missing 1/B in sequence mean", "algorithm/aggregations.py", "(mask.shape[0] * lengths)", "lengths"),
    Mistake("missing 1/B in the constant", "algorithm/aggregations.py", "(mask.shape[0] * constant)", "constant"),
    Mistake("C from the padded width", "algorithm/aggregations.py", "(mask.shape[0] * constant)", "(mask.shape[0] * mask.shape[1])"),
    Mistake("token mean over the padded batch", "algorithm/aggregations.py", "mask.sum().clamp(min=1)", "mask.numel()"),
    Mistake("weights per micro-batch instead of per optimizer batch", "algorithm/objective.py", "loss = (micro_batch.token_weights * token.loss).sum()",
            "loss = (micro_batch.token_weights / micro_batch.token_weights.sum() * token.loss).sum()"),
    Mistake("quotient of logarithms as ratio", "algorithm/ratios.py", "return _exp(logprobs - old_logprobs)",
            "return logprobs / old_logprobs"),
    Mistake("sequence ratio from the sum instead of the mean", "algorithm/ratios.py",
            "_exp(response_mean(logprobs - old_logprobs, mask))", "_exp(((logprobs - old_logprobs) * mask).sum(1, keepdim=True))"),
    Mistake("clip on the wrong side (max instead of min)", "algorithm/surrogates.py", "-torch.minimum(", "-torch.maximum("),
    Mistake("clip without the minimum", "algorithm/surrogates.py",
            "-torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage)", "-ratio.clamp(low, high) * advantage"),
    Mistake("CISPO's weight not detached", "algorithm/surrogates.py", "ratio.detach().clamp(max=row.ratio_cap)", "ratio.clamp(max=row.ratio_cap)"),
    Mistake("importance weight on the KL as well", "algorithm/losses.py",
            "loss = loss + kl_coef * KL_ESTIMATORS", "loss = loss + importance.weight * kl_coef * KL_ESTIMATORS"),
    Mistake("importance weight upside down", "algorithm/importance.py", "(inputs.old_logprobs - inputs.sampler_logprobs)",
            "(inputs.sampler_logprobs - inputs.old_logprobs)"),
    Mistake("importance weight without its cap", "algorithm/importance.py", "Importance(weight.clamp(max=high), weight > high)",
            "Importance(weight, weight > high)"),
    Mistake("the row's ratio not handed on", "algorithm/losses.py", "RATIOS[row.ratio](", 'RATIOS["token"]('),
    Mistake("the row's surrogate not handed on", "algorithm/losses.py", "SURROGATES[row.surrogate](", 'SURROGATES["clipped"]('),
    Mistake("the sampler's log-probabilities not handed on", "algorithm/objective.py",
            "sampler_logprobs=micro_batch.sampler_logprobs,", ""),
    Mistake("the reference's log-probabilities of another policy", "algorithm/objective.py",
            "ref_logprobs=micro_batch.ref_logprobs,", "ref_logprobs=micro_batch.old_logprobs,"),
    Mistake("the user's term left out", "algorithm/objective.py", "token.loss + self.loss_term(", "token.loss + 0 * self.loss_term("),
    Mistake("the last response's advantage for every token", "algorithm/credit.py", "advantages.flatten()[:, None]",
            "advantages.flatten()[-1]"),
    Mistake("the KL added to the reward", "algorithm/credit.py", "total - row.kl_coef * kl", "total + row.kl_coef * kl"),
    Mistake("means over micro-batches instead of over tokens", "model/learner.py", "value / count if count", "value if count"),
    Mistake("a backward pass that memory has broken off is counted, too", "model/passes.py", "            afresh()\n", ""),
    Mistake("sign of the KL", "algorithm/losses.py", "loss = loss + kl_coef", "loss = loss - kl_coef"),
    Mistake("k3 of the wrong direction", "algorithm/kl.py", "torch.expm1(-difference) + difference", "torch.expm1(difference) - difference"),
    Mistake("k2 without the half", "algorithm/kl.py", ".square() / 2", ".square()"),
    Mistake("entropy bonus as a penalty", "algorithm/losses.py", "loss - row.entropy_coef * inputs.entropy", "loss + row.entropy_coef * inputs.entropy"),
    Mistake("the end of sequence left out", "model/batching.py", "mask[i, start - 1 : end - 1]", "mask[i, start - 1 : end - 2]"),
    Mistake("mask off by one", "model/batching.py", "mask[i, start - 1 : end - 1]", "mask[i, start : end]"),
    Mistake("temperature forgotten in the trainer", "model/logprobs.py", "else logits / temperature", "else logits * 1.0"),
    Mistake("uniform groups kept, informative ones dropped", "algorithm/dynamic_sampling.py", "torch.argsort((~informative).int(), stable=True)",
            "torch.argsort(informative.int(), stable=True)"),
    Mistake("a cut response's total set to 0, which beats a negative one", "algorithm/credit.py",
            "torch.where(truncated, total.clamp(max=0.0), total)", "torch.where(truncated, torch.zeros_like(total), total)"),
    Mistake("informative by the total, penalties included", "algorithm/dynamic_sampling.py",
            "informative(first_of(rewards.by_verifier), cut, row)", "informative(rewards.total, cut, row)"),
    Mistake("groups that fill the batch in the token mean's denominator", "model/batching.py",
            "bool(kept[index[i]]) and not (mask_truncated", "not (mask_truncated"),
    Mistake("redraws that repeat problems of the step", "problems/draw.py", " if id(problem) not in taken]", "]"),
    Mistake("Ziegler's factor upside down", "algorithm/kl_weight.py", "measured / self.target - 1", "self.target / max(measured, 1e-9) - 1"),
    Mistake("PPO's halving and doubling for the reference", "algorithm/kl_weight.py",
            "self.value *= 1 + error * min(MAX_GAIN, responses / self.horizon)", "self.value *= 2.0 ** ((error > 0) - (error < 0))"),
    Mistake("PPO's halving and doubling exchanged", "algorithm/kl_weight.py", "OLD_FACTOR, OLD_BAND = 2.0, 1.5", "OLD_FACTOR, OLD_BAND = 0.5, 1.5"),
    Mistake("Lite PPO's deviation of what is centered", "algorithm/advantages.py", "rewards.std(correction=1)", "centre.std(correction=1)"),
    Mistake("the optimal baseline without lengths", "algorithm/advantages.py",
            "(lengths * rewards).sum(dim=1, keepdim=True) / lengths.sum(dim=1, keepdim=True).clamp(min=1)", "rewards.mean(dim=1, keepdim=True)"),
    Mistake("MaxRL over the deviation", "algorithm/advantages.py", "mean.where(mean > 0, torch.ones_like(mean))", "rewards.std(1, keepdim=True)"),
    Mistake("GMPO's clip after the mean", "algorithm/surrogates.py",
            "difference = (inputs.logprobs - inputs.old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)",
            "difference = response_mean(inputs.logprobs - inputs.old_logprobs, inputs.mask).expand_as(advantage)"),
    Mistake("GMPO's sides exchanged", "algorithm/surrogates.py", "torch.where(advantage > 0, difference.clamp", "torch.where(advantage < 0, difference.clamp"),
    Mistake("SAPO's temperatures exchanged", "algorithm/surrogates.py", "row.gate_positive, row.gate_negative", "row.gate_negative, row.gate_positive"),
    Mistake("SAPO without its 4 / tau", "algorithm/surrogates.py", "(ratio - 1)) * 4 / temperature", "(ratio - 1))"),
    Mistake("dual clip where the advantage is positive", "algorithm/surrogates.py", "(ratio > row.dual_clip) & (advantage < 0)",
            "(ratio > row.dual_clip) & (advantage > 0)"),
    Mistake("prompts without a token counted in the mean over prompts", "algorithm/aggregations.py", "(tokens > 0).sum().clamp(min=1)",
            "torch.tensor(len(tokens))"),
    Mistake("limits of the importance mask exchanged", "algorithm/importance.py", "(weight < low) | (weight > high)",
            "(weight < high) | (weight > low)"),
    Mistake("sequence mask by the product instead of the geometric mean", "algorithm/importance.py", "torch.exp(response_mean(gap, inputs.mask))",
            "torch.exp((gap * inputs.mask).sum(dim=1, keepdim=True))"),
    Mistake("masked tokens lose their KL too", "algorithm/losses.py",
            "loss = loss + kl_coef * KL_ESTIMATORS", "loss = loss + (importance.weight > 0) * kl_coef * KL_ESTIMATORS"),
    Mistake("KL to the old policy in the reference's direction", "algorithm/kl.py", "torch.expm1(difference) - difference",
            "torch.expm1(-difference) + difference"),
    Mistake("product ratio from the mean", "algorithm/ratios.py", "((logprobs - old_logprobs) * mask).sum(dim=1, keepdim=True)",
            "response_mean(logprobs - old_logprobs, mask)"),
    Mistake("an update with NaN in it is made", "model/learner.py", "if not_finite(measured):", "if False:"),
    Mistake("a skipped update moves the schedule on", "model/learner.py", "            self.skipped_in_a_row += 1\n",
            "            self.skipped_in_a_row += 1\n            self.schedule.step()\n"),
    Mistake("a resumed run with a fresh optimizer", "model/checkpoint.py", '    learner.optimizer.load_state_dict(state["optimizer"])\n', ""),
    Mistake("a resumed run with a fresh schedule", "model/checkpoint.py", '    learner.restore_schedule(state["schedule"])\n', ""),
    Mistake("layers that are recomputed in name only", "model/learner.py", ", recomputing(self.model):", ":"),
    Mistake("dropout switched on with the recomputing", "model/recompute.py", "layer.training = True", "layer.train()"),
    Mistake("rows with an entropy bonus taken for rows without a gradient", "algorithm/objective.py",
            "others = row.entropy_coef or row.old_kl_coef or (", "others = row.old_kl_coef or ("),
    Mistake("a geometric mean over a response cut into pieces", "algorithm/row.py",
            'self.surrogate == "geometric" or self.importance', "self.importance"),
    Mistake("a mask of whole responses cut into pieces", "algorithm/row.py",
            'self.surrogate == "geometric" or self.importance == "sequence_mask"', 'self.surrogate == "geometric"'),
    Mistake("the layers' gradient from the last piece alone", "model/head_pieces.py", "of_gradient.copy_(leaf.grad)",
            "gradient.zero_(), of_gradient.copy_(leaf.grad)"),
    Mistake("gradients averaged over ranks instead of summed", "model/shard.py", "set_gradient_divide_factor(1.0)",
            "set_gradient_divide_factor(float(ranks.size))"),
    Mistake("a margin's sign", "algorithm/preference_losses.py", "- margin * (scores", "+ margin * (scores"),
    Mistake("a comparison's loss over its responses instead of its pairs", "algorithm/preference_losses.py",
            "logsigmoid(difference[better]).mean()", "logsigmoid(difference[better]).sum() / len(scores)"),
    Mistake("ties taken for pairs", "algorithm/preference_losses.py", "scores[:, None] > scores[None, :]", "scores[:, None] >= scores[None, :]"),
    Mistake("log(1 + exp(x)) written out", "algorithm/preference_losses.py", "-logsigmoid(difference[better]).mean()",
            "torch.log(1 + torch.exp(-difference[better])).mean()"),
    Mistake("label smoothing on the wrong term", "algorithm/preference_losses.py",
            "-(1 - smoothing) * logsigmoid(beta * h) - smoothing * logsigmoid(-beta * h)",
            "-smoothing * logsigmoid(beta * h) - (1 - smoothing) * logsigmoid(-beta * h)"),
    Mistake("IPO's margin without the half", "algorithm/preference_losses.py", "(h - 1 / (2 * beta)).square()", "(h - 1 / beta).square()"),
    Mistake("chosen and rejected exchanged", "preferences/pair_credit.py", "torch.stack([-slope, slope]", "torch.stack([slope, -slope]"),
    Mistake("prompt and padding in the sum of a response", "preferences/pair_credit.py", "((logprobs - ref_logprobs) * mask).sum(dim=1)",
            "(logprobs - ref_logprobs).sum(dim=1)"),
    Mistake("the reference of the chosen alone", "preferences/pair_credit.py", "divided[0::2] - divided[1::2]",
            "divided[0::2] - (logprobs * mask).sum(dim=1)[1::2]"),
    Mistake("sums where means are asked for", "preferences/pair_credit.py", 'changes / lengths if cells.length == "mean" else changes', "changes"),
    Mistake("the slope of a mean on every token undivided", "preferences/pair_credit.py", "advantages = advantages / lengths",
            "advantages = advantages / 1"),
    Mistake("the best pushed down and the worst up", "algorithm/advantages.py", "scatter(1, best, pull).scatter(1, worst, -pull)",
            "scatter(1, best, -pull).scatter(1, worst, pull)"),
    Mistake("a reward read at the end of the padding", "model/scalar_model.py", "== lengths[:, None] - 1", "== lengths.max() - 1"),
    Mistake("a reward pulled along the slope of its loss", "model/scalar_model.py", "loss = -(micro_batch.advantages * values).sum()",
            "loss = (micro_batch.advantages * values).sum()"),
    Mistake("a value one place late", "algorithm/gae.py", "torch.where(here, values[:, t], value)", "torch.where(here, values[:, max(t - 1, 0)], value)"),
    Mistake("a bootstrap after the last token", "algorithm/gae.py", "value = ahead = rewards.new_zeros(len(rewards))", "ahead = rewards.new_zeros(len(rewards)); value = values[:, -1]"),
    Mistake("the decay dropped", "algorithm/gae.py", "discount * decay * ahead", "discount * ahead"),
    Mistake("the discount dropped", "algorithm/gae.py", "discount * value - values[:, t]", "value - values[:, t]"),
    Mistake("whitening over the padding", "algorithm/gae.py", "found, chosen = torch.zeros_like(advantages), advantages[mask]", "found, chosen = torch.zeros_like(advantages), advantages.flatten()"),
    Mistake("the mean added back by whitening", "algorithm/gae.py", "centred = chosen - chosen.mean()", "centred = chosen"),
    Mistake("the smaller of the two value losses", "algorithm/gae.py", "torch.maximum(plain, clipped)", "torch.minimum(plain, clipped)"),
    Mistake("a reward at the first token", "algorithm/gae.py", "torch.where(mask, positions, -1).amax(", "torch.where(mask, positions, 999).amin("),
    Mistake("the KL of a token paid out", "algorithm/gae.py", "torch.where(mask, -coef * kl, rewards)", "torch.where(mask, coef * kl, rewards)"),
    Mistake("returns after whitening", "algorithm/credit.py", "returns = gae(rewards, values, mask, row.discount, row.critic_lambda) + values * mask",
            "returns = whiten(gae(rewards, values, mask, row.discount, row.critic_lambda), mask) + values * mask"),
    Mistake("the policy trained while its critic warms up", "model/critic.py", "policy.examine(batch, objective) if warming", "policy.update(batch, objective) if warming"),
    Mistake("documents at the sampler's temperature", "model/imitation.py", "policy.at_temperature(1.0)", "policy.at_temperature(policy.temperature)"),
    Mistake("a sum over the documents' tokens", "model/imitation.py", "token_weights=documents.mask / tokens", "token_weights=documents.mask / 1.0"),
    Mistake("documents forgotten where a pass is made again", "model/learner.py", "            if begin:\n                begin()\n", ""),
    Mistake("the problem imitated with its solution", "problems/documents.py", 'parts = [(encode(row["problem"]), _ended(solution, end))]', 'parts = [(encode(row["problem"])[:1], (*encode(row["problem"])[1:], *_ended(solution, end)))]'),
    Mistake("the KL of a trust region measured backwards", "model/trust_region.py", "return (before.exp() * (before - now)).sum().item()",
            "return (now.exp() * (now - before)).sum().item()"),
    Mistake("Fisher's matrix of a part of the batch", "model/trust_region.py", "policy.each_micro_batch(batch, add,",
            "policy.each_micro_batch(batch.take(batch.lengths.new_tensor([0])), add,"),
    Mistake("a trust region of half its length", "model/trust_region.py", "math.sqrt(2 * objective.max_kl / curvature)",
            "math.sqrt(objective.max_kl / curvature)"),
    Mistake("a step along the gradient itself", "model/trust_region.py", "curvature = direction.dot(product(direction)).item()",
            "direction = gradient; curvature = direction.dot(product(direction)).item()"),
    Mistake("a step that the line search refused is kept", "model/trust_region.py", "    move(parameters, kept, None)\n", "    pass\n"),
)  # fmt: skip


@dataclass
class Options:
    """Put classic mistakes into the formulas, one at a time, and run the formulas' tests."""

    only: int | None = None
    """Number of a single mistake to make."""


def survives(mistake: Mistake | None, folder: Path) -> tuple[bool, str]:
    """Whether the tests pass on a copy with this mistake (None: on the code as it is), and the first that fails."""
    for part in ("grpo", "tests"):
        shutil.copytree(ROOT / part, folder / part)
    shutil.copy(ROOT / "pyproject.toml", folder)
    if mistake is not None:
        path = folder / "grpo" / mistake.file
        text = path.read_text()
        if text.count(mistake.right) != 1:
            raise SystemExit(
                f"'{mistake.name}': {mistake.file} holds the text to change {text.count(mistake.right)} times"
            )
        path.write_text(text.replace(mistake.right, mistake.wrong))
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    failed = [line.split(" ")[1] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode == 0, failed[0] if failed else ""


def main(options: Options) -> int:
    """Exit status: 0 where the code passes and every mistake is caught."""
    table = Table("", "mistake", "caught by")
    survivors = []
    for number, mistake in enumerate((None, *MISTAKES)):
        if options.only not in (None, number):
            continue
        with tempfile.TemporaryDirectory() as folder:
            passed, caught_by = survives(mistake, Path(folder))
        name = mistake.name if mistake else "none: the code as it is"
        wanted = mistake is None
        survivors += [name] if passed != wanted else []
        table.add_row(str(number), name, caught_by or ("passes" if wanted else "NOTHING"))
    Console().print(table)
    print(f"{len(survivors)} of {table.row_count} not as they should be" if survivors else "every mistake was caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
