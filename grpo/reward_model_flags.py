"""The flags of `python -m grpo.reward_model`, and what is refused before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from grpo.flags import require
from grpo.preference_flags import PreferenceFlags, check_shared, completed

PRESETS = {
    "embedded": dict(learning_rate=5e-4, comparisons_per_update=32),
    "real": dict(learning_rate=1e-5, comparisons_per_update=64),
}
"""What an unset flag means: `embedded` without --model, `real` with it."""


@dataclass(frozen=True, kw_only=True)
class Options(PreferenceFlags):
    """Train a reward model from comparisons, to be used as GRPO_REWARD_MODEL=runs/NAME/model --reward reward_model."""

    comparisons_per_update: int | None = None
    """Comparisons in an update, each with all of its pairs; unset: 32 (embedded) or 64."""
    margin: float = 0.0
    """A difference of 1 in the scores asks for so much more in the rewards; 0: for none."""
    centre: float = 0.01
    """Weight of (reward + reward)^2 of a pair, which keeps rewards around 0; 0: none."""


def asked(arguments: list[str] | None = None) -> Options:
    """The command line, filled in. An unknown flag ends the program with what exists. Raises: UserError."""
    options = completed(tyro.cli(Options, args=arguments, prog="python -m grpo.reward_model"), "reward_model", PRESETS)
    check_shared(options, "reward_model")
    require(options, ("comparisons_per_update",), "must be more than 0")
    require(options, ("margin", "centre"), "must not be negative")
    return options
