"""What the papers say of which groups and tokens count: DAPO's dynamic sampling, ScaleRL's mean over prompts."""

import copy

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from paper_steps import make_groups, make_rewards

from grpo.algorithm.aggregations import prompt_mean, token_mean
from grpo.algorithm.dynamic_sampling import dropped, enough, score, select
from grpo.algorithm.ingredients import load_aggregation
from grpo.algorithm.table import ALGORITHMS
from grpo.model.batching import collate, micro_batches, optimizer_batches
from grpo.problems.draw import draw, draw_anew
from grpo.records import Problem

DAPO, SCALE_RL = ALGORITHMS["dapo"], ALGORITHMS["scale_rl"]


@st.composite
def verdicts(draw, least=1, most=4):
    """[[correct, ...], ...] of P groups of G, as 0 and 1."""
    size = draw(st.integers(1, 4))
    row = st.lists(st.sampled_from([0.0, 1.0]), min_size=size, max_size=size)
    return draw(st.lists(row, min_size=least, max_size=most))


def scored(correct, row=DAPO, cut=None, **parts):
    rewards = make_rewards({"overlong": 0.5, "form": 0.1}, math=correct, **parts)
    return score(make_groups([[1] * len(group) for group in correct], cut), rewards, row)


# Dynamic sampling ------------------------------------------------------------------------------------------------


@given(verdicts(), st.data())
def test_informative_is_neither_all_correct_nor_all_wrong(correct, data):
    """DAPO, eq. 8 and 11: 0 < |{o_i : is_equivalent(a, o_i)}| < G. Penalties and rewards for a form do not count."""

    def cells(low, high):
        return [[data.draw(st.floats(low, high)) for _ in group] for group in correct]

    found = scored(correct, overlong=cells(-1, 0), form=cells(0, 1))
    assert found.informative.tolist() == [0 < sum(group) < len(group) for group in correct]


@given(verdicts(), st.data())
def test_a_correct_answer_that_was_cut_counts_as_what_it_is_credited_with(correct, data):
    """... of the reward that is learnt from: under `zero` a cut response is a wrong one."""
    cut = [[data.draw(st.booleans()) for _ in group] for group in correct]
    for truncated, counts in (("zero", False), ("keep", True)):
        row = SCALE_RL if truncated == "zero" else DAPO
        assert row.truncated == truncated
        right = [
            [bool(r) and (counts or not c) for r, c in zip(group, ends, strict=True)]
            for group, ends in zip(correct, cut, strict=True)
        ]
        found = scored(correct, row, cut).informative.tolist()
        assert found == [0 < sum(group) < len(group) for group in right]


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=2, max_size=4))
def test_sampling_goes_on_until_the_batch_is_full_of_such_groups(attempts):
    """DAPO, section 3.2: "over-sample and filter out prompts with the accuracy equal to 1 and 0 ... leaving all
    prompts in the batch with effective gradients and keeping a consistent number of prompts". The first P informative
    ones, in order; only where there are fewer do others fill the batch, and the loss leaves those out."""
    pool = [scored([[1.0, float(not mixed)] for mixed in attempt]) for attempt in attempts]
    arrived = [group for one in pool for group in one.groups]
    mixed_at = [mixed for attempt in attempts for mixed in attempt]
    informative = [id(group) for group, mixed in zip(arrived, mixed_at, strict=True) if mixed]
    chosen = select(pool, 3)
    assert enough(pool, 3) == (len(informative) >= 3)
    assert len(chosen.groups) == 3 and len({id(group) for group in chosen.groups}) == 3
    kept = [id(group) for group in chosen.groups if id(group) in informative]
    assert kept == informative[:3]
    assert chosen.informative.tolist() == [id(group) in informative for group in chosen.groups]
    assert torch.equal(dropped(chosen.informative, DAPO), ~chosen.informative)
    assert chosen.total.tolist() == [[1.0, 0.0] if mixed else [1.0, 1.0] for mixed in chosen.informative.tolist()]


def weights(lengths, aggregation, left_out=None):
    """Of the tokens that are trained on, in order: through the batch that a step makes."""
    batch = collate(make_groups(lengths), 0, dropped=left_out)
    (batch,) = optimizer_batches(batch, 1, 1, load_aggregation(aggregation, 4.0), seed=0)
    assert not batch.token_weights[~batch.mask].any()
    return batch.token_weights[batch.mask]


@pytest.mark.parametrize("aggregation", ["token_mean", "prompt_mean"])
@given(st.data())
def test_a_dropped_group_is_in_no_denominator(aggregation, data):
    """ScaleRL, section 3.2: "an effective batch approach, where only prompts with non-zero variance are included in
    the loss calculation": weights are those of a step that never saw the others."""
    size = data.draw(st.integers(1, 3))
    lengths = data.draw(st.lists(st.lists(st.integers(1, 5), min_size=size, max_size=size), min_size=1, max_size=4))
    left_out = torch.tensor([data.draw(st.booleans()) for _ in lengths])
    assume(not left_out.all())
    remaining = [row for row, gone in zip(lengths, left_out.tolist(), strict=True) if not gone]
    found = weights(lengths, aggregation, left_out)
    torch.testing.assert_close(found, weights(remaining, aggregation))
    assert found.sum().item() == pytest.approx(1.0)


