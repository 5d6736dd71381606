"""What a run trains on and what it holds out: every kind of --data and --eval-data, and whose columns are named."""

import json

import datasets
import pytest
from small_runs import HF, rows, run

from grpo.errors import UserError
from grpo.resolve import parse
from grpo.rows_of_run import check_data, load_data


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """train.csv, with `question` and `gold`; test.jsonl, with the same; other.jsonl, with `text` and `meta.truth`."""
    monkeypatch.chdir(tmp_path)
    sums = [(f"{i}+1=", str(i + 1)) for i in range(40)]
    (tmp_path / "train.csv").write_text("question,gold\n" + "".join(f"{q},{a}\n" for q, a in sums))
    for name, row in {
        "test": lambda q, a: {"question": q, "gold": a},
        "other": lambda q, a: {"text": q, "meta": {"truth": a}},
    }.items():
        lines = [json.dumps(row(q, a)) for q, a in sums[:12]]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


TRAIN = ["--data", "./train.csv", "--problem-column", "question", "--answer-column", "gold"]


def held_out(*flags):
    return load_data(parse([*TRAIN, *flags]))[1]


def test_columns_of_the_training_data_do_not_break_a_set_of_data():
    found = held_out("--eval-data", "arithmetic", "--eval-problems", "3")
    assert list(found) == ["arithmetic"] and len(found["arithmetic"]) == 3
    assert all(row["problem"].endswith("=") and "question" not in row for row in found["arithmetic"])


def test_a_file_has_the_columns_of_the_training_data_unless_others_are_named():
    assert held_out("--eval-data", "./test.jsonl")["test"][1]["answer"] == "2"
    own = ("--eval-problem-column", "text", "--eval-answer-column", "meta.truth")
    (row, *_) = held_out("--eval-data", "./other.jsonl", *own)["other"]
    assert (row["problem"], row["answer"]) == ("0+1=", "1")
    with pytest.raises(
        UserError, match=r"--eval-data ./other.jsonl, row 0: there is no column 'question'. Columns: text, "
    ) as e:
        held_out("--eval-data", "./other.jsonl")
    assert "meta.truth" in str(e.value) and "by --eval-problem-column" in str(e.value)
    with pytest.raises(UserError, match="row 0: --eval-answer-column gold is not a column"):
        held_out("--eval-data", "./other.jsonl", "--eval-problem-column", "text", "--eval-answer-column", "gold")


@pytest.mark.parametrize(
    "more,why", [((), "there is no --eval-data"), (("--eval-data", "parity"), "the sets of data/")]
)
def test_columns_that_name_nothing_are_refused(more, why):
    with pytest.raises(UserError, match=f"--eval-answer-column would do nothing: {why}"):
        check_data(parse([*TRAIN, "--eval-answer-column", "x", *more]))


def test_several_sets_each_with_its_first_problems():
    found = held_out("--eval-data", "arithmetic", "./test.jsonl", "--eval-problems", "5")
    assert {name: len(some) for name, some in found.items()} == {"arithmetic": 5, "test": 5}
    check_data(parse([*TRAIN, "--eval-data", "arithmetic", "./test.jsonl"]))


def test_a_verifier_that_one_of_the_sets_does_not_serve_is_refused():
    (lines := [json.dumps({"question": "q", "answers": "1"})])
    with open("bare.jsonl", "w") as file:
        file.write("\n".join(lines) + "\n")
    with open("needs.py", "w") as file:
        file.write("def reward(response, gold):\n    return 1.0\n")
    flags = [*TRAIN[:4], "--reward", "./needs.py", "--eval-data", "./test.jsonl", "./bare.jsonl"]
    with pytest.raises(UserError, match="requires 'gold', which is not a column"):
        check_data(parse(flags))


def test_without_a_test_split_every_tenth_row_is_held_out():
    rows_, found = load_data(parse(TRAIN))
    assert [row["problem"] for row in found["every tenth row"]] == ["0+1=", "10+1=", "20+1=", "30+1="]
    assert len(rows_) == 36 and not {row["problem"] for row in rows_} & {"0+1=", "10+1="}


def test_a_set_of_the_hub_without_a_test_split_is_treated_as_a_file(monkeypatch):
    """The real library on a folder named as a set of the hub is."""
    import pathlib

    folder = pathlib.Path("org/sums")
    folder.mkdir(parents=True)
    lines = [json.dumps({"problem": f"{i}+1=", "answer": str(i + 1)}) for i in range(20)]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    rows_, found = load_data(parse(["--data", "org/sums"]))
    assert len(found["every tenth row"]) == 2 and len(rows_) == 18
    (folder / "test.jsonl").write_text("\n".join(lines[:3]) + "\n")
    rows_, found = load_data(parse(["--data", "org/sums"]))
    assert (len(rows_), {name: len(some) for name, some in found.items()}) == (20, {"sums": 3})
    rows_, found = load_data(parse(["--data", "org/sums@train"]))  # a named split has no other beside it
    assert (len(rows_), list(found)) == (18, ["every tenth row"])

    def offline(*_):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "get_dataset_split_names", offline)
    with pytest.raises(UserError, match=r"asking the hub for its splits failed \(no network\). Give --eval-data"):
        load_data(parse(["--data", "org/sums"]))


def test_an_empty_flag_is_refused():
    with pytest.raises(UserError, match="--eval-data is given without a value"):
        check_data(parse([*TRAIN, "--eval-data"]))


def test_a_run_on_a_csv_file_measures_several_sets(tmp_path, capsys):
    """Each set's accuracy is that of its own file of results, and the whole is that of all of them."""
    folder = run(
        tmp_path, *TRAIN, *HF, "--eval-data", "arithmetic", "./test.jsonl", "--steps", "1", "--eval-problems", "6"
    )
    row = rows(folder)[-1]
    for name in ("arithmetic", "test"):
        results = (folder / "evaluations" / f"step-000001-{name}.jsonl").read_text().splitlines()
        correct = [json.loads(line)["responses"][0]["correct"] for line in results]
        assert len(correct) == 6 and row[f"eval/{name}/accuracy"] == sum(correct) / 6
    assert row["eval/accuracy"] == pytest.approx((row["eval/arithmetic/accuracy"] + row["eval/test/accuracy"]) / 2)
    printed = capsys.readouterr().out
    assert "12 held out (6 of arithmetic, 6 of test)" in printed and "| test " in printed


def test_correct_at_is_where_a_graded_reward_counts(tmp_path):
    (tmp_path / "half.py").write_text("def reward(response):\n    return 0.5\n")
    at = {}
    for threshold in ("1.0", "0.5"):
        flags = ["--reward", "./half.py", "--correct-at", threshold, "--steps", "1"]
        folder = run(tmp_path, *HF, *flags, "--truncated", "keep", name=f"at-{threshold}")
        at[threshold] = rows(folder)[-1]
    assert at["1.0"]["eval/accuracy"] == 0.0 and at["1.0"]["length/correct"] is None
    assert at["0.5"]["eval/accuracy"] == 1 - at["0.5"]["eval/truncated"] > 0
    assert at["0.5"]["length/incorrect"] is None
    assert at["1.0"]["eval/reward"] == at["0.5"]["eval/reward"] == 0.5
