"""The table: an algorithm is one row. Nothing in this project branches on an algorithm's name.

What the cells are is in row.py. What a row does otherwise than its paper is said in the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grpo.algorithm.row import Algorithm

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
    "ppo": Algorithm(
        advantage="gae",
        aggregation="token_mean",
        whiten=True,
        kl_coef=0.02,
        kl_in="reward",
        paper="Proximal Policy Optimization (arXiv 1707.06347), for language models Ziegler et al. (arXiv 1909.08593)",
        departures=(
            "a decay of 1 for the policy and the critic, where Ziegler et al. have 0.95: with a young critic it learns "
            "faster (VC-PPO, arXiv 2503.01491, says why: `--gae-lambda 0.95 --critic-warmup 8` is nearer to both)",
            "the critic is a model of its own, where Ziegler et al. add a head to the policy's layers",
            "after the last token of a response that was cut the value is 0: nothing is gained by not finishing",
        ),
    ),
    "trpo": Algorithm(
        advantage="centered",
        aggregation="token_mean",
        surrogate="unclipped",
        max_kl=0.003,
        paper="Trust Region Policy Optimization (arXiv 1502.05477), eq. 14 and appendix C",
        departures=(
            "the advantage is that of a group, where TRPO has a value function",
            "a KL of 0.003 nats a token, where the paper has 0.01 an action: larger steps ended lower here",
            "F and the line search take the whole batch, where the paper takes a part of it for F",
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
