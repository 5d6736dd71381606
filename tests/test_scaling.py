"""scripts/scaling.py: a step on many cards, against sums by hand."""

import sys
from dataclasses import replace
from itertools import pairwise

import pytest
import tyro
from conftest import ROOT

sys.path.append(str(ROOT / "scripts"))
from measured_machine import Machine, fit, line_through, rows_of, workload
from scaling import CARDS, Options, compare, generation, lengths, main, pass_seconds, step

SMALL = Options(parameters=1.0, kv_bytes=0, responses=8, mean_tokens=10, slots=2, bandwidth=2e9, reached=1.0, updates=1)
"""A pass takes a second: 1e9 parameters of 2 bytes, 2e9 bytes a second, and no cache."""

RUNS = ROOT / "tests" / "scaling_runs"
ONE = [RUNS / f"one-process-{responses}-responses.jsonl" for responses in (32, 64)]
TWO = RUNS / "two-ranks-64-responses.jsonl"
"""Runs of 7 steps on two cores that did nothing else, with OMP_NUM_THREADS=1, so that a rank has one core: a random
Qwen2 of 4 layers and 4.0M parameters, --algo dr_grpo, --responses-per-problem 8, at most 64 tokens; of their rows, what
the script reads. Between two processes of that machine measure_link.py has found the rate and the latency below."""
MACHINE = [
    "--parameters",
    "0.004003",
    "--layers",
    "4",
    "--updates",
    "1",
    "--micro-batch-tokens",
    "4096",
    "--slots",
    "64",
]
MACHINE += ["--max-tokens", "64", "--in-node", "8.86e8", "--latency", "4.2e-4"]


def test_generation_by_hand():
    assert pass_seconds(SMALL, 100) == 1.0
    # Two slots: 5 and 3 start; after 3 the 4 starts, which ends after 7; the 1 starts after 5, and ends after 6.
    assert generation(SMALL, [5, 3, 4, 1]) == 7.0
    assert generation(replace(SMALL, slots=1), [5, 3, 4, 1]) == 13.0
    assert generation(SMALL, []) == 0.0


def test_a_step_by_hand():
    options = replace(SMALL, operations=8e9, busy=1.0, in_node=1e30, across=1e30)
    one = step(options, 1, [5, 3, 4, 1])
    assert (one.generate, one.waited, one.exchange) == (7.0, 0.0, 0.0)
    assert one.update == pytest.approx(8 * 1e9 * 13 / 8e9) and one.longest == 5.0
    two = step(options, 2, [5, 3, 4, 1])  # ranks have 5 and 4, 3 and 1
    assert (two.generate, two.waited) == (5.0, 1.0) and two.update == one.update / 2


def test_no_number_of_cards_is_faster_than_the_longest_response():
    options = Options(responses=2048)
    drawn = lengths(options)
    steps = [step(options, cards, drawn) for cards in CARDS]
    assert all(one.whole >= other.whole for one, other in pairwise(steps))
    few = replace(options, slots=1)
    assert step(few, 1024, drawn).generate >= max(drawn) * pass_seconds(options, 0)
    assert drawn == lengths(options) and max(drawn) <= options.max_tokens


def test_the_command_says_where_it_ends(capsys):
    assert main(["--responses", "1024"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n| ") == len(CARDS) + 1 and "by arithmetic" in said and "prime-rl" in said


def test_a_measured_machine_by_hand():
    """Two runs of one process: 10 passes over 4 and 8 responses; a pass takes 0.1 s and 0.05 s a response."""
    rows = [
        {
            "tokens": 10.0 * size,
            "tokens_per_pass": float(size),
            "length/mean": 10.0,
            "length/p95": 10.0,
            "time/generate": 1.0 + 0.5 * size,
            "time/update": 0.2 + 0.03 * 10 * size,
            "time/sync": 0.25,
            "time/step": 1.55 + 0.8 * size,
        }
        for size in (4, 8)
    ]
    machine = fit([rows[:1], rows[1:]])
    expected = Machine(a_pass=0.1, a_response=0.05, an_update=0.2, a_token=0.03, sync=0.25, rest=0.1)
    for name, value in vars(expected).items():
        assert getattr(machine, name) == pytest.approx(value), name
    assert workload(rows[:1]) == {"responses": 4, "mean_tokens": 10.0, "spread": pytest.approx(0.0)}

    options = replace(SMALL, in_node=4e9, latency=0.01, layers=4)
    one, two = (step(options, ranks, [10] * 8, machine) for ranks in (1, 2))
    assert one.generate == pytest.approx(10 * (0.1 + 2 * 0.05) * 4)  # two slots: four rounds of ten passes
    assert two.generate == pytest.approx(one.generate / 2) and one.rest == two.rest == pytest.approx(0.1)
    assert one.update == pytest.approx(0.2 + 0.03 * 80)
    assert two.update == pytest.approx(0.2 + 0.03 * 40 + 12 * 1e9 / 4e9 + 3 * 5 * 0.01)
    assert one.sync == pytest.approx(0.25) and two.sync == pytest.approx(0.25 + 4e9 / 4e9)


def test_where_nothing_tells_two_causes_apart_the_first_is_taken():
    assert line_through([(1.0, 2.0, 3.0), (2.0, 4.0, 6.0)]) == (pytest.approx(3.0), 0.0)
    assert line_through([(1.0, 1.0, 3.0), (1.0, 2.0, 2.0)])[1] == 0.0  # more for less: no cost is below 0
    assert line_through([(1.0, 1.0, 1.0), (1.0, 2.0, 4.0)])[0] == 0.0


def test_from_one_process_it_predicts_what_two_ranks_took():
    options = tyro.cli(Options, args=["--compared", str(TWO), *MACHINE])
    found = compare(options, fit([rows_of(path) for path in ONE]))
    for stage in ("generate", "update", "step"):
        predicted, measured = found[stage]
        assert predicted == pytest.approx(measured, rel=0.25), stage
    # Two ranks put the weights together tensor by tensor, and pass the probe together. That is not reckoned with.
    assert 0.5 < found["sync"][0] / found["sync"][1] < 1
    # A guard: two ranks that took as long as one process would not do.
    assert found["step"][1] < 0.75 * rows_of(ONE[1])[-1]["time/step"]


def test_the_command_compares(capsys):
    assert main(["--measured", *map(str, ONE), "--compared", str(TWO), *MACHINE]) == 0
    said = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in said.splitlines()[2:]] == ["| generate", "| update", "| sync", "| step"]
    with pytest.raises(SystemExit, match="needs --measured"):
        main(["--compared", str(TWO)])
    assert main(["--measured", *map(str, ONE), "--responses", "64", "--mean-tokens", "55", *MACHINE]) == 0
    assert "one process as measured in 2 run(s)" in capsys.readouterr().out
