"""The verbs of grpo/model/ranks.py on three ranks; every assertion holds on each. Started by test_ranks.py."""

import os
import signal
import time

import pytest
import torch
import torch.distributed as dist

from grpo.interrupts import Interrupted, held_back, interruptible
from grpo.model.ranks import OtherRankFailed, Ranks, agreed

ranks = Ranks.join(minutes=1)
me = ranks.rank
assert (ranks.size, ranks.nodes, ranks.writes) == (3, 1, me == 0)

# Parts of what all have, and what each has made of its own.
mine = ranks.share(["a", "b"])  # fewer than ranks: one has none
assert mine == [["a"], ["b"], []][me] and ranks.collect(mine) == ["a", "b"]
assert ranks.collect(ranks.share(range(8))) == list(range(8))
held = [{"mine": me}]
assert ranks.collect(held)[me] is held[0]
assert ranks.exchange(me) == [0, 1, 2] and ranks.told(me + 7) == 7

# Numbers: the same to the last bit on all.
total = ranks.total({"a": 0.1 * (me + 1), "b": 1e16 if me == 0 else 1.0})
assert total == {"a": 0.1 + 0.2 + 0.1 * 3, "b": 1e16 + 1.0 + 1.0} and len(set(map(str, ranks.exchange(total)))) == 1
assert ranks.largest({"a": -float(me)} | ({"b": 5.0} if me == 1 else {})) == {"a": 0.0, "b": 5.0}
assert ranks.added(torch.tensor([me, 1.0])).tolist() == [3.0, 3.0]

# Waiting is counted where it happens: the mean over ranks of what the slowest costs them.
ranks.seconds_waited()
time.sleep(0.6 if me == 0 else 0.0)
ranks.exchange(None)
assert 0.3 < ranks.seconds_waited() < 0.6

# What ends a block on one rank ends it on all.
with ranks.together():
    pass
with pytest.raises(ZeroDivisionError if me == 1 else OtherRankFailed) as error, ranks.together():
    if me:  # two of them raise, and the first one says so
        raise ZeroDivisionError
assert agreed(error.value)
with interruptible(), pytest.raises(Interrupted) as error, held_back():
    with ranks.together(hears=True):
        if me == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
assert agreed(error.value) and error.value.number == signal.SIGTERM
with interruptible(), pytest.raises(Interrupted) as error, held_back():
    if me == 0:
        os.kill(os.getpid(), signal.SIGINT)  # held back until the next block
    ranks.exchange(None)
    with ranks.together():
        pass  # and of one that hears
    with ranks.together(hears=True):
        assert me != 0
assert agreed(error.value) and error.value.number == signal.SIGINT

# A rank that is gone is noticed by the others.
if me == 2:
    os._exit(0)
with pytest.raises(RuntimeError) as error:
    ranks.exchange(None)
assert not agreed(error.value) and dist.is_initialized()
os._exit(0)
