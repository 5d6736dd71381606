"""A sync that proves itself: after it, the engine and the policy must give a fixed probe the same log-probabilities.

A sampler that did not take over the weights (a tensor left out, a tied head missed, a stale prefix cache, another
temperature) raises nothing by itself; the run goes on and learns from the wrong distribution. The probe asks twice:

- scored: fixed ids, teacher-forced, at temperature 1: do the weights agree?
- sampled: responses to a prompt that fills several blocks of the prefix cache, at the training temperature: does the
  path that rollouts take (cache, temperature, reported log-probabilities) agree too?
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from grpo.engines.protocol import Engine
from grpo.model.batching import collate
from grpo.model.policy import Policy
from grpo.records import Group, Problem, Rollout

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Mean |difference| in nats that passes, by the engine's precision. Clean syncs measure 1e-6 and 1e-2."""

SEQUENCES, PROMPT_TOKENS, RESPONSE_TOKENS = 4, 72, 4


class SyncError(RuntimeError):
    """The engine does not sample from the policy's weights."""


class SyncProbe:
    """Fixed ids, made from the vocabulary by a fixed seed, and the check on them."""

    def __init__(self, vocabulary: Sequence[int], *, max_tokens: int, temperature: float, tolerance: float) -> None:
        """`vocabulary`: ids to draw from; `max_tokens`: what the engine takes, prompt and response together."""
        draw = random.Random(0)
        length = max(2, min(PROMPT_TOKENS, max_tokens - RESPONSE_TOKENS))
        self.sequences = [tuple(draw.choices(vocabulary, k=length)) for _ in range(SEQUENCES)]
        self.temperature = temperature
        self.tolerance = tolerance

    def gap(self, engine: Engine, policy: Policy) -> float:
        """The larger of the two mean absolute differences (scored, sampled), in nats."""
        scored = [
            Group(Problem("", s[:1], {}), (Rollout(s[1:], tuple(scores), "", truncated=False),))
            for s, scores in zip(self.sequences, engine.score(self.sequences), strict=True)
        ]
        sampled = engine.generate(
            [Problem("", sequence, {}) for sequence in self.sequences],
            1,
            temperature=self.temperature,
            max_tokens=RESPONSE_TOKENS,
            seed=0,
        )
        return max(_difference(scored, policy, 1.0), _difference(sampled, policy, self.temperature))

    def check(self, engine: Engine, policy: Policy, step: int) -> float:
        """The gap. Raises: SyncError above tolerance (a gap of NaN included), naming the step and the gap."""
        gap = self.gap(engine, policy)
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


def _difference(groups: list[Group], policy: Policy, temperature: float) -> float:
    batch = collate(groups, pad_id=0)
    ours = policy.logprobs(batch, temperature)
    return (ours - batch.sampler_logprobs)[batch.mask].abs().mean().item()
