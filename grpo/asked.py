"""What is asked for: flags -> a config, filled in and refused as far as names, numbers and files of it go.

No library is imported for it but the command line's own, so that `--help` and a refusal are there at once. resolve.py
goes on with what needs torch.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import asdict, fields, replace
from pathlib import Path

import tyro

from grpo import plugins
from grpo.algorithm.choices import ADVANTAGE_NAMES, PAIRED, WITH_CRITIC, WITHOUT_COMPARISON
from grpo.algorithm.table import ALGORITHMS, FORMER_NAMES
from grpo.cells import check_cells
from grpo.config import Config
from grpo.errors import UserError
from grpo.flags import check_choices, check_head, require
from grpo.hub_push import check_push
from grpo.logs.log_targets import check_log_targets
from grpo.model.model_folder import check_model_files
from grpo.model.settings import check_optimizer
from grpo.presets import EMBEDDED_MODEL, LORA_RATE, preset_of
from grpo.problems.rows import data_rewards
from grpo.problems.templates import check_prompts
from grpo.resume import resumed
from grpo.rows_of_run import check_data
from grpo.update_checks import check_critic, check_lora, check_old_kl, check_ptx, check_trust_region

RULES = {
    "must be more than 0": (
        "problems_per_step",
        "responses_per_problem",
        "updates_per_step",
        "kl_horizon",
        "gate_positive",
        "gate_negative",
        "dpo_beta",
        "ptx_coef",
        "ptx_per_update",
        "epochs_per_step",
        "steps",
        "max_prompt_tokens",
        "max_response_tokens",
        "micro_batch_tokens",
        "concurrency",
        "plan_for",
        "plan_ranks",
        "eval_responses",
        "verifier_workers",
        "tensor_parallel",
        "temperature",
        "lora_rank",
        "lora_alpha",
        "max_grad_norm",
        "loss_constant",
        "ratio_cap",
        "kv_cache_gib",
        "keep",
        "verifier_time_limit",
        "rank_minutes",
        "correct_at",
    ),
    "must not be negative": (
        "learning_rate",
        "verifier_memory_limit",
        "clip_low",
        "clip_high",
        "kl_coef",
        "old_kl_coef",
        "dual_clip",
        "importance_low",
        "entropy_coef",
        "max_kl",
        "value_clip",
        "critic_learning_rate",
        "critic_warmup",
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
    "must not be more than 2": ("temperature", "eval_temperature"),  # which vLLM refuses
    "must be 0.01 or more (vLLM takes a lower one for 0.01)": ("temperature", "eval_temperature"),
    "must be at least 0 and at most 1": ("discount", "gae_lambda", "critic_lambda"),
    "must be at least 0 and less than 1": ("adam_beta1", "adam_beta2"),
}
"""Rule -> the flags that keep it."""


def check_command(arguments: list[str] | None = None) -> None:
    """All of `python -m grpo.train` that can be refused without torch. Raises: UserError."""
    config = asked(arguments)
    if not config.planned:  # a plan reads the model's config alone
        check_optimizer(config.optimizer, config.device)
        check_data(config)
        if not config.resume:  # it goes on from a checkpoint
            check_model_files(config.model)


def asked(arguments: list[str] | None = None) -> Config:
    """The command line -> a config. An unknown flag ends the program with what exists. Raises: UserError."""
    flags = tyro.cli(Config, args=arguments, prog="python -m grpo.train")
    if flags.resume:
        return completed(resumed(arguments, flags), given=())  # what the run was begun with has passed
    return completed(flags)


def completed(config: Config, given: Collection[str] | None = None) -> Config:
    """Fill what is unset from the preset and the algorithm's row, and check the result. Raises: UserError.

    What depends on the card that is here stays unset (resolve.py). given: the cells that the user has set, as far as
    they are to be checked against the rest; unset: all that are set.
    """
    if config.algo not in ALGORITHMS:
        raise UserError(f"There is no algorithm '{config.algo}'. --algo takes: {', '.join(ALGORITHMS)}.")
    given = config.given() if given is None else given
    preset = preset_of(config.model)
    model = config.model or str(EMBEDDED_MODEL)
    filled = {**preset, **asdict(ALGORITHMS[config.algo]), "model": model}
    unset = {field.name for field in fields(Config) if getattr(config, field.name) is None}
    config = replace(config, **{name: value for name, value in filled.items() if name in unset})
    config = replace(config, advantage=FORMER_NAMES.get(config.advantage, config.advantage))
    if (config.advantage in PAIRED or config.max_kl) and "updates_per_step" in unset:
        config = replace(config, updates_per_step=1)
    if config.advantage in WITH_CRITIC and config.critic_learning_rate is None:
        config = replace(config, critic_learning_rate=5e-4 if config.embedded else 1e-5)
    if config.ptx_data is not None and config.ptx_per_update is None:
        config = replace(config, ptx_per_update=8)
    if config.lora_rank is not None:
        unset_rate = "learning_rate" in unset
        config = replace(
            config,
            lora_alpha=2.0 * config.lora_rank if config.lora_alpha is None else config.lora_alpha,
            learning_rate=LORA_RATE * config.learning_rate if unset_rate else config.learning_rate,
        )
    if config.reward is None:
        config = replace(config, reward=data_rewards(config.data))
    if config.loss_constant is None:
        config = replace(config, loss_constant=float(config.max_response_tokens))
    if config.name is None:
        place = "tiny" if config.embedded else Path(config.model).name
        config = replace(config, name=f"{config.algo}-{place}-{time.strftime('%Y%m%d-%H%M%S')}")
    check(config, given)
    return config


def check(config: Config, given: Collection[str]) -> None:
    """Refuse what cannot work; `given`: the cells that a flag has set. Raises: UserError."""
    check_choices(config)
    check_prompts(**config.prompting)
    for rule, names in RULES.items():
        require(config, names, rule)
    if not config.planned:
        check_log_targets(config.log_to)
        check_push(config.push_to_hub)
        check_head(config, config.device)
    check_step(config)
    check_lora(config)
    check_algorithm(config)
    check_cells(config.row, given)
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
    updates = config.optimizer_settings.updates
    if config.schedule != "constant" and config.warmup_updates >= updates:
        raise UserError(
            f"--schedule {config.schedule} would do nothing: the warm-up of --warmup-updates {config.warmup_updates} "
            f"takes all {updates} updates of the run. Lower it, or leave --schedule out."
        )
    if config.eval_responses > 1 and config.eval_temperature == 0:
        raise UserError(
            f"--eval-responses {config.eval_responses} with --eval-temperature 0: greedy responses to a problem are "
            "all the same. Use 1 of them, or a temperature above 0."
        )


def check_algorithm(config: Config) -> None:
    """What belongs to the algorithm's row, and is no cell of it. Raises: UserError."""
    if config.loss_term is not None:
        plugins.own_ingredient(config.loss_term, (), "loss-term")
    if config.advantage in ADVANTAGE_NAMES and config.advantage not in WITHOUT_COMPARISON:
        check_group_size(config)
    if config.advantage in PAIRED and config.off_policy:
        raise UserError(
            f"--advantage {config.advantage} with --updates-per-step {config.updates_per_step} and --epochs-per-step "
            f"{config.epochs_per_step}: the slope of a pair's loss is computed once a step, and a second update "
            "would follow a stale one. Use 1 of each, or more steps of fewer problems."
        )
    check_trust_region(config)
    check_critic(config)
    check_ptx(config)
    if config.kl_target is not None and not (config.kl_target > 0 and config.kl_coef):
        raise UserError(
            f"--kl-target {config.kl_target} adapts the KL's weight, so it must be more than 0 and needs a --kl-coef "
            f"to start from (now {config.kl_coef})."
        )
    check_old_kl(config)


def check_group_size(config: Config) -> None:
    """For an advantage that compares a response with its group. Raises: UserError for a group of one."""
    if config.responses_per_problem == 1:
        raise UserError(
            f"--responses-per-problem 1 with --advantage {config.advantage}: a response is compared with its group, "
            "and in a group of one every advantage is 0, so nothing would be learnt. Use 2 or more (8 is usual)."
        )


def check_folder(config: Config) -> None:
    """A new run has a new folder, a resumed one its own. Raises: UserError."""
    folder = config.run_folder
    if config.resume and not folder.is_dir():
        raise UserError(f"--resume: there is no run folder {folder}. Name the run to continue by --name.")
    if not config.resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"The run folder {folder} exists already. Choose another --name, or continue it by --resume.")
