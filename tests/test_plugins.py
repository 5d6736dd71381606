"""grpo/plugins.py: what each way to write a plug-in loads, and what the user is told where it does not."""

import importlib.util
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo import plugins
from grpo.errors import UserError
from grpo.verifiers.spec import load_verifier


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def reward(response):\n    return 1.0\n\ndef strict(response):\n    return 0.0\n\nconstant = 3\n")
    return path


def test_weight():
    assert plugins.split_weight("think_format=0.1") == ("think_format", 0.1)
    assert plugins.split_weight("./mine.py:strict=-2") == ("./mine.py:strict", -2.0)
    assert plugins.split_weight("math_answer") == ("math_answer", 1.0)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_finite_weight_survives(weight):
    assert plugins.split_weight(f"./a.py:f={weight!r}") == ("./a.py:f", weight)


@pytest.mark.parametrize("spec", ["a=", "a=x", "a=nan", "a=inf", "=1", "a=1=x"])
def test_a_weight_that_is_no_finite_number(spec):
    with pytest.raises(UserError, match="does not end in a weight"):
        plugins.split_weight(spec)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("math_answer", "math_answer"),
        ("./my/mine.py", "mine"),
        ("./my/mine.py:strict", "mine.strict"),
        ("my_pkg.graders:strict", "graders.strict"),
        ("trl:./theirs.py:fn", "theirs.fn"),
    ],
)
def test_short_name(spec, name):
    assert plugins.short_name(spec) == name


def test_a_file_its_default_function_and_another(mine):
    assert plugins.load(str(mine), "rewards")("") == 1.0
    assert plugins.load(f"{mine}:strict", "rewards")("") == 0.0


def test_a_file_is_loaded_once(mine):
    assert plugins.load(str(mine), "rewards") is plugins.load(str(mine), "rewards")


def test_two_files_of_one_name_are_two_modules(mine, tmp_path):
    other = tmp_path / "other" / "mine.py"
    other.parent.mkdir()
    other.write_text("def reward(response):\n    return 0.5\n")
    assert [plugins.load(str(path), "rewards")("") for path in (mine, other)] == [1.0, 0.5]


def test_a_path_relative_to_the_current_folder(mine, monkeypatch):
    monkeypatch.chdir(mine.parent)
    assert plugins.load("./mine.py", "rewards")("") == 1.0
    assert plugins.load("mine.py", "rewards")("") == 1.0


def test_an_installed_module():
    assert plugins.load("math:sqrt", "rewards") is math.sqrt


def test_every_built_in_loads_without_the_package(monkeypatch):
    """The contract of the two folders: plain files that import nothing of grpo."""
    for kind, function in plugins.DEFAULT_FUNCTION.items():
        for helper in plugins.folder(kind).rglob("*.py"):
            assert not re.search(r"(import|from) grpo\b", helper.read_text()), helper
        for name in plugins.available(kind):
            source = (plugins.folder(kind) / f"{name}.py").read_text()
            assert f"def {function}(" in source, name
            assert "import grpo" not in source and "from grpo" not in source, name
            assert importlib.util.find_spec(name) is None or name not in sys.stdlib_module_names, name


def test_the_readme_lists_every_verifier_and_the_columns_it_needs():
    section = (plugins.folder("rewards") / "README.md").read_text().partition("## What is here")[2]
    rows = re.findall(r"^\| `(\w+)` \| .+ \| (.*)\|$", section, re.MULTILINE)
    needed = {name: load_verifier(name).missing(["max_response_tokens"]) for name in plugins.available("rewards")}
    assert {name: re.findall(r"`(\w+)`", columns) for name, columns in rows} == needed


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*missing\.py\. Give a path"):
        plugins.load(str(tmp_path / "missing.py"), "rewards")
    with pytest.raises(UserError, match=r"there is no file .*/mine\. Give a path"):  # ".py" forgotten
        plugins.load("./mine", "rewards")


def test_no_such_function(mine):
    with pytest.raises(UserError, match=r"defines no function 'lenient'. It defines: reward, strict. Name one"):
        plugins.load(f"{mine}:lenient", "rewards")
    with pytest.raises(UserError, match="defines no function 'constant'"):
        plugins.load(f"{mine}:constant", "rewards")


def test_no_such_name():
    with pytest.raises(
        UserError, match=r"'mathh' is neither a built-in of rewards/, nor a \.py file, nor an installed"
    ):
        plugins.load("mathh", "rewards")


def test_a_module_that_lacks_a_dependency(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import not_installed_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="it needs the module 'not_installed_at_all', which is not installed"):
        plugins.load("needs_more:reward", "rewards")


