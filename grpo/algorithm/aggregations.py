"""Response mask [B, T] -> token weights [B, T]: how token losses become one number.

B sequences, T token positions (already shifted), |o| a response's tokens. The loss is always
`(token_weights * token_loss).sum()`: the weights are computed once for a whole optimizer batch, before it is cut into
micro-batches, so that micro-batch losses simply add and the gradient cannot depend on the cut.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from grpo.shapes import is_mask, of_shape

AggregationFunction = Callable[..., Tensor]
"""The mask [B, T] and, by the name of a parameter, the `constant` C and the `groups` [B] -> token weights [B, T]."""


def sequence_mean(mask: Tensor, constant: float) -> Tensor:
    """1 / (B |o|): GRPO (arXiv 2402.03300, eq. 3). Each response weighs the same, so a token of a long one weighs
    less: long wrong answers are punished less per token, the length bias that Dr. GRPO removes. `constant` is unused.

    A sequence with an empty mask stays in B and has weight 0.

    >>> sequence_mean(torch.tensor([[True, True], [True, False]]), 0)
    tensor([[0.2500, 0.2500],
            [0.5000, 0.0000]])
    """
    is_mask("mask", mask)
    lengths = mask.sum(dim=1, keepdim=True).clamp(min=1)
    return mask.float() / (mask.shape[0] * lengths)


def constant_length(mask: Tensor, constant: float) -> Tensor:
    """1 / (B C): Dr. GRPO (arXiv 2503.20783, section 3.2). C is a constant, by default the generation budget, never
    the batch's longest response and never the padded width.

    >>> constant_length(torch.tensor([[True, True], [True, False]]), 4)
    tensor([[0.1250, 0.1250],
            [0.1250, 0.0000]])
    """
    is_mask("mask", mask)
    return mask.float() / (mask.shape[0] * constant)


def token_mean(mask: Tensor, constant: float) -> Tensor:
    """1 / (response tokens of the optimizer batch): each token weighs the same (DAPO, arXiv 2503.14476, eq. 8).
    `constant` is unused.

    >>> token_mean(torch.tensor([[True, True], [True, False]]), 0)
    tensor([[0.3333, 0.3333],
            [0.3333, 0.0000]])
    """
    is_mask("mask", mask)
    return mask.float() / mask.sum().clamp(min=1)


def prompt_mean(mask: Tensor, groups: Tensor) -> Tensor:
    """1 / (P * response tokens of the problem): each problem weighs the same, and in it each token (ScaleRL, arXiv
    2510.13786, section 4; DAPO's eq. 8, whose code has the token mean). P counts the problems that have a token.

    groups: [B] int64, equal for responses to the same problem.

    >>> prompt_mean(torch.tensor([[True, True], [True, False], [True, False]]), torch.tensor([0, 0, 1]))
    tensor([[0.1667, 0.1667],
            [0.1667, 0.0000],
            [0.5000, 0.0000]])
    """
    is_mask("mask", mask)
    of_shape("groups", groups, "[B]", mask.shape[:1])
    _, index = groups.unique(return_inverse=True)
    tokens = torch.zeros(int(index.max()) + 1, device=mask.device).index_add(0, index, mask.sum(dim=1).float())
    problems = (tokens > 0).sum().clamp(min=1)
    return mask.float() / (problems * tokens[index].clamp(min=1))[:, None]


AGGREGATIONS: dict[str, AggregationFunction] = {
    "sequence_mean": sequence_mean,
    "constant": constant_length,
    "token_mean": token_mean,
    "prompt_mean": prompt_mean,
}
"""What `--aggregation` accepts, besides a function of your own: `./mine.py:fn`."""
