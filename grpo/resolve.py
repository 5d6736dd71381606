"""A config that is asked for -> one that can run here: the device, and functions of one's own, tried on an example.

No model is loaded before this has passed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from grpo.algorithm.ingredients import load_advantage, load_aggregation, load_loss_term, one_response
from grpo.asked import asked, check_group_size, completed
from grpo.config import Config
from grpo.devices import check_device, torch_device
from grpo.flags import check_head
from grpo.presets import WITHOUT_PLAN


def parse(arguments: list[str] | None = None) -> Config:
    """The command line -> a resolved, checked config. An unknown flag ends the program with what exists."""
    return on_this_machine(asked(arguments))


def resolve(config: Config, given: Collection[str] | None = None) -> Config:
    """Fill what is unset, and check the result. Raises: UserError.

    given: the cells that the user has set, as far as they are to be checked against the rest; unset: all that are set.
    """
    return on_this_machine(completed(config, given))


def on_this_machine(config: Config) -> Config:
    """Fill what depends on the device, and check what needs torch. Raises: UserError."""
    check_device(config.device)
    if not config.planned:
        check_head(config, torch_device(config))
        if torch_device(config) == "cpu":  # on a card the plan of its memory picks them
            config = replace(config, **{k: v for k, v in WITHOUT_PLAN.items() if getattr(config, k) is None})
    check_ingredients(config)
    return config


def check_ingredients(config: Config) -> None:
    """A user's own ingredients are called on an example. Raises: UserError."""
    load_aggregation(config.aggregation, config.loss_constant)
    load_loss_term(config.loss_term)
    if not load_advantage(config.advantage)(one_response()).any():
        check_group_size(config)
