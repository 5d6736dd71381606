"""A model that is saved in another precision: the same weights, rounded to the nearest, in half the space."""

import json

import pytest
import torch
from conftest import make_model, make_policy
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from grpo.model.checkpoint import save_model
from grpo.model.saved_dtype import DTYPES, recast
from grpo.model.settings import SAVE_DTYPES


def test_the_names_are_those_of_the_flag():
    assert tuple(DTYPES) == SAVE_DTYPES


@pytest.mark.parametrize("tied", [True, False])
def test_bfloat16_is_the_rounded_model_in_half_the_space(tmp_path, tokenizer, tied):
    policy = make_policy(make_model(tmp_path / "from", tied=tied))
    save_model(tmp_path / "whole", policy, tokenizer)
    save_model(tmp_path / "half", policy, tokenizer, "bfloat16")
    whole, half = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "half"))
    assert whole.keys() == half.keys()
    assert all(torch.equal(half[name], whole[name].bfloat16()) for name in whole)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "half")
    assert loaded.dtype is torch.bfloat16
    for name, tensor in policy.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.bfloat16())


def test_a_model_in_several_files_keeps_its_index(tmp_path):
    folder = make_model(tmp_path / "model", tied=False)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.save_pretrained(tmp_path / "cut", max_shard_size="100KB")
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 1
    recast(tmp_path / "cut", "bfloat16")
    index = json.loads((tmp_path / "cut" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 2 * sum(parameter.numel() for parameter in model.parameters())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "cut")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.bfloat16())
