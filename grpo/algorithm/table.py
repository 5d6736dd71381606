"""The table: an algorithm is one row. Nothing in this project branches on an algorithm's name.

Every cell of a row has a flag of the same name that overrides it (precedence: row < flag). What a row does otherwise
than its paper is said in the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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


EVERYWHERE = (
    "token losses are multiplied by an importance weight for what the sampler computes otherwise than the trainer "
    "(peers do this by default; of the papers only ScaleRL, in its ratio), and truncated responses score at most 0 "
    "where the row says `zero`"
)
"""Departures of every row, said once."""

ALGORITHMS: dict[str, Algorithm] = {
    "reinforce": Algorithm(
        advantage="raw",
        aggregation="token_mean",
        surrogate="naive",
        paper="Williams 1992; CS336 lecture 17, `naive` on raw rewards",
        departures=("a mean over tokens, as the lecture's `.mean()`, where REINFORCE sums over the response",),
    ),
    "max_reward": Algorithm(
        advantage="max_only",
        aggregation="token_mean",
        clip_low=0.01,
        clip_high=0.01,
        paper="CS336 lecture 17, `max_rewards`, clip range 0.01",
        departures=(
            "the ratio is exp of the difference: the lecture's code divides log-probabilities, which turns "
            "the sign of the gradient",
        ),
    ),
    "rloo": Algorithm(
        advantage="leave_one_out",
        aggregation="constant",
        surrogate="unclipped",
        paper="Back to Basics (arXiv 2402.14740), eq. 8",
        departures=(
            "the sum over tokens is divided by C, which under AdamW with a clipped norm is not the same as a "
            "smaller learning rate",
            "KL 0, where the paper has 0.03 and TRL 0.05 in the reward: `--kl-in reward --kl-coef 0.03`",
            "with several updates the ratio is that of a token, unclipped, where the paper has that of the response",
        ),
    ),
    "grpo": Algorithm(
        advantage="group_normalized",
        aggregation="sequence_mean",
        kl_coef=0.04,
        paper="DeepSeekMath (arXiv 2402.03300), section 4.1, eq. 3 and 4",
        departures=("std with ddof 1 and eps 1e-4, and a clip range of 0.2, all as TRL: the paper names none of them",),
    ),
    "dr_grpo": Algorithm(
        advantage="centered",
        aggregation="constant",
        paper="Understanding R1-Zero-Like Training (arXiv 2503.20783), section 3.2: no std *and* a constant",
        departures=(
            "the sum over tokens is divided by B and C, as in the authors' release: the paper's equation has "
            "no divisor",
        ),
        notes=("C is the generation budget, `--loss-constant`",),
    ),
    "dapo": Algorithm(
        advantage="group_normalized",
        aggregation="token_mean",
        clip_high=0.28,
        truncated="keep",
        # Rewards are 0 and 1 here, and -1 and 1 there: half the weight makes the penalty what it is there. The
        # group's std takes out the common factor of two.
        penalties=("overlong=0.5",),
        uniform_groups="drop",
        dynamic_sampling=3,
        paper="DAPO (arXiv 2503.14476), sections 3.1 to 3.4, eq. 8 to 13",
        departures=(
            "dynamic sampling is bounded: groups that it could not replace are dropped from the loss",
            "divides by the tokens of the optimizer batch, as its code, where eq. 8 divides by those of the "
            "group: `--aggregation prompt_mean`",
        ),
        notes=(
            "rewards are 0 and 1, where the paper has -1 and 1, and the penalty counts half: but for the eps "
            "of the std this is the same",
            "the penalty's buffer is a fifth of the budget, as 4,096 of 20,480",
        ),
    ),
    "gspo": Algorithm(
        advantage="group_normalized",
        aggregation="sequence_mean",
        ratio="sequence",
        clip_low=3e-4,
        clip_high=4e-4,
        paper="GSPO (arXiv 2507.18071), eq. 5 and 7; clip range of section 5.1",
        departures=(
            "importance weights are those of tokens, which act on the response's one surrogate through their mean",
        ),
        notes=("KL 0, as the authors say in their code's discussion",),
    ),
    "luspo": Algorithm(
        advantage="group_normalized",
        aggregation="constant",
        ratio="sequence",
        clip_low=2e-3,
        clip_high=2.5e-3,
        paper="LUSPO (arXiv 2602.05261), eq. 7: GSPO times the response's length; clip range of section 5.1",
        departures=(
            "divided by the constant C, so that the loss is 1/C of the paper's",
            "importance weights are those of tokens, which act on the response's one surrogate through their mean",
        ),
    ),
    "gmpo": Algorithm(
        advantage="group_normalized",
        aggregation="sequence_mean",
        surrogate="geometric",
        clip_low=0.4,
        clip_high=0.4,
        paper="GMPO (arXiv 2507.20673): the geometric mean of clipped token ratios, clip range (e^-0.4, e^0.4)",
        departures=("the importance weight multiplies each token afterwards, outside the geometric mean",),
    ),
    "sapo": Algorithm(
        advantage="group_normalized",
        aggregation="sequence_mean",
        surrogate="soft_gate",
        paper="SAPO (arXiv 2511.20347): a soft gate instead of a clip, temperatures 1.0 and 1.05",
        notes=("the value of the loss, 2A/temperature at a ratio of 1, means nothing by itself",),
    ),
    "cispo": Algorithm(
        advantage="group_normalized",
        aggregation="token_mean",
        surrogate="cispo",
        ratio_cap=5.0,
        paper="MiniMax-M1 (arXiv 2506.13585), eq. 4 and 5",
        departures=(
            "cap 5, that of ScaleRL's experiments and TRL: the paper gives none",
            "divides by the tokens of the optimizer batch, where eq. 4 divides by those of the group",
            "without DAPO's dynamic sampling and penalty, which the paper uses",
        ),
    ),
    "scale_rl": Algorithm(
        advantage="batch_normalized",
        aggregation="prompt_mean",
        surrogate="cispo",
        ratio_cap=5.0,
        uniform_groups="drop",
        paper="ScaleRL (arXiv 2510.13786), section 4",
        departures=(
            "the ingredients of the loss alone, without forced interruptions, "
            "no-positive-resampling and the asynchronous pipeline",
            "the paper's ratio has the sampler in its denominator: here it is the old policy's times the "
            "importance weight",
            "the deviation is taken with the dropped groups in it",
            "with several updates a step a problem weighs the same in each update in which it has a response",
        ),
        notes=("cap 5, of the 4, 5 and 8 that the paper finds alike",),
    ),
    "lite_ppo": Algorithm(
        advantage="batch_scaled",
        aggregation="token_mean",
        paper="Tricks or Traps? (arXiv 2508.08221), takeaway 3: group mean, deviation of the batch's raw rewards",
        departures=("clip range 0.2 and no KL, as its code: the paper's text names neither",),
    ),
    "maxrl": Algorithm(
        advantage="mean_normalized",
        aggregation="token_mean",
        paper="Maximum Likelihood RL (arXiv 2602.02710), algorithm 1",
        departures=(
            "no eps beside the mean (authors' code: 1e-6)",
            "a mean over tokens and the clip of 0.2, as the authors' code: algorithm 1 sums over the "
            "response, without a clip",
        ),
        notes=("for rewards of at least 0: neither penalties nor a KL in the reward",),
    ),
    "reinforce_pp": Algorithm(
        advantage="batch_normalized",
        aggregation="token_mean",
        kl_coef=1e-3,
        kl_estimator="k2",
        paper="REINFORCE++ (arXiv 2501.03262), the variant with a baseline, eq. 6 to 8",
        departures=(
            "the deviation is over responses, as eq. 7 reads (OpenRLHF and verl: over tokens)",
            "a mean over tokens, as the code, where eq. 1 has 1/|o|",
            "the weight of the KL is 1e-3, which the text of the variant does not give",
        ),
    ),
    "online_dpo": Algorithm(
        advantage="best_worst",
        aggregation="constant",
        surrogate="naive",
        importance="none",
        paper="Direct Language Model Alignment from Online AI Feedback (arXiv 2402.04792), with DPO's loss",
        departures=(
            "the best and the worst of a group of G by its rewards, where the paper has a judge compare two responses",
            "the gradient is DPO's times 1 / (G C), and that of a mean over all groups, those that are tied included",
        ),
        notes=("no importance weight: DPO's loss holds for pairs of any origin",),
    ),
}

FORMER_NAMES = {
    "centred": "centered",
    "group_normalised": "group_normalized",
    "batch_normalised": "batch_normalized",
}
"""Advantages as earlier versions spelled them, which flags and saved configs may still hold -> the name today."""


def in_todays_words(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json of an earlier version with the names and meanings of this one; one of this version as it is."""
    settings = dict(saved)
    if "advantage" in settings:
        settings["advantage"] = FORMER_NAMES.get(settings["advantage"], settings["advantage"])
    if "importance" not in settings and settings.get("importance_cap") == 2.0:  # the default then, today None
        settings["importance_cap"] = None
    return settings
