"""AdamW tensor by tensor is torch's AdamW: the same weights, to the last bit, from another loop."""

import copy

import pytest
import torch
from conftest import make_policy
from torch import nn

from grpo.model.adamw import AdamWByTensor, on_host

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
    expected, found = torch.optim.AdamW(one.parameters(), **SETTINGS), AdamWByTensor(two.parameters(), **SETTINGS)
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
    optimizer = AdamWByTensor(module.parameters(), **SETTINGS)
    optimizer.step()
    assert torch.equal(module[0].weight, before) and module[0].weight not in optimizer.state
    assert len(optimizer.state) == 3


@pytest.mark.parametrize("source", [torch.optim.AdamW, AdamWByTensor])
def test_a_state_is_taken_over_from_its_own_and_from_torchs(tmp_path, source):
    one, two = modules()
    first = source(one.parameters(), **SETTINGS)
    give_gradients(one, 1)
    first.step()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    two.load_state_dict(one.state_dict())
    second = AdamWByTensor(two.parameters(), **SETTINGS)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for module, optimizer in ((one, first), (two, second)):
        give_gradients(module, 2)
        optimizer.step()
    assert same(one, two)


def test_what_is_taken_over_is_a_copy_on_the_host():
    tensor = torch.arange(6.0).view(2, 3)
    copied = on_host(tensor, pinned=False)
    assert torch.equal(copied, tensor) and copied.data_ptr() != tensor.data_ptr() and copied.device.type == "cpu"


def test_an_update_through_the_learner_is_clipped(tied_folder):
    """What torchao's offloading optimizer does not do."""
    one = make_policy(tied_folder, learning_rate=1e-2, name="adamw_offload")
    two = make_policy(tied_folder, learning_rate=1e-2)
    for policy in (one, two):
        give_gradients(policy.model, 3)
        nn.utils.clip_grad_norm_(policy.model.parameters(), 1e-9)  # far below Adam's epsilon: hardly a move is left
        policy.optimizer.step()
    assert same(one.model, two.model)
