"""scripts/benchmark.py: its table by numbers computed by hand, the rule for disturbed runs, and a real run of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "scripts"))

import benchmark  # noqa: E402
import benchmark_load  # noqa: E402
from benchmark_load import Clock, busy_seconds, share_of_others  # noqa: E402
from benchmark_profile import Clocks  # noqa: E402
from benchmark_shapes import PROMPT_TOKENS, SHAPES, make_tokenizer, prompts, reward  # noqa: E402
from benchmark_table import comparison, division, faults, ratios, spread  # noqa: E402

WORK = {
    "steps": 3, "updates": 3, "responses": [8], "prompt_tokens": [32], "response_tokens": [8],
    "uniform_groups": 0.0, "weights_moved": True, "engine_gap": 1e-6,
}  # fmt: skip


def line(side, seconds, **more):
    """A child's JSON line. Half of a step is generation, a quarter the update."""
    stages = {"generate": seconds / 2, "verify": 0.0, "update": seconds / 4, "sync": 0.0}
    given = {"side": side, "step_seconds": seconds, "stages": stages, "tokens_per_second": 1200 / seconds, "work": WORK}
    return given | {"start_seconds": 10.0, "memory_gib": 1.5, "helpers_gib": 0.0, "precision": "float32"} | more


# Ratios of the pairs: 3/2, 8/4, 3/1. Their median is 2, while the ratio of the medians, 3 and 2, would be 1.5.
PAIRS = [
    {"ours": line("ours", 2.0, helpers_gib=0.25), "trl-vllm": line("trl-vllm", 3.0)},
    {"ours": line("ours", 4.0, helpers_gib=0.25), "trl-vllm": line("trl-vllm", 8.0)},
    {"ours": line("ours", 1.0, helpers_gib=0.25), "trl-vllm": line("trl-vllm", 3.0)},
]


# The table -------------------------------------------------------------------------------------------------------


def test_medians_and_ratios_of_pairs():
    assert ratios(PAIRS, "trl-vllm", "step_seconds") == [1.5, 2.0, 3.0]
    rows = comparison({"S1": PAIRS}, ["ours", "trl-vllm"]).splitlines()
    assert rows[2] == "| S1 | this project | 2.00 | 1 | 600 | 10.0 | 1.50 + 0.25 | 3 |"
    assert rows[3] == "| S1 | TRL, vLLM | 3.00 | 2.00 (1.50 to 3.00) | 400 | 10.0 | 1.50 | 3 |"
    rows = division({"S1": PAIRS}, ["ours", "trl-vllm"]).splitlines()
    assert rows[2] == "| S1 | this project | 1.000 | 0.000 | 0.500 | 0.000 | 0.500 |"
    assert rows[3] == "| S1 | TRL, vLLM | 1.500 | 0.000 | 0.750 | 0.000 | 0.750 |"


def test_a_pair_that_lacks_a_side_has_no_ratio():
    pairs = [{"ours": PAIRS[0]["ours"]}, {"trl-vllm": PAIRS[1]["trl-vllm"]}, PAIRS[2]]
    assert ratios(pairs, "trl-vllm", "step_seconds") == [3.0]
    rows = comparison({"S1": pairs}, ["ours", "trl-vllm"]).splitlines()
    assert rows[2].startswith("| S1 | this project | 1.50 |") and rows[2].endswith("| 2 |")
    assert rows[3] == "| S1 | TRL, vLLM | 5.50 | 3.00 | 275 | 10.0 | 1.50 | 2 |"
    rows = comparison({"S1": [{"ours": PAIRS[0]["ours"]}]}, ["ours", "trl-vllm"]).splitlines()
    assert rows[3] == "| S1 | TRL, vLLM | disturbed | - | disturbed | disturbed | disturbed | 0 |"
    assert spread([]) == "-" and spread([2.0]) == "2.00" and spread([1.0, 4.0]) == "2.50 (1.00 to 4.00)"


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"updates": 6}, "updates is 6, not 3"),
        ({"response_tokens": [7, 8]}, "response_tokens is [7, 8], not [8]"),
        ({"prompt_tokens": [33]}, "prompt_tokens is [33], not [32]"),
        ({"weights_moved": False}, "the weights have not moved"),
        ({"uniform_groups": 0.6}, "most groups have equal rewards"),
        ({"engine_gap": 9e-4}, "no sync?"),  # what TRL's sampler comes to in 5 steps without its sync, on `tiny`
        ({"engine_gap": float("nan")}, "no sync?"),
    ],
)
def test_other_work_is_a_fault(changed, said):
    expected = benchmark.expected(SHAPES["tiny"], steps=None)
    assert faults(line("ours", 1.0), expected) == []
    (found,) = faults(line("ours", 1.0, work=WORK | changed), expected)
    assert said in found


# The rule --------------------------------------------------------------------------------------------------------

STAT = "cpu  1000 200 300 9000 500 10 20 70 400 0\ncpu0 1 0 0 0 0 0 0 0 0 0\ncpu1 1 0 0 0 0 0 0 0 0 0\nintr 5\n"


def test_time_that_is_idle_or_waits_for_a_disk_is_not_busy_and_guests_count_once():
    assert busy_seconds(STAT, ticks=100) == (16.0, 2)  # 1000 + 200 + 300 + 10 + 20 + 70 ticks
    for other in ("", "cpu\n", "intr 5\n"):
        with pytest.raises(ValueError):
            busy_seconds(other, ticks=100)


