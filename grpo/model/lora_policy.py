"""A policy of which only a LoRA adapter is trained, and its reference: the same model with the adapter switched off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from grpo.model.lora import adapter_parameters, merged_weights, save_adapter, switched_off
from grpo.model.policy import Policy
from grpo.model.shard import on_host
from grpo.records import Batch


class LoraPolicy(Policy):
    """A policy whose model has an adapter in it (lora.py). To everything outside it is a model without one."""

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """As Policy.weights: the model with its adapter merged. A merged tensor is there while it is handed over."""
        yield from merged_weights(self.model)

    def gathered(self) -> dict[str, Tensor] | None:
        """As Policy.gathered, merged."""
        return None if self.ranks.size == 1 else on_host(self.model, self.weights(), self.ranks)

    def save(self, folder: Path, gathered: dict[str, Tensor] | None = None) -> None:
        """As Policy.save, merged: in the host's memory, of which it takes as much as the model."""
        own = self.model.state_dict().keys()
        merged = gathered or {name: tensor if name in own else tensor.cpu() for name, tensor in self.weights()}
        self.model.save_pretrained(folder, state_dict=merged)

    def kept(self) -> dict[str, Tensor]:
        """As Policy.kept: the adapter."""
        return dict(adapter_parameters(self.model))

    def gathered_kept(self) -> dict[str, Tensor] | None:
        """As Policy.gathered_kept: the adapter."""
        return None if self.ranks.size == 1 else on_host(self.model, adapter_parameters(self.model).items(), self.ranks)

    def save_kept(self, folder: Path, gathered: dict[str, Tensor] | None = None) -> None:
        """As Policy.save_kept: the adapter, in peft's format."""
        save_adapter(self.model, folder, gathered)


class WithoutAdapter:
    """The reference of a LoRA policy: the model that it began with, which is still there. It takes no memory."""

    def __init__(self, policy: LoraPolicy) -> None:
        self.policy = policy

    def logprobs(self, batch: Batch) -> Tensor:
        """[B, T] float32, as `Policy.logprobs`."""
        with switched_off(self.policy.model):
            return self.policy.logprobs(batch)
