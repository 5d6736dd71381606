"""Compiled layers: the same numbers, the names of the parameters, and what stands against it is said at once."""

import copy
import subprocess
import sys

import pytest
import torch
from conftest import make_policy
from small_runs import SMALL, rows
from torch import nn
from updates import gradient, uneven_groups, whole_batch

from grpo.algorithm.table import ALGORITHMS
from grpo.errors import UserError
from grpo.model.compiled import check_compile, compile_layers
from grpo.model.recompute import recompute_layers
from grpo.train import main


@pytest.fixture(autouse=True)
def settings_of_torch(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with torch._dynamo.config.patch(recompile_limit=8, fail_on_recompile_limit_hit=False):
        torch._dynamo.reset()
        yield


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_gradient_logprobs_and_names_are_those_of_the_plain_model(tied_folder, recompute):
    row, plain, policy = ALGORITHMS["grpo"], make_policy(tied_folder), make_policy(tied_folder)
    for model in (plain.model, policy.model):
        if recompute:
            recompute_layers(model)
    batch = whole_batch(plain, uneven_groups(), row)
    expected, measured = gradient(plain, batch, row, 60)
    compile_layers(policy.model)
    torch._dynamo.utils.counters.clear()
    found, same = gradient(policy, batch, row, 60)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * max(1.0, other.abs().max().item()))
    assert same["kl"] == pytest.approx(measured["kl"], rel=1e-4)
    assert (policy.logprobs(batch) - plain.logprobs(batch)).abs().max() < 1e-4
    assert list(policy.model.state_dict()) == list(plain.model.state_dict())
    reference = copy.deepcopy(policy.model)  # is not compiled, and works
    assert torch.equal(reference(batch.inputs).logits, plain.model(batch.inputs).logits)


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.parametrize("flags", [["--algo", "grpo"], ["--algo", "grpo", "--lora-rank", "4"]], ids=["whole", "lora"])
def test_a_compiled_run_learns_what_a_plain_one_does(tmp_path, flags):
    """The first step's numbers, but for rounding; the sync is proved on them as ever."""
    for name, more in (("plain", []), ("compiled", ["--compile"])):  # each vLLM in a process of its own
        command = [sys.executable, "-m", "grpo.train", *SMALL, *flags, *more, "--steps", "2", "--name", name]
        subprocess.run([*command, "--engine", "vllm"], cwd=tmp_path, check=True, capture_output=True)
    plain, compiled = rows(tmp_path / "runs" / "plain"), rows(tmp_path / "runs" / "compiled")
    for name in ("policy/loss", "policy/grad_norm", "policy/kl", "policy/entropy", "reward/mean"):
        assert compiled[1][name] == pytest.approx(plain[1][name], rel=1e-3, abs=1e-6), name
    assert compiled[2]["policy/sync_gap"] < 1e-4 and compiled[2]["policy/engine_gap"] < 1e-4


def test_what_stands_against_it_is_said_before_a_model_is_loaded(capsys, monkeypatch):
    assert main(["--engine", "hf", "--compile", "--wandb", "off", "--name", "a"]) == 2
    assert "--compile with --engine hf" in capsys.readouterr().err
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="there is no no-such-compiler here"):
        check_compile("vllm")
    with pytest.raises(UserError, match="Linear has no layers that could be compiled"):
        compile_layers(nn.Linear(2, 2))
