"""--log-to: what TensorBoard and trackio themselves read back, also of a resumed run, and a tracker that fails."""

import time

import pytest
from small_runs import HF, rows, run

from grpo.errors import UserError
from grpo.logs import log_targets
from grpo.logs.log_targets import Guarded, TensorBoard, check_log_targets, numbers
from grpo.logs.logger import Logger
from grpo.resolve import parse

ROWS = [{"step": step, "reward/mean": step / 8, "length/incorrect": None, "tokens_total": 0.0} for step in range(5)]


def logger(folder, log_to, first_step=1):
    place = dict(wandb_mode="off", project="grpo-tests", group="pair", config={"algo": "grpo"})
    return Logger(folder, steps=5, first_step=first_step, log_to=log_to, **place)


def log(folder, log_to, some, first_step=1):
    with logger(folder, log_to, first_step) as written:
        for row in some:
            written.log(row)


def scalars(folder):
    """Name -> [(step, value)], as TensorBoard reads its files."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_tensorboard_has_every_number_of_a_run_and_of_its_continuation_once(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    flags = [*HF, "--log-to", "tensorboard", "--save-every", "1"]
    folder = run(tmp_path, *flags, "--steps", "1")
    for more in ([], ["--resume", "--steps", "2"]):
        run(tmp_path, *(more or ["--resume"]))
        expected = {}
        for row in rows(folder):
            for name, value in numbers(row).items():
                expected.setdefault(name, []).append((row["step"], pytest.approx(value, rel=1e-6)))
        assert scalars(folder) == expected and "policy/kl" in expected
    assert [step for step, _ in expected["reward/mean"]] == [1, 2]


def test_tensorboard_drops_the_steps_that_a_resumed_run_does_anew(tmp_path):
    pytest.importorskip("tensorboard")
    log(tmp_path, ["tensorboard"], ROWS)
    log(tmp_path, ["tensorboard"], [{**ROWS[3], "reward/mean": 1.0}], first_step=3)
    assert scalars(tmp_path)["reward/mean"] == [(0, 0.0), (1, 0.125), (2, 0.25), (3, 1.0)]
    assert "length/incorrect" not in scalars(tmp_path)


def test_trackio_has_every_step_once(tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    from trackio import utils
    from trackio.sqlite_storage import SQLiteStorage

    monkeypatch.setattr(utils, "TRACKIO_DIR", tmp_path / "store")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "store")
    log(tmp_path / "one", ["trackio"], ROWS[:4])
    log(tmp_path / "one", ["trackio"], ROWS[3:], first_step=3)
    found = [(row["step"], row["reward/mean"]) for row in SQLiteStorage.get_logs("grpo-tests", "one")]
    assert found == [(row["step"], row["reward/mean"]) for row in ROWS]


@pytest.mark.parametrize("hangs", [False, True])
def test_a_tracker_that_fails_is_named_once_and_holds_nothing_up(monkeypatch, hangs):
    class Broken:
        def log(self, metrics):
            if metrics["step"] == 2:
                time.sleep(1 if hangs else 0)
                raise OSError("disk full")
            done.append(metrics["step"])

        def finish(self):
            done.append("finished")

    monkeypatch.setattr(log_targets, "STEP_SECONDS", 0.1)
    done, said = [], []
    target = Guarded("broken", Broken, ROWS[:2], said.append)
    for row in ROWS[2:]:
        target.log(row)
    target.finish()
    assert done == [0, 1] and len(said) == 1
    assert said[0].startswith("broken stopped at step 2 (" + ("TimeoutError" if hangs else "OSError: disk full"))


def test_one_that_does_not_start_is_said_and_left_alone(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("")
    said = []
    target = Guarded("tensorboard", lambda: TensorBoard(tmp_path / "file"), ROWS, said.append)
    target.log(ROWS[0])
    target.finish()
    assert len(said) == 1 and said[0].startswith("tensorboard did not start (")


def test_a_library_that_is_not_there(monkeypatch):
    monkeypatch.setattr(log_targets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--log-to trackio needs .*python -m pip install trackio"):
        parse(["--log-to", "trackio"])
    monkeypatch.undo()
    with pytest.raises(UserError, match="names one twice"):
        check_log_targets(("trackio", "trackio"))
