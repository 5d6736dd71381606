"""Memory that runs out in a pass: it is made again with half, and nothing of the pass that failed is counted.

The fault is injected: torch's own error, above a number of positions, in the forward pass or half-way through the
backward pass. The last test has a real one.
"""

import copy
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from conftest import ROOT, make_policy
from updates import uneven_groups, whole_batch

from grpo.algorithm.objective import Objective
from grpo.algorithm.table import ALGORITHMS
from grpo.model.recompute import recompute_layers
from grpo.out_of_memory import OutOfMemory

ROW = ALGORITHMS["grpo"]
TORCHS = "CUDA out of memory. Tried to allocate 2.00 GiB. Including non-PyTorch memory, this process has 9 GiB in use."


def too_large():
    raise torch.OutOfMemoryError(TORCHS)


@contextmanager
def fault_in_the_forward_pass(policy, above):
    """Memory runs out in the last layer, where a micro-batch has more positions than `above`."""

    def look(module, inputs):
        if inputs[0].shape[:2].numel() > above:
            too_large()

    handle = policy.model.model.layers[-1].register_forward_pre_hook(look)
    yield
    handle.remove()


@contextmanager
def fault_in_the_backward_pass(policy, above):
    """The same between the two layers: the second one's gradient has been added by then, the first one's has not."""
    second = next(policy.model.model.layers[1].parameters())

    def gradient_of_the_stream(gradient):
        if gradient.shape[:2].numel() > above:
            assert second.grad is not None and second.grad.any()
            too_large()

    def look(module, inputs, output):
        if output.requires_grad:
            output.register_hook(gradient_of_the_stream)

    handle = policy.model.model.layers[0].register_forward_hook(look)
    yield
    handle.remove()


FAULTS = (fault_in_the_forward_pass, fault_in_the_backward_pass)


@pytest.fixture
def made(tied_folder):
    """(policy, a batch of 12 responses of 3 to 20 positions, what was said)"""
    policy = make_policy(tied_folder, learning_rate=1e-3)
    batch = whole_batch(policy, uneven_groups(), ROW)
    said = []
    policy.say = said.append
    return policy, batch, said


def gradients(policy):
    return [parameter.grad.clone() for parameter in policy.model.parameters()]


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("recompute", [False, True], ids=["whole", "recomputed"])
@pytest.mark.parametrize("tokens,above", [(100, 40), (100, 70), (40, 35), (50, 45)])
@pytest.mark.parametrize("fault", FAULTS)
def test_gradient_and_metrics_are_bit_for_bit_those_of_the_smaller_micro_batch(made, fault, tokens, above, recompute):
    """At 40 and 50 tokens it is the second micro-batch that fails: the first one's gradient has been added by then."""
    policy, batch, said = made
    if recompute:
        recompute_layers(policy.model)
    policy.micro_batch_tokens = tokens
    with fault(policy, above):
        measured = policy.backward(batch, Objective(ROW))
    found, halved = gradients(policy), policy.micro_batch_tokens
    assert len(said) >= 1 and halved <= above
    policy.model.zero_grad(set_to_none=True)
    again = policy.backward(batch, Objective(ROW))  # no fault, and the smaller micro-batch has stayed
    assert policy.micro_batch_tokens == halved and len(said) == len(set(said))
    assert same(found, gradients(policy)) and measured == again


def test_each_halving_is_said_in_one_line(made):
    policy, batch, said = made
    with fault_in_the_backward_pass(policy, above=30):
        policy.backward(batch, Objective(ROW))
    positions = [len(batch) * int(batch.lengths.max())]
    assert f"in a backward pass over 12 responses, {positions[0]} positions: it is made again" in said[0]
    limits = [int(line.partition("at most ")[2].split()[0]) for line in said]
    assert limits[0] == positions[0] // 2 and limits[-1] == policy.micro_batch_tokens
    assert all("\n" not in line for line in said) and limits == sorted(set(limits), reverse=True)


def test_an_update_after_a_halving_moves_the_weights_as_one_without(made, tied_folder):
    policy, batch, said = made
    with fault_in_the_backward_pass(policy, above=60):
        measured = policy.update(batch, Objective(ROW))
    other = make_policy(tied_folder, learning_rate=1e-3, micro_batch_tokens=policy.micro_batch_tokens)
    assert said and other.update(batch, Objective(ROW)) == measured
    assert same(policy.model.parameters(), other.model.parameters()) and policy.moves == 1


