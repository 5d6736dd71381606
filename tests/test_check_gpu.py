"""scripts/check_gpu.py: what its report says of parts that fail, hang or find nothing; and all of it on the CPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "scripts"))
import check_gpu
import gpu_parts
from gpu_bench import Bench, Part
from gpu_machine import machine
from gpu_parts import shape_for
from gpu_report import cases, failures, metrics_table, outcomes_table, report
from memory_rows import GIB
from timed_command import run


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, "cuda", quick=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def python(bench, code, seconds=60.0):
    """A command of a part, replaced by this program: the injected fault."""
    return lambda name, *_, **__: run(
        [sys.executable, "-c", code], bench.folder / f"{name}.log", seconds, bench.env, ROOT
    )


def gone(pid):
    """Whether a process ends within some seconds: one that is killed takes a moment to."""
    for _ in range(100):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


# The parts ------------------------------------------------------------------------------------------------------------


def test_the_machine_is_described_for_people():
    found = machine()
    assert {"torch", "vllm", "transformers", "driver", "CUDA of torch"} <= set(found) and found["torch"][0].isdigit()
    assert all(isinstance(value, str) and value for value in found.values())


def described(**changes):
    found = machine() | {"vllm": "0.32.0", "card": "NVIDIA H200", "bytes": str(139 * 2**30)} | changes
    return f"print({json.dumps(found)!r})"


def test_a_card_decides_the_shape_and_the_build_of_vllm_the_engine(bench):
    bench.python = python(bench, described())
    part = gpu_parts.what_is_here(bench)
    assert part.well and bench.vllm and bench.shape == "0.5B" and "| card | NVIDIA H200 |" in part.text
    bench.python = python(bench, described(vllm="0.32.0 (for the CPU)"))
    part = gpu_parts.what_is_here(bench)
    assert part.well and not bench.vllm and "No vLLM for this device is installed" in part.text
    assert [shape_for(gib, False) for gib in (139, 44.5, 16)] == ["1.5B", "0.5B", "0.2B"]


def test_without_a_card_nothing_else_is_tried(bench):
    bench.python = python(bench, described(bytes="0"))
    part = gpu_parts.what_is_here(bench)
    assert part.final and not part.well and "torch sees no card" in part.text


def test_a_torch_that_cannot_be_imported_is_shown(bench):
    bench.python = python(bench, "raise OSError('libcudart.so.13: no such file')")
    part = gpu_parts.what_is_here(bench)
    assert not part.well and "exit status 1" in part.text and "libcudart.so.13" in part.text


@pytest.mark.parametrize(
    "junit,well", [("<testcase name='a'/>", True), ("<testcase name='a'><skipped/></testcase>", False)]
)
def test_tests_that_are_all_left_out_show_nothing(bench, junit, well):
    bench.device = "cpu"  # of one file
    (bench.folder / "test_gpu.xml").write_text(f"<testsuite>{junit}</testsuite>")
    bench.python = python(bench, "print('1 test')")
    assert gpu_parts.tests(bench).well == well
    (bench.folder / "test_gpu.xml").unlink()
    bench.python = python(bench, "raise ImportError('no pytest')")
    part = gpu_parts.tests(bench)
    assert "no pytest" in part.text and not part.well


def test_a_file_that_hangs_costs_the_others_nothing(bench, monkeypatch):
    monkeypatch.setattr(gpu_parts, "SECONDS_A_FILE", 3)
    junit = "<testsuite><testcase classname='tests.test_gpu' name='a'/></testsuite>"
    code = f"import pathlib; pathlib.Path({str(bench.folder / 'test_gpu.xml')!r}).write_text({junit!r})"
    passes, hangs = python(bench, code), python(bench, "import time; time.sleep(60)", seconds=3)
    bench.device = "cuda"
    bench.python = lambda name, *rest, **env: (passes if name == "test_gpu" else hangs)(name, *rest, **env)
    part = gpu_parts.tests(bench)
    assert not part.well and part.text.startswith("1 passed, ")
    assert "test_gpu_vllm::all" in part.text and "not run to its end: not done after" in part.text


def test_a_run_that_ends_well_with_bad_words_has_failed(bench):
    (bench.folder / "runs" / "two-steps").mkdir(parents=True)
    rows = [{"step": step, "policy/sync_gap": 0.01} for step in range(3)]
    (bench.folder / "runs" / "two-steps" / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    bench.python = python(bench, "print('done')")
    part = gpu_parts.two_steps(bench)
    assert part.well and "| `policy/sync_gap` | 0.01 | 0.01 |" in part.text
    bench.python = python(bench, "print('CUDA Error: invalid argument at cumem_allocator.cpp:146')")
    part = gpu_parts.two_steps(bench)
    assert not part.well and "cumem_allocator.cpp:146" in part.text


def test_a_run_that_hangs_is_ended_and_shown(bench):
    left = "import time; time.sleep(60)"
    code = (
        f"import os, subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {left!r}]).pid, flush=True); {left}"
    )
    bench.python = python(bench, code, seconds=3)
    bench.model.mkdir()
    part = gpu_parts.memory(bench)
    assert not part.well and "not done after" in part.text
    pid = (bench.folder / "memory.log").read_text().strip()
    assert pid in part.text and gone(int(pid))


@pytest.mark.parametrize("measured,well", [(1.05, True), (1.2, False)])
def test_memory_beyond_the_plan_fails_and_an_estimate_does_not(bench, measured, well):
    rows = [
        {"what": "update", "planned": GIB, "measured": measured * GIB},
        {"what": "vLLM asleep (estimated)", "planned": GIB, "measured": 3 * GIB},
    ]
    said = "\n".join(["a library says hello", *map(json.dumps, rows), "and goodbye"])
    bench.python = python(bench, f"print({said!r})")
    bench.model.mkdir()
    part = gpu_parts.memory(bench)
    assert part.well == well and f"| update | 1.00 | {measured:.2f} | {measured:.2f} |" in part.text
    assert ("above what was planned: update." in part.text) != well
    bench.python = python(bench, f"print({said!r}); raise ValueError('Free memory on device is less')")
    part = gpu_parts.memory(bench)  # what was measured before is shown
    assert not part.well and "| update | 1.00 |" in part.text and "Free memory on device" in part.text


def test_parts_that_need_the_model_say_that_it_is_missing(bench):
    assert "There is no model" in gpu_parts.memory(bench).text and "There is no model" in gpu_parts.update(bench).text
    bench.python = python(bench, "raise MemoryError")
    assert "the model could not be written" in gpu_parts.two_steps(bench).text


# The report -----------------------------------------------------------------------------------------------------------

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.test_gpu" name="test_a[cuda|x]" time="1.25"/>
<testcase classname="tests.test_gpu" name="test_b" time="2"><failure message="m">line
assert 1 == 2</failure></testcase>
<testcase classname="tests.test_gpu" name="test_c" time="0"><skipped message="no torchao"/></testcase>
<testcase classname="tests.test_gpu" name="test_d" time="0"><error message="m">a fixture</error></testcase>
</testsuite></testsuites>"""


