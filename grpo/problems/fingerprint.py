"""A fingerprint of data: 64 letters that are the same in every process as long as content and order are.

    fingerprint(seen(problem, {"answer"}) for problem in problems)      -> "9f86d081..."

Items are hashed one at a time, so that large data is never in memory twice. It does not depend on the order of a
dict's keys, on a tuple being a list, or on where Python has put an object.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from grpo.records import Problem

ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")
"""Of an object that describes itself by its place in memory, which is another in each process."""


def fingerprint(items: Iterable[Any]) -> str:
    """The sha256 of the items in their order."""
    found = hashlib.sha256()
    for item in items:
        found.update(_text(item).encode() + b"\n")
    return found.hexdigest()


def seen(problem: Problem, columns: Collection[str] | None) -> dict[str, Any]:
    """What a run sees of a problem: the prompt, and those of its columns that verifiers read (None: all)."""
    read = {name: value for name, value in problem.columns.items() if columns is None or name in columns}
    return {"prompt": problem.prompt, "columns": read}


def _text(value: Any) -> str:
    return json.dumps(_plain(value), separators=(",", ":"))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):  # sorted by the keys' texts, for keys of several kinds have no order
        return {"map": sorted([_text(key), _text(item)] for key, item in value.items())}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted(map(_text, value))}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if hasattr(value, "tolist"):  # of numpy, whose own text leaves out the middle of a long array
        return _plain(value.tolist())
    return {type(value).__name__: ADDRESS.sub("", str(value))}
