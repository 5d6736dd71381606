"""The report of check_gpu.py, as Markdown: what the tests, the steps and the parts came to."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

SHOWN = (
    "reward/mean", "policy/sync_gap", "policy/engine_gap", "policy/kl", "policy/entropy", "policy/grad_norm", "tokens",
    "tokens_per_second", "time/generate", "time/verify", "time/update", "time/sync", "time/step", "memory/device_gib",
    "memory/host_gib",
)  # fmt: skip
"""Metrics of a step that the table shows."""
LINES = 40


Case = tuple[str, str, float, str]


def cases(junit: Path) -> list[Case]:
    """(test, passed, failed or skipped, seconds, what was said) of pytest's XML."""
    found = []
    for case in ElementTree.parse(junit).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        skipped = case.find("skipped")
        outcome = "failed" if bad is not None else "skipped" if skipped is not None else "passed"
        said = (bad.text or bad.get("message") or "") if bad is not None else ""
        said = skipped.get("message", "") if bad is None and skipped is not None else said
        found.append((name, outcome, float(case.get("time") or 0), said))
    return found


def outcomes_table(found: list[Case]) -> str:
    """A line of counts, and a row a test; what was left out says why."""
    counts = Counter(outcome for _, outcome, _, _ in found)
    line = ", ".join(f"{counts[name]} {name}" for name in ("passed", "failed", "skipped"))
    rows = [
        f"| {cell(name)} | {'**failed**' if outcome == 'failed' else outcome} | {seconds:.1f} | "
        f"{cell(said) if outcome == 'skipped' else ''} |"
        for name, outcome, seconds, said in found
    ]
    head = "| test | outcome | seconds | why |\n|---|---|---|---|"
    return "\n".join([f"{line}\n", "<details><summary>every test</summary>\n", head, *rows, "\n</details>"])


def failures(found: list[Case]) -> list[tuple[str, str]]:
    """(test, the end of what it said) of those that failed."""
    return [(name, "\n".join(said.splitlines()[-LINES:])) for name, outcome, _, said in found if outcome == "failed"]


def metrics_table(rows: list[dict]) -> str:
    """The steps' rows of metrics.jsonl, side by side; step 0 is the evaluation before the first."""
    steps = [row for row in rows if row["step"]]
    names = [f"step {row['step']}" for row in steps]
    lines = [f"| metric | {' | '.join(names)} |", "|---" * (1 + len(steps)) + "|"]
    for name in SHOWN:
        if any(row.get(name) is not None for row in steps):
            lines.append(f"| `{name}` | {' | '.join(number(row.get(name)) for row in steps)} |")
    return "\n".join(lines)


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def cell(text: str) -> str:
    """Text that does not end the table that it stands in."""
    return " ".join(text.replace("|", "\\|").split())


def report(parts: dict, command: str) -> str:
    """Everything, the outcome of each part first."""
    well = all(part.well for part in parts.values())
    seconds = sum(part.seconds for part in parts.values())
    lines = [
        f"# GPU check: {'all is well' if well else 'FAILED'}",
        "",
        f"`{command}`, {time.strftime('%Y-%m-%d %H:%M')}, {seconds:.0f} s",
        "",
        "| part | outcome | seconds |",
        "|---|---|---|",
        *(f"| {name} | {part.word} | {part.seconds:.0f} |" for name, part in parts.items()),
    ]
    for name, part in parts.items():
        lines += ["", f"## {name}", "", part.text]
    return "\n".join(lines) + "\n"
