"""How long a run takes of a card, by arithmetic on its data sheet: rough, and nothing in it has been measured.

N parameters, S responses at a time, C tokens of a response's context, on average: prompt and half of the response.

- A round of decoding gives each of S responses a token. It reads the weights, 2 N bytes, and S KV caches of C tokens;
  or computes 2 N S operations, where that takes longer.
- An update's passes take 6 N operations a token forward and backward, 4 N where only an adapter has gradients, 2 N more
  where layers are recomputed, and 2 N for the log-probabilities of the policy that sampled, where there are several
  updates; the same for those of a reference.
- An optimizer state on the host travels there and back, 16 bytes a parameter an update.

Left out: attention's own operations, prompts, which a group shares, verifiers, evaluations, the copy of the weights at
a sync, sleeping and waking, the last responses of a step, which are generated with few others, and padding.
"""

from __future__ import annotations

from dataclasses import dataclass

from grpo.memory.stages import GIB, Load

READS, COMPUTES = 0.5, 0.4
"""Assumed: shares of a card's memory bandwidth while it decodes, and of its bfloat16 operations in the passes."""
TO_THE_HOST = 20e9
"""Assumed: bytes a second between card and host, PCIe 4 with 16 lanes."""
OFFLOADED = 16
"""Bytes a parameter that an update of adamw_offload moves."""


@dataclass(frozen=True)
class Card:
    """A card's data sheet."""

    sold_as: str
    gib: float
    """As torch reports it."""
    bandwidth: float
    """Bytes a second."""
    operations: float
    """bfloat16, a second, dense, added up in float32."""


CARDS = {
    16: Card("16 GB (RTX 4080)", 15.6, 717e9, 97e12),
    24: Card("24 GB (RTX 4090)", 23.5, 1008e9, 165e12),
    48: Card("48 GB (L40S)", 44.5, 864e9, 362e12),
    80: Card("80 GB (A100)", 79, 2039e9, 312e12),
    141: Card("141 GB (H200)", 139, 4800e9, 989e12),
}


@dataclass(frozen=True)
class Work:
    """A step of a run."""

    responses: int
    updates: int
    prompt: int
    """Tokens of a prompt, on average."""
    response: int
    """Tokens of a response, on average."""
    old_logprobs: bool
    """Whether the policy that sampled scores the responses first."""
    offloads: bool
    """Whether the optimizer's state rests on the host."""


def generation_seconds(load: Load, card: Card, work: Work) -> float:
    """Of a step's responses, as many at a time as the KV cache holds of their mean length, `generated_sequences` at
    most."""
    token = load.kv_sequence / load.sequence
    context = work.prompt + work.response / 2
    together = min(load.generated_sequences, work.responses, load.kv_cache / (token * (work.prompt + work.response)))
    reads = (load.vllm_weights + together * context * token) / (READS * card.bandwidth)
    computes = 2 * load.shape.parameters * together / (COMPUTES * card.operations)
    return work.responses * work.response / together * max(reads, computes)


def update_seconds(load: Load, card: Card, work: Work) -> float:
    """Of all passes of a step, and its updates."""
    passes = 6 if load.widths.adapter is None else 4
    operations = passes + 2 * load.recompute + 2 * work.old_logprobs + 2 * bool(load.widths.reference)
    tokens = work.responses * (work.prompt + work.response)
    travels = work.updates * OFFLOADED * load.shape.parameters / TO_THE_HOST if work.offloads else 0.0
    return operations * load.shape.parameters * tokens / (COMPUTES * card.operations) + travels


def hours(load: Load, card: Card, work: Work, steps: int) -> float:
    """Of a run."""
    return steps * (generation_seconds(load, card, work) + update_seconds(load, card, work)) / 3600


def bytes_of(card: Card) -> float:
    return card.gib * GIB
