"""Seconds of a step, by stage, for 1 to 1,024 cards: from where on do more cards no longer help?

    python scripts/scaling.py --parameters 7.6 --kv-bytes 57344 --responses 8192 --mean-tokens 3958 --max-tokens 16384

A simulation of one synchronous step, by arithmetic. Nothing is loaded or measured. Response lengths are drawn from a
lognormal distribution and cut at the limit. A card's engine generates --slots responses at a time, and starts the next
one as soon as one ends. A pass of the engine reads the weights and the KV cache once. All ranks then wait for the
slowest, and get all responses. Each computes its share of the update, while gradients and weights travel. Verifiers,
evaluations and checkpoints are left out.

    python scripts/scaling.py --measured runs/a/metrics.jsonl runs/b/metrics.jsonl --compared runs/c/metrics.jsonl ...

takes a machine's figures from runs of one process on it instead, whose steps differ in size (measured_machine.py), and
says how far a run of --compared-ranks is from what they predict. The link's are those of scripts/measure_link.py.
"""

from __future__ import annotations

import heapq
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import tyro
from measured_machine import Machine, fit, rows_of, stages, workload

CARDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
OPERATIONS = 8
"""A parameter and token: 2 forward, 4 backward, 2 for the log-probabilities of the policy that sampled."""
TRAFFIC = 8
"""Bytes a parameter and micro-batch: the weights in bfloat16 twice, forward and backward, and a float32 gradient."""
FLOAT32 = 12 / 8
"""Times as many on a CPU, where the weights travel in float32."""
COLLECTIVES = 3
"""A layer and micro-batch: as above."""
PICKLED = (13, 94e-9)
"""Bytes of a token on its way to the other ranks, and seconds that each takes to unpack it (measured on one core)."""
FLOOR = 1 / 3
"""Share of the step that the longest response may take alone, before a sampler of its own pays."""


@dataclass(frozen=True)
class Options:
    """Seconds of a step for 1 to 1,024 cards. The card's defaults are an H100's data sheet, at usual shares of it."""

    parameters: float = 7.6
    """Of the model, billions."""
    kv_bytes: int = 57344
    """Of the KV cache a token, bfloat16: 4 x layers x KV heads x head size. 57344 is Qwen2.5-7B's."""
    responses: int = 8192
    """Of a step."""
    mean_tokens: float = 3958.0
    """Of a response, before the cut."""
    spread: float = 0.8
    """Standard deviation of the logarithm of the length."""
    max_tokens: int = 16384
    """Longer responses are cut."""
    updates: int = 8
    """Optimizer updates of a step."""
    micro_batch_tokens: int = 16384
    """Positions of a micro-batch."""
    slots: int = 256
    """Responses that an engine generates at a time."""
    bandwidth: float = 3.35e12
    """Of the card's memory, bytes a second."""
    reached: float = 0.55
    """Share of the bandwidth that generation reaches."""
    operations: float = 989e12
    """Of the card in bfloat16, a second."""
    busy: float = 0.4
    """Share of the operations that training reaches."""
    in_node: float = 300e9
    """Bytes a second between the cards of a machine, for each."""
    across: float = 40e9
    """Bytes a second between machines, for each card."""
    latency: float = 20e-6
    """Seconds of a collective between the cards of a machine, however few bytes it has."""
    layers: int = 28
    cards_a_node: int = 8
    seed: int = 0
    measured: tuple[Path, ...] = ()
    """metrics.jsonl of runs of one process: how fast the machine is, instead of the card's figures above."""
    compared: Path | None = None
    """metrics.jsonl of a run to hold the prediction against; responses and lengths are then as its own."""
    compared_ranks: int = 2
    """Ranks of that run."""


@dataclass(frozen=True)
class Step:
    """Seconds."""

    cards: int
    generate: float
    """Of the slowest rank."""
    waited: float
    """Of it, what a rank waits, mean over ranks."""
    exchange: float
    update: float
    sync: float
    longest: float
    """What the longest response takes, however many cards there are."""
    rest: float = 0.0
    """Of a measured machine: verifiers, and what else the host does."""

    @property
    def whole(self) -> float:
        return self.generate + self.exchange + self.update + self.sync + self.rest


def lengths(options: Options) -> list[int]:
    """Of a step's responses."""
    draw, middle = random.Random(options.seed), math.log(options.mean_tokens) - options.spread**2 / 2
    drawn = (draw.lognormvariate(middle, options.spread) for _ in range(options.responses))
    return [max(1, min(options.max_tokens, round(length))) for length in drawn]


def pass_seconds(options: Options, tokens: float) -> float:
    """Of one pass of an engine that holds so many tokens in its cache."""
    return (2e9 * options.parameters + options.kv_bytes * tokens) / (options.bandwidth * options.reached)


