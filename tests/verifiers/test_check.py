"""grpo/verifiers/check.py: `python -m grpo.verifiers` on gold answers, labelled responses and wrong input."""

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
from verifier_tools import write_verifier

from grpo.verifiers.check import counted, main
from grpo.verifiers.verify import Outcome


@pytest.fixture
def file(tmp_path):
    """Write a verifier's file; returns its path."""
    return partial(write_verifier, tmp_path)


def test_counted():
    def case(label, reward, failure=None):
        return {"label": label}, "", Outcome(reward, 0.0, failure)

    cases = [case(True, 1.0), case(True, 0.5), case(True, 0.4), case(True, 0.0, "timeout"), case(True, None)]
    cases += [case(False, 0.0), case(False, 0.0, "error"), case(False, 1.0)]
    right, wrong, accuracy = "50.0% (2/4)", "33.3% (1/3)", "57.1% (4/7)"
    assert counted(cases) == ["8", accuracy, wrong, right, "1", "1", "1"]


@pytest.fixture
def check(tmp_path, capsys):
    """Run the command with a verifier of the test's own; returns its exit status, its output and its errors."""

    def run(verifier: str, *arguments: str, **files: list[dict]) -> tuple[int, str, str]:
        for name, rows in files.items():
            path = tmp_path / f"{name}.jsonl"
            path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
            arguments = (*arguments, f"--{name}", str(path))
        folder = Path(tempfile.mkdtemp(dir=tmp_path))  # a path of its own: a file is loaded once
        (folder / "mine.py").write_text(verifier)
        try:
            main(["--reward", str(folder / "mine.py"), "--workers", "1", *arguments])
            status = 0
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


BOXED = """
def reward(response, answer):
    answers = answer if isinstance(answer, list) else [answer]
    return any(response == "\\\\boxed{" + each + "}" for each in answers)
"""
DATA = [{"problem": "1+1?", "answer": "2"}, {"problem": "a half?", "answer": ["1/2", "0.5"]}]


def test_check_gold_answers(check):
    status, output, _ = check(BOXED, data=DATA)
    assert status == 0
    assert "│ mine     │ 3            │ 3       │ 3         │ 3     │" in output


def test_check_gold_answers_that_fail(check):
    status, output, _ = check("def reward(response, answer):\n    return '5' in response\n", data=DATA)
    assert status == 1
    assert "│ mine     │ 3            │ 1       │ 3         │ 3     │" in output
    assert r"mine: a gold answer gets 0: '\\boxed{2}', gold '2'" in output
    assert "Gold answers do not all get 1.0" in output
    status, output, _ = check("def reward(response):\n    return None\n", data=DATA)
    assert status == 1  # nothing was rewarded
    status, output, _ = check("def reward(response):\n    return 1.0\n", data=DATA)
    assert status == 0
    assert r"mine: a perturbed answer gets 1: '\\boxed{3}', gold '2'" in output


def test_check_another_template_and_column(check):
    verifier = "def reward(response, solution):\n    return response == f'#### {solution}'\n"
    status, _, _ = check(verifier, "--template", "#### ANSWER", "--gold", "solution", data=[{"solution": 3}])
    assert status == 0


def test_check_labelled_responses(check):
    rows = [
        {"response": r"\boxed{2}", "answer": "2", "label": True, "track": "boxed"},
        {"response": r"\boxed{3}", "answer": "2", "label": True, "track": "boxed"},
        {"response": "[red]2", "answer": "2", "label": False, "track": "free"},
        {"response": "crash", "answer": "2", "label": False, "track": "free"},
    ]
    verifier = BOXED.replace("    return any", "    if response == 'crash':\n        1 / 0\n    return any")
    status, output, _ = check(verifier, labelled=rows)
    assert status == 0
    lines = [[cell.strip() for cell in line.split("│")] for line in output.splitlines() if line.startswith("│ mine")]
    assert lines[0][1:-1] == ["mine", "boxed", "2", "50.0% (1/2)", "-", "50.0% (1/2)", "0", "0", "0"]
    assert lines[1][1:-1] == ["mine", "free", "2", "100.0% (2/2)", "0.0% (0/2)", "-", "0", "1", "0"]
    assert lines[2][1:-1] == ["mine", "all", "4", "75.0% (3/4)", "0.0% (0/2)", "50.0% (1/2)", "0", "1", "0"]
    assert len(lines[3]) == 7 and all(float(cell) > 0 for cell in lines[3][2:-1])  # p50, p90, p99, max
    assert r"mine: a correct response gets 0: '\\boxed{3}', gold '2'" in output
    assert "4 in " in output and " a second" in output


@pytest.mark.parametrize(
    ("arguments", "files", "said"),
    [
        ((), {}, "nothing to check"),
        (("--data", "nowhere.jsonl"), {}, "nowhere.jsonl cannot be read"),
        ((), {"data": [{"problem": "1+1?"}]}, "line 1 is not a row with answer (it lacks answer; it has: problem)"),
        ((), {"data": [{"answer": "2"}, [1]]}, "line 2 is a list, not a row with answer"),
        (
            (),
            {"labelled": [{"response": "2", "answer": "2"}]},
            "line 1 is not a row with response and label (it lacks label; it has: response, answer)",
        ),
        ((), {"labelled": [{"response": "2", "answer": "2", "label": "yes"}]}, "label must be true or false"),
        ((), {"labelled": [{"response": "2", "label": True}]}, "requires 'answer'"),
        ((), {"data": []}, "has no rows"),
    ],
)
def test_check_says_what_is_wrong_with_the_input(check, arguments, files, said):
    status, _, errors = check(BOXED, *arguments, **files)
    assert status == 2
    assert errors.startswith("error: ") and said in errors


def test_check_says_which_line_is_not_json(check, tmp_path):
    (tmp_path / "torn.jsonl").write_text('{"answer": "2"}\n{"answer": \n')
    status, _, errors = check(BOXED, "--data", str(tmp_path / "torn.jsonl"))
    assert status == 2
    assert "torn.jsonl, line 2 is not JSON" in errors


@pytest.mark.slow
def test_the_command_itself(file, tmp_path):
    (tmp_path / "data.jsonl").write_text(json.dumps(DATA[0]))
    command = [sys.executable, "-m", "grpo.verifiers", "--reward", file(BOXED), "--data", str(tmp_path / "data.jsonl")]
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