def test_a_file_that_fails_is_tried_again_once_it_is_mended(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("1 / 0\n")
    with pytest.raises(UserError, match="failed while loading with ZeroDivisionError: division by zero"):
        plugins.load(str(path), "rewards")
    path.write_text("def reward(response):\n    return 0.25\n")
    assert plugins.load(str(path), "rewards")("") == 0.25


def test_an_ingredient_is_a_row_of_a_table_or_a_function_of_ones_own(tmp_path):
    table = {"a": len, "b": sum}
    assert plugins.ingredient("b", table, "advantage") is sum
    (tmp_path / "mine.py").write_text("def rank(rewards): return 7\n")
    assert plugins.ingredient(f"{tmp_path}/mine.py:rank", table, "advantage")([]) == 7
    with pytest.raises(UserError, match=r"--advantage c does not exist. --advantage takes: a, b, or a function"):
        plugins.ingredient("c", table, "advantage")
    with pytest.raises(UserError, match="defines no function 'other'"):
        plugins.ingredient(f"{tmp_path}/mine.py:other", table, "advantage")


def test_a_file_may_import_files_beside_it(tmp_path):
    (tmp_path / "_helper.py").write_text("from . import _deeper\n\nx = _deeper.y / 2\n")
    (tmp_path / "_deeper.py").write_text("y = 1.5\n")
    (tmp_path / "mine.py").write_text("from ._helper import x\n\ndef reward(response):\n    return x\n")
    (tmp_path / "my-second.v2.py").write_text("from .mine import reward, x\n\ndef strict(response):\n    return -x\n")
    assert plugins.load(str(tmp_path / "mine.py"), "rewards")("") == 0.75
    second = plugins.load(f"{tmp_path / 'my-second.v2.py'}:strict", "rewards")
    assert second("") == -0.75
    assert sys.modules[second.__module__].reward is plugins.load(str(tmp_path / "mine.py"), "rewards")


def test_a_file_may_import_from_a_folder_beside_it(tmp_path):
    (tmp_path / "_math").mkdir()
    (tmp_path / "_math" / "text.py").write_text("y = 1.5\n")
    (tmp_path / "_math" / "compare.py").write_text("from .text import y\n\nx = y / 2\n")
    (tmp_path / "mine.py").write_text("from ._math.compare import x\n\ndef reward(response):\n    return x\n")
    assert plugins.load(str(tmp_path / "mine.py"), "rewards")("") == 0.75


def test_files_of_one_name_beside_two_plug_ins_are_two_modules(tmp_path):
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "_helper.py").write_text(f"x = {number}.0\n")
        (folder / "mine.py").write_text("from ._helper import x\n\ndef reward(response):\n    return x\n")
    found = [plugins.load(str(tmp_path / number / "mine.py"), "rewards")("") for number in ("1", "2", "1")]
    assert found == [1.0, 2.0, 1.0]


@pytest.mark.parametrize("line", ["1 / 0", "raise SystemExit"])
def test_a_failing_import_leaves_no_module(tmp_path, line):
    before = set(sys.modules)
    (tmp_path / "_helper.py").write_text("x = 1.0\n")
    (tmp_path / "mine.py").write_text(f"from . import _helper\n{line}\n")
    with pytest.raises((UserError, SystemExit)):
        plugins.load(str(tmp_path / "mine.py"), "rewards")
    assert not [name for name in set(sys.modules) - before if "." in name]
    (tmp_path / "_helper.py").write_text("x = 'mended'\n")
    (tmp_path / "mine.py").write_text("from . import _helper\n\ndef reward(response):\n    return _helper.x\n")
    assert plugins.load(str(tmp_path / "mine.py"), "rewards")("") == "mended"


@pytest.mark.parametrize("of_its_own", [True, False])
def test_a_failing_import_leaves_no_module_of_a_folder(tmp_path, of_its_own):
    """Neither in sys.modules nor on the folder, which stays where another plug-in has loaded it before."""
    folder = tmp_path / "_helpers"
    folder.mkdir()
    (folder / "fine.py").write_text("x = 1.0\n")
    (folder / "half.py").write_text("x = 'half'\n")
    (tmp_path / "other.py").write_text("from ._helpers import fine\n\ndef reward(response):\n    return fine.x\n")
    (tmp_path / "mine.py").write_text("from ._helpers import half\n1 / 0\n")
    if not of_its_own:
        assert plugins.load(str(tmp_path / "other.py"), "rewards")("") == 1.0
    before = set(sys.modules)
    with pytest.raises(UserError, match="ZeroDivisionError"):
        plugins.load(str(tmp_path / "mine.py"), "rewards")
    assert not [name for name in set(sys.modules) - before if "." in name]
    (folder / "half.py").write_text("x = 'mended'\n")
    (tmp_path / "mine.py").write_text("from ._helpers import half\n\ndef reward(response):\n    return half.x\n")
    assert plugins.load(str(tmp_path / "mine.py"), "rewards")("") == "mended"
    assert plugins.load(str(tmp_path / "other.py"), "rewards")("") == 1.0


def test_files_beside_it_are_no_plug_ins(tmp_path, monkeypatch):
    for name in ("mine.py", "_helper.py"):
        (tmp_path / name).write_text("def reward(response):\n    return 1.0\n")
    (tmp_path / "_math").mkdir()
    (tmp_path / "_math" / "text.py").write_text("def reward(response):\n    return 1.0\n")
    monkeypatch.setattr(plugins, "folder", lambda kind: tmp_path)
    assert plugins.available("rewards") == ["mine"]
    for name in ("_helper", "_math", "_math.text"):
        with pytest.raises(UserError, match=f"'{name}' is neither a built-in"):
            plugins.load(name, "rewards")


def test_built_ins_load_from_within_the_package_as_in_a_wheel(tmp_path):
    """The wheel holds `rewards/` and `data/` inside `grpo/` (pyproject.toml)."""
    source = Path(plugins.__file__).parent
    (tmp_path / "grpo").mkdir()
    for name in ("__init__.py", "errors.py", "plugins.py"):
        shutil.copy(source / name, tmp_path / "grpo")
    for kind in plugins.DEFAULT_FUNCTION:
        shutil.copytree(plugins.folder(kind), tmp_path / "grpo" / kind, ignore=shutil.ignore_patterns("__pycache__"))
    script = (
        "from grpo import plugins\n"
        "for kind in plugins.DEFAULT_FUNCTION:\n"
        "    for name in plugins.available(kind):\n"
        "        print(plugins.load(name, kind).__code__.co_filename)\n"
    )
    command = [sys.executable, "-P", "-c", script]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [
        str(tmp_path / "grpo" / kind / f"{name}.py")
        for kind in plugins.DEFAULT_FUNCTION
        for name in plugins.available(kind)
    ]
    assert done.stdout.split() == expected
