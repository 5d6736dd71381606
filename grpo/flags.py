"""Flags that several commands have, once: name, type, default, help. A command's flags inherit the groups it shares.

Choices are types, so that `--help` lists them and the command line refuses any other. Nothing here imports torch.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grpo.engines.protocol import ENGINES
from grpo.errors import UserError
from grpo.model.settings import HEAD_DTYPE_NAMES

DEVICES = ("auto", "cpu", "cuda")

EngineName = Literal[ENGINES]
DeviceName = Literal[DEVICES]
HeadDtypeName = Literal[HEAD_DTYPE_NAMES]


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Where rows come from, and what is asked of them."""

    data_dir: Path | None = None
    """Folder of .jsonl files from which the sets of data/ are read instead of the hub; unset: the hub."""
    problem_column: str = "problem"
    """Column of the data that holds the problem; a.b is b inside a."""
    answer_column: str = "answer"
    """Column of the data that holds the gold answer; a.b is b inside a, as in reward_model.ground_truth."""
    system: str | None = None
    """System message, put before each problem by templates that have a place for it: chat, qwen_math, {system}."""
    chat_args: tuple[str, ...] = ()
    """Arguments of the chat template, NAME=VALUE each, as enable_thinking=false."""
    stop: tuple[str, ...] = ()
    """Texts that end a response, as in '</answer>' for the r1 template; kept in the response."""


@dataclass(frozen=True, kw_only=True)
class EngineFlags:
    """What samples responses, and where."""

    engine: EngineName = "auto"
    """Sampler: vllm, hf (transformers), auto (vllm where installed, and says so)."""
    memory_fraction: float | None = None
    """Share of the GPU's memory that vLLM takes while it generates; unset: what its responses need and the card has."""
    concurrency: int | None = None
    """Responses generated at a time; unset: 256, or on a card what vLLM's KV cache holds of them at half length."""
    kv_cache_gib: float = 0.5
    """vLLM's KV cache on a CPU, GiB."""
    head_dtype: HeadDtypeName = "float32"
    """Precision of the output head on CUDA, in vLLM and in the trainer: float32, or bfloat16, faster and coarser."""
    device: DeviceName = "auto"
    """Where torch computes (vLLM chooses its own device): auto, cpu, cuda."""
    trust_remote_code: bool = False
    """Run Python code that comes with a model. Off unless you trust its author."""


@dataclass(frozen=True, kw_only=True)
class VerifierFlags:
    """What is correct, and limits on verifiers, which run in processes of their own."""

    correct_at: float = 1.0
    """The reward of the first verifier from which on a response is correct; it changes what is logged alone."""
    verifier_workers: int = 2
    """Processes that run verifiers."""
    verifier_time_limit: float = 5.0
    """Seconds that verifying a response may take, else it scores 0; a batch verifier has that for each of its step."""
    verifier_memory_limit: int = 1024
    """MiB a verifier process may take."""
    verifier_max_failures: float = 0.5
    """Share of one verifier's calls (of a step, or of a chunk of an evaluation) that may fail before the run stops."""


# Checks that every command makes ---------------------------------------------------------------------------------


def flag(name: str) -> str:
    """`kl_coef` -> `--kl-coef`."""
    return f"--{name.replace('_', '-')}"


def check_choices(flags: Any) -> None:
    """Raises: UserError for a value that is none of the choices; the command line refuses it by itself."""
    for name, allowed in choices(type(flags)).items():
        given = getattr(flags, name)
        for value in given if isinstance(given, tuple) else () if given is None else (given,):
            if value not in allowed:
                raise UserError(f"{flag(name)} {value} does not exist. {flag(name)} takes: {', '.join(allowed)}.")


def choices(command: type) -> dict[str, tuple[str, ...]]:
    """Flag -> its choices, for those that have some."""
    found = {}
    for name, hint in typing.get_type_hints(command).items():
        for option in (hint, *typing.get_args(hint)):  # `X | None` holds X, and so does tuple[X, ...]
            if typing.get_origin(option) is Literal:
                found[name] = typing.get_args(option)
    return found


def require(flags: Any, names: Sequence[str], rule: str) -> None:
    """Every one of the named flags keeps the rule, a key of RULES; what is None is unset.

    Raises: UserError naming flag, value and rule.
    """
    holds = RULES[rule]
    for name in names:
        value = getattr(flags, name)
        if value is not None and not holds(value):
            raise UserError(f"{flag(name)} {value} {rule}.")


RULES = {
    "must be more than 0": lambda value: value > 0,
    "must not be negative": lambda value: value >= 0,
    "is a share: more than 0, at most 1": lambda value: 0 < value <= 1,
    "must not be more than 2": lambda value: value <= 2,
    "must be 0.01 or more (vLLM takes a lower one for 0.01)": lambda value: value == 0 or value >= 0.01,
    "must be at least 0 and at most 1": lambda value: 0 <= value <= 1,
    "must be at least 0 and less than 1": lambda value: 0 <= value < 1,
}


def check_head(flags: EngineFlags, device: str) -> None:
    """Raises: UserError for a bfloat16 head on a CPU. device: where torch computes, or what `--device` says of it."""
    if flags.head_dtype != "float32" and device == "cpu":
        raise UserError(
            f"--head-dtype {flags.head_dtype} saves time on a card, and this run computes on the CPU, in float32. "
            "Leave it out."
        )
