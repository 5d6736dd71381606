"""`--resume` needs only the run's name, refuses what contradicts it, and takes what may change."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo.config import Config
from grpo.errors import UserError
from grpo.presets import EMBEDDED_MODEL
from grpo.resolve import parse
from grpo.resume import FREE, PLACE, ROUNDING, as_config, words

BEGUN = [
    "--algo", "grpo", "--temperature", "0.7", "--reward", "math_answer", "think_format=0.1", "--kl-coef", "0.02",
    "--save-every", "5", "--log-kl", "False", "--wandb", "off", "--eval-temperature", "0.5", "--stop-on", "kl_runaway",
]  # fmt: skip


def begin(tmp_path, *flags, name="a"):
    """A run folder as a run that was begun with these flags leaves it."""
    config = parse([*flags, "--name", name, "--runs-dir", str(tmp_path)])
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    return config


def resume(tmp_path, *flags, name="a"):
    return parse(["--name", name, "--runs-dir", str(tmp_path), "--resume", *flags])


def values(config):
    return {field.name: getattr(config, field.name) for field in fields(Config) if field.name not in PLACE}


def test_only_the_name_is_needed(tmp_path):
    begun = begin(tmp_path, *BEGUN)
    again = resume(tmp_path)
    assert values(again) == values(begun) and again.resume and again.row == begun.row


def test_the_flags_it_was_begun_with_may_be_said_again(tmp_path):
    begun = begin(tmp_path, *BEGUN)
    assert values(resume(tmp_path, *BEGUN)) == values(begun)


def test_all_that_contradicts_is_refused_in_one_list(tmp_path):
    begin(tmp_path, *BEGUN)
    with pytest.raises(UserError) as error:
        resume(tmp_path, "--temperature", "1.0", "--seed", "3", "--reward", "math_answer", "--steps", "7")
    said = str(error.value)
    assert "--temperature 1.0, the run has 0.7" in said and "--seed 3, the run has 0" in said
    assert "--reward math_answer, the run has math_answer think_format=0.1" in said and "--steps 7" not in said


def test_a_value_that_is_the_default_contradicts_too(tmp_path):
    """Not what is unset, but what is said."""
    begin(tmp_path, "--epochs-per-step", "2")
    with pytest.raises(UserError, match="--epochs-per-step 1, the run has 2"):
        resume(tmp_path, "--epochs-per-step", "1")


def test_what_may_change_does_and_is_said(tmp_path):
    begun = begin(tmp_path, *BEGUN)
    again = resume(tmp_path, "--steps", "7", "--eval-every", "3", "--micro-batch-tokens", "99", "--keep", "4")
    assert (again.steps, again.eval_every, again.micro_batch_tokens, again.keep) == (7, 3, 99, 4)
    before = json.loads(json.dumps(begun.to_json()))
    said = words(before, again)
    assert "resumed with another value: --steps 7, was 100" in said and len(said) == 4
    assert any("--micro-batch-tokens 99, was 8192; the steps may no longer be those" in line for line in said)
    assert words(before, begun) == []


def test_other_versions_are_said(tmp_path):
    begun = begin(tmp_path)
    (line,) = words(begun.to_json() | {"versions": {"torch": "1.0"}}, begun)
    assert line.startswith("resumed with other versions: torch 2") and ", was 1.0; the steps may" in line


def test_every_flag_is_free_or_rounds_or_is_refused():
    assert not FREE & ROUNDING and FREE | ROUNDING <= {field.name for field in fields(Config)}
    for name in ("learning_rate", "algo", "model", "data", "eval_data", "seed", "temperature", "reward", "optimizer"):
        assert name not in FREE | ROUNDING


def test_held_out_problems_that_are_taken_out_of_training_stay_as_many(tmp_path):
    lines = [json.dumps({"problem": f"{i}+1=", "answer": str(i + 1)}) for i in range(40)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines) + "\n")
    begin(tmp_path, "--data", str(tmp_path / "mine.jsonl"))
    with pytest.raises(UserError, match="--eval-problems 2, the run has 256"):
        resume(tmp_path, "--eval-problems", "2")
    begin(tmp_path, name="b")  # arithmetic has a test split
    assert resume(tmp_path, "--eval-problems", "2", name="b").eval_problems == 2


def test_a_run_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match="there is no run folder"):
        resume(tmp_path)
    with pytest.raises(UserError, match="name it by --name"):
        parse(["--resume"])
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        resume(tmp_path)


def test_a_run_may_be_moved_and_so_may_the_checkout(tmp_path):
    begun = begin(tmp_path)
    path = tmp_path / "a" / "config.json"
    path.write_text(json.dumps(begun.to_json() | {"model": "/elsewhere/grpo/tiny_model"}))
    (tmp_path / "moved").mkdir()
    (tmp_path / "a").rename(tmp_path / "moved" / "b")
    again = resume(tmp_path / "moved", name="b")
    assert again.run_folder == tmp_path / "moved" / "b" and again.model == str(EMBEDDED_MODEL)


def test_a_run_of_an_earlier_version_takes_what_it_did_not_know_as_unset(tmp_path):
    begun = begin(tmp_path, *BEGUN)
    path = tmp_path / "a" / "config.json"
    known = {name: value for name, value in begun.to_json().items() if name not in ("keep", "stop_on", "save_every")}
    path.write_text(json.dumps(known | {"forgotten": 1, "eval_data": "parity"}))
    again = resume(tmp_path)
    assert (again.keep, again.stop_on, again.save_every, again.eval_data) == (2, (), 0, ("parity",))


FLAGS = st.fixed_dictionaries(
    {},
    optional={
        "kl_coef": st.floats(0, 1),
        "steps": st.integers(1, 10**6),
        "reward": st.lists(st.text(min_size=1), min_size=1).map(tuple),
        "stop": st.lists(st.text()).map(tuple),
        "data_dir": st.none() | st.just(Path("some/where")),
        "eval_data": st.none() | st.lists(st.text(), min_size=1).map(tuple),
        "log_kl": st.booleans(),
    },
)


@settings(max_examples=50)
@given(FLAGS)
def test_a_config_comes_back_from_its_json(flags):
    config = Config(**flags)
    assert as_config(json.loads(json.dumps(config.to_json()))) == config
