"""What a config is refused for, in one paragraph each, before anything heavy is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from grpo import plugins
from grpo.algorithm.advantages import ADVANTAGES
from grpo.algorithm.aggregations import AGGREGATIONS
from grpo.algorithm.kl import KL_ESTIMATORS, KL_PLACES
from grpo.algorithm.losses import RATIOS, SURROGATES
from grpo.algorithm.table import TRUNCATED
from grpo.engines.choose import ENGINES
from grpo.errors import UserError
from grpo.logs.wandb_run import WANDB_MODES
from grpo.problems.templates import TEMPLATES

if TYPE_CHECKING:
    from grpo.config import Config

CHOICES = {
    "surrogate": SURROGATES,
    "ratio": RATIOS,
    "kl_estimator": KL_ESTIMATORS,
    "kl_in": KL_PLACES,
    "truncated": TRUNCATED,
    "template": ("auto", "chat", *TEMPLATES),
    "engine": ENGINES,
    "wandb": WANDB_MODES,
    "device": ("auto", "cpu", "cuda"),
}
"""Knob -> the values that exist."""
POSITIVE = (
    "problems_per_step",
    "responses_per_problem",
    "updates_per_step",
    "epochs_per_step",
    "steps",
    "max_prompt_tokens",
    "max_response_tokens",
    "micro_batch_tokens",
    "eval_responses",
    "verifier_workers",
    "verifier_memory_limit",
    "temperature",
    "learning_rate",
    "max_grad_norm",
    "loss_constant",
    "ratio_cap",
    "kv_cache_gib",
    "verifier_time_limit",
)
"""Knobs that must be more than 0."""
NOT_NEGATIVE = (
    "clip_low",
    "clip_high",
    "kl_coef",
    "entropy_coef",
    "dynamic_sampling",
    "importance_cap",
    "weight_decay",
    "warmup_updates",
    "eval_every",
    "eval_problems",
    "eval_temperature",
    "save_every",
    "log_samples",
    "sync_tolerance",
)
"""Knobs that may be 0 (or unset)."""
SHARES = ("memory_fraction", "verifier_max_failures")
"""Knobs that are more than 0 and at most 1."""


def check(config: Config) -> None:
    """Refuse what cannot work. Raises: UserError."""
    for name, allowed in CHOICES.items():
        value = getattr(config, name)
        if value not in allowed:
            raise UserError(f"{_flag(name)} {value} does not exist. {_flag(name)} takes: {', '.join(allowed)}.")
    for name in POSITIVE:
        _require(config, name, getattr(config, name) > 0, "must be more than 0")
    for name in NOT_NEGATIVE:
        value = getattr(config, name)
        _require(config, name, value is None or value >= 0, "must not be negative")
    for name in SHARES:
        _require(config, name, 0 < getattr(config, name) <= 1, "is a share: more than 0, at most 1")
    for name in ("adam_beta1", "adam_beta2"):
        _require(config, name, 0 <= getattr(config, name) < 1, "must be at least 0 and less than 1")
    _require(config, "seed", 0 <= config.seed < 2**32, "must be at least 0 and less than 2^32")
    _require(config, "clip_low", config.clip_low < 1, "must be less than 1: the ratio is never negative")
    if config.responses_per_step % config.updates_per_step:
        raise UserError(
            f"A step has {config.problems_per_step} problems x {config.responses_per_problem} responses = "
            f"{config.responses_per_step} responses, which do not divide into --updates-per-step "
            f"{config.updates_per_step} equal updates. Choose a divisor of {config.responses_per_step}."
        )
    plugins.ingredient(config.aggregation, AGGREGATIONS, "aggregation")
    if config.loss_term is not None:
        plugins.ingredient(config.loss_term, {}, "loss-term")
    lone = plugins.ingredient(config.advantage, ADVANTAGES, "advantage")(torch.ones(1, 1))
    if config.responses_per_problem == 1 and not lone.any():
        raise UserError(
            f"--responses-per-problem 1 with --advantage {config.advantage}: a response is compared with its group, "
            "and in a group of one every advantage is 0, so nothing would be learnt. Use 2 or more (8 is usual)."
        )
    if config.kl_target is not None and not (config.kl_target > 0 and config.kl_coef):
        raise UserError(
            f"--kl-target {config.kl_target} adapts the KL's weight, so it must be more than 0 and needs a --kl-coef "
            f"to start from (now {config.kl_coef})."
        )
    if config.eval_responses > 1 and config.eval_temperature == 0:
        raise UserError(
            f"--eval-responses {config.eval_responses} with --eval-temperature 0: greedy responses to a problem are "
            "all the same. Use 1 of them, or a temperature above 0."
        )
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but torch sees no CUDA device here. Use --device cpu, or leave it at auto.")
    folder = config.run_folder
    if config.resume and not folder.is_dir():
        raise UserError(f"--resume: there is no run folder {folder}. Name the run to continue by --name.")
    if not config.resume and folder.exists():
        raise UserError(f"The run folder {folder} exists already. Choose another --name, or continue it by --resume.")


def _require(config: Config, name: str, holds: bool, rule: str) -> None:
    if not holds:
        raise UserError(f"{_flag(name)} {getattr(config, name)} {rule}.")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
