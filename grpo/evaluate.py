"""Evaluate models on held-out problems, or compare what was evaluated before: `python -m grpo.evaluate`.

    python -m grpo.evaluate --model Qwen/Qwen2.5-Math-1.5B runs/a/model --data math500 aime24 --template qwen_math plain
    python -m grpo.evaluate --results runs/a/evaluations/step-000000.jsonl runs/a/evaluations/step-000100.jsonl

Every model, set, template and way of decoding is an evaluation with a file of its own in --out. It grows by whole
chunks of problems, each drawn from its own seed, so that an interrupted command goes on where it stopped and ends with
what it would have had. Each model runs in a process of its own, and its memory is gone before the next one starts.
"""

from __future__ import annotations

import ctypes
import fcntl
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from grpo.engines.choose import choose_engine, make_engine
from grpo.engines.protocol import Engine
from grpo.errors import UserError
from grpo.evaluation import evaluate
from grpo.evaluation.options import Options, check_ks, refuse_with_results, resolve
from grpo.evaluation.pairing import compare_files, compare_models, evaluated
from grpo.evaluation.plan import Evaluation, claim, finished, plan
from grpo.evaluation.report import print_report, sections, write_report
from grpo.evaluation.results import ProblemResult, append_results, read_results
from grpo.model.policy import Policy
from grpo.model.pretrained import load_model, load_tokenizer
from grpo.verifiers.verify import Verifiers


@dataclass(frozen=True)
class Task:
    """An evaluation and what of it is done already."""

    evaluation: Evaluation
    done: list[ProblemResult]

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.evaluation.problems)


def run(options: Options, console: Console) -> None:
    """The command: generate what is missing, or read the files, and report. Raises: UserError."""
    if options.results is not None:
        refuse_with_results(options)
        read = {str(path): read_results(path) for path in options.results}
        check_ks(options.k, max(len(results[0].responses) for results in read.values()))
        found = [evaluated({"file": path}, results, options.k) for path, results in read.items()]
        comparisons = compare_files(found)
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
        comparisons = compare_models(found)
    print_report(sections(found, comparisons), console)
    if options.out is not None:
        write_report(options.out, found, comparisons)
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
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"Another command is writing to {out}. Wait for it, or choose another --out.") from None
        yield


# One model, in a process of its own ------------------------------------------------------------------------------


class ProcessFailed(Exception):
    """The process of a model has ended with another status than 0, and has said why."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the model's process ended with status {status}")
        self.status = status


def in_own_process(model: str, tasks: Sequence[Task], options: Options) -> None:
    """Run the tasks of a model in a new process, and wait for it. Raises: ProcessFailed."""
    process = multiprocessing.get_context("spawn").Process(target=_child, args=(os.getpid(), model, tasks, options))
    process.start()
    try:
        process.join()
    except KeyboardInterrupt:  # the console sends it to both; the child ends by itself
        process.join()
        raise
    if process.exitcode < 0:
        print(
            f"error: the process that evaluated {model} was killed ({signal.Signals(-process.exitcode).name}), perhaps "
            "for its memory: lower --memory-fraction or --kv-cache-gib. What was finished is kept in --out.",
            file=sys.stderr,
        )
    if process.exitcode != 0:
        raise ProcessFailed(max(process.exitcode, 1))


def _child(parent: int, model: str, tasks: Sequence[Task], options: Options) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: die with the command, however it dies
    if os.getppid() != parent:
        sys.exit(1)
    try:
        evaluate_model(model, tasks, options, Console(soft_wrap=True, highlight=False))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # the command itself says so
        sys.exit(130)


def evaluate_model(model: str, tasks: Sequence[Task], options: Options, console: Console) -> None:
    """Generate and verify what is missing, chunk by chunk, each appended to its file. Raises: UserError."""
    transformers.utils.logging.disable_progress_bar()  # ours is the only one
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        refresh_per_second=2,
    )
    with ExitStack() as stack:
        rewards = {task.evaluation.settings["reward"] for task in tasks}
        verifiers = {reward: stack.enter_context(make_verifiers(reward, options)) for reward in rewards}
        engine = engine_of(model, options)
        stack.enter_context(progress)
        for task in tasks:
            evaluate_task(task, engine, verifiers[task.evaluation.settings["reward"]], options, progress)


def evaluate_task(task: Task, engine: Engine, verifiers: Verifiers, options: Options, progress: Progress) -> None:
    """The problems of an evaluation that are not done. A chunk's seed depends on its place alone."""
    evaluation, settings = task.evaluation, task.evaluation.settings
    problems, size, responses = evaluation.problems, settings["chunk_problems"], settings["responses"]
    results = list(task.done)
    name = " ".join(evaluation.names.values())
    bar = progress.add_task(name, total=len(problems) * responses, completed=len(results) * responses)
    for start in range(len(results), len(problems), size):
        found = evaluate(
            engine,
            verifiers,
            problems[start : start + size],
            responses,
            temperature=settings["temperature"],
            max_tokens=settings["max_response_tokens"],
            seed=chunk_seed(settings["seed"], start // size),
            first=start,
            on_response=lambda: progress.advance(bar),
        )
        append_results(evaluation.path(options.out), found)
        results += found
        accuracy = sum(result.accuracy for result in results) / len(results)
        progress.update(bar, description=f"{name} {accuracy:.1%}")
        if not progress.console.is_terminal or len(results) == len(problems):  # no bar to see; or its end
            text = f"{name}: {len(results)}/{len(problems)} problems, accuracy {accuracy:.1%}"
            progress.console.print(text, markup=False)


def chunk_seed(seed: int, chunk: int) -> int:
    """A seed of its own for each chunk, of no more bits than torch takes."""
    return (seed * 1_000_003 + chunk) % 2**63


def make_verifiers(reward: Sequence[str], options: Options) -> Verifiers:
    return Verifiers(
        reward,
        workers=options.verifier_workers,
        time_limit=options.verifier_time_limit,
        memory_limit=options.verifier_memory_limit,
        max_failure_share=options.verifier_max_failures,
    )


def engine_of(model: str, options: Options) -> Engine:
    """The engine with the model's weights, the only copy of them."""
    policy = None
    if options.engine == "hf":
        cuda = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
        loaded = load_model(model, device="cuda" if cuda else "cpu", trust_remote_code=options.trust_remote_code)
        policy = Policy(loaded, temperature=1.0, micro_batch_tokens=1)  # generates only; nothing is trained
    return make_engine(
        options.engine,
        model=model,
        policy=policy,
        tokenizer=load_tokenizer(model, trust_remote_code=options.trust_remote_code),
        stop=options.stop,
        max_prompt_tokens=options.max_prompt_tokens,
        max_response_tokens=options.max_response_tokens,
        sequences=min(256, options.chunk_problems * max(options.responses, 1)),
        memory_fraction=options.memory_fraction,
        kv_cache_gib=options.kv_cache_gib,
        trust_remote_code=options.trust_remote_code,
    )


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit status: 0 done, 1 a process that crashed, 2 bad input or verifier, 130 interrupted."""
    transformers.utils.logging.disable_progress_bar()
    options = tyro.cli(Options, args=arguments, prog="python -m grpo.evaluate")
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
