"""Token log-probabilities of a causal language model without materialising [B, T, V].

B sequences, T token positions (already shifted), V vocabulary, N response tokens, H hidden size. Only response
positions reach the output head, a chunk at a time, and a chunk's logits are recomputed in the backward pass: the peak
is [chunk, V] instead of [B, T, V], which for a vocabulary of 151,936 is what decides whether a batch fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from grpo.model.head import head_function
from grpo.shapes import is_mask, same_shape

MAX_CHUNK_ELEMENTS = 2**25
"""Logits held at once: 128 MiB in float32. A large card takes more of them (`chunk_elements`)."""
SHARE_OF_CARD = 512
"""The bytes of a card are at least so many times those numbers: 512 MiB of logits on one of 80 GB."""


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
    is_mask("mask", mask)
    same_shape("[B, T]", inputs=inputs, targets=targets, mask=mask)
    wanted, picked = response_states(model, inputs, mask), targets[mask]  # [N, H], [N]
    score = scorer(model, temperature, with_entropy=with_entropy, train_entropy=train_entropy, head_dtype=head_dtype)
    rows = chunk_rows(model)
    chunks = list(zip(wanted.split(rows), picked.split(rows), strict=True))
    if len(chunks) > 1 and torch.is_grad_enabled():
        # Recomputed up to the last tensor that the backward pass needs: an entropy without a graph is not.
        chunked = [checkpoint(score, *parts, use_reentrant=False) for parts in chunks]
    else:
        chunked = [score(*parts) for parts in chunks]
    empty = torch.zeros(mask.shape, dtype=torch.float32, device=inputs.device)
    logprobs, entropies = zip(*chunked, strict=True)
    whole = empty.masked_scatter(mask, torch.cat(entropies)) if with_entropy else None
    return empty.masked_scatter(mask, torch.cat(logprobs)), whole


def response_states(model: nn.Module, inputs: Tensor, mask: Tensor) -> Tensor:
    """[B, T] -> [N, H]: what the layers hand to the head where the mask is set, row after row."""
    # No attention mask: padding is on the right, where a causal model cannot see it.
    return model.base_model(input_ids=inputs, use_cache=False).last_hidden_state[mask]


def chunk_elements(card: float) -> int:
    """Logits held at once on a card of so many bytes; 0 bytes: on a CPU. A power of 2.

    For each chunk the gradient of the whole head is read and written, 4 bytes for each of its V H numbers; the products
    of a chunk take 6 R V H operations, R its positions. On an H100 (3.35 TB/s, 400 TFLOP/s reached) that is as long at
    R = 160: the more positions, the less of the time goes to memory. 2**27 logits of a vocabulary of 151,936 are 883.

    >>> [chunk_elements(gib * 2**30) == 2**n for gib, n in ((0, 25), (23.5, 25), (44.5, 26), (79, 27), (139, 28))]
    [True, True, True, True, True]
    """
    return max(MAX_CHUNK_ELEMENTS, 2 ** int(math.log2(max(1, card / SHARE_OF_CARD))))


def chunk_rows(model: nn.Module) -> int:
    """Positions whose logits are held at once."""
    weight = model.get_output_embeddings().weight
    card = torch.cuda.get_device_properties(weight.device).total_memory if weight.is_cuda else 0
    return max(1, chunk_elements(card) // weight.shape[0])


def scorer(
    model: nn.Module,
    temperature: float,
    *,
    with_entropy: bool = True,
    train_entropy: bool = False,
    head_dtype: torch.dtype = torch.float32,
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]:
    """The head as a function, made for one pass: states [N, H], targets [N] -> log-probabilities and entropies [N].

    Arguments as those of `token_logprobs`.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature}: greedy choice has no log-probability")
    logits_of = head_function(model.get_output_embeddings(), head_dtype)

    def score(states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        return _head_logprobs(tempered(model, logits_of(states), temperature), targets, with_entropy, train_entropy)

    return score


def tempered(model: nn.Module, logits: Tensor, temperature: float) -> Tensor:
    """[..., V]: the logits of the distribution that the sampler draws from."""
    softcap = getattr(model.config, "final_logit_softcapping", None)  # Gemma squashes its logits
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits if temperature == 1 else logits / temperature


def _head_logprobs(logits: Tensor, targets: Tensor, entropy: bool, train_entropy: bool) -> tuple[Tensor, Tensor | None]:
    """[N, V], [N] -> log-probabilities [N], and entropies [N] where they are wanted."""
    normaliser = logits.logsumexp(dim=-1)
    logprobs = logits.gather(-1, targets[:, None]).squeeze(-1) - normaliser
    if not entropy:
        return logprobs, None
    with torch.set_grad_enabled(train_entropy and torch.is_grad_enabled()):
        return logprobs, normaliser - (torch.exp(logits - normaliser[:, None]) * logits).sum(dim=-1)
