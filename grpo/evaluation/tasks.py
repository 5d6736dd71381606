"""What is left to do for a model: its evaluations, chunk by chunk, each appended to its file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import transformers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from grpo.devices import torch_device
from grpo.engines.choose import make_engine
from grpo.engines.protocol import Engine
from grpo.evaluation.options import Options
from grpo.evaluation.plan import Evaluation
from grpo.evaluation.responses import evaluate
from grpo.evaluation.results import ProblemResult, append_results
from grpo.model.head import HEAD_DTYPES
from grpo.model.policy import Policy
from grpo.model.pretrained import load_model, load_tokenizer
from grpo.problems.markers import marker_ids
from grpo.setup import engine_settings, make_verifiers
from grpo.verifiers.verify import Verifiers


@dataclass(frozen=True)
class Task:
    """An evaluation and what of it is done already."""

    evaluation: Evaluation
    done: list[ProblemResult]

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.evaluation.problems)


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


def engine_of(model: str, options: Options) -> Engine:
    """The engine with the model's weights, the only copy of them."""
    policy = None
    if options.engine == "hf":
        loaded = load_model(model, device=torch_device(options), trust_remote_code=options.trust_remote_code)
        head_dtype = HEAD_DTYPES[options.head_dtype]
        policy = Policy(
            loaded, temperature=1.0, micro_batch_tokens=1, head_dtype=head_dtype
        )  # generates only; nothing is trained
    tokenizer = load_tokenizer(model, trust_remote_code=options.trust_remote_code)
    # The ends of all templates of the command: where a model writes the end of a turn, it has ended in any of them.
    markers = {i for template in options.template for i in marker_ids(tokenizer, template, options.chat_args)}
    settings = engine_settings(
        options,
        markers=tuple(sorted(markers)),
        stop=options.stop,
        max_prompt_tokens=options.max_prompt_tokens,
        max_response_tokens=options.max_response_tokens,
        sequences=options.chunk_problems * max(options.responses, 1),
    )
    return make_engine(options.engine, model, tokenizer, settings, policy)
