"""Runs of several ranks, by torchrun and with vLLM, beside the same runs of one process.

A response's seed does not depend on the number of ranks, so that two ranks sample what one process samples, and their
runs are the same but for rounding.
"""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import SMALL, rows
from torchrun import command, environment, torchrun

from grpo.logs.metric_names import METRICS
from grpo.logs.rollouts import load_rollouts
from grpo.model.checkpoint import checkpoints, damage

pytestmark = pytest.mark.vllm

STEPS = ["--steps", "4", "--save-every", "2", "--kv-cache-gib", "0.1"]
OWN = """
def better(rewards, lengths):
    return (rewards - rewards.mean(dim=1, keepdim=True)) * (1 + lengths / lengths.max())

def weights(mask):
    return mask / mask.sum().clamp(min=1)
"""
RICH = ["--algo", "dapo", "--dynamic-sampling", "2", "--updates-per-step", "2", "--save-rollouts"]
RICH += ["--epochs-per-step", "2", "--advantage", "./own.py:better", "--aggregation", "./own.py:weights"]
RICH += ["--kl-coef", "0.01", "--kl-target", "0.01", "--eval-every", "2", "--eval-responses", "2"]
"""Refills, two verifiers, a KL weight that adapts, a reference, several updates and epochs, own ingredients."""


