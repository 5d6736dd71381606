"""What verifiers are tried on: gold answers with a wrong one beside each, and labelled responses.

    gold_cases([{"problem": "1+1?", "answer": "2"}], "answer")    -> [(that row, "2", "3")]
    read_labelled(Path("labelled.jsonl"))                         -> [{"response": "so 2", "label": True}, ...]

What is wrong with a file is said by its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from grpo.errors import UserError
from grpo.files import read_jsonl
from grpo.problems.columns import MISSING, names_of, value_of
from grpo.problems.row_files import read_row_file
from grpo.problems.rows import has_split, load_rows

Row = dict[str, Any]


def read_problems(data: str, split: str, data_dir: Path | None, gold: str) -> list[Row]:
    """The rows of `--data`, each with a gold answer. Raises: UserError where they are not found or lack one."""
    if data.endswith((".jsonl", ".json")):  # what is wrong is said by its line
        rows = _read_rows(Path(data), [] if "." in gold else [gold])
    else:
        rows = load_rows(data, split, data_dir=data_dir) if has_split(data) else read_row_file(Path(data).expanduser())
    if lacking := [row for row in rows if value_of(row, gold) is MISSING]:
        raise UserError(f"--data {data}: a row lacks {gold}; it has: {names_of(lacking[0])}.")
    return [row if gold in row else {**row, gold: value_of(row, gold)} for row in rows]


def read_labelled(path: Path) -> list[Row]:
    """Rows with a response and whether it is right. Raises: UserError naming file and line."""
    return _read_rows(path, ["response", "label"], _labelled)


def gold_cases(rows: Sequence[Row], gold: str) -> list[tuple[Row, str, str]]:
    """(row, gold answer, wrong answer); a row whose gold answer is a list has a case for each of them."""
    cases = []
    for row in rows:
        answers = [str(answer) for answer in (row[gold] if isinstance(row[gold], list) else [row[gold]])]
        cases += [(row, answer, perturbed(answer, answers)) for answer in answers]
    return cases


def perturbed(answer: str, admissible: Sequence[str] = ()) -> str:
    r"""A wrong answer close to `answer`, and none of the `admissible` ones.

    The last digit goes up by one (9 -> 0); a choice letter becomes another letter; all else becomes -(...) - 7.

    "3.14" -> "3.15" · r"\frac{1}{2}" -> r"\frac{1}{3}" · "(B)" -> "(A)" · r"\pi" -> r"-(\pi) - 7"
    """
    digits = list(re.finditer("[0-9]", answer))
    if digits:
        at = digits[-1].start()
        changes = [f"{answer[:at]}{(int(answer[at]) + step) % 10}{answer[at + 1 :]}" for step in range(1, 10)]
    elif letter := re.fullmatch(r"((?:\\text\{)?\(?)([A-Z])(\)?\}?)", answer.strip()):
        changes = [f"{letter[1]}{other}{letter[3]}" for other in "ABCDEFGHIJ" if other != letter[2]]
    else:
        changes = [f"-({answer}) - 7"]
    return next((change for change in changes if change not in admissible), f"-({answer}) - 7")


def _read_rows(path: Path, required: Sequence[str], make: Callable[[Row], Row] = dict) -> list[Row]:
    def complete(row: Row) -> Row:
        if missing := [column for column in required if column not in row]:
            raise ValueError(f"it lacks {', '.join(missing)}; it has: {', '.join(row) or 'no columns'}")
        return make(row)

    rows = read_jsonl(path, complete, what=f"a row with {' and '.join(required)}")
    if not rows:
        raise UserError(f"{path} has no rows. Give a .jsonl file, one JSON object a line.")
    return rows


def _labelled(row: Row) -> Row:
    if row["label"] not in (True, False) or not isinstance(row["response"], str):
        raise ValueError("response must be text and label must be true or false")
    return row
