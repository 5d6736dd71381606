"""A sharded policy is the one of a single process: log-probabilities, gradient, metrics and weights after updates."""

import subprocess
import sys

import pytest
import torch
from conftest import ROOT, make_model
from sharded import BESIDE, CASES, found
from torchrun import torchrun

from grpo.model.ranks import Ranks

PROGRAM = ROOT / "tests" / "model" / "sharded.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("sharded")
    # Less sharp than elsewhere: AdamW divides a gradient by its size, and so makes rounding of tiny ones visible.
    make_model(place / "tied", tied=True, spread=0.05)
    make_model(place / "untied", tied=False, spread=0.05)
    return place


@pytest.fixture(scope="module")
def alone(folder):
    """What a single process finds."""
    made = {name: found(folder, Ranks(), **case) for name, case in CASES.items()}
    return made | {name: find(folder, Ranks()) for name, find in BESIDE.items()}


SOME = ("sequence_mean", "untied head", "ranks without rows")
LAUNCHES = {"2 ranks": (2, 1, tuple(CASES)), "3 ranks": (3, 1, SOME), "2 nodes of 1": (2, 2, SOME)}
"""Name -> ranks, nodes, cases."""
EXACT = {
    launch: [*(name for name in names if name != "as a card"), *BESIDE] for launch, (_, _, names) in LAUNCHES.items()
}


@pytest.fixture(scope="module")
def several(folder):
    """What the ranks of a launch find."""
    seen = {}

    def of(launch):
        if launch not in seen:
            ranks, nodes, names = LAUNCHES[launch]
            torchrun(ranks, PROGRAM, folder, folder / "found.pt", nodes, *names)
            seen[launch] = torch.load(folder / "found.pt", weights_only=True)
        return seen[launch]

    return of


def largest_difference(one, two, relative=False):
    return max(
        ((one[name] - two[name]).abs().max() / (one[name].abs().max() if relative else 1)).item() for name in one
    )


@pytest.mark.parametrize("launch,name", [(launch, name) for launch in LAUNCHES for name in EXACT[launch]])
def test_several_ranks_compute_what_one_does(alone, several, launch, name):
    expected, got = alone[name], several(launch)[name]
    assert (expected["logprobs"] - got["logprobs"]).abs().max() < 1e-5
    assert largest_difference(expected["gradient"], got["gradient"], relative=True) < 2e-6
    for key, value in expected["measured"].items():
        assert got["measured"][key] == pytest.approx(value, rel=1e-5, abs=1e-6), key
    for one, other in zip(expected["updates"], got["updates"], strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-6)
    assert largest_difference(expected["weights"], got["weights"]) < 1e-5


def test_in_bfloat16_it_is_the_forward_pass_of_one_card(alone, several):
    """Weights that are gathered in bfloat16, with the float32 sums between the layers that autocast keeps."""
    exact, card, two = alone["sequence_mean"], alone["as a card"], several("2 ranks")["as a card"]
    rounding = (exact["logprobs"] - card["logprobs"]).abs().mean()
    assert rounding > 1e-4 and (card["logprobs"] - two["logprobs"]).abs().mean() < rounding / 20
    assert all(gradient.dtype is torch.float32 for gradient in two["gradient"].values())
    assert (
        largest_difference(card["gradient"], two["gradient"], relative=True) < 2e-2
    )  # each micro-batch gives three digits


def test_the_weights_have_moved(alone, folder):
    """A guard of the test above: had nothing been learnt, all would be equal."""
    from transformers import Qwen2ForCausalLM

    start = Qwen2ForCausalLM.from_pretrained(folder / "tied").state_dict()
    assert largest_difference(start, alone["constant"]["weights"]) > 2e-3


@pytest.mark.parametrize("launch", LAUNCHES)
def test_the_optimizer_state_is_divided_among_the_ranks_of_a_node(alone, several, launch):
    ranks, nodes, _ = LAUNCHES[launch]
    (whole,) = alone["untied head"]["state_bytes"]
    for each in several(launch)["untied head"]["state_bytes"]:
        assert each / whole == pytest.approx(nodes / ranks, rel=0.03)


def test_a_world_of_one_initialises_nothing(folder):
    """Also under torchrun, which starts one process where it is asked for one."""
    program = f"""
import sys; sys.path[:0] = ["tests", "tests/model"]
from pathlib import Path
from grpo.model.ranks import Ranks
from sharded import found
found(Path({str(folder)!r}), Ranks.join(), row="grpo")
import torch.distributed
assert not torch.distributed.is_initialized()
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
