"""A resumed run notices that what it is trained on has changed (grpo/trained_on.py), and only then."""

import json
from pathlib import Path

import pytest
from small_runs import rows, run, same_end

from grpo.train import main

SUMS = [{"problem": f"{a}+{b}=", "answer": str(a + b), "id": a} for a, b in ((1, 2), (97, 8), (3, 4), (12, 9), (5, 6))]
FLAGS = ["--data", "sums.jsonl", "--engine", "hf", "--eval-problems", "0", "--save-every", "2", "--log-samples", "4"]
PTX = ["--ptx-data", "texts.jsonl", "--ptx-coef", "0.05", "--ptx-per-update", "2"]
RATES = ["--keep-rate", "0.2", "0.8", "--pass-rates", "rates.jsonl"]


def write(name, values):
    Path(name).write_text("".join(json.dumps(value) + "\n" for value in values))


def rates(correct):
    """A file of results of four responses to each sum, so many of which are correct."""
    return [
        {"prompt": row["problem"], "answer": row["answer"], "responses": [{"correct": i < n} for i in range(4)]}
        for row, n in zip(SUMS, correct, strict=True)
    ]


@pytest.fixture(autouse=True)
def inside_a_folder_with_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("sums.jsonl", SUMS)
    write("rates.jsonl", rates([0, 1, 2, 3, 4]))
    write("texts.jsonl", [{"text": f"{a}+1={a + 1}"} for a in range(2, 9)])
    Path("mine.txt").write_text("{problem}\n")


def resume(*flags):
    return main(["--name", "run", "--resume", *flags])


def refused(capsys, *flags):
    """The one paragraph of a resume that is refused."""
    capsys.readouterr()
    assert resume(*flags) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1, said
    return said


def test_a_run_is_resumed_bit_for_bit_where_pass_rates_have_kept_some_of_its_problems(tmp_path):
    """With documents and a template of one's own: all that has a fingerprint."""
    flags = [*FLAGS, *RATES, *PTX, "--template", "mine.txt"]
    whole = run(tmp_path, *flags, "--steps", "4", name="whole")
    part = run(tmp_path, *flags, "--steps", "2")
    before = json.loads((part / "config.json").read_text())["trained_on"]
    assert set(before) == {"problems", "documents", "template"} and len(set(before.values())) == 3
    assert resume("--steps", "4") == 0
    same_end(whole, part)
    asked = {row["prompt"] for row in map(json.loads, (part / "samples.jsonl").open())}
    assert asked <= {row["problem"] for row in SUMS[1:4]}
    assert json.loads((part / "config.json").read_text())["trained_on"] == before
    assert json.loads((whole / "config.json").read_text())["trained_on"] == before


def test_what_has_changed_is_named_before_a_model_is_loaded(tmp_path, capsys, monkeypatch):
    folder = run(tmp_path, *FLAGS, *RATES, *PTX, "--template", "mine.txt", "--steps", "2")
    config, before = (folder / "config.json").read_text(), rows(folder)
    monkeypatch.setattr("grpo.setup.make_policy", lambda *_: pytest.fail("a model is loaded"))
    changes = {
        "sums.jsonl": [SUMS[0], SUMS[1], {**SUMS[2], "answer": "8"}, *SUMS[3:]],
        "rates.jsonl": rates([0, 1, 2, 4, 4]),
        "texts.jsonl": [{"text": "another"}],
    }
    named = {"sums.jsonl": "--data sums.jsonl", "rates.jsonl": "--pass-rates rates.jsonl keeps some"}
    named["texts.jsonl"] = "--ptx-data texts.jsonl."
    for name, changed in changes.items():
        kept = Path(name).read_text()
        write(name, changed)
        if name == "sums.jsonl":  # its rate is that of the gold answer it had
            write("rates.jsonl", [*rates([0, 1, 2, 3, 4]), {**rates([0, 1, 2, 3, 4])[2], "answer": "8"}])
        said = refused(capsys, "--steps", "4")
        assert "what the run run is trained on has changed since it began" in said and named[name] in said
        assert "Bring the content back" in said and "--model runs/run/model" in said
        assert ("--ptx-data" in said) == (name == "texts.jsonl") and "--template" not in said
        Path(name).write_text(kept)
        write("rates.jsonl", rates([0, 1, 2, 3, 4]))
    Path("mine.txt").write_text("Q: {problem}\n")
    assert "has changed since it began: --template mine.txt." in refused(capsys, "--steps", "4")
    assert (folder / "config.json").read_text() == config and rows(folder) == before  # nothing was touched


def test_the_order_of_the_problems_counts_and_what_nobody_reads_does_not(tmp_path, capsys):
    run(tmp_path, *FLAGS, "--steps", "1", "--save-every", "1")
    write("sums.jsonl", SUMS[::-1])
    assert "--data sums.jsonl (its prompts, or columns that the verifiers read)" in refused(capsys, "--steps", "2")
    write("sums.jsonl", [{"note": "new", **dict(reversed(row.items())), "id": 0} for row in SUMS])
    assert resume("--steps", "2") == 0


def test_where_a_verifier_takes_all_there_is_every_column_counts(tmp_path, capsys):
    Path("all.py").write_text("def reward(response, **columns): return float(len(columns) > 1)\n")
    run(tmp_path, *FLAGS, "--reward", "./all.py", "--steps", "1", "--save-every", "1")
    write("sums.jsonl", [{**row, "id": 0} for row in SUMS])
    assert "--data sums.jsonl" in refused(capsys, "--steps", "2")


@pytest.mark.parametrize("name", ["sums.jsonl", "rates.jsonl", "texts.jsonl"])
def test_a_file_that_is_gone_is_said_as_ever(tmp_path, capsys, name):
    run(tmp_path, *FLAGS, *RATES, *PTX, "--steps", "1", "--save-every", "1")
    Path(name).unlink()
    assert f"{name} cannot be read" in refused(capsys, "--steps", "2")


def test_a_run_that_has_no_fingerprint_goes_on_and_has_one_afterwards(tmp_path):
    folder = run(tmp_path, *FLAGS, "--steps", "1", "--save-every", "1")
    config = json.loads((folder / "config.json").read_text())
    found = config.pop("trained_on")
    (folder / "config.json").write_text(json.dumps(config))
    assert resume("--steps", "2") == 0
    assert json.loads((folder / "config.json").read_text())["trained_on"] == found
