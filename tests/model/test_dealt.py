"""A model that one rank reads is, on several, the one that each would have read, without a copy on each."""

import shutil
from contextlib import nullcontext

import pytest
import torch
from conftest import ROOT, make_model, make_tokenizer
from torchrun import torchrun
from transformers import Qwen2Config, Qwen2ForCausalLM

from grpo.files import read_json, write_json
from grpo.model.dealt import dealt
from grpo.model.pretrained import load_model
from grpo.model.ranks import Ranks


def test_two_ranks(tmp_path):
    for name in ("tied", "untied"):
        make_model(tmp_path / name, tied=name == "tied")
    broken = shutil.copytree(tmp_path / "tied", tmp_path / "broken") / "model.safetensors"
    broken.write_bytes(broken.read_bytes()[:5000])
    config = shutil.copytree(tmp_path / "untied", tmp_path / "two heads") / "config.json"
    write_json(config, read_json(config, "") | {"tie_word_embeddings": True})
    shape = dict(hidden_size=512, intermediate_size=2048, num_attention_heads=8, num_key_value_heads=2)
    large = Qwen2Config(vocab_size=320, num_hidden_layers=22, tie_word_embeddings=True, **shape)
    Qwen2ForCausalLM(large).to(torch.bfloat16).save_pretrained(tmp_path / "large")
    make_tokenizer().save_pretrained(tmp_path / "large")
    print(torchrun(2, ROOT / "tests" / "model" / "dealt_program.py", tmp_path, cwd=tmp_path))


def test_without_numbers_it_takes_no_memory(tied_folder):
    model = load_model(str(tied_folder), device="meta", trust_remote_code=False)
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    assert model.lm_head.weight is model.model.embed_tokens.weight and not model.training


def test_of_one_rank_it_is_what_was_made():
    made = {"cpu": object()}
    assert dealt(made.__getitem__, Ranks(), device="cpu") is made["cpu"]


@pytest.mark.parametrize("rank", [0, 1])
def test_the_weights_of_the_model_are_read_by_the_first_rank_alone(rank, monkeypatch):
    """A stub of the ranks: which devices a rank asks for, up to where it would talk."""
    asked = []

    def made(device):
        asked.append(device)
        if device == "meta":
            raise StopIteration

    monkeypatch.setattr(Ranks, "together", lambda self: nullcontext())
    with pytest.raises(StopIteration):
        dealt(made, Ranks(rank, 2), device="cuda")
    assert asked == [["cpu", "meta"], ["meta"]][rank]
