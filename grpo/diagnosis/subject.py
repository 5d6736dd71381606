"""What is examined: data, prompts, tokenizer and model of a config, as far as they can be had without loading weights.

What is wrong with one of them hides none of the others: each is looked at as long as what it is made of is there. So
every function here is a generator of findings that returns its part, and None (or nothing) after a fault.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from grpo.config import Config
from grpo.diagnosis.ends import end_findings
from grpo.diagnosis.findings import Finding, attempt, guarded, ok
from grpo.diagnosis.memory import Place, memory_findings
from grpo.diagnosis.prompts import encode_all, length_findings, prompt_findings, read_tokenizer
from grpo.diagnosis.splits import split_findings
from grpo.engines.choose import choose_engine, response_ends
from grpo.model.pretrained import check_model, model_configs, position_limit
from grpo.problems.markers import marker_ids
from grpo.problems.rows import Row
from grpo.records import Problem
from grpo.rows_of_run import load_data
from grpo.verifiers.verify import check_specs


@dataclass(frozen=True)
class Subject:
    """What could be had; what could not is empty."""

    engine: str | None
    rows: list[Row]
    held_out_rows: list[Row]
    verifiers: bool
    """They can be loaded, and find what they need in the rows."""
    tokenizer: PreTrainedTokenizerBase | None
    problems: list[Problem]
    """The rows whose prompts are short enough."""
    held_out: list[Problem]
    ends: tuple[int, ...]
    """Ids that end a response."""
    fits: bool
    """The model is there, and tokenizer, limits and memory fit it."""

    def lacking(self) -> list[str]:
        """What the checks that load the model need, and have not got."""
        parts = {
            "engine": self.engine,
            "data": self.rows,
            "verifiers": self.verifiers or not self.rows,
            "tokenizer": self.tokenizer,
            "prompts": self.problems or not (self.rows and self.tokenizer),
            "model or memory": self.fits,
        }
        return [name for name, part in parts.items() if not part]


def examine_subject(config: Config, source: str, place: Place) -> Generator[Finding, None, Subject]:
    """`source`: folder or name of the model; `place`: where it will compute."""
    engine = yield from _engine(config)
    rows, held_out_rows = yield from _data(config)
    verifiers = bool(rows) and (yield from _verifiers(config, rows, held_out_rows))
    tokenizer = yield from read_tokenizer(source, trust_remote_code=config.trust_remote_code)
    configs = (yield from attempt("model", model_configs, source, trust_remote_code=config.trust_remote_code)) or []
    positions = position_limit(configs[0]) if configs else math.inf
    problems, held_out, ends = [], [], ()
    if tokenizer:
        problems = yield from _prompts(config, tokenizer, rows, "prompts", positions)
        held_out = yield from _prompts(config, tokenizer, held_out_rows, "held-out prompts", positions)
    if tokenizer and configs:
        ends = response_ends(tokenizer, marker_ids(tokenizer, config.template, config.chat_args), *configs)
        kind = dict(
            template=config.template, chat_args=config.chat_args, stop=config.stop, engine=engine or config.engine
        )
        yield from end_findings(tokenizer, ends, **kind)
    fits = bool(configs) and (yield from _fits(config, source, tokenizer, engine, place))
    return Subject(engine, rows, held_out_rows, verifiers, tokenizer, problems, held_out, ends, fits)


def _engine(config: Config) -> Generator[Finding, None, str | None]:
    chosen = yield from attempt("engine", choose_engine, config.engine)
    if chosen is None:
        return None
    name, reason = chosen
    yield ok("engine", f"{name}: {reason}")
    return name


def _data(config: Config) -> Generator[Finding, None, tuple[list[Row], list[Row]]]:
    loaded = yield from attempt("data", load_data, config)
    if loaded is None:
        return [], []
    rows, sets = loaded
    held_out = [row for some in sets.values() for row in some]
    numbers = dict(problems_per_step=config.problems_per_step, steps=config.steps)
    yield from split_findings(rows, held_out, data=config.data, **numbers)
    return rows, held_out


def _verifiers(config: Config, rows: Sequence[Row], held_out: Sequence[Row]) -> Generator[Finding, None, bool]:
    for some in filter(None, (rows, held_out)):
        if not (yield from attempt("verifiers", lambda some=some: check_specs(config.verifiers, set(some[0])) or True)):
            return False
    return True


def _prompts(
    config: Config, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], what: str, positions: float
) -> Generator[Finding, None, list[Problem]]:
    """Those that are short enough."""
    encoded = (yield from attempt("prompts", encode_all, rows, tokenizer, **config.prompting)) if rows else None
    if not encoded:
        return []
    if what == "prompts":
        yield from prompt_findings(encoded, tokenizer, template=config.template)
    limit = config.max_prompt_tokens
    yield from length_findings(
        [len(problem.prompt_tokens) for problem in encoded],
        what=what,
        max_prompt_tokens=limit,
        max_response_tokens=config.max_response_tokens,
        positions=positions,
    )
    return [problem for problem in encoded if len(problem.prompt_tokens) <= limit]


def _fits(
    config: Config, source: str, tokenizer: PreTrainedTokenizerBase | None, engine: str | None, place: Place
) -> Generator[Finding, None, bool]:
    """Whether the model fits tokenizer, limits and memory."""
    trust = dict(trust_remote_code=config.trust_remote_code)
    limits = dict(max_prompt_tokens=config.max_prompt_tokens, max_response_tokens=config.max_response_tokens)
    # Without a tokenizer its fault has been told.
    fits = tokenizer is not None and (
        yield from attempt("model", lambda: check_model(source, **limits, **trust) or True)
    )
    found = list(guarded("model", memory_findings(config, source, place, engine or "vllm")))
    yield from found
    return bool(fits) and not any(finding.level == "fault" for finding in found)
