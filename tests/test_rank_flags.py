"""What several processes cannot work with is refused before a model is loaded, in a paragraph that is printed once."""

import pytest
from conftest import ROOT
from torchrun import torchrun
from transformers import Qwen2Config

from grpo.config import Config
from grpo.errors import UserError
from grpo.rank_flags import check_ranks
from grpo.resolve import resolve

REFUSED = {
    "--problems-per-step 2": dict(problems_per_step=2, responses_per_problem=8),
    "--tensor-parallel 2": dict(tensor_parallel=2),
    "--compile": dict(compile=True),
    "--engine hf": dict(engine="hf"),
    "--optimizer adamw_8bit": dict(optimizer="adamw_8bit"),
    "--precision bfloat16": dict(precision="bfloat16"),
    "--reference-device cpu": dict(reference_device="cpu"),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_several_processes_cannot_do_is_refused_and_one_does_it(said):
    config = resolve(Config(name="none", **REFUSED[said]))
    with pytest.raises(UserError, match=said):
        check_ranks(config, 3)
    check_ranks(config, 2 if config.tensor_parallel == 2 else 1)


@pytest.mark.vllm
def test_what_goes_with_several_processes_passes():
    check_ranks(resolve(Config(name="none")), 3)


def paragraphs(said):
    return [line for line in said.split("torch/distributed/elastic")[0].splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(
    "flags,expected",
    [
        (["--engine", "hf"], "error: --engine hf with 2 processes of torchrun"),
        (["--tensor-parallel", "2", "--model", "heads"], "of which heads has 3. Choose a divisor"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_it_is_printed_once(tmp_path, flags, expected):
    Qwen2Config(hidden_size=48, num_attention_heads=3, num_key_value_heads=1).save_pretrained(tmp_path / "heads")
    said = torchrun(2, "-m", "grpo.train", *flags, cwd=tmp_path, status=1)
    (paragraph,) = paragraphs(said)
    assert expected in paragraph and expected in said.partition("Root Cause")[2]
    assert not (tmp_path / "runs").exists()


def test_flags_that_differ_between_processes_are_refused(tmp_path):
    """As where two machines were started with different commands."""
    program = tmp_path / "program.py"
    program.write_text(f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from grpo.train import leave, main
leave(lambda: main(["--wandb", "off", "--seed", os.environ["RANK"]]))
""")
    (paragraph,) = paragraphs(torchrun(2, program, cwd=tmp_path, status=1))
    assert "--seed is 0 or 1" in paragraph and not (tmp_path / "runs").exists()
