"""The parts of a run, made from the config: cheapest first, so that bad input fails before a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from grpo import plugins
from grpo.algorithm.advantages import ADVANTAGES, Advantage
from grpo.algorithm.aggregations import AGGREGATIONS, Aggregation
from grpo.algorithm.kl import KLCoefficient
from grpo.config import Config
from grpo.engines.choose import choose_engine, make_engine
from grpo.engines.protocol import Engine
from grpo.engines.sync import TOLERANCE, SyncProbe
from grpo.logs.logger import Logger
from grpo.model.checkpoint import latest_checkpoint, restore
from grpo.model.policy import LossTerm, Policy, Reference
from grpo.model.pretrained import check_model, load_model, load_tokenizer
from grpo.problems.rows import Row, check_data_dir, has_split, load_rows
from grpo.problems.templates import encode
from grpo.records import Problem
from grpo.verifiers.verify import Verifiers, check_specs


@dataclass(frozen=True)
class Inputs:
    """Data and tokenizer: all that can be wrong before a model is loaded."""

    problems: list[Problem]
    held_out: list[Problem]
    dropped: int
    """Training prompts longer than --max-prompt-tokens."""
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class Parts:
    """What the loop uses."""

    problems: list[Problem]
    held_out: list[Problem]
    tokenizer: PreTrainedTokenizerBase
    verifiers: Verifiers
    policy: Policy
    reference: Reference | None
    advantage: Advantage
    aggregation: Aggregation
    loss_term: LossTerm | None
    kl_coef: KLCoefficient
    engine: Engine
    probe: SyncProbe
    logger: Logger
    first_step: int


@contextmanager
def make_parts(config: Config) -> Iterator[Parts]:
    """Everything the loop uses; closed at the end, however it ends. Raises: UserError before a model is loaded."""
    engine_name, engine_reason = choose_engine(config.engine)
    source = str(latest_checkpoint(config.run_folder)) if config.resume else config.model
    inputs = load_inputs(config, source)
    verifiers = Verifiers(
        config.verifiers,
        workers=config.verifier_workers,
        time_limit=config.verifier_time_limit,
        memory_limit=config.verifier_memory_limit,
        max_failure_share=config.verifier_max_failures,
    )
    changed = changed_since(config) if config.resume else []
    with verifiers:  # its processes start while the model loads
        policy = make_policy(source, config)
        reference = make_reference(policy, config)
        kl_coef = KLCoefficient(config.kl_coef, config.kl_target)
        done = restore(Path(source), policy, kl_coef) if config.resume else 0
        logger = Logger(
            config.run_folder,
            steps=config.steps,
            first_step=done + 1,
            config=config.to_json(),
            wandb_mode=config.wandb,
            project=config.wandb_project,
            group=config.wandb_group,
        )
        with logger:
            logger.say(announcement(config, inputs, policy, f"{engine_name} ({engine_reason})"))
            for change in changed:
                logger.say(change)
            engine = make_engine(
                engine_name,
                model=config.model,
                policy=policy,
                tokenizer=inputs.tokenizer,
                stop=config.stop,
                max_prompt_tokens=config.max_prompt_tokens,
                max_response_tokens=config.max_response_tokens,
                sequences=min(256, max(config.responses_per_step, len(inputs.held_out) * config.eval_responses)),
                memory_fraction=config.memory_fraction,
                kv_cache_gib=config.kv_cache_gib,
                trust_remote_code=config.trust_remote_code,
            )
            yield Parts(
                problems=inputs.problems,
                held_out=inputs.held_out,
                tokenizer=inputs.tokenizer,
                verifiers=verifiers,
                policy=policy,
                reference=reference,
                advantage=plugins.ingredient(config.advantage, ADVANTAGES, "advantage"),
                aggregation=plugins.ingredient(config.aggregation, AGGREGATIONS, "aggregation"),
                loss_term=plugins.ingredient(config.loss_term, {}, "loss-term") if config.loss_term else None,
                kl_coef=kl_coef,
                engine=engine,
                probe=make_probe(config, policy, inputs.tokenizer),
                logger=logger,
                first_step=done + 1,
            )


def changed_since(config: Config) -> list[str]:
    """What a resumed run is asked to do otherwise than the run it continues, a line each."""
    before, now = json.loads((config.run_folder / "config.json").read_text()), json.loads(json.dumps(config.to_json()))
    return [
        f"resumed with another value: --{name.replace('_', '-')} {value}, was {before[name]}"
        for name, value in now.items()
        if name != "resume" and name in before and before[name] != value
    ]


def load_inputs(config: Config, source: str) -> Inputs:
    """Rows, tokenizer and problems. Raises: UserError for data, verifiers, model folder or tokenizer that won't do."""
    rows, held_out = load_data(config)
    check_specs(config.verifiers, set(rows[0]))
    tokenizer = load_tokenizer(source, trust_remote_code=config.trust_remote_code)
    check_model(
        source,
        tokenizer,
        max_prompt_tokens=config.max_prompt_tokens,
        max_response_tokens=config.max_response_tokens,
        trust_remote_code=config.trust_remote_code,
    )
    encoded = encode(rows, tokenizer, template=config.template, max_prompt_tokens=config.max_prompt_tokens)
    held_out_problems: list[Problem] = []
    if held_out:
        check_specs(config.verifiers, set(held_out[0]))
        held_out_problems = encode(
            held_out, tokenizer, template=config.template, max_prompt_tokens=config.max_prompt_tokens
        ).problems
    return Inputs(encoded.problems, held_out_problems, encoded.dropped, tokenizer)


