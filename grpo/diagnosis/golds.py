"""Gold answers through the run's verifiers: written as a response each must get full marks, and changed it must not.

Only verifiers that read the column `answer` can be asked so; of the others nothing is known before responses come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from grpo.diagnosis.findings import Finding, fault, not_checked, ok, printable, warning
from grpo.outcomes import is_correct
from grpo.problems.rows import Row
from grpo.verifiers.cases import gold_cases
from grpo.verifiers.check import Tried, tried
from grpo.verifiers.spec import Verifier, load_verifier
from grpo.verifiers.verify import Verifiers

CHECK = "gold answers"
ROWS = 64
"""Rows that are tried, spread over the data."""
FORMS = (
    r"\boxed{ANSWER}",
    "ANSWER",
    "<answer>ANSWER</answer>",
    "<think>\nSo it is.\n</think>\n<answer>\\boxed{ANSWER}</answer>",
    "#### ANSWER",
)
"""How a response may give the answer; what counts is the form that a verifier takes best."""
Case = tuple[Row, str, str]
"""A row, its gold answer, a wrong one."""
BAD_SHARE, GULLIBLE_SHARE = 0.1, 0.5
"""Of gold answers without full marks, and of changed ones with them: from here on a fault, below a warning."""


def gold_findings(verifiers: Verifiers, specs: Sequence[str], rows: Sequence[Row], data: str) -> Iterator[Finding]:
    """`specs`: as on the command line, the first says what is correct; `data`: as the flags of
    grpo.verifiers have it, for the advice.

    Raises: UserError where a verifier returns what is no reward.
    """
    if "answer" not in rows[0]:
        yield not_checked(CHECK, "the data has no column 'answer' (--answer-column names another)")
        return
    rows = rows[:: -(-len(rows) // ROWS)]
    # A list is several alternatives, and a row that lacks the column has none.
    cases = gold_cases([row for row in rows if row.get("answer") is not None], "answer")
    for spec in specs:
        verifier = load_verifier(spec)
        if "answer" not in verifier.parameters:
            yield not_checked(CHECK, f"{verifier.name} has no parameter 'answer', and so reads no gold answer")
        elif not cases:
            yield not_checked(CHECK, "no row has an answer")
        else:
            yield from _of_one(verifiers, verifier, cases, first=spec == specs[0], data=data)


def _of_one(
    verifiers: Verifiers, verifier: Verifier, cases: Sequence[Case], *, first: bool, data: str
) -> Iterator[Finding]:
    level = fault if first else warning
    form, right = _best_form(verifiers, verifier, cases)
    good = [case for case in right if is_correct(case.outcome.reward)]
    bad = [case for case in right if not is_correct(case.outcome.reward)]
    command = f"python -m grpo.verifiers --reward '{verifier.spec}' --data {data}"
    if not right:
        yield not_checked(CHECK, f"{verifier.name} says of every gold answer that it does not apply")
        return
    if not good:
        yield level(
            CHECK,
            f"{verifier.name}: none of {len(right)} gold answers gets full marks, in any of {len(FORMS)} forms; "
            f"{_case(bad[0])}",
            "Look at the answers of the data (--answer-column) and at what the verifier expects (--reward). If it "
            f"expects another form of response, try that one: {command} --template 'ANSWER'.",
        )
        return
    summary = f"{verifier.name}: {len(good)} of {len(right)} gold answers get full marks, written as {printable(form)}"
    if bad:
        yield (level if len(bad) >= BAD_SHARE * len(right) else warning)(
            CHECK,
            f"{summary}; {_case(bad[0])}",
            f"A model that answers these is not rewarded. See them by {command}, and mend or leave out their rows.",
        )
    else:
        yield ok(CHECK, summary)
    wrong = _tried(verifiers, verifier, cases, form, gold=False)
    passing = [case for case in wrong if is_correct(case.outcome.reward)]
    if passing:
        yield (level if len(passing) >= GULLIBLE_SHARE * len(wrong) else warning)(
            CHECK,
            f"{verifier.name}: {len(passing)} of {len(wrong)} changed answers get full marks too; {_case(passing[0])}",
            f"Wrong answers are rewarded: make the verifier stricter, or use another --reward. See {command}",
        )
    else:
        yield ok(CHECK, f"{verifier.name}: none of {len(wrong)} changed answers gets full marks")


def _best_form(verifiers: Verifiers, verifier: Verifier, cases: Sequence[Case]) -> tuple[str, list[Tried]]:
    """The form in which most gold answers get full marks, the first of several; and what was said of them."""
    results = []
    for form in FORMS:
        right = _tried(verifiers, verifier, cases, form, gold=True)
        results.append((sum(is_correct(case.outcome.reward) for case in right), form, right))
        if results[-1][0] == len(right):
            break
    return max(results, key=lambda result: result[0])[1:]


def _tried(verifiers: Verifiers, verifier: Verifier, cases: Sequence[Case], form: str, *, gold: bool) -> list[Tried]:
    """What the verifier says of each case; those to which it does not apply (None) are left out, failures are not."""
    answers = [case[1] if gold else case[2] for case in cases]
    said = tried(verifiers, [case[0] for case in cases], [form.replace("ANSWER", answer) for answer in answers])
    return [case for case in said[verifier.name] if case.outcome.failure or case.outcome.reward is not None]


def _case(case: Tried) -> str:
    why = f" ({printable(case.outcome.message, 200)})" if case.outcome.message else ""
    return (
        f"'{printable(case.response, 120)}' gets {case.outcome.reward:g}{why} where the answer is "
        f"'{printable(str(case.row['answer']), 120)}'"
    )
