"""What is examined without weights: a fault in one part hides none of the others."""

import json

import pytest
from chat_tokenizers import CHATML, chat_tokenizer
from conftest import make_tokenizer
from made_up import bad

from grpo.config import Config
from grpo.diagnosis.memory import GIB, Place
from grpo.diagnosis.subject import examine_subject
from grpo.resolve import resolve

HOST = Place(cuda=False, free=50 * GIB)
LIMITS = dict(name="none", engine="hf", max_prompt_tokens=32, max_response_tokens=96)


def examined(place=HOST, **flags):
    """(findings, subject)."""
    config = resolve(Config(**(LIMITS | flags)))
    findings, generator = [], examine_subject(config, config.model, place)
    while True:
        try:
            findings.append(next(generator))
        except StopIteration as stop:
            return findings, stop.value


@pytest.fixture
def folder(tied_folder, tmp_path):
    """Make a model folder with a tokenizer of the test's own."""

    def make(tokenizer, **config):
        path = tmp_path / "model"
        tokenizer.save_pretrained(path)
        (path / "model.safetensors").symlink_to(tied_folder / "model.safetensors")
        kept = json.loads((tied_folder / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(kept | config))
        return str(path)

    return make


def test_the_embedded_model_and_its_data():
    findings, subject = examined()
    assert not bad(findings) and subject.lacking() == []
    assert len(subject.problems) == 8192 and len(subject.held_out) == 256 and subject.ends == (257,)
    assert {f.check for f in findings} == {"engine", "data", "prompts", "ends", "memory"}


def test_several_faults_are_all_told(folder):
    """A base model with a chat template, no pad token, too few positions, and a verifier that the data does not fit."""
    tokenizer = chat_tokenizer(CHATML)
    tokenizer.pad_token = None
    model = folder(tokenizer, eos_token_id=1)
    findings, subject = examined(model=model, data="arithmetic", reward=("countdown",), max_prompt_tokens=500)
    faults = [(f.check, f.found) for f in findings if f.level == "fault"]
    assert [check for check, _ in faults] == ["verifiers", "model"]
    assert "requires 'nums', 'target'" in faults[0][1] and "more than the 512 positions" in faults[1][1]
    assert subject.ends == (1, tokenizer.convert_tokens_to_ids("<|im_end|>"))
    assert subject.lacking() == ["verifiers", "model or memory"] and subject.problems


def test_prompts_over_the_limit(folder):
    findings, subject = examined(model=folder(make_tokenizer()), data="arithmetic", max_prompt_tokens=3)
    dropped = [f for f in findings if f.level == "fault"]
    assert ["longer than --max-prompt-tokens 3" in f.found for f in dropped] == [True, True]
    assert subject.lacking() == ["prompts"]


def test_more_tokens_than_positions(folder):
    findings, subject = examined(model=folder(make_tokenizer()), data="arithmetic", max_response_tokens=512)
    ((level, found),) = bad(findings)
    assert level == "fault" and "more than the 512 positions" in found and subject.lacking() == ["model or memory"]


def test_data_that_is_not_there_hides_nothing_of_the_model(folder):
    findings, subject = examined(model=folder(chat_tokenizer(CHATML), eos_token_id=1), data="./no.jsonl")
    assert [f.check for f in findings if f.level == "fault"] == ["data"]
    assert subject.lacking() == ["data"] and subject.fits


def test_too_little_memory_keeps_the_model_from_being_loaded():
    findings, subject = examined(place=Place(cuda=False, free=2**20))
    assert [f.check for f in findings if f.level == "fault"] == ["memory"]
    assert subject.lacking() == ["model or memory"]


def test_an_engine_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    findings, subject = examined(engine="vllm")
    assert [f.check for f in findings if f.level == "fault"] == ["engine"] and subject.lacking() == ["engine"]
