"""How an engine ends: in the order in which nothing is left behind."""

from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.vllm


@pytest.fixture
def closing(monkeypatch):
    """(an engine of which only the end is real, the calls that this makes)."""
    from grpo.engines import vllm_engine

    calls = []
    engine = object.__new__(vllm_engine.VLLMEngine)
    core = SimpleNamespace(shutdown=lambda: calls.append("shutdown"))
    engine.llm = SimpleNamespace(wake_up=lambda: calls.append("wake") or True)
    engine.engine = SimpleNamespace(engine_core=core, _finalizer=lambda: calls.append("unhook"))
    engine.asleep = False
    monkeypatch.setattr(vllm_engine, "cleanup_dist_env_and_memory", lambda: calls.append("cleanup"))
    return engine, calls


def test_hooks_go_before_the_model_that_they_are_found_through(closing):
    engine, calls = closing
    engine.close()
    assert calls == ["unhook", "shutdown", "cleanup"]


def test_one_that_sleeps_is_woken_first(closing):
    engine, calls = closing
    engine.asleep = True
    engine.close()
    assert calls == ["wake", "unhook", "shutdown", "cleanup"]


def test_where_there_is_no_room_to_wake_it_ends_all_the_same(closing):
    engine, calls = closing
    engine.asleep, engine.llm.wake_up = True, lambda: 1 / 0
    engine.close()
    assert calls == ["unhook", "shutdown", "cleanup"]


def test_the_engine_that_vllm_makes_has_what_removes_its_hooks(vllm_engine):
    assert callable(vllm_engine.engine._finalizer)
