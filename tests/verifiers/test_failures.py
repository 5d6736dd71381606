"""grpo/verifiers/failures.py: what is said of failed calls, and when they end the run."""

import logging
import time
from functools import partial

import pytest
from verifier_tools import HOSTILE, group, rewards_of, write_verifier

from grpo.errors import UserError
from grpo.verifiers.verify import Verifiers


@pytest.fixture
def file(tmp_path):
    """Write a verifier's file; returns its path."""
    return partial(write_verifier, tmp_path)


def test_failing_on_most_of_a_step_ends_the_run(file):
    with pytest.raises(UserError) as error:
        rewards_of([HOSTILE], [group(["raise_an_error", "1", "fork_once", "raise_an_error"])])
    said = str(error.value)
    assert "verifier 'hostile_verifiers' failed on at least 3 of 4 responses of this step (75%: 3 errors" in said
    assert "at most 50% may fail" in said
    assert "Most often: RuntimeError: no such luck" in said
    assert "Mend the verifier, trying it with `python -m grpo.verifiers`, or raise its limits" in said


def test_a_lost_step_ends_before_all_its_time_outs(file):
    texts = [f"{i}" for i in range(50)]
    spec = file("import time\ndef reward(response):\n    time.sleep(1000)\n")
    started = time.monotonic()
    with pytest.raises(UserError, match=r"failed on at least \d+ of 50 .* time-outs"):
        rewards_of([spec], [group(texts)], workers=2, time_limit=0.2, max_failure_share=0.1)
    assert time.monotonic() - started < 5.0


def test_a_share_that_may_fail_is_not_exceeded_by_it(file):
    rewards = rewards_of([HOSTILE], [group(["raise_an_error", "1"])], max_failure_share=0.5)
    assert rewards.errors == {"hostile_verifiers": 1}


def test_each_message_is_shown_once(caplog, file):
    spec = file("def reward(response):\n    raise ValueError(response)\n")
    with caplog.at_level(logging.WARNING, "grpo.verifiers"):
        with Verifiers([HOSTILE], workers=1, max_failure_share=1.0) as verifiers:
            for _ in range(2):
                verifiers([group(["raise_an_error", "raise_an_error", "fork_once", "1"])])
    shown = [record.getMessage() for record in caplog.records]
    assert len(shown) == 2
    assert shown[0].startswith("verifier 'hostile_verifiers' failed: RuntimeError: no such luck (hostile_verifiers.py")
    assert shown[0].endswith("Scored 0; the response begins 'raise_an_error'.")
    caplog.clear()
    rewards_of([spec], [group([f"{i}" for i in range(30)])], max_failure_share=1.0)
    assert len(caplog.records) == 20
    assert caplog.records[-1].getMessage().endswith("Further messages of this verifier are not shown.")
