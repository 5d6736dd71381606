"""A file of rows -> rows: .jsonl, .csv or .parquet.

| ending             | a row is                                                                                      |
|--------------------|-----------------------------------------------------------------------------------------------|
| `.jsonl`, `.json`  | one JSON object a line                                                                        |
| `.csv`             | a line under a first line of column names; every value is text, as answers are                |
| `.parquet`         | a row of the table, with lists and nested columns; read by pyarrow, which comes with datasets |
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from grpo.errors import UserError
from grpo.files import read_jsonl

ENDINGS = (".jsonl", ".json", ".csv", ".parquet")
AT_ONCE = (".jsonl", ".json", ".csv")
"""Those that are read without a library."""


def is_row_file(spec: str) -> bool:
    """Whether `--data SPEC` is a file of rows, which has no splits."""
    return spec.endswith(ENDINGS)


def read_row_file(path: Path) -> list[dict[str, Any]]:
    """The rows of a file. Raises: UserError naming the file, and the line where it is one that cannot be read."""
    if path.suffix == ".csv":
        return _csv(path)
    return _parquet(path) if path.suffix == ".parquet" else read_jsonl(path)


def _csv(path: Path) -> list[dict[str, Any]]:
    advice = "Give a .csv file in UTF-8 with column names in its first line, and values with a comma in quotes."
    rows = []
    csv.field_size_limit(2**31 - 1)  # a problem may be longer than the 128 KiB that are usual
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # -sig: Excel begins its files with a mark
            reader = csv.DictReader(file, strict=True)
            names = reader.fieldnames or []
            if len(set(names)) < len(names):
                raise UserError(f"{path} has two columns of one name: {', '.join(names)}. {advice}")
            for row in reader:
                if None in row or None in row.values():
                    cells = sum(value is not None for name, value in row.items() if name) + len(row.get(None, ()))
                    raise UserError(f"{path}, line {reader.line_num} has {cells} values, not {len(names)}. {advice}")
                rows.append(row)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. {advice}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not such a file ({error}). {advice}") from error
    return rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        said = (str(error).splitlines() or [""])[0]
        raise UserError(f"{path} cannot be read as a .parquet file: {said}") from error
