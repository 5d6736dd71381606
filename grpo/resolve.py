"""Flags -> a config that can run: what is unset is filled in, and what cannot work is refused in one paragraph.

Nothing heavy is loaded before this has passed.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import asdict, fields, replace
from pathlib import Path

import tyro

from grpo.algorithm.ingredients import load_advantage, load_aggregation, load_loss_term, one_response
from grpo.algorithm.table import ALGORITHMS, FORMER_NAMES
from grpo.cells import check_cells
from grpo.config import Config
from grpo.engines.choose import choose_engine
from grpo.errors import UserError
from grpo.flags import check_choices, check_device, check_head, flag, require, torch_device
from grpo.model.ranks import Ranks
from grpo.presets import EMBEDDED_MODEL, LORA_RATE, PRESETS, WITHOUT_PLAN
from grpo.problems.rows import data_rewards
from grpo.resume import resumed

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
        "concurrency",
        "plan_for",
        "plan_ranks",
        "eval_responses",
        "verifier_workers",
        "tensor_parallel",
        "temperature",
        "learning_rate",
        "lora_rank",
        "lora_alpha",
        "max_grad_norm",
        "loss_constant",
        "ratio_cap",
        "kv_cache_gib",
        "keep",
        "verifier_time_limit",
        "rank_minutes",
    ),
    "must not be negative": (
        "verifier_memory_limit",
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
    "must not be more than 2": ("temperature", "eval_temperature"),  # which vLLM refuses
    "must be 0.01 or more (vLLM takes a lower one for 0.01)": ("temperature", "eval_temperature"),
    "must be at least 0 and less than 1": ("adam_beta1", "adam_beta2"),
}
"""Rule -> the flags that keep it."""


def parse(arguments: list[str] | None = None) -> Config:
    """The command line -> a resolved, checked config. An unknown flag ends the program with what exists."""
    asked = tyro.cli(Config, args=arguments, prog="python -m grpo.train")
    if asked.resume:
        return resolve(resumed(arguments, asked), given=())  # what the run was begun with has passed
    return resolve(asked)


def resolve(config: Config, given: Collection[str] | None = None) -> Config:
    """Fill what is unset from the preset and the algorithm's row, and check the result. Raises: UserError.

    given: the cells that the user has set, as far as they are to be checked against the rest; unset: all that are set.
    """
    if config.algo not in ALGORITHMS:
        raise UserError(f"There is no algorithm '{config.algo}'. --algo takes: {', '.join(ALGORITHMS)}.")
    given = config.given() if given is None else given
    preset = PRESETS["embedded" if config.model in (None, str(EMBEDDED_MODEL)) else "real"]
    model = config.model or str(EMBEDDED_MODEL)
    filled = {**preset, **asdict(ALGORITHMS[config.algo]), "model": model}
    unset = {field.name for field in fields(Config) if getattr(config, field.name) is None}
    config = replace(config, **{name: value for name, value in filled.items() if name in unset})
    config = replace(config, advantage=FORMER_NAMES.get(config.advantage, config.advantage))
    if not config.planned and torch_device(config) == "cpu":  # on a card the plan of its memory picks them
        config = replace(config, **{k: v for k, v in WITHOUT_PLAN.items() if getattr(config, k) is None})
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
    for rule, names in RULES.items():
        require(config, names, rule)
    check_device(config.device)
    if not config.planned:
        check_head(config)
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
    if config.eval_responses > 1 and config.eval_temperature == 0:
        raise UserError(
            f"--eval-responses {config.eval_responses} with --eval-temperature 0: greedy responses to a problem are "
            "all the same. Use 1 of them, or a temperature above 0."
        )


def check_lora(config: Config) -> None:
    """The flags of an adapter are there for one. Raises: UserError."""
    others = {"--lora-alpha": config.lora_alpha, "--lora-targets": config.lora_targets}
    if config.lora_rank is None and (given := [name for name, value in others.items() if value is not None]):
        raise UserError(
            f"{' and '.join(given)} without --lora-rank: all weights would be trained, and there is no adapter. Give a "
            "rank, such as --lora-rank 16, or leave it out."
        )
    if config.lora_rank is not None and config.reference_device == "cpu":
        raise UserError(
            "--reference-device cpu with --lora-rank: the reference is the model with its adapter switched off. There "
            "is no second model that could rest on the host, and no memory to save. Leave --reference-device out."
        )


def check_algorithm(config: Config) -> None:
    """Ingredients that exist and fit together; a user's own are called on an example. Raises: UserError."""
    load_aggregation(config.aggregation, config.loss_constant)
    load_loss_term(config.loss_term)
    lone = load_advantage(config.advantage)(one_response())
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
    check_old_kl(config)


def check_old_kl(config: Config) -> None:
    """PPO's penalty needs a second update, and its target a weight to start from. Raises: UserError."""
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


def check_ranks(config: Config, ranks: int) -> None:
    """What several processes cannot do, or one cannot. Raises: UserError."""
    if config.planned and ranks == 1:
        ranks = config.plan_ranks
    if ranks % config.tensor_parallel:
        raise UserError(
            f"--tensor-parallel {config.tensor_parallel} with {ranks} process(es): each engine takes as many. Start a "
            "multiple of it by torchrun --nproc-per-node, or leave it at 1."
        )
    if ranks == 1:
        return
    if config.problems_per_step < ranks:
        raise UserError(
            f"torchrun has started {ranks} processes, and a step has --problems-per-step {config.problems_per_step}: "
            "each generates for whole problems, so that some would have none. Start fewer, or draw more problems."
        )
    refused = {
        "--engine hf": (
            choose_engine(config.engine)[0] == "hf",
            "generates token by token, with weights that no process has whole. It is also what auto is without vLLM",
        ),
        f"--optimizer {config.optimizer}": (
            config.optimizer != "adamw",
            "has no form for a part of a tensor; each rank has a part of adamw's state",
        ),
        "--precision bfloat16": (
            config.precision == "bfloat16",
            "rounds by chance, which is not done on parts of a tensor; each rank has a part of the float32 weights",
        ),
        "--reference-device cpu": (
            config.reference_device == "cpu" and config.needs_reference,
            "moves whole tensors; each rank has a part of the reference",
        ),
    }
    for flag_given, (given, why) in refused.items():
        if given:
            raise UserError(f"{flag_given} with {ranks} processes of torchrun: it {why}. Leave it out, or start one.")


def same_config(config: Config, ranks: Ranks) -> Config:
    """The config that all ranks have, under the name that the first has found for the run. Raises: UserError where they
    differ, as where machines were started with different commands."""
    of_ranks = ranks.exchange(config.to_json())
    config = replace(config, name=of_ranks[0]["name"])
    differing = [name for name in of_ranks[0] if name != "name" and any(o[name] != of_ranks[0][name] for o in of_ranks)]
    with ranks.together():
        if differing:
            values = {name: dict.fromkeys(str(of_one[name]) for of_one in of_ranks) for name in differing}
            told = [f"{flag(name)} is {' or '.join(found)}" for name, found in values.items()]
            raise UserError(f"The processes of torchrun have different flags: {'; '.join(told)}. Give all the same.")
    return config


def check_folder(config: Config) -> None:
    """A new run has a new folder, a resumed one its own. Raises: UserError."""
    folder = config.run_folder
    if config.resume and not folder.is_dir():
        raise UserError(f"--resume: there is no run folder {folder}. Name the run to continue by --name.")
    if not config.resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"The run folder {folder} exists already. Choose another --name, or continue it by --resume.")
