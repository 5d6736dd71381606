"""A seed for each response, so that what it draws depends on nothing else.

An engine that draws for all its requests from one stream gives a response other draws when another request is longer,
or comes at another time. vLLM's two model runners differ in where that stream comes from besides: the one for CUDA
seeds a request that has no seed from NumPy's global generator. A request with a seed of its own has neither trouble.
"""

from __future__ import annotations

import hashlib

STRIDE = 0x9E3779B97F4A7C15
"""Odd: its multiples are distinct, also in their lower 32 bits, which are all that torch's CPU generator takes."""


def response_seed(seed: int, problem: int, response: int) -> int:
    """The seed of a response, by its problem's place in the call and its own in the group: distinct within the group.

    Returns: at least 0 and less than 2**63, which is what vLLM takes.
    """
    start = int.from_bytes(hashlib.blake2b(f"{seed} {problem}".encode(), digest_size=8).digest())
    return (start + response * STRIDE) % 2**63
