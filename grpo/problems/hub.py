"""A data set of the hub -> rows, through the `datasets` library.

| `--data`                    | meaning                                                |
|-----------------------------|--------------------------------------------------------|
| `org/name`                  | the split that is asked for: train to train on, test to evaluate on |
| `org/name:config`           | the same of one of its configurations                  |
| `org/name@validation`       | this split, whatever is asked for                      |
"""

from __future__ import annotations

from typing import Any

from grpo import plugins

Row = dict[str, Any]


def is_hub_name(spec: str) -> bool:
    """Whether `--data SPEC` is a name on the hub. A file of rows has been told apart before."""
    place, _ = plugins.split_function(spec)
    return "/" in place and not place.endswith(".py")


def load_hub(spec: str, split: str) -> list[Row]:
    """The rows of a set; raises what `datasets.load_dataset` raises, and ValueError for a split that it has not."""
    import datasets

    name, config, own_split = parts_of(spec)
    wanted = own_split or split
    try:
        return list(datasets.load_dataset(name, config, split=wanted))
    except ValueError as error:
        there = hub_splits(spec) if "split" in str(error).lower() else [wanted]
        if wanted in there:
            raise
        named = f"{spec.partition('@')[0]}@{there[0]}" if there else "another set"
        raise ValueError(f"it has no split '{wanted}'; it has: {', '.join(there)}. Name one, as in {named}") from error


def hub_splits(spec: str) -> list[str]:
    """The names of the splits of a set; raises what `datasets` raises."""
    import datasets

    name, config, _ = parts_of(spec)
    return list(datasets.get_dataset_split_names(name, config))


def parts_of(spec: str) -> tuple[str, str | None, str | None]:
    """`org/name:config@split` -> name, config, split; None for what is not named."""
    place, _, split = spec.partition("@")
    name, _, config = place.partition(":")
    return name, config or None, split or None
