"""A sync that proves itself: after it, the engine and the policy must give a fixed probe the same log-probabilities.

A sampler that did not take over the weights (a tensor left out, a tied head missed, a stale prefix cache, another
temperature) raises nothing by itself; the run goes on and learns from the wrong distribution. The probe asks twice:

- scored: fixed ids, teacher-forced, at temperature 1: do the weights agree?
- sampled: responses to a prompt that fills several blocks of the prefix cache, at the training temperature: does the
  path that rollouts take (cache, temperature, reported log-probabilities) agree too?

A small update hides below any tolerance for rounding. So the scores are also compared with those of the last check:
where the policy's have moved and not one bit of the engine's has, the sync did not arrive, however small the update.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from grpo.engines.protocol import Engine
from grpo.errors import RunError
from grpo.model.batching import collate
from grpo.model.policy import Policy
from grpo.records import Group, Problem, Rollout

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.2}
"""Mean |difference| in nats that passes, by the coarser precision of engine and policy. Clean: 1e-6 in float32.

In bfloat16 it is 0.01 for the shape of Qwen2.5-0.5B, and for a small, sharp model much more. The embedded one gives the
probe's random ids 1e-5 each, and two computations of them in bfloat16 differ by 0.04 on average, and by up to 0.09 over
the 16 tokens that are sampled (computed on a CPU, as tests/test_gpu_vllm.py does)."""

SEQUENCES, PROMPT_TOKENS, RESPONSE_TOKENS = 4, 72, 4

MOVED = 0.1
"""Share of the probe's tokens that the policy must score otherwise than before, for the engine to have to move too: one
token may round to the same number in the one and not in the other, a tenth of 284 does not."""


class SyncError(RunError):
    """The engine does not sample from the policy's weights."""


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of N tokens, [N] float32 each."""

    policy: Tensor
    engine: Tensor
    rank: Tensor | None = None
    """[N] whose engine has scored a token: that of each rank must have taken over the weights. None: there is one."""

    @property
    def gap(self) -> float:
        """Mean absolute difference, nats; of several ranks the largest. NaN where one of them is."""
        return max((part.abs().mean().item() for part in self._parts(self.policy - self.engine)), key=_nan_last)

    def same_engine(self, other: Scores) -> bool:
        """Whether the engine of a rank scores to the last bit as in `other`."""
        parts = zip(self._parts(self.engine), other._parts(other.engine), strict=True)
        return any(torch.equal(one, two) for one, two in parts)

    def _parts(self, tensor: Tensor) -> tuple[Tensor, ...]:
        return (tensor,) if self.rank is None else tuple(tensor[self.rank == rank] for rank in self.rank.unique())


class SyncProbe:
    """Fixed ids, made from the vocabulary by a fixed seed, and the check on them."""

    def __init__(self, vocabulary: Sequence[int], *, max_tokens: int, temperature: float, tolerance: float) -> None:
        """`vocabulary`: ids to draw from; `max_tokens`: what the engine takes, prompt and response together."""
        draw = random.Random(0)
        length = max(2, min(PROMPT_TOKENS, max_tokens - RESPONSE_TOKENS))
        self.sequences = [tuple(draw.choices(vocabulary, k=length)) for _ in range(SEQUENCES)]
        self.temperature = temperature
        self.tolerance = tolerance
        self.before: Scores | None = None
        """What the last check has found."""

    def scores(self, engine: Engine, policy: Policy) -> Scores:
        """The fixed sequences by both, teacher-forced at temperature 1."""
        sequences = self._for_each(policy)
        scored = [
            Group(Problem("", s[:1], {}), (Rollout(s[1:], tuple(scores), "", truncated=False),))
            for s, scores in zip(sequences, engine.score(sequences), strict=True)
        ]
        return _both(scored, policy, 1.0)

    def sampled(self, engine: Engine, policy: Policy) -> Scores:
        """What the engine samples after the fixed sequences, by both, at the training temperature."""
        sampled = engine.generate(
            [Problem("", sequence, {}) for sequence in self._for_each(policy)],
            1,
            temperature=self.temperature,
            max_tokens=RESPONSE_TOKENS,
            seed=0,
        )
        return _both(sampled, policy, self.temperature)

    def _for_each(self, policy: Policy) -> list[tuple[int, ...]]:
        """So often that the engine of each rank gets all of them (Ranks.share)."""
        return [sequence for sequence in self.sequences for _ in range(policy.ranks.size)]

    def gap(self, engine: Engine, policy: Policy) -> float:
        """The larger of the two mean absolute differences (scored, sampled), in nats."""
        return max(self.scores(engine, policy).gap, self.sampled(engine, policy).gap)

    def check(self, engine: Engine, policy: Policy, step: int) -> float:
        """The gap, as above.

        Raises: SyncError above tolerance (a gap of NaN included), naming the step and the gap; and where the engine has
        stood still since the last check while the policy has moved.
        """
        scores, sampled = self.scores(engine, policy), self.sampled(engine, policy)
        with policy.ranks.together():
            return self._judged(scores, sampled, step)

    def _judged(self, scores: Scores, sampled: Scores, step: int) -> float:
        if self.before is not None and stood_still(self.before, scores):
            raise SyncError(
                f"step {step}: the update has changed the policy's log-probabilities, and after the weight sync not "
                "one bit of the engine's has changed: the sync did not arrive, so the run stops here. --engine hf "
                "needs no sync."
            )
        self.before = scores
        gap = max(scores.gap, sampled.gap, key=_nan_last)
        if not gap <= self.tolerance:
            raise SyncError(
                f"step {step}: after the weight sync the engine's log-probabilities differ from the policy's by "
                f"{gap:.3g} nats on average, more than the tolerance of {self.tolerance:g}. The engine is not sampling "
                "from the weights that are trained, so the run stops here. Likely causes: a tensor that did not reach "
                "the engine (a tied output head?), a stale prefix cache, another temperature, or an architecture whose "
                "forward pass the engine computes differently. --engine hf needs no sync; if the difference is only "
                "rounding, raise --sync-tolerance."
            )
        return gap


def stood_still(before: Scores, after: Scores) -> bool:
    """Whether the policy has moved from one check to the next, and the engine has not."""
    moved = (after.policy != before.policy).float().mean().item()
    return moved >= MOVED and after.same_engine(before)


def _both(groups: list[Group], policy: Policy, temperature: float) -> Scores:
    batch = collate(groups, pad_id=0)
    rank = (torch.arange(len(groups)) % policy.ranks.size)[:, None].expand(batch.mask.shape)
    return Scores(policy.logprobs(batch, temperature)[batch.mask], batch.sampler_logprobs[batch.mask], rank[batch.mask])


def _nan_last(gap: float) -> tuple[bool, float]:
    return gap != gap, gap
