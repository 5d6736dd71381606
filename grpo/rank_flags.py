"""Flags and several processes: what they cannot do is refused, and that all have the same is seen to."""

from __future__ import annotations

from dataclasses import replace

from grpo.config import Config
from grpo.engines.choose import choose_engine
from grpo.errors import UserError
from grpo.flags import flag
from grpo.model.pretrained import load_config
from grpo.model.ranks import Ranks


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
        f"--max-kl {config.max_kl:g}": (config.max_kl > 0, "needs gradients of gradients, which shards do not give"),
        "--compile": (config.compile, "has not been tried on layers of which each process has a part"),
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


def check_heads(config: Config) -> None:
    """Raises: UserError for a --tensor-parallel that does not divide the attention heads of the model."""
    if config.tensor_parallel > 1:
        found = load_config(config.model, trust_remote_code=config.trust_remote_code).get_text_config()
        if found.num_attention_heads % config.tensor_parallel:
            raise UserError(
                f"--tensor-parallel {config.tensor_parallel}: vLLM divides a layer by its attention heads, of which "
                f"{config.model} has {found.num_attention_heads}. Choose a divisor of that."
            )
