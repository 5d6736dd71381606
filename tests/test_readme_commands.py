"""Every command that a block of the main README gives is run, or read as the command reads it."""

import re
import shlex
import shutil
from statistics import fmean

import pytest
from conftest import ROOT
from small_runs import HF, rows, run
from synthetic_runs import ramp, write_run

import grpo.asked
import grpo.compare
import grpo.evaluation.asked
from grpo.presets import EMBEDDED_MODEL
from grpo.train import main
from grpo.verifiers.check import main as verifiers_main

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
LINES = [line.partition("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
VERIFIER = next(code for code in re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S) if "def reward" in code)

ELSEWHERE = {
    "scripts/install.py && python -m grpo.train": "tests/test_install.py, and tests/test_train.py: it learns",
    "scripts/install.py --test && python -m pytest": "continuous integration runs it, by tests/test_readme.py",
    "scripts/check_gpu.py": "tests/test_check_gpu.py",
}
"""What a command has in it -> where it is run."""
READ = {"grpo.train": grpo.asked.check_command, "grpo.doctor": grpo.asked.check_command}
READ |= {"grpo.evaluate": grpo.evaluation.asked.check_command}
"""Command -> all that it can refuse before a card, a model of the hub or a set of the hub is needed."""


@pytest.fixture(autouse=True)
def folder_of_a_newcomer(tmp_path, monkeypatch):
    """What the README's commands speak of: mine.py, problems.jsonl, and a few runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(VERIFIER)
    lines = [f'{{"question": "{i}+{i + 1}=", "gold": "{2 * i + 1}"}}\n' for i in range(10, 50)]
    (tmp_path / "problems.jsonl").write_text("".join(lines))
    shutil.copytree(EMBEDDED_MODEL, tmp_path / "runs" / "a" / "model")


def given(needle):
    """The flags of the one README command that has `needle` in it."""
    (line,) = [line for line in LINES if needle in line]
    return shlex.split(line)[3:]


RUN_HERE = ("grpo.verifiers --reward ./mine.py", "--reward ./mine.py ./mine.py:short", "--data ./problems.jsonl")
RUN_HERE += ("grpo.compare runs/grpo-*",)


@pytest.mark.parametrize("line", LINES)
def test_every_command_is_run_or_read(line):
    if any(needle in line for needle in (*ELSEWHERE, *RUN_HERE)):
        return
    python, module, command, *flags = shlex.split(line)
    assert (python, module) == ("python", "-m")
    READ[command](flags)


def test_a_wrong_flag_would_be_noticed():
    with pytest.raises(SystemExit):
        READ["grpo.train"](["--eval-date", "math500"])


def test_the_verifier_is_tried_without_a_model(shared_data, capsys):
    """It ends with a status of its own only where a gold answer gets no full marks, or a wrong one some."""
    verifiers_main([*given("grpo.verifiers"), "--data-dir", str(shared_data / "datasets")])
    assert capsys.readouterr().out.count("1319") == 4


def test_a_run_on_problems_of_ones_own(tmp_path):
    folder = run(tmp_path, *given("--data ./problems.jsonl"), *HF, "--steps", "1")
    assert rows(folder)[-1]["step"] == 1 and rows(folder)[0]["eval/accuracy"] is not None


def test_runs_are_compared(tmp_path, monkeypatch):
    for name in ("grpo-0", "grpo-1", "dr_grpo-0"):
        write_run(tmp_path / "runs" / name, ramp(10.0), {"algo": name.partition("-")[0], "name": name})
    patterns = [str(path) for pattern in given("grpo.compare") for path in sorted(tmp_path.glob(pattern))]
    assert len(patterns) == 3 and grpo.compare.main(patterns) == 0
    assert (tmp_path / "comparison.html").exists() and (tmp_path / "comparison.png").exists()


@pytest.mark.slow
def test_the_verifier_of_the_readme_learns(tmp_path, capsys):
    """Twenty steps of the example, as it stands: both of its verifiers give something, and the reward rises."""
    flags = [*given("./mine.py:short"), "--steps", "20", "--wandb", "off", "--name", "mine", "--eval-every", "0"]
    assert main(flags) == 0
    before, *steps = rows(tmp_path / "runs" / "mine")
    first, last = ([row["reward/mean"] for row in part] for part in (steps[:4], steps[-4:]))
    assert fmean(last) > fmean(first) + 0.1
    assert steps[-1]["eval/accuracy"] > before["eval/accuracy"] + 0.1
    assert all(0.2 < row["reward/mine.short"] < 0.9 for row in steps)
    assert "the reward is 0" not in capsys.readouterr().out
