"""Ranks: what each does alone, and how they stay together."""

import pytest
import torch
from conftest import ROOT
from torchrun import torchrun

from grpo.errors import UserError
from grpo.model.ranks import Ranks, agreed, check_cards


def test_three_ranks():
    torchrun(3, ROOT / "tests" / "model" / "ranks_program.py")


@pytest.mark.parametrize("count", [0, 1, 5, 128])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_as_equal_as_can_be_and_hold_all(count, size):
    items = list(range(count))
    shares = [Ranks(rank, size).share(items) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1 and max(map(len, shares)) == Ranks(0, size).most(count)


def test_a_world_of_one_is_the_identity(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    before = torch.distributed.is_initialized()  # by a vLLM of another test, in this process
    alone, items, tensor = Ranks.join(), [object()], torch.ones(2)
    assert alone == Ranks() and alone.writes
    assert alone.share(items) == items == alone.collect(items) and alone.exchange(3) == [3]
    assert alone.total({"a": 0.1}) == {"a": 0.1} == alone.largest({"a": 0.1}) and alone.added(tensor) is tensor
    with pytest.raises(ZeroDivisionError) as error, alone.together():
        raise ZeroDivisionError
    assert not agreed(error.value)
    assert torch.distributed.is_initialized() == before


def test_more_ranks_than_cards_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"started 2 processes here, .* torch sees 1. Lower --nproc-per-node"):
        check_cards(2)


def test_cards_without_nccl_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    with pytest.raises(UserError, match="NCCL"):
        check_cards(2)
