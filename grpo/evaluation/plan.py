"""The evaluations that a command comes to: every model, set, template and way of decoding.

Everything that can be wrong is found here, before a model is loaded; and what an earlier, interrupted command has
finished is found again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpo.errors import UserError
from grpo.evaluation.options import Options
from grpo.evaluation.results import ProblemResult, read_results, write_results
from grpo.evaluation.sets import load_sets
from grpo.files import cut_torn_line, read_json, write_json
from grpo.model.pretrained import check_model, load_tokenizer
from grpo.presets import EMBEDDED_MODEL
from grpo.problems.pass_rates import problem_key
from grpo.problems.set_names import data_name, unique_names
from grpo.problems.templates import encode, is_file, template_of
from grpo.records import Problem

SETTINGS = (
    "problem_column",
    "answer_column",
    "correct_at",
    "system",
    "chat_args",
    "problems",
    "max_prompt_tokens",
    "max_response_tokens",
    "stop",
    "seed",
    "chunk_problems",
    "engine",
)
"""Flags that the numbers of every evaluation of a command depend on."""


@dataclass(frozen=True)
class Evaluation:
    """One model on one set under one template with one way of decoding."""

    names: dict[str, str]
    """model, data, template, decoding: short names, which tell it from the others."""
    settings: dict[str, Any]
    """All that its numbers depend on."""
    problems: list[Problem]
    dropped: int
    """Problems left out, whose prompts are longer than --max-prompt-tokens."""

    @property
    def name(self) -> str:
        return "--".join(self.names.values())

    def path(self, out: Path) -> Path:
        """Its results, a line a problem, appended as they are found."""
        return out / f"{self.name}.jsonl"


def plan(options: Options) -> dict[str, list[Evaluation]]:
    """Model -> its evaluations: every set, template and way of decoding. Loads no weights. Raises: UserError."""
    sets = load_sets(options)
    model_names, data_names = unique_names(options.model, model_name), unique_names(list(sets), data_name)
    shared = {name: getattr(options, name) for name in SETTINGS}
    planned: dict[str, list[Evaluation]] = {}
    for model in options.model:
        tokenizer = load_tokenizer(model, trust_remote_code=options.trust_remote_code)
        check_model(
            model,
            max_prompt_tokens=options.max_prompt_tokens,
            max_response_tokens=options.max_response_tokens,
            trust_remote_code=options.trust_remote_code,
        )
        planned[model] = []
        for data, (rows, reward) in sets.items():
            for template in dict.fromkeys(options.template):
                how = dict(template=template, system=options.system, chat_args=options.chat_args)
                encoded = encode(rows, tokenizer, max_prompt_tokens=options.max_prompt_tokens, **how)
                for decoding, (responses, temperature) in decodings(options).items():
                    short = Path(template).stem if is_file(template) else template
                    names = dict(model=model_names[model], data=data_names[data], template=short, decoding=decoding)
                    settings = dict(
                        model=model, weights=weights_mark(model), data=data, data_dir=options.data_dir, reward=reward,
                        template=template_of(tokenizer, template), responses=responses, temperature=temperature,
                    )  # fmt: skip
                    planned[model].append(Evaluation(names, settings | shared, encoded.problems, encoded.dropped))
    return planned


def decodings(options: Options) -> dict[str, tuple[int, float]]:
    """Way of decoding -> responses a problem, temperature."""
    ways = {"greedy": (1, 0.0), "sampled": (options.responses, options.temperature)}
    return {way: values for way, values in ways.items() if (options.greedy if way == "greedy" else options.responses)}


def claim(out: Path, evaluations: Sequence[Evaluation]) -> None:
    """Note the settings of each evaluation in `out/settings.json`.

    Raises: UserError where an evaluation of the same name has results there, found with other settings.
    """
    path = out / "settings.json"
    known = read_json(path, "Choose another --out, or remove it with its results.") if path.is_file() else {}
    for evaluation in evaluations:
        now = json.loads(json.dumps(evaluation.settings, default=str))
        before = known.get(evaluation.name, now) if evaluation.path(out).is_file() else now
        known[evaluation.name] = now
        for name in now:
            if before.get(name) != now[name]:
                raise UserError(
                    f"{evaluation.path(out)} was begun with {_words(name)} {before.get(name)}, and now it is "
                    f"{now[name]}. Results of both must not mix: choose another --out, or the settings of before."
                )
    write_json(path, known)


def finished(evaluation: Evaluation, out: Path) -> list[ProblemResult]:
    """What an earlier command has found: whole chunks; what lies behind them in the file is cut off.

    Raises: UserError where the file is about other problems.
    """
    path = evaluation.path(out)
    if not path.is_file():
        return []
    cut_torn_line(path)
    results = read_results(path) if path.stat().st_size else []
    problems = evaluation.problems
    keys = [problem_key(problem.prompt, problem.columns.get("answer")) for problem in problems]
    if [result.key for result in results] != keys[: len(results)]:
        raise UserError(f"{path} holds results on other problems: the data has changed since. Choose another --out.")
    chunk = evaluation.settings["chunk_problems"]
    whole = results if len(results) == len(problems) else results[: len(results) // chunk * chunk]
    if len(whole) < len(results):
        write_results(path, whole)
    return whole


# Names -----------------------------------------------------------------------------------------------------------


def model_name(model: str) -> str:
    """`runs/a/model` -> `a`, `runs/a/checkpoint-20` -> `a-checkpoint-20`, `Qwen/Qwen2.5-1.5B` -> `Qwen2.5-1.5B`."""
    path = Path(model)
    if model == str(EMBEDDED_MODEL):
        return "tiny"
    if path.name == "model":
        return path.parent.name
    return f"{path.parent.name}-{path.name}" if path.name.startswith("checkpoint-") else path.name


def weights_mark(model: str) -> str | None:
    """What changes when the weights in a local folder are written anew; None for a name on the hub."""
    files = sorted(Path(model).glob("*.safetensors"))
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:12] if files else None


def _words(name: str) -> str:
    return "other weights:" if name == "weights" else f"--{name.replace('_', '-')}"
