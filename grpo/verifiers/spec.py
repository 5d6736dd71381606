"""What a verifier is to the trainer and its workers: a `--reward` argument -> a function and how to call it.

    load_verifier("./mine.py:strict=0.5")      -> Verifier(name="mine.strict", weight=0.5, kind="single", ...)
    verifier.missing(["answer"])               -> the parameters that neither the response nor the data provides
    verifier.arguments(problem, rollout)       -> {"response": "...", "answer": "4"}

Every worker process imports this file, so it imports nothing heavy: no torch, no records.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from grpo import plugins
from grpo.errors import UserError


def _completion(problem, rollout) -> str | list[dict[str, str]]:
    # TRL's own convention: messages in, a message out.
    return rollout.text if isinstance(problem.prompt, str) else [{"role": "assistant", "content": rollout.text}]


FROM_ROLLOUT: dict[str, dict[str, Callable]] = {
    "single": {
        "response": lambda problem, rollout: rollout.text,
        "tokens": lambda problem, rollout: rollout.tokens,
        "truncated": lambda problem, rollout: rollout.truncated,
        "prompt": lambda problem, rollout: problem.prompt,
    }
}
_single = FROM_ROLLOUT["single"]
FROM_ROLLOUT["batch"] = {"responses": _single["response"], "prompts": _single["prompt"]} | {
    name: _single[name] for name in ("tokens", "truncated", "prompt")
}
FROM_ROLLOUT["trl"] = {"prompts": _single["prompt"], "completions": _completion, "completion_ids": _single["tokens"]}
"""Kind of verifier -> the parameters that the problem and its response give. All others are columns of the data."""

OF_RUN = ("step", "steps")
"""Parameters that the run gives, where the data has no column of that name: how far it is, for rewards that change."""


@dataclass(frozen=True)
class Verifier:
    """A reward function and how to call it. The trainer reads the signature, the workers call the function."""

    spec: str
    """As on the command line, the weight included."""
    name: str
    weight: float
    function: Callable
    kind: str
    """"single": one response a call; "batch": a step's responses a call, as lists; "trl": the same in TRL's words."""
    parameters: tuple[str, ...]
    required: frozenset[str]
    any_column: bool
    """The function takes `**kwargs`: it gets all there is."""
    time_limit: float | None
    """Seconds a call may take, by `TIME_LIMIT` of its file; None: what --verifier-time-limit says."""
    starts_processes: bool
    """Its file says `STARTS_PROCESSES = True`; no other verifier may start any."""
    prepare: Callable[[], Any] | None
    """The function `prepare` of its file, called once in each worker, before any limit applies: to load a model."""
    not_ready: Callable[[], str | None] | None
    """The function `not_ready` of its file: why it cannot work here, such as a setting that it lacks; None if it can.
    It is asked before anything is loaded."""
    final_answer: Callable[[str], str | None] | None
    """The function `final_answer` of its file: what a response answers, as text, for the vote of maj@k."""

    def missing(self, columns: Collection[str]) -> list[str]:
        """Required parameters that neither the rollout, the run nor the columns of the data provide."""
        given = {*FROM_ROLLOUT[self.kind], *OF_RUN}
        return [name for name in self.parameters if name in self.required and name not in given and name not in columns]

    def arguments(self, problem, rollout, at: tuple[int, int] = (1, 1)) -> dict[str, Any]:
        """Parameter name -> value for one response. at: the step, and the steps of the run.

        Raises: UserError where this row of the data lacks a required column.
        """
        given, columns = FROM_ROLLOUT[self.kind], problem.columns
        wanted = self.parameters
        if self.any_column:
            own = {"prompt", "completion"} if self.kind == "trl" else ()  # TRL keeps these two to itself
            wanted = dict.fromkeys([*wanted, *given, *(column for column in columns if column not in own)])
        values = {}
        for name in wanted:
            if name in given:
                values[name] = given[name](problem, rollout)
            elif name in columns:
                values[name] = columns[name]
            elif name in OF_RUN:
                values[name] = at[OF_RUN.index(name)]
            elif name in self.required:
                raise UserError(missing_column(self, [name], columns))
        return values

    def answer_of(self, response: str) -> str | None:
        """What a response answers, by `final_answer`; None where it has no answer, or there is no such function.

        Raises: UserError where the function raises, or returns what is no text.
        """
        if self.final_answer is None:
            return None
        try:
            answer = self.final_answer(response)
        except Exception as error:  # a user's function may raise anything
            raise UserError(
                f"final_answer of '{self.spec}' raised {type(error).__name__}: {error}, on the response that begins "
                f"{response[:80]!r}. It must return a text or None for any response."
            ) from error
        if answer is not None and not isinstance(answer, str):
            raise UserError(f"final_answer of '{self.spec}' returned {answer!r:.80}. It must return a text or None.")
        return answer


def missing_column(verifier: Verifier, missing: Sequence[str], columns: Collection[str]) -> str:
    """The message for required parameters that nothing provides."""
    listed, given = ", ".join(f"'{name}'" for name in missing), ", ".join(FROM_ROLLOUT[verifier.kind])
    return (
        f"verifier '{verifier.spec}' requires {listed}, which is not a column of the data. "
        f"The columns are: {', '.join(columns) or 'none'}; the response gives: {given}; the run: {', '.join(OF_RUN)}. "
        "Rename the parameter, give it a default, or map a column of the data to that name."
    )


def load_verifier(spec: str) -> Verifier:
    """The verifier that a `--reward` argument names (the grammar is in grpo/plugins.py; `trl:` marks TRL's convention).

    Raises: UserError where it cannot be loaded or called by parameter name.
    """
    place, weight = plugins.split_weight(spec)
    trl = place.startswith("trl:")
    try:
        function = plugins.load(place.removeprefix("trl:"), "rewards")
        parameters = inspect.signature(function).parameters.values()
    except UserError:
        raise
    except Exception as error:  # importing a user's module runs any code, which may raise anything
        raise UserError(f"'{spec}' failed while loading with {type(error).__name__}: {error}") from error
    unnamed = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
    if unnamed:
        raise UserError(
            f"'{spec}' takes {', '.join(unnamed)} by position only, but verifiers are called with parameters by name. "
            "Remove the '/' from its signature."
        )
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = tuple(p.name for p in named)
    module = sys.modules.get(getattr(function, "__module__", ""))
    return Verifier(
        spec=spec,
        name=plugins.short_name(place),
        weight=weight,
        function=function,
        kind="trl" if trl else "batch" if "responses" in names else "single",
        parameters=names,
        required=frozenset(p.name for p in named if p.default is p.empty),
        any_column=any(p.kind is p.VAR_KEYWORD for p in parameters),
        time_limit=_time_limit(spec, module),
        starts_processes=getattr(module, "STARTS_PROCESSES", False) is True,
        prepare=getattr(module, "prepare", None),
        not_ready=getattr(module, "not_ready", None),
        final_answer=getattr(module, "final_answer", None),
    )


def _time_limit(spec: str, module: Any) -> float | None:
    limit = getattr(module, "TIME_LIMIT", None)
    if limit is not None and not (isinstance(limit, int | float) and 0 < limit < float("inf")):
        raise UserError(f"'{spec}': TIME_LIMIT in its file is {limit!r:.80}, and must be seconds, more than 0.")
    return limit
