"""Evaluate models on held-out problems, or read what was evaluated before: `python -m grpo.evaluate`.

    python -m grpo.evaluate --model Qwen/Qwen2.5-Math-1.5B runs/a/model --data math500 aime24 --template qwen_math plain
    python -m grpo.evaluate --results runs/a/evaluations/step-000000.jsonl runs/a/evaluations/step-000100.jsonl

Every model, set, template and way of decoding is an evaluation with a file of its own in --out. It grows by whole
chunks of problems, each drawn from its own seed, so that an interrupted command goes on where it stopped and ends with
what it would have had. Each model runs in a process of its own, and its memory is gone before the next one starts.
"""

from __future__ import annotations

from grpo.early import refuse_early
from grpo.evaluation.asked import asked, check_command

if __name__ == "__main__":  # --help and refusals are there at once, before the imports below
    refuse_early(check_command)

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import transformers
from rich.console import Console

from grpo.engines.choose import choose_engine
from grpo.errors import UserError
from grpo.evaluation.model_process import ProcessFailed, in_own_process
from grpo.evaluation.options import Options, check_ks, refuse_with_results
from grpo.evaluation.pairing import evaluated, file_differences, model_differences
from grpo.evaluation.plan import claim, finished, plan
from grpo.evaluation.report import print_report, write_report
from grpo.evaluation.resolve import resolve
from grpo.evaluation.results import read_results
from grpo.evaluation.sections import sections
from grpo.evaluation.tasks import Task
from grpo.unix import unix_module


def run(options: Options, console: Console) -> None:
    """The command: generate what is missing, or read the files, and report. Raises: UserError."""
    if options.results is not None:
        refuse_with_results(options)
        read = {str(path): read_results(path) for path in options.results}
        check_ks(options.k, max(len(results[0].responses) for results in read.values()))
        found = [evaluated({"file": path}, results, options.k) for path, results in read.items()]
        differences = file_differences(found)
    else:
        engine, reason = choose_engine(options.engine)
        options = resolve(replace(options, engine=engine))
        planned = plan(options)
        console.print(
            f"sampler: {engine} ({reason}); written to: {options.out}", highlight=False, markup=False, soft_wrap=True
        )
        with locked(options.out):
            claim(options.out, [evaluation for evaluations in planned.values() for evaluation in evaluations])
            for model, evaluations in planned.items():
                tasks = [Task(evaluation, finished(evaluation, options.out)) for evaluation in evaluations]
                announce(tasks, console)
                if not all(task.complete for task in tasks):
                    in_own_process(model, [task for task in tasks if not task.complete], options)
        found = [
            evaluated(e.names, read_results(e.path(options.out)), options.k, settings=e.settings, dropped=e.dropped)
            for evaluations in planned.values()
            for e in evaluations
        ]
        differences = model_differences(found)
    print_report(sections(found, differences), console)
    if options.out is not None:
        write_report(options.out, found, differences)
        console.print(f"written to: {options.out}", highlight=False, markup=False, soft_wrap=True)


def announce(tasks: Sequence[Task], console: Console) -> None:
    """What is about to run for one model, and what is there already."""
    for task in tasks:
        problems, done = len(task.evaluation.problems), len(task.done)
        state = "finished before" if task.complete else f"{done} finished before" if done else "to do"
        text = f"{', '.join(task.evaluation.names.values())}: {problems} problems, {state}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the folder, so that no second command writes to it. Raises: UserError where one does."""
    fcntl = unix_module("fcntl")
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"Another command is writing to {out}. Wait for it, or choose another --out.") from None
        yield


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit status: 0 done, 1 a process that crashed, 2 bad input or verifier, 130 interrupted."""
    transformers.utils.logging.disable_progress_bar()
    options = asked(arguments)
    try:
        run(options, Console(width=None if sys.stdout.isatty() else 160))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ProcessFailed as error:
        return error.status
    except KeyboardInterrupt:
        print(
            "interrupted; what was finished is kept, and the same command with the same --out goes on", file=sys.stderr
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
