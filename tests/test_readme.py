"""The README agrees with the code, and continuous integration runs the README's own command."""

import importlib.util
import re
import subprocess
from dataclasses import fields

import pytest
from conftest import ROOT

import grpo.compare
import grpo.evaluation.options
from grpo.config import Config

README = (ROOT / "README.md").read_text()


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_those_of_the_code():
    """Algorithms, metrics, flags and file tree; `python scripts/update_readme.py` writes them."""
    if not (ROOT / ".git").exists():
        pytest.skip("the file tree is read from git, and this is no checkout")
    assert script("update_readme").render(README) == README


@pytest.mark.parametrize("table", ["algorithms", "metrics", "flags", "files"])
def test_a_wrong_table_would_be_noticed(table):
    broken = re.sub(rf"(<!-- {table} -->\n.*\n)", r"\1something else\n", README)
    assert broken != README and script("update_readme").render(broken) == script("update_readme").render(README)


def test_ci_runs_the_readmes_test_command():
    commands = re.findall(r"```bash\n(.*?)\n```", README, flags=re.DOTALL)
    (command,) = (c for c in commands if c.endswith("python -m pytest"))
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == command


def test_every_file_and_flag_that_the_readme_names_exists():
    for link in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    flags = set(re.findall(r"`(--[a-z][a-z0-9-]+)", README))
    commands = (Config, grpo.compare.Options, grpo.evaluation.options.Options)
    known = {f"--{field.name.replace('_', '-')}" for command in commands for field in fields(command)}
    assert flags <= known, flags - known


def test_the_first_command_is_the_main_job():
    first = re.search(r"```bash\n(.*?)\n```", README, flags=re.DOTALL).group(1)
    assert first.endswith("python scripts/install.py && python -m grpo.train --algo dr_grpo")


def test_tracked_files_name_no_machine():
    listed = subprocess.run(["git", "ls-files", "*.py", "*.md", "*.toml"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.split():
        text = (ROOT / name).read_text()
        assert not re.search(r"/(root|home/\w+|work|opt)/", text) or name == "tests/test_readme.py", name
