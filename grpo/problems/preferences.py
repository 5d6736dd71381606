"""Rows of preferences -> comparisons: a prompt, K responses, and a score for each.

| columns of a row                 | meaning                                                                         |
|----------------------------------|---------------------------------------------------------------------------------|
| `prompt`, `chosen`, `rejected`   | texts, or chat messages that end with the assistant's                           |
| `chosen`, `rejected`             | conversations that differ in their last message alone, or texts whose prompt    |
|                                  | ends with the last "Assistant:" that begins a paragraph                         |
| `prompt`, `responses`, `scores`  | K of each                                                                       |

Beside a pair there may be its `margin`, or `score_chosen` and `score_rejected`; without them the scores are 1 and 0.
What teaches nothing is dropped and counted. The rollouts of a run are comparisons as well (preferences/load.py).
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from grpo.errors import UserError
from grpo.problems.columns import names_of
from grpo.records import Group, Message

ASSISTANT = "\n\nAssistant:"
"""What begins a turn of the assistant in conversations that are one text, as in Anthropic's HH-RLHF."""
HELD_OUT = 10
"""One prompt in so many is held out."""

EQUAL = "with equal responses"
TIED = "whose scores do not tell a better response from a worse one"
APART = "whose two conversations do not begin with the same prompt"


@dataclass(frozen=True)
class Comparison:
    """A prompt, K responses, and what they are worth."""

    prompt: str | list[Message]
    responses: tuple[str, ...]
    scores: tuple[float, ...]
    group: Group | None = None
    """The rollouts themselves, where the responses were sampled by a run: their token ids are those of its model."""

    @property
    def key(self) -> str:
        """Of the prompt: equal for equal prompts."""
        return json.dumps(self.prompt, sort_keys=True)


@dataclass(frozen=True)
class Read:
    """Comparisons, and how many were left out for which reason."""

    comparisons: list[Comparison]
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def words(self) -> str:
        """`3 dropped with equal responses`, or nothing."""
        return ", ".join(f"{count:,} dropped {reason}" for reason, count in self.dropped.items())


def read_rows(rows: Sequence[dict[str, Any]], source: str) -> Read:
    """The comparisons of rows. Raises: UserError naming source and row where one is none, or where all were dropped."""
    found, dropped = [], Counter()
    for number, row in enumerate(rows):
        try:
            found.append(_comparison(row))
        except _Dropped as reason:
            dropped[str(reason)] += 1
        except ValueError as error:
            raise UserError(
                f"--data {source}, row {number}: {error} Its columns are: {names_of(row)}. A row has prompt, chosen "
                "and rejected; chosen and rejected; or prompt, responses and scores."
            ) from error
    return some(Read(found, dropped), source)


def some(read: Read, source: str) -> Read:
    """The same, where anything is left. Raises: UserError."""
    if not read.comparisons:
        raise UserError(
            f"--data {source} holds no comparison: {read.words or 'it has no rows'}. Give responses of which one is "
            "better than another; a run saves its own with --save-rollouts."
        )
    return read