def test_the_share_of_others_is_of_all_cores():
    before = Clock(wall=100.0, busy=50.0, own=5.0, cores=2)
    # 10 s of 2 cores; 13 s busy, of which 12 were ours: 1 of 20.
    assert share_of_others(before, Clock(wall=110.0, busy=63.0, own=17.0, cores=2)) == pytest.approx(0.05)
    assert share_of_others(before, Clock(wall=110.0, busy=61.0, own=17.0, cores=2)) == 0.0


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs /proc/stat")
def test_a_child_that_was_waited_for_is_not_another_process():
    before = benchmark_load.now()
    code = "import time\nend = time.process_time() + 1\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    after = benchmark_load.now()
    assert after.own - before.own >= 1.0 and after.busy - before.busy >= 0.9


def tried(monkeypatch, tmp_path, shares, **options):
    """(result, notes, runs made) of one side, where the runs are disturbed by these shares."""
    made = []
    monkeypatch.setattr(benchmark, "child", lambda *call: (made.append(call), json.dumps(line("ours", 1.0)))[1])
    moments = [moment for share in shares for moment in (Clock(0.0, 0.0, 0.0, 2), Clock(10.0, 20 * share, 0.0, 2))]
    monkeypatch.setattr(benchmark_load, "now", lambda: moments.pop(0))
    notes, settings = [], benchmark.Options(results=tmp_path / "results.jsonl", **options)
    return benchmark.measured("ours", "tiny", tmp_path, settings, 0, notes), notes, len(made)


def test_a_disturbed_run_is_repeated_twice_at_most_and_named(monkeypatch, tmp_path):
    result, notes, runs = tried(monkeypatch, tmp_path, [0.2, 0.04])
    assert result["others"] == pytest.approx(0.04) and runs == 2
    assert notes == ["thrown away: tiny, this project, run 1, disturbed (others took 20.0% of the cores)"]
    result, notes, runs = tried(monkeypatch, tmp_path, [0.2, 0.06, 0.051, 0.0])
    assert result is None and runs == len(notes) == 3
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 5  # every run, also those thrown away


def test_a_disturbed_run_can_be_kept_and_is_named(monkeypatch, tmp_path):
    result, notes, runs = tried(monkeypatch, tmp_path, [0.2], keep_disturbed=True)
    assert result["others"] == pytest.approx(0.2) and runs == 1 and notes[0].startswith("kept: tiny")


# The work --------------------------------------------------------------------------------------------------------


def test_the_reward_differs_and_every_prompt_and_id_is_what_it_counts_for():
    tokenizer = make_tokenizer(320)
    assert len(tokenizer) == 320 and {len(ids) for ids in tokenizer(prompts())["input_ids"]} == {PROMPT_TOKENS}
    assert all(tokenizer.decode([token]) for token in range(2, 320))
    assert reward("a") == 67 / 256 and len({reward(prompt) for prompt in prompts()}) > 100  # crc32("a") is 0xE8B7BE43


def test_as_few_passes_an_update_as_both_sides_have_room_for():
    assert {name: shape.rows_of_a_pass for name, shape in SHAPES.items()} == {"S1": 64, "S2": 32, "S3": 32, "tiny": 8}
    assert 32 * 160 <= 8192 < 64 * 160  # S2


def test_without_trl_ours_runs_alone_and_says_so(monkeypatch):
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    sides, notes = benchmark.sides_here("both")
    assert sides == ["ours"] and "TRL is not installed" in notes[0]


def test_the_parts_of_a_profile_do_not_count_what_is_called_elsewhere():
    clocks = Clocks()
    inner = clocks.around("update/forward", lambda: None)
    update = clocks.around("update", inner)
    other = clocks.around("sync", inner)
    nested = clocks.around("generate", update)
    for call in (inner, update, update, other, nested):
        call()
    assert clocks.calls == {"update": 2, "update/forward": 2, "sync": 1, "generate": 1}
    assert clocks.running == []


def test_a_real_run_of_ours(tmp_path):
    """With transformers' generation, which starts in seconds."""
    results = tmp_path / "results.jsonl"
    flags = "--shapes tiny --alternations 1 --steps 2 --trl none --engine hf --keep-disturbed --results"
    command = [sys.executable, ROOT / "scripts" / "benchmark.py", *flags.split(), results]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads(results.read_text())
    assert min(result["stages"][stage] for stage in ("generate", "verify", "update")) > 0
    assert sum(result["stages"].values()) < result["step_seconds"]
    assert result["tokens_per_second"] == pytest.approx(8 * 8 / result["step_seconds"])
    assert 0 < result["step_seconds"] < result["start_seconds"] and 0.2 < result["memory_gib"] < 4
    assert result["work"]["updates"] == 3 and result["work"]["response_tokens"] == [8] and result["sampler"] == "hf"
    assert f"| tiny | this project | {result['step_seconds']:.2f} | 1 |" in done.stdout
    assert f"{os.cpu_count()} cores" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]  # nothing is left


def test_what_ends_the_benchmark_leaves_no_process_and_no_folder(tmp_path):
    command = [sys.executable, ROOT / "scripts" / "benchmark.py", "--shapes", "S1", "--trl", "none"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    while not (children.read_text() and list(tmp_path.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    (child,) = children.read_text().split()
    process.terminate()
    assert process.wait(30) == 143
    assert not Path(f"/proc/{child}").exists() and not list(tmp_path.iterdir())
