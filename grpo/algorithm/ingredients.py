"""An ingredient by name, or a function of one's own, whose output is checked: a wrong shape would broadcast in silence.

B sequences, T token positions (already shifted), P problems a step, G responses a problem.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from grpo import plugins
from grpo.algorithm.advantages import ADVANTAGES, AdvantageInputs
from grpo.algorithm.aggregations import AGGREGATIONS
from grpo.algorithm.objective import LossTerm
from grpo.algorithm.table import FORMER_NAMES
from grpo.errors import UserError
from grpo.records import Batch
from grpo.shapes import of_shape

Advantage = Callable[[AdvantageInputs], Tensor]
"""-> [P, G]."""

Aggregation = Callable[[Tensor, Tensor], Tensor]
"""(mask [B, T], groups [B]) -> token weights [B, T]."""


def load_advantage(spec: str) -> Advantage:
    """`--advantage`. Raises: UserError where there is none of that name, or a user's function fails on an example."""
    function = plugins.ingredient(FORMER_NAMES.get(spec, spec), ADVANTAGES, "advantage")
    known = [name for name in AdvantageInputs.__dataclass_fields__ if name != "rewards"]
    wanted = _wanted("advantage", spec, function, known)

    def advantage(inputs: AdvantageInputs) -> Tensor:
        asked = {parameter: getattr(inputs, name) for parameter, name in wanted.items()}
        try:
            found = function(inputs.rewards, **asked)
        except KeyError as error:
            if "by_verifier" not in asked or error.args[0] in inputs.by_verifier:
                raise
            known = ", ".join(inputs.by_verifier) or "none"
            raise UserError(f"--advantage {spec}: there is no {error}. by_verifier holds: {known}.") from error
        return _checked("advantage", spec, found, "[P, G]", inputs.rewards)

    if spec not in ADVANTAGES and spec not in FORMER_NAMES:
        _try("advantage", spec, advantage, EXAMPLE)
    return advantage


def load_aggregation(spec: str, constant: float) -> Aggregation:
    """`--aggregation` with its C. Raises: UserError where there is none of that name, or a user's function fails on an
    example."""
    function = plugins.ingredient(spec, AGGREGATIONS, "aggregation")
    wanted = _wanted("aggregation", spec, function, ["constant", "groups"], second="constant")

    def aggregation(mask: Tensor, groups: Tensor) -> Tensor:
        given = {"constant": constant, "groups": groups}
        found = function(mask, **{parameter: given[name] for parameter, name in wanted.items()})
        return _checked("aggregation", spec, found, "[B, T]", mask)

    if spec not in AGGREGATIONS:
        mask = torch.tensor([[True, True, False], [False, True, False]])
        _try("aggregation", spec, aggregation, mask, torch.tensor([0, 1]))
    return aggregation


def load_loss_term(spec: str | None) -> LossTerm | None:
    """`--loss-term`. Raises: UserError where it names no function."""
    if spec is None:
        return None
    term = plugins.ingredient(spec, {}, "loss-term")

    @wraps(term)
    def checked(logprobs: Tensor, batch: Batch) -> Tensor:
        return _checked("loss-term", spec, term(logprobs, batch), "[B, T]", logprobs)

    return checked


def _wanted(flag: str, spec: str, function: Callable, known: list[str], second: str | None = None) -> dict[str, str]:
    """A function's parameters -> which of the known values each of them gets.

    The first parameter is left out: it is positional, whatever its name; the next one gets the `second`, if there is
    such a thing, where its own name says nothing. Raises: UserError for a required parameter of another name.
    """
    parameters: Mapping[str, inspect.Parameter] = inspect.signature(function).parameters
    named = [p for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    first = named[:1] if named and named[0].kind is not inspect.Parameter.KEYWORD_ONLY else []
    others = named[len(first) :]
    values = {p.name: p.name for p in others if p.name in known}
    if second and others and others[0].default is inspect.Parameter.empty and others[0].name not in known:
        values[others[0].name] = second
    unknown = [p.name for p in others if p.default is p.empty and p.name not in values]
    if unknown:
        raise UserError(
            f"--{flag} {spec} requires the parameter {', '.join(unknown)}, which is not known. Beside its first one it "
            f"may ask for: {', '.join(known)}."
        )
    return values


class _EveryVerifier(dict):
    """An example's rewards by verifier: the same for any verifier that a function asks for by name."""

    def __missing__(self, name: str) -> Tensor:
        return self["example"]


EXAMPLE = AdvantageInputs(
    rewards=torch.tensor([[1.0, 0.0], [0.5, 0.5]]),
    lengths=torch.tensor([[2.0, 1.0], [1.0, 2.0]]),
    mask=torch.tensor([[[True, True], [True, False]], [[True, False], [True, True]]]),
    truncated=torch.tensor([[False, False], [False, True]]),
    by_verifier=_EveryVerifier(example=torch.tensor([[1.0, 0.0], [0.5, 0.5]])),
    log_ratio=torch.tensor([[0.5, -0.5], [0.0, 0.0]]),
)
"""On which a user's advantage function is tried."""


def one_response() -> AdvantageInputs:
    """A group of one response, rewarded by 1: every comparison within a group gives it 0."""
    one = AdvantageInputs.of_rewards(torch.ones(1, 1))
    return replace(one, by_verifier=_EveryVerifier(example=one.rewards))


def _checked(flag: str, spec: str, output: Any, dimensions: str, like: Tensor) -> Tensor:
    try:
        of_shape("what it returns", output, dimensions, like.shape)
    except ValueError as error:
        raise UserError(f"--{flag} {spec}: {error}.") from error
    if not output.is_floating_point():
        raise UserError(f"--{flag} {spec}: what it returns must be of a float type, not {output.dtype}.")
    return output


def _try(flag: str, spec: str, function: Callable, *example: Any) -> None:
    try:
        function(*example)
    except UserError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise UserError(
            f"--{flag} {spec} raised {type(error).__name__}: {error}, on a small example. Mend the function, or use a "
            "built-in one."
        ) from error