def generation(options: Options, share: Sequence[int], machine: Machine | None = None) -> float:
    """Seconds in which an engine generates responses of these lengths, in this order, each in one of its slots."""
    waiting, ends, now, seconds = list(reversed(share)), [], 0, 0.0
    while waiting or ends:
        while waiting and len(ends) < options.slots:
            heapq.heappush(ends, now + waiting.pop())
        end = ends[0]
        held = len(ends) * options.mean_tokens / 2  # of each about half, over its life
        seconds += (end - now) * (machine.pass_seconds(len(ends)) if machine else pass_seconds(options, held))
        now = end
        while ends and ends[0] == now:
            heapq.heappop(ends)
    return seconds


def step(options: Options, cards: int, drawn: Sequence[int], machine: Machine | None = None) -> Step:
    """One step on so many cards. Ranks get every n-th response, as in training."""
    times = [generation(options, drawn[rank::cards], machine) for rank in range(cards)]
    tokens, parameters = sum(drawn), 1e9 * options.parameters
    computed = OPERATIONS * parameters * tokens / cards / (options.operations * options.busy)
    traffic = wide = 0.0
    if cards > 1:
        micro_batches = max(options.updates, tokens / cards / options.micro_batch_tokens)
        traffic = TRAFFIC * parameters * micro_batches / options.in_node
        calls = COLLECTIVES * (options.layers + 1) * micro_batches * options.latency
        traffic, wide = traffic + calls, traffic * FLOAT32 + calls
    nodes = math.ceil(cards / options.cards_a_node)
    shards = min(cards, options.cards_a_node)
    across = 0.0 if nodes == 1 else 2 * 4 * parameters / shards * options.updates / options.across
    size, seconds = PICKLED
    exchange = 0.0 if cards == 1 else tokens * (size / (options.across if nodes > 1 else options.in_node) + seconds)
    sync = 2 * parameters * (1 / options.in_node * (cards > 1) + 2 / options.bandwidth)
    if machine:  # it waits for what travels, which is float32
        return Step(
            cards=cards,
            generate=max(times),
            waited=max(times) - fmean(times),
            exchange=exchange,
            update=machine.update_seconds(options.updates, tokens / cards) + wide + across,
            sync=machine.sync + (cards > 1) * 4 * parameters / options.in_node,
            longest=max(drawn) * machine.pass_seconds(1),
            rest=machine.rest,
        )
    return Step(
        cards=cards,
        generate=max(times),
        waited=max(times) - fmean(times),
        exchange=exchange,
        update=max(computed, traffic) + across,
        sync=sync,
        longest=max(drawn) * pass_seconds(options, max(drawn) / 2),
    )


def compare(options: Options, machine: Machine) -> dict[str, tuple[float, float]]:
    """Stage -> seconds that the machine's figures predict for the run of --compared, and those that it took."""
    rows = rows_of(options.compared)
    options = replace(options, **workload(rows))
    predicted = step(options, options.compared_ranks, lengths(options), machine)
    found = stages(rows)
    expected = {name: predicted.whole if name == "step" else getattr(predicted, name) for name in found}
    return {name: (expected[name], seconds) for name, seconds in found.items()}


def main(arguments: list[str] | None = None) -> int:
    options = tyro.cli(Options, args=arguments, prog="python scripts/scaling.py")
    machine = fit([rows_of(path) for path in options.measured], options.updates) if options.measured else None
    if options.compared:
        if machine is None:
            sys.exit("error: --compared needs --measured: the metrics.jsonl of runs of one process on that machine.")
        print("| stage | predicted | measured | off by |")
        print("| --- | --- | --- | --- |")
        for name, (predicted, found) in compare(options, machine).items():
            print(f"| {name} | {predicted:.3f} | {found:.3f} | {predicted / found - 1:+.0%} |")
        return 0
    drawn = lengths(options)
    steps = [step(options, cards, drawn, machine) for cards in CARDS if cards <= options.responses]
    print("| cards | generate | of it waiting | exchange | update | sync | step | faster | used |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for each in steps:
        faster = steps[0].whole / each.whole
        cells = (each.generate, each.waited, each.exchange, each.update, each.sync, each.whole)
        print(f"| {each.cards} | {' | '.join(f'{x:.1f}' for x in cells)} | {faster:.1f} | {faster / each.cards:.0%} |")
    source = "card and network as their data sheets have them, at the shares of --help"
    if machine:
        source = f"one process as measured in {len(options.measured)} run(s), the network as the flags have it"
    beyond = next((each for each in steps if each.longest > FLOOR * each.whole), None)
    print(
        f"\nSeconds, by arithmetic: {source}; lengths are drawn. The longest response takes {steps[0].longest:.0f} s, "
        "however many cards there are."
    )
    if beyond is not None:
        print(
            f"From {beyond.cards} cards on that is more than a third of the step. More problems a step help, and "
            "beyond that a sampler that does not wait. Take prime-rl then "
            "(https://github.com/PrimeIntellect-ai/prime-rl): the same parts, FSDP2 and vLLM, with samplers apart."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
