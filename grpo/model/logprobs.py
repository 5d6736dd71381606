"""Token log-probabilities of a causal language model without materialising [B, T, V].

B sequences, T token positions (already shifted), V vocabulary, N response tokens, H hidden size. Only response
positions reach the output head, a chunk at a time, and a chunk's logits are recomputed in the backward pass: the peak
is [chunk, V] instead of [B, T, V], which for a vocabulary of 151,936 is what decides whether a batch fits.
"""

from __future__ import annotations

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
    with_entropy: bool = True,
    train_entropy: bool = False,
    head_dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor | None]:
    """log p(target | prefix) of the distribution that the sampler draws from, and that distribution's entropy.

    The logits are divided by `temperature`, as the engine's are; without this the ratio of policy to sampler is wrong
    at every temperature but 1.

    Args:
        model: a Hugging Face causal language model.
        inputs, targets: [B, T] int64, padded on the right.
        mask: [B, T] bool, the positions wanted.
        temperature: > 0.
        with_entropy: whether the entropy is wanted; it takes a few passes over the logits.
        train_entropy: whether the entropy keeps its graph; without, it costs no memory in the backward pass.
        head_dtype: of the logits where the layers compute in bfloat16 (head.py); all after them is float32.

    Returns: log-probabilities and entropies in nats, both [B, T] float32, 0 outside the mask; None for the entropies
    where they are not wanted.
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

    def chunk(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        return _head_logprobs(logits_of(hidden), targets, temperature, softcap, with_entropy, train_entropy)

    rows = max(1, MAX_CHUNK_ELEMENTS // head.weight.shape[0])
    chunks = list(zip(wanted.split(rows), picked.split(rows), strict=True))
    if len(chunks) > 1 and torch.is_grad_enabled():
        # Recomputed up to the last tensor that the backward pass needs: an entropy without a graph is not.
        chunked = [checkpoint(chunk, *parts, use_reentrant=False) for parts in chunks]
    else:
        chunked = [chunk(*parts) for parts in chunks]
    empty = torch.zeros(mask.shape, dtype=torch.float32, device=inputs.device)
    logprobs, entropies = zip(*chunked, strict=True)
    whole = empty.masked_scatter(mask, torch.cat(entropies)) if with_entropy else None
    return empty.masked_scatter(mask, torch.cat(logprobs)), whole


def _head_logprobs(
    logits: Tensor, targets: Tensor, temperature: float, softcap: float | None, entropy: bool, train_entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """[N, V], [N] -> log-probabilities [N], and entropies [N] where they are wanted."""
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if temperature != 1:
        logits = logits / temperature
    normaliser = logits.logsumexp(dim=-1)
    logprobs = logits.gather(-1, targets[:, None]).squeeze(-1) - normaliser
    if not entropy:
        return logprobs, None
    with torch.set_grad_enabled(train_entropy and torch.is_grad_enabled()):
        return logprobs, normaliser - (torch.exp(logits - normaliser[:, None]) * logits).sum(dim=-1)
