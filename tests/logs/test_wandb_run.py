"""What reaches wandb, read back from the file that `wandb sync` would upload; no server, and wandb itself."""

import json
import math
import os
import re
import subprocess
import sys
import time

import pytest
import wandb
from conftest import ROOT
from test_pictures import sample
from wandb_file import content, offline_runs

from grpo.errors import UserError
from grpo.logs.logger import Logger
from grpo.logs.metric_names import METRICS
from grpo.logs.pictures import PICTURES
from grpo.logs.wandb_run import ENVIRONMENT_MODES, resolve_wandb_mode

CONFIG = {"algo": "dr_grpo", "model": "Qwen/Qwen2.5-0.5B", "data": "arithmetic", "learning_rate": 1e-6}


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path, monkeypatch):
    """wandb copies tables to a folder of the user's before it uploads them."""
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))


@pytest.fixture
def no_account(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def make_logger(folder, first_step=1, mode="offline", steps=10):
    place = {"project": "grpo-tests", "group": "pair"}
    return Logger(folder, steps=steps, first_step=first_step, config=CONFIG, wandb_mode=mode, **place)


def row(step, **more):
    return {"step": step, "reward/mean": 0.25 * step, "length/mean": 12.0, "tokens": 100.0, **more}


def evaluated(accuracy):
    return {"eval/accuracy": accuracy, "eval/length": 12.0}


def steps_of(table_file):
    table = json.loads(table_file.read_text())
    return [cells[table["columns"].index("step")] for cells in table["data"]]


def newest_table(folder):
    return max(
        folder.glob("wandb/offline-run-*/files/media/table/samples_*.json"), key=lambda file: file.stat().st_mtime_ns
    )


def test_a_run_in_wandb(tmp_path):
    with make_logger(tmp_path / "run") as logger:
        logger.log({"step": 0, **evaluated(0.5), "eval/accuracy_low": 0.4})
        logger.log(row(1, **{"length/incorrect": None, "policy/kl": math.nan}, **evaluated(0.75)), [sample(1)])
        logger.log(row(2, **{"length/correct": 9.0}, **evaluated(0.625)))
    (found,) = offline_runs(tmp_path / "run")
    run = found.run
    assert (run.project, run.run_group, run.job_type, run.display_name) == ("grpo-tests", "pair", "train", "run")
    assert list(run.tags) == ["dr_grpo", "Qwen2.5-0.5B", "arithmetic"]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert CONFIG.items() <= config.items() and config["versions"]["wandb"] == wandb.__version__
    assert [line["step"] for line in found.history] == [0, 1, 2]
    assert found.history[0]["eval/accuracy_low"] == 0.4 and found.history[0]["tokens_total"] == 0
    first = found.history[1]
    assert (first["reward/mean"], first["tokens_total"], first["samples/nrows"]) == (0.25, 100, 1)
    assert "length/incorrect" not in first and math.isnan(first["policy/kl"])
    assert found.summary["eval/accuracy"] == {"last": 0.625, "max": 0.75}
    assert found.summary["tokens_total"] == 200 and found.exit_code == 0


def test_each_key_has_step_for_its_axis_once(tmp_path):
    """Were a key to match two patterns, wandb would take any of them."""
    with make_logger(tmp_path / "run"):
        pass
    (found,) = offline_runs(tmp_path / "run")
    axis = {metric.glob_name or metric.name: metric.step_metric for metric in found.definitions}
    hidden = [metric.name for metric in found.definitions if metric.options.hidden]
    assert axis.pop("step") == "" and hidden == ["step"] and set(axis.values()) == {"step"}
    new = ["eval/accuracy_low", "eval/pass@4", "reward/mine"]
    for key in [*(key.replace("<verifier>", "mine") for key in METRICS if key != "step"), *new]:
        patterns = [name for name in axis if name.endswith("*") and key.startswith(name[:-1])]
        assert len(patterns) + (key in axis and not patterns) == 1, key
    (accuracy,) = (metric for metric in found.definitions if metric.name == "eval/accuracy")
    assert accuracy.summary.none


def test_a_key_that_only_wandb_has_is_explained(tmp_path):
    with make_logger(tmp_path / "run") as logger:
        logger.log(row(1, **{"length/correct": 9.0}), [sample(1)])
    (found,) = offline_runs(tmp_path / "run")
    keys = {re.sub(r"^Custom Chart Tables/(.*)_table$", r"\1", key.rpartition("/")[0]) for key in found.history[0]}
    assert set(PICTURES) == {key for key in keys if key in PICTURES}
    plain = {key for key in found.history[0] if not key.startswith(("_", "samples/", "Custom Chart Tables/"))}
    assert plain <= set(METRICS)


def test_a_thousand_steps_stay_usable(tmp_path):
    """28 uploads of each picture and not 1,000; the last table spans the run and every sample is in samples.jsonl."""
    with make_logger(tmp_path / "run", steps=1000) as logger:
        for step in range(1, 1001):
            logger.log(row(step, **{"length/correct": 10.0}), [sample(step), sample(step, response="x" * 5000)])
    (found,) = offline_runs(tmp_path / "run")
    assert [line["step"] for line in found.history] == list(range(1, 1001))
    for name in ("samples", "by_outcome_table"):
        assert sum(name in artifact for artifact in found.artifacts) == 28
    files = [file for file in (tmp_path / "run" / "wandb").rglob("*") if file.is_file()]
    assert len(files) < 100 and sum(file.stat().st_size for file in files) < 15 * 2**20
    assert steps_of(newest_table(tmp_path / "run")) == [step for step in [1, *range(8, 1001, 8)] for _ in range(2)]
    assert "[... 3000 characters cut, see samples.jsonl ...]" in newest_table(tmp_path / "run").read_text()
    assert len((tmp_path / "run" / "samples.jsonl").read_text().splitlines()) == 2000


def test_a_resumed_run_is_one_folder_with_every_step_once(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(RuntimeError), make_logger(folder) as logger:
        logger.log({"step": 0, **evaluated(0.5)})
        for step in (1, 2, 3):
            logger.log(row(step, **evaluated(1.0 - 0.125 * step)), [sample(step)])
        raise RuntimeError
    (before,) = offline_runs(folder)
    time.sleep(1)  # wandb names a part by its second
    with make_logger(folder, first_step=3) as logger:
        for step in (3, 4):
            logger.log(row(step, **evaluated(0.25)), [sample(step)])
    (after,) = offline_runs(folder)
    assert before.run.run_id == after.run.run_id == logger.wandb.id
    assert (before.exit_code, after.exit_code) == (1, 0)
    assert [line["step"] for line in before.history] == [0, 1, 2, 3]
    assert [line["step"] for line in after.history] == [line["_step"] for line in after.history] == [0, 1, 2, 3, 4]
    assert after.summary["eval/accuracy"] == {"last": 0.25, "max": 0.875}  # of the whole run, less the step redone
    assert after.summary["tokens_total"] == 400
    assert steps_of(newest_table(folder)) == [1, 2, 3, 4]
    (older,) = (folder / "wandb").glob("superseded-offline-run-*/run-*.wandb")
    assert content(older).history == before.history


def test_a_run_that_was_not_in_wandb_is_there_whole_once_resumed(tmp_path):
    folder = tmp_path / "run"
    with make_logger(folder, mode="off") as logger:
        for step in (1, 2):
            logger.log(row(step, **evaluated(0.5)), [sample(step)])
    with make_logger(folder, first_step=3) as logger:
        logger.log(row(3), [sample(3)])
    (found,) = offline_runs(folder)
    assert [line["step"] for line in found.history] == [1, 2, 3] and not found.run.resume
    assert [line["tokens_total"] for line in found.history] == [100, 200, 300]
    assert found.summary["eval/accuracy"] == {"last": 0.5, "max": 0.5}
    assert steps_of(newest_table(folder)) == [1, 2, 3]


# Modes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["offline", "dryrun", "disabled"])
def test_wandb_mode_of_the_environment_decides_where_the_flag_does_not(tmp_path, monkeypatch, said):
    monkeypatch.setenv("WANDB_MODE", said)
    with make_logger(tmp_path / "run", mode="auto") as logger:
        logger.log(row(1))
    assert len(offline_runs(tmp_path / "run")) == (said != "disabled")
    assert resolve_wandb_mode("off") == "off"


def test_an_unknown_wandb_mode_is_refused(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "of")
    with pytest.raises(UserError, match="WANDB_MODE=of is not one of " + ", ".join(ENVIRONMENT_MODES)):
        resolve_wandb_mode("auto")
    with pytest.raises(UserError, match="--wandb of is not one of auto, online, offline, off"):
        resolve_wandb_mode("of")


def test_auto_is_offline_without_an_account(tmp_path, no_account):
    with make_logger(tmp_path / "run", mode="auto") as logger:
        logger.log(row(1))
    assert len(offline_runs(tmp_path / "run")) == 1


@pytest.mark.parametrize("mode", ["online", "auto"])
def test_online_without_an_account_is_refused_in_one_paragraph(tmp_path, monkeypatch, no_account, mode):
    monkeypatch.setenv("WANDB_MODE", "online")
    asked = {"online": "--wandb online", "auto": "WANDB_MODE=online"}[mode]
    with pytest.raises(UserError, match=f"{asked}, but no wandb account is configured"):
        make_logger(tmp_path / "run", mode=mode)
    assert not (tmp_path / "run").exists()  # else the next try under this name would be refused


def test_an_account_that_cannot_be_reached_is_refused(no_account):
    """In a process of its own: wandb remembers across runs that it was offline."""
    code = "from grpo.logs.wandb_run import resolve_wandb_mode; resolve_wandb_mode('online')"
    place = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}  # nothing listens on the discard port
    env = {**os.environ, **place, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert re.search(r"UserError: wandb did not log in .*use --wandb offline", done.stderr.splitlines()[-1])


@pytest.mark.parametrize("begun", [False, True])
def test_wandb_that_does_not_start_leaves_what_was_there(tmp_path, monkeypatch, begun):
    folder = tmp_path / "run"
    if begun:
        with make_logger(folder, mode="off") as logger:
            logger.log(row(1))

    def fail(**_):
        raise wandb.errors.CommError("no route to host")

    monkeypatch.setattr("wandb.init", fail)
    with pytest.raises(UserError, match=r"wandb did not start \(no route to host\)"):
        make_logger(folder, first_step=2 if begun else 1)
    assert folder.exists() == begun
    if begun:
        assert json.loads((folder / "metrics.jsonl").read_text())["step"] == 1
