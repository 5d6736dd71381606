"""Ratios by hand, and as products of one another."""

import doctest
import math

import pytest
import torch

from grpo.algorithm import ratios
from grpo.algorithm.ratios import RATIOS, product_ratio, sequence_ratio, token_ratio


def test_worked_examples():
    failed, attempted = doctest.testmod(ratios)
    assert failed == 0 and attempted == 2


def test_ratios_by_hand():
    logprobs, old = torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([[-1.5, -1.0, 7.0]])
    mask = torch.tensor([[True, True, False]])
    token = token_ratio(logprobs, old, mask)[0, :2].tolist()
    assert token == pytest.approx([math.exp(0.5), math.exp(-1.0)])
    # Mean difference over the response's two tokens: (0.5 - 1) / 2; what stands outside the mask does not count.
    assert sequence_ratio(logprobs, old, mask)[0].tolist() == pytest.approx([math.exp(-0.25)] * 3)


def test_sequence_ratio_of_an_empty_response_is_one():
    assert sequence_ratio(torch.ones(1, 2), torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool)).tolist() == [[1, 1]]


def test_the_product_is_that_of_the_tokens_and_the_sequence_ratio_is_its_root():
    logprobs, old = torch.tensor([[0.1, -0.2, 0.4]]), torch.zeros(1, 3)
    mask = torch.ones(1, 3, dtype=torch.bool)
    product = token_ratio(logprobs, old, mask).prod()
    assert product_ratio(logprobs, old, mask)[0].tolist() == pytest.approx([product.item()] * 3)
    assert sequence_ratio(logprobs, old, mask)[0].tolist() == pytest.approx([product.item() ** (1 / 3)] * 3)


@pytest.mark.parametrize("name", RATIOS)
def test_all_are_one_for_the_policy_that_sampled_and_agree_on_one_token(name):
    logprobs, mask = torch.tensor([[-1.0, -2.0], [-0.3, 5.0]]), torch.tensor([[True, True], [True, False]])
    assert RATIOS[name](logprobs, logprobs, mask).tolist() == [[1, 1], [1, 1]]
    found = RATIOS[name](logprobs + 0.5, logprobs, mask)
    assert found[1, 0].item() == pytest.approx(math.exp(0.5))


@pytest.mark.parametrize("name", RATIOS)
def test_wrong_shapes_are_refused(name):
    with pytest.raises(ValueError, match=r"old_logprobs must be \[B, T\] = \[2, 3\]"):
        RATIOS[name](torch.zeros(2, 3), torch.zeros(2, 1), torch.ones(2, 3, dtype=torch.bool))
