"""Files that are whole or the old ones, and .jsonl files: one JSON object a line.

    write_json(Path("runs/a/config.json"), {"seed": 0})
    append_jsonl(Path("runs/a/metrics.jsonl"), [{"step": 1}])
    read_jsonl(Path("runs/a/metrics.jsonl"))        -> [{"step": 1}]

Only "\\n" ends a line: a response may hold any other line separator of Unicode, and lone surrogates as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from grpo.errors import UserError

T = TypeVar("T")

FAULTS = (ValueError, TypeError, LookupError, AttributeError, OverflowError)
"""What `make` raises where a line's object is of another kind."""


# Writing ---------------------------------------------------------------------------------------------------------


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all, whatever ends the process or the machine; folders are made.

        with written_whole(Path("picture.png")) as part:
            figure.savefig(part, format="png")

    Yields the path to write to, which then takes the place of `path`. Where the block raises, the old file stays.
    """
    if path.exists() and not path.is_file():  # a device or a pipe, such as /dev/null, which no file may replace
        yield path
        return
    path = path.resolve()  # a link stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        flush(part)  # else the name could reach the disk before the content
        os.replace(part, path)
        flush(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8, whole or not at all."""
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all; what JSON does not know is written as its text."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write a line for each row, the whole file or none of it."""
    with written_whole(path) as part:
        part.write_bytes(_lines(rows))


def append_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Append a line for each row in a single write. Raises: OSError, as for a full disk, with the file as it was."""
    rest = memoryview(_lines(rows))
    with path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            while rest:  # again only where a write was short: the next one says why
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())  # a checkpoint that outlives a machine must not be ahead of the rows before it
        except BaseException:
            file.truncate(before)
            raise


def cut_torn_line(path: Path) -> None:
    """Cut off what an interrupted write has left behind the last whole line."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _lines(rows: Iterable[Any]) -> bytes:
    text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    return text.encode("utf-8", "surrogatepass")


# Reading ---------------------------------------------------------------------------------------------------------


def read_jsonl(
    path: Path,
    make: Callable[[dict[str, Any]], T] = dict,
    *,
    what: str = "a JSON object",
    advice: str = "Give a .jsonl file, one JSON object a line.",
    errors: str = "strict",
    torn: list[bytes] | None = None,
) -> list[T]:
    """What `make` makes of each line's object; blank lines are skipped.

    Args:
        what: what a line should be, for the message where it is something else, or `make` raises one of FAULTS.
        advice: what to do about it: the last sentence of every message.
        errors: as of `bytes.decode`; "surrogatepass" for a file of ours, whose texts may hold lone surrogates.
        torn: where a last line goes that has no end yet and cannot be read; None: it is an error as any other.

    Raises: UserError naming the file, and the line where it is one that cannot be read.
    """
    found = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    if line.strip():
                        found.append(_made(line, make, what, errors))
                except ValueError as error:
                    if torn is None or line.endswith(b"\n"):
                        raise UserError(f"{path}, line {number} {error}. {advice}") from error
                    torn.append(line)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. {advice}") from error
    return found


def read_json(path: Path, advice: str) -> Any:
    """The value in a JSON file. Raises: UserError naming the file, which ends with `advice`."""
    try:
        return _parsed(path.read_bytes(), "strict")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. {advice}") from error
    except ValueError as error:
        raise UserError(f"{path} {error}. {advice}") from error


def _parsed(content: bytes, errors: str) -> Any:
    try:
        return json.loads(content.decode("utf-8", errors))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from error


def _made(line: bytes, make: Callable[[dict[str, Any]], T], what: str, errors: str) -> T:
    row = _parsed(line, errors)
    if not isinstance(row, dict):
        raise ValueError(f"is a {type(row).__name__}, not {what}")
    try:
        return make(row)
    except FAULTS as error:
        said = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"  # a KeyError says a key
        raise ValueError(f"is not {what} ({said})") from error
