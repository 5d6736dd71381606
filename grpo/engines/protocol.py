"""The Engine protocol: two verbs, `generate` and `sync`: "after this, generate from these weights".

Token ids cross the boundary, never text. `score` exists so that a sync can be proved (sync.py), and `release` so that
trainer and engine can share a card.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from grpo.records import Group, Problem, Rollout

if TYPE_CHECKING:
    import torch

    from grpo.model.policy import Policy

ENGINES = ("auto", "vllm", "hf")
"""What `--engine` accepts; `auto` is vllm where it is installed and can run, else hf, and says which."""

OnResponse = Callable[[Problem, Rollout], None]
"""Called with each response as it is finished, while others are still being generated."""


class Engine(Protocol):
    """Samples responses from its own copy of the policy's weights (or from the policy itself)."""

    @property
    def precision(self) -> torch.dtype:
        """Of its forward pass."""
        ...

    def generate(
        self,
        problems: Sequence[Problem],
        group_size: int,
        *,
        temperature: float,
        max_tokens: int,
        seed: int,
        on_response: OnResponse | None = None,
        places: Sequence[int] | None = None,
    ) -> list[Group]:
        """`group_size` responses for each problem, in the order of the problems.

        Temperature 0 is greedy choice. Each rollout carries the sampled ids, their log-probabilities after temperature,
        its text, and whether it was cut at `max_tokens`. A response's draws depend on `seed`, on its problem's place
        among the problems and on its own in the group (seeds.py), and on nothing else. `places` are those of the
        problems, where they are a part of more.
        """
        ...

    @property
    def passes(self) -> int:
        """Of the model in the last generation. Each gives a token to every response that is then generated."""
        ...

    def sync(self, policy: Policy) -> None:
        """Take over the policy's weights; drop everything that was computed with the old ones."""
        ...

    def release(self) -> None:
        """Leave the device to the trainer until the next `sync`, as far as both share one."""
        ...

    @property
    def held_bytes(self) -> int:
        """Bytes of weights and KV cache that torch counts among its own on the card."""
        ...

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Teacher-forced log-probability (temperature 1) of each token given those before it, but for the first.

        A sequence of n ids gives n - 1 numbers.
        """
        ...

    def close(self) -> None:
        """Give back what the engine holds; it is not used again."""
        ...
