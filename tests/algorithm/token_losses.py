"""The loss of a row with some of its cells changed, for the tests of ratios, surrogates, importance and losses."""

from dataclasses import replace

import torch

from grpo.algorithm.losses import policy_token_loss
from grpo.algorithm.row import Algorithm
from grpo.algorithm.token_inputs import TokenInputs

ROW = Algorithm(advantage="centered", aggregation="constant", importance_cap=0)


def loss_of(logprobs, old, advantages, mask=None, row=ROW, sampler=None, reference=None, entropy=None, **cells):
    """The loss of a row with some cells changed; `advantages` are of responses, [B]."""
    logprobs, old, advantages = (torch.as_tensor(x, dtype=torch.float64) for x in (logprobs, old, advantages))
    mask = torch.ones_like(logprobs, dtype=torch.bool) if mask is None else mask
    spread = advantages[:, None].expand_as(logprobs)
    inputs = TokenInputs(logprobs, old, spread, mask, sampler, reference, entropy)
    return policy_token_loss(inputs, replace(row, **cells))
