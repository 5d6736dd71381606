"""Flags -> a config that can run: what is unset is filled in, and what cannot work is refused in one paragraph.

Nothing heavy is loaded before this has passed.
"""

from __future__ import annotations

import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import torch
import tyro

from grpo.algorithm.advantages import FORMER_NAMES, AdvantageInputs
from grpo.algorithm.importance import limits
from grpo.algorithm.ingredients import load_advantage, load_aggregation, load_loss_term
from grpo.algorithm.table import ALGORITHMS
from grpo.config import Config
from grpo.errors import UserError
from grpo.flags import check_choices, check_device, require
from grpo.presets import EMBEDDED_MODEL, PRESETS
from grpo.problems.rows import data_rewards

RULES = {
    "must be more than 0": (
        "problems_per_step",
        "responses_per_problem",
        "updates_per_step",
        "kl_horizon",
        "gate_positive",
        "gate_negative",
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
    ),
    "must not be negative": (
        "clip_low",
        "clip_high",
        "kl_coef",
        "old_kl_coef",
        "dual_clip",
        "importance_low",
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
    ),
    "is a share: more than 0, at most 1": ("memory_fraction", "verifier_max_failures"),
    "must be at least 0 and less than 1": ("adam_beta1", "adam_beta2"),
}
"""Rule -> the flags that keep it."""


def parse(arguments: list[str] | None = None) -> Config:
    """The command line -> a resolved, checked config. An unknown flag ends the program with what exists."""
    return resolve(tyro.cli(Config, args=arguments, prog="python -m grpo.train"))


def resolve(config: Config) -> Config:
    """Fill what is unset from the preset and the algorithm's row, and check the result. Raises: UserError."""
    if config.algo not in ALGORITHMS:
        raise UserError(f"There is no algorithm '{config.algo}'. --algo takes: {', '.join(ALGORITHMS)}.")
    preset = PRESETS["embedded" if config.model is None else "real"]
    model = config.model or str(EMBEDDED_MODEL)
    filled = {**preset, **asdict(ALGORITHMS[config.algo]), "model": model}
    unset = {field.name for field in fields(Config) if getattr(config, field.name) is None}
    config = replace(config, **{name: value for name, value in filled.items() if name in unset})
    config = replace(config, advantage=FORMER_NAMES.get(config.advantage, config.advantage))
    if config.reward is None:
        config = replace(config, reward=data_rewards(config.data))
    if config.loss_constant is None:
        config = replace(config, loss_constant=float(config.max_response_tokens))
    if config.name is None:
        place = "tiny" if config.embedded else Path(config.model).name
        config = replace(config, name=f"{config.algo}-{place}-{time.strftime('%Y%m%d-%H%M%S')}")
    check(config)
    return config


def check(config: Config) -> None:
    """Refuse what cannot work. Raises: UserError."""
    check_choices(config)
    for rule, names in RULES.items():
        require(config, names, rule)
    check_device(config.device)
    check_step(config)
    check_algorithm(config)
    check_folder(config)


def check_step(config: Config) -> None:
    """The numbers of a step, and the seed. Raises: UserError."""
    if not 0 <= config.seed < 2**32:
        raise UserError(f"--seed {config.seed} must be at least 0 and less than 2^32.")
    if config.responses_per_step % config.updates_per_step:
        raise UserError(
            f"A step has {config.problems_per_step} problems x {config.responses_per_problem} responses = "
            f"{config.responses_per_step} responses, which do not divide into --updates-per-step "
            f"{config.updates_per_step} equal updates. Choose a divisor of {config.responses_per_step}."
        )
    if config.eval_responses > 1 and config.eval_temperature == 0:
        raise UserError(
            f"--eval-responses {config.eval_responses} with --eval-temperature 0: greedy responses to a problem are "
            "all the same. Use 1 of them, or a temperature above 0."
        )


def check_algorithm(config: Config) -> None:
    """Ingredients that exist and fit together; a user's own are called on an example. Raises: UserError."""
    if config.clip_low >= 1:
        raise UserError(f"--clip-low {config.clip_low} must be less than 1: the ratio is never negative.")
    load_aggregation(config.aggregation, config.loss_constant)
    load_loss_term(config.loss_term)
    lone = load_advantage(config.advantage)(AdvantageInputs.of_rewards(torch.ones(1, 1)))
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
    check_cells(config)


def check_cells(config: Config) -> None:
    """Cells that would do nothing, or something else than they say, beside the others. Raises: UserError."""
    if config.dual_clip and config.surrogate != "clipped":
        raise UserError(
            f"--dual-clip {config.dual_clip} is for --surrogate clipped, and has no meaning for "
            f"{config.surrogate}. Leave it out."
        )
    if config.dual_clip and config.dual_clip <= 1 + config.clip_high:
        raise UserError(
            f"--dual-clip {config.dual_clip} must be more than 1 + --clip-high = {1 + config.clip_high:g}: below it "
            "it would cut what the clip lets through. 3 is usual; 0 is none."
        )
    if config.surrogate == "geometric" and config.ratio != "token":
        raise UserError(
            f"--surrogate geometric makes its own ratio of the tokens', so --ratio {config.ratio} has no meaning "
            "beside it. Use --ratio token."
        )
    low, high = limits(config.row)
    if config.importance not in ("none", "truncate") and config.importance_cap != 0 and low > high:
        raise UserError(f"--importance-low {low:g} is above --importance-cap {high:g}: every token would be masked.")
    if config.importance_low is not None and config.importance in ("none", "truncate"):
        raise UserError(
            f"--importance-low {config.importance_low:g} has no meaning for --importance {config.importance}. It is "
            "for mask and sequence_mask."
        )
    if config.old_kl_coef and not config.off_policy:
        raise UserError(
            f"--old-kl-coef {config.old_kl_coef} weighs the KL to the policy that sampled, which is 0 with one update "
            "a step. Raise --updates-per-step or --epochs-per-step, or leave it out."
        )
    if config.old_kl_target is not None and not (config.old_kl_target > 0 and config.old_kl_coef):
        raise UserError(
            f"--old-kl-target {config.old_kl_target} adapts the weight of the KL to the policy that sampled, so it "
            f"must be more than 0 and needs an --old-kl-coef to start from (now {config.old_kl_coef})."
        )
    if config.advantage == "mean_normalized" and (config.penalties or config.kl_in == "reward"):
        raise UserError(
            "--advantage mean_normalized divides by a group's mean reward, which penalties and a KL in the reward make "
            "negative. Leave out --penalties, and use --kl-in loss."
        )


def check_folder(config: Config) -> None:
    """A new run has a new folder, a resumed one its own. Raises: UserError."""
    folder = config.run_folder
    if config.resume and not folder.is_dir():
        raise UserError(f"--resume: there is no run folder {folder}. Name the run to continue by --name.")
    if not config.resume and folder.exists():
        raise UserError(f"The run folder {folder} exists already. Choose another --name, or continue it by --resume.")
