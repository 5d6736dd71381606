"""Data sets and models under short names, as parts of file names and of metrics."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from grpo import plugins
from grpo.problems.row_files import is_row_file


def data_name(data: str) -> str:
    """`math500` -> `math500`, `./my/problems.jsonl` -> `problems`, `./mine.py:hard` -> `mine.hard`."""
    if is_row_file(data):
        return Path(data).stem
    return plugins.short_name(data) if data.partition(":")[0].endswith(".py") else data.rpartition("/")[2]


def unique_names(specs: Sequence[str], short: Callable[[str], str]) -> dict[str, str]:
    """Spec -> its short name as part of a file name; the whole of it where two short ones are the same."""
    names = {spec: re.sub(r"[^\w.+]+", "-", short(spec)).strip("-") for spec in specs}
    taken = list(names.values())
    return {
        spec: name if taken.count(name) == 1 else re.sub(r"[^\w.+]+", "-", spec).strip("-")
        for spec, name in names.items()
    }
