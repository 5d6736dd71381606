"""Token log-probabilities of a causal language model without materialising [B, T, V].

B sequences, T token positions (already shifted), V vocabulary, N response tokens, H hidden size. Only response
positions reach the output head, a chunk at a time, and a chunk's logits are recomputed in the backward pass: the peak
is [chunk, V] instead of [B, T, V], which for a vocabulary of 151,936 is what decides whether a batch fits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from grpo.model.head import head_function
from grpo.shapes import is_mask, same_shape

MAX_CHUNK_ELEMENTS = 2**25
"""Logits held at once: 128 MiB in float32."""


def token_logprobs(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    mask: Tensor,
    temperature: float,
    *,
    train_entropy: bool = False,
    head_dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """log p(target | prefix) of the distribution that the sampler draws from, and that distribution's entropy.

    The logits are divided by `temperature`, as the engine's are; without this the ratio of policy to sampler is wrong
    at every temperature but 1.

    Args:
        model: a Hugging Face causal language model.
        inputs, targets: [B, T] int64, padded on the right.
        mask: [B, T] bool, the positions wanted.
        temperature: > 0.
        train_entropy: whether the entropy keeps its graph; without, it costs no memory in the backward pass.
        head_dtype: of the logits where the layers compute in bfloat16 (head.py); all after them is float32.

    Returns: log-probabilities and entropies in nats, both [B, T] float32, 0 outside the mask.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature}: greedy choice has no log-probability")
    is_mask("mask", mask)
    same_shape("[B, T]", inputs=inputs, targets=targets, mask=mask)
    # No attention mask: padding is on the right, where a causal model cannot see it.
    hidden = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state
    head = model.get_output_embeddings()
    logits_of = head_function(head, head_dtype)
    wanted, picked = hidden[mask], targets[mask]  # [N, H], [N]
    softcap = getattr(model.config, "final_logit_softcapping", None)  # Gemma squashes its logits
    rows = max(1, MAX_CHUNK_ELEMENTS // head.weight.shape[0])
    chunks = list(zip(wanted.split(rows), picked.split(rows), strict=True))
    settings = (temperature, softcap, train_entropy)
    if len(chunks) > 1 and torch.is_grad_enabled():
        chunked = [checkpoint(_head_logprobs, logits_of, h, t, *settings, use_reentrant=False) for h, t in chunks]
    else:
        chunked = [_head_logprobs(logits_of, h, t, *settings) for h, t in chunks]
    empty = torch.zeros(mask.shape, dtype=torch.float32, device=inputs.device)
    logprobs = empty.masked_scatter(mask, torch.cat([logprobs for logprobs, _ in chunked]))
    entropy = empty.masked_scatter(mask, torch.cat([entropies for _, entropies in chunked]))
    return logprobs, entropy


def _head_logprobs(
    logits_of: Callable[[Tensor], Tensor],
    hidden: Tensor,
    targets: Tensor,
    temperature: float,
    softcap: float | None,
    train_entropy: bool,
) -> tuple[Tensor, Tensor]:
    """[N, H], [N] -> log-probabilities [N], entropies [N]."""
    logits = logits_of(hidden)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits / temperature
    normaliser = logits.logsumexp(dim=-1)
    logprobs = logits.gather(-1, targets[:, None]).squeeze(-1) - normaliser
    with torch.set_grad_enabled(train_entropy and torch.is_grad_enabled()):
        entropy = normaliser - (torch.exp(logits - normaliser[:, None]) * logits).sum(dim=-1)
    return logprobs, entropy
