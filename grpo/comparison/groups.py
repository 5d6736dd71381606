"""Runs -> groups of runs that differ in nothing but the seed, each named by what sets it apart.

    runs/a (grpo, seed 0), runs/b (grpo, seed 1), runs/c (dr_grpo, seed 0)  ->  "grpo": a, b   "dr_grpo": c

The order of the groups is that in which their first runs were named; the others are compared with the first.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from grpo.algorithm.table import ALGORITHMS, in_todays_words
from grpo.comparison.runs import Run
from grpo.errors import UserError

IGNORED = frozenset(
    "seed name runs_dir resume plan plan_for save_every keep stop_on log_samples save_rollouts wandb wandb_project "
    "wandb_group versions commit steps eval_every verifier_workers memory_fraction kv_cache_gib micro_batch_tokens "
    "gradient_checkpointing compile log_to push_to_hub trained_on".split()
)
"""Settings that say where, how far, how often or how fast, and not what is trained."""
BARE = ("algo", "model", "data", "reward")
"""Settings whose value speaks for itself in a label."""
SEED_SUFFIX = re.compile(r"[-_.]?(seed|s)[-_.=]?\d+$")


@dataclass(frozen=True)
class RunGroup:
    """Runs of the same settings: seeds of one another."""

    label: str
    runs: tuple[Run, ...]
    settings: dict[str, Any]
    """What they share, where all runs have a config.json; an ingredient that is the algorithm's own is None."""


def group_runs(runs: Sequence[Run], labels: Sequence[str] = ()) -> list[RunGroup]:
    """Group by settings, or where `LABEL=PATTERN` matches a run's folder name, by that label.

    A run without a config.json goes by its folder name, less a seed at its end: grpo-seed1 and grpo-seed2 are grpo.
    Raises: UserError for a label that is malformed or matches no run.
    """
    forced = _forced(runs, labels)
    configs = [compared_config(run) for run in runs if run.config is not None and run.folder not in forced]
    compared = set.intersection(*map(set, configs)) if configs else set()  # a setting that older runs lack is not
    gathered: dict[tuple[str, str], list[Run]] = {("label", text): [] for text in dict.fromkeys(forced.values())}
    for run in runs:
        if run.folder in forced:
            key = ("label", forced[run.folder])
        elif run.config is None:
            key = ("folder", SEED_SUFFIX.sub("", run.name) or run.name)
        else:
            settings = {name: value for name, value in _settings(run).items() if name in compared}
            key = ("config", json.dumps(settings, sort_keys=True))
        gathered.setdefault(key, []).append(run)
    shared = [json.loads(key) if kind == "config" else {} for kind, key in gathered]
    configured = [settings for settings in shared if settings]
    actual = [
        compared_config(members[0]) for members, settings in zip(gathered.values(), shared, strict=True) if settings
    ]
    # The same value may be the row's own in one group and a flag's in another: that sets nothing apart.
    differing = [name for name in _differing(configured) if name in _differing(actual)]
    if not differing or any(settings.get(name) is None for settings in configured for name in differing):
        differing = ["algo", *(name for name in differing if name != "algo")]  # stands for what is as usual
    named = [
        (_label(settings, differing) if kind == "config" else key) or members[0].name
        for (kind, key), settings, members in zip(gathered, shared, gathered.values(), strict=True)
    ]
    twice = {label for label, count in Counter(named).items() if count > 1}
    return [
        RunGroup(f"{label} ({members[0].name})" if label in twice else label, tuple(members), settings)
        for label, members, settings in zip(named, gathered.values(), shared, strict=True)
    ]


def show_setting(value: Any) -> str:
    """A setting's value as text: 0.0001 as 1e-4, True as on."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " + ".join(map(show_setting, value)) or "none"
    if isinstance(value, float) and value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.5e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)


def compared_config(run: Run) -> dict[str, Any]:
    """The run's config.json without what is IGNORED, in today's words; empty where it has none."""
    settings = in_todays_words(run.config or {})
    return {name: value for name, value in settings.items() if name not in IGNORED}


def _settings(run: Run) -> dict[str, Any]:
    """What is compared: None for an ingredient that the algorithm's row has anyway."""
    settings = compared_config(run)
    row = ALGORITHMS.get(settings.get("algo"))
    for field in fields(row) if row else ():
        value = getattr(row, field.name)
        if settings.get(field.name) == (list(value) if isinstance(value, tuple) else value):
            settings[field.name] = None
    if str(settings.get("model")).replace("\\", "/").endswith("grpo/tiny_model"):  # embedded: of whichever checkout
        settings["model"] = "tiny_model"
    if settings.get("loss_constant") == settings.get("max_response_tokens"):
        settings["loss_constant"] = None
    return settings


def _forced(runs: Sequence[Run], labels: Sequence[str]) -> dict[Path, str]:
    """Folder -> label, in the order of the labels."""
    forced: dict[Path, str] = {}
    for text in labels:
        label, separator, pattern = text.partition("=")
        if not (separator and label.strip() and pattern):
            raise UserError(f"--label {text} is not LABEL=PATTERN, as in --label 'tuned=dr_grpo-lr*'.")
        matched = [run.folder for run in runs if fnmatch(run.name, pattern) and run.folder not in forced]
        if not matched:
            raise UserError(
                f"--label {text}: no run (left) whose folder name matches '{pattern}'. There are: "
                f"{', '.join(run.name for run in runs)}."
            )
        forced |= dict.fromkeys(matched, label.strip())
    return forced


def _differing(settings: Sequence[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for each in settings for name in each))
    return [name for name in names if len({json.dumps(each.get(name)) for each in settings}) > 1]


def _label(settings: dict[str, Any], differing: Sequence[str]) -> str:
    values = {name: settings[name] for name in differing if settings.get(name) is not None}
    ordered = [*(name for name in BARE if name in values), *(name for name in values if name not in BARE)]
    return ", ".join(_part(name, values[name]) for name in ordered)


def _part(name: str, value: Any) -> str:
    if name in BARE:
        return Path(str(value)).name if name in ("model", "data") else show_setting(value)
    return f"{name.replace('_', ' ')} {show_setting(value)}"
