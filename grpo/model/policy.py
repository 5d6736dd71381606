"""The policy: a causal language model that learns, and its log-probabilities; and the frozen reference.

B sequences, T token positions (already shifted).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from grpo.algorithm.objective import Measured
from grpo.model.head_pieces import backward_in_pieces
from grpo.model.host import rest_on_host, visiting
from grpo.model.learner import Learner, Objective, autocast
from grpo.model.logprobs import chunk_rows, token_logprobs
from grpo.model.optimizers import OptimizerSettings
from grpo.model.passes import Passes
from grpo.model.ranks import Ranks
from grpo.model.shard import on_host, passed, whole
from grpo.out_of_memory import NO_REFERENCE, out_of_memory
from grpo.records import Batch


class Policy(Learner):
    """The model that is trained. Its outputs, which an objective gets, are log-probabilities and entropies [B, T]."""

    def __init__(
        self,
        model: nn.Module,
        *,
        temperature: float,
        micro_batch_tokens: int,
        optimizer: OptimizerSettings | None = None,
        train_entropy: bool = False,
        head_dtype: torch.dtype = torch.float32,
        ranks: Ranks | None = None,
    ) -> None:
        """train_entropy: whether the entropy keeps its graph, as an entropy bonus needs; head_dtype: of the output
        head's matrix product (head.py); ranks: over which the model is sharded."""
        super().__init__(model, optimizer or OptimizerSettings(), micro_batch_tokens, ranks)
        self.temperature = temperature
        self.train_entropy = train_entropy
        self.head_dtype = head_dtype

    def outputs(self, micro_batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the targets and entropies, both [B, T] float32, 0 outside the mask."""
        return passed(
            token_logprobs,
            self.model,
            micro_batch.inputs,
            micro_batch.targets,
            micro_batch.mask,
            self.temperature,
            train_entropy=self.train_entropy,
            head_dtype=self.head_dtype,
        )

    def contribute(self, micro_batch: Batch, objective: Objective) -> Measured:
        """See Learner.contribute. The tokens go in pieces where their logits are cut anyway, and the loss can be; but
        not of a sharded model, which has its weights for a single backward pass."""
        plain = self.ranks.size > 1 or not getattr(objective, "of_tokens", False)
        if plain or int(micro_batch.mask.sum()) <= chunk_rows(self.model):
            return super().contribute(micro_batch, objective)
        settings = {"train_entropy": self.train_entropy, "head_dtype": self.head_dtype}
        return backward_in_pieces(self.model, micro_batch, objective, self.temperature, **settings)

    @contextmanager
    def at_temperature(self, temperature: float) -> Iterator[None]:
        """Passes in this block are at another temperature than the sampler's."""
        own, self.temperature = self.temperature, temperature
        try:
            yield
        finally:
            self.temperature = own

    def logprobs(self, batch: Batch, temperature: float | None = None) -> Tensor:
        """[B, T] float32 log-probabilities of the targets under the current weights, 0 outside the mask.

        At the policy's own (the sampler's) temperature unless another is given.
        """
        return _logprobs(self, batch, temperature or self.temperature, "a pass for log-probabilities")

    def frozen_copy(self) -> Reference:
        """The reference: the policy as it is now, never trained."""
        return Reference(copy.deepcopy(self.model), self.temperature, self.micro_batch_tokens, self.head_dtype)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every (name, tensor) that an engine needs, the tied output head under its own name included.

        `named_parameters()` would leave a tied head out, and an engine that keeps its own copy would go on with the
        old one without a word. Of a sharded model each is put together as it is handed over, on all ranks at once.
        """
        narrow = self.ranks.size > 1 and self.precision is torch.bfloat16  # half the bytes, and all that vLLM keeps
        for name, tensor in self.model.state_dict().items():
            yield name, whole(tensor.bfloat16() if narrow and tensor.dtype is torch.float32 else tensor)

    def gathered(self) -> dict[str, Tensor] | None:
        """What `save` writes, put together by all ranks in the host's memory of the one that writes. None where there
        is but one, which has it."""
        return None if self.ranks.size == 1 else on_host(self.model, self.model.state_dict().items(), self.ranks)

    def save(self, folder: Path, gathered: dict[str, Tensor] | None = None) -> None:
        """Into a folder that transformers and vLLM load."""
        self.model.save_pretrained(folder, state_dict=gathered)

    def kept(self) -> dict[str, Tensor]:
        """What a checkpoint holds of the model: that which training changes."""
        return self.model.state_dict()

    def gathered_kept(self) -> dict[str, Tensor] | None:
        """As `gathered`, for `save_kept`."""
        return self.gathered()

    def save_kept(self, folder: Path, gathered: dict[str, Tensor] | None = None) -> None:
        """Into a folder that the policy can be made from again."""
        self.save(folder, gathered)


class Reference(Passes):
    """A frozen model that only gives log-probabilities."""

    def __init__(
        self,
        model: nn.Module,
        temperature: float,
        micro_batch_tokens: int,
        head_dtype: torch.dtype = torch.float32,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__(micro_batch_tokens, ranks)
        self.model = model.eval().requires_grad_(False)
        self.device = next(model.parameters()).device
        """Where it computes, wherever it rests."""
        self.temperature = temperature
        self.head_dtype = head_dtype

    def logprobs(self, batch: Batch) -> Tensor:
        """[B, T] float32, as `Policy.logprobs`."""
        visit = visiting(self.model, lambda tensor: tensor.to(self.device, non_blocking=True))
        with out_of_memory("a pass of the reference", NO_REFERENCE), visit:
            return _logprobs(self, batch, self.temperature, "a pass of the reference")

    def keep_in_bfloat16(self) -> None:
        """Halve the memory of float32 weights. Under autocast nothing else changes for numbers that bfloat16 has: the
        sums between the layers stay float32, because that is what the embeddings hand on."""
        if any(parameter.dtype is torch.float32 for parameter in self.model.parameters()):
            for parameter in self.model.parameters():  # not the buffers: angles of positions need their float32
                parameter.data = parameter.data.bfloat16()
            self.model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: output.float())

    def rest_on_host(self) -> None:
        """Leave the card between two uses."""
        rest_on_host(self.model)


@torch.no_grad()
def _logprobs(of: Policy | Reference, batch: Batch, temperature: float, name: str) -> Tensor:
    def make(micro_batch: Batch) -> Tensor:
        with autocast(of.device):
            asked = (micro_batch.inputs, micro_batch.targets, micro_batch.mask)
            settings = {"with_entropy": False, "head_dtype": of.head_dtype}
            return passed(token_logprobs, of.model, *asked, temperature, **settings)[0].cpu()

    result = torch.zeros(batch.mask.shape)
    for rows, logprobs in of.each_micro_batch(batch, make, name=name):
        result[rows, : logprobs.shape[1]] = logprobs
    if of.ranks.size > 1:
        result[batch.mask] = of.ranks.added(result[batch.mask])  # where this rank has none stands 0
    return result
