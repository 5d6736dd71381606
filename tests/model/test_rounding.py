"""Rounding by chance: one of the two neighbours, with odds that keep the mean, and the same draws for the same seed."""

import pytest
import torch

from grpo.model.rounding import seeded, stochastically_rounded

CPU = torch.device("cpu")


def rounded(numbers, seed=0):
    with seeded(CPU, seed=seed, update=0):
        return stochastically_rounded(numbers)


def test_bfloat16_numbers_stay_as_they_are():
    numbers = torch.tensor([0.0, -0.0, 1.0, -2.5, 3e38, 1e-38, float("inf"), float("-inf")]).bfloat16()
    assert torch.equal(rounded(numbers.float()), numbers)


@pytest.mark.parametrize("number", [1.001, -1.001, 0.7529, 1e-5, -3e7])
def test_a_number_becomes_one_of_its_neighbours_and_is_their_mean(number):
    draws = 40_000
    exact = torch.tensor(number)
    found = rounded(exact.expand(draws).contiguous()).double()
    low, high = found.min().item(), found.max().item()
    assert found.unique().numel() == 2 and low < exact.item() < high
    assert torch.nextafter(torch.tensor(low).bfloat16(), torch.tensor(high).bfloat16()).item() == high
    odds = (exact.item() - low) / (high - low)
    deviation = (high - low) * (odds * (1 - odds) / draws) ** 0.5
    assert found.mean().item() == pytest.approx(exact.item(), abs=4 * deviation)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_odds_are_exact_in_the_last_bit(monkeypatch, sign):
    """Three steps of float32 away from 1: of the 65,536 chances just three lead to the farther neighbour."""
    number = sign * (torch.tensor(1.0).view(torch.int32) + 3).view(torch.float32)
    monkeypatch.setattr(torch, "randint", lambda low, high, *_, **__: torch.arange(low, high, dtype=torch.int32))
    found = stochastically_rounded(number.expand(2**16).contiguous())
    assert (found == sign).sum() == 2**16 - 3 and (found == sign * (1 + 2**-7)).sum() == 3


def test_draws_are_a_function_of_seed_and_update_and_leave_the_others_alone():
    numbers = torch.full((1000,), 1.001)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    found = {}
    for seed, update in ((0, 0), (0, 1), (1, 0), (0, 0)):
        with seeded(CPU, seed=seed, update=update):
            drawn = stochastically_rounded(numbers)
        assert torch.equal(found.setdefault((seed, update), drawn), drawn)
    assert torch.equal(torch.rand(4), expected)
    assert not torch.equal(found[0, 0], found[0, 1]) and not torch.equal(found[0, 0], found[1, 0])
