"""AdamW tensor by tensor is torch's AdamW: the same weights, to the last bit, from another loop."""

import copy

import pytest
import torch
from conftest import make_policy
from torch import nn

from grpo.model.adamw import AdamWByTensor

SETTINGS = dict(lr=1e-2, betas=(0.8, 0.95), weight_decay=0.1)


def modules(count=2):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))
    return [module, *(copy.deepcopy(module) for _ in range(count - 1))]


def give_gradients(module, seed, *, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_it_is_torchs_adamw_bit_for_bit():
    one, two = modules()
    expected, found = (
        torch.optim.AdamW(one.parameters(), **SETTINGS),
        AdamWByTensor(two.parameters(), **SETTINGS, on_host=True),
    )
    for update in range(5):
        for module, optimizer in ((one, expected), (two, found)):
            give_gradients(module, update, scale=10.0**-update)
            optimizer.param_groups[0]["lr"] = 1e-2 * (update + 1)
            optimizer.step()
        assert same(one, two)
    for a, b in zip(expected.state.values(), found.state.values(), strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_parameter_without_a_gradient_stays():
    (module,) = modules(1)
    give_gradients(module, 0)
    module[0].weight.grad = None
    before = module[0].weight.clone()
    optimizer = AdamWByTensor(module.parameters(), **SETTINGS, on_host=True)
    optimizer.step()
    assert torch.equal(module[0].weight, before) and module[0].weight not in optimizer.state
    assert len(optimizer.state) == 3


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("torchs", [True, False])
def test_a_state_is_taken_over_from_its_own_and_from_torchs(tmp_path, torchs, on_host):
    one, two = modules()
    own = AdamWByTensor(one.parameters(), **SETTINGS, on_host=on_host)
    first = torch.optim.AdamW(one.parameters(), **SETTINGS) if torchs else own
    give_gradients(one, 1)
    first.step()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    two.load_state_dict(one.state_dict())
    second = AdamWByTensor(two.parameters(), **SETTINGS, on_host=True)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for module, optimizer in ((one, first), (two, second)):
        give_gradients(module, 2)
        optimizer.step()
    assert same(one, two)


def bfloat16_weights(optimizer_class=AdamWByTensor, *, size=4096, updates=1, start=1.0, **settings):
    """bfloat16 weights near 1 after updates of 1e-6 each, against a gradient of 1."""
    weights = nn.Parameter(torch.full((size,), start, dtype=torch.bfloat16))
    optimizer = optimizer_class([weights], lr=1e-6, betas=(0.9, 0.95), weight_decay=0.0, **settings)
    for _ in range(updates):
        weights.grad = torch.ones_like(weights)
        optimizer.step()
    return weights.detach(), optimizer


def test_bfloat16_keeps_tiny_updates_on_average_where_rounding_to_the_nearest_loses_them():
    """100 updates of 1e-6 at 0.99: each of 16,384 weights moves by 0.0039 with odds of 1e-4 / 0.0039."""
    size, updates = 16384, 100
    start = torch.tensor(0.99).bfloat16().item()
    nearest, _ = bfloat16_weights(torch.optim.AdamW, size=size, updates=updates, start=start)
    assert (nearest == start).all()
    found, _ = bfloat16_weights(on_host=False, size=size, updates=updates, start=start)
    spacing, wanted = 2.0**-8, updates * 1e-6
    deviation = (wanted * spacing / size) ** 0.5  # of the mean of as many draws
    assert deviation < wanted / 10
    assert (start - found.double()).mean().item() == pytest.approx(wanted, abs=4 * deviation)
    assert found.dtype == torch.bfloat16


def test_moments_of_bfloat16_weights_are_float32_and_those_of_float32_weights():
    weights, optimizer = bfloat16_weights(on_host=False, updates=3)
    ((_, slot),) = optimizer.state.items()
    exact = nn.Parameter(torch.ones(4096))
    reference = torch.optim.AdamW([exact], lr=1e-6, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(3):
        exact.grad = torch.ones_like(exact)
        reference.step()
    ((_, expected),) = reference.state.items()
    assert all(torch.equal(slot[name], expected[name]) and slot[name].dtype == torch.float32 for name in slot)
    state = optimizer.state_dict()
    again = AdamWByTensor([nn.Parameter(weights)], lr=1e-6, betas=(0.9, 0.95), weight_decay=0.0, on_host=False)
    again.load_state_dict(state)
    ((_, loaded),) = again.state.items()
    assert all(torch.equal(loaded[name], slot[name]) and loaded[name].dtype == torch.float32 for name in slot)


def test_the_rounding_is_of_the_seed_and_the_update_and_leaves_other_draws_alone():
    settings = dict(on_host=False, updates=40, size=20000)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, _ = bfloat16_weights(**settings)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(6)
    two, _ = bfloat16_weights(**settings)
    other, _ = bfloat16_weights(**settings, seed=1)
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_an_update_through_the_learner_is_clipped(tied_folder):
    """What torchao's offloading optimizer does not do."""
    one = make_policy(tied_folder, learning_rate=1e-2, name="adamw_offload")
    two = make_policy(tied_folder, learning_rate=1e-2)
    for policy in (one, two):
        give_gradients(policy.model, 3)
        nn.utils.clip_grad_norm_(policy.model.parameters(), 1e-9)  # far below Adam's epsilon: hardly a move is left
        policy.optimizer.step()
    assert same(one.model, two.model)
