"""The policy: a causal language model, its optimizer, its log-probabilities, and one clipped update.

B sequences, T token positions (already shifted).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from grpo.algorithm.losses import TokenLoss
from grpo.model.batching import micro_batches
from grpo.model.logprobs import token_logprobs
from grpo.records import Batch

LossFunction = Callable[[Batch, Tensor, Tensor], TokenLoss]
"""(micro-batch with old_logprobs, log-probabilities [B, T], entropies [B, T]) -> per-token loss."""

LossTerm = Callable[[Tensor, Batch], Tensor]
"""A user's own: (log-probabilities [B, T], the micro-batch) -> [B, T], added to every token's loss."""


class Policy:
    """The model that is trained. Parameters are kept in float32; on CUDA the forward pass runs in bfloat16.

    Pure bfloat16 parameters would lose updates: at a learning rate of 1e-6 most steps are smaller than bfloat16's
    spacing around a weight, and rounding drops them.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        temperature: float,
        micro_batch_tokens: int,
        learning_rate: float = 1e-6,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        max_grad_norm: float = 1.0,
        warmup_updates: int = 0,
        train_entropy: bool = False,
    ) -> None:
        self.model = model.eval()  # no dropout: the log-probabilities must be those of the sampler's network
        self.temperature = temperature
        self.micro_batch_tokens = micro_batch_tokens
        self.max_grad_norm = max_grad_norm
        self.train_entropy = train_entropy
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=betas, weight_decay=weight_decay)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda update: min(1.0, (update + 1) / (warmup_updates + 1))
        )

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def frozen_copy(self) -> Reference:
        """The reference: the policy as it is now, never trained."""
        return Reference(copy.deepcopy(self.model), self.temperature, self.micro_batch_tokens)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every (name, tensor) that an engine needs, the tied output head under its own name included.

        `named_parameters()` would leave a tied head out, and an engine that keeps its own copy would go on with the
        old one without a word.
        """
        yield from self.model.state_dict().items()

    @torch.no_grad()
    def logprobs(self, batch: Batch, temperature: float | None = None) -> Tensor:
        """[B, T] float32 log-probabilities of the targets under the current weights, 0 outside the mask.

        At the policy's own (the sampler's) temperature unless another is given.
        """
        return _logprobs(self.model, batch, temperature or self.temperature, self.micro_batch_tokens)

    def update(self, batch: Batch, loss_function: LossFunction) -> dict[str, float]:
        """One optimizer step on a whole optimizer batch. Returns what it measured, as `policy/...` metrics."""
        metrics = self.backward(batch, loss_function)
        grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        learning_rate = self.schedule.get_last_lr()[0]
        if not torch.isfinite(grad_norm):
            raise FloatingPointError(
                f"the gradient is {grad_norm.item()}: the weights are left as they were. Lower --learning-rate, and "
                "look at the last rows of metrics.jsonl for a loss, KL or gap that ran away."
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        return {**metrics, "policy/grad_norm": grad_norm.item(), "policy/learning_rate": learning_rate}

    def backward(self, batch: Batch, loss_function: LossFunction) -> dict[str, float]:
        """Add a whole optimizer batch's gradient to the parameters', accumulated over micro-batches.

        It is that of `(weights * token_loss).sum()` over the batch, whatever the micro-batches: the weights were
        computed over the whole. Returns what was measured, as `policy/...` metrics.
        """
        sums: dict[str, float] = {}
        for rows in micro_batches(batch, self.micro_batch_tokens):
            part = batch.take(rows).to(self.device)
            with _autocast(self.device):
                logprobs, entropy = token_logprobs(
                    self.model, part.inputs, part.targets, part.mask, self.temperature, train_entropy=self.train_entropy
                )
            if part.old_logprobs is None:
                part = replace(part, old_logprobs=logprobs.detach())
            token = loss_function(part, logprobs, entropy)
            loss = (part.weights * token.loss).sum()
            loss.backward()
            for name, value in _measure(part, token, logprobs.detach(), entropy.detach(), loss.detach()).items():
                sums[name] = sums.get(name, 0.0) + value
        tokens = max(1.0, sums.pop("tokens"))
        summed = ("policy/loss", "policy/surrogate")
        return {name: value if name in summed else value / tokens for name, value in sums.items()}


class Reference:
    """A frozen model that only gives log-probabilities."""

    def __init__(self, model: nn.Module, temperature: float, micro_batch_tokens: int) -> None:
        self.model = model.eval().requires_grad_(False)
        self.temperature = temperature
        self.micro_batch_tokens = micro_batch_tokens

    @torch.no_grad()
    def logprobs(self, batch: Batch) -> Tensor:
        """[B, T] float32, as `Policy.logprobs`."""
        return _logprobs(self.model, batch, self.temperature, self.micro_batch_tokens)


def _logprobs(model: nn.Module, batch: Batch, temperature: float, max_tokens: int) -> Tensor:
    device = next(model.parameters()).device
    result = torch.zeros(batch.mask.shape)
    for rows in micro_batches(batch, max_tokens):
        part = batch.take(rows).to(device)
        with _autocast(device):
            logprobs, _ = token_logprobs(model, part.inputs, part.targets, part.mask, temperature)
        result[rows, : logprobs.shape[1]] = logprobs.cpu()
    return result


def _autocast(device: torch.device):
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def _measure(part: Batch, token: TokenLoss, logprobs: Tensor, entropy: Tensor, loss: Tensor) -> dict[str, float]:
    """Sums over a micro-batch's response tokens; `update` divides by their number (loss and surrogate excepted)."""
    mask = part.mask
    values = {
        "policy/loss": loss,
        # With one update a batch the ratio is 1 and the loss about 0, though its gradient is not; this one moves.
        "policy/surrogate": (part.weights * part.advantages[:, None] * logprobs).sum(),
        "policy/entropy": entropy[mask].sum(),
        "policy/clip_low": token.clip_low[mask].sum(),
        "policy/clip_high": token.clip_high[mask].sum(),
        "policy/importance": token.importance[mask].sum(),
        "policy/engine_gap": (part.old_logprobs - part.sampler_logprobs)[mask].abs().sum(),
        "tokens": mask.sum(),
    }
    if token.kl is not None:
        values["policy/kl"] = token.kl[mask].sum()
    return dict(zip(values, torch.stack([v.float() for v in values.values()]).tolist(), strict=True))
