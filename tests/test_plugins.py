"""grpo/plugins.py: what each way to write a plug-in loads, and what the user is told where it does not."""

import importlib.util
import math
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo import plugins
from grpo.errors import UserError


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
        for name in plugins.available(kind):
            source = (plugins.folder(kind) / f"{name}.py").read_text()
            assert f"def {function}(" in source, name
            assert "import grpo" not in source and "from grpo" not in source, name
            assert importlib.util.find_spec(name) is None or name not in sys.stdlib_module_names, name


def test_the_readme_lists_every_verifier():
    listed = re.findall(r"^\| `(\w+)` \|", (plugins.folder("rewards") / "README.md").read_text(), re.MULTILINE)
    assert set(plugins.available("rewards")) <= set(listed)


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
