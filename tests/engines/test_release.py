"""One release and one wake a step, and a wake that is only half done is no wake.

vLLM sleeps on CUDA alone. Here its two calls are recorded on the real engine for the CPU, whose generation, sync and
scores are untouched.
"""

import pytest
from conftest import make_policy

from grpo.engines.hf_engine import HFEngine
from grpo.model.policy import Policy
from grpo.train import main

WHOLLY = {"weights": False, "kv_cache": True, None: True}
"""What vllm's wake_up answers, by what it is asked to wake: whether all is awake."""


@pytest.fixture
def sleeper(vllm_engine, monkeypatch):
    """(engine, the calls that it has made)."""
    calls = []

    def sleep(level):
        calls.append(f"sleep {level}")

    def wake_up(tags=None):
        calls.append(f"wake {tags[0] if tags else 'all'}")
        return WHOLLY[tags[0] if tags else None]

    monkeypatch.setattr(vllm_engine, "sleeps", True)
    monkeypatch.setattr(vllm_engine.llm, "sleep", sleep)
    monkeypatch.setattr(vllm_engine.llm, "wake_up", wake_up)
    yield vllm_engine, calls
    vllm_engine.asleep = False


def generate(engine, problems):
    return engine.generate(problems, 2, temperature=1.0, max_tokens=4, seed=0)


def test_a_step_sleeps_once_and_wakes_once_in_two_parts(sleeper, tied_folder, problems):
    engine, calls = sleeper
    policy = make_policy(tied_folder)
    engine.sync(policy)
    for _ in range(2):
        generate(engine, problems)  # a step that draws anew generates twice
        generate(engine, problems)
        engine.release()
        engine.release()
        engine.sync(policy)
        engine.score([[3, 4, 5]])
    assert calls == ["sleep 1", "wake weights", "wake kv_cache"] * 2  # the weights first: the card may not hold both


def test_who_generates_or_scores_without_a_sync_has_the_weights_of_before(sleeper, tied_folder, problems):
    engine, calls = sleeper
    engine.sync(make_policy(tied_folder))
    before = generate(engine, problems)
    engine.release()
    assert generate(engine, problems) == before
    engine.release()
    engine.score([[3, 4, 5]])
    assert calls == ["sleep 1", "wake all"] * 2


def test_a_wake_in_part_is_an_error_and_not_a_loop_without_end(sleeper, tied_folder, problems, monkeypatch):
    engine, _ = sleeper
    monkeypatch.setattr(engine.llm, "wake_up", lambda tags=None: False)
    engine.release()
    with pytest.raises(RuntimeError, match="only in part"):
        generate(engine, problems)
    with pytest.raises(RuntimeError, match="only in part"):
        engine.sync(make_policy(tied_folder))


def test_the_loop_releases_once_a_step_between_its_last_generation_and_its_update(tmp_path, monkeypatch):
    """Also where a step draws anew (dapo), saves its rollouts, evaluates, and is asked for by a resumed run."""
    calls = []
    for owner, name in ((HFEngine, "generate"), (HFEngine, "release"), (HFEngine, "sync"), (Policy, "update")):
        monkeypatch.setattr(owner, name, recorded(calls, name, getattr(owner, name)))
    monkeypatch.chdir(tmp_path)
    flags = ["--engine", "hf", "--wandb", "off", "--algo", "dapo", "--dynamic-sampling", "2", "--eval-every", "1"]
    sizes = ["--problems-per-step", "2", "--responses-per-problem", "2", "--eval-problems", "4", "--steps", "2"]
    assert main([*flags, *sizes, "--max-response-tokens", "8", "--name", "run", "--save-rollouts"]) == 0
    steps = " ".join(calls).split("release")
    assert len(steps) == 3
    for after in steps[1:]:
        assert after.split()[:2] == ["update", "sync"]  # nothing is generated while the device is the trainer's
        assert "sync" not in after.split()[2:]


def recorded(calls, name, method):
    """The method, which also notes that it was called."""

    def noting(self, *args, **kwargs):
        calls.append(name)
        return method(self, *args, **kwargs)

    return noting