def load_data(config: Config) -> tuple[list[Row], list[Row]]:
    """Training rows, and the first `--eval-problems` held-out rows.

    A .jsonl file has no test split: without --eval-data every tenth row is held out of training, from the first on.
    Every row can be read by a verifier as a column, and so can the run's `max_response_tokens`.
    """
    held_out_data = config.eval_data or config.data
    check_data_dir(config.data_dir, list(dict.fromkeys([config.data, held_out_data])))
    columns = dict(problem_column=config.problem_column, answer_column=config.answer_column)
    rows = load_rows(config.data, "train", data_dir=config.data_dir, **columns)
    held_out: list[Row] = []
    if config.eval_problems:
        if config.eval_data or has_split(config.data):
            held_out = load_rows(held_out_data, "test", data_dir=config.data_dir, **columns)
        elif len(rows) >= 10:
            picked = range(0, len(rows), 10)[: config.eval_problems]
            held_out = [rows[i] for i in picked]
            rows = [row for i, row in enumerate(rows) if i not in set(picked)]
        held_out = held_out[: config.eval_problems]
    settings = {"max_response_tokens": config.max_response_tokens}
    return [settings | row for row in rows], [settings | row for row in held_out]


def make_policy(source: str, config: Config) -> Policy:
    """The model of `source` with its optimizer."""
    cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    model = load_model(source, device="cuda" if cuda else "cpu", trust_remote_code=config.trust_remote_code)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return Policy(
        model,
        temperature=config.temperature,
        micro_batch_tokens=config.micro_batch_tokens,
        learning_rate=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        warmup_updates=config.warmup_updates,
        train_entropy=config.entropy_coef > 0,
    )


def make_reference(policy: Policy, config: Config) -> Reference | None:
    """The frozen starting model; None where no term asks for it. A resumed run loads it anew."""
    if not config.needs_reference:
        return None
    if not config.resume:
        return policy.frozen_copy()
    model = load_model(config.model, device=str(policy.device), trust_remote_code=config.trust_remote_code)
    return Reference(model, config.temperature, config.micro_batch_tokens)


def make_probe(config: Config, policy: Policy, tokenizer: PreTrainedTokenizerBase) -> SyncProbe:
    """The fixed probe of the weight sync, from ids that stand for text."""
    precision = torch.bfloat16 if policy.device.type == "cuda" else torch.float32
    special = set(tokenizer.all_special_ids)
    return SyncProbe(
        [i for i in range(min(len(tokenizer), policy.model.config.vocab_size)) if i not in special],
        max_tokens=config.max_prompt_tokens + config.max_response_tokens,
        temperature=config.temperature,
        tolerance=config.sync_tolerance or TOLERANCE[precision],
    )


def announcement(config: Config, inputs: Inputs, policy: Policy, engine: str) -> str:
    """What is about to run, how large a step is, and how to go on from the embedded model to a real one."""
    parameters = sum(parameter.numel() for parameter in policy.model.parameters())
    name = f"the embedded tiny model ({config.model})" if config.embedded else config.model
    sequences = config.responses_per_step
    updates = config.updates_per_step * config.epochs_per_step
    lines = [
        f"{config.algo} trains {name}, {parameters / 1e6:.1f}M parameters, on {policy.device}; sampler: {engine}",
        f"data: {config.data}, {len(inputs.problems)} problems ({inputs.dropped} dropped, longer than "
        f"{config.max_prompt_tokens} tokens), {len(inputs.held_out)} held out; reward: {' + '.join(config.verifiers)}",
        f"a step: {config.problems_per_step} problems x {config.responses_per_problem} responses = {sequences} "
        f"responses of at most {config.max_response_tokens} tokens, {updates} update(s) of "
        f"{sequences // config.updates_per_step} responses; {config.steps} steps",
        f"written to: {config.run_folder}",
    ]
    if config.embedded:
        lines.append(
            "next, a real model on a GPU: python -m grpo.train --algo dr_grpo --model Qwen/Qwen2.5-Math-1.5B "
            "--data math12k --eval-data math500 --template qwen_math"
        )
    shared = {repr(p.prompt) for p in inputs.problems} & {repr(p.prompt) for p in inputs.held_out}
    if shared:
        lines.append(f"warning: {len(shared)} held-out problems are also trained on: the evaluation is contaminated")
    return "\n".join(lines)