def test_log_probabilities_of_policy_and_reference(made):
    policy, batch, said = made
    whole, reference = policy.logprobs(batch), policy.frozen_copy()
    reference.say = said.append
    for of, name in ((policy, "a pass for log-probabilities"), (reference, "a pass of the reference")):
        said.clear()
        with fault_in_the_forward_pass(of, above=60):
            found = of.logprobs(batch)
        assert f"ran out in {name} over" in said[0]
        torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)
        assert torch.equal(found, of.logprobs(batch))  # at the smaller micro-batch, which has stayed


@pytest.mark.parametrize("fault", FAULTS)
def test_one_response_that_is_too_long_ends_in_a_paragraph_that_names_the_flags(made, fault):
    policy, batch, said = made
    longest = int(batch.lengths.max())
    with fault(policy, above=longest - 1), pytest.raises(OutOfMemory) as caught:
        policy.backward(batch, Objective(ROW))
    text = str(caught.value)
    assert f"in a backward pass over one response of {longest} positions" in text
    assert "(CUDA out of memory. Tried to allocate 2.00 GiB)" in text and "\n" not in text
    for flag in ("max-response-tokens", "gradient-checkpointing", "optimizer", "memory-fraction", "lora-rank", "plan"):
        assert f"--{flag}" in text
    assert said and all(parameter.grad is None for parameter in policy.model.parameters())


def test_another_error_is_raised_as_it_is(made):
    policy, batch, said = made

    def broken(*_):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        policy.backward(batch, broken)
    assert not said and policy.micro_batch_tokens == 4096


def test_memory_that_runs_out_in_the_optimizers_step_names_another_optimizer(made, monkeypatch):
    policy, batch, _ = made
    monkeypatch.setattr(policy.optimizer, "step", too_large)
    before = copy.deepcopy(policy.model.state_dict())
    with pytest.raises(OutOfMemory, match=r"the optimizer's step.*--optimizer adamw_8bit"):
        policy.update(batch, Objective(ROW))
    assert same(before.values(), policy.model.state_dict().values())


REAL = """
import resource, sys
sys.path[:0] = [sys.argv[1] + "/tests", sys.argv[1]]
import torch
from conftest import make_batch
from transformers import Qwen2Config, Qwen2ForCausalLM
from grpo.algorithm.objective import Objective
from grpo.algorithm.table import ALGORITHMS
from grpo.memory.model_shape import shape_of
from grpo.memory.moments import update_moment
from grpo.memory.widths import Widths
from grpo.model.optimizers import OptimizerSettings
from grpo.model.policy import Policy

torch.manual_seed(0)
config = Qwen2Config(
    vocab_size=500, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, tie_word_embeddings=True)
policy, said = Policy(Qwen2ForCausalLM(config), temperature=1.0, micro_batch_tokens=8192), []
policy.say = said.append
mask = torch.ones(32, 256, dtype=torch.bool)
batch = make_batch(mask, advantages=torch.randn(mask.shape), token_weights=mask / mask.sum())
batch.inputs.remainder_(500), batch.targets.remainder_(500)
objective = Objective(ALGORITHMS["dr_grpo"])

def gradient(tokens):
    policy.micro_batch_tokens = tokens
    policy.backward(batch, objective)
    return [parameter.grad.clone() for parameter in policy.model.parameters()]

halved = gradient(4096)
policy.model.zero_grad(set_to_none=True)
need = update_moment(shape_of(config), Widths(compute=4), 8192, recompute=False).total
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + int(0.75 * need),) * 2)
found = gradient(8192)
print(said)
assert len(said) == 1 and policy.micro_batch_tokens == 4096
assert all(torch.equal(a, b) for a, b in zip(halved, found))
print("halved")
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the size of a process is read from /proc")
def test_a_real_want_of_memory_on_a_cpu():
    """A process that may take three quarters of what the whole pass needs, by the plan's arithmetic, beside what it
    has."""
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}  # what is freed is given back
    done = subprocess.run([sys.executable, "-c", REAL, str(ROOT)], capture_output=True, text=True, env=env)
    assert "halved" in done.stdout, done.stdout + done.stderr[-3000:]
