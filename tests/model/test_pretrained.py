"""Model folders that are not whole, and models whose numbers stand elsewhere: explained before anything is trained."""

import shutil

import pytest
from transformers import Gemma3Config

from grpo.errors import UserError
from grpo.model.pretrained import check_model, load_config, load_model, load_tokenizer, position_limit
from grpo.presets import EMBEDDED_MODEL

NO_CODE = dict(trust_remote_code=False)


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(EMBEDDED_MODEL, tmp_path / "model")


@pytest.mark.parametrize(
    "file,content,load,message",
    [
        ("tokenizer.json", b"garbage", load_tokenizer, "The tokenizer of .* could not be loaded"),
        ("tokenizer.json", b"{}", load_tokenizer, "The tokenizer of .* could not be loaded"),
        ("config.json", b"{", load_config, "The model of .* not a valid JSON file"),
        ("config.json", b"[]", load_tokenizer, "The tokenizer of .* could not be loaded"),
    ],
)
def test_files_that_hold_something_else_are_explained(folder, file, content, load, message):
    (folder / file).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        load(str(folder), **NO_CODE)
    assert "\n" not in str(error.value)


def test_weights_that_were_not_copied_whole_are_explained(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"The model of .* could not be loaded \(SafetensorError"):
        load_model(str(folder), device="cpu", **NO_CODE)


def test_an_error_without_a_message_is_explained(folder, monkeypatch):
    def fail(*_, **__):
        raise OSError

    monkeypatch.setattr("grpo.model.pretrained.AutoTokenizer.from_pretrained", fail)
    with pytest.raises(UserError, match=r"could not be loaded \(OSError: \)"):
        load_tokenizer(str(folder), **NO_CODE)


def test_a_model_that_also_sees_has_its_numbers_in_its_text_part(folder):
    small = dict(vocab_size=9, max_position_embeddings=40)
    Gemma3Config(text_config=small).save_pretrained(folder)
    assert position_limit(load_config(str(folder), **NO_CODE)) == 40
    budget = dict(max_prompt_tokens=20, **NO_CODE)
    with pytest.raises(UserError, match="more than the 40 positions"):
        check_model(str(folder), max_response_tokens=21, **budget)
    check_model(str(folder), max_response_tokens=20, **budget)
