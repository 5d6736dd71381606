"""The flags of `python -m grpo.evaluate`: one dataclass, one line a flag, and what they alone are refused for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from grpo.errors import UserError
from grpo.flags import DataFlags, EngineFlags, VerifierFlags, check_choices, check_head, flag, require
from grpo.model.model_folder import check_model_files
from grpo.presets import EMBEDDED_MODEL, PRESETS
from grpo.problems.templates import check_prompts


@dataclass(frozen=True, kw_only=True)
class SubjectFlags:
    """What is evaluated, on what."""

    model: tuple[str, ...] | None = None
    """Models, folders or hub names; the others are compared with the first; unset: the embedded tiny model."""
    data: tuple[str, ...] | None = None
    """Data sets, as --data of grpo.train; unset: arithmetic (embedded) or math500."""
    split: Literal["test", "train"] = "test"
    """Split of the sets that have some; train measures pass rates, for --keep-rate of grpo.train."""
    problems: int | None = None
    """The first so many problems of each set; unset: 256 (embedded) or all."""
    template: tuple[str, ...] = ("auto",)
    """Prompt templates, each of which is an evaluation: auto, chat, qwen_math, r1, plain, or a file."""
    reward: tuple[str, ...] | None = None
    """Verifiers for all sets, the first of which says what is correct; unset: those of each set."""
    results: tuple[Path, ...] | None = None
    """Result files to compare, the others with the first, instead of generating: runs/NAME/evaluations/*.jsonl."""


@dataclass(frozen=True, kw_only=True)
class DecodingFlags:
    """How responses are drawn, and what is made of them."""

    responses: int = 8
    """Sampled responses to each problem; 0: only greedy ones."""
    temperature: float = 1.0
    """Temperature of the sampled responses."""
    greedy: bool = True
    """Besides, one greedy response to each problem."""
    k: tuple[int, ...] | None = None
    """Values of k for pass@k and maj@k; unset: the number of responses."""
    max_prompt_tokens: int | None = None
    """Longer prompts are left out and counted; unset: 32 (embedded) or at most 1024, as the models' positions allow."""
    max_response_tokens: int | None = None
    """Generation budget of a response; unset: 96 (embedded) or at most 3000, as the models' positions allow."""
    seed: int = 0
    """Seed of the sampling."""
    chunk_problems: int = 64
    """Problems generated together and then written: what an interrupted command has to do again, at most."""
    out: Path | None = None
    """Folder for results and report; the same again resumes; unset: evaluations/TIME, or none with --results."""


@dataclass(frozen=True, kw_only=True)
class Options(VerifierFlags, EngineFlags, DecodingFlags, DataFlags, SubjectFlags):  # --help lists the last group first
    """Accuracy of models on held-out problems. With no flag: the embedded tiny model on its own task, on a CPU."""

    memory_fraction: float = 0.85
    """Share of the GPU's memory that vLLM takes: more than in training, where the card is shared."""
    concurrency: int = 256
    """Responses generated at a time."""


RULES = {
    "must be more than 0": (
        "chunk_problems",
        "temperature",
        "verifier_workers",
        "verifier_time_limit",
        "kv_cache_gib",
        "concurrency",
        "problems",
        "max_prompt_tokens",
        "max_response_tokens",
        "correct_at",
    ),
    "must not be negative": ("responses", "verifier_memory_limit"),
    "must not be more than 2": ("temperature",),  # which vLLM refuses
    "must be 0.01 or more (vLLM takes a lower one for 0.01)": ("temperature",),
    "is a share: more than 0, at most 1": ("memory_fraction", "verifier_max_failures"),
}
"""Rule -> the flags that keep it."""


def completed(options: Options) -> Options:
    """Fill what is unset but `engine` and what the models decide, and check the result without torch.

    Raises: UserError.
    """
    check_choices(options)
    for rule, names in RULES.items():
        require(options, names, rule)
    _refuse_empty(options, "model", "data", "template", "reward", "k")
    check_head(options, options.device)
    for template in options.template:
        check_prompts(template, options.system, options.chat_args)
    if options.device != "auto" and options.engine == "vllm":
        raise UserError(
            f"--device {options.device} has no meaning for vllm, which has its own. Give --engine hf with it."
        )
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out {options.out} is a file. Give a folder, which is made where there is none.")
    if not options.responses and not options.greedy:
        raise UserError("--responses 0 and --no-greedy leave nothing to generate. Give one of them another value.")
    check_ks(options.k, max(options.responses, 1))
    if options.model is None:
        preset = {name: PRESETS["embedded"][name] for name in ("max_prompt_tokens", "max_response_tokens")}
        preset |= {"model": (str(EMBEDDED_MODEL),), "data": ("arithmetic",), "problems": 256}
        unset = {name: value for name, value in preset.items() if getattr(options, name) is None}
        options = replace(options, **unset)
    options = replace(
        options,
        model=tuple(dict.fromkeys(_absolute(model) for model in options.model)),
        data=options.data or ("math500",),
        out=options.out or Path("evaluations") / time.strftime("%Y%m%d-%H%M%S"),
    )
    for model in options.model:
        check_model_files(model)
    return options


def check_ks(ks: Sequence[int] | None, responses: int) -> None:
    """Raises: UserError for a k that no evaluation has the responses for."""
    for k in ks or ():
        if not 1 <= k <= responses:
            raise UserError(f"--k {k}: with {responses} responses a problem, k is from 1 to {responses}.")


def refuse_with_results(options: Options) -> None:
    """Raises: UserError where --results names no file, or a flag would say nothing beside it."""
    _refuse_empty(options, "results", "k")
    for field in fields(Options):
        if field.name not in ("results", "out", "k") and getattr(options, field.name) != field.default:
            raise UserError(
                f"{flag(field.name)} has no meaning beside --results, which reads what was generated "
                "before. Leave one of them out."
            )


def _absolute(model: str) -> str:
    path = Path(model).expanduser()
    return str(path.resolve()) if path.is_dir() else model


def _refuse_empty(options: Options, *names: str) -> None:
    for name in names:
        if getattr(options, name) == ():
            raise UserError(f"--{name} is given without a value. Give it one, or leave it out.")
