"""A seed for each response: distinct in a group, within what vLLM takes, and all that a draw depends on."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from grpo.engines.seeds import response_seed

CUDA_SAMPLER = """
import importlib.util, json, os, sys, types
os.environ["TRITON_INTERPRET"] = "1"
import torch, triton, triton.language

# The file of vllm's sampler for CUDA, without the rest of vllm, whose build for the CPU hides triton.
root = importlib.util.find_spec("vllm").submodule_search_locations[0]
package, tools = types.ModuleType("vllm"), types.ModuleType("vllm.triton_utils")
package.__path__, tools.tl, tools.triton = [], triton.language, triton
sys.modules.update({"vllm": package, "vllm.triton_utils": tools})
spec = importlib.util.spec_from_file_location("gumbel", root + "/v1/worker/gpu/sample/gumbel.py")
gumbel = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gumbel)
from grpo.engines.seeds import response_seed

def sample(seeds, logits, position):
    rows = len(seeds)
    return gumbel.gumbel_sample(
        logits.expand(rows, -1), torch.arange(rows), torch.ones(rows), torch.tensor(seeds),
        torch.full((rows,), position), apply_temperature=False, is_drafting=False,
    ).tolist()

logits = torch.tensor([0.5, 0.2, 0.2, 0.1]).log()
groups = [[response_seed(seed, problem, g) for g in range(8)] for seed in range(10) for problem in range(16)]
flat = torch.zeros(320)
print(json.dumps({
    "whole": [sample(group, flat, 5) for group in groups[:20]],
    "alone": [sample([seed], flat, 5)[0] for group in groups[:2] for seed in group],
    "later": sample(groups[0], flat, 6),
    "drawn": sample([seed for group in groups for seed in group], logits, 3),
}))
"""


def test_the_seeds_of_a_group_are_distinct_in_every_bit_that_a_generator_takes():
    seeds = [response_seed(3, 5, g) for g in range(4096)]
    assert len({seed % 2**32 for seed in seeds}) == 4096  # torch's CPU generator takes no more bits
    assert all(0 <= seed < 2**63 for seed in seeds)


@given(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 10_000), st.integers(0, 10_000)))
def test_a_seed_is_a_function_of_its_three_numbers_within_vllms_bounds(numbers):
    seed, problem, response = numbers
    assert response_seed(seed, problem, response) == response_seed(seed, problem, response)
    assert 0 <= response_seed(seed, problem, response) < 2**63
    others = {(seed + 1, problem, response), (seed, problem + 1, response), (seed, problem, response + 1)}
    assert response_seed(seed, problem, response) not in {response_seed(*other) for other in others}


def test_a_step_of_the_published_size_has_a_seed_for_each_response():
    seeds = {response_seed(step, p, g) for step in range(20) for p in range(128) for g in range(8)}
    assert len(seeds) == 20 * 128 * 8


@pytest.mark.vllm
def test_vllms_sampler_for_cuda_draws_by_the_seed_and_the_position_alone():
    """Its real kernel, run by triton's interpreter on the CPU: nothing else of it runs without a card."""
    pytest.importorskip("triton", reason="triton is not installed")
    done = subprocess.run([sys.executable, "-c", CUDA_SAMPLER], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["alone"] == found["whole"][0] + found["whole"][1]  # company changes nothing
    assert found["later"] != found["whole"][0]
    assert all(len(set(group)) > 4 for group in found["whole"])  # of 320 equally likely tokens
    counts = [found["drawn"].count(token) for token in range(4)]
    total = sum(counts)
    assert chisquare(counts, [0.5 * total, 0.2 * total, 0.2 * total, 0.1 * total]).pvalue > 1e-3
