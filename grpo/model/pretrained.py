"""A Hugging Face folder or hub name -> tokenizer and model, with errors that say what to do.

Weights are read from safetensors only: a pickled checkpoint can run code.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from grpo.errors import UserError
from grpo.model.model_folder import check_tokenizer_files, check_weight_files, check_whole

PRECISIONS = {"mixed": torch.float32, "bfloat16": torch.bfloat16}
"""`--precision` -> that of the parameters. On CUDA the forward pass is in bfloat16 under both (learner.py)."""


def load_tokenizer(source: str, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub name. Raises: UserError where it is missing."""
    check_tokenizer_files(source)
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError) as error:  # not found, offline, or files that are no tokenizer
        raise _not_loaded("tokenizer", source, error) from error


def check_model(
    source: str,
    *,
    max_prompt_tokens: int,
    max_response_tokens: int,
    trust_remote_code: bool,
) -> None:
    """Read the model's config, not its weights.

    Raises: UserError where there is none, no safetensors beside it, or fewer positions than prompt and response need.
    """
    check_weight_files(source)
    config = load_config(source, trust_remote_code=trust_remote_code)
    positions = position_limit(config)
    if max_prompt_tokens + max_response_tokens > positions:
        raise UserError(
            f"--max-prompt-tokens {max_prompt_tokens} and --max-response-tokens {max_response_tokens} together are "
            f"more than the {positions} positions of {source}. Lower one of them."
        )


def load_config(source: str, *, trust_remote_code: bool) -> PretrainedConfig:
    """The model's config. Raises: UserError where there is none, or only an adapter."""
    check_whole(Path(source).expanduser())
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise _not_loaded("model", source, error) from error


def position_limit(config: PretrainedConfig) -> float:
    """Tokens of prompt and response that the model has positions for; infinite where its config names no number."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or math.inf


def model_configs(source: str, *, trust_remote_code: bool) -> list[PretrainedConfig | GenerationConfig]:
    """The model's config and, where there is one, its generation config: what says which ids end a sequence."""
    configs = [load_config(source, trust_remote_code=trust_remote_code)]
    with contextlib.suppress(OSError):  # many models have no generation_config.json
        configs.append(GenerationConfig.from_pretrained(source))
    return configs


def load_model(source: str, *, device: str, trust_remote_code: bool, precision: str = "mixed") -> PreTrainedModel:
    """The causal language model on the device, its parameters as `precision` (a key of PRECISIONS) has them.

    On the device "meta" it has no numbers: its config alone is read.
    """
    if device == "meta":
        config = load_config(source, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, dtype=PRECISIONS[precision], trust_remote_code=trust_remote_code
            )
        return model.eval()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=PRECISIONS[precision], trust_remote_code=trust_remote_code, use_safetensors=True
        )
    except (OSError, ValueError, SafetensorError) as error:  # the last: a file that was not copied whole
        raise _not_loaded("model", source, error) from error
    try:
        model.generation_config.validate(strict=True)
    except ValueError:  # sampling settings without `do_sample`, which some publish: loaded with a warning, never saved
        model.generation_config.do_sample = True
    return model.to(device)


def _not_loaded(what: str, source: str, error: Exception) -> UserError:
    first = (str(error).strip().splitlines() or [""])[0]
    return UserError(
        f"The {what} of {source} could not be loaded ({type(error).__name__}: {first}). Check the name, the network "
        "or the folder; without --model the embedded model runs and needs no network."
    )