@given(st.data(), st.integers(0, 99))
def test_redraws_never_repeat_a_problem_of_the_step(data, seed):
    """Second reading, 10: "refilled groups can repeat problems of the step" - they must not. They are new problems
    until there are no more, and a second run, of equal problems that are other objects, draws the same."""
    size = data.draw(st.integers(1, 9))
    count, step = data.draw(st.integers(1, size)), data.draw(st.integers(1, 6))
    problems = [Problem(f"problem {i}", (i,), {}) for i in range(size)]

    def whole_step(problems):
        asked = draw(problems, count, step, seed)
        for attempt in range(1, size + 2):
            further = draw_anew(problems, count, step, attempt, seed, asked)
            names = [problem.prompt for problem in further]
            assert len(set(names)) == len(names) and not {problem.prompt for problem in asked} & set(names)
            assert len(further) == min(count, size - len({problem.prompt for problem in asked}))
            asked = [*asked, *further]
        assert {problem.prompt for problem in asked} == {problem.prompt for problem in problems}
        return [problem.prompt for problem in asked]

    assert whole_step(problems) == whole_step(copy.deepcopy(problems))


def test_redraws_differ_by_attempt_step_and_seed():
    problems = [Problem(f"problem {i}", (i,), {}) for i in range(40)]
    keys = [(1, 1, 0), (1, 2, 0), (2, 1, 0), (1, 1, 1)]
    drawn = {tuple(p.prompt for p in draw_anew(problems, 8, step, attempt, seed, [])) for step, attempt, seed in keys}
    assert len(drawn) == len(keys)


# ScaleRL's aggregation -------------------------------------------------------------------------------------------


def test_prompt_mean_by_hand():
    """ScaleRL, section 4: 1 / sum_g |y_g| within a prompt's group, and the mean over prompts. Groups of 1 + 3 and 2 + 6
    tokens: 1 / (2 * 4) and 1 / (2 * 8) a token, where the token mean has 1 / 12 everywhere."""
    torch.testing.assert_close(weights([[1, 3], [2, 6]], "prompt_mean"), torch.tensor([1 / 8] * 4 + [1 / 16] * 8))
    torch.testing.assert_close(weights([[1, 3], [2, 6]], "token_mean"), torch.full((12,), 1 / 12))


@given(st.lists(st.lists(st.integers(1, 6), min_size=2, max_size=2), min_size=1, max_size=4), st.integers(1, 6))
def test_each_prompt_contributes_equally(lengths, other):
    """Section 3.2: "Prompt average where each prompt contributes equally", whatever the lengths of the others; of a
    single prompt it is the token mean."""
    found = weights(lengths, "prompt_mean").split([sum(row) for row in lengths])
    for prompt in found:
        assert prompt.sum().item() == pytest.approx(1 / len(lengths))
        torch.testing.assert_close(prompt, prompt[:1].expand_as(prompt))
    changed = weights([*lengths[:-1], [other, other]], "prompt_mean").split([*map(sum, lengths[:-1]), 2 * other])
    for before, after in zip(found[:-1], changed[:-1], strict=True):
        torch.testing.assert_close(before, after)
    torch.testing.assert_close(weights(lengths[:1], "prompt_mean"), weights(lengths[:1], "token_mean"))


def test_a_prompt_without_a_token_is_not_counted():
    """Groups named 4 and 9 of which the second is empty, as where all its responses were cut and masked."""
    mask, groups = torch.tensor([[True, True], [False, False]]), torch.tensor([9, 4])
    assert prompt_mean(mask, groups).tolist() == [[0.5, 0.5], [0, 0]]
    assert not prompt_mean(torch.zeros_like(mask), groups).any() and not token_mean(torch.zeros_like(mask), 0.0).any()


@given(st.integers(1, 40))
def test_the_weights_do_not_know_of_micro_batches(max_tokens):
    """Second reading: "TRL bnpo, nanochat: the result depends on the micro-batch size". Cut anywhere, sums agree."""
    batch = collate(make_groups([[1, 3], [2, 6], [4, 4]]), 0)
    (batch,) = optimizer_batches(batch, 1, 1, load_aggregation("prompt_mean", 4.0), seed=0)
    parts = [batch.take(rows) for rows in micro_batches(batch, max_tokens)]
    total = sum((part.token_weights * part.targets * part.mask).sum() for part in parts)
    torch.testing.assert_close(total, (batch.token_weights * batch.targets * batch.mask).sum())
