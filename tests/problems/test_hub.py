"""Sets of the hub, through the real library, on a folder that stands for one: `org/name` below where the test runs."""

import json

import pytest

from grpo.errors import UserError
from grpo.problems.hub import hub_splits, is_hub_name, load_hub, parts_of
from grpo.problems.rows import load_rows


@pytest.fixture
def org(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))

    def write(name, **splits):
        folder = tmp_path / "org" / name
        folder.mkdir(parents=True)
        for split, problems in splits.items():
            lines = [json.dumps({"problem": problem, "meta": {"gold": "7"}}) for problem in problems]
            (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
        return f"org/{name}"

    return write


def test_names_on_the_hub():
    assert is_hub_name("org/name") and is_hub_name("org/name:main") and is_hub_name("org/name@dev")
    assert not is_hub_name("gsm8k") and not is_hub_name("./mine.py:load")
    assert parts_of("org/name") == ("org/name", None, None)
    assert parts_of("org/name:main@dev") == ("org/name", "main", "dev")


def test_a_split_that_is_named_is_taken_whatever_is_asked_for(org):
    name = org("named", train=["a"], validation=["b"])
    assert hub_splits(name) == ["train", "validation"]
    assert load_hub(name, "train")[0]["problem"] == "a"
    assert load_hub(f"{name}@validation", "train")[0]["problem"] == "b"


def test_a_split_that_is_not_there_is_said_with_those_that_are(org):
    name = org("lacking", train=["a"], validation=["b"])
    with pytest.raises(UserError, match=r"it has no split 'test'; it has: train, validation. Name one, as in") as error:
        load_rows(name, "test", flags="eval-")
    assert "--eval-data org/lacking" in str(error.value) and "org/lacking@train" in str(error.value)


def test_nested_columns_of_a_set(org):
    (row,) = load_rows(org("nested", train=["a"]), "train", answer_column="meta.gold")
    assert row["answer"] == "7"
