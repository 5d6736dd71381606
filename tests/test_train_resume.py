"""A run that was begun before: bit for bit the uninterrupted one, of an earlier version, or done already."""

import json

import pytest
import torch
from safetensors.torch import load_file
from small_runs import HF, SMALL, rows, run, same_end, timeless

from grpo.train import main


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, capsys):
    flags = ["--algo", "grpo", "--steps", "4", "--save-every", "2", "--updates-per-step", "2", "--eval-every", "2"]
    flags += ["--verifier-workers", "2"]
    whole = run(tmp_path, *flags, name="whole")
    # The other run ends after step 3, beyond its last checkpoint, as an interrupted one would.
    part = run(tmp_path, *[*flags[:3], "3", *flags[4:]], name="part")
    for place in ("metrics.jsonl", "samples.jsonl"):
        assert '"step": 3' in (part / place).read_text()
    assert {path.name for path in whole.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    assert {path.name for path in part.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-3"}
    (part / "checkpoint-3" / "trainer_state.pt").write_bytes(b"half of it")
    capsys.readouterr()
    assert main(["--name", "part", "--resume", "--steps", "4"]) == 0
    said = capsys.readouterr().out
    assert "passed over: checkpoint-3 trainer_state.pt is not what was written" in said
    changes = [line for line in said.splitlines() if line.startswith("resumed with")]
    assert changes == ["resumed with another value: --steps 4, was 3"]
    expected, found = (load_file(folder / "model" / "model.safetensors") for folder in (whole, part))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    # The evaluation after step 3 was that run's last; everything else is row for row the same.
    assert [timeless(row) for row in rows(part)] == [timeless(row) for row in rows(whole)]
    assert (part / "samples.jsonl").read_text() == (whole / "samples.jsonl").read_text()


def test_the_order_of_generation_goes_on_too(tmp_path):
    """Eight of a step's 16 responses wait, so that problems are sorted by their lengths of the pass before."""
    sums = [{"problem": f"{a}+{b}=", "answer": str(a + b)} for a, b in ((1, 2), (97, 88), (3, 4), (12, 9), (55, 66))]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums))
    flags = ["--data", "sums.jsonl", "--engine", "hf", "--save-every", "2", "--eval-problems", "0", "--steps"]
    whole = run(tmp_path, "--concurrency", "8", *flags, "4", name="whole")
    part = run(tmp_path, "--concurrency", "8", *flags, "2", name="part")
    assert main(["--name", "part", "--resume", "--steps", "4"]) == 0
    same_end(whole, part)
    unsorted = run(tmp_path, *flags, "4", name="unsorted")  # all 16 at once
    asked = [[row["prompt"] for row in map(json.loads, (f / "samples.jsonl").open())] for f in (whole, unsorted)]
    assert asked[0] != asked[1]


def test_a_run_of_an_earlier_version_is_resumed_without_a_word(tmp_path, capsys):
    """Its config.json spells the advantage as it was spelled, and has the cap that is now the default's."""
    flags = ["--algo", "grpo", "--save-every", "1", "--engine", "hf", "--eval-problems", "0"]
    folder = run(tmp_path, *flags, "--steps", "1")
    config = json.loads((folder / "config.json").read_text())
    new = {"importance", "importance_low", "old_kl_coef", "old_kl_target", "kl_horizon", "dual_clip", "uniform_groups"}
    old = {name: value for name, value in config.items() if name not in new}
    old |= {"advantage": "group_normalised", "importance_cap": 2.0}
    (folder / "config.json").write_text(json.dumps(old))
    capsys.readouterr()
    assert main([*SMALL, "--name", "run", *flags, "--steps", "1", "--resume"]) == 0
    assert "resumed with another value" not in capsys.readouterr().out


def test_fewer_steps_than_were_done_are_refused_and_as_many_are_nothing_to_do(tmp_path, capsys):
    folder = run(tmp_path, *HF, "--steps", "2", "--save-every", "1")
    before = rows(folder)
    assert main(["--name", "run", "--resume", "--steps", "1"]) == 2
    assert "--steps 1, but the run run has done 2" in capsys.readouterr().err
    assert main(["--name", "run", "--resume"]) == 0 and rows(folder) == before
