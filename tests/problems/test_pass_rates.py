"""grpo/problems/pass_rates.py: rates as an evaluation wrote them, and which problems they leave to train on."""

import json
from pathlib import Path

import pytest
from small_runs import HF, run

from grpo.errors import UserError
from grpo.evaluate import main as evaluate
from grpo.evaluation.results import read_results
from grpo.problems.pass_rates import keep, read_pass_rates
from grpo.resolve import parse
from grpo.rows_of_run import check_data

ROWS = [{"problem": f"{i}+1=", "answer": str(i + 1)} for i in range(6)]


def write(path, rows, correct):
    """A file of results of four responses, so many of which are correct."""
    results = [
        {"prompt": row["problem"], "answer": row["answer"], "responses": [{"correct": i < n} for i in range(4)]}
        for row, n in zip(rows, correct, strict=True)
    ]
    path.write_text("".join(json.dumps(result) + "\n" for result in results))
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def test_both_limits_belong_to_what_is_kept(tmp_path):
    rates = read_pass_rates(write(tmp_path / "r.jsonl", ROWS[:5], [0, 1, 2, 3, 4]))
    assert list(rates.values()) == [0, 0.25, 0.5, 0.75, 1]
    kept = keep(ROWS, rates, 0.25, 0.75)
    assert kept.rows == ROWS[1:4]
    assert str(kept) == "3 of 6 problems kept by pass rate; 1 are harder, 1 easier, 1 not measured"
    other_gold = [{**row, "answer": "0"} for row in ROWS]
    assert keep(other_gold, rates, 0, 1).unmeasured == 6


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--keep-rate", "0.1", "0.9"], "--keep-rate without --pass-rates FILE would do nothing"),
        (["--pass-rates", "r.jsonl"], "--pass-rates without --keep-rate 0.1 0.9 would do nothing"),
        (["--keep-rate", "0.9", "0.1", "--pass-rates", "r.jsonl"], "must be two shares, the lower first"),
        (["--keep-rate", "0", "2", "--pass-rates", "r.jsonl"], "must be two shares"),
        (["--keep-rate", "0.1", "0.9", "--pass-rates", "other.jsonl"], "has none of the 6 problems of p.jsonl"),
        (
            ["--keep-rate", "0.3", "0.4", "--pass-rates", "r.jsonl"],
            "leaves nothing to train on: 0 of 6 .* 3 are harder",
        ),
        (["--keep-rate", "0.1", "0.9", "--pass-rates", "p.jsonl"], "p.jsonl, line 1 .*a result of an evaluation"),
        (["--keep-rate", "0.1", "0.9", "--pass-rates", "none.jsonl"], "none.jsonl cannot be read"),
    ],
)
def test_what_is_refused_before_a_library_is_imported(tmp_path, flags, said):
    write(tmp_path / "r.jsonl", ROWS, [0, 0, 1, 2, 2, 4])
    write(tmp_path / "other.jsonl", [{"problem": "9*9=", "answer": "81"}], [2])
    with pytest.raises(UserError, match=said):
        check_data(parse(["--data", "p.jsonl", "--eval-problems", "0", *flags]))


@pytest.mark.slow
def test_measured_by_an_evaluation_and_trained_on(tmp_path, capsys):
    """The train split of a set, measured, leaves to a run the problems between the limits and no other."""
    flags = ["--split", "train", "--problems", "24", "--responses", "4", "--no-greedy", "--engine", "hf", "--out", "m"]
    assert evaluate(flags) == 0
    (path,) = [path for path in Path("m").glob("*.jsonl")]
    between = [result for result in read_results(path) if 0.2 <= result.accuracy <= 0.8]
    capsys.readouterr()
    more = ["--keep-rate", "0.2", "0.8", "--pass-rates", str(path), "--steps", "1"]
    run(tmp_path, *HF, *more)
    assert f"--keep-rate: {len(between)} of " in capsys.readouterr().out
