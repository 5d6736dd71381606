"""Ingredients of one's own: what they return is checked, before a model is loaded where that can be."""

import pytest
import torch
from conftest import make_batch

from grpo.algorithm.advantages import ADVANTAGES
from grpo.algorithm.aggregations import AGGREGATIONS
from grpo.algorithm.ingredients import load_advantage, load_aggregation, load_loss_term
from grpo.algorithm.table import FORMER_NAMES
from grpo.errors import UserError

MASK = torch.tensor([[True, True, False], [True, False, False]])


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(code, name="mine"):
        (tmp_path / f"{name}.py").write_text(f"import torch\ndef fn(*arguments):\n    {code}\n")
        return f"./{name}.py:fn"

    return write


def test_names_and_former_names():
    assert load_advantage("centered") is ADVANTAGES["centered"]
    for former, name in FORMER_NAMES.items():
        assert load_advantage(former) is ADVANTAGES[name]
    assert load_aggregation("token_mean") is AGGREGATIONS["token_mean"]
    assert load_loss_term(None) is None


def test_ones_own_are_called(mine):
    spec = mine("return arguments[0].float() * 2")
    assert load_advantage(spec)(torch.ones(1, 2)).tolist() == [[2, 2]]
    assert load_aggregation(spec)(MASK, 1.0).tolist() == [[2, 2, 0], [2, 0, 0]]
    assert load_loss_term(spec)(torch.ones(2, 3), make_batch(MASK)).tolist() == [[2] * 3] * 2


@pytest.mark.parametrize("load", [load_advantage, load_aggregation])
def test_a_shape_that_would_broadcast_is_refused_at_once(mine, load):
    spec = mine("return arguments[0].float()[:, :1]")
    with pytest.raises(UserError, match=r"\./mine\.py:fn: what it returns must be \[., .\] = .* but its shape is"):
        load(spec)


def test_a_loss_term_of_a_wrong_shape_is_refused_when_it_is_called(mine):
    term = load_loss_term(mine("return arguments[0].sum(dim=1, keepdim=True)"))
    with pytest.raises(UserError, match=r"--loss-term .*: what it returns must be \[B, T\] = \[2, 3\]"):
        term(torch.ones(2, 3), make_batch(MASK))


@pytest.mark.parametrize("load,flag", [(load_advantage, "advantage"), (load_aggregation, "aggregation")])
def test_a_function_that_raises_is_named(mine, load, flag):
    with pytest.raises(UserError, match=rf"--{flag} \./mine\.py:fn raised KeyError: 'a', on an example"):
        load(mine("return {}['a']"))
    with pytest.raises(UserError, match=r"must be a tensor .* not a int"):
        load(mine("return 3", name="other"))
