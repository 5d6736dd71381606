"""An ingredient by name, or a function of one's own, whose output is checked: a wrong shape would broadcast in silence.

B sequences, T token positions (already shifted), P problems a step, G responses a problem.
"""

from __future__ import annotations

from functools import wraps

import torch
from torch import Tensor

from grpo import plugins
from grpo.algorithm.advantages import ADVANTAGES, Advantage
from grpo.algorithm.aggregations import AGGREGATIONS, Aggregation
from grpo.algorithm.objective import LossTerm
from grpo.algorithm.table import FORMER_NAMES
from grpo.errors import UserError
from grpo.records import Batch
from grpo.shapes import of_shape


def load_advantage(spec: str) -> Advantage:
    """`--advantage`. Raises: UserError where there is none of that name, or a user's function fails on an example."""
    advantage = plugins.ingredient(FORMER_NAMES.get(spec, spec), ADVANTAGES, "advantage")
    if spec in ADVANTAGES or spec in FORMER_NAMES:
        return advantage

    @wraps(advantage)
    def checked(rewards: Tensor) -> Tensor:
        return _checked("advantage", spec, advantage(rewards), "[P, G]", rewards)

    _try("advantage", spec, checked, torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    return checked


def load_aggregation(spec: str) -> Aggregation:
    """`--aggregation`. Raises: UserError where there is none of that name, or a user's function fails on an example."""
    aggregation = plugins.ingredient(spec, AGGREGATIONS, "aggregation")
    if spec in AGGREGATIONS:
        return aggregation

    @wraps(aggregation)
    def checked(mask: Tensor, constant: float) -> Tensor:
        return _checked("aggregation", spec, aggregation(mask, constant), "[B, T]", mask)

    _try("aggregation", spec, checked, torch.tensor([[True, True, False], [False, True, False]]), 3.0)
    return checked


def load_loss_term(spec: str | None) -> LossTerm | None:
    """`--loss-term`. Raises: UserError where it names no function."""
    if spec is None:
        return None
    term = plugins.ingredient(spec, {}, "loss-term")

    @wraps(term)
    def checked(logprobs: Tensor, batch: Batch) -> Tensor:
        return _checked("loss-term", spec, term(logprobs, batch), "[B, T]", logprobs)

    return checked


def _checked(flag: str, spec: str, output: Tensor, dimensions: str, like: Tensor) -> Tensor:
    try:
        return of_shape("what it returns", output, dimensions, like.shape)
    except ValueError as error:
        raise UserError(f"--{flag} {spec}: {error}.") from error


def _try(flag: str, spec: str, function, *example) -> None:
    try:
        function(*example)
    except UserError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise UserError(
            f"--{flag} {spec} raised {type(error).__name__}: {error}, on an example of shape "
            f"{list(example[0].shape)}. Mend the function, or use a built-in one."
        ) from error
