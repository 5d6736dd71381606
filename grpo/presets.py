"""What a flag left unset means where the algorithm's row does not say: for the embedded model, and for any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

EMBEDDED_MODEL = Path(__file__).resolve().parent / "tiny_model"

PRESETS: dict[str, dict[str, Any]] = {
    # The tiny model of this package: learns its task in about three minutes on two cores.
    "embedded": dict(
        data="arithmetic",
        steps=100,
        learning_rate=2e-4,
        problems_per_step=16,
        responses_per_problem=8,
        updates_per_step=1,
        max_prompt_tokens=32,
        max_response_tokens=96,
        gradient_checkpointing=False,
        eval_every=20,
        save_every=0,
        eval_problems=256,
        log_kl=True,
    ),
    # Any other model: the published Dr. GRPO recipe for Qwen2.5-Math-1.5B, 8 updates of 128 responses.
    "real": dict(
        data="math12k",
        steps=500,
        learning_rate=1e-6,
        problems_per_step=128,
        responses_per_problem=8,
        updates_per_step=8,
        max_prompt_tokens=1024,
        max_response_tokens=3000,
        gradient_checkpointing=True,
        eval_every=50,
        save_every=50,
        eval_problems=500,
        log_kl=False,
    ),
}
"""What an unset flag means: `embedded` without --model, `real` with it."""


def preset_of(model: str | None) -> dict[str, Any]:
    """What unset flags mean for a model; None: for the embedded one."""
    return PRESETS["embedded" if model in (None, str(EMBEDDED_MODEL)) else "real"]


LORA_RATE = 10
"""What the learning rate of a preset is multiplied by for a LoRA adapter, whose best rate is about ten times that of
all weights (Schulman et al. 2025, "LoRA Without Regret")."""

WITHOUT_PLAN = {"micro_batch_tokens": 8192, "memory_fraction": 0.4, "concurrency": 256}
"""What these mean where there is no card to plan for; card.py fills them where there is one. Of larger passes on a CPU
a tenth or more of the time goes to memory that the system hands out anew (scripts/README.md)."""
