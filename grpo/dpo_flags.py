"""The flags of `python -m grpo.dpo`, and what is refused before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from grpo.algorithm.choices import PREFERENCE_LOSS_NAMES
from grpo.errors import UserError
from grpo.flags import require
from grpo.preference_flags import PreferenceFlags, check_shared, completed
from grpo.problems.templates import check_prompts

PRESETS = {
    "embedded": dict(learning_rate=1e-4, beta=0.5, pairs_per_update=64, max_prompt_tokens=32, max_response_tokens=96),
    "real": dict(learning_rate=5e-7, beta=0.1, pairs_per_update=64, max_prompt_tokens=1024, max_response_tokens=3000),
}
"""What an unset flag means: `embedded` without --model, `real` with it."""

LossName = Literal[PREFERENCE_LOSS_NAMES]
LengthName = Literal["sum", "mean"]


@dataclass(frozen=True, kw_only=True)
class Options(PreferenceFlags):
    """Direct preference optimization: train a policy from pairs of responses, without a reward model."""

    loss: LossName = "sigmoid"
    """sigmoid (DPO), or ipo, which seeks a margin of 1 / (2 beta) and no more."""
    beta: float | None = None
    """How much a departure from the starting model costs; unset: 0.5 (embedded) or 0.1."""
    label_smoothing: float = 0.0
    """Share of the labels that are taken to be turned around, for the loss sigmoid: conservative DPO."""
    length: LengthName = "sum"
    """The margin is made of log-probabilities of responses (sum), or of means a token (mean; beta 2 to 10)."""
    sft_coef: float = 0.0
    """Weight of the mean negative log-probability a token of the chosen response, which keeps it from falling."""
    pairs_per_update: int | None = None
    """Pairs in an update; unset: 64."""
    pairs_per_prompt: int = 1
    """Pairs that are made of a comparison of more than two: those furthest apart first."""
    reference: Path | None = None
    """File of the starting model's log-probabilities, runs/NAME/reference.pt of an earlier run; unset: computed."""
    template: str = "auto"
    """Prompt template of data that is text: auto, chat (the tokenizer's own), qwen_math, r1, plain, or a file."""
    system: str | None = None
    """System message, put before each prompt by templates that have a place for it: chat, qwen_math, {system}."""
    chat_args: tuple[str, ...] = ()
    """Arguments of the chat template, NAME=VALUE each, as enable_thinking=false."""
    max_prompt_tokens: int | None = None
    """Pairs with a longer prompt are dropped and counted; unset: 32 (embedded) or 1024."""
    max_response_tokens: int | None = None
    """Pairs with a longer response are dropped and counted; unset: 96 (embedded) or 3000."""


POSITIVE = ("beta", "pairs_per_update", "pairs_per_prompt", "max_prompt_tokens", "max_response_tokens")


def asked(arguments: list[str] | None = None) -> Options:
    """The command line, filled in. An unknown flag ends the program with what exists. Raises: UserError."""
    options = completed(tyro.cli(Options, args=arguments, prog="python -m grpo.dpo"), "dpo", PRESETS)
    check_shared(options, "dpo")
    require(options, POSITIVE, "must be more than 0")
    require(options, ("sft_coef",), "must not be negative")
    check_prompts(options.template, options.system, options.chat_args)
    if not 0 <= options.label_smoothing < 0.5:
        raise UserError(
            f"--label-smoothing {options.label_smoothing} must be at least 0 and less than 0.5: with half of the "
            "labels turned around they say nothing."
        )
    if options.loss == "ipo" and options.label_smoothing:
        raise UserError(
            f"--label-smoothing {options.label_smoothing} with --loss ipo: ipo knows none. Leave it out, or use --loss "
            "sigmoid."
        )
    return options
