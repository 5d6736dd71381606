"""The order of a run over comparisons, its folder, and its end where updates are skipped."""

import json

import pytest

from grpo.dpo_flags import Options
from grpo.errors import RunError
from grpo.preferences.journal import Journal, count_updates, passes


def test_every_pass_takes_each_once_in_its_own_order():
    made = list(passes(10, 4, 3, seed=0))
    assert len(made) == count_updates(10, 4, 3) == 9
    assert [len(rows) for _, rows in made] == [4, 4, 2] * 3
    epochs = [[row for epoch, rows in made if epoch == wanted for row in rows] for wanted in (1, 2, 3)]
    assert all(sorted(rows) == list(range(10)) for rows in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != list(range(10))
    assert made == list(passes(10, 4, 3, seed=0)) != list(passes(10, 4, 3, seed=1))


def test_what_is_written(tmp_path, capsys):
    journal = Journal(Options(name="a", runs_dir=tmp_path, beta=0.3))
    journal.log({"update": 1, "loss": 0.5, "nothing": None}, updates=1)
    assert json.loads((tmp_path / "a" / "config.json").read_text())["beta"] == 0.3
    (row,) = map(json.loads, (tmp_path / "a" / "metrics.jsonl").read_text().splitlines())
    assert row["loss"] == 0.5 and row["time"] >= 0
    assert "update 1/1: loss 0.5" in capsys.readouterr().out


def test_skipped_updates_end_the_run(tmp_path):
    journal = Journal(Options(name="a", runs_dir=tmp_path))
    journal.log({"update": 1}, 9, skipped_in_a_row=2.0)
    with pytest.raises(RunError, match="3 updates in a row"):
        journal.log({"update": 2}, 9, skipped_in_a_row=3.0)
