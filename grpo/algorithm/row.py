"""A row of the table: the cells in which algorithms differ.

Every cell has a flag of the same name that overrides it (precedence: row < flag). Names lead to pure functions.
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
    """What is minimised per token: a name in surrogates.SURROGATES."""
    ratio: str = "token"
    """The ratio that it is made of: a name in ratios.RATIOS."""
    clip_low: float = 0.2
    """The ratio is clipped below at 1 - clip_low ..."""
    clip_high: float = 0.2
    """... and above at 1 + clip_high; for `geometric` both are limits of the ratio's logarithm."""
    dual_clip: float = 0.0
    """For `clipped`: where the advantage is negative, the loss stops growing at this ratio; 0: it does not."""
    ratio_cap: float = 5.0
    """Absolute cap of the ratio; read by the surrogate `cispo` alone."""
    gate_positive: float = 1.0
    """For `soft_gate`: its temperature where the advantage is positive ..."""
    gate_negative: float = 1.05
    """... and elsewhere; the higher, the sooner a token loses its pull."""
    kl_coef: float = 0.0
    """Weight of the KL to the frozen reference."""
    kl_estimator: str = "k3"
    """A name in kl.KL_ESTIMATORS; read where the KL is in the loss."""
    kl_in: str = "loss"
    """`loss`: a term of every token; `reward`: k1 summed over the response, subtracted from its reward."""
    old_kl_coef: float = 0.0
    """Weight of the KL of the policy that sampled to the current one: PPO's penalty."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    dpo_beta: float = 0.1
    """For the advantage `best_worst`: how much a departure from the reference costs."""
    max_kl: float = 0.0
    """Trust region: an update moves the policy by this KL at most, nats a token (model/trust_region.py); 0: AdamW's."""
    discount: float = 1.0
    """For the advantage `gae`: what a reward is worth a token earlier."""
    gae_lambda: float = 1.0
    """For `gae`: how far ahead a token's advantage looks; 1 to the end, 0 to the next value."""
    critic_lambda: float = 1.0
    """For `gae`: the same, for the returns that the critic learns."""
    whiten: bool = False
    """For `gae`: advantages less their mean, over their standard deviation, of all response tokens of the step."""
    value_clip: float = 0.2
    """For `gae`: how far a value may move in a step and gain by it; 0: as far as it likes."""
    truncated: str = "zero"
    """What happens to a response cut at the token limit: `zero`, a reward of at most 0 (for rewards of 0 and 1 that is
    the Dr. GRPO release's 0); `mask`, out of the loss; `keep`, what the verifiers say."""
    penalties: tuple[str, ...] = ()
    """Verifiers that belong to the algorithm, added to those of --reward."""
    uniform_groups: str = "keep"
    """Groups whose first verifier gives all responses the same: `keep` them, or `drop` their tokens from the loss."""
    dynamic_sampling: int = 0
    """Times that a step may draw anew for such groups, which are then dropped where they are left; 0: it does not."""
    importance: str = "truncate"
    """What is done about the sampler's log-probabilities not being the trainer's: a name in choices.IMPORTANCE."""
    importance_low: float | None = None
    """Lower limit of the importance weight, for those that mask; None: choices.LIMITS has it."""
    importance_cap: float | None = None
    """Upper limit of it; None: choices.LIMITS has it; 0: no correction."""
    paper: str = ""
    """Where the row comes from."""
    departures: tuple[str, ...] = ()
    """What it does otherwise, one point each."""
    notes: tuple[str, ...] = ()
    """What is as in the paper, though it may not look so."""

    @property
    def of_tokens(self) -> bool:
        """Whether the loss of a token depends on no other token of its response."""
        of_response = self.surrogate == "geometric" or self.importance == "sequence_mask"
        return self.ratio == "token" and not of_response
