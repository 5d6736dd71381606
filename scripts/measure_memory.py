"""What a run takes of a card, stage by stage, beside what --plan says that it takes. Prints a table, or --json.

    python scripts/measure_memory.py --model MODEL --engine hf          with flags of grpo.train, which describe the run

Weights, the log-probabilities and an update of the largest micro-batch are measured, and with vLLM what it takes while
it generates and while it sleeps. Two of a step's micro-batches are made up; nothing is sampled for them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace

import torch
from memory_rows import Row, table
from peak_memory import peak_on_card, peak_on_cpu, used_of_card
from transformers import AutoTokenizer

from grpo.algorithm.credit import spread
from grpo.algorithm.ingredients import load_aggregation
from grpo.algorithm.objective import Objective
from grpo.card import load_of, settled
from grpo.config import Config
from grpo.devices import torch_device
from grpo.engines.choose import choose_engine, make_engine
from grpo.memory.model_shape import shape_of
from grpo.memory.stages import ASLEEP, CONTEXT, GAPS, GIB, Load, stages, total
from grpo.memory.widths import weight_bytes
from grpo.model.batching import collate, optimizer_batches
from grpo.model.optimizers import state_bytes
from grpo.model.policy import Policy
from grpo.model.pretrained import load_config
from grpo.policies import make_policy
from grpo.records import Batch, Group, Problem, Rollout
from grpo.resolve import parse
from grpo.setup import engine_settings

NOT_COUNTED = ("CUDA, gaps", "other programs", "reference")
PASSING = ("activations", "head", "copies of weights")
"""What comes and goes in a pass, in which the allocator leaves gaps."""


def load_on(config: Config) -> Load:
    """What the config asks of the device that it names; a CPU is taken for a card of 1 TiB that computes in float32."""
    shape = shape_of(load_config(config.model, trust_remote_code=config.trust_remote_code))
    if torch_device(config) == "cuda":
        return load_of(config, shape, torch.cuda.mem_get_info()[1], 0.0)
    load = load_of(config, shape, 1024 * GIB, 0.0)
    return replace(load, widths=replace(load.widths, compute=4, chunk=None))


def planned(load: Load, stage: str) -> float:
    """What torch itself is to give out in a stage; a run's reference is left out."""
    return total({row: size for row, size in stages(load)[stage].items() if row not in NOT_COUNTED})


def full_batch(config: Config, load: Load, policy: Policy) -> Batch:
    """Two micro-batches of the largest size, every position of them in a response."""
    rows = 2 * max(1, load.tokens // load.sequence)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, load.shape.vocabulary, (rows, load.sequence), generator=generator).tolist()
    logprobs = (-1.0,) * load.sequence
    rollouts = tuple(Rollout(tuple(row), logprobs, "", truncated=True) for row in tokens)
    batch = collate([Group(Problem("", (1,), {}), rollouts)], pad_id=0)
    advantages = torch.linspace(-1, 1, rows)[None]
    batch = replace(batch, advantages=spread(advantages, batch.mask), old_logprobs=policy.logprobs(batch))
    (whole,) = optimizer_batches(batch, 1, 1, load_aggregation("constant", float(load.sequence)), seed=0)
    return whole


def of_trainer(config: Config, load: Load, *, on_card: bool) -> Iterator[Row]:
    """Weights, and the peaks of the two passes; on a card what CUDA takes, and vLLM beside the policy.

    An update before the passes, which is not measured, brings the optimizer's state.
    """
    before = torch.cuda.memory_allocated()  # 0 in a process of its own
    policy = make_policy(config.model, config)
    weights = torch.cuda.memory_allocated() - before if on_card else sum(p.nbytes for p in policy.model.parameters())
    yield Row("weights", weight_bytes(load.shape, load.widths), weights)
    batch, objective = full_batch(config, load, policy), Objective(replace(config.row, kl_coef=0.0))
    policy.update(batch, objective)
    passes = {
        "log-probabilities": lambda: policy.logprobs(batch),
        "update": lambda: policy.update(batch, objective),
    }
    for stage, run in passes.items():
        expected = planned(load, stage)
        if on_card:
            given, taken = peak_on_card(run)
            yield Row(stage, expected, given - before)
            gaps = GAPS * sum(stages(load)[stage][row] for row in PASSING)
            yield Row(f"{stage}, with the allocator's gaps (estimated)", expected + gaps, taken - before)
        else:
            yield Row(stage, expected, weights + state_bytes(policy.optimizer) + peak_on_cpu(run))
    if on_card:
        yield Row("CUDA itself (estimated)", CONTEXT, used_of_card() - torch.cuda.memory_reserved())
        if load.vllm:
            yield from of_vllm(config, load, policy)


def of_vllm(config: Config, load: Load, policy: Policy) -> Iterator[Row]:
    """vLLM beside the policy: what it keeps while it sleeps, and all that it takes while it is awake."""
    tokenizer = AutoTokenizer.from_pretrained(config.model)
    limits = dict(max_prompt_tokens=config.max_prompt_tokens, max_response_tokens=config.max_response_tokens)
    settings = engine_settings(config, stop=(), sequences=config.responses_per_step, **limits)
    before = used_of_card()
    engine = make_engine("vllm", config.model, tokenizer, settings, policy)
    engine.sync(policy)
    engine.generate([Problem("", (1, 2, 3), {})], 4, temperature=1.0, max_tokens=8, seed=0)
    yield Row("vLLM awake: --memory-fraction of the card", config.memory_fraction * load.card, used_of_card() - before)
    engine.release()
    yield Row("vLLM asleep (estimated)", ASLEEP, used_of_card() - before)
    engine.close()


def main(arguments: list[str]) -> int:
    """Prints the table; with --json each row as a line, as soon as it is measured, for check_gpu.py."""
    as_json = "--json" in arguments
    config, _ = settled(parse([flag for flag in arguments if flag != "--json"]))
    engine, reason = choose_engine(config.engine)
    load = load_on(config)
    config = replace(config, micro_batch_tokens=load.tokens)  # no more than an update has
    print(f"{torch_device(config)}; {engine} ({reason}); {load.tokens:,} positions in the largest micro-batch\n")
    rows = []
    for row in of_trainer(config, load, on_card=torch_device(config) == "cuda"):
        rows.append(row)
        if as_json:
            print(json.dumps(asdict(row)), flush=True)
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
