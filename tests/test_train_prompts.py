"""A base model as people have them: a chat template whose end is not the end of sequence, and no pad token."""

import pytest
from chat_tokenizers import CHATML, chat_tokenizer
from conftest import make_model
from small_runs import HF, rows, run

from grpo.logs.rollouts import load_rollouts


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = make_model(tmp_path / "base", tied=True)
    tokenizer = chat_tokenizer(CHATML)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    return folder


def test_it_trains_and_its_turns_end_where_the_template_ends_them(tmp_path, base):
    flags = ["--model", str(base), "--data", "arithmetic", "--system", "Add.", "--max-prompt-tokens", "120"]
    flags += ["--max-response-tokens", "96", "--responses-per-problem", "16", "--save-rollouts", "--steps", "1"]
    folder = run(tmp_path, *HF, *flags)
    recording = load_rollouts(folder / "rollouts" / "step-000001.pt")
    end = chat_tokenizer().convert_tokens_to_ids("<|im_end|>")
    responses = [rollout.tokens for group in recording.groups for rollout in group.rollouts]
    ended = [tokens for tokens in responses if end in tokens]
    assert ended and all(tokens.index(end) == len(tokens) - 1 for tokens in ended)
    row = rows(folder)[-1]
    assert row["policy/engine_gap"] < 1e-4 and row["policy/sync_gap"] < 1e-4
