"""Where the sets of this folder come from: the hub, or a local folder of .jsonl files (`--data-dir`).

    hub_rows("ChilleD/SVAMP", ("Body", "Answer"), split="test")[0]       ->  {"Body": "...", "Answer": "145.0"}
    folder_rows("../datasets", "svamp_test.jsonl", ("id", "answer"))[0]  ->  {"id": "svamp/0", "answer": "145"}

A file of this folder makes rows of the same columns out of either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path


def hub_rows(name: str, columns: Sequence[str], *, split: str, config: str | None = None) -> list[dict]:
    """Rows of a data set on the hub, with exactly these of its columns.

    Raises: ValueError where it lacks one; what `datasets.load_dataset` raises.
    """
    import datasets  # takes a second or two, which reading a set's REWARD or a local folder should not

    found = datasets.load_dataset(name, config, split=split)
    lacking = [column for column in columns if column not in found.column_names]
    if lacking:
        raise ValueError(f"{name} on the hub lacks {', '.join(lacking)}; it has {', '.join(found.column_names)}.")
    return list(found.select_columns(list(columns)))


def folder_rows(data_dir: str | Path, file: str, columns: Sequence[str], optional: Sequence[str] = ()) -> list[dict]:
    """Rows of a .jsonl file in a folder, with exactly these columns; an optional one that a row lacks is None.

    Raises: FileNotFoundError, naming the file and what the folder holds; ValueError for a line that is not JSON or
    lacks a column.
    """
    path = Path(data_dir) / file
    if not path.is_file():
        held = ", ".join(sorted(each.name for each in Path(data_dir).glob("*.jsonl"))) or "no .jsonl file"
        raise FileNotFoundError(
            f"there is no file {path}; the folder holds {held}. Put it there (data/README.md has the layout), or leave "
            "--data-dir out to load from the hub."
        )
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number} is a {type(row).__name__}, not a JSON object.")
        lacking = [column for column in columns if column not in row and column not in optional]
        if lacking:
            raise ValueError(f"{path}, line {number} lacks {', '.join(lacking)}; it has {', '.join(row)}.")
        rows.append({column: row.get(column) for column in columns})
    return rows


def of_split(by_split: Mapping[str, str], split: str) -> str:
    """What a mapping holds for a split. Raises: ValueError naming the splits that there are."""
    if split not in by_split:
        raise ValueError(f"there is no split '{split}', only {' and '.join(by_split)}.")
    return by_split[split]
