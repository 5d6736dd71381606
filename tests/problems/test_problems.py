"""Data in every form that --data takes, templates, encoding and draws."""

from collections import Counter

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from grpo.errors import UserError
from grpo.problems.draw import draw
from grpo.problems.rows import load_rows
from grpo.problems.templates import TEMPLATES, encode
from grpo.records import Problem


@pytest.fixture
def jsonl(tmp_path):
    def write(text, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


# Rows ------------------------------------------------------------------------------------------------------------


def test_jsonl(jsonl):
    path = jsonl('{"problem": "1+1?", "answer": "2", "level": 3}\n\n{"problem": "é²", "answer": ["a", "b"]}\n')
    assert load_rows(path, "train") == [
        {"problem": "1+1?", "answer": "2", "level": 3},
        {"problem": "é²", "answer": ["a", "b"]},
    ]


def test_columns_are_mapped(jsonl):
    path = jsonl('{"question": "q", "gold": "g"}\n')
    (row,) = load_rows(path, "train", problem_column="question", answer_column="gold")
    assert row["problem"] == "q" and row["answer"] == "g" and row["gold"] == "g"


@pytest.mark.parametrize(
    "text,message",
    [
        ("", "no rows"),
        ("\n\n", "no rows"),
        ('{"problem": "a"}\n{"problem": \n', "line 2 is not JSON"),
        ("[1, 2]\n", "line 1 is a list"),
        ('{"question": "a"}\n', r"no column 'problem'. Columns: question"),
        ('{"problem": "a"}\n{"problem": null}\n', r"row 1: 'problem' is None, and must be a text"),
        ('{"problem": " "}\n', "row 0: 'problem' is ' ', and must be a text that is not empty"),
        ('{"problem": []}\n', "row 0: 'problem' is"),
        ('{"problem": [{"role": "user"}]}\n', "chat messages with a 'role' and a 'content' each"),
    ],
)
def test_bad_jsonl_is_explained(jsonl, text, message):
    with pytest.raises(UserError, match=message):
        load_rows(jsonl(text), "train")


def test_a_file_in_another_encoding_is_explained(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"problem": "a"}\n{"problem": "é"}\n'.encode("latin-1"))
    with pytest.raises(UserError, match=r"line 2 is not JSON \('utf-8' codec can't decode byte 0xe9"):
        load_rows(str(path), "train")


@pytest.mark.parametrize(
    "returned,message",
    [("None", "has no rows"), ("['a', 'b']", "a list of dicts, one a row"), ("{'problem': 'a'}", "a list of dicts")],
)
def test_what_a_users_function_must_return(tmp_path, returned, message):
    path = tmp_path / "mine.py"
    path.write_text(f"def load(split): return {returned}\ndef rows(split): yield {{'problem': split}}\n")
    with pytest.raises(UserError, match=message):
        load_rows(str(path), "test")
    assert load_rows(f"{path}:rows", "test") == [{"problem": "test"}]


def test_missing_file_and_missing_answer_column(jsonl, tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.jsonl cannot be read: No such file"):
        load_rows(str(tmp_path / "nowhere.jsonl"), "train")
    with pytest.raises(UserError, match=r"--answer-column gold is not a column. Columns: problem"):
        load_rows(jsonl('{"problem": "a"}\n'), "train", answer_column="gold")


def test_unknown_name_lists_what_exists():
    with pytest.raises(UserError, match=r"Built-in: .*arithmetic, .*gsm8k, math12k, math500"):
        load_rows("gsm9k", "train")


def test_a_users_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def load(split): return [{'problem': split}]\ndef other(split): return [{'problem': 'o'}]\n")
    assert load_rows(str(path), "test") == [{"problem": "test"}]
    assert load_rows(f"{path}:other", "test") == [{"problem": "o"}]
    with pytest.raises(UserError, match="defines no function 'third'"):
        load_rows(f"{path}:third", "test")


def test_arithmetic_names_its_splits():
    with pytest.raises(UserError, match="no split 'dev'"):
        load_rows("arithmetic", "dev")


def test_hub_failure_is_one_paragraph(monkeypatch):
    for raised in (ConnectionError, RuntimeError):  # the latter: "Dataset scripts are no longer supported"

        def fail(*_, raised=raised, **__):
            raise raised("not from this hub\nlong trace")

        monkeypatch.setattr(datasets, "load_dataset", fail)
        for spec in ("org/name", "org/name:config", "gsm8k"):
            with pytest.raises(UserError, match=f"{raised.__name__}: not from this hub") as error:
                load_rows(spec, "train")
            assert "\n" not in str(error.value)


# Prompts ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def qwen(shared_data):
    return AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "qwen2.5")


def prompt(tokenizer, template, problem="What is 1+1?"):
    (made,) = encode([{"problem": problem}], tokenizer, template=template, max_prompt_tokens=500).problems
    return made


def test_qwen_math_template_on_the_real_tokenizer(qwen):
    made = prompt(qwen, "qwen_math")
    assert qwen.decode(made.prompt_tokens) == (
        "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
        "<|im_start|>user\nWhat is 1+1?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert made.prompt_tokens[0] == 151644  # <|im_start|> as one special token, not as text
    assert made.prompt == "What is 1+1?"


def test_chat_template_of_the_real_tokenizer(qwen):
    text = qwen.decode(prompt(qwen, "chat").prompt_tokens)
    assert text.endswith("<|im_start|>user\nWhat is 1+1?<|im_end|>\n<|im_start|>assistant\n")
    assert prompt(qwen, "auto").prompt_tokens == prompt(qwen, "chat").prompt_tokens
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert "system\nS<|im_end|>" in qwen.decode(prompt(qwen, "chat", messages).prompt_tokens)


def test_r1_and_plain_on_the_real_tokenizer(qwen):
    assert qwen.decode(prompt(qwen, "plain").prompt_tokens) == "What is 1+1?"
    text = qwen.decode(prompt(qwen, "r1").prompt_tokens)
    assert text.endswith("User: What is 1+1?\nAssistant: <think>") and "{problem}" not in text


def test_braces_in_a_problem_are_left_alone(tokenizer):
    made = prompt(tokenizer, "qwen_math", r"Solve \frac{a}{b} {problem}")
    assert r"Solve \frac{a}{b} {problem}" in tokenizer.decode(made.prompt_tokens)


def test_auto_is_plain_without_a_chat_template(tokenizer):
    assert tokenizer.chat_template is None
    assert prompt(tokenizer, "auto").prompt_tokens == prompt(tokenizer, "plain").prompt_tokens
    with pytest.raises(UserError, match=r"no chat template. Use a named template: qwen_math, r1, plain"):
        prompt(tokenizer, "chat")
    with pytest.raises(UserError, match="no template 'qwen'"):
        prompt(tokenizer, "qwen")
    assert set(TEMPLATES) == {"qwen_math", "r1", "plain"}


def test_too_long_prompts_are_dropped_and_counted(tokenizer):
    rows = [{"problem": "x" * length} for length in (4, 5, 6, 50)]
    encoded = encode(rows, tokenizer, template="plain", max_prompt_tokens=5)
    assert [problem.prompt for problem in encoded.problems] == ["xxxx", "xxxxx"] and encoded.dropped == 2
    with pytest.raises(UserError, match="All 4 prompts are longer than --max-prompt-tokens 3: the shortest has 4"):
        encode(rows, tokenizer, template="plain", max_prompt_tokens=3)


# Draws -----------------------------------------------------------------------------------------------------------


@given(size=st.integers(1, 30), count=st.integers(1, 40), seed=st.integers(0, 5))
def test_every_pass_draws_every_problem_once(size, count, seed):
    problems = [Problem(str(i), (i,), {}) for i in range(size)]
    drawn = [p.prompt for step in range(1, size + 1) for p in draw(problems, count, step, seed)]
    assert len(drawn) == size * count  # `count` whole passes
    assert Counter(drawn) == {str(i): count for i in range(size)}
    for start in range(0, len(drawn), size):
        assert len(set(drawn[start : start + size])) == size


def test_draws_are_shuffled_by_seed_and_pass_and_depend_on_nothing_else():
    problems = [Problem(str(i), (i,), {}) for i in range(100)]
    first = draw(problems, 100, 1, seed=0)
    assert first == draw(problems, 100, 1, seed=0)
    assert first != problems
    assert first != draw(problems, 100, 2, seed=0)
    assert first != draw(problems, 100, 1, seed=1)
