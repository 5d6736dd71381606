"""Columns of a row by name, also one inside another.

`reward_model.ground_truth` is `row["reward_model"]["ground_truth"]`, where the row has no column of this whole name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MISSING = object()
"""What `value_of` returns where there is no such column; None is a value."""


def value_of(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column, or MISSING. A part that is a whole number counts in a list, from 0: `answers.0`.

    >>> value_of({"reward_model": {"ground_truth": "7"}}, "reward_model.ground_truth")
    '7'
    """
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def names_of(row: Mapping[str, Any]) -> str:
    """The columns of a row, those inside another one included, for a message.

    >>> names_of({"question": "?", "reward_model": {"style": "rule", "ground_truth": "7"}})
    'question, reward_model.style, reward_model.ground_truth'
    """
    return ", ".join(_paths(row, ""))


def _paths(row: Mapping[str, Any], before: str) -> list[str]:
    found = []
    for name, value in row.items():
        nested = isinstance(value, Mapping) and value
        found += _paths(value, f"{before}{name}.") if nested else [f"{before}{name}"]
    return found