def test_every_test_is_in_the_table_and_failures_are_quoted(tmp_path):
    path = tmp_path / "tests.xml"
    path.write_text(JUNIT)
    assert [outcome for _, outcome, _, _ in cases(path)] == ["passed", "failed", "skipped", "failed"]
    text = outcomes_table(cases(path))
    assert (
        text.startswith("1 passed, 2 failed, 1 skipped") and r"| test_gpu::test_a[cuda\|x] | passed | 1.2 |  |" in text
    )
    assert "| skipped | 0.0 | no torchao |" in text
    assert failures(cases(path)) == [("test_gpu::test_b", "line\nassert 1 == 2"), ("test_gpu::test_d", "a fixture")]


def test_metrics_are_shown_by_step():
    rows = [{"step": 0, "eval/accuracy": 0.0}, {"step": 1, "tokens": 12345.0}, {"step": 2, "policy/kl": None}]
    assert metrics_table(rows).splitlines()[0] == "| metric | step 1 | step 2 |"
    assert "| `tokens` | 1.234e+04 |  |" in metrics_table(rows) and "policy/kl" not in metrics_table(rows)


def test_the_outcome_comes_first():
    text = report({"One": Part(True, "fine"), "Two": Part(False, "bad", seconds=3.0)}, "the command")
    assert text.startswith("# GPU check: FAILED") and "| Two | FAILED | 3 |" in text
    assert text.index("| Two |") < text.index("## One") < text.index("fine") < text.index("## Two")


# The command ----------------------------------------------------------------------------------------------------------


def check(monkeypatch, tmp_path, parts, *flags):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check_gpu, "PARTS", parts)
    monkeypatch.setattr(sys, "argv", ["check_gpu.py", *flags])
    return check_gpu.main()


def raising(bench):
    raise KeyError("steps")


def interrupted(bench):
    raise KeyboardInterrupt


def test_a_part_that_fails_ends_no_other_and_one_without_hope_does(tmp_path, monkeypatch, capsys):
    parts = {"A": raising, "B": lambda bench: Part(True, "b is fine")}
    assert check(monkeypatch, tmp_path, parts) == 1
    text = (tmp_path / "gpu-check" / "report.md").read_text()
    assert "KeyError: 'steps'" in text and "b is fine" in text and text in capsys.readouterr().out
    parts = {"A": lambda bench: Part(False, "no card", final=True), "B": lambda bench: Part(True, "b is fine")}
    assert check(monkeypatch, tmp_path, parts) == 1  # the folder of an earlier check is replaced
    assert "b is fine" not in (tmp_path / "gpu-check" / "report.md").read_text()
    assert check(monkeypatch, tmp_path, {"B": parts["B"], "C": interrupted, "D": parts["B"]}) == 1
    text = (tmp_path / "gpu-check" / "report.md").read_text()
    assert "Ctrl-C" in text and "## D" not in text


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine").write_text("x")
    assert check(monkeypatch, tmp_path, {}, "--out", ".") == 1 and (tmp_path / "mine").exists()
    assert "holds something else" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_check_on_the_cpu(tmp_path):
    command = [sys.executable, ROOT / "scripts" / "check_gpu.py", "--device", "cpu", "--quick", "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    text = Path(tmp_path, "out", "report.md").read_text()
    assert done.returncode == 0 and text in done.stdout, done.stdout + done.stderr
    assert "# GPU check: all is well" in text and "0 failed" in text and "| update |" in text
    assert "| the head in pieces, layers compiled |" in text
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"machine.log", "test_gpu.log", "two-steps.log"}
    assert not (tmp_path / "out" / "model").exists()
