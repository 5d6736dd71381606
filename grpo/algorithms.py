"""THE TABLE: an algorithm is one row. Nothing in this project branches on an algorithm's name.

Every ingredient of a row has a flag of the same name that overrides it (precedence: row < flag).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Algorithm:
    """Everything that one algorithm name means."""

    advantage: str
    """How rewards become advantages: a name in advantages.ADVANTAGES."""
    aggregation: str
    """How token losses become one number: a name in losses.AGGREGATIONS."""
    clip_low: float
    """The ratio is clipped below at 1 - clip_low ..."""
    clip_high: float
    """... and above at 1 + clip_high."""
    kl_coef: float
    """Weight of the KL to the frozen reference; 0 keeps no reference in memory."""
    kl_estimator: str = "k3"
    """A name in losses.KL_ESTIMATORS."""
    truncated: str = "zero"
    """What happens to a response cut at the token limit: `zero` reward (as the Dr. GRPO release), `mask` it out of the
    loss, or `keep` what the verifiers say."""
    importance_cap: float | None = 2.0
    """Cap of the importance weight that corrects the sampler-trainer gap; None: no correction."""


ALGORITHMS: dict[str, Algorithm] = {
    # DeepSeekMath (arXiv 2402.03300), section 4.1.2 and eq. 3-4; beta 0.04 from section 4.2. Departures: the paper
    # does not name its std's ddof or eps (here 1 and 1e-4, as TRL); truncated responses score 0.
    "grpo": Algorithm(
        advantage="group_normalised", aggregation="sequence_mean", clip_low=0.2, clip_high=0.2, kl_coef=0.04
    ),
    # Understanding R1-Zero-Like Training (arXiv 2503.20783), section 3.2: no std, and a constant instead of |o|;
    # both halves, or it is not Dr. GRPO. beta 0 as in the paper's experiments; C is --loss-constant.
    "dr_grpo": Algorithm(advantage="centred", aggregation="constant", clip_low=0.2, clip_high=0.2, kl_coef=0.0),
}


TRUNCATED = ("zero", "mask", "keep")
"""What `--truncated` accepts."""
