"""Evaluations whose numbers are known: what the tests of grpo/evaluation and of python -m grpo.evaluate read."""

from pathlib import Path

from grpo.evaluation.options import Options
from grpo.evaluation.pairing import Evaluated, evaluated
from grpo.evaluation.plan import Evaluation, plan
from grpo.evaluation.resolve import resolve
from grpo.evaluation.results import ProblemResult, ResponseResult
from grpo.presets import EMBEDDED_MODEL
from grpo.records import Problem

TINY = str(EMBEDDED_MODEL)


def response(correct, answer="?", tokens=10, truncated=False, failure=None) -> ResponseResult:
    return ResponseResult("text", correct, {"exact": float(correct)}, tokens, truncated, answer, failure)


def problem(index, *responses, prompt=None, level=None, subject=None) -> ProblemResult:
    return ProblemResult(index, f"id-{index}", prompt or f"problem {index}", "7", level, subject, responses)


RESULTS = [
    problem(0, response(True, "7", 10), response(True, "7", 20), response(False, "8", 40), level=1, subject="Algebra"),
    problem(1, response(False, "8", 60), response(False, None, 99, True), response(True, "7", 30), level=5),
    problem(
        2, *[response(False, "9", 50)] * 2, response(False, "7", 50, failure="timeout"), level=5, subject="Algebra"
    ),
]
"""Three problems, three responses each."""


def named(names: dict[str, str], correct: list[list[bool]], **more) -> Evaluated:
    """An evaluation of which response to which problem is correct; levels 1 and 2 in turn, 10 tokens, 20, 30, ..."""
    results = []
    for i, row in enumerate(correct):
        responses = [ResponseResult("", c, {}, 10 + 10 * i, False, "7" if c else "8", None) for c in row]
        results.append(ProblemResult(i, None, f"p{i}", "7", 1 + i % 2, "Algebra", tuple(responses)))
    return evaluated(names, results, None, **more)


def cell(model: str, template: str) -> dict[str, str]:
    return dict(model=model, data="set", template=template, decoding="sampled")


def small(tmp_path: Path, **values) -> Options:
    """The embedded model on five problems, in chunks of two."""
    return resolve(Options(**({"problems": 5, "chunk_problems": 2, "responses": 2, "out": tmp_path / "out"} | values)))


def planned(options: Options) -> list[Evaluation]:
    return [evaluation for evaluations in plan(options).values() for evaluation in evaluations]


def result(asked: Problem, correct: list[bool]) -> ProblemResult:
    """The result on a planned problem: a response for each of `correct`."""
    responses = [ResponseResult("r", c, {"exact": float(c)}, 10, False, "7" if c else "8", None) for c in correct]
    return ProblemResult(0, None, asked.prompt, asked.columns["answer"], None, None, tuple(responses))
