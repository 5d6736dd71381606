"""A few of each group's responses, for the page: what was written at the first, a middle and the last step."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from grpo.comparison.groups import RunGroup
from grpo.comparison.runs import Run, samples

PER_STEP = 2
"""Responses of a step that are shown."""
LONGEST = 4000
"""Characters of a text that are shown."""


def samples_section(groups: Sequence[RunGroup]) -> str:
    """HTML: each group folded away, by its first run that has a samples.jsonl; empty where none has."""
    folded = []
    for group in groups:
        run, rows = next(((run, rows) for run in group.runs if (rows := picked(run))), (None, []))
        if run is not None:
            shown = "\n".join(_response(row) for row in rows)
            folded.append(f"<details><summary>{escape(f'{group.label}, {run.name}')}</summary>\n{shown}\n</details>")
    if not folded:
        return ""
    return (
        '<section aria-labelledby="responses">\n<h2 id="responses">Responses</h2>\n'
        + "\n".join(folded)
        + "\n</section>"
    )


def picked(run: Run) -> list[dict[str, Any]]:
    """The rows of samples.jsonl that are shown: the first of the first, the middle and the last step that has some."""
    rows = samples(run)
    steps = sorted({row["step"] for row in rows})
    if not steps:
        return []
    shown = dict.fromkeys((steps[0], steps[len(steps) // 2], steps[-1]))
    return [row for step in shown for row in [row for row in rows if row["step"] == step][:PER_STEP]]


def _response(row: dict[str, Any]) -> str:
    facts = [f"step {row['step']}", f"reward {row.get('reward', '–')}"]
    answer = (row.get("columns") or {}).get("answer")
    facts += [f"gold answer {answer}"] if answer is not None else []
    facts += ["cut at the limit"] if row.get("truncated") else []
    return (
        f'<div class="response"><p>{escape(" · ".join(facts))}</p><pre>{escape(_text(row.get("prompt", "")))}</pre>'
        f"<pre>{escape(_text(row.get('response', '')))}</pre></div>"
    )


def _text(value: Any) -> str:
    """A prompt is text, or a list of messages."""
    if isinstance(value, list):
        value = "\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in value)
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text) - LONGEST:,} more characters)"
