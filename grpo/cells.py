"""Cells of a row that do not go together: refused, because one of them would do nothing or not what it says."""

from __future__ import annotations

from collections.abc import Callable, Collection

from grpo import plugins
from grpo.algorithm.choices import ADVANTAGE_NAMES, AGGREGATION_NAMES, PAIRED, WITH_CRITIC, limits
from grpo.algorithm.row import Algorithm
from grpo.algorithm.table import FORMER_NAMES
from grpo.errors import UserError
from grpo.flags import flag, require

READ: dict[str, tuple[Callable[[Algorithm], bool], str]] = {
    "ratio": (lambda row: row.surrogate not in ("naive", "geometric"), "a --surrogate that is made of a ratio"),
    "clip_low": (lambda row: row.surrogate in ("clipped", "geometric"), "--surrogate clipped or geometric"),
    "clip_high": (lambda row: row.surrogate in ("clipped", "geometric"), "--surrogate clipped or geometric"),
    "dual_clip": (lambda row: row.surrogate == "clipped" or not row.dual_clip, "--surrogate clipped"),
    "ratio_cap": (lambda row: row.surrogate == "cispo", "--surrogate cispo"),
    "gate_positive": (lambda row: row.surrogate == "soft_gate", "--surrogate soft_gate"),
    "gate_negative": (lambda row: row.surrogate == "soft_gate", "--surrogate soft_gate"),
    "kl_estimator": (lambda row: bool(row.kl_coef) and row.kl_in == "loss", "a --kl-coef, and --kl-in loss"),
    "kl_in": (lambda row: bool(row.kl_coef) or row.kl_in == "loss", "a --kl-coef"),
    "dpo_beta": (lambda row: row.advantage in PAIRED, "--advantage best_worst"),
    **dict.fromkeys(
        ("discount", "gae_lambda", "critic_lambda", "whiten", "value_clip"),
        (lambda row: row.advantage in WITH_CRITIC, "--advantage gae"),
    ),
    "max_kl": (lambda row: row.surrogate == "unclipped" or not row.max_kl, "--surrogate unclipped"),
    "importance_low": (lambda row: row.importance in ("mask", "sequence_mask"), "--importance mask or sequence_mask"),
    "importance_cap": (lambda row: row.importance != "none" or not row.importance_cap, "an --importance but none"),
}
"""Cell -> whether a row reads it, and what it needs."""

NOT_NEGATIVE = (
    "clip_low",
    "clip_high",
    "dual_clip",
    "kl_coef",
    "old_kl_coef",
    "entropy_coef",
    "max_kl",
    "value_clip",
    "dynamic_sampling",
    "importance_low",
    "importance_cap",
)


def check_cells(row: Algorithm, given: Collection[str] = ()) -> None:
    """Refuse what does not exist or go together; `given`: the cells that a flag has set. Raises: UserError.

    A function of one's own has to be there; it is called later, where torch is.
    """
    require(row, NOT_NEGATIVE, "must not be negative")
    require(row, ("ratio_cap", "gate_positive", "gate_negative", "dpo_beta"), "must be more than 0")
    plugins.own_ingredient(FORMER_NAMES.get(row.advantage, row.advantage), ADVANTAGE_NAMES, "advantage")
    plugins.own_ingredient(row.aggregation, AGGREGATION_NAMES, "aggregation")
    for name in given:
        reads, needs = READ.get(name, (None, ""))
        if reads and not reads(row):
            raise UserError(
                f"{flag(name)} {getattr(row, name)} would do nothing: it needs {needs}. Leave it out, or add that."
            )
    if row.surrogate == "clipped" and row.clip_low >= 1:
        raise UserError(f"--clip-low {row.clip_low} must be less than 1: the ratio is never negative.")
    if row.dual_clip and row.dual_clip <= 1 + row.clip_high:
        raise UserError(
            f"--dual-clip {row.dual_clip} must be more than 1 + --clip-high = {1 + row.clip_high:g}: below it it would "
            "cut what the clip lets through. 3 is usual; 0 is none."
        )
    low, high = limits(row)
    if row.importance in ("mask", "sequence_mask") and row.importance_cap != 0 and low > high:
        raise UserError(f"--importance-low {low:g} is above --importance-cap {high:g}: every token would be masked.")
    if row.dynamic_sampling and "uniform_groups" in given and row.uniform_groups == "keep":
        raise UserError(
            f"--uniform-groups keep with --dynamic-sampling {row.dynamic_sampling}: groups that dynamic sampling could "
            "not replace are always dropped. Add --dynamic-sampling 0, or leave --uniform-groups out."
        )
    if row.kl_in == "reward" and row.kl_coef and row.truncated == "mask":
        raise UserError(
            "--kl-in reward with --truncated mask: a response that is out of the loss would pay no KL, and the others "
            "of its group would look worse for theirs. Use --truncated zero or keep, or --kl-in loss."
        )
    if row.advantage in PAIRED and row.truncated == "mask":
        raise UserError(
            f"--advantage {row.advantage} with --truncated mask: a response that is out of the loss would leave the "
            "other one of its pair without its half of the gradient. Use --truncated zero or keep."
        )
    if row.advantage in PAIRED and row.surrogate != "naive":
        raise UserError(
            f"--advantage {row.advantage} with --surrogate {row.surrogate}: DPO's gradient is that of the surrogate "
            "naive under its advantages. Use --surrogate naive."
        )
    if row.advantage in WITH_CRITIC and (row.dynamic_sampling or row.uniform_groups == "drop"):
        raise UserError(
            f"--advantage {row.advantage} with --dynamic-sampling or --uniform-groups drop: by a critic a group of "
            "equal rewards teaches as much as any other, and in a group of one all are equal. Leave it out."
        )
    if row.max_kl and row.surrogate != "unclipped":
        raise UserError(
            f"--max-kl {row.max_kl:g} with --surrogate {row.surrogate}: the line search of the trust region has to see "
            "the surrogate rise, ratio times advantage. Use --surrogate unclipped, or --max-kl 0."
        )
    if row.advantage == "mean_normalized" and (row.penalties or row.kl_in == "reward"):
        raise UserError(
            "--advantage mean_normalized divides by a group's mean reward, which penalties and a KL in the reward make "
            "negative. Leave out --penalties, and use --kl-in loss."
        )
