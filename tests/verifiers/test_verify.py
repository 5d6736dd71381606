"""grpo/verifiers/verify.py: rewards in order, whatever runs when, and what is refused before anything runs."""

import gc
import time
import weakref
from functools import partial

import pytest
import torch
from verifier_tools import HOSTILE, LIMIT, group, nan, rewards_of, same, write_verifier

from grpo.errors import UserError
from grpo.verifiers.verify import Verifiers, check_specs


@pytest.fixture
def file(tmp_path):
    """Write a verifier's file; returns its path."""
    return partial(write_verifier, tmp_path)


@pytest.fixture(scope="module")
def hostile():
    """One pool for all hostile calls: each finds what the ones before it left."""
    with Verifiers([HOSTILE], workers=2, time_limit=LIMIT, memory_limit=64) as verifiers:
        verifiers([group(["1"])])
        yield verifiers


def test_weights_and_parts_and_none(file):
    spec = file("""
        def length(response):
            return len(response)
        def if_short(response):
            return None if len(response) > 2 else True
    """)
    rewards = rewards_of([f"{spec}:length=0.5", f"{spec}:if_short=-2"], [group(["", "a"]), group(["bb", "ccc"])])
    assert list(rewards.by_verifier) == ["mine.length", "mine.if_short"]
    assert rewards.by_verifier["mine.length"].tolist() == [[0, 1], [2, 3]]
    assert same(rewards.by_verifier["mine.if_short"], [[1, 1], [1, nan]])
    assert rewards.total.tolist() == [[-2, -1.5], [-1, 1.5]]
    assert rewards.total.dtype == rewards.by_verifier["mine.if_short"].dtype == torch.float32
    assert rewards.errors == rewards.timeouts == {"mine.length": 0, "mine.if_short": 0}


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_number_of_workers_changes_nothing(workers):
    groups = [group([["1", f"{i}", "raise_an_error", f"{i % 7}"][j] for j in range(4)]) for i in range(40)]
    rewards = rewards_of([HOSTILE, f"{HOSTILE}:leave_things_behind"], groups, workers=workers)
    expected = [[1.0, float(i == 1), 0.0, float(i % 7 == 1)] for i in range(40)]
    assert rewards.by_verifier["hostile_verifiers"].tolist() == expected
    assert rewards.errors["hostile_verifiers"] == 40
    fingerprint = rewards.by_verifier["hostile_verifiers.leave_things_behind"].double().sum().item()
    known = test_the_number_of_workers_changes_nothing.__dict__.setdefault("fingerprint", fingerprint)
    assert fingerprint == known > 0


def test_equal_calls_of_a_step_are_made_once_and_forgotten_after_it(tmp_path):
    log = tmp_path / "log"
    groups = [group(["a", "b", "a"], path=str(log)), group(["a", "a", "c"], path=str(log))]
    with Verifiers([f"{HOSTILE}:write_it_down"], workers=2, time_limit=10.0) as verifiers:
        assert verifiers(groups).total.tolist() == [[1, 1, 1]] * 2
        assert sorted(log.read_text().split()) == ["a", "b", "c"]
        verifiers(groups)
        assert sorted(log.read_text().split()) == ["a", "a", "b", "b", "c", "c"]
        released = weakref.ref(groups[0].rollouts[0])
        del groups
        gc.collect()
        assert released() is None


def test_submitted_responses_are_verified_while_others_are_generated(file):
    spec = file("import time\ndef reward(response):\n    time.sleep(0.3)\n    return float(response)\n")
    with Verifiers([spec], workers=2, time_limit=10.0) as verifiers:
        verifiers([group(["0"])])
        groups = [group(["1", "2"]), group(["3", "4"])]
        started = time.monotonic()
        for each in groups:
            for response in each.rollouts:
                verifiers.submit(each.problem, response)
        assert time.monotonic() - started < 0.1
        time.sleep(0.9)  # generation goes on: two rounds of 0.3 s for two workers
        started = time.monotonic()
        assert verifiers(groups[::-1]).total.tolist() == [[3, 4], [1, 2]]
        assert time.monotonic() - started < 0.2


def test_what_was_submitted_for_nothing_does_not_disturb(hostile):
    stray = group(["raise_an_error", "hang"])
    for each in stray.rollouts:
        hostile.submit(stray.problem, each)
    rewards = hostile([group(["1", "2", "1"])])
    assert rewards.total.tolist() == [[1, 0, 1]]
    assert rewards.errors == rewards.timeouts == {"hostile_verifiers": 0}


def test_no_groups_and_ragged_groups(hostile):
    assert hostile([]).total.shape == (0, 0)
    with pytest.raises(ValueError, match=r"same number of responses, but have \[1, 2\]"):
        hostile([group(["1", "2"]), group(["1"])])


def test_a_batch_verifier_gets_the_whole_step(file):
    spec = file("""
        def reward(responses, prompts, truncated, tokens, answer):
            longest = max(map(len, responses))
            return [None if r == "" else len(r) / longest + 10 * (r == a) for r, a in zip(responses, answer)]
    """)
    rewards = rewards_of([spec], [group(["1", "22"]), group(["", "4444"])])
    assert same(rewards.total, [[10.25, 0.5], [0, 1]])
    assert same(rewards.by_verifier["mine"], [[10.25, 0.5], [nan, 1]])


