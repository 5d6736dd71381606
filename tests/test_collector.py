"""The collector rests while it would find nothing, and does its work before and after."""

import gc
import weakref

import pytest

from grpo.collector import importing


class Circle:
    def __init__(self):
        self.itself = self


def test_what_is_made_within_is_not_searched_and_what_is_made_after_is():
    with importing():
        assert not gc.isenabled()
        within = weakref.ref(Circle())
    after = weakref.ref(Circle())
    try:
        assert gc.isenabled()
        gc.collect()
        assert within() is not None and after() is None
    finally:
        gc.unfreeze()
    gc.collect()
    assert within() is None


def test_it_is_left_as_it_was_found_also_where_an_import_fails():
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()
    gc.unfreeze()
