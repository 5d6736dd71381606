"""Reading runs: whatever a run can have written so far is read, and what is no run is said."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_runs import make_run, row, write_run

from grpo.comparison.runs import find_runs, read_run, samples
from grpo.errors import UserError


def test_rows_config_and_columns(tmp_path):
    rows = [{"step": 0, "eval/accuracy": 0.5}, row(1, 0.25, (10, 1), (20, 3)), row(2, 1.0, (12, 4), (0, 0))]
    run = read_run(write_run(tmp_path / "a", rows, {"seed": 3}))
    assert (run.name, run.steps.tolist(), run.last_step, run.config["seed"]) == ("a", [0, 1, 2], 2, 3)
    np.testing.assert_array_equal(run.column("length/incorrect"), [np.nan, 20, np.nan])
    np.testing.assert_array_equal(run.column("eval/accuracy"), [0.5, np.nan, np.nan])
    assert not run.partial


def test_metrics_alone_are_enough(tmp_path):
    assert read_run(write_run(tmp_path / "a", [row(1, 0.5, (1, 1), (1, 1))])).config is None


@pytest.mark.parametrize("end", ['{"step": 2, "reward/m', '{"step": 2, "x": "\\ud8', "{"])
def test_a_line_being_written_is_left_out(tmp_path, end):
    run = read_run(write_run(tmp_path / "a", [row(1, 0.5, (1, 1), (1, 1))], end=end))
    assert run.steps.tolist() == [1] and run.partial


@pytest.mark.parametrize("line", ["{", "[1]", '"step"', '{"reward/mean": 1}', '{"step": null}', '{"step": Infinity}'])
def test_a_broken_line_in_the_middle_is_named(tmp_path, line):
    folder = write_run(tmp_path / "a", [])
    (folder / "metrics.jsonl").write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 is .*Remove the line"):
        read_run(folder)


def test_of_a_step_made_twice_the_later_values_count(tmp_path):
    """As by a logger that appends where a resumed run starts over, or one that logs evaluations by themselves."""
    rows = [{"step": 1, "a": 1}, {"step": 2, "a": 2}, {"step": 2, "a": 3}, {"step": 1, "b": 4}]
    run = make_run(tmp_path / "a", rows)
    assert run.steps.tolist() == [1, 2]
    assert run.column("a").tolist() == [1, 3] and run.column("b")[0] == 4


def test_what_is_not_a_finite_number_is_missing(tmp_path):
    run = make_run(tmp_path / "a", [{"step": i, "x": x} for i, x in enumerate([math.nan, math.inf, None, "1", 2])])
    np.testing.assert_array_equal(run.column("x"), [np.nan] * 4 + [2])


def test_tokens_spent_add_up_and_stop_at_a_gap(tmp_path):
    rows = [
        {"step": 0},
        {"step": 1, "tokens": 5.0},
        {"step": 2, "tokens": 4.0, "tokens_dropped": 3.0},
        {"step": 3},
        {"step": 4, "tokens": 1.0},
    ]
    np.testing.assert_array_equal(make_run(tmp_path / "a", rows).tokens_spent, [0, 5, 12, np.nan, np.nan])


def test_response_counts_are_solved_from_the_means(tmp_path):
    steps = [
        row(1, 0, (10, 5), (30, 3)),
        row(2, 0, (10, 8), (0, 0)),
        row(3, 0, (0, 0), (7, 8)),
        row(4, 0, (9, 6), (9, 2)),
    ]
    counts = make_run(tmp_path / "a", [{"step": 0}, *steps]).response_counts
    np.testing.assert_array_equal(counts["length/incorrect"][:4], [np.nan, 3, 0, 8])
    np.testing.assert_array_equal(counts["length/correct"][:4], [np.nan, 5, 8, 0])
    assert counts["length/incorrect"][4] == 8  # equal lengths: the neighbouring step's share


def test_response_counts_are_unknown_without_tokens(tmp_path):
    rows = [{key: value for key, value in row(1, 0, (10, 5), (30, 3)).items() if key != "tokens"}]
    assert np.isnan(make_run(tmp_path / "a", rows).response_counts["length/correct"]).all()


@given(st.lists(st.tuples(st.integers(1, 4000), st.booleans()), min_size=2, max_size=64))
def test_response_counts_are_those_of_any_step(tmp_path_factory, responses):
    """From means in single precision, as torch logs them."""
    correct, incorrect = ([length for length, c in responses if c is which] for which in (True, False))
    mean = [float(np.mean(lengths, dtype=np.float32)) if lengths else None for lengths in (correct, incorrect)]
    if None not in mean and abs(mean[0] - mean[1]) < 0.05:
        return  # not to be told from their mean
    logged = {
        "step": 1,
        "tokens": float(sum(correct + incorrect)),
        "length/mean": float(np.mean(correct + incorrect, dtype=np.float32)),
        "length/correct": mean[0],
        "length/incorrect": mean[1],
    }
    counts = make_run(tmp_path_factory.mktemp("runs") / "a", [logged]).response_counts
    assert (counts["length/correct"][0], counts["length/incorrect"][0]) == (len(correct), len(incorrect))


def test_runs_are_found_by_folder_file_parent_and_pattern(tmp_path):
    a, b = (write_run(tmp_path / name, [row(1, 0, (1, 1), (1, 1))]) for name in ("a-1", "b[1]"))
    (tmp_path / "figures").mkdir()
    assert find_runs([str(b), str(a / "metrics.jsonl")]) == [b, a]
    assert find_runs([str(tmp_path)]) == [a, b]
    assert find_runs([str(tmp_path / "a*"), str(tmp_path)]) == [a, b]  # each once, in order


@pytest.mark.parametrize("argument", ["nothing", "figures", "none-*"])
def test_no_run_is_said(tmp_path, argument):
    (tmp_path / "figures").mkdir()
    with pytest.raises(UserError, match="There is no run at"):
        find_runs([str(tmp_path / argument)])
    with pytest.raises(UserError, match="Name the runs"):
        find_runs([])


def test_a_broken_config_is_said(tmp_path):
    folder = write_run(tmp_path / "a", [row(1, 0, (1, 1), (1, 1))])
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        read_run(folder)


def test_samples_without_the_line_being_written(tmp_path):
    run = make_run(tmp_path / "a", [row(1, 0, (1, 1), (1, 1))])
    assert samples(run) == []
    (run.folder / "samples.jsonl").write_text(json.dumps({"step": 1, "response": "x"}) + '\n{"step": 2, "resp')
    assert samples(run) == [{"step": 1, "response": "x"}]


@pytest.mark.parametrize("line", ["{", "[1]", '{"response": "x"}', '{"step": Infinity}'])
def test_a_broken_sample_is_said_with_its_line(tmp_path, line):
    run = make_run(tmp_path / "a", [row(1, 0, (1, 1), (1, 1))])
    (run.folder / "samples.jsonl").write_text('{"step": 1}\n' + line + "\n")
    with pytest.raises(UserError, match=r"samples.jsonl, line 2 is .*Remove the line"):
        samples(run)


def test_a_number_beyond_floats_is_no_value(tmp_path):
    rows = [{"step": 1, "reward/mean": 10**400}, {"step": 2, "reward/mean": -math.inf}, {"step": 3, "reward/mean": 1}]
    np.testing.assert_array_equal(make_run(tmp_path / "a", rows).column("reward/mean"), [np.nan, np.nan, 1.0])