def test_a_failing_batch_counts_every_response(file):
    spec = file("def reward(responses):\n    return [1 / 0]\n")
    rewards = rewards_of([spec, HOSTILE], [group(["1", "2"])], max_failure_share=1.0)
    assert rewards.total.tolist() == [[1, 0]]
    assert rewards.errors == {"mine": 2, "hostile_verifiers": 0}


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        ([], "no verifier is given"),
        (["nowhere"], "'nowhere' is neither a built-in of rewards/"),
        (["./nowhere.py"], "there is no file"),
        ([f"{HOSTILE}=heavy"], "does not end in a weight"),
        ([f"{HOSTILE}:nothing"], "defines no function 'nothing'"),
        ([HOSTILE, f"{HOSTILE}=2"], "would both be logged as 'hostile_verifiers'"),
    ],
)
def test_what_check_specs_refuses(specs, said):
    with pytest.raises(UserError, match=said):
        check_specs(specs, ["answer"])
    with pytest.raises(UserError, match=said):
        Verifiers(specs)


@pytest.mark.parametrize("name", ["mean", "errors", "timeouts"])
def test_a_verifier_may_not_pass_for_a_metric(file, name):
    with pytest.raises(UserError, match=rf"would be logged as reward/{name}, which is a metric of its own"):
        check_specs([file("def reward(response):\n    return 1.0\n", f"{name}.py")], [])


def test_a_column_that_does_not_pickle():
    with pytest.raises(UserError, match=r"cannot be given its arguments, response, answer: a value does not pickle"):
        rewards_of([HOSTILE], [group(["a"], answer=lambda: None)])


@pytest.mark.parametrize(
    "wrong", [{"workers": 0}, {"time_limit": 0.0}, {"memory_limit": -1}, {"max_failure_share": 1.5}]
)
def test_numbers_out_of_range(wrong):
    with pytest.raises(UserError, match="verifiers need at least one worker"):
        Verifiers([HOSTILE], **wrong)


# How far the run is, and time limits of a verifier's own ------------------------------------------------------------


def test_a_verifier_may_ask_how_far_the_run_is(file):
    spec = file("""
        def reward(response, step, steps):
            return step / steps
        def batch(responses, step, steps):
            return [s + t for s, t in zip(step, steps)]
        def maybe(response, step=-1.0):
            return step
    """)
    specs = [spec, f"{spec}:batch", f"{spec}:maybe"]
    check_specs(specs, {"answer"})
    with Verifiers(specs, workers=1, time_limit=10.0) as verifiers:
        assert verifiers([group(["a"])]).total.tolist() == [[1 + 2 + 1]]  # outside of a run: at its end
        verifiers.at = (3, 12)
        rewards = verifiers([group(["a"])])
        assert [part.item() for part in rewards.by_verifier.values()] == [0.25, 15, 3]


def test_a_column_of_the_data_comes_before_the_run(file):
    spec = file("def reward(response, steps):\n    return len(steps)\n")
    assert rewards_of([spec], [group(["a"], steps=["add", "carry"])]).total.tolist() == [[2]]


def test_a_run_says_its_steps(file, tmp_path, monkeypatch):
    """In training the number of the step; in its evaluations that of the step after which they are made."""
    from small_runs import HF, rows, run

    monkeypatch.chdir(tmp_path)
    file("def reward(response, step, steps):\n    return step + steps / 100\n")
    folder = run(tmp_path, *HF, "--reward", "./mine.py", "--steps", "2", "--truncated", "keep")
    found = [(row.get("reward/mean"), row.get("eval/reward")) for row in rows(folder)]
    assert [pytest.approx(pair) for pair in ((1.02, None), (2.02, 2.02))] == found[1:] and found[0][1] == 0.02


def test_a_file_may_name_a_time_limit_of_its_own(file, tmp_path):
    sleeps = "import time\n{}def reward(response):\n    time.sleep(0.6)\n    return 1.0\n"
    patient = write_verifier(tmp_path, sleeps.format("TIME_LIMIT = 5\n"), "patient.py")
    hasty = write_verifier(tmp_path, sleeps.format("TIME_LIMIT = 0.2\n"), "hasty.py")
    plain = write_verifier(tmp_path, sleeps.format(""), "plain.py")
    limits = dict(time_limit=0.4, max_failure_share=1.0)
    rewards = rewards_of([patient, hasty, plain], [group(["a"])], **limits)
    assert rewards.timeouts == {"patient": 0, "hasty": 1, "plain": 1}
    with pytest.raises(UserError, match=r"now 0\.2 s and 1024 MiB a call"):
        rewards_of([hasty], [group(["a"])], **(limits | dict(max_failure_share=0.0)))


@pytest.mark.parametrize("limit", ["0", "-1", "'5'", "float('inf')"])
def test_a_time_limit_that_is_none_is_refused(file, limit):
    spec = file(f"TIME_LIMIT = {limit}\ndef reward(response):\n    return 1.0\n")
    with pytest.raises(UserError, match=r"TIME_LIMIT in its file is .*must be seconds"):
        check_specs([spec], {"answer"})


def test_a_batch_has_the_limit_of_each_of_its_responses(file):
    """Two responses have twice the limit of one; TIME_LIMIT is that of the whole call."""
    sleeps = "import time\n{}\ndef reward(responses):\n    time.sleep(0.7)\n    return [1.0] * len(responses)\n"
    limits = dict(time_limit=0.5, max_failure_share=1.0)
    spec = file(sleeps.format(""))
    assert rewards_of([spec], [group(["a", "b"])], **limits).total.tolist() == [[1, 1]]
    assert rewards_of([spec], [group(["a"])], **limits).timeouts == {"mine": 1}
    hasty = file(sleeps.format("TIME_LIMIT = 0.3"), "hasty.py")
    with Verifiers([hasty], **limits) as verifiers:
        outcomes = verifiers.outcomes([group(["a", "b"])])["hasty"]
    assert [o.message for o in outcomes] == ["it took longer than the time limit of 0.3 s for 2 responses"] * 2
