"""What makes an update fast, and by how much: seconds of one update in each way, beside the plainest one.

    python scripts/measure_update.py [the flags of a run]
    python scripts/measure_update.py --model model --device cuda --max-response-tokens 1024

A batch of random tokens, two micro-batches of the run's size. The ways take turns; medians of 3 turns.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median

import torch
from measure_memory import full_batch, load_on

from grpo.algorithm.objective import Objective
from grpo.card import settled
from grpo.devices import torch_device
from grpo.model import logprobs
from grpo.model.compiled import compile_layers
from grpo.model.policy import Policy
from grpo.policies import make_policy
from grpo.records import Batch
from grpo.resolve import parse

TURNS = 3
SMALL = 2**25
"""Logits of a chunk, however large the card is."""
Way = Callable[[Policy, Batch, Objective], None]


@contextmanager
def small_chunks() -> Iterator[None]:
    """As on a CPU."""
    chosen, logprobs.chunk_elements = logprobs.chunk_elements, lambda card: SMALL
    try:
        yield
    finally:
        logprobs.chunk_elements = chosen


def recomputed(policy: Policy, batch: Batch, objective: Objective) -> None:
    """Small chunks whose logits are computed again: what every row of the table can do."""
    with small_chunks():
        in_pieces(policy, batch, lambda *given: objective(*given))  # it does not say that its loss can be cut


def small_pieces(policy: Policy, batch: Batch, objective: Objective) -> None:
    with small_chunks():
        in_pieces(policy, batch, objective)


def in_pieces(policy: Policy, batch: Batch, objective: Objective) -> None:
    policy.update(batch, objective)


def half_uniform(policy: Policy, batch: Batch, objective: Objective) -> None:
    """Half of the rows have no gradient, as where half of the groups are uniform."""
    advantages = batch.advantages.clone()
    advantages[::2] = 0
    in_pieces(policy, replace(batch, advantages=advantages), objective)


WAYS: dict[str, Way] = {
    "logits recomputed, small chunks": recomputed,
    "the head in pieces, small chunks": small_pieces,
    "the head in pieces": in_pieces,
    "half of the rows without a gradient": half_uniform,
}


def seconds(way: Callable[[], None], cuda: bool) -> float:
    """Of one call, the card's work included."""
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    way()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measured(policy: Policy, batch: Batch, objective: Objective, ways: dict[str, Way]) -> dict[str, float]:
    """Way -> its median; each is tried once before it counts."""
    cuda, found = policy.device.type == "cuda", {name: [] for name in ways}
    for turn in range(1 + TURNS):
        for name, way in ways.items():
            took = seconds(lambda way=way: way(policy, batch, objective), cuda)
            if turn:
                found[name].append(took)
    return {name: median(times) for name, times in found.items()}


def table(found: dict[str, float]) -> str:
    """Markdown, each beside the first."""
    plain = next(iter(found.values()))
    lines = ["| an update | seconds | of the first |", "|---|---|---|"]
    return "\n".join(lines + [f"| {name} | {took:.3f} | {took / plain:.2f} |" for name, took in found.items()])


def main(arguments: list[str]) -> int:
    config, _ = settled(parse(arguments))
    load = load_on(config)
    config = replace(config, micro_batch_tokens=load.tokens)
    policy = make_policy(config.model, config)
    batch, objective = full_batch(config, load, policy), Objective(replace(config.row, kl_coef=0.0))
    print(f"{torch_device(config)}, {len(batch)} responses of {load.sequence:,} positions\n")
    found = measured(policy, batch, objective, WAYS)
    compile_layers(policy.model)
    gc.collect()
    found |= measured(policy, batch, objective, {"the head in pieces, layers compiled": in_pieces})
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
