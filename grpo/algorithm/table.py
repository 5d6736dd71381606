"""THE TABLE: an algorithm is one row. Nothing in this project branches on an algorithm's name.

Every ingredient of a row has a flag of the same name that overrides it (precedence: row < flag).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Algorithm:
    """Everything that one algorithm name means. The defaults are GRPO's where the rows agree."""

    advantage: str
    """How rewards become advantages: a name in advantages.ADVANTAGES."""
    aggregation: str
    """How token losses become one number: a name in aggregations.AGGREGATIONS."""
    surrogate: str = "clipped"
    """What is minimised per token: a name in losses.SURROGATES."""
    ratio: str = "token"
    """The ratio that it is made of: a name in losses.RATIOS."""
    clip_low: float = 0.2
    """The ratio is clipped below at 1 - clip_low ..."""
    clip_high: float = 0.2
    """... and above at 1 + clip_high."""
    ratio_cap: float = 5.0
    """Absolute cap of the ratio; read by the surrogate `cispo` alone."""
    kl_coef: float = 0.0
    """Weight of the KL to the frozen reference."""
    kl_estimator: str = "k3"
    """A name in kl.KL_ESTIMATORS; read where the KL is in the loss."""
    kl_in: str = "loss"
    """`loss`: a term of every token; `reward`: k1 summed over the response, subtracted from its reward."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    truncated: str = "zero"
    """What happens to a response cut at the token limit: `zero` reward (as the Dr. GRPO release), `mask` it out of the
    loss, or `keep` what the verifiers say."""
    penalties: tuple[str, ...] = ()
    """Verifiers that belong to the algorithm, added to those of --reward."""
    dynamic_sampling: int = 0
    """Times that a step may draw anew for groups whose rewards are all equal; 0: it does not."""
    importance_cap: float = 2.0
    """Cap of the importance weight that corrects the sampler-trainer gap; 0: no correction."""


ALGORITHMS: dict[str, Algorithm] = {
    # Williams 1992; CS336 lecture 17, loss mode `naive` on raw rewards. Departure: none.
    "reinforce": Algorithm(advantage="raw", aggregation="token_mean", surrogate="naive"),
    # CS336 lecture 17, `max_rewards` with its clipped loss and its clip range of 0.01. Departure: the ratio is exp of
    # the difference of the log-probabilities; the lecture's code divides them, which turns the gradient's sign.
    "max_reward": Algorithm(advantage="max_only", aggregation="token_mean", clip_low=0.01, clip_high=0.01),
    # Back to Basics (arXiv 2402.14740), eq. 8, with the summed log-probability of a response. Departure: the sum over
    # tokens is divided by the constant C, which only scales the learning rate; KL 0 (the paper puts it in the reward:
    # --kl-in reward --kl-coef 0.05).
    "rloo": Algorithm(advantage="leave_one_out", aggregation="constant", surrogate="unclipped"),
    # DeepSeekMath (arXiv 2402.03300), section 4.1.2 and eq. 3-4; beta 0.04 from section 4.2. Departures: the paper
    # does not name its std's ddof or eps (here 1 and 1e-4, as TRL); truncated responses score 0.
    "grpo": Algorithm(advantage="group_normalized", aggregation="sequence_mean", kl_coef=0.04),
    # Understanding R1-Zero-Like Training (arXiv 2503.20783), section 3.2: no std, and a constant instead of |o|;
    # both halves, or it is not Dr. GRPO. beta 0 as in the paper's experiments; C is --loss-constant.
    "dr_grpo": Algorithm(advantage="centered", aggregation="constant"),
    # DAPO (arXiv 2503.14476): clip-higher (section 3.1), dynamic sampling (3.2), token mean (3.3), soft overlong
    # penalty (3.4, eq. 13), no KL (2.3). Departures: dynamic sampling is bounded, so that a batch that cannot be filled
    # is completed with groups that teach nothing; the penalty's buffer is a fifth of the budget, as 4,096 of 20,480.
    "dapo": Algorithm(
        advantage="group_normalized",
        aggregation="token_mean",
        clip_high=0.28,
        truncated="keep",
        penalties=("overlong",),
        dynamic_sampling=3,
    ),
    # GSPO (arXiv 2507.18071), eq. 5 and 7; clip range from section 5.1; KL 0 as in the authors' release.
    "gspo": Algorithm(
        advantage="group_normalized", aggregation="sequence_mean", ratio="sequence", clip_low=3e-4, clip_high=4e-4
    ),
    # MiniMax-M1 (arXiv 2506.13585), eq. 4-5, without KL. Departure: the paper does not give its cap; 5.0 is that of
    # ScaleRL (arXiv 2510.13786) and of TRL.
    "cispo": Algorithm(advantage="group_normalized", aggregation="token_mean", surrogate="cispo", ratio_cap=5.0),
    # REINFORCE++ with baseline (arXiv 2501.03262), the variant for several responses a problem: group mean, deviation
    # of the whole batch, k2 as a loss. Departure: the KL's weight is not fixed by the method; 1e-3 here.
    "reinforce_pp": Algorithm(advantage="batch_normalized", aggregation="token_mean", kl_coef=1e-3, kl_estimator="k2"),
}

TRUNCATED = ("zero", "mask", "keep")
"""What `--truncated` accepts."""

FORMER_NAMES = {
    "centred": "centered",
    "group_normalised": "group_normalized",
    "batch_normalised": "batch_normalized",
}
"""Spellings of earlier versions, which flags, saved configs and recordings may still hold -> the name today."""
