"""Aggregation weights against hand-computed numbers."""

import doctest

import pytest
import torch

from grpo.algorithm import aggregations
from grpo.algorithm.aggregations import AGGREGATIONS, constant_length, sequence_mean, token_mean

# Two responses in a batch padded to four: three tokens and one.
MASK = torch.tensor([[False, True, True, True], [True, False, False, False]])


def test_sequence_mean_by_hand():
    # 1 / (B |o|): 1/6 three times, 1/2 once.
    expected = torch.tensor([[0, 1 / 6, 1 / 6, 1 / 6], [1 / 2, 0, 0, 0]])
    torch.testing.assert_close(sequence_mean(MASK, 0), expected)


def test_token_mean_by_hand():
    expected = torch.tensor([[0, 1 / 4, 1 / 4, 1 / 4], [1 / 4, 0, 0, 0]])
    torch.testing.assert_close(token_mean(MASK, 0), expected)


def test_constant_by_hand():
    # 1 / (B C) with C = 10, the budget: neither the longest response (3) nor the width (4).
    expected = torch.tensor([[0, 1 / 20, 1 / 20, 1 / 20], [1 / 20, 0, 0, 0]])
    torch.testing.assert_close(constant_length(MASK, 10), expected)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_weights_ignore_padding(name):
    wide = torch.nn.functional.pad(MASK, (0, 5))
    weights = AGGREGATIONS[name](wide, 10)
    torch.testing.assert_close(weights[:, :4], AGGREGATIONS[name](MASK, 10))
    assert not weights[:, 4:].any()


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_a_fully_masked_sequence_weighs_nothing_and_stays_in_b(name):
    mask = torch.cat([MASK, torch.zeros(2, 4, dtype=torch.bool)])
    weights = AGGREGATIONS[name](mask, 10)
    assert torch.isfinite(weights).all() and not weights[2:].any()
    if name != "token_mean":  # B is 4 and not 2, so the others count half; token mean knows no B
        torch.testing.assert_close(weights[:2], AGGREGATIONS[name](MASK, 10) / 2)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_all_masked_is_zero_not_nan(name):
    assert not AGGREGATIONS[name](torch.zeros(2, 3, dtype=torch.bool), 10).any()


def test_worked_examples():
    failed, attempted = doctest.testmod(aggregations, extraglobs={"torch": torch})
    assert failed == 0 and attempted == len(AGGREGATIONS)
