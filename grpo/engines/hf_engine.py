"""transformers' generation on the policy itself: the fallback where vLLM is not installed.

B sequences, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from grpo.engines.protocol import OnResponse
from grpo.model.head import float32_head
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
    ) -> list[Group]:
        """See Engine.generate."""
        wanted = [problem for problem in problems for _ in range(group_size)]
        rollouts: list[Rollout] = []
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for start in range(0, len(wanted), self.max_sequences):
                part = wanted[start : start + self.max_sequences]
                for problem, rollout in zip(part, self._generate(part, temperature, max_tokens), strict=True):
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
    def _generate(self, problems: Sequence[Problem], temperature: float, max_tokens: int) -> list[Rollout]:
        width = max(len(problem.prompt_tokens) for problem in problems)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(p.prompt_tokens)) + list(p.prompt_tokens) for p in problems])
        attention = torch.tensor([[0] * (width - len(p.prompt_tokens)) + [1] * len(p.prompt_tokens) for p in problems])
        recorder = SampledLogprobs(temperature)
        settings = GenerationConfig(
            max_new_tokens=max_tokens,
            do_sample=temperature > 0,
            temperature=1.0 if temperature > 0 else None,  # the recorder divides, and sees what is sampled from
            top_k=0 if temperature > 0 else None,
            top_p=1.0 if temperature > 0 else None,
            eos_token_id=self.end_ids,
            pad_token_id=pad,
            stop_strings=self.stop or None,
        )
        with self._autocast(), float32_head(self.policy.model):
            sequences = self.policy.model.generate(
                ids.to(self.policy.device),
                attention_mask=attention.to(self.policy.device),
                generation_config=settings,
                logits_processor=LogitsProcessorList([recorder]),
                tokenizer=self.tokenizer if self.stop else None,
            )
        responses = sequences[:, width:].cpu()
        logprobs = recorder.finish(sequences).cpu()
        return [self._rollout(*row, max_tokens) for row in zip(responses.tolist(), logprobs.tolist(), strict=True)]

    def _rollout(self, tokens: list[int], logprobs: list[float], max_tokens: int) -> Rollout:
        end = next((i + 1 for i, token in enumerate(tokens) if token in self.end_ids), None)
        ended = end is not None
        kept = tokens[:end]
        if self.stop and not ended:
            # A row that ended by a stop string is padded to the longest; the padding is not part of the response.
            while kept and kept[-1] == self.tokenizer.pad_token_id:
                kept.pop()
            ended = any(stop in self.tokenizer.decode(kept) for stop in self.stop)
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        return Rollout(tuple(kept), tuple(logprobs[: len(kept)]), text, truncated=not ended and len(kept) >= max_tokens)

    def _forward(self, **inputs):
        with self._autocast(), float32_head(self.policy.model):
            return self.policy.model(**inputs)

    def _autocast(self):
        cuda = self.policy.device.type == "cuda"
        return torch.autocast("cuda", torch.bfloat16, enabled=cuda)


class SampledLogprobs(LogitsProcessor):
    """Divides logits by the temperature, and keeps the log-probability of each token that is then sampled.

    `output_scores=True` would keep [B, V] a token; this keeps one row and reads the token off the next call's ids.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature if temperature > 0 else 1.0
        self.previous: Tensor | None = None
        self.columns: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.previous is not None:
            self.columns.append(self.previous.gather(-1, input_ids[:, -1:]))
        scores = scores.float() / self.temperature
        self.previous = scores.log_softmax(dim=-1)
        return scores

    def finish(self, sequences: Tensor) -> Tensor:
        """[B, prompt + response] ids -> [B, response] log-probabilities."""
        return torch.cat([*self.columns, self.previous.gather(-1, sequences[:, -1:])], dim=1)
