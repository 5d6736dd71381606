"""Groups -> Batch -> optimizer batches -> micro-batches. Shift once, weigh once, cut anywhere.

P problems a step, G responses a problem, B = P * G sequences, T token positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from grpo.records import Batch, Group

PAD_ID = 0
"""What rows are filled up with: an id that every model knows. No token attends to it, and nothing is read where it
stands, so that it need not be the tokenizer's pad token, and a tokenizer may have none."""


def collate(
    groups: Sequence[Group], pad_id: int = PAD_ID, *, mask_truncated: bool = False, dropped: Tensor | None = None
) -> Batch:
    """P groups of G -> one Batch of B = P * G sequences, padded on the right and shifted once.

    A prompt `a b` with a response `c d` becomes the row

        inputs   a b c
        targets  b c d
        mask     . x x     response tokens, the final end-of-sequence included

    `mask_truncated` empties the mask of responses cut at the token limit, `dropped`, [P] bool, that of whole groups;
    they stay in B.
    """
    rows = [(group.problem.prompt_tokens, rollout) for group in groups for rollout in group.rollouts]
    index = torch.tensor([p for p, group in enumerate(groups) for _ in group.rollouts])
    kept = torch.ones(len(groups), dtype=torch.bool) if dropped is None else ~dropped
    width = max(len(prompt) + len(rollout.tokens) for prompt, rollout in rows) - 1
    tokens = torch.full((len(rows), width + 1), pad_id)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    sampler_logprobs = torch.zeros(len(rows), width)
    lengths = torch.zeros(len(rows), dtype=torch.int64)
    for i, (prompt, rollout) in enumerate(rows):
        start, end = len(prompt), len(prompt) + len(rollout.tokens)
        tokens[i, :end] = torch.tensor([*prompt, *rollout.tokens])
        mask[i, start - 1 : end - 1] = bool(kept[index[i]]) and not (mask_truncated and rollout.truncated)
        sampler_logprobs[i, start - 1 : end - 1] = torch.tensor(rollout.logprobs)
        lengths[i] = end - 1
    return Batch(
        inputs=tokens[:, :-1],
        targets=tokens[:, 1:],
        lengths=lengths,
        mask=mask,
        groups=index,
        sampler_logprobs=sampler_logprobs,
    )


def optimizer_batches(
    batch: Batch, updates: int, epochs: int, aggregate: Callable[[Tensor, Tensor], Tensor], seed: int
) -> Iterator[Batch]:
    """Cut a rollout batch into `updates` optimizer batches of equal size, reshuffled for each of `epochs` passes.

    The token weights, `aggregate`: mask [B, T], groups [B] -> [B, T], are computed here, over a whole optimizer batch.
    A single update takes the batch in order.
    """
    generator = torch.Generator().manual_seed(seed)
    if len(batch) % updates:
        raise ValueError(f"{len(batch)} sequences do not divide into {updates} updates")
    for _ in range(epochs):
        order = torch.arange(len(batch)) if updates == 1 else torch.randperm(len(batch), generator=generator)
        for rows in order.chunk(updates):
            optimizer_batch = batch.take(rows)
            yield replace(optimizer_batch, token_weights=aggregate(optimizer_batch.mask, optimizer_batch.groups))


def micro_batches(batch: Batch, max_tokens: int, rank: int = 0, ranks: int = 1) -> Iterator[Tensor]:
    """Row indices [N] of micro-batches that hold at most `max_tokens` positions each, padding included.

    Rows are taken in order of length, so that little of a micro-batch is padding. A row longer than `max_tokens` goes
    alone. With lengths 2, 9, 3 and max_tokens 8: rows [0, 2], then [1]. Of several ranks each takes every `ranks`-th
    row in that order: equally many, and of equal lengths.
    """
    order = torch.argsort(batch.lengths, stable=True).tolist()[rank::ranks]
    if not order:
        return
    rows: list[int] = []
    for row in order:
        if rows and (len(rows) + 1) * int(batch.lengths[row]) > max_tokens:
            yield torch.tensor(rows)
            rows = []
        rows.append(row)
    yield torch.tensor(rows)


def dealt(batch: Batch, max_tokens: int, rank: int, ranks: int) -> list[Tensor | None]:
    """A rank's micro-batches, and None until it has as many as every other.

    Each pass of a sharded model is a conversation of all ranks: one that made fewer would leave the others waiting.
    """
    cuts = [list(micro_batches(batch, max_tokens, other, ranks)) for other in range(ranks)]
    return [*cuts[rank], *[None] * (max(map(len, cuts)) - len(cuts[rank]))]


def nothing(batch: Batch) -> Batch:
    """A micro-batch of one row of two positions, none of which is trained on: its loss and its gradient are 0."""
    shapes = {name: (1, 2) if tensor.ndim == 2 else (1,) for name, tensor in batch._tensors().items()}
    zeros = {name: torch.zeros(shape, dtype=getattr(batch, name).dtype) for name, shape in shapes.items()}
    return replace(batch, **zeros | {"lengths": torch.tensor([2])})
