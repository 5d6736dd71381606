"""The critic: where its values stand, its update, and that it and the policy leave each other alone."""

import copy
from dataclasses import replace

import pytest
import torch
from conftest import make_policy
from updates import uneven_groups, whole_batch

from grpo.algorithm.objective import Objective
from grpo.algorithm.table import ALGORITHMS
from grpo.model.critic import update_critic, update_with_critic
from grpo.model.optimizers import OptimizerSettings
from grpo.model.scalar_model import ScalarModel, make_scalar_model

ROW = ALGORITHMS["ppo"]


@pytest.fixture
def critic(tied_folder):
    model = make_scalar_model(str(tied_folder), pad_id=0)
    return ScalarModel(model, OptimizerSettings(learning_rate=1e-3, max_grad_norm=1e9), micro_batch_tokens=4096)


@pytest.fixture(scope="module")
def batch(tied_folder):
    made = whole_batch(make_policy(tied_folder), uneven_groups(), ROW)
    generator = torch.Generator().manual_seed(0)
    values, returns = (torch.randn(made.mask.shape, generator=generator) * made.mask for _ in range(2))
    return replace(made, old_values=values, returns=returns)


def test_a_value_sees_what_is_written_before_its_token_and_nothing_after(critic, batch):
    row = int(batch.mask.sum(1).argmax())
    t = int(batch.mask[row].nonzero()[2])
    plain = critic.values(batch)[row]
    for position, changes in ((t, True), (t + 1, False)):
        inputs = batch.inputs.clone()
        inputs[row, position] += 1
        found = critic.values(replace(batch, inputs=inputs))[row]
        assert (found[t] != plain[t]) == changes
        torch.testing.assert_close(found[:t], plain[:t], rtol=0, atol=1e-6)
    assert not critic.values(batch)[~batch.mask].any()


def gradient(critic, batch, clip, micro_batch_tokens):
    critic, seen = copy.deepcopy(critic), []
    critic.micro_batch_tokens = micro_batch_tokens
    critic.optimizer.register_step_pre_hook(lambda *_: seen.extend(p.grad.clone() for p in critic.model.parameters()))
    return update_critic(critic, batch, clip), seen


@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_the_gradient_is_that_of_the_mean_over_tokens_however_it_is_cut(critic, batch, clip):
    """Written out: no objective, no micro-batches."""
    found, seen = gradient(critic, batch, clip, 4096)
    critic.model.zero_grad()
    (values,) = critic.outputs(batch)
    losses = []
    for b, t in batch.mask.nonzero().tolist():
        v, old, target = values[b, t], batch.old_values[b, t].item(), batch.returns[b, t].item()
        plain = (v - target) ** 2
        held = (min(max(v.item(), old - clip), old + clip) - target) ** 2
        moved = clip and abs(v.item() - old) > clip
        losses.append(plain / 2 if not moved or plain.item() >= held else torch.tensor(held / 2))
    loss = sum(losses) / len(losses)
    loss.backward()
    assert found["critic/loss"] == pytest.approx(loss.item(), rel=1e-5)
    for one, other in zip(critic.model.parameters(), seen, strict=True):
        torch.testing.assert_close(other, one.grad, rtol=1e-4, atol=1e-6)
    again, cut = gradient(critic, batch, clip, 20)
    assert again["critic/loss"] == pytest.approx(loss.item(), rel=1e-5)
    for one, other in zip(seen, cut, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)


def test_it_learns_to_foretell(critic, batch):
    critic.settings = replace(critic.settings, max_grad_norm=1.0)
    batch = replace(batch, returns=(batch.inputs % 5 - 2.0) * batch.mask)
    for _ in range(60):
        found = update_critic(critic, batch, clip=0.0)
    now = critic.values(batch)
    assert (now - batch.returns)[batch.mask].square().mean() < 0.1 * batch.returns[batch.mask].square().mean()
    assert found["critic/explained_variance"] < 0.5  # of the values before the step, which are random here


def test_in_the_warm_up_the_critic_moves_and_the_policy_is_measured(tied_folder, critic, batch):
    policy, objective = make_policy(tied_folder, learning_rate=1e-3), Objective(ROW)
    before, values = copy.deepcopy(policy.model.state_dict()), copy.deepcopy(critic.model.state_dict())
    warm = update_with_critic(policy, critic, batch, objective, clip=0.2, warming=True)
    assert all(torch.equal(value, before[name]) for name, value in policy.model.state_dict().items())
    assert not all(torch.equal(value, values[name]) for name, value in critic.model.state_dict().items())
    assert not policy.optimizer.state and warm["learning_rate"] == 0 < warm["critic/learning_rate"]
    cold = update_with_critic(policy, critic, batch, objective, clip=0.2, warming=False)
    assert not all(torch.equal(value, before[name]) for name, value in policy.model.state_dict().items())
    shared = [name for name in warm if "/" not in name and name != "learning_rate"]
    assert {name: cold[name] for name in shared} == pytest.approx({name: warm[name] for name in shared}, rel=1e-6)
    alone = update_with_critic(policy, None, batch, objective, clip=0.2, warming=False)
    assert not any(name.startswith("critic/") for name in alone)
