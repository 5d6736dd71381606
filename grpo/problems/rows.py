"""`--data` -> rows: a built-in set, a file, or a data set of the hub; what is wrong with it is said by its row.

| `--data`                              | meaning                                                                |
|---------------------------------------|------------------------------------------------------------------------|
| `arithmetic`                          | `data/arithmetic.py`, function `load(split)`                           |
| `./mine.py` · `./mine.py:fn`          | a user's file                                                          |
| `./problems.jsonl`                    | a file of rows, also .csv and .parquet (row_files.py)                  |
| `org/name` · `org/name:config`        | any data set that the `datasets` library loads from the hub (hub.py)   |

A row is a dict with a `problem` (text, or chat messages) and whatever columns its verifiers ask for. With `--data-dir`
the sets of data/ that come from the hub are read from a local folder instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from grpo import plugins
from grpo.errors import UserError
from grpo.problems.columns import MISSING, names_of, value_of
from grpo.problems.hub import is_hub_name, load_hub
from grpo.problems.row_files import AT_ONCE, is_row_file, read_row_file

Row = dict[str, Any]

DEFAULT_REWARD = ("math_answer",)
"""The verifiers of a data set that names none."""


def load_rows(
    spec: str,
    split: str,
    *,
    problem_column: str = "problem",
    answer_column: str = "answer",
    data_dir: Path | None = None,
    flags: str = "",
) -> list[Row]:
    """Rows of `--data SPEC`; the named columns, which may be inside others, are there as `problem` and `answer`, too.

    data_dir: the folder from which a set that otherwise comes from the hub is read (see `check_data_dir`).
    flags: what the names of the flags begin with that the data comes from: "eval-" for `--eval-data`.
    Raises: UserError where the data is not found, is malformed, is empty, or has no problem column.
    """
    rows = raw_rows(spec, split, data_dir=data_dir, flags=flags)
    if not rows:
        raise UserError(f"--{flags}data {spec} ({split}) has no rows. Each row needs at least a '{problem_column}'.")
    return [_renamed(row, i, spec, problem_column, answer_column, flags) for i, row in enumerate(rows)]


def raw_rows(spec: str, split: str, *, data_dir: Path | None = None, flags: str = "") -> list[Row]:
    """Rows of `--data SPEC` as they are, and there may be none. Raises: UserError as `load_rows`."""
    if has_split(spec):
        rows = _load_split(spec, split, data_dir if reads_data_dir(spec) else None, flags)
    else:
        rows = read_row_file(Path(spec).expanduser())
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(f"--{flags}data {spec} ({split}): its function must return a list of dicts, one a row.")
    return rows


def _load_split(spec: str, split: str, data_dir: Path | None, flags: str) -> list[Any]:
    load = partial(load_hub, spec) if is_hub_name(spec) else plugins.load(spec, "data")
    try:
        rows = load(split) if data_dir is None else load(split, data_dir=data_dir)
        return list(rows) if isinstance(rows, Iterable) else []
    except (OSError, ValueError, RuntimeError) as error:  # not found, offline, unknown split, a set that is a script
        said = (str(error).splitlines() or [""])[0]
        if data_dir is not None:
            raise UserError(f"--{flags}data {spec}, split '{split}', from --data-dir {data_dir}: {said}") from error
        raise UserError(
            f"--{flags}data {spec}: loading its split '{split}' failed ({type(error).__name__}: {said}). Check the "
            "name and the network, give a local .jsonl file, or a folder of them by --data-dir. "
            f"Built-in: {', '.join(plugins.available('data'))}."
        ) from error


def reads_data_dir(spec: str) -> bool:
    """Whether `--data SPEC` can be read from `--data-dir`: whether its function `load` has a parameter `data_dir`."""
    if not has_split(spec) or is_hub_name(spec):
        return False
    return "data_dir" in inspect.signature(plugins.load(spec, "data")).parameters


def check_data_dir(data_dir: Path | None, specs: Sequence[str]) -> None:
    """Refuse a `--data-dir` that would not do what it says for the data sets of a command.

    A file of one's own and a generated set are the same with it as without, so they may stand beside a set that is read
    from the folder.

    Raises: UserError where there is no such folder, where a set is a hub name, or where no set would be read from it.
    """
    if data_dir is None:
        return
    if not data_dir.is_dir():
        raise UserError(f"--data-dir {data_dir} is no folder. Give a folder of .jsonl files, as data/README.md has it.")
    readable = [name for name in plugins.available("data") if reads_data_dir(name)]
    for spec in specs:
        if has_split(spec) and is_hub_name(spec):
            raise UserError(
                f"--data-dir {data_dir}: {spec} is a name on the hub, and is not looked for in a folder. Give the file "
                f"itself, as in {data_dir / 'FILE.jsonl'}, or a set of data/ that can be: {', '.join(readable)}."
            )
    if not any(reads_data_dir(spec) for spec in specs):
        raise UserError(
            f"--data-dir {data_dir}: nothing would be read from it, because {', '.join(specs)} does not come from the "
            f"hub. Leave it out, or use a set of data/ that does: {', '.join(readable)}."
        )


def data_rewards(spec: str) -> tuple[str, ...]:
    """The verifiers that fit the answers of `--data SPEC`: `REWARD` of its file, `("math_answer",)` where it has none.

    Raises: UserError where there is no such data set, or REWARD is no tuple of texts.
    """
    if not has_split(spec) or is_hub_name(spec):
        return DEFAULT_REWARD
    named = plugins.attribute(spec, "data", "REWARD", DEFAULT_REWARD)
    if not isinstance(named, tuple | list) or not named or not all(isinstance(name, str) for name in named):
        raise UserError(
            f"--data {spec}: REWARD in its file is {named!r}, and must be a tuple of verifiers as --reward takes them, "
            "such as ('math_answer',)."
        )
    return tuple(named)


def at_hand(spec: str) -> bool:
    """Whether the rows of `--data SPEC` are there at once: a file of rows, or a set that is made up by a file of data/.
    One of the hub is loaded by a library, and a function of one's own may do anything."""
    return spec.endswith(AT_ONCE) or (is_built_in(spec) and not reads_data_dir(spec))


