"""What a run leaves behind: whole lines, whole files, and the same keys in a real (offline) wandb run."""

import json

import pytest
import torch

from grpo.algorithm.credit import Credit
from grpo.errors import UserError
from grpo.files import append_jsonl
from grpo.logs.logger import Logger, drop_rows_from, step_line, summary
from grpo.logs.samples import whole_samples
from grpo.records import Group, Problem, Rewards, Rollout

METRICS = {"step": 1, "reward/mean": 0.5, "length/mean": 12.0, "length/incorrect": None, "policy/engine_gap": 1e-7}


def make_logger(folder, **kwargs):
    return Logger(
        folder,
        steps=3,
        config={"algo": "grpo", "seed": 0},
        project="grpo-tests",
        **{"wandb_mode": "off", "group": "pair", **kwargs},
    )


def samples(step=1):
    rewards = Rewards(torch.tensor([[1.0, 0.0]]), {"a": torch.tensor([[1.0, float("nan")]])}, {"a": 0}, {"a": 0})
    group = Group(
        Problem("1+1=", (1,), {"answer": "2", "problem": "1+1="}),
        (Rollout((1, 2), (0.0, 0.0), r"\boxed{2}", False), Rollout((1,), (0.0,), "?", True)),
    )
    return whole_samples(
        step, [group], rewards, Credit(rewards.total, torch.tensor([[0.5, -0.5]]), torch.zeros(2, 3)), 4
    )


def read(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_files_of_a_run(tmp_path, capsys):
    with make_logger(tmp_path / "run") as logger:
        logger.log(METRICS, samples())
    assert read(tmp_path / "run" / "metrics.jsonl") == [METRICS | {"tokens_total": 0.0}]
    (sample,) = read(tmp_path / "run" / "samples.jsonl")
    assert sample == {
        "step": 1,
        "prompt": "1+1=",
        "response": r"\boxed{2}",
        "reward": 1.0,
        "advantage": 0.5,
        "truncated": False,
        "verifiers": {"a": 1.0},
        "columns": {"answer": "2"},
    }
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["algo"] == "grpo" and config["versions"]["torch"] == torch.__version__
    assert "step    1" in capsys.readouterr().out


def test_the_line_of_a_step_leaves_out_what_is_absent():
    assert step_line(METRICS) == "step    1  reward 0.50  length  12.0  gap 1e-07"
    lengths = {"step": 1, "length/correct": 9.5, "length/incorrect": 120.25}
    assert step_line(lengths) == "step    1  correct   9.5  incorrect 120.2"
    line = step_line({"step": 20, "eval/accuracy": 0.915, "eval/length": 30.0})
    assert line == "step   20  | held-out accuracy 91.5%, length 30.0"
    interval = {"eval/accuracy_low": 0.882, "eval/accuracy_high": 0.945}
    line = step_line({"step": 20, "eval/accuracy": 0.915, "eval/length": 30.0, **interval})
    assert line == "step   20  | held-out accuracy 91.5% [88.2, 94.5], length 30.0"


def test_resume_drops_the_rows_it_makes_anew_and_torn_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "rew')
    assert drop_rows_from(path, 3) == [{"step": 1}, {"step": 2}]
    assert read(path) == [{"step": 1}, {"step": 2}]
    with make_logger(tmp_path, first_step=2) as logger:
        logger.log({"step": 2, "reward/mean": 9.0})
    assert read(path) == [{"step": 1}, {"step": 2, "reward/mean": 9.0, "tokens_total": 0.0}]


@pytest.mark.parametrize("separator", ["\u2028", "\u0085", "\x0c"])
def test_resume_keeps_equal_samples_and_line_separators_within_a_response(tmp_path, separator):
    path = tmp_path / "samples.jsonl"
    for _ in range(2):
        append_jsonl(path, [{"step": 1, "response": f"one{separator}two"}])
    before = path.read_bytes()
    assert len(drop_rows_from(path, 2)) == 2 and path.read_bytes() == before


@pytest.mark.parametrize("line", ["{", "[1]", '{"reward/mean": 1}', '{"step": null}'])
def test_resume_says_which_line_is_no_row(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 is .*Mend or remove the line"):
        drop_rows_from(path, 3)


def test_no_samples_make_no_file(tmp_path):
    with make_logger(tmp_path) as logger:
        logger.log(METRICS)
    assert not (tmp_path / "samples.jsonl").exists()


def test_tokens_add_up_across_a_resume(tmp_path):
    with make_logger(tmp_path) as logger:
        logger.log({"step": 0})
        for step in (1, 2, 3):
            logger.log({"step": step, "tokens": 10.0 * step})
    with make_logger(tmp_path, first_step=3) as logger:
        logger.log({"step": 3, "tokens": 5.0, "tokens_dropped": 2.0})
    assert [row["tokens_total"] for row in read(tmp_path / "metrics.jsonl")] == [0, 10, 30, 37]


def test_summary_compares_first_and_last_evaluation(tmp_path):
    rows = [
        {"step": 0, "eval/accuracy": 0.5, "eval/length": 10.0, "eval/truncated": 0.0},
        {"step": 1},
        {"step": 2, "eval/accuracy": 0.9, "eval/length": 30.0, "eval/truncated": 0.25},
    ]
    append_jsonl(tmp_path / "metrics.jsonl", rows)
    text = " ".join(summary(tmp_path).split())
    assert "accuracy 50.0% at step 0 -> 90.0% at step 2" in text
    assert "length 10.0 tokens at step 0 -> 30.0 tokens at step 2" in text
    assert str(tmp_path / "model") in text and "wandb" not in text