def split_by_prompt(comparisons: Sequence[Comparison]) -> tuple[list[Comparison], list[Comparison]]:
    """(training, held out): a tenth of the prompts is held out, those whose hash is lowest, and with each all of its
    comparisons. Nothing is held out of fewer than 10 prompts."""
    keys = sorted({comparison.key for comparison in comparisons}, key=_hash)
    out = set(keys[: len(keys) // HELD_OUT])
    return [c for c in comparisons if c.key not in out], [c for c in comparisons if c.key in out]


def best_pairs(comparison: Comparison, count: int, seed: int) -> list[tuple[int, int]]:
    """(better, worse) of a comparison: those whose scores are furthest apart, drawn among equals. `count` at most, and
    none of two equal texts."""
    scores, texts = comparison.scores, comparison.responses
    pairs = [
        (a, b) for a in range(len(scores)) for b in range(len(scores)) if scores[a] > scores[b] and texts[a] != texts[b]
    ]
    random.Random(f"{seed}/{comparison.key}/{texts}").shuffle(pairs)
    return sorted(pairs, key=lambda pair: scores[pair[1]] - scores[pair[0]])[:count]


def differs(responses: Sequence[str], scores: Sequence[float]) -> None:
    """Raises: _Dropped where there is nothing to learn from."""
    if len(set(responses)) == 1:
        raise _Dropped(EQUAL)
    if len(set(scores)) == 1:
        raise _Dropped(TIED)


def kept(comparisons: Iterable[Comparison]) -> Read:
    """Those that teach something; the others counted."""
    found, dropped = [], Counter()
    for comparison in comparisons:
        try:
            differs(comparison.responses, comparison.scores)
            found.append(comparison)
        except _Dropped as reason:
            dropped[str(reason)] += 1
    return Read(found, dropped)


# A row ------------------------------------------------------------------------------------------------------------


class _Dropped(Exception):
    """A row that teaches nothing, and why."""


def _comparison(row: dict[str, Any]) -> Comparison:
    """Raises: _Dropped, and ValueError for a row that is no comparison."""
    if "responses" in row or "scores" in row:
        return _listed(row)
    if not {"chosen", "rejected"} <= set(row):
        raise ValueError("it is no comparison.")
    prompt, chosen, rejected = _pair(row)
    scores = _scores(row)
    differs((chosen, rejected), scores)
    if scores[0] < scores[1]:  # the label says one thing, and the scores another
        raise _Dropped(TIED)
    return Comparison(prompt, (chosen, rejected), scores)


def _listed(row: dict[str, Any]) -> Comparison:
    responses, scores = row.get("responses"), row.get("scores")
    if not isinstance(responses, list) or not isinstance(scores, list) or len(responses) != len(scores):
        raise ValueError("responses and scores must be two lists of the same length.")
    texts = tuple(_last(response) for response in responses)
    numbers = tuple(_number(score, "scores") for score in scores)
    prompt = _prompt(row.get("prompt"))
    if len(texts) < 2:
        raise ValueError("a comparison needs two responses or more.")
    differs(texts, numbers)
    return Comparison(prompt, texts, numbers)


def _pair(row: dict[str, Any]) -> tuple[str | list[Message], str, str]:
    """(prompt, chosen, rejected) of a pair."""
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise ValueError("chosen and rejected must both be texts, or both lists of messages.")
    if isinstance(chosen, str):
        if "prompt" in row:
            return _prompt(row["prompt"]), chosen, rejected
        prompt, found, text = chosen.rpartition(ASSISTANT)
        if not found:
            raise ValueError(f"without a prompt, chosen and rejected must hold {ASSISTANT!r}, where the prompt ends.")
        if not rejected.startswith(prompt + found):  # the last turn of one may be an earlier one of the other
            raise _Dropped(APART)
        return prompt + found, text, rejected.removeprefix(prompt + found)
    before, text = _messages(chosen)[:-1], _last(chosen)
    other_before, other = _messages(rejected)[:-1], _last(rejected)
    if before != other_before:
        raise _Dropped(APART)
    if not before:
        return _prompt(row.get("prompt")), text, other
    plain = len(before) == 1 and before[0]["role"] == "user"  # a text, so that it may go under any template
    return before[0]["content"] if plain else before, text, other


def _scores(row: dict[str, Any]) -> tuple[float, float]:
    if "score_chosen" in row or "score_rejected" in row:
        return tuple(_number(row.get(name), name) for name in ("score_chosen", "score_rejected"))
    return (1.0, 0.0) if "margin" not in row else (_number(row["margin"], "margin"), 0.0)


def _number(value: Any, name: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} is {value!r}, and must be a finite number.")
    return number


def _prompt(value: Any) -> str | list[Message]:
    if isinstance(value, str) and value.strip():
        return value
    return _messages(value, "prompt")


def _messages(value: Any, name: str = "chosen or rejected") -> list[Message]:
    parts = ("role", "content")
    if not isinstance(value, list) or not value or not all(_is_message(message) for message in value):
        raise ValueError(f"{name} must be a text, or a list of messages with a role and a content each.")
    return [{part: message[part] for part in parts} for message in value]


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(part), str) for part in ("role", "content"))


def _last(value: Any) -> str:
    """A response: a text, or the last of some messages, which is the assistant's."""
    if isinstance(value, str):
        return value
    last = _messages(value)[-1]
    if last["role"] != "assistant":
        raise ValueError(f"the last message of a response must be the assistant's, and is of the {last['role']}.")
    return last["content"]


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
