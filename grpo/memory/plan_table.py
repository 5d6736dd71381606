"""A plan as text: the table of what each stage holds, in GiB, what is left, and a sentence on whether it fits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from rich import box
from rich.table import Table

from grpo.memory.fit import fits, left
from grpo.memory.stages import GIB, ROWS, STAGES, Load, largest_update, stages, total


def plan_table(load: Load, title: str) -> Table:
    """A column for each stage; what a stage does not hold is left blank."""
    held, free = stages(load), left(load)
    columns = [stage for stage in STAGES if stage in held]
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("GiB")
    for stage in columns:
        table.add_column(stage, justify="right")
    for row in ROWS:
        if any(held[stage].get(row) for stage in columns):
            table.add_row(row, *(f"{held[stage][row] / GIB:.1f}" if held[stage].get(row) else "" for stage in columns))
    table.add_section()
    table.add_row("sum", *(f"{total(held[stage]) / GIB:.1f}" for stage in columns))
    table.add_row("left", *(f"{free[stage] / GIB:.1f}" for stage in columns), style="bold")
    return table


def notes(load: Load) -> list[str]:
    """What the table does not show: activations either way, and how many responses the KV cache holds."""
    recomputed, whole = (largest_update(replace(load, recompute=recompute)) for recompute in (True, False))
    lines = [
        f"activations of the largest micro-batch, {load.tokens:,} positions: {recomputed.activations / GIB:.1f} GiB "
        f"with recomputed layers, {whole.activations / GIB:.1f} GiB without"
    ]
    if load.vllm:
        whole_responses = int(max(0, load.kv_cache) // load.kv_sequence)
        lines.append(
            f"vLLM's KV cache holds {whole_responses:,} responses of the full {load.sequence:,} tokens at a time; up "
            f"to {load.generated_sequences} are generated at once"
        )
    return lines


def verdict(load: Load, saved: Mapping[str, float], enough: Collection[str] = ()) -> str:
    """One paragraph: it fits, or what is too much and what each change would save.

    saved: change -> bytes, in the stage that lacks most; enough: those with which the run fits.
    """
    free = left(load)
    stage = min(free, key=free.get)
    if fits(load):
        return f"It fits: at least {free[stage] / GIB:.1f} GiB of the card are left, in the stage '{stage}'."
    if free[stage] >= 0:
        stage, lacking = "generate", "vLLM's share leaves its KV cache no room for a response of full length"
    else:
        lacking = f"{-free[stage] / GIB:.1f} GiB are lacking"
    held = {row: size for row, size in stages(load)[stage].items() if size > 0}
    largest = ", ".join(f"{row} {held[row] / GIB:.1f}" for row in sorted(held, key=held.get, reverse=True))
    ways = "; ".join(
        f"{way} saves {size / GIB:.1f}{', and then it fits' if way in enough else ''}" for way, size in saved.items()
    )
    return (
        f"It does not fit a card of {load.card / GIB:.1f} GiB: in the stage '{stage}' {lacking} (GiB: {largest}). "
        + (f"In GiB, {ways}. " if ways else "")
        + ("None of these is enough alone. " if ways and not any(way in enough for way in saved) else "")
        + "Otherwise use a smaller --model or a larger card."
    )
