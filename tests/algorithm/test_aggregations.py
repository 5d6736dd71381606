"""Aggregation weights against hand-computed numbers."""

import doctest

import pytest
import torch

from grpo.algorithm import aggregations
from grpo.algorithm.aggregations import AGGREGATIONS, constant_length, prompt_mean, sequence_mean, token_mean
from grpo.algorithm.ingredients import load_aggregation

# Two responses in a batch padded to four: three tokens and one.
MASK = torch.tensor([[False, True, True, True], [True, False, False, False]])


def weights_of(name, mask):
    """C = 10; each response is to a problem of its own."""
    return load_aggregation(name, 10.0)(mask, torch.arange(len(mask)))


def test_sequence_mean_by_hand():
    # 1 / (B |o|): 1/6 three times, 1/2 once.
    expected = torch.tensor([[0, 1 / 6, 1 / 6, 1 / 6], [1 / 2, 0, 0, 0]])
    torch.testing.assert_close(sequence_mean(MASK, 0), expected)


def test_token_mean_by_hand():
    expected = torch.tensor([[0, 1 / 4, 1 / 4, 1 / 4], [1 / 4, 0, 0, 0]])
    torch.testing.assert_close(token_mean(MASK, 0), expected)


def test_prompt_mean_by_hand():
    # Two problems that weigh 1/2 each: the first has 3 + 1 tokens, the second 2; the third none, and does not count.
    mask = torch.cat([MASK, MASK[:1] & torch.tensor([True, True, True, False]), torch.zeros(1, 4, dtype=torch.bool)])
    expected = torch.tensor([[0, 1 / 8, 1 / 8, 1 / 8], [1 / 8, 0, 0, 0], [0, 1 / 4, 1 / 4, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(prompt_mean(mask, torch.tensor([7, 7, 2, 3])), expected)
    with pytest.raises(ValueError, match=r"groups must be \[B\] = \[4\]"):
        prompt_mean(mask, torch.tensor([0, 1]))


def test_constant_by_hand():
    # 1 / (B C) with C = 10, the budget: neither the longest response (3) nor the width (4).
    expected = torch.tensor([[0, 1 / 20, 1 / 20, 1 / 20], [1 / 20, 0, 0, 0]])
    torch.testing.assert_close(constant_length(MASK, 10), expected)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_weights_ignore_padding(name):
    wide = torch.nn.functional.pad(MASK, (0, 5))
    weights = weights_of(name, wide)
    torch.testing.assert_close(weights[:, :4], weights_of(name, MASK))
    assert not weights[:, 4:].any()


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_a_fully_masked_sequence_weighs_nothing_and_stays_in_b(name):
    mask = torch.cat([MASK, torch.zeros(2, 4, dtype=torch.bool)])
    weights = weights_of(name, mask)
    assert torch.isfinite(weights).all() and not weights[2:].any()
    if name not in ("token_mean", "prompt_mean"):  # B is 4 and not 2, so the others count half; these know no B
        torch.testing.assert_close(weights[:2], weights_of(name, MASK) / 2)
    else:
        torch.testing.assert_close(weights[:2], weights_of(name, MASK))


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_all_masked_is_zero_not_nan(name):
    assert not weights_of(name, torch.zeros(2, 3, dtype=torch.bool)).any()


def test_worked_examples():
    failed, attempted = doctest.testmod(aggregations, extraglobs={"torch": torch})
    assert failed == 0 and attempted == len(AGGREGATIONS)
