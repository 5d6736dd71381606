"""Where GRPO's length bias comes from, exactly: the expected gradient of a policy small enough to enumerate.

A response begins with a guess, right with probability p, and goes on for as long as the policy likes, up to a limit.
Its length changes nothing about its reward, so any pull on the length is bias (arXiv 2503.20783, section 3.1).
"""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import logsigmoid

from grpo.algorithm.aggregations import AGGREGATIONS
from grpo.algorithm.ingredients import load_aggregation
from grpo.algorithm.losses import policy_token_loss
from grpo.algorithm.table import ALGORITHMS
from grpo.algorithm.token_inputs import TokenInputs

LIMIT = 12
P_RIGHT = 0.4


def pull_on_length(aggregation: str, *, can_tell: bool) -> tuple[float, float]:
    """How a step of gradient descent would change the log-odds of going on, after a right and after a wrong guess.

    Every response is enumerated, and weighted by its probability. The group is infinite: its mean reward is P_RIGHT. A
    policy that cannot tell whether it is right goes on by the same log-odds in both cases.
    """
    guess = torch.tensor(P_RIGHT, dtype=torch.float64).logit()
    going_on = torch.full((2 if can_tell else 1,), 1.5, dtype=torch.float64, requires_grad=True)
    responses, advantages = [], []
    for right, log_odds in ((True, going_on[0]), (False, going_on[-1])):
        first, more, stop = logsigmoid(guess if right else -guess), logsigmoid(log_odds), logsigmoid(-log_odds)
        responses += [[first, *[more] * length, stop] for length in range(LIMIT)] + [[first, *[more] * LIMIT]]
        advantages += [right - P_RIGHT] * (LIMIT + 1)
    probabilities = torch.stack([sum(tokens).exp().detach() for tokens in responses])
    assert probabilities.sum().item() == pytest.approx(1.0)
    logprobs = torch.nn.utils.rnn.pad_sequence([torch.stack(tokens) for tokens in responses], batch_first=True)
    mask = torch.arange(LIMIT + 1) < torch.tensor([len(tokens) for tokens in responses])[:, None]
    spread = torch.tensor(advantages, dtype=torch.float64)[:, None] * mask
    token = policy_token_loss(TokenInputs(logprobs, logprobs.detach(), spread, mask), ALGORITHMS["dr_grpo"])
    weights = (
        load_aggregation(aggregation, LIMIT)(mask, torch.zeros(len(mask), dtype=torch.int64)).double()
        * probabilities[:, None]
        * len(responses)
    )
    (gradient,) = torch.autograd.grad((weights * token.loss).sum(), going_on)
    return -gradient[0].item(), -gradient[-1].item()


def test_divided_by_its_own_length_a_wrong_response_is_pulled_longer_and_a_right_one_shorter():
    right, wrong = pull_on_length("sequence_mean", can_tell=True)
    assert right < -1e-3 and wrong > 1e-3
    assert right + wrong == pytest.approx(0, abs=1e-8)  # advantages sum to zero, and so do the pulls


@pytest.mark.parametrize("aggregation", ["constant", "token_mean", "prompt_mean"])
def test_under_one_divisor_for_all_nothing_pulls_on_the_length(aggregation):
    assert pull_on_length(aggregation, can_tell=True) == pytest.approx((0, 0), abs=1e-12)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_policy_that_cannot_tell_is_not_biased_either(aggregation):
    """Which is why the bias does not show on every task: the two pulls act on the same log-odds, and cancel."""
    assert pull_on_length(aggregation, can_tell=False) == pytest.approx((0, 0), abs=1e-8)
