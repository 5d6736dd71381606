"""Two whole steps of the command on random weights of a real shape: the probe's gap, the exit status, and that nothing
is said at the end that a healthy process does not say. On the CPU the same with a tiny shape.
"""

import os
import sys

import pytest
import torch
from conftest import ROOT
from test_train import rows

from grpo.engines.choose import built_for_a_card
from grpo.engines.sync import TOLERANCE

sys.path.append(str(ROOT / "scripts"))
from gpu_bench import Bench, script, words
from gpu_parts import ANY_REWARD, run_flags

SMALLEST = "--precision bfloat16 --optimizer adamw_8bit --reference-device cpu --gradient-checkpointing True".split()
OFFLOADED = "--optimizer adamw_offload --reference-device cpu --gradient-checkpointing False".split()
CASES = [
    pytest.param("cpu", "hf", ["--reference-device", "cpu"], id="cpu"),
    pytest.param("cuda", "hf", [], id="hf", marks=pytest.mark.gpu),
    pytest.param("cuda", "hf", OFFLOADED, id="hf-offloaded", marks=pytest.mark.gpu),
    pytest.param("cuda", "vllm", [], id="vllm", marks=[pytest.mark.gpu, pytest.mark.vllm]),
    pytest.param("cuda", "vllm", SMALLEST, id="vllm-smallest", marks=[pytest.mark.gpu, pytest.mark.vllm]),
]


@pytest.fixture(scope="module")
def bench_of(tmp_path_factory):
    """A device -> a bench whose model is written, once."""
    made = {}

    def make(device):
        if device not in made:
            env = {**os.environ, "PYTHONPATH": str(ROOT)}
            bench = Bench(tmp_path_factory.mktemp(device), device, quick=True, env=env)
            shape = "0.5B" if device == "cuda" else "tiny"
            done = bench.python("model", 300, script("random_model.py"), shape, bench.model)
            assert done.status == 0, done.tail
            (bench.folder / "any.py").write_text(ANY_REWARD)
            made[device] = bench
        return made[device]

    return make


@pytest.mark.parametrize("device,engine,flags", CASES)
def test_two_whole_steps_and_a_clean_end(bench_of, request, device, engine, flags):
    if "adamw_8bit" in flags:
        pytest.importorskip("torchao", reason="torchao is not installed: python -m pip install torchao==0.18.0")
    if engine == "vllm" and not built_for_a_card():
        pytest.skip("needs vLLM's build for CUDA")
    bench, name = bench_of(device), request.node.callspec.id
    bench.vllm = engine == "vllm"
    command = ["-m", "grpo.train", *run_flags(bench), *flags, "--steps", "2", "--name", name]
    done = bench.python(name, 400, *command)
    assert done.status == 0 and not words(done), done.tail
    _, *steps = rows(bench.folder / "runs" / name)
    assert [row["step"] for row in steps] == [1, 2]
    for row in steps:
        assert row["policy/grad_norm"] > 0 and row["policy/skipped"] == 0
        assert row["policy/sync_gap"] < TOLERANCE[torch.bfloat16] and row["policy/engine_gap"] < 0.05
    assert abs(steps[0]["policy/kl"]) < 1e-3  # the reference is the policy still
    assert (bench.folder / "runs" / name / "model" / "model.safetensors").exists()
