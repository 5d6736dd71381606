"""A file of documents (`--ptx-data`) -> rows with a `text`, or with a `problem` and its `solution`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from grpo.errors import UserError
from grpo.problems.row_files import ENDINGS, read_row_file

Row = dict[str, Any]

TEXT = ".txt"
ADVICE = (
    "A document is a text between empty lines of a .txt file, or a row of a .jsonl, .csv or .parquet file with a "
    "column 'text', or 'problem' and 'solution'."
)


def read_documents(path: Path) -> list[Row]:
    """The documents of a file. Raises: UserError naming the file, and the row where there is one."""
    path = path.expanduser()
    if path.suffix != TEXT and path.suffix not in ENDINGS:
        raise UserError(f"--ptx-data {path} ends in '{path.suffix}'. {ADVICE}")
    rows = _texts(path) if path.suffix == TEXT else read_row_file(path)
    if not rows:
        raise UserError(f"--ptx-data {path} has no document in it. {ADVICE}")
    return [_document(row, at, path) for at, row in enumerate(rows)]


def _texts(path: Path) -> list[Row]:
    try:
        whole = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise UserError(f"--ptx-data {path} cannot be read: {said}. Give a text file in UTF-8.") from error
    parts = [part.strip("\n") for part in re.split(r"\n[ \t\r]*\n", whole)]
    return [{"text": part} for part in parts if part.strip()]


def _document(row: Row, at: int, path: Path) -> Row:
    columns = ("text",) if "text" in row else ("problem", "solution")
    if missing := [name for name in columns if name not in row]:
        raise UserError(
            f"--ptx-data {path}, row {at}: there is no column '{missing[0]}'. Columns: {', '.join(row)}. {ADVICE}"
        )
    for name in columns:
        if name == "problem" and isinstance(row[name], list) and row[name]:  # chat messages
            continue
        if not isinstance(row[name], str) or not row[name].strip():
            raise UserError(f"--ptx-data {path}, row {at}: '{name}' is {row[name]!r:.80}, and must be a text. {ADVICE}")
    return {name: row[name] for name in columns}
