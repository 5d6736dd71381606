r"""Try verifiers without a model: `python -m grpo.verifiers --reward SPEC... --data SPEC --labelled FILE`.

`--data` takes problems, as for training: a name in data/, or a .jsonl file of rows such as
{"problem": "1+1?", "answer": "2"}. The gold answer, written as a response (`--template`, by default `\boxed{2}`), must
get 1.0 from every verifier, and a perturbed one, `\boxed{3}`, should get 0. Exit status 1 where a gold answer does not
get 1.0.

`--labelled` takes rows with a response and whether it is correct, such as
{"response": "so \\boxed{2}", "answer": "2", "label": true, "track": "boxed"}, and prints accuracy, the share of
incorrect responses that pass and of correct ones that fail with examples, failures and speed. A response
passes at 0.5 or more.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from grpo.errors import UserError
from grpo.problems.rows import check_data_dir
from grpo.records import Group, Problem, Rollout
from grpo.unix import check_unix
from grpo.verifiers.cases import Row, gold_cases, read_labelled, read_problems
from grpo.verifiers.verify import Outcome, Verifiers, check_specs

PASS = 0.5
"""Of a labelled response, whose label is yes or no: the reward from which on a graded verifier says yes."""
ANSWER = "ANSWER"


class Tried(NamedTuple):
    """A response, and what one verifier said of it."""

    row: Row
    """Of the file that it is from."""
    response: str
    outcome: Outcome


@dataclass(frozen=True)
class Options:
    """Try verifiers without a model."""

    reward: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["-r"])]
    """Verifiers, as for training: a built-in name, ./file.py, ./file.py:function, module:function, trl:./file.py:fn."""
    data: str | None = None
    """Problems, as for training: gold answers must get 1.0, perturbed ones 0."""
    data_dir: Path | None = None
    """Folder of .jsonl files from which a set of data/ is read instead of the hub; unset: the hub."""
    split: str = "train"
    """Split of --data, train or test; a .jsonl file has none."""
    labelled: Path | None = None
    """Responses with the columns response and label (true or false), optionally track, as .jsonl."""
    gold: str = "answer"
    """Column of --data that holds the gold answer; a list holds several, each of which must get 1.0."""
    template: str = rf"\boxed{{{ANSWER}}}"
    """How a response of --data is written; ANSWER stands for the answer."""
    workers: int = 2
    """Worker processes."""
    time_limit: float = 5.0
    """Seconds that one call may take."""
    memory_limit: int = 1024
    """MiB that one call may use; 0 for no limit."""
    examples: int = 3
    """Examples to show of each kind of mistake."""


def tried(verifiers: Verifiers, rows: Sequence[Row], responses: Sequence[str]) -> dict[str, list[Tried]]:
    """What each verifier says of response i to row i."""
    groups = []
    for row, response in zip(rows, responses, strict=True):
        problem = Problem(prompt=row.get("prompt", row.get("problem", "")), prompt_tokens=(), columns=row)
        groups.append(Group(problem, (Rollout(tokens=(), logprobs=(), text=response, truncated=False),)))
    outcomes = verifiers.outcomes(groups)
    return {name: [Tried(*each) for each in zip(rows, responses, said, strict=True)] for name, said in outcomes.items()}


def check_gold(verifiers: Verifiers, options: Options, console: Console) -> bool:
    """Gold answers and perturbed ones; True where every gold answer gets 1.0 (or None, but not all of them)."""
    rows = read_problems(options.data, options.split, options.data_dir, options.gold)
    check_specs(options.reward, rows[0])
    cases = gold_cases(rows, options.gold)
    table = Table("verifier", "gold answers", "get 1.0", "perturbed", "get 0", title=options.data)
    mistakes, ok = [], True
    gold = tried(verifiers, [c[0] for c in cases], [options.template.replace(ANSWER, c[1]) for c in cases])
    wrong = tried(verifiers, [c[0] for c in cases], [options.template.replace(ANSWER, c[2]) for c in cases])
    for name in gold:
        applies = [case for case in gold[name] if case.outcome.reward is not None]
        failing = [case for case in applies if case.outcome.reward != 1.0]
        passing = [case for case in wrong[name] if case.outcome.reward]
        ok = ok and bool(applies) and not failing
        right, zero = len(applies) - len(failing), len(wrong[name]) - len(passing)
        table.add_row(name, *map(str, (len(applies), right, len(wrong[name]), zero)))
        mistakes += [(f"{name}: a gold answer gets", failing), (f"{name}: a perturbed answer gets", passing)]
    console.print(table)
    for title, some in mistakes:
        show_examples(title, some, options, console)
    return ok


def check_labelled(verifiers: Verifiers, options: Options, console: Console) -> None:
    """Accuracy, mistakes and speed on labelled responses."""
    rows = read_labelled(options.labelled)
    check_specs(options.reward, rows[0])
    tried(verifiers, rows[:1], [rows[0]["response"]])  # the first call waits for the workers to import
    started = time.perf_counter()
    found = tried(verifiers, rows, [row["response"] for row in rows])
    elapsed = time.perf_counter() - started

    headings = (
        "verifier",
        "track",
        "responses",
        "accuracy",
        "incorrect pass",
        "correct fail",
        "none",
        "errors",
        "time-outs",
    )
    table = Table(*headings, title=str(options.labelled))
    for name, cases in found.items():
        tracks = list(dict.fromkeys(str(row.get("track", "all")) for row, _, _ in cases))
        for track in tracks:
            table.add_row(name, track, *counted([case for case in cases if str(case.row.get("track", "all")) == track]))
        if len(tracks) > 1:
            table.add_row(name, "all", *counted(cases))
    console.print(table)
    console.print(speed_table(found))
    calls = len(found) * len(rows)
    console.print(f"{calls} in {elapsed:.2f} s with {options.workers} workers: {calls / elapsed:,.0f} a second")
    for name, cases in found.items():
        decided = [case for case in cases if case.outcome.reward is not None]
        passed = [case for case in decided if case.outcome.reward >= PASS and not case.row["label"]]
        failed = [case for case in decided if case.outcome.reward < PASS and case.row["label"]]
        show_examples(f"{name}: an incorrect response gets", passed, options, console)
        show_examples(f"{name}: a correct response gets", failed, options, console)


def counted(cases: Sequence[Tried]) -> list[str]:
    """The cells of a row of the labelled table, from `responses` on; None is left out of the accuracy."""
    spoken = [(row, outcome.reward) for row, _, outcome in cases if outcome.reward is not None]
    decided = [(bool(row["label"]), reward >= PASS) for row, reward in spoken]
    passes = [passed for label, passed in decided if not label]
    fails = [not passed for label, passed in decided if label]
    failures = [outcome.failure for _, _, outcome in cases]
    return [
        str(len(cases)),
        share([label == passed for label, passed in decided]),
        share(passes),
        share(fails),
        *(str(count) for count in (len(cases) - len(decided), failures.count("error"), failures.count("timeout"))),
    ]


def share(hits: Sequence[bool]) -> str:
    """[True, False] -> "50.0% (1/2)"."""
    return f"{sum(hits) / len(hits):.1%} ({sum(hits)}/{len(hits)})" if hits else "-"


def speed_table(found: dict[str, list[Tried]]) -> Table:
    """Milliseconds that a call took inside its worker; for a batch verifier, its one call."""
    table = Table("verifier", "p50", "p90", "p99", "max", title="milliseconds a call")
    for name, cases in found.items():
        spent = sorted(outcome.seconds for _, _, outcome in cases)
        table.add_row(name, *(f"{1000 * spent[round(q * (len(spent) - 1))]:.2f}" for q in (0.5, 0.9, 0.99, 1.0)))
    return table


def show_examples(title: str, cases: Sequence[Tried], options: Options, console: Console) -> None:
    """The first few cases of a kind of mistake, the end of each response, where answers stand."""
    for row, response, outcome in cases[: options.examples]:
        gold, ending = str(row.get(options.gold, ""))[:100], response[-100:]
        why = f" ({outcome.message})" if outcome.message else ""
        console.print(
            escape(f"{title} {outcome.reward:g}{why}: {ending!r}, gold {gold!r}"), highlight=False, soft_wrap=True
        )
    if len(cases) > options.examples:
        console.print(f"... and {len(cases) - options.examples} more", highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command. Exits with status 1 where gold answers do not get 1.0, with 2 where the input is at fault."""
    options = tyro.cli(Options, args=arguments, description=__doc__, prog="python -m grpo.verifiers")
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        if options.data is None and options.labelled is None:
            raise UserError("nothing to check: give problems as --data, labelled responses as --labelled FILE.jsonl.")
        check_data_dir(options.data_dir, [str(spec) for spec in (options.data, options.labelled) if spec is not None])
        check_unix()
        limits = {"time_limit": options.time_limit, "memory_limit": options.memory_limit}
        with Verifiers(options.reward, workers=options.workers, max_failure_share=1.0, **limits) as verifiers:
            ok = options.data is None or check_gold(verifiers, options, console)
            if options.labelled is not None:
                check_labelled(verifiers, options, console)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if not ok:
        console.print("Gold answers do not all get 1.0: a model that answers them is not rewarded.")
        raise SystemExit(1)
