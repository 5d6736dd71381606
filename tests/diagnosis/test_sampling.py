"""Sampled responses, made up: gaps, ends, rewards."""

import math

import pytest
import torch
from conftest import END, OTHER_END, make_tokenizer
from made_up import bad, one

from grpo.diagnosis.sampling import gap_findings, response_findings, reward_findings
from grpo.records import Group, Problem, Rewards, Rollout


def gaps(*values, tolerance=1e-4):
    trainer = -torch.arange(1.0, len(values) + 1)
    return list(gap_findings(trainer + torch.tensor(values), trainer, tolerance))


def test_gaps_against_the_tolerance():
    (fine,) = gaps(1e-6, -3e-6)
    assert fine.level == "ok" and "of 2 tokens of real responses differ by 2" in fine.found
    assert "--engine hf" in one(gaps(0.1, -0.1), "fault").advice
    assert one(gaps(math.nan, 0.0), "fault")
    single = one(gaps(*[0.0] * 99, 0.005), "warning")  # a mean of 5e-5, and one token far off
    assert "at most 0.005" in single.found
    assert not bad(gaps(0.01, -0.04, tolerance=0.05))


def rollout(*tokens, truncated=False, text="x"):
    return Rollout(tokens, (0.0,) * len(tokens), text, truncated)


def responses(*rollouts, marker=None, max_tokens=4, ends=(END,)):
    groups = [Group(Problem("", (3,), {}), rollouts)]
    limits = dict(max_tokens=max_tokens, max_response_tokens=4)
    return list(response_findings(groups, make_tokenizer(), ends, marker=marker, **limits))


ENDED, STOPPED, CUT = rollout(5, 6, END), rollout(7, 8), rollout(5, 6, 7, 8, truncated=True)


def test_how_responses_end():
    findings = responses(ENDED, ENDED, ENDED, STOPPED, CUT)
    assert not bad(findings)
    assert findings[1].found.startswith("3 of 5 end by <end> (1), 1 by a text of --stop, 1 are cut at 4 tokens; mean")
    assert "--max-response-tokens" in one(responses(ENDED, CUT), "warning").advice
    assert "2 are cut" in one(responses(CUT, CUT), "fault").found
    assert not bad(responses(CUT, CUT, max_tokens=2))  # the rehearsal cut them, not the run


def test_a_model_that_goes_on_behind_the_templates_end():
    past = rollout(5, OTHER_END, 6, END)
    finding = one(responses(past, ENDED, marker=OTHER_END), "fault")
    assert "1 of 2 write the template's end <end2> (2), and go on" in finding.found and "[1, 2]" in finding.advice
    assert not bad(responses(past, ENDED, marker=OTHER_END, ends=(END, OTHER_END)))


def test_a_response_is_shown_escaped():
    assert responses(rollout(5, END, text="\x1b[31mred\n"))[0].found == r"the first of 1: \x1b[31mred\n"


def rewards(*rows, errors=0, timeouts=0, unfinished=False):
    total = torch.tensor(rows)
    made = Rewards(total, {"mine": total}, {"mine": errors}, {"mine": timeouts})
    return list(reward_findings(made, total, unfinished=unfinished))


def test_whether_there_is_something_to_learn():
    (fine,) = rewards([1.0, 0.0], [1.0, 1.0])
    assert fine.level == "ok" and "3 of 4 responses are correct; in 1 of 2 groups all rewards are equal" in fine.found
    assert "easier problems" in one(rewards([0.0, 0.0], [0.0, 0.0]), "warning").advice
    assert "too easy" in one(rewards([1.0, 1.0]), "warning").advice
    (unknown,) = rewards([0.0, 0.0], unfinished=True)
    assert unknown.level == "not checked"


@pytest.mark.parametrize("errors,timeouts,level", [(1, 0, "warning"), (1, 1, "fault")])
def test_verifiers_that_fail(errors, timeouts, level):
    finding = one(rewards(*[[1.0, 0.0]] * 8, errors=errors, timeouts=timeouts), level)
    assert f"mine failed on {errors + timeouts} of 16 responses" in finding.found
    assert ("--verifier-time-limit" in finding.advice) == bool(timeouts)
