"""TRPO's step: the numbers of a policy that can be enumerated, Fisher's matrix written out, and what it promises."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import make_batch, make_policy
from torch import nn
from updates import uneven_groups, whole_batch

from grpo.algorithm.objective import Objective
from grpo.algorithm.table import ALGORITHMS
from grpo.errors import UserError
from grpo.model import trust_region
from grpo.model.trust_region import TrustRegionPolicy, conjugate_gradient, distributions, exact_kl, fisher_product

ROW = ALGORITHMS["trpo"]


class Softmax(nn.Module):
    """One state and three actions: the logits are the parameters."""

    def __init__(self, probabilities):
        super().__init__()
        self.head = nn.Linear(1, len(probabilities), bias=False)
        self.head.weight.data = torch.tensor(probabilities).log()[:, None]
        self.config = SimpleNamespace()

    def base_model(self, input_ids, use_cache):
        return SimpleNamespace(last_hidden_state=torch.ones(*input_ids.shape, 1))

    def get_output_embeddings(self):
        return self.head


def softmax_policy():
    return TrustRegionPolicy(Softmax([0.5, 0.25, 0.25]), temperature=1.0, micro_batch_tokens=100)


def softmax_batch():
    """The four actions in the shares of their probabilities: 0, 0, 1, 2, of which 0 is worth 1. A = r - 1/2."""
    targets = torch.tensor([[0, 0, 1, 2]]).T
    mask = torch.ones(4, 1, dtype=torch.bool)
    old = torch.tensor([0.5, 0.25, 0.25]).log()[targets]
    advantages = torch.tensor([[0.5, 0.5, -0.5, -0.5]]).T
    batch = make_batch(
        mask, old_logprobs=old, sampler_logprobs=old, advantages=advantages, token_weights=torch.full((4, 1), 0.25)
    )
    return replace(batch, inputs=torch.zeros_like(targets), targets=targets)


def test_the_step_of_three_actions_by_hand():
    """p (1/2, 1/4, 1/4): F A = g, A'FA = 1/4, so that at a KL of 0.02 the step is 0.4 A, whatever is damped."""
    policy = softmax_policy()
    found = policy.update(softmax_batch(), Objective(replace(ROW, max_kl=0.02)))
    probabilities = policy.model.head.weight[:, 0].softmax(0).tolist()
    assert probabilities == pytest.approx([0.598688, 0.200656, 0.200656], abs=2e-6)
    assert found["trust_kl"] == pytest.approx(0.019868, abs=2e-6)
    assert found["trust_gain"] == pytest.approx(0.598688 - 0.5, abs=2e-6)  # the expected reward has risen by it
    assert (found["trust_tries"], found["skipped_in_a_row"]) == (1, 0)
    assert found["grad_norm"] == pytest.approx((1 / 16 + 2 / 64) ** 0.5, abs=1e-6)


def test_the_direction_is_that_of_the_natural_gradient():
    """p (.6, .3, .1), A (1, -1, -3): g = p A = (.6, -.3, -.3), which no multiple of F^-1 g is. Solved by a solver."""
    p, advantages = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([1.0, -1.0, -3.0])
    policy = TrustRegionPolicy(Softmax(p.tolist()), temperature=1.0, micro_batch_tokens=4)
    targets = torch.tensor([0] * 6 + [1] * 3 + [2])[:, None]
    old = p.log()[targets]
    batch = make_batch(
        torch.ones(10, 1, dtype=torch.bool), old_logprobs=old, sampler_logprobs=old, advantages=advantages[targets],
        token_weights=torch.full((10, 1), 0.1),
    )  # fmt: skip
    found = policy.update(replace(batch, inputs=torch.zeros_like(targets), targets=targets), Objective(ROW))
    fisher = p.diag() - p[:, None] * p
    x = torch.linalg.solve(fisher + trust_region.DAMPING * torch.eye(3), p * advantages)
    length = (2 * ROW.max_kl / (x @ fisher @ x)).sqrt() * trust_region.SHORTER ** (found["trust_tries"] - 1)
    moved = policy.model.head.weight[:, 0] - p.log()
    torch.testing.assert_close(moved, length * x, rtol=1e-3, atol=1e-5)
    assert abs((moved[0] - moved[1]) / (moved[1] - moved[2]) - 1) < 0.1  # A's own steps, 2 and 2, but for the damping


