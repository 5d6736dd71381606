"""A first step without any reward is said in so many words, and a step with some reward is not mentioned."""

import json

import pytest
import torch
from small_runs import HF, run

from grpo.logs.zero_rewards import zero_rewards
from grpo.records import Group, Problem, Rewards, Rollout

NAN = float("nan")


def groups(text="It is 46.", truncated=(False, False)):
    problem = Problem("12+34=", (1,), {"answer": "46"})
    return [Group(problem, tuple(Rollout((1, 2, 3), (0.0,) * 3, text, cut) for cut in truncated))]


def rewards(**by_verifier):
    parts = {name: torch.tensor([values]) for name, values in by_verifier.items()}
    return Rewards(sum(part.nan_to_num() for part in parts.values()), parts, {}, {})


def test_response_gold_answer_and_verifiers_stand_side_by_side():
    given = rewards(math_answer=[0.0, 0.0], form=[0.0, NAN])
    text = zero_rewards(groups(), given, given.total)
    assert text.split("\n")[:-1] == [
        "warning: the reward is 0, so there is nothing to learn from, in all 2 responses of the first step. "
        "One of them:",
        "  problem      '12+34='",
        "  response     'It is 46.'",
        "  gold answer  '46'",
        "  math_answer  0",
        "  form         0",
    ]
    assert "python -m grpo.verifiers" in text and "--answer-column" in text


def test_a_first_verifier_that_gives_nothing_is_named_though_another_one_gives_something():
    given = rewards(math_answer=[0.0, NAN], form=[0.1, 0.1])
    text = zero_rewards(groups(), given, given.total)
    assert text.startswith("warning: the first verifier, math_answer, gives 0, so none is correct, in all 2 responses")
    assert "form         0.1" in text


@pytest.mark.parametrize("values", [[0.0, 1.0], [-1.0, 0.0], [0.25, 0.25]])
def test_some_reward_is_not_mentioned(values):
    given = rewards(math_answer=values)
    assert zero_rewards(groups(), given, given.total) is None


def test_right_answers_that_were_all_cut_get_the_advice_on_length():
    given = rewards(math_answer=[1.0, 1.0])
    text = zero_rewards(groups(truncated=(True, True)), given, torch.zeros(1, 2))
    assert "(cut after 3 tokens)" in text and "math_answer  1" in text
    assert "2 of 2 responses were cut at --max-response-tokens" in text


def test_a_long_response_is_shown_by_its_end_and_one_that_ended_is_preferred():
    given = rewards(math_answer=[0.0, 0.0])
    text = zero_rewards(groups("x" * 500 + " so 46", (True, False)), given, given.total)
    assert "  response     ...'" in text and "so 46'" in text and "cut" not in text and len(text) < 1500


def test_a_run_says_it_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare.py").write_text("def reward(response, answer):\n    return float(response == answer)\n")
    folder = run(tmp_path, *HF, "--reward", "./bare.py", "--steps", "2")
    printed = capsys.readouterr().out
    assert printed.count("warning: the reward is 0") == 1
    shown = printed.split("warning: the reward is 0")[1]
    sample = json.loads((folder / "samples.jsonl").read_text().splitlines()[0])
    assert f"  gold answer  '{sample['columns']['answer']}'\n  bare         0\n" in shown


def test_a_run_with_rewards_says_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(tmp_path, *HF, "--steps", "1")
    assert "the reward is 0" not in capsys.readouterr().out
