"""Losses of preferences: Bradley-Terry for a reward model, and those of DPO. Pure functions.

    bradley_terry(rewards, scores)                      one comparison: K responses to one prompt -> a number
    PREFERENCE_LOSSES["sigmoid"](h, beta, smoothing)    N pairs -> a loss each
    slopes(h, loss)                                     dL/dh of each pair: all that an update needs to know

DPO's h is made of the response's log-probabilities under the policy, l, and under the reference, ref:
h = (l_chosen - ref_chosen) - (l_rejected - ref_rejected). The gradient of f(h) with respect to the policy is f'(h)
times that of l_chosen - l_rejected, and f'(h) is a number. So DPO is the surrogate -A l with A = -f'(h) for the chosen
response and +f'(h) for the rejected one; a reward model is the same with its outputs in place of l.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from grpo.shapes import same_shape

PreferenceLoss = Callable[[Tensor, float, float], Tensor]
"""(h [N], beta, label smoothing) -> a loss a pair, [N]."""


def bradley_terry(rewards: Tensor, scores: Tensor, margin: float = 0.0, centre: float = 0.0) -> Tensor:
    """-log sigmoid(r_a - r_b - margin (s_a - s_b)), a mean over the pairs of a comparison with s_a > s_b.

    All pairs of a prompt count as one (InstructGPT, arXiv 2203.02155, eq. 1); ties teach nothing. `centre` weighs the
    mean of (r_a + r_b)^2, which fixes the level that differences leave open (arXiv 2312.09244).

    The probability that a is preferred is 1 / (1 + exp(-(r_a - r_b))); some lecture notes turn the sign.

    Shapes: rewards, scores [K]. Raises: ValueError where no two scores differ.

    >>> round(bradley_terry(torch.tensor([3.0, 1.0]).log(), torch.tensor([1.0, 0.0])).item(), 6)
    0.287682
    """
    same_shape("[K]", rewards=rewards, scores=scores)
    better = scores[:, None] > scores[None, :]
    if not better.any():
        raise ValueError("a comparison needs two responses of different scores")
    difference = rewards[:, None] - rewards[None, :] - margin * (scores[:, None] - scores[None, :])
    loss = -logsigmoid(difference[better]).mean()
    return loss + centre * (rewards[:, None] + rewards[None, :])[better].square().mean() if centre else loss


def sigmoid(h: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """-(1 - smoothing) log sigmoid(beta h) - smoothing log sigmoid(-beta h): DPO (arXiv 2305.18290, eq. 7).

    Label smoothing says that a share of the labels is turned around, and gives the loss its minimum at
    beta h = ln((1 - smoothing) / smoothing) instead of at infinity (conservative DPO).
    """
    return -(1 - smoothing) * logsigmoid(beta * h) - smoothing * logsigmoid(-beta * h)


def ipo(h: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """(h - 1 / (2 beta))^2: IPO (arXiv 2310.12036, eq. 17), whose beta is its tau. It knows no label smoothing."""
    return (h - 1 / (2 * beta)).square()


PREFERENCE_LOSSES: dict[str, PreferenceLoss] = {"sigmoid": sigmoid, "ipo": ipo}
"""What `--loss` of grpo.dpo accepts."""


def slopes(values: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The derivative of a loss, or of the sum of some, with respect to each of `values`; their shape, no graph.

    >>> slopes(torch.zeros(2), lambda h: sigmoid(h, 0.5))
    tensor([-0.2500, -0.2500])
    """
    values = values.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(values).sum(), values)
    return gradient