def test_the_kl_is_measured_from_the_old_policy():
    """KL((1/2, 1/4, 1/4) || (.8, .1, .1)) = 0.223; the other way round it is 0.193."""
    policy, old = (
        TrustRegionPolicy(Softmax([0.8, 0.1, 0.1]), temperature=1.0, micro_batch_tokens=2),
        Softmax([0.5, 0.25, 0.25]),
    )
    expected = sum(p * torch.tensor(p / q).log().item() for p, q in ((0.5, 0.8), (0.25, 0.1), (0.25, 0.1)))
    assert exact_kl(policy, old, softmax_batch()) == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx(0.22314, abs=1e-5)


@pytest.mark.parametrize("size", [1, 5, 12])
def test_conjugate_gradients_solve_as_a_solver_does(size):
    generator = torch.Generator().manual_seed(size)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    matrix, target = root @ root.T + torch.eye(size), torch.randn(size, generator=generator, dtype=torch.float64)
    found = conjugate_gradient(lambda vector: matrix @ vector, target, size + 2)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, target), rtol=1e-8, atol=1e-10)
    assert not conjugate_gradient(lambda vector: matrix @ vector, torch.zeros(size, dtype=torch.float64), 3).any()


@pytest.fixture(scope="module")
def start(tied_folder):
    model = make_policy(tied_folder).model
    return TrustRegionPolicy(model, temperature=1.0, micro_batch_tokens=4096)


@pytest.fixture
def policy(start):
    return copy.deepcopy(start)


@pytest.fixture(scope="module")
def batch(start):
    row = replace(ROW, importance="none")
    made = whole_batch(start, uneven_groups(), row)
    return replace(made, old_logprobs=start.logprobs(made))


def direction(policy, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(p.numel() for p in policy.model.parameters()), generator=generator)


def test_the_product_is_that_with_fishers_matrix(policy, batch):
    """F = mean over tokens of J'(diag p - p p')J, with J the Jacobian of the logits along v, by differences in float64;
    v'Fv = mean of the variance of J v under p."""
    vector, parameters = direction(policy), list(policy.model.parameters())
    found = vector.dot(fisher_product(policy, batch, parameters, vector)).item()
    precise = copy.deepcopy(policy.model).double()
    parts, step = trust_region.like(parameters, vector.double()), 1e-6

    def logits(sign):
        moved = copy.deepcopy(precise)
        with torch.no_grad():
            for parameter, part in zip(moved.parameters(), parts, strict=True):
                parameter += sign * step * part
            states = moved.base_model(input_ids=batch.inputs, use_cache=False).last_hidden_state[batch.mask]
            return states @ moved.get_output_embeddings().weight.T

    along = (logits(1) - logits(-1)) / (2 * step)
    p = logits(0).softmax(-1)
    variance = (p * along.square()).sum(-1) - (p * along).sum(-1).square()
    assert found == pytest.approx(variance.mean().item(), rel=1e-3)


def test_it_does_not_depend_on_how_the_batch_is_cut(policy, batch):
    vector, parameters = direction(policy), list(policy.model.parameters())
    whole = fisher_product(policy, batch, parameters, vector)
    policy.micro_batch_tokens = 40
    torch.testing.assert_close(fisher_product(policy, batch, parameters, vector), whole, rtol=1e-3, atol=1e-5)


