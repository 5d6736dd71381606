"""`--data` -> rows: a built-in set, a file, or a data set of the hub; what is wrong with it is said by its row.

| `--data`                              | meaning                                                                |
|---------------------------------------|------------------------------------------------------------------------|
| `arithmetic`                          | `data/arithmetic.py`, function `load(split)`                           |
| `./mine.py` · `./mine.py:fn`          | a user's file                                                          |
| `./problems.jsonl`                    | one JSON object a line                                                 |
| `org/name` · `org/name:config`        | any data set that the `datasets` library loads from the hub            |

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
from grpo.files import read_jsonl

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
) -> list[Row]:
    """Rows of `--data SPEC`; the named columns are renamed to `problem` and `answer`.

    data_dir: the folder from which a set that otherwise comes from the hub is read (see `check_data_dir`).
    Raises: UserError where the data is not found, is malformed, is empty, or has no problem column.
    """
    if has_split(spec):
        rows = _load_split(spec, split, data_dir if reads_data_dir(spec) else None)
    else:
        rows = read_jsonl(Path(spec).expanduser())
    if not rows:
        raise UserError(f"--data {spec} ({split}) has no rows. Each row needs at least a '{problem_column}'.")
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(f"--data {spec} ({split}): its function must return a list of dicts, one a row.")
    return [_renamed(row, i, spec, problem_column, answer_column) for i, row in enumerate(rows)]


def _load_split(spec: str, split: str, data_dir: Path | None) -> list[Any]:
    load = partial(load_hub, spec) if _is_hub_name(spec) else plugins.load(spec, "data")
    try:
        rows = load(split) if data_dir is None else load(split, data_dir=data_dir)
        return list(rows) if isinstance(rows, Iterable) else []
    except (OSError, ValueError, RuntimeError) as error:  # not found, offline, unknown split, a set that is a script
        said = (str(error).splitlines() or [""])[0]
        if data_dir is not None:
            raise UserError(f"--data {spec}, split '{split}', from --data-dir {data_dir}: {said}") from error
        raise UserError(
            f"--data {spec}: loading its split '{split}' failed ({type(error).__name__}: {said}). Check the name and "
            "the network, give a local .jsonl file, or a folder of them by --data-dir. "
            f"Built-in: {', '.join(plugins.available('data'))}."
        ) from error


def reads_data_dir(spec: str) -> bool:
    """Whether `--data SPEC` can be read from `--data-dir`: whether its function `load` has a parameter `data_dir`."""
    if not has_split(spec) or _is_hub_name(spec):
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
        if has_split(spec) and _is_hub_name(spec):
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
    if not has_split(spec) or _is_hub_name(spec):
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
    return not has_split(spec) or (spec in plugins.available("data") and not reads_data_dir(spec))


def check_exists(spec: str) -> None:
    """Whether `--data SPEC` names a function or a name on the hub; no row is read. Raises: UserError."""
    if has_split(spec) and not _is_hub_name(spec):
        plugins.load(spec, "data")


def load_hub(spec: str, split: str) -> list[Row]:
    """`org/name` or `org/name:config` through the `datasets` library; raises what `datasets.load_dataset` raises."""
    import datasets

    name, _, config = spec.partition(":")
    return list(datasets.load_dataset(name, config or None, split=split))


def has_split(spec: str) -> bool:
    """Whether `--data SPEC` knows splits; a plain .jsonl file does not."""
    return not spec.endswith((".jsonl", ".json"))


def _is_hub_name(spec: str) -> bool:
    place, _ = plugins.split_function(spec)
    return "/" in place and not place.endswith(".py")


def _renamed(row: Row, index: int, spec: str, problem_column: str, answer_column: str) -> Row:
    if problem_column not in row:
        raise UserError(
            f"--data {spec}, row {index}: there is no column '{problem_column}'. Columns: {', '.join(row)}. "
            "Name the one that holds the problem by --problem-column."
        )
    if not _is_problem(row[problem_column]):
        raise UserError(
            f"--data {spec}, row {index}: '{problem_column}' is {row[problem_column]!r:.80}, and must be a text that "
            "is not empty, or a list of chat messages with a 'role' and a 'content' each."
        )
    renamed = {**row, "problem": row[problem_column]}
    if answer_column != "answer":
        if answer_column not in row:
            raise UserError(
                f"--data {spec}, row {index}: --answer-column {answer_column} is not a column. "
                f"Columns: {', '.join(row)}."
            )
        renamed["answer"] = row[answer_column]
    return renamed


def _is_problem(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    if not value or not isinstance(value, list):
        return False
    return all(isinstance(m, dict) and all(isinstance(m.get(part), str) for part in ("role", "content")) for m in value)
