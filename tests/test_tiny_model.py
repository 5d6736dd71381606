"""The embedded model: what is committed as `grpo/tiny_model`, and the script that makes it."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path
from statistics import fmean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from grpo import plugins

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "grpo" / "tiny_model"
arithmetic, sorting, parity = (
    sys.modules[plugins.load(task, "data").__module__] for task in ("arithmetic", "sorting", "parity")
)
script = sys.modules[plugins.load(f"{ROOT / 'scripts' / 'make_tiny_model.py'}:main", "data").__module__]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()


def test_the_model_is_as_small_as_promised(model):
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 4_000_000
    assert model.num_parameters() == 551_040 <= 2_000_000
    assert model.config.architectures == ["Qwen2ForCausalLM"]
    assert model.config.tie_word_embeddings


def test_the_prompt_is_the_problem_and_a_line_break(tokenizer):
    tokens = script.encode_problem(tokenizer, "47+385=")
    assert tokenizer.decode(tokens) == "47+385=\n"
    assert len(tokens) == 8
    assert len(tokenizer.encode(r"\boxed{432}")) == 5


def test_end_and_padding_differ_and_the_model_knows_them(tokenizer, model):
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (256, 257)
    assert (model.config.pad_token_id, model.generation_config.eos_token_id) == (256, 257)
    assert len(tokenizer) == model.config.vocab_size


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_round_trips(tokenizer, text):
    for whole in (text, rf"check \boxed{{{text}}} check"):
        # As the Qwen2 tokenizer, of which it is one, it composes characters first (NFC).
        assert tokenizer.decode(tokenizer.encode(whole)) == unicodedata.normalize("NFC", whole)


def test_the_script_makes_the_committed_tokenizer(tokenizer):
    made = script.make_tokenizer()
    assert made.get_vocab() == tokenizer.get_vocab()
    assert made.chat_template == tokenizer.chat_template


def respond(model, tokenizer, rows):
    """One response at temperature 1 to each row, as ids and as texts."""
    torch.manual_seed(0)
    responses = script.respond(model, tokenizer, [row["problem"] for row in rows])
    return responses, [tokenizer.decode(response, skip_special_tokens=True) for response in responses]


def test_it_starts_to_add_between_40_and_75_percent_with_responses_of_every_length(tokenizer, model):
    rows = arithmetic.load("test")[:256]
    responses, texts = respond(model, tokenizer, rows)
    right = sum(script.right("arithmetic", row, text) for row, text in zip(rows, texts, strict=True))
    assert 0.40 <= right / len(rows) <= 0.75
    assert {arithmetic.style_of(text) for text in texts} == set(arithmetic.STYLES)
    assert all(response[-1] == tokenizer.eos_token_id for response in responses)
    assert min(map(len, responses)) <= 6 and max(map(len, responses)) >= 40


def test_the_warm_start_repeats_itself():
    """Same seed and threads, same weights; and two steps move every one of them."""
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        tokenizer = script.make_tokenizer()
        model = script.make_model(tokenizer)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        script.warm_start(model, tokenizer, script.Options(seed=3, steps=2, batch_size=8))
        results.append(model.state_dict())
        assert not any(torch.equal(value, before[name]) for name, value in results[-1].items())
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_it_starts_to_sort_between_30_and_75_percent(tokenizer, model):
    rows = sorting.load("test")[:256]
    _, texts = respond(model, tokenizer, rows)
    right = sum(script.right("sorting", row, text) for row, text in zip(rows, texts, strict=True))
    assert 0.30 <= right / len(rows) <= 0.75


def test_it_starts_to_guess_parity_as_the_demonstrations_do_and_knows_when_it_is_wrong(tokenizer, model):
    """Level 1 is right with probability 0.7 and level 2 with 0.5; what it says of its guess afterwards is true."""
    rows = parity.load("test")[:512]
    responses, texts = respond(model, tokenizer, rows)
    right = [script.right("parity", row, text) for row, text in zip(rows, texts, strict=True)]
    by_level = {level: [r for r, row in zip(right, rows, strict=True) if row["level"] == level] for level in (1, 2)}
    assert 0.55 <= fmean(by_level[1]) <= 0.85
    assert 0.40 <= fmean(by_level[2]) <= 0.60
    said_right = ["yes" in text for text in texts]
    assert fmean(said == truth for said, truth in zip(said_right, right, strict=True)) > 0.95
    lengths = {
        truth: fmean(len(o) for o, r in zip(responses, right, strict=True) if r is truth) for truth in (True, False)
    }
    assert lengths[False] > lengths[True] + 3  # a wrong guess is followed by dots


def test_the_shares_of_the_warm_start_are_shares():
    assert sum(script.TASKS.values()) == pytest.approx(1)
    assert sum(script.STYLES.values()) == pytest.approx(1)
    assert set(script.STYLES) == set(arithmetic.STYLES)
