"""A finding: what a check has found and what to do about it; and how findings are shown.

warning("prompts", "3 of 20 prompts are dropped", "Raise --max-prompt-tokens to 300.")
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from grpo.errors import UserError

STYLES = {"ok": "green", "warning": "yellow", "fault": "bold red", "not checked": "dim"}
"""Level -> how its word is shown."""
INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories that change how a text around them is shown: controls, directions, line separators."""

Level = Literal["ok", "warning", "fault", "not checked"]


@dataclass(frozen=True)
class Finding:
    """One result of a check."""

    check: str
    level: Level
    """ok; warning: the run starts, and may not do what is meant; fault: it stops, or what it learns means nothing."""
    found: str
    advice: str = ""
    """What to do; empty where all is well, and where `found` is an error that says it itself."""


def ok(check: str, found: str) -> Finding:
    return Finding(check, "ok", found)


def warning(check: str, found: str, advice: str) -> Finding:
    return Finding(check, "warning", found, advice)


def fault(check: str, found: str, advice: str = "") -> Finding:
    return Finding(check, "fault", found, advice)


def not_checked(check: str, because: str) -> Finding:
    return Finding(check, "not checked", because)


def attempt(check: str, make: Callable[..., Any], *arguments: Any, **options: Any) -> Generator[Finding, None, Any]:
    """What `make` returns; where it raises what a run would raise too, a fault that says so, and None.

    rows = yield from attempt("data", load_rows, "gsm8k", "train")
    """
    try:
        return make(*arguments, **options)
    except UserError as error:
        yield fault(check, str(error))
        return None


def guarded(check: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings; where what makes them raises what a run would raise too, a fault that says so as the last one."""
    try:
        yield from findings
    except UserError as error:
        yield fault(check, str(error))


def exit_status(findings: Iterable[Finding]) -> int:
    """1 where there is a fault, else 0."""
    return int(any(finding.level == "fault" for finding in findings))


def printable(text: str, limit: int = 400) -> str:
    r"""A text on one line, in which nothing can move the cursor, change colours or turn the writing around.

    "a\x1b[2Jb\n" -> r"a\x1b[2Jb\n"; the middle of what is longer than `limit` is left out.
    """
    if len(text) > limit:
        text = f"{text[: limit // 2]} [... {len(text) - limit} characters ...] {text[len(text) - limit // 2 :]}"
    return "".join(_escaped(character) for character in text)


def show(findings: Iterable[Finding], console: Console) -> list[Finding]:
    """Print findings as they are made, under the names of their checks, and a last line that counts them."""
    started = time.perf_counter()
    shown: list[Finding] = []
    for finding in findings:
        if not shown or shown[-1].check != finding.check:
            console.print(Text(finding.check, style="bold"))
        console.print(_line(finding))
        shown.append(finding)
    counts = {level: sum(finding.level == level for finding in shown) for level in STYLES}
    words = {"ok": "ok", "warning": "warnings", "fault": "faults", "not checked": "not checked"}
    counted = ", ".join(f"{counts[level]} {words[level]}" for level in STYLES)
    console.print(Text(f"{counted}; {time.perf_counter() - started:.0f} s", style="bold"))
    return shown


def _line(finding: Finding) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=13, justify="right")
    grid.add_column(overflow="fold")
    # Text is shown as it is: what stands in a finding may come from a model.
    grid.add_row(Text(finding.level, style=STYLES[finding.level]), Text(printable(finding.found, 4000)))
    if finding.advice:
        grid.add_row(Text("->"), Text(printable(finding.advice, 4000)))
    return grid


def _escaped(character: str) -> str:
    if character == "\n":
        return "\\n"
    if unicodedata.category(character) not in INVISIBLE:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
