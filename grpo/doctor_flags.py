"""The flags of `python -m grpo.doctor`, which are those of a run; only what does not go together is refused."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import tyro

from grpo.asked import completed
from grpo.config import Config
from grpo.resume import resumed


def asked(arguments: list[str] | None, description: str) -> Config:
    """The command line -> a config. An unknown flag ends the program with what exists. Raises: UserError."""
    flags = tyro.cli(Config, args=arguments, description=description, prog="python -m grpo.doctor")
    return completed(resumed(arguments, flags), given=()) if flags.resume else completed(unnamed(flags))


def unnamed(config: Config) -> Config:
    """The flags with a run's name that is surely free, so that those of a run that exists can be examined too."""
    return replace(config, name=f"doctor-{uuid4()}")
