"""Held-out problems through real vLLM and real verifiers."""

import pytest
from conftest import make_policy

from grpo.errors import UserError
from grpo.evaluation.measures import measure
from grpo.evaluation.responses import evaluate
from grpo.records import Problem
from grpo.verifiers.verify import Verifiers

MINE = """
def reward(tokens): return float(len(tokens) % 2)
def final_answer(response): return response[:1] or None
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A verifier that likes an odd number of tokens, and takes the first character for the answer."""
    path = tmp_path_factory.mktemp("verifiers") / "mine.py"
    path.write_text(MINE)
    with Verifiers([str(path), "think_format=0.1"], workers=1) as verifiers:
        yield verifiers


SAMPLING = dict(temperature=1.0, max_tokens=24, seed=3)


def test_every_response_is_verified_and_kept(vllm_engine, tied_folder, problems, mine):
    vllm_engine.sync(make_policy(tied_folder))
    calls = []
    results = evaluate(vllm_engine, mine, problems, 6, first=10, on_response=lambda: calls.append(1), **SAMPLING)
    groups = vllm_engine.generate(problems, 6, **SAMPLING)
    assert len(calls) == 24 and [result.index for result in results] == [10, 11, 12, 13]
    assert [result.prompt for result in results] == [problem.prompt for problem in problems]
    assert [result.answer for result in results] == ["0", "1", "2", "3"]
    cut_but_odd = 0
    for result, group in zip(results, groups, strict=True):
        for found, rollout in zip(result.responses, group.rollouts, strict=True):
            odd = len(rollout.tokens) % 2 == 1
            assert (found.text, found.tokens, found.truncated) == (rollout.text, len(rollout.tokens), rollout.truncated)
            assert found.rewards == {"mine": float(odd), "think_format": 0.0} and found.failure is None
            assert found.correct == (odd and not rollout.truncated)
            assert found.final_answer == (rollout.text[:1] or None)
    assert {found.correct for result in results for found in result.responses} == {True, False}
    odd_budget = evaluate(vllm_engine, mine, problems, 6, **(SAMPLING | {"max_tokens": 5}))
    for found in (found for result in odd_budget for found in result.responses):
        cut_but_odd += found.truncated and found.rewards["mine"] == 1.0
        assert not (found.truncated and found.correct)
    assert cut_but_odd > 0


def test_what_came_before_changes_nothing(vllm_engine, tied_folder, mine):
    """A resumed evaluation begins with an empty prefix cache, an uninterrupted one with that of the chunk before. With
    these prompts a filled one would change which requests fit into a pass together, and so the rounding. They are more
    than a pass takes."""
    vllm_engine.sync(make_policy(tied_folder))
    long = [Problem("", tuple(3 + (i * 7 + j * (i + 3)) % 200 for j in range(160)), {"answer": ""}) for i in range(64)]
    fresh = evaluate(vllm_engine, mine, long, 1, **SAMPLING)
    assert evaluate(vllm_engine, mine, long, 1, **SAMPLING) == fresh


def test_a_failing_verifier_is_counted_and_its_responses_incorrect(vllm_engine, tied_folder, problems, tmp_path):
    path = tmp_path / "moody.py"
    path.write_text("def reward(answer):\n    if answer == '2': raise RuntimeError('no')\n    return 1.0\n")
    vllm_engine.sync(make_policy(tied_folder))
    with Verifiers([str(path)], workers=1) as verifiers:
        results = evaluate(vllm_engine, verifiers, problems, 2, **(SAMPLING | {"max_tokens": 150}))
    assert [[r.failure for r in result.responses] for result in results] == [[None] * 2] * 2 + [
        ["error"] * 2,
        [None] * 2,
    ]
    assert not any(r.correct for r in results[2].responses)
    assert measure(results).failures == 2 and measure(results).maj_at == {}


@pytest.mark.parametrize(
    "body,message",
    [("raise KeyError('x')", "raised KeyError: 'x', on the response that begins"), ("return 5", "returned 5")],
)
def test_a_final_answer_that_will_not_do_ends_the_evaluation(tmp_path, body, message):
    path = tmp_path / "bad.py"
    path.write_text(f"def reward(response): return 1.0\ndef final_answer(response): {body}\n")
    with Verifiers([str(path)], workers=1) as verifiers, pytest.raises(UserError, match=message):
        verifiers.final_answer("some text")


def test_the_first_verifier_gives_the_answers(mine):
    with Verifiers(["think_format", "math_answer"], workers=1) as verifiers:
        assert verifiers.final_answer(r"\boxed{4}") is None
    assert mine.final_answer("xyz") == "x"


@pytest.mark.parametrize(
    "verifier,text,answer",
    [
        ("math_answer", r"so \boxed{\dfrac{1}{2}}.", r"\frac12"),
        ("math_answer", r"It is $\frac12$.", r"\frac12"),
        ("math_answer", r"\boxed{1,250}", "1250"),
        ("math_answer", r"\boxed{\$1,250}", "1250"),
        ("math_answer", r"\boxed{\text{(A)}}", "(A)"),
        ("math_answer", r"\boxed{\{1, 2\}}", "⦃1,2⦄"),
        ("math_answer", "So she pays $1,250 in total.", "1250"),
        ("math_answer", "The answer is 18 dollars.", "18"),
        ("math_answer", r"\boxed{1} and \boxed{2}", "1,2"),
        ("math_answer", r"first \boxed{1}. Then \boxed{2}", "2"),
        ("math_answer", r"\boxed{", None),
        ("math_answer", "", None),
        ("math_answer", r"\boxed{" + "9" * 2000 + "}", None),
        ("gsm8k", "#### 1,250.50", "2501/2"),
        ("gsm8k", r"\boxed{\frac{2}{4}}", "1/2"),
        ("gsm8k", "none", None),
        ("exact", r"\boxed{ Paris }", "Paris"),
        ("exact", "  ", None),
        ("choice", "the answer is (b).", "B"),
        ("choice", "B or C", None),
        ("sorted_list", "<answer>1, 2,3</answer>", "1 2 3"),
        ("sorted_list", "no", None),
        ("countdown", r"\boxed{1+2}", None),  # correct answers differ: it has no final_answer
    ],
)
def test_final_answers(verifier, text, answer):
    with Verifiers([verifier], workers=1) as verifiers:
        assert verifiers.final_answer(text) == answer
