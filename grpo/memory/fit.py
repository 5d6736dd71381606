"""Does it fit? What is left at each stage, and which micro-batch and which share for vLLM would be right."""

from __future__ import annotations

import math
from dataclasses import replace

from grpo.memory.stages import GIB, Load, stages, total

MARGIN = 0.04
"""Share of the card that is to stay free where a number is picked: the arithmetic is not exact."""
MOST_TOKENS = 16384
"""Positions in the largest micro-batch that is picked: more of them make a pass no faster."""
MOST_FRACTION = 0.9
FULL_LENGTH = 256
"""Responses for which there is to be room at their full length; most of them end earlier."""
MOST_AT_ONCE = 512
"""Responses that are generated at once where the number is picked: vLLM captures no graph of more (config/vllm.py)."""


def left(load: Load) -> dict[str, float]:
    """Stage -> bytes that stay free; negative where it does not fit."""
    return {stage: load.card - total(rows) for stage, rows in stages(load).items()}


def fits(load: Load) -> bool:
    """Every stage does, and vLLM can start, which it cannot with a KV cache too small for one response."""
    return min(left(load).values()) >= 0 and load.kv_cache >= load.kv_sequence


def pick_micro_batch_tokens(load: Load) -> int:
    """The largest of 16384, 8192, ... that leaves the margin in the passes; the longest response where none does."""
    tokens = MOST_TOKENS
    while tokens > load.sequence:
        free = left(replace(load, micro_batch_tokens=tokens))
        passes = [room for stage, room in free.items() if stage not in ("generate", "sync")]
        if min(passes) >= MARGIN * load.card:
            return tokens
        tokens //= 2
    return load.sequence


def pick_memory_fraction(load: Load) -> float:
    """A share for vLLM: FULL_LENGTH of `generated_sequences` at full length and the margin, or what the trainer leaves
    of the card. At least its weights and one response, even where these do not fit. In hundredths."""
    trainer = total(stages(replace(load, memory_fraction=0.0))["generate"])
    own = load.vllm_weights + load.vllm_workspace
    whole = min(FULL_LENGTH, load.generated_sequences)
    wanted = math.ceil(100 * ((own + whole * load.kv_sequence) / load.card + MARGIN))
    least = math.ceil(100 * (own + load.kv_sequence) / load.card)
    room = math.floor(100 * ((load.card - trainer) / load.card - MARGIN))
    return min(MOST_FRACTION, max(least, min(wanted, room)) / 100)


def pick_concurrency(load: Load, asked: int) -> int:
    """How many of the responses that are asked for are generated at once: as many as the KV cache holds at half of
    their full length. vLLM itself puts some of them back where they grow longer together, and computes them again."""
    return max(1, min(asked, MOST_AT_ONCE, int(2 * load.kv_cache // load.kv_sequence)))


def savings(load: Load, others: dict[str, Load]) -> dict[str, float]:
    """What each other load saves at the stage that lacks most, in falling order; those that save nothing are left out.

    others: what would have to be changed -> the load that it comes to.
    """
    free = left(load)
    stage = min(free, key=free.get)
    saved = {name: left(other)[stage] - free[stage] for name, other in others.items()}
    return {name: saved[name] for name in sorted(saved, key=saved.get, reverse=True) if saved[name] > 0.05 * GIB}
