"""What an evaluation found, problem by problem, and the .jsonl file that holds it: one object a problem.

    >>> write_results(Path("runs/NAME/evaluations/step-000020.jsonl"), results)
    >>> read_results(Path("runs/NAME/evaluations/step-000020.jsonl")) == results

Two such files of the same problems are all that a paired comparison needs: nothing is generated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grpo.errors import UserError
from grpo.files import append_jsonl, read_jsonl, write_jsonl
from grpo.problems.pass_rates import problem_key
from grpo.records import Message


@dataclass(frozen=True)
class ResponseResult:
    """One response and what was said of it."""

    text: str
    correct: bool
    """Full marks from the first verifier, and not cut at the token limit."""
    rewards: dict[str, float | None]
    """Verifier -> raw reward; None where it does not apply."""
    tokens: int
    """Length, the end-of-sequence token included."""
    truncated: bool
    final_answer: str | None
    """What the response answers, as text, for the vote of maj@k; None where it has no answer, or the first verifier's
    file does not say how to read one."""
    failure: str | None
    """`error` or `timeout` where the first verifier failed on it; it counts as incorrect."""


@dataclass(frozen=True)
class ProblemResult:
    """One problem and its responses."""

    index: int
    """Place in the evaluated problems, from 0."""
    id: Any
    """The data's own name for it, None where it has none; as `answer`, `level` and `subject`, a column of the data."""
    prompt: str | list[Message]
    """What the data asks, before the template."""
    answer: Any
    """The gold answer."""
    level: Any
    subject: Any
    responses: tuple[ResponseResult, ...]

    @property
    def accuracy(self) -> float:
        """The share of its responses that is correct."""
        return sum(response.correct for response in self.responses) / len(self.responses)

    @property
    def key(self) -> str:
        """What makes it the same problem in another evaluation."""
        return problem_key(self.prompt, self.answer)


def write_results(path: Path, results: Sequence[ProblemResult]) -> None:
    """Write a whole file or none of it; folders are made."""
    write_jsonl(path, map(asdict, results))


def append_results(path: Path, results: Sequence[ProblemResult]) -> None:
    """Append lines in a single write, all of them or none."""
    append_jsonl(path, map(asdict, results))


def read_results(path: Path) -> list[ProblemResult]:
    """The results of a file. Raises: UserError where there is no such file, it is empty, or it holds something else."""
    advice = (
        "Give a file of results: a run writes runs/NAME/evaluations/step-000000.jsonl and so on, and python -m "
        "grpo.evaluate writes its own into --out."
    )
    results = read_jsonl(path, _result, what="a result of an evaluation", advice=advice, errors="surrogatepass")
    if not results:
        raise UserError(f"The result file {path} is empty: its evaluation has not finished a problem yet.")
    return results


def _result(row: dict[str, Any]) -> ProblemResult:
    responses = tuple(ResponseResult(**response) for response in row.pop("responses"))
    if not responses:
        raise ValueError("it has no responses")
    return ProblemResult(**row, responses=responses)
