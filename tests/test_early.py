"""`--help` and refusals come before torch and its like: every command answers where none of them can be imported."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from preference_refusals import REFUSED_BY_BOTH, REFUSED_BY_DPO, REFUSED_BY_REWARD_MODEL
from synthetic_runs import row, write_run
from test_config import BAD_VALUES
from test_evaluate import REFUSED

from grpo.early import refuse_early
from grpo.errors import UserError

COMMANDS = ("train", "reward_model", "dpo", "evaluate", "compare", "explain", "replay", "doctor", "verifiers")
NEEDS_A_LIBRARY = ("more than the 512 positions",)
"""Said by the model's config."""

FILES = {
    "bad.jsonl": '{"question": "p"}\n',
    "equal.jsonl": '{"prompt": "p", "chosen": "a", "rejected": "a"}\n',
    "mine.py": "def rank(rewards, gold): return rewards\n",
    "broken.jsonl": "{",
    "rows.jsonl": '{"a": 1}\n',
}
REFUSALS = [
    *[("train", flags, message) for flags, message in BAD_VALUES],
    *[("evaluate", flags, message) for flags, message in REFUSED if message not in NEEDS_A_LIBRARY],
    *[(command, flags, said) for flags, said in REFUSED_BY_BOTH for command in ("reward_model", "dpo")],
    *[("reward_model", flags, said) for flags, said in REFUSED_BY_REWARD_MODEL],
    *[("dpo", flags, said) for flags, said in REFUSED_BY_DPO],
    ("train", ["--algo", "nope"], "invalid choice 'nope'"),
    ("train", ["--learning-rat", "1"], "--learning-rate"),
    ("train", ["--steps", "many"], "--steps"),
    ("train", ["--reward", "math_anser"], "'math_anser' is neither a built-in of rewards/"),
    ("train", ["--reward", "math_answer=0", "reward_model"], "verifier 'reward_model' cannot work here: set the"),
    ("train", ["--reward", "countdown"], "'countdown' requires 'nums', 'target'"),
    ("train", ["--reward", "./nowhere.py"], "there is no file"),
    ("train", ["--reward", "./mine.py:strict"], "defines no function 'strict'"),
    ("train", ["--reward", "exact=much"], "does not end in a weight"),
    ("train", ["--model", "./nowhere", "--data", "arithmetic"], "There is no model folder nowhere."),
    ("train", ["--model", "./empty", "--data", "arithmetic"], "empty is not a model folder: it has no config.json."),
    ("train", ["--model", "org/name", "--reward", "nope"], "'nope' is neither a built-in of rewards/"),
    ("train", ["--data", "./nowhere.jsonl"], "nowhere.jsonl cannot be read"),
    ("train", ["--data", "./broken.jsonl"], "line 1 is not JSON"),
    ("train", ["--data", "./rows.jsonl"], "there is no column 'problem'"),
    ("train", ["--data", "./nowhere.py"], "there is no file"),
    ("train", ["--eval-data", "mathx"], "'mathx' is neither a built-in of data/"),
    ("train", ["--data-dir", "./nowhere"], "--data-dir nowhere is no folder"),
    ("train", ["--name", "taken"], "exists already"),
    ("train", ["--resume"], "--resume continues a run: name it by --name"),
    ("train", ["--resume", "--name", "taken"], "config.json"),
    ("train", ["--lora-alpha", "2"], "--lora-alpha without --lora-rank"),
    ("train", ["--optimizer", "adamw_offload", "--device", "cpu"], "computes on the CPU"),
    ("evaluate", ["--engine", "vllm", "--device", "cpu"], "--device cpu has no meaning for vllm"),
    ("evaluate", ["--responses", "many"], "--responses"),
    ("compare", [], "Name the runs to compare"),
    ("compare", ["./nowhere"], "There is no run at ./nowhere"),
    ("compare", ["./runs", "--until", "99"], "--until 99 is not a step that every run has reached"),
    ("compare", ["./runs", "--label", "x"], "--label x is not LABEL=PATTERN"),
    ("compare", ["./runs", "--band", "wide"], "invalid choice 'wide'"),
    ("explain", ["ppo"], "There is no algorithm 'ppo'."),
    ("explain", ["grpo", "--correct", "8"], "--correct 8 of --responses 8"),
    ("explain", ["grpo", "--advantage", "nosuch"], "--advantage nosuch does not exist."),
    ("explain", ["grpo", "--ratio-cap", "3"], "--ratio-cap 3.0 would do nothing"),
    ("replay", ["./nowhere.pt"], "There is no rollout file nowhere.pt."),
    ("replay", ["./mine.py", "--algo", "ppo"], "There is no algorithm 'ppo'. --algo takes: reinforce"),
    ("replay", ["./mine.py", "--dual-clip", "3", "--surrogate", "cispo"], "--dual-clip 3.0 would do nothing"),
    ("replay", ["./mine.py", "--model", "./nowhere"], "There is no model folder nowhere."),
    ("doctor", ["--temperature", "0"], "--temperature 0.0 must be more than 0"),
    ("doctor", ["--data", "mathx"], "'mathx' is neither a built-in of data/"),
    ("doctor", ["--name", "none", "--resume"], "there is no run folder"),
    ("verifiers", ["--reward", "exact"], "nothing to check"),
    ("verifiers", ["--reward", "nope", "--data", "arithmetic"], "'nope' is neither a built-in of rewards/"),
    ("verifiers", ["--reward", "exact", "--data", "arithmetics"], "neither a built-in of data/"),
    ("verifiers", ["--reward", "exact", "--labelled", "./nowhere.jsonl"], "nowhere.jsonl cannot be read"),
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """(command, flags) -> exit status and text, where no large library can be imported."""
    folder = tmp_path_factory.mktemp("early")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "empty").mkdir()
    (folder / "runs" / "taken").mkdir(parents=True)
    (folder / "runs" / "taken" / "notes").touch()
    write_run(folder / "runs" / "grpo", [row(1, 0.5, (1, 1), (2, 1))])
    cases = [(command, flags) for command, flags, _ in REFUSALS] + [(command, ["--help"]) for command in COMMANDS]
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "without_libraries.py"],
        input=json.dumps([(f"grpo.{command}", flags) for command, flags in cases]),
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return {(command, *flags): found for (command, flags), found in zip(cases, json.loads(done.stdout), strict=True)}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_library(answers, command):
    status, text = answers[command, "--help"]
    assert status == 0 and f"usage: python -m grpo.{command}" in text, text


@pytest.mark.parametrize("command,flags,message", REFUSALS)
def test_a_refusal_needs_no_library(answers, command, flags, message):
    status, text = answers[command, *flags]
    assert status == 2 and message in " ".join(text.replace("│", " ").split()), text


def test_a_command_that_needs_a_library_would_be_seen():
    """The guard of the tests above: the formulas need torch, and the process says so."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "without_libraries.py"],
        input=json.dumps([("grpo.algorithm.losses", [])]),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    ((status, text),) = json.loads(done.stdout)
    assert status == 1 and "torch was imported too early" in text


def test_what_passes_goes_on_and_what_is_refused_ends_with_status_2(capsys):
    def refused():
        raise UserError("--steps 0 must be more than 0.")

    refuse_early(lambda: None)
    with pytest.raises(SystemExit) as stop:
        refuse_early(refused)
    assert stop.value.code == 2 and capsys.readouterr().err == "error: --steps 0 must be more than 0.\n"
