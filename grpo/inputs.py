"""Data and tokenizer of a run: all that can be wrong before a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from grpo.config import Config
from grpo.model.pretrained import check_model, load_tokenizer
from grpo.problems.templates import encode
from grpo.records import Problem
from grpo.rows_of_run import load_data
from grpo.verifiers.verify import check_specs


@dataclass(frozen=True)
class Inputs:
    """Problems under their template, and the tokenizer."""

    problems: list[Problem]
    held_out: list[Problem]
    dropped: int
    """Training prompts longer than --max-prompt-tokens."""
    tokenizer: PreTrainedTokenizerBase


def load_inputs(config: Config, source: str) -> Inputs:
    """Rows, tokenizer and problems. Raises: UserError for data, verifiers, model folder or tokenizer that won't do."""
    rows, held_out = load_data(config)
    check_specs(config.verifiers, set(rows[0]))
    tokenizer = load_tokenizer(source, trust_remote_code=config.trust_remote_code)
    check_model(
        source,
        tokenizer,
        max_prompt_tokens=config.max_prompt_tokens,
        max_response_tokens=config.max_response_tokens,
        trust_remote_code=config.trust_remote_code,
    )
    encoded = encode(rows, tokenizer, template=config.template, max_prompt_tokens=config.max_prompt_tokens)
    held_out_problems: list[Problem] = []
    if held_out:
        check_specs(config.verifiers, set(held_out[0]))
        held_out_problems = encode(
            held_out, tokenizer, template=config.template, max_prompt_tokens=config.max_prompt_tokens
        ).problems
    return Inputs(encoded.problems, held_out_problems, encoded.dropped, tokenizer)
