"""Ingredients of one's own: what they return is checked, before a model is loaded where that can be."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import make_batch

from grpo.algorithm.advantages import ADVANTAGES, AdvantageInputs
from grpo.algorithm.ingredients import EXAMPLE, load_advantage, load_aggregation, load_loss_term
from grpo.algorithm.table import FORMER_NAMES
from grpo.errors import UserError

MASK, GROUPS = torch.tensor([[True, True, False], [True, False, False]]), torch.tensor([0, 1])
LOADERS = [load_advantage, partial(load_aggregation, constant=1.0)]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(code, name="mine"):
        (tmp_path / f"{name}.py").write_text(f"import torch\ndef fn(*arguments):\n    {code}\n")
        return f"./{name}.py:fn"

    return write


def test_names_and_former_names():
    for former, name in FORMER_NAMES.items():
        for spec in (former, name):
            assert torch.equal(load_advantage(spec)(EXAMPLE), ADVANTAGES[name](EXAMPLE.rewards))
    assert load_loss_term(None) is None


def test_ones_own_are_called(mine):
    spec = mine("return arguments[0].float() * 2")
    assert load_advantage(spec)(AdvantageInputs.of_rewards(torch.ones(1, 2))).tolist() == [[2, 2]]
    assert load_aggregation(spec, 1.0)(MASK, GROUPS).tolist() == [[2, 2, 0], [2, 0, 0]]
    assert load_loss_term(spec)(torch.ones(2, 3), make_batch(MASK)).tolist() == [[2] * 3] * 2


@pytest.mark.parametrize("load", LOADERS)
def test_a_shape_that_would_broadcast_is_refused_at_once(mine, load):
    spec = mine("return arguments[0].float()[:, :1]")
    with pytest.raises(UserError, match=r"\./mine\.py:fn: what it returns must be \[., .\] = .* but its shape is"):
        load(spec)


def test_a_loss_term_of_a_wrong_shape_is_refused_when_it_is_called(mine):
    term = load_loss_term(mine("return arguments[0].sum(dim=1, keepdim=True)"))
    with pytest.raises(UserError, match=r"--loss-term .*: what it returns must be \[B, T\] = \[2, 3\]"):
        term(torch.ones(2, 3), make_batch(MASK))


@pytest.mark.parametrize("load,flag", list(zip(LOADERS, ["advantage", "aggregation"], strict=True)))
def test_a_function_that_raises_is_named(mine, load, flag):
    with pytest.raises(UserError, match=rf"--{flag} \./mine\.py:fn raised KeyError: 'a', on a small example"):
        load(mine("return {}['a']"))
    with pytest.raises(UserError, match=r"must be a tensor .* not a int"):
        load(mine("return 3", name="other"))


def test_an_advantage_function_asks_by_name(tmp_path, monkeypatch):
    """Its first parameter is the rewards, whatever it is called; a verifier that it names need not exist yet."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "asks.py").write_text(
        "def all_of_it(r, mask, lengths, truncated, by_verifier, scale=2.0):\n"
        "    assert mask.shape[:2] == r.shape == lengths.shape == truncated.shape\n"
        "    return scale * by_verifier['math_answer'] + lengths + truncated\n"
        "def wants_more(rewards, wishes): return rewards\n"
    )
    advantage = load_advantage("./asks.py:all_of_it")
    inputs = replace(EXAMPLE, by_verifier={"math_answer": torch.tensor([[1.0, 0.0], [0.0, 2.0]])})
    assert advantage(inputs).tolist() == [[4.0, 1.0], [1.0, 7.0]]
    with pytest.raises(UserError, match=r"parameter wishes, which is not known\. .* lengths, mask, truncated, by"):
        load_advantage("./asks.py:wants_more")


def test_an_aggregation_gets_the_constant_second_and_the_groups_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adds.py").write_text(
        "def old(m, c): return m * c\ndef by_name(mask, groups): return mask * (groups + 1.0)[:, None]\n"
    )
    assert load_aggregation("./adds.py:old", 3.0)(MASK, GROUPS).tolist() == [[3, 3, 0], [3, 0, 0]]
    assert load_aggregation("./adds.py:by_name", 3.0)(MASK, GROUPS).tolist() == [[1, 1, 0], [2, 0, 0]]