def train(place, name, ranks, *flags):
    """Run the command in a folder of its own; returns the run's folder and what was said."""
    asked = ["-m", "grpo.train", "--name", name, *flags]
    if ranks > 1:
        said = torchrun(ranks, *asked, cwd=place)
    else:
        done = subprocess.run([sys.executable, *asked], cwd=place, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        said = done.stdout + done.stderr
    return place / "runs" / name, said


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def largest_difference(one, other):
    expected, found = weights(one), weights(other)
    assert expected.keys() == found.keys()
    return max((expected[name] - found[name]).abs().max().item() for name in expected)


def of_the_step(row):
    return {name: value for name, value in row.items() if not name.startswith(("time/", "memory/", "tokens_per"))}


def assert_same_course(one, other):
    """The rows, but for rounding and the clock."""
    for expected, found in zip(rows(one), rows(other), strict=True):
        gaps = {name: found.pop(name, None) for name in ("policy/engine_gap", "policy/sync_gap")}
        assert all(gap is None or gap < 1e-4 for gap in gaps.values())
        expected = {name: value for name, value in of_the_step(expected).items() if name not in gaps}
        assert of_the_step(found) == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = tmp_path_factory.mktemp("ranks")
    (made / "own.py").write_text(OWN)
    return made


@pytest.fixture(scope="module")
def alone(place):
    return train(place, "one", 1, *SMALL, *STEPS, *RICH)[0]


@pytest.fixture(scope="module")
def two(place):
    return train(place, "two", 2, *SMALL, *STEPS, *RICH, "--wandb", "offline")


def again(run, name, ranks):
    """The run as it was after step 2, resumed by so many ranks."""
    shutil.copytree(run, run.with_name(name), symlinks=True)  # those of wandb may lead nowhere
    shutil.rmtree(run.with_name(name) / "checkpoint-4")
    shutil.rmtree(run.with_name(name) / "model")
    return train(run.parent.parent, name, ranks, "--resume")[0]


def test_two_ranks_make_the_run_of_one_process(alone, two):
    folder, _ = two
    assert_same_course(alone, folder)
    assert largest_difference(alone, folder) < 1e-5
    assert any(row.get("group/refills") for row in rows(folder))  # else dynamic sampling was not tried
    assert len({row.get("policy/kl_coef") for row in rows(folder)}) > 2
    for path in sorted((alone / "evaluations").iterdir()):
        assert (folder / "evaluations" / path.name).read_text() == path.read_text()
    one, other = (load_rollouts(run / "rollouts" / "step-000004.pt") for run in (alone, folder))
    assert [[r.tokens for r in g.rollouts] for g in one.groups] == [
        [r.tokens for r in g.rollouts] for g in other.groups
    ]
    torch.testing.assert_close(one.old_logprobs, other.old_logprobs, rtol=0, atol=1e-4)


def test_one_rank_writes_and_all_metrics_are_known(two):
    folder, said = two
    assert said.count("step    4 ") == said.count("written to: ") == 1 and "2 x cpu" in said
    assert len(list((folder / "wandb").glob("offline-run-*"))) == 1
    steps = rows(folder)[1:]
    known = {name for name in METRICS if "<" not in name}
    for row in steps:
        assert {name for name in row if name.startswith(("time/", "memory/"))} <= known
        assert 0 < row["time/wait"] < row["time/step"]
        assert row["tokens_per_second"] == pytest.approx(
            (row["tokens"] + row["tokens_dropped"]) / row["time/step"], rel=1e-6
        )
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [1, 1, 2, 2, 3, 3, 4, 4]


def test_a_checkpoint_of_two_ranks_is_whole_and_noticed_where_it_is_not(two, tmp_path):
    folder, _ = two
    assert list(checkpoints(folder)) == [2, 4] and not list(folder.glob(".*"))
    assert damage(folder / "checkpoint-4") is None
    copy = shutil.copytree(folder / "checkpoint-4", tmp_path / "checkpoint-4")
    part = next((copy / "optimizer").glob("*_1_*"), None) or sorted((copy / "optimizer").glob("__*"))[-1]
    part.write_bytes(part.read_bytes()[:-1])
    assert damage(copy) == f"optimizer/{part.name} is not what was written"


def test_resumed_by_as_many_ranks_it_is_the_same_run_bit_for_bit(two):
    folder, _ = two
    resumed = again(folder, "two-two", 2)
    assert largest_difference(folder, resumed) == 0
    assert [of_the_step(row) for row in rows(folder)] == [of_the_step(row) for row in rows(resumed)]
    assert (folder / "samples.jsonl").read_text() == (resumed / "samples.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("before,after", [(2, 1), (2, 3), (1, 2)])
def test_resumed_by_another_number_of_ranks_it_is_the_same_but_for_rounding(alone, two, before, after):
    folder = two[0] if before == 2 else alone
    resumed = again(folder, f"{before}-{after}", after)
    assert_same_course(folder, resumed)
    assert largest_difference(folder, resumed) < 1e-5


@pytest.mark.slow
def test_an_adapter_a_critic_and_documents_on_two_ranks_are_those_of_one_process_and_resume(place):
    (place / "documents.txt").write_text("2+4=6, 1+3=4\n\n\\boxed{46}\n\n3+1=4\n")
    flags = [*SMALL, *STEPS, "--algo", "ppo", "--lora-rank", "4", "--updates-per-step", "2", "--critic-warmup", "1"]
    flags += ["--value-clip", "0"]  # at which a token would be on either side by rounding
    flags += ["--ptx-data", "documents.txt", "--ptx-coef", "0.1", "--ptx-per-update", "1"]  # one rank has none of it
    one, two = (train(place, f"lora-{ranks}", ranks, *flags)[0] for ranks in (1, 2))
    assert_same_course(one, two)
    assert largest_difference(one, two) < 1e-5
    for part, name in (("adapter", "adapter_model"), ("critic", "model")):
        expected, found = (load_file(run / part / f"{name}.safetensors") for run in (one, two))
        assert expected.keys() == found.keys()
        for tensor in expected:
            torch.testing.assert_close(found[tensor], expected[tensor], rtol=0, atol=1e-4)
    assert damage(two / "checkpoint-4") is None and (two / "checkpoint-4" / "critic" / "optimizer").is_dir()
    resumed = again(two, "lora-again", 2)
    assert largest_difference(two, resumed) == 0
    assert [of_the_step(row) for row in rows(two)] == [of_the_step(row) for row in rows(resumed)]
    assert_same_course(two, again(two, "lora-alone", 1))


@pytest.mark.slow
def test_two_ranks_that_are_one_engine_make_the_run_of_one_process(alone, place):
    for rank in range(2):  # what a job that was killed leaves on this machine
        Path(f"/dev/shm/-tp:0-[0-1]-cpushm_{rank}").touch()
    folder, _ = train(place, "parallel", 2, *SMALL, *STEPS, *RICH, "--tensor-parallel", "2")
    assert_same_course(alone, folder)
    assert largest_difference(alone, folder) < 1e-5


@pytest.mark.slow
def test_two_machines_make_the_run_of_one_process(alone, place):
    """Two agents of one rank each, on this machine: weights are whole on each, gradients are summed over them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = ["-m", "grpo.train", "--name", "nodes", *SMALL, *STEPS, *RICH]
    meeting = dict(nnodes=2, rdzv_backend="c10d", rdzv_endpoint=f"127.0.0.1:{port}")
    agents = [
        subprocess.Popen(command(1, *program, **meeting), cwd=place, env=environment(), stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [agent.wait(300) for agent in agents] == [0, 0]
    folder = place / "runs" / "nodes"
    assert_same_course(alone, folder)
    assert largest_difference(alone, folder) < 1e-5