def check_exists(spec: str) -> None:
    """Whether `--data SPEC` names a function or a name on the hub; no row is read. Raises: UserError."""
    if has_split(spec) and not is_hub_name(spec):
        plugins.load(spec, "data")


def is_built_in(spec: str) -> bool:
    """Whether a set is a file of data/, whose rows have the columns `problem` and `answer`."""
    return spec in plugins.available("data")


def has_split(spec: str) -> bool:
    """Whether `--data SPEC` knows splits; a file of rows does not."""
    return not is_row_file(spec)


def _renamed(row: Row, index: int, spec: str, problem_column: str, answer_column: str, flags: str) -> Row:
    problem = value_of(row, problem_column)
    if problem is MISSING:
        raise UserError(
            f"--{flags}data {spec}, row {index}: there is no column '{problem_column}'. Columns: {names_of(row)}. "
            f"Name the one that holds the problem by --{flags}problem-column."
        )
    if not _is_problem(problem):
        raise UserError(
            f"--{flags}data {spec}, row {index}: '{problem_column}' is {problem!r:.80}, and must be a text that "
            "is not empty, or a list of chat messages with a 'role' and a 'content' each."
        )
    renamed = {**row, "problem": problem}
    if answer_column != "answer":
        answer = value_of(row, answer_column)
        if answer is MISSING:
            raise UserError(
                f"--{flags}data {spec}, row {index}: --{flags}answer-column {answer_column} is not a column. "
                f"Columns: {names_of(row)}."
            )
        renamed["answer"] = answer
    return renamed


def _is_problem(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    if not value or not isinstance(value, list):
        return False
    return all(isinstance(m, dict) and all(isinstance(m.get(part), str) for part in ("role", "content")) for m in value)
