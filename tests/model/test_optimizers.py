"""Each `--optimizer` is made, refused where it cannot run, measured in bytes, and restored bit for bit."""

import math
from importlib.util import find_spec

import pytest
import torch
from conftest import make_policy
from torch import nn
from updates import uneven_groups, whole_batch

from grpo.algorithm.kl_weight import KLCoefficient, OldKLCoefficient
from grpo.algorithm.objective import Objective
from grpo.algorithm.table import ALGORITHMS
from grpo.errors import RunError, UserError
from grpo.model import checkpoint
from grpo.model.adamw import AdamWByTensor
from grpo.model.checkpoint import Trained, restore, save_checkpoint
from grpo.model.optimizers import make_optimizer, state_bytes
from grpo.model.pretrained import PRECISIONS
from grpo.model.settings import OPTIMIZERS, OptimizerSettings, check_optimizer
from grpo.problems.lengths import EarlierLengths

TORCHAO = pytest.mark.skipif(
    find_spec("torchao") is None, reason="torchao is not installed: python -m pip install torchao==0.18.0"
)
NAMES = [pytest.param(name, marks=[TORCHAO] if name == "adamw_8bit" else []) for name in OPTIMIZERS]


@pytest.fixture
def update():
    """A function that makes the updates of a policy, by number: each on a batch of its own."""
    row = ALGORITHMS["dr_grpo"]

    def make(policy, numbers):
        found = []
        for number in numbers:
            advantages = torch.randn(3, 4, generator=torch.Generator().manual_seed(number))
            found.append(policy.update(whole_batch(policy, uneven_groups(), row, advantages), Objective(row)))
        return found

    return make


def trained(policy):
    return Trained(policy, KLCoefficient(0.0), OldKLCoefficient(0.0), EarlierLengths([], waiting=False))


def test_the_default_is_torchs_adamw_and_its_plain_loop_on_a_cpu(tied_policy):
    optimizer = make_optimizer(tied_policy.model, OptimizerSettings(learning_rate=3e-4, weight_decay=0.1))
    assert type(optimizer) is torch.optim.AdamW and type(tied_policy.optimizer) is torch.optim.AdamW
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"], group["fused"]) == (3e-4, (0.9, 0.95), 0.1, False)
    assert type(make_optimizer(tied_policy.model, OptimizerSettings("adamw_offload"))) is AdamWByTensor


def test_what_is_not_installed_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"torchao's, which is not installed.*pip install torchao==.*--optimizer adamw"):
        check_optimizer("adamw_8bit", "cuda")
    check_optimizer("adamw", "cpu")


def test_offloading_from_a_cpu_is_refused():
    with pytest.raises(
        UserError, match=r"--optimizer adamw_offload .* this run computes on the CPU.*--optimizer adamw"
    ):
        check_optimizer("adamw_offload", "cpu")
    check_optimizer("adamw_offload", "cuda")


@pytest.mark.parametrize("dtype", PRECISIONS.values(), ids=PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_restored_policy_goes_on_bit_for_bit(tmp_path, tied_folder, tokenizer, update, name, dtype):
    settings = dict(name=name, dtype=dtype, learning_rate=1e-3, warmup_updates=3)
    policy = make_policy(tied_folder, **settings)
    update(policy, [1, 2])
    save_checkpoint(tmp_path / "checkpoint-2", 2, trained(policy), tokenizer)
    expected = update(policy, [3, 4])
    resumed = make_policy(tmp_path / "checkpoint-2", **settings)
    restore(tmp_path / "checkpoint-2", trained(resumed))
    assert update(resumed, [3, 4]) == expected
    weights, found = policy.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(weights[key], found[key]) and found[key].dtype == dtype for key in weights)


@pytest.mark.parametrize("name", NAMES)
def test_the_schedule_reaches_it(tied_folder, update, name):
    policy = make_policy(tied_folder, name=name, learning_rate=4e-3, warmup_updates=3)
    before = {key: tensor.clone() for key, tensor in policy.model.state_dict().items()}
    found = update(policy, [1])
    moved = max((tensor - before[key]).abs().max().item() for key, tensor in policy.model.state_dict().items())
    assert moved == pytest.approx(1e-3, rel=1e-2)  # Adam's first step is the learning rate, against the gradient
    rates = [measured["learning_rate"] for measured in found + update(policy, [2, 3, 4, 5])]
    assert rates == pytest.approx([1e-3, 2e-3, 3e-3, 4e-3, 4e-3]) and all(type(rate) is float for rate in rates)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_weights_are_never_rounded_to_the_nearest(name):
    """A learning rate far below their spacing: to the nearest, none would move; by chance, some do and most do not."""
    model = nn.Linear(128, 64, bias=False)
    nn.init.constant_(model.weight, 1.5)
    model.to(torch.bfloat16)
    optimizer = make_optimizer(model, OptimizerSettings(name, learning_rate=1e-4))
    model.weight.grad = torch.ones_like(model.weight)
    optimizer.step()
    assert 0.003 < (model.weight != 1.5).float().mean() < 0.03  # 1e-4 of a spacing of 0.0078
    assert model.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("name", NAMES)
def test_a_skipped_update_leaves_it_as_it_was(tied_folder, update, name):
    row = ALGORITHMS["dr_grpo"]
    one, two = (make_policy(tied_folder, name=name, learning_rate=1e-3) for _ in range(2))
    for policy in (one, two):
        update(policy, [1])
    broken = whole_batch(one, uneven_groups(), row, torch.full((3, 4), math.nan))
    assert one.update(broken, Objective(row))["skipped_in_a_row"] == 1
    assert update(one, [2]) == update(two, [2])


@pytest.mark.parametrize("dtype", PRECISIONS.values(), ids=PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_its_bytes_are_counted_as_they_are_written(tmp_path, tied_folder, tokenizer, update, monkeypatch, name, dtype):
    """A full disk is told before a checkpoint is begun."""
    policy = make_policy(tied_folder, name=name, dtype=dtype)
    update(policy, [1])
    size = state_bytes(policy.optimizer)
    parameters = sum(parameter.numel() for parameter in policy.model.parameters())
    assert size < 5 * parameters if name == "adamw_8bit" else size == pytest.approx(8 * parameters, rel=0.01)
    save_checkpoint(tmp_path / "checkpoint-1", 1, trained(policy), tokenizer)
    written = (tmp_path / "checkpoint-1" / checkpoint.STATE).stat().st_size
    assert size <= written <= size + 50_000  # names, shapes, and the alignment of each tensor
    weights = sum(tensor.nbytes for tensor in policy.model.state_dict().values())
    usage = type("Usage", (), {"free": weights + size - 1})
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(RunError, match="MiB are free"):
        save_checkpoint(tmp_path / "checkpoint-2", 1, trained(policy), tokenizer)
    usage.free += 1
    save_checkpoint(tmp_path / "checkpoint-2", 1, trained(policy), tokenizer)
