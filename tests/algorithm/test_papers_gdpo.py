"""A user's own advantage, from a paper: GDPO, as `--advantage ./gdpo.py:gdpo`."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from paper_steps import make_rewards

from grpo.algorithm.advantages import AdvantageInputs, group_normalized
from grpo.algorithm.ingredients import load_advantage

GDPO = '''
"""GDPO (arXiv 2601.05242): every reward is normalized within its group before they are added."""

import torch

from grpo.algorithm.advantages import EPSILON, group_normalized


def gdpo(rewards, by_verifier):
    """by_verifier: name -> [P, G], NaN where a verifier does not apply. The rewards' weighted total is not read."""
    parts = [group_normalized(part.nan_to_num(0.0)) for part in by_verifier.values()]
    total = torch.stack(parts).sum(dim=0)
    return total / (total.std() + EPSILON) if len(parts) > 1 else total  # one verifier: this is GRPO's
'''


@pytest.fixture
def gdpo(tmp_path, monkeypatch):
    (tmp_path / "gdpo.py").write_text(GDPO)
    monkeypatch.chdir(tmp_path)
    return load_advantage("./gdpo.py:gdpo")


def of_verifiers(function, **parts):
    rewards = make_rewards(**parts)
    return function(replace(AdvantageInputs.of_rewards(rewards.total), by_verifier=rewards.by_verifier))


def test_gdpo_by_hand(gdpo):
    """Eq. 4 to 6: A_n = (r_n - mean_G) / std_G of each reward, their sum over n, then (A - mean) / std of the batch.

    G = 2: where the two differ, A_n is +-a with a = 0.5 / (sqrt(1/2) + 1e-4). First, sums a -a | a -a, whose deviation
    is sqrt(4 a^2 / 3). Then two verifiers that contradict each other, and two that agree: 0 0 | -2a 2a, where the sum
    of rewards would be 1 1 | 0 2."""
    a = 0.5 / (math.sqrt(0.5) + 1e-4)
    found = of_verifiers(gdpo, answer=[[1, 0], [1, 1]], form=[[1, 1], [1, 0]])
    torch.testing.assert_close(found, torch.tensor([[a, -a], [a, -a]]) / (math.sqrt(4 * a * a / 3) + 1e-4))
    found = of_verifiers(gdpo, answer=[[1, 0], [0, 1]], form=[[0, 1], [0, 1]])
    torch.testing.assert_close(found, torch.tensor([[0, 0], [-2 * a, 2 * a]]) / (math.sqrt(8 * a * a / 3) + 1e-4))


def test_gdpo_of_one_verifier_is_grpo(gdpo):
    """The authors' code: "only apply gdpo when having more than one reward"."""
    rewards = [[1.0, 0.0, 0.5], [0.0, 0.0, 1.0]]
    torch.testing.assert_close(of_verifiers(gdpo, judge=rewards), group_normalized(torch.tensor(rewards)))


def test_in_gdpo_verifiers_of_any_scale_count_alike(gdpo):
    """GDPO "decouples the group-wise normalization of each individual reward": a verifier of 0 and 1,000
    counts as one of 0 and 1. Every verdict of two such verifiers on 2 x 2 responses, where they do not just cancel."""
    for verdicts in product([0.0, 1.0], repeat=8):
        judge, other = torch.tensor(verdicts).view(2, 2, 2).tolist()
        plain = of_verifiers(gdpo, judge=judge, other=other)
        large = of_verifiers(gdpo, judge=judge, other=[[1000 * r for r in row] for row in other])
        if plain.abs().max() > 0.1:
            torch.testing.assert_close(large, plain, rtol=1e-3, atol=1e-3)
