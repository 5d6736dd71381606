"""What the loss of an algorithm or two does to a batch, in words and a picture: `python -m grpo.explain grpo dr_grpo`.

Weight of a token against the response's length, advantage against the group's accuracy, clip region, and KL; the curves
come from the functions that train (algorithm/curves.py).
"""

from __future__ import annotations

from grpo.early import refuse_early
from grpo.explain_flags import Options, asked, check, check_command

if __name__ == "__main__":  # --help and refusals are there at once, before the imports below
    refuse_early(check_command)

import sys
from collections.abc import Iterable

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from rich.console import Console
from rich.table import Table
from torch import Tensor

from grpo.algorithm import curves
from grpo.algorithm.choices import PAIRED, WITH_CRITIC
from grpo.algorithm.curves import Curves
from grpo.algorithm.kl import KL_ESTIMATORS
from grpo.algorithm.row import Algorithm
from grpo.errors import UserError
from grpo.files import written_whole

COLOURS = ("#0072b2", "#d55e00")
KL_COLOURS = ("#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Okabe and Ito's palette, which the colour-blind can tell apart."""
STYLES = (dict(linewidth=5.0, alpha=0.4), dict(linewidth=1.6))
"""Of the first and the second algorithm: where their curves coincide, both are seen."""


def length_grid(longest: int) -> tuple[Tensor, int, int]:
    """Response lengths from a two-hundredth of the longest on, and the two, one ten times the other, to compare."""
    short = longest // 30
    spread = torch.logspace(0, 1, 40, base=200) * longest / 200
    return torch.cat([spread.round().long(), torch.tensor([short, 10 * short, longest])]).unique(), short, 10 * short


def report(rows: dict[str, Algorithm], options: Options, console: Console) -> None:
    """A table and a sentence an algorithm on each of the four subjects."""
    lengths, short, long = length_grid(options.max_response_tokens)
    size = options.responses
    weights = {
        n: curves.token_weights(row, lengths, size, options.correct, lengths[-1].item()) for n, row in rows.items()
    }
    at = [0, *(int((lengths == n).nonzero()) for n in (short, long)), len(lengths) - 1]
    console.print(table("|advantage| * weight * B of a token", "tokens", [f"{lengths[i]:,}" for i in at], weights, at))
    say(console, (curves.length_sentence(n, lengths, c, short, long) for n, c in weights.items()))

    advantages = {n: curves.group_advantages(row, size) for n, row in rows.items()}
    at = sorted({1, size // 2, size - 1})
    console.print(table("advantage", "correct in group", [f"{i} of {size}" for i in at], advantages, at))
    say(console, (curves.accuracy_sentence(n, c) for n, c in advantages.items()))

    ratios = torch.tensor([0.5, 0.9, 0.999, 1.0, 1.001, 1.1, 1.25, 2.0, 6.0], dtype=torch.float64)
    pulls = {n: curves.surrogates(row, ratios)[1] for n, row in rows.items()}
    at = list(range(len(ratios)))
    console.print(table("pull on a token, advantage +1 or -1", "ratio", [f"{r:g}" for r in ratios], pulls, at))
    say(console, (curves.clip_sentence(n, row) for n, row in rows.items()))
    say(console, (curves.importance_sentence(n, row) for n, row in rows.items()))

    differences = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
    made = Table("d", *KL_ESTIMATORS, title="KL at d = l - l_ref: value, pull", **TABLE)
    values = [curves.kl_curves(name, differences) for name in KL_ESTIMATORS]
    for i, d in enumerate(differences):
        made.add_row(f"{d:+g}", *(f"{value[i]:.3g}, {pull[i]:+.3g}" for value, pull in values))
    console.print(made)
    say(console, (curves.kl_sentence(n, row) for n, row in rows.items()))
    for name, row in rows.items():
        if row.advantage in PAIRED:
            report_pairs(name, row, console)
        if row.advantage in WITH_CRITIC:
            report_tokens(name, row, console)


def report_pairs(name: str, row: Algorithm, console: Console) -> None:
    """What the margin of a pair does to its pull."""
    margins = torch.tensor([-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0], dtype=torch.float64)
    shown = curves.pair_curves(row, margins)
    made = Table("margin", *shown, title=f"DPO at beta {row.dpo_beta:g}: loss of a pair, pull / beta", **TABLE)
    for i, margin in enumerate(margins):
        made.add_row(f"{margin:+g}", *(f"{loss[i]:.3g}, {pull[i]:+.3g}" for loss, pull in shown.values()))
    console.print(made)
    say(console, [curves.pair_sentence(name, row)])


def report_tokens(name: str, row: Algorithm, console: Console) -> None:
    """How far a token's credit looks ahead."""
    ahead = torch.tensor([0, 1, 2, 5, 10, 50, 100, 1000])
    weights = curves.gae_weights(row, ahead)
    made = Table(
        "tokens ahead", "weight", title=f"GAE of {name}: of what is seen later, in a token's advantage", **TABLE
    )
    for distance, weight in zip(ahead.tolist(), weights.tolist(), strict=True):
        made.add_row(f"{distance:,}", f"{weight:.3g}")
    console.print(made)
    say(console, [curves.gae_sentence(name, row)])


TABLE = dict(title_justify="left", title_style="bold")


def table(title: str, key: str, labels: list[str], shown: dict[str, Curves], at: list[int]) -> Table:
    """Correct and incorrect answers of each algorithm at some points of its curves."""
    made = Table(key, *(f"{name}, {kind}" for name in shown for kind in ("correct", "incorrect")), title=title, **TABLE)
    for label, i in zip(labels, at, strict=True):
        made.add_row(label, *(f"{values[i]:.3g}" for c in shown.values() for values in (c.correct, c.incorrect)))
    return made


def say(console: Console, sentences: Iterable[str]) -> None:
    console.print("\n".join(sentences) + "\n", highlight=False, markup=False, soft_wrap=True)


def draw(rows: dict[str, Algorithm], options: Options) -> None:
    """Six panels: weight, advantage and surrogate; KL, its pull and the surrogate's pull. And two of DPO's pairs."""
    paired = [row for row in rows.values() if row.advantage in PAIRED]
    figure, panels = plt.subplots(2, 4 if paired else 3, figsize=(17 if paired else 13, 7.6), layout="constrained")
    (by_length, by_accuracy, surrogate), (kl, kl_pull, surrogate_pull) = panels[:, :3]
    if paired:
        draw_pairs(paired[0], *panels[:, 3])
    lengths, _, _ = length_grid(options.max_response_tokens)
    accuracies = torch.arange(options.responses + 1) / options.responses
    ratios = torch.cat([curves.ratio_grid(row) for row in rows.values()]).unique()
    for row, colour, style in zip(rows.values(), COLOURS, STYLES, strict=False):
        weights = curves.token_weights(row, lengths, options.responses, options.correct, lengths[-1].item())
        value, pull = curves.surrogates(row, ratios)
        plot(by_length, lengths, weights, colour, style)
        plot(by_accuracy, accuracies, curves.group_advantages(row, options.responses), colour, style | {"marker": "o"})
        plot(surrogate, ratios, value, colour, style)
        plot(surrogate_pull, ratios, pull, colour, style)
    by_length.set(xscale="log", yscale="log", xlabel="response tokens", ylabel="|advantage| · weight · B")
    by_length.set_title(f"weight of a token, {options.correct} of {options.responses} correct")
    by_accuracy.set(xlabel="share of the group that is correct", ylabel="advantage", title="advantage of an answer")
    surrogate.set(xlabel="ratio to the sampling policy", ylabel="surrogate", title="what is maximised, advantage ±1")
    surrogate_pull.set(xlabel="ratio to the sampling policy", ylabel="pull on log-probability")
    surrogate_pull.set_title("its pull on the token")

    differences = torch.linspace(-2, 2, 101)
    for i, (name, colour) in enumerate(zip(KL_ESTIMATORS, KL_COLOURS, strict=True)):
        users = [f"{n}: {row.kl_coef:g}" for n, row in rows.items() if row.kl_coef and row.kl_estimator == name]
        label, width = " · ".join([name, *users]), 6.5 - 1.6 * i  # k2 and k3_ratio have the same pull
        value, pull = curves.kl_curves(name, differences)
        kl.plot(differences, value, color=colour, linewidth=width, label=label)
        kl_pull.plot(differences, pull, color=colour, linewidth=width)
    kl.set(xlabel="log-probability − the reference's", ylabel="value", title="KL estimators")
    kl.legend(title="estimator · weight in use", frameon=False)
    kl_pull.set(
        xlabel="log-probability − the reference's", ylabel="pull on log-probability", title="their pull, weight 1"
    )

    for axis in figure.axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    keys = [Line2D([], [], color=c, label=n, **s) for n, c, s in zip(rows, COLOURS, STYLES, strict=False)]
    keys += [
        Line2D([], [], color="black", linestyle=s, label=f"{k} answer")
        for k, s in (("correct", "-"), ("incorrect", "--"))
    ]
    figure.legend(handles=keys, loc="outside upper center", ncols=4, frameon=False, fontsize="large", handlelength=3)
    with written_whole(options.out) as part:
        figure.savefig(part, dpi=110, format=options.out.suffix[1:] or "png")
    plt.close(figure)


def draw_pairs(row: Algorithm, loss_of: Axes, pull_of: Axes) -> None:
    """Loss of a pair and its pull, against the margin."""
    margins = torch.linspace(-5, 5, 101, dtype=torch.float64)
    for (name, (loss, pull)), colour in zip(curves.pair_curves(row, margins).items(), KL_COLOURS, strict=False):
        loss_of.plot(margins, loss, color=colour, label=name)
        pull_of.plot(margins, pull, color=colour)
    loss_of.set(xlabel="margin β·h", ylabel="loss of a pair", title=f"DPO, β = {row.dpo_beta:g}", ylim=(-0.2, 8))
    loss_of.legend(frameon=False)
    pull_of.set(xlabel="margin β·h", ylabel="pull on the chosen / β", title="its pull on the pair", ylim=(-2, 4))


def plot(axis: Axes, x: Tensor, shown: Curves, colour: str, style: dict) -> None:
    """Correct answers solid, incorrect ones dashed; no point where a logarithm would have none."""
    axis.plot(x, shown.correct, color=colour, **style)
    axis.plot(x, shown.incorrect, color=colour, linestyle="--", **style)


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit status: 0 done, 2 bad input."""
    options = asked(arguments)
    try:
        rows = check(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report(rows, options, Console())
    draw(rows, options)
    print(f"drawn: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
