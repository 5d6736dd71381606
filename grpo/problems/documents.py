"""Documents: text that the policy learns to imitate beside its rewards (`--ptx-data`), PPO-ptx's pre-training term.

| file                               | a document                                                                    |
|------------------------------------|-------------------------------------------------------------------------------|
| `.txt`                             | a text between empty lines; every token is learnt                             |
| `.jsonl`, `.csv`, `.parquet` with  |                                                                               |
| a column `text`                    | that text; every token is learnt                                              |
| columns `problem` and `solution`   | the problem under the run's template, and the solution, which alone is learnt |

A text ends with the end of sequence, a solution as a response does. A document is a group of one response (records.py):
what is learnt is its response, and of a text the first token, which nothing foretells, is its prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from grpo.errors import UserError
from grpo.problems.document_files import Row
from grpo.records import Group, Problem, Rollout


@dataclass(frozen=True)
class Documents:
    """What is learnt, and what could not be."""

    groups: list[Group]
    dropped: int
    """Solutions that are too long with their problem, and texts of a single token."""


def encode_documents(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    encode: Callable[[Any], Sequence[int]],
    end: int | None,
    most: int,
) -> Documents:
    """encode: a problem -> its prompt's ids; end: what ends a response, as a solution is; most: tokens of a document.
    A longer text is cut into several, a longer solution is dropped. Raises: UserError where none is left.
    """
    groups, dropped = [], 0
    for row in rows:
        if "text" in row:
            tokens = _ended(tokenizer(row["text"])["input_ids"], tokenizer.eos_token_id)
            parts = [(part[:1], part[1:]) for part in (tokens[at : at + most] for at in range(0, len(tokens), most))]
        else:
            solution = tokenizer(row["solution"], add_special_tokens=False)["input_ids"]
            parts = [(encode(row["problem"]), _ended(solution, end))]
        for prompt, learnt in parts:
            if learnt and len(prompt) + len(learnt) <= most:
                groups.append(_group(prompt, learnt))
            else:
                dropped += 1
    if not groups:
        raise UserError(
            f"--ptx-data: nothing can be learnt from its {len(rows)} documents: they have a single token, or more "
            f"than the {most:,} of --max-prompt-tokens and --max-response-tokens together. Give others, or raise these."
        )
    return Documents(groups, dropped)


def _ended(tokens: Sequence[int], end: int | None) -> tuple[int, ...]:
    return tuple(tokens) if end is None else (*tokens, end)


def _group(prompt: Sequence[int], learnt: Sequence[int]) -> Group:
    rollout = Rollout(tuple(learnt), (0.0,) * len(learnt), "", truncated=False)
    return Group(Problem("", tuple(prompt), {}), (rollout,))