def test_the_temperature_is_the_samplers(policy, batch):
    hot = distributions(policy.model, batch, 2.0).exp()
    cold = distributions(policy.model, batch, 1.0)
    torch.testing.assert_close(hot, (cold / 2).softmax(-1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        cold.gather(-1, batch.targets[batch.mask][:, None])[:, 0], batch.old_logprobs[batch.mask], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("limit", [1e-4, 0.003, 0.1])
def test_no_step_is_longer_than_the_limit_and_each_one_gains(policy, batch, limit):
    old = copy.deepcopy(policy.model)
    found = policy.update(batch, Objective(replace(ROW, max_kl=limit, importance="none")))
    assert 0 < found["trust_kl"] <= limit and found["trust_gain"] > 0 and found["learning_rate"] > 0
    assert exact_kl(policy, old, batch) == pytest.approx(found["trust_kl"], rel=1e-3)
    assert found["trust_kl"] > 0.3 * limit  # and no shorter than it must be
    assert policy.moves == 1 and not policy.optimizer.state


def test_a_step_that_gains_nothing_leaves_every_bit(policy, batch, monkeypatch):
    monkeypatch.setattr(trust_region, "loss_of", lambda *_: float("inf"))
    before = copy.deepcopy(policy.model.state_dict())
    found = policy.update(batch, Objective(replace(ROW, importance="none")))
    assert (found["trust_kl"], found["trust_gain"], found["trust_tries"]) == (0, 0, trust_region.TRIES)
    assert all(torch.equal(value, before[name]) for name, value in policy.model.state_dict().items())
    assert policy.moves == 0


def test_uniform_groups_move_nothing_and_nan_is_skipped(policy, batch):
    before = copy.deepcopy(policy.model.state_dict())
    still = policy.update(replace(batch, advantages=0 * batch.advantages), Objective(ROW))
    assert (still["trust_tries"], still["skipped_in_a_row"]) == (0, 0)
    spoiled = policy.update(replace(batch, advantages=batch.advantages * float("nan")), Objective(ROW))
    assert (spoiled["trust_tries"], spoiled["skipped_in_a_row"]) == (0, 1)
    assert all(torch.equal(value, before[name]) for name, value in policy.model.state_dict().items())


def test_a_large_model_is_refused(monkeypatch):
    monkeypatch.setattr(trust_region, "MAX_PARAMETERS", 2)
    with pytest.raises(UserError, match=r"at most 2 parameters; this one has 3\. PPO's clip took its place"):
        trust_region.check_size(Softmax([0.5, 0.25, 0.25]))


def test_the_performance_difference_of_two_choices():
    """Two binary choices, reward 1 for (1, 1), pi 1/2, new 3/4 (arXiv 1502.05477, eq. 1): the new return is the old one
    and the advantages of the old policy along the new one's paths. The surrogate, on the old paths, is not."""
    value = {(): 0.25, (0,): 0.0, (1,): 0.5}
    advantage = {(a,): value[(a,)] - value[()] for a in (0, 1)}
    advantage |= {(a, b): float(a == b == 1) - value[(a,)] for a in (0, 1) for b in (0, 1)}

    def expected(first, second):
        """The advantages of a path, under these odds of a 1 at the first and at the second choice."""
        odds = {(a, b): (first if a else 1 - first) * (second if b else 1 - second) for a in (0, 1) for b in (0, 1)}
        return sum(p * (advantage[(a,)] + advantage[(a, b)]) for (a, b), p in odds.items())

    assert expected(0.75, 0.75) == pytest.approx(0.75**2 - 0.25) == 5 / 16
    surrogate = 0.25 + sum(
        0.5 * 0.5 * (q(a) / 0.5 * advantage[(a,)] + q(b) / 0.5 * advantage[(a, b)])
        for a in (0, 1)
        for b in (0, 1)
        for q in [lambda choice: 0.75 if choice else 0.25]
    )
    assert surrogate == pytest.approx(0.5)
