"""scripts/Dockerfile names what is there. No image is built: that takes docker, and minutes."""

import json
import re
import shlex
import tomllib

from conftest import ROOT

from grpo.asked import asked

TEXT = (ROOT / "scripts" / "Dockerfile").read_text()


def test_its_scripts_extras_and_flags_exist():
    named = set(re.findall(r"scripts/[\w.]+", TEXT))
    assert named == {"scripts/Dockerfile", "scripts/install.py", "scripts/check_gpu.py"}
    assert all((ROOT / name).is_file() for name in named)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"\.\[(\w+)\]", TEXT)) == {"gpu"} <= set(extras)
    assert '"--cpu"' in (ROOT / "scripts" / "install.py").read_text()
    command = json.loads(re.search(r"^CMD (\[.*\])$", TEXT, re.M)[1])
    assert command[:3] == ["python", "-m", "grpo.train"] and asked(command[3:]).algo == "dr_grpo"
    lines = [line for line in TEXT.splitlines() if "python -m grpo.train" in line]
    assert all(asked(shlex.split(line.split("python -m grpo.train")[1])) for line in lines)


def test_its_python_is_one_that_the_project_takes():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert wanted == ">=3.11" and re.search(r"^FROM python:3\.11-slim$", TEXT, re.M)


def test_what_git_ignores_stays_out_of_an_image():
    """A virtual environment is gigabytes, and that of another machine is of no use there."""
    ignored, left_out = (
        (ROOT / name).read_text().split("\n") for name in (".gitignore", "scripts/Dockerfile.dockerignore")
    )
    wanted = {line.strip("/") if line.startswith("/") else f"**/{line.strip('/')}" for line in ignored if line}
    assert wanted | {".git"} == {line for line in left_out if line and not line.startswith("#")}
