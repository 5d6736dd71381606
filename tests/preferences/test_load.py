"""Rollouts that a run has saved are comparisons, with their ids, where these are of the model's family."""

import pytest
import torch
from transformers import AutoTokenizer

from grpo.errors import UserError
from grpo.files import write_jsonl
from grpo.logs.rollouts import Recording, save_rollouts
from grpo.preferences.load import load_comparisons
from grpo.presets import EMBEDDED_MODEL
from grpo.records import Group, Problem, Rollout

SETTINGS = {"model": None}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(EMBEDDED_MODEL)


def recording(tokenizer, texts, total, cut=(), prompt="1+1="):
    rollouts = []
    for i, text in enumerate(texts):
        ids = tuple(tokenizer(text)["input_ids"]) + (() if i in cut else (tokenizer.eos_token_id,))
        rollouts.append(Rollout(ids, (-1.0,) * len(ids), text, truncated=i in cut))
    group = Group(Problem(prompt, tuple(tokenizer(prompt)["input_ids"]), {}), tuple(rollouts))
    tokens = sum(len(rollout.tokens) for rollout in rollouts)
    return Recording([group], torch.tensor([total]), torch.tensor([total]) >= 1, torch.zeros(tokens), SETTINGS)


@pytest.fixture
def folder(tmp_path, tokenizer):
    save_rollouts(tmp_path / "step-000001.pt", recording(tokenizer, ["2", "3", "22"], [1.0, 0.0, 1.0], cut=(2,)))
    save_rollouts(tmp_path / "step-000002.pt", recording(tokenizer, ["2", "2", "5"], [1.0, 1.0, 1.0], prompt="2+3="))
    return tmp_path


def test_groups_become_comparisons(folder, tokenizer):
    read = load_comparisons([str(folder)], tokenizer)
    (found,) = read.comparisons
    assert (found.prompt, found.responses) == ("1+1=", ("2", "3", "22"))
    assert found.scores == (1.0, 0.0, 0.0)  # the one that was cut is worth no more than a wrong one
    assert found.group.rollouts[0].tokens == (*tokenizer("2")["input_ids"], tokenizer.eos_token_id)
    assert sum(read.dropped.values()) == 1 and "1 dropped whose scores" in read.words
    (one,) = load_comparisons([str(folder / "step-000001.pt")]).comparisons
    assert one == found
    with pytest.raises(UserError, match="holds no comparison: 1 dropped whose scores do not tell"):
        load_comparisons([str(folder / "step-000002.pt")])


def test_sources_are_read_together(folder, tmp_path):
    write_jsonl(tmp_path / "more.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}])
    found = load_comparisons([str(folder), str(tmp_path / "more.jsonl")]).comparisons
    assert [comparison.prompt for comparison in found] == ["1+1=", "p"]


def test_rollouts_of_another_family_are_refused(folder, tied_folder):
    with pytest.raises(UserError, match=r"another family of models.*The run began from the embedded model"):
        load_comparisons([str(folder)], AutoTokenizer.from_pretrained(tied_folder))
