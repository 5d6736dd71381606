"""Columns by name, also inside others."""

import pytest

from grpo.problems.columns import MISSING, names_of, value_of

ROW = {"q": "?", "reward_model": {"style": "rule", "ground_truth": None}, "answers": [{"text": "7"}, "8"], "a.b": 1}


@pytest.mark.parametrize(
    "column,value",
    [
        ("q", "?"),
        ("reward_model.style", "rule"),
        ("reward_model.ground_truth", None),
        ("answers.0.text", "7"),
        ("answers.1", "8"),
        ("a.b", 1),
        ("reward_model.truth", MISSING),
        ("answers.2", MISSING),
        ("answers.x", MISSING),
        ("q.0", MISSING),
        ("", MISSING),
        (".", MISSING),
    ],
)
def test_a_column_by_name(column, value):
    assert value_of(ROW, column) is value or value_of(ROW, column) == value


def test_a_whole_name_comes_before_one_inside_another():
    assert value_of({"a.b": 1, "a": {"b": 2}}, "a.b") == 1


def test_the_names_lead_to_the_values():
    names = names_of(ROW).split(", ")
    assert names == ["q", "reward_model.style", "reward_model.ground_truth", "answers", "a.b"]
    assert MISSING not in [value_of(ROW, name) for name in names]
    assert names_of({"empty": {}}) == "empty"
