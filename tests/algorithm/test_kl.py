"""KL estimators by hand, and by their exact expected gradients on one token; test_kl_of_sequences.py has responses."""

import doctest
import math

import pytest
import torch

from grpo.algorithm import kl
from grpo.algorithm.kl import KL_ESTIMATORS, k3, response_kl


def test_worked_examples():
    failed, attempted = doctest.testmod(kl)
    assert failed == 0 and attempted > 0


def test_kl_estimators_by_hand():
    logprobs, reference = torch.tensor([-1.0, -2.0]).double(), torch.tensor([-1.5, -1.0]).double()  # d = 0.5, -1
    ratio = torch.tensor([2.0, 0.5]).double()
    values = {name: estimator(logprobs, reference, ratio).tolist() for name, estimator in KL_ESTIMATORS.items()}
    third = [math.exp(-0.5) - 1 + 0.5, math.exp(1.0) - 1 - 1.0]
    assert values["k1"] == [0.5, -1.0]
    assert values["k2"] == [0.125, 0.5]
    assert values["k3"] == pytest.approx(third)
    assert values["k3_ratio"] == pytest.approx([2 * third[0], third[1] / 2])


def test_k3_keeps_small_differences_and_stays_finite():
    d = torch.tensor([1e-6], dtype=torch.float32)
    assert k3(d, torch.zeros(1)).item() == pytest.approx(5e-13, rel=0.1)  # d^2/2; naive float32 gives 0 or 6e-8
    assert torch.isfinite(k3(torch.tensor([1e4, -1e4]), torch.zeros(2))).all()


@pytest.fixture
def small():
    """Logits of a policy over four tokens, and another's log-probabilities."""
    logits = torch.tensor([0.2, -0.4, 1.1, 0.0], dtype=torch.float64, requires_grad=True)
    return logits, torch.tensor([0.9, 0.1, -0.3, 0.4], dtype=torch.float64).log_softmax(0)


def reverse(logits, reference):
    logprobs = logits.log_softmax(0)
    return torch.autograd.grad((logprobs.exp() * (logprobs - reference)).sum(), logits)[0]


def forward(logits, reference):
    return torch.autograd.grad((reference.exp() * (reference - logits.log_softmax(0))).sum(), logits)[0]


EXACT = {"k1": lambda logits, _: torch.zeros_like(logits), "k2": reverse, "k3": forward, "k3_ratio": reverse}


@pytest.mark.parametrize("name", KL_ESTIMATORS)
def test_expected_gradient_of_a_single_token(name, small):
    """Every token of a small vocabulary enumerated, with its probability under the policy that samples."""
    logits, reference = small
    logprobs = logits.log_softmax(0)
    old = logprobs.detach()
    token_terms = KL_ESTIMATORS[name](logprobs, reference, torch.exp(logprobs - old))
    (found,) = torch.autograd.grad((old.exp() * token_terms).sum(), logits)
    exact = EXACT[name](logits, reference)
    torch.testing.assert_close(found, exact, atol=1e-12, rtol=0)
    assert name == "k1" or exact.abs().max() > 0.05
    assert (reverse(logits, reference) - forward(logits, reference)).abs().max() > 0.05  # the two are told apart


def test_expected_gradient_of_kl_in_the_reward_of_a_single_token(small):
    """-A l with A = -k1, enumerated: the gradient of the reverse KL."""
    logits, reference = small
    logprobs = logits.log_softmax(0)
    old = logprobs.detach()
    penalty = response_kl(old[:, None], reference[:, None], torch.ones(4, 1, dtype=torch.bool))
    (found,) = torch.autograd.grad((old.exp() * penalty * logprobs).sum(), logits)
    torch.testing.assert_close(found, reverse(logits, reference), atol=1e-12, rtol=0)


def test_response_kl_sums_over_the_response_alone():
    logprobs, reference = torch.tensor([[-1.0, -2.0, -9.0]]), torch.tensor([[-1.5, -1.0, 0.0]])
    mask = torch.tensor([[True, True, False]])
    assert response_kl(logprobs, reference, mask).tolist() == [-0.5]
