"""Data in every form that --data takes, and what is said of a form that it does not."""

import datasets
import pytest

from grpo.errors import UserError
from grpo.problems.rows import load_rows


@pytest.fixture
def jsonl(tmp_path):
    def write(text, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


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
    with pytest.raises(UserError, match=r"Built-in: .*arithmetic, .*gsm8k, .*math12k, math500"):
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
