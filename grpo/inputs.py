"""Data and tokenizer of a run: all that can be wrong before a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from grpo.config import Config
from grpo.model.pretrained import check_model, load_tokenizer
from grpo.problems.templates import encode
from grpo.records import Problem
from grpo.rows_of_run import EVERY_TENTH, keep_by_rate, load_data
from grpo.verifiers.verify import check_specs


@dataclass(frozen=True)
class Inputs:
    """Problems under their template, and the tokenizer."""

    problems: list[Problem]
    held_out_sets: dict[str, list[Problem]]
    """Set -> its held-out problems; several where --eval-data names several."""
    dropped: int
    """Training prompts longer than --max-prompt-tokens."""
    tokenizer: PreTrainedTokenizerBase
    kept: str = ""
    """What --keep-rate has left, in words."""

    @property
    def held_out(self) -> list[Problem]:
        """The held-out problems of all sets."""
        return [problem for problems in self.held_out_sets.values() for problem in problems]

    @property
    def held_out_words(self) -> str:
        """How many are held out, of what."""
        sets = [f"{len(problems)} of {name}" for name, problems in self.held_out_sets.items()]
        told = ", ".join(sets) if sets[1:] else EVERY_TENTH if EVERY_TENTH in self.held_out_sets else ""
        return f"{len(self.held_out)} held out" + (f" ({told})" if told else "")


def load_inputs(config: Config, source: str) -> Inputs:
    """Rows, tokenizer and problems. Raises: UserError for data, verifiers, model folder or tokenizer that won't do."""
    rows, held_out = load_data(config)
    rows, kept = keep_by_rate(config, rows)
    check_specs(config.verifiers, set(rows[0]))
    tokenizer = load_tokenizer(source, trust_remote_code=config.trust_remote_code)
    check_model(
        source,
        max_prompt_tokens=config.max_prompt_tokens,
        max_response_tokens=config.max_response_tokens,
        trust_remote_code=config.trust_remote_code,
    )
    encoded = encode(rows, tokenizer, max_prompt_tokens=config.max_prompt_tokens, **config.prompting)
    held_out_sets = {}
    for name, some in held_out.items():
        check_specs(config.verifiers, set(some[0]))
        held_out_sets[name] = encode(
            some, tokenizer, max_prompt_tokens=config.max_prompt_tokens, **config.prompting
        ).problems
    return Inputs(encoded.problems, held_out_sets, encoded.dropped, tokenizer, kept)
