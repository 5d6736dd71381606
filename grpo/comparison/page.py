"""A comparison as one self-contained HTML page: panels to read off, tables, settings and a few responses.

The page fetches nothing: style, script and numbers are inside, and its own policy forbids the rest. Everything that
comes from a run is escaped. Without a script it shows the picture instead of the panels.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from grpo.comparison.cells import seeds_text
from grpo.comparison.charts import chart_data, figure, legend_button, one_step_in
from grpo.comparison.comparison import Comparison
from grpo.comparison.samples import samples_section
from grpo.comparison.styles import styles
from grpo.comparison.summary import Finding, findings, methods, notes
from grpo.comparison.tables import differences_section, runs_table, settings_section, titled, values_table

HERE = Path(__file__).parent


def page(comparison: Comparison, picture: bytes, command: Sequence[str]) -> str:
    """The page. `picture` is the same as PNG; `command` is how it was made."""
    groups, looks = comparison.groups, styles([group.label for group in comparison.groups])
    count = sum(len(group.runs) for group in groups)
    said = [f"<li>{escape(note)}</li>" for note in notes(comparison)]
    thinned = [f"Training curves show one step in {every}."] if (every := one_step_in(comparison)) > 1 else []
    methods_said = [*methods(comparison), *thinned, f"Made by: {shlex.join(command)}"]
    return Template(_asset("html")).substitute(
        title=escape(comparison.title),
        subtitle=escape(
            f"{count} runs in {len(groups)} groups, compared at step {comparison.view.horizon}{_task(comparison)}"
        ),
        notes=f'<aside class="notes" aria-label="Notes"><ul>{"".join(said)}</ul></aside>' if said else "",
        findings="\n".join(map(_finding, findings(comparison))),
        legend="\n".join(
            legend_button(group.label, look, seeds_text(group)) for group, look in zip(groups, looks, strict=True)
        ),
        panels="\n".join(figure(i, panel) for i, panel in enumerate(comparison.panels)),
        caption=escape(
            " ".join(methods(comparison)[:2]) + " Reward against length goes from the open mark to the filled one."
        ),
        values=values_table(comparison),
        differences=differences_section(comparison) if len(groups) > 1 else "",
        runs=runs_table(comparison),
        settings=settings_section(comparison),
        samples=samples_section(groups),
        methods="<br>".join(map(escape, methods_said)),
        style=_asset("css"),
        script=_asset("js"),
        data=_embedded(chart_data(comparison, looks)),
        picture=base64.b64encode(picture).decode(),
    )


def _task(comparison: Comparison) -> str:
    """Model and data, where all groups share them."""
    shared = [{json.dumps(group.settings.get(name)) for group in comparison.groups} for name in ("model", "data")]
    if any(len(values) > 1 or values == {"null"} for values in shared):
        return ""
    model, data = (Path(str(json.loads(*values))).name for values in shared)
    return f": {model} on {data}"


def _finding(finding: Finding) -> str:
    groups = "".join(f"<li>{escape(text)}</li>" for text in finding.groups)
    return f"<li>{titled(finding.title, finding.meaning)}<ul>{groups}</ul></li>"


def _embedded(data: dict[str, Any]) -> str:
    """JSON that no label can break out of the script element with."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _asset(kind: str) -> str:
    return (HERE / f"page.{kind}").read_text("utf-8").rstrip("\n")
