"""The layering that grpo/README.md claims: floors, no circle of imports, a test for each file or a stated reason."""

import ast
from functools import cache

import pytest
from conftest import ROOT

PACKAGE = ROOT / "grpo"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
NOT_BY_NAME = {
    "errors.py": "one exception, without behaviour",
    "records.py": "tests/model/test_batching.py: what cuts and moves a batch; the others only hold fields",
    "engines/hf_engine.py": "tests/engines/test_engines.py holds both engines to one contract",
    "engines/vllm_engine.py": "tests/engines/test_engines.py holds both engines to one contract",
    "engines/protocol.py": "tests/engines/test_engines.py is the contract",
    "engines/choose.py": "tests/engines/test_engines.py chooses and makes them",
    "engines/shared.py": "tests/test_ranks_run.py runs it in the loop",
    "model/optimizer_shards.py": "tests/test_ranks_run.py writes and reads them at several numbers of ranks",
    "model/rank_end.py": "tests/test_ranks_end.py: how a job of several ranks ends",
    "verifiers/__main__.py": "tests/verifiers runs the command",
    "algorithm/row.py": "its cells: tests/test_config.py, tests/algorithm/test_objective.py",
    "algorithm/table.py": "every test of tests/algorithm and tests/model runs over its rows",
    "algorithm/curves.py": "tests/test_explain.py: they are what the command shows",
    "logs/metric_names.py": "tests/test_train.py: the keys of a run are those named",
    "logs/rollout_file.py": "tests/test_replay.py: a file that is not there",
    "model/model_folder.py": "tests/test_config.py and tests/model/test_pretrained.py: folders that lack something",
    "evaluation/asked.py": "tests/test_evaluate.py: what is refused; tests/test_early.py: without torch",
    "evaluation/sets.py": "tests/test_evaluate.py runs it through the command",
    "logs/rollouts.py": "tests/test_replay.py writes and reads them",
    "flags.py": "tests/test_config.py: the groups are the flags of the commands",
    "cells.py": "tests/test_config.py: what does not go together is refused",
    "update_checks.py": "tests/test_config.py: what does not go together is refused",
    "announcement.py": "tests/test_train.py: what a run prints first",
    "preferences/command.py": "tests/test_dpo.py and tests/test_reward_model_run.py run their commands by it",
    "logs/samples.py": "tests/logs/test_logger.py: what samples.jsonl holds",
    "presets.py": "tests/test_config.py: what is left unset is filled from them",
    "asked.py": "tests/test_config.py: what is filled in and refused; tests/test_early.py: without torch",
    "devices.py": "tests/test_config.py: a device that is not there is refused",
    "resolve.py": "tests/test_config.py: what a config resolves to, and is refused for",
    "doctor_flags.py": "tests/test_doctor.py: the command refuses by them",
    "explain_flags.py": "tests/test_explain.py: the command refuses by them",
    "replay_flags.py": "tests/test_replay.py: the command refuses by them",
    "preference_flags.py": "tests/test_early.py: both commands refuse by them",
    "reward_model_flags.py": "tests/test_early.py: the command refuses by them",
    "dpo_flags.py": "tests/test_early.py: the command refuses by them",
    "reward_model.py": "tests/test_reward_model_run.py runs the command",
    "compare_flags.py": "tests/test_compare.py: the command refuses by them",
    "inputs.py": "tests/test_config.py and tests/data run it through the command",
    "run_flags.py": "tests/test_config.py: the groups are the flags of the command",
    "setup.py": "tests/test_train.py runs it with the loop",
    "policies.py": "tests/test_lora_run.py and tests/model/test_dealt.py make them",
    "kept_steps.py": "tests/test_replay.py: what is saved; tests/test_train_ends.py: of a skipped update",
}
"""File -> where it is tested, if not in the test file of its name."""


def floor_table():
    """The table of grpo/README.md, top floor first: the files and rooms of each."""
    section = (PACKAGE / "README.md").read_text().partition("## Floors")[2].partition("\n## ")[0]
    rows = [line.split("|")[2] for line in section.split("\n") if line.startswith("| ") and "`" in line]
    return [[name.strip(" `") for name in row.split(",")] for row in rows]


@cache
def imported(path):
    """The modules of grpo that a file imports, also where only a type checker does: `model.policy`, `errors`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "grpo":
            inside = node.module.removeprefix("grpo").strip(".")
            found |= {module(inside, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("grpo.") for alias in node.names if alias.name.startswith("grpo.")}
    return found


def module(inside, name):
    """`from grpo.<inside> import <name>`: the module that is meant, which may be the name itself."""
    whole = f"{inside}.{name}".strip(".")
    path = PACKAGE / whole.replace(".", "/")
    return whole if path.with_suffix(".py").exists() or path.is_dir() else inside


def name_of(path):
    return str(path.relative_to(PACKAGE).with_suffix("")).replace("/", ".")


def test_no_file_imports_from_a_higher_floor():
    floor = {name: -depth for depth, names in enumerate(floor_table()) for name in names}
    assert len(floor) == sum(map(len, floor_table())), "a name is on two floors"
    assert set(floor) == {name_of(path).split(".")[0] for path in FILES}
    for path in FILES:
        above = [other for other in imported(path) if floor[other.split(".")[0]] > floor[name_of(path).split(".")[0]]]
        assert not above, f"{path.relative_to(ROOT)} imports {above} from a higher floor"


def test_no_chain_of_imports_leads_back_to_its_beginning():
    graph = {name_of(path): imported(path) for path in FILES}
    done = set()

    def visit(name, chain):
        assert name not in chain, " -> ".join([*chain[chain.index(name) :], name])
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, [*chain, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def test_the_imports_are_seen():
    """A guard of the two tests above: what the loop and a room import is found."""
    assert {"config", "model.batching", "algorithm.objective"} <= imported(PACKAGE / "train.py")
    assert "model.policy" in imported(PACKAGE / "engines" / "protocol.py")  # for type checkers alone


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_file_has_a_test_of_its_name_or_a_reason(path):
    name = path.relative_to(PACKAGE)
    test = ROOT / "tests" / name.parent / f"test_{name.name}"
    assert test.exists() != (str(name) in NOT_BY_NAME), f"{name}: {test.relative_to(ROOT)} or a line in NOT_BY_NAME"


def test_every_reason_is_about_a_file():
    assert set(NOT_BY_NAME) <= {str(path.relative_to(PACKAGE)) for path in FILES}
