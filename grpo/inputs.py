"""Data and tokenizer of a run: all that can be wrong before a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from grpo.config import Config
from grpo.model.pretrained import check_model, load_tokenizer
from grpo.problems.rows import Row, check_data_dir, has_split, load_rows
from grpo.problems.templates import encode
from grpo.records import Problem
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


def load_data(config: Config) -> tuple[list[Row], list[Row]]:
    """Training rows, and the first `--eval-problems` held-out rows.

    A .jsonl file has no test split: without --eval-data every tenth row is held out of training, from the first on.
    Every row can be read by a verifier as a column, and so can the run's `max_response_tokens`.
    """
    held_out_data = config.eval_data or config.data
    check_data_dir(config.data_dir, list(dict.fromkeys([config.data, held_out_data])))
    columns = dict(problem_column=config.problem_column, answer_column=config.answer_column)
    rows = load_rows(config.data, "train", data_dir=config.data_dir, **columns)
    held_out: list[Row] = []
    if config.eval_problems:
        if config.eval_data or has_split(config.data):
            held_out = load_rows(held_out_data, "test", data_dir=config.data_dir, **columns)
        elif len(rows) >= 10:
            picked = range(0, len(rows), 10)[: config.eval_problems]
            held_out = [rows[i] for i in picked]
            rows = [row for i, row in enumerate(rows) if i not in set(picked)]
        held_out = held_out[: config.eval_problems]
    settings = {"max_response_tokens": config.max_response_tokens}
    return [settings | row for row in rows], [settings | row for row in held_out]
