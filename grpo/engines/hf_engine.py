"""transformers' generation on the policy itself: the fallback where vLLM is not installed.

B sequences, T tokens of a response, V vocabulary.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from grpo.engines.protocol import OnResponse
from grpo.engines.seeds import response_seed
from grpo.model.batching import PAD_ID
from grpo.model.head import head_in
from grpo.model.policy import Policy
from grpo.records import Group, Problem, Rollout


class HFEngine:
    """Generates with the very weights that are trained: there is nothing to sync."""

    def __init__(
        self,
        policy: Policy,
        tokenizer: PreTrainedTokenizerBase,
        *,
        end_ids: Sequence[int],
        stop: Sequence[str] = (),
        max_sequences: int = 256,
    ) -> None:
        self.policy = policy
        self.tokenizer = tokenizer
        self.end_ids = list(end_ids)
        self.stop = list(stop)
        self.max_sequences = max_sequences
        self.passes = 0

    @property
    def precision(self) -> torch.dtype:
        """See Engine.precision: the policy's."""
        return self.policy.precision

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
        """See Engine.generate."""
        placed = list(zip(places or range(len(problems)), problems, strict=True))
        wanted = [(problem, response_seed(seed, p, g)) for p, problem in placed for g in range(group_size)]
        rollouts: list[Rollout] = []
        self.passes = 0
        for start in range(0, len(wanted), self.max_sequences):
            part, seeds = zip(*wanted[start : start + self.max_sequences], strict=True)
            for problem, rollout in zip(part, self._generate(part, seeds, temperature, max_tokens), strict=True):
                rollouts.append(rollout)
                if on_response is not None:
                    on_response(problem, rollout)
        groups = range(0, len(wanted), group_size)
        return [
            Group(problem, tuple(rollouts[i : i + group_size])) for problem, i in zip(problems, groups, strict=True)
        ]

    def sync(self, policy: Policy) -> None:
        """See Engine.sync. Raises: ValueError for another policy than the engine was made with."""
        if policy is not self.policy:
            raise ValueError("the hf engine generates with the policy that it was made with, and no other")

    def release(self) -> None:
        """See Engine.release: there is nothing to give back."""

    @property
    def held_bytes(self) -> int:
        """See Engine.held_bytes: the weights are the policy's."""
        return 0

    def close(self) -> None:
        """See Engine.close: the model is the policy's."""

    @torch.no_grad()
    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """See Engine.score."""
        scores = []
        for sequence in sequences:
            ids = torch.tensor([list(sequence)], device=self.policy.device)
            logprobs = self._forward(input_ids=ids).logits[0, :-1].float().log_softmax(dim=-1)
            scores.append(logprobs.gather(-1, ids[0, 1:, None]).squeeze(-1).tolist())
        return scores

    @torch.no_grad()
    def _generate(
        self, problems: Sequence[Problem], seeds: Sequence[int], temperature: float, max_tokens: int
    ) -> list[Rollout]:
        width = max(len(problem.prompt_tokens) for problem in problems)
        ids = torch.tensor([[PAD_ID] * (width - len(p.prompt_tokens)) + list(p.prompt_tokens) for p in problems])
        attention = torch.tensor([[0] * (width - len(p.prompt_tokens)) + [1] * len(p.prompt_tokens) for p in problems])
        choice = Choice(temperature, draws(seeds, max_tokens).to(self.policy.device))
        settings = GenerationConfig(
            max_new_tokens=max_tokens,
            do_sample=False,  # the tokens are chosen by `choice`, which leaves one to take
            eos_token_id=self.end_ids,
            pad_token_id=PAD_ID,
            stop_strings=self.stop or None,
        )
        with self._autocast(), head_in(self.policy.model, self.policy.head_dtype):
            sequences = self.policy.model.generate(
                ids.to(self.policy.device),
                attention_mask=attention.to(self.policy.device),
                generation_config=settings,
                logits_processor=LogitsProcessorList([choice]),
                tokenizer=self.tokenizer if self.stop else None,
            )
        responses = sequences[:, width:].tolist()
        self.passes += len(choice.columns)
        return [self._rollout(*row, max_tokens) for row in zip(responses, choice.logprobs().tolist(), strict=True)]

    def _rollout(self, tokens: list[int], logprobs: list[float], max_tokens: int) -> Rollout:
        end = next((i + 1 for i, token in enumerate(tokens) if token in self.end_ids), len(tokens))
        stopped = self._stopped(tokens[:end])
        kept = tokens[: end if stopped is None else stopped]
        ended = stopped is not None or (bool(kept) and kept[-1] in self.end_ids)
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        return Rollout(tuple(kept), tuple(logprobs[: len(kept)]), text, truncated=not ended and len(kept) >= max_tokens)

    def _stopped(self, tokens: list[int]) -> int | None:
        """How many tokens there are up to the end of the first stop text, behind which a row is padding; None where
        there is no such text."""

        def holds(count: int) -> bool:
            text = self.tokenizer.decode(tokens[:count])
            return any(stop in text for stop in self.stop)

        if not self.stop or not holds(len(tokens)):
            return None
        return bisect_left(range(len(tokens)), True, key=holds)

    def _forward(self, **inputs):
        with self._autocast(), head_in(self.policy.model, self.policy.head_dtype):
            return self.policy.model(**inputs)

    def _autocast(self):
        cuda = self.policy.device.type == "cuda"
        return torch.autocast("cuda", torch.bfloat16, enabled=cuda)


class Choice(LogitsProcessor):
    """Chooses each row's next token by a number of its own, and keeps the token's log-probability after temperature.

    The token is the first whose cumulative probability exceeds the row's number; at temperature 0 the likeliest.
    """

    def __init__(self, temperature: float, numbers: Tensor) -> None:
        """numbers: [B, T], uniform in [0, 1)."""
        self.temperature = temperature
        self.numbers = numbers
        self.columns: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[B, V] logits -> [B, V] with the chosen token's alone above minus infinity."""
        logprobs = (scores.float() / (self.temperature or 1.0)).log_softmax(dim=-1)
        if self.temperature:
            cumulative = logprobs.double().exp().cumsum(dim=-1)  # in float32 a large vocabulary would lose its tail
            number = self.numbers[:, len(self.columns), None].double()
            chosen = torch.searchsorted(cumulative, number * cumulative[:, -1:], right=True)
        else:
            chosen = logprobs.argmax(dim=-1, keepdim=True)
        self.columns.append(logprobs.gather(-1, chosen))
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0.0)

    def logprobs(self) -> Tensor:
        """[B, tokens so far] float32, also after a row's end."""
        return torch.cat(self.columns, dim=1)


def draws(seeds: Sequence[int], tokens: int) -> Tensor:
    """[B, T] uniform in [0, 1): a row of numbers for each seed, whatever the device that generates."""
    return torch.stack([torch.rand(tokens, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
