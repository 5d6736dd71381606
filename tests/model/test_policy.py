"""The update: its gradient is the formula's, and depends on nothing but the batch."""

import copy
import math
from dataclasses import asdict, replace

import formulas
import pytest
import torch
from conftest import make_policy
from updates import ADVANTAGES, CONSTANT, PAD, gradient, uneven_groups, whole_batch

from grpo.algorithm.credit import spread
from grpo.algorithm.ingredients import load_aggregation
from grpo.algorithm.objective import Objective
from grpo.algorithm.table import ALGORITHMS
from grpo.model.batching import collate, optimizer_batches


@pytest.fixture
def groups():
    return uneven_groups()


REWARDS = [[1.0, 0.0, 0.5, 0.0], [0.0, 1.0, 1.0, 1.0], [0.2, 0.9, 0.1, 0.4]]


def assert_same_gradient(one, two):
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6 * max(1.0, a.abs().max().item()))


@pytest.mark.parametrize("entropy_coef", [0.0, 0.05])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_gradient_equals_the_formulas_written_by_another_hand(tied_folder, groups, name, entropy_coef):
    """One sequence at a time, logits in full, no padding: tests/formulas.py, for any row of the table."""
    row, policy = replace(ALGORITHMS[name], entropy_coef=entropy_coef), make_policy(tied_folder)
    policy.train_entropy = entropy_coef > 0
    lengths = [[len(rollout.tokens) for rollout in group.rollouts] for group in groups]
    compared = torch.tensor(formulas.advantages(row.advantage, REWARDS, lengths))
    batch = whole_batch(policy, groups, row, advantages=compared)
    found, metrics = gradient(policy, batch, row)

    policy.model.zero_grad()
    responses = [(g.problem.prompt_tokens, r.tokens) for g in groups for r in g.rollouts]
    tokens = sum(len(response) for _, response in responses)
    loss = torch.zeros(())
    for i, (prompt, response) in enumerate(responses):
        ids = torch.tensor([[*prompt, *response]])
        table = policy.model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        new = table.gather(-1, torch.tensor(response)[:, None]).squeeze(-1)
        entropy = -(table.exp() * table).sum(-1) if entropy_coef else None
        old, ref, sampler = (
            t[i][batch.mask[i]] for t in (batch.old_logprobs, batch.ref_logprobs, batch.sampler_logprobs)
        )
        total = formulas.response_loss(row, new, old, ref, sampler, compared.flatten()[i].item(), entropy)
        of_problem = (len(groups), sum(lengths[i // 4]))
        loss = loss + total / formulas.divisor(
            row.aggregation, len(response), len(responses), tokens, CONSTANT, *of_problem
        )
    loss.backward()
    assert_same_gradient(found, [p.grad for p in policy.model.parameters()])
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert metrics["kl"] == pytest.approx(math.exp(-0.3) - 1 + 0.3, rel=1e-3)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("micro_batch_tokens", [1, 20, 60])
def test_gradient_does_not_depend_on_micro_batches(tied_folder, groups, name, micro_batch_tokens):
    policy, algorithm = make_policy(tied_folder), ALGORITHMS[name]
    batch = whole_batch(policy, groups, algorithm)
    whole, measured = gradient(policy, batch, algorithm)
    cut, measured_cut = gradient(policy, batch, algorithm, micro_batch_tokens)
    assert_same_gradient(whole, cut)
    for key in measured:
        assert measured_cut[key] == pytest.approx(measured[key], rel=1e-3, abs=1e-6), key


@pytest.mark.parametrize("name", ALGORITHMS)
def test_gradient_does_not_depend_on_order_or_padding(tied_folder, groups, name):
    policy, algorithm = make_policy(tied_folder), ALGORITHMS[name]
    plain, _ = gradient(policy, whole_batch(policy, groups, algorithm), algorithm)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled, _ = gradient(policy, whole_batch(policy, groups, algorithm, order=order), algorithm, 40)
    padded, _ = gradient(policy, whole_batch(policy, groups, algorithm, extra_padding=9), algorithm)
    assert_same_gradient(plain, shuffled)
    assert_same_gradient(plain, padded)


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_gradient_adds_up_over_simulated_ranks(tied_folder, groups, name, ranks):
    """Each rank holds some rows of the optimizer batch with the weights of the whole; their gradients are summed."""
    policy, row = make_policy(tied_folder), ALGORITHMS[name]
    batch = whole_batch(policy, groups, row)
    whole, _ = gradient(policy, batch, row)
    shares = [gradient(policy, batch.take(rows), row)[0] for rows in torch.arange(len(batch)).chunk(ranks)]
    assert_same_gradient(whole, [sum(shares_of_one) for shares_of_one in zip(*shares, strict=True)])


def test_grpo_and_dr_grpo_differ_in_the_documented_cells_only():
    one, two = asdict(ALGORITHMS["grpo"]), asdict(ALGORITHMS["dr_grpo"])
    assert {key for key in one if one[key] != two[key]} - {"paper", "departures", "notes"} == {
        "advantage",
        "aggregation",
        "kl_coef",
    }


def test_one_on_policy_update_has_ratio_one_and_a_gradient(tied_folder, groups):
    """Loss about 0 where advantages cancel, gradient not: the README's "this is not a bug"."""
    policy = make_policy(tied_folder)
    batch = collate(groups, PAD)
    batch = replace(batch, advantages=spread(torch.tensor([0.5, -0.5, 0.5, -0.5] * 3), batch.mask))
    (part,) = optimizer_batches(batch, 1, 1, load_aggregation("sequence_mean", 0.0), seed=0)
    _, metrics = gradient(policy, part, replace(ALGORITHMS["dr_grpo"], importance_cap=0))
    assert metrics["loss"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["grad_norm"] > 0.01
    assert abs(metrics["surrogate"]) > 1e-4
    assert metrics["clip_low"] == metrics["clip_high"] == 0.0


def test_zero_advantages_and_no_kl_change_nothing(tied_folder, groups):
    policy, algorithm = make_policy(tied_folder), ALGORITHMS["dr_grpo"]
    batch = whole_batch(policy, groups, algorithm, advantages=torch.zeros(3, 4))
    grads, metrics = gradient(policy, batch, algorithm)
    assert metrics["grad_norm"] == 0.0
    assert not any(grad.any() for grad in grads)


def test_an_update_with_nan_in_it_is_skipped(tied_folder, groups):
    policy, algorithm = make_policy(tied_folder), ALGORITHMS["dr_grpo"]
    batch = whole_batch(policy, groups, algorithm, advantages=torch.full((3, 4), float("nan")))
    before = copy.deepcopy(policy.model.state_dict())
    found = policy.update(batch, Objective(algorithm))
    assert found["skipped_in_a_row"] == 1 and math.isnan(found["loss"]) and math.isnan(found["grad_norm"])
    after = policy.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_update_moves_towards_the_better_responses(tied_folder, groups):
    policy, algorithm = make_policy(tied_folder, learning_rate=1e-3), ALGORITHMS["dr_grpo"]
    batch = collate(groups, PAD)
    batch = replace(batch, advantages=spread(ADVANTAGES, batch.mask))
    (part,) = optimizer_batches(batch, 1, 1, load_aggregation("constant", 16.0), seed=0)
    before = policy.logprobs(batch).sum(1)
    for _ in range(5):
        policy.update(part, Objective(algorithm))
    change = policy.logprobs(batch).sum(1) - before
    assert (change * ADVANTAGES.flatten()).sum() > 0.1


def test_warmup_and_grad_clip(tied_folder, groups):
    policy = make_policy(tied_folder, learning_rate=1e-3, warmup_updates=3, max_grad_norm=1e-3)
    batch = whole_batch(policy, groups, ALGORITHMS["grpo"])
    norms = []
    policy.optimizer.register_step_pre_hook(
        lambda *_: norms.append(torch.stack([p.grad.norm() for p in policy.model.parameters()]).norm().item())
    )
    rates = [policy.update(batch, Objective(ALGORITHMS["grpo"]))["learning_rate"] for _ in range(5)]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3])
    assert norms == pytest.approx([1e-3] * 5, rel=1e-3)


def test_reference_stays_where_the_policy_was(tied_folder, groups):
    policy = make_policy(tied_folder, learning_rate=1e-2)
    batch = whole_batch(policy, groups, ALGORITHMS["dr_grpo"])
    reference = policy.frozen_copy()
    before = policy.logprobs(batch)
    policy.update(batch, Objective(ALGORITHMS["dr_grpo"]))
    torch.testing.assert_close(reference.logprobs(batch), before, rtol=0, atol=0)
    assert (policy.logprobs(batch) - before).abs().max() > 0.01
    assert not any(p.requires_grad for p in reference.model.parameters())


@pytest.fixture
def of_bfloat16_numbers(tied_folder):
    """A float32 policy whose weights bfloat16 has too, as those of most published models."""
    policy = make_policy(tied_folder)
    for parameter in policy.model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return policy


def test_a_reference_in_bfloat16_takes_half_and_scores_the_same_under_autocast(of_bfloat16_numbers, groups):
    """Bit for bit, as on CUDA: the KL of a policy that has not moved is 0."""
    reference = of_bfloat16_numbers.frozen_copy()
    size = sum(parameter.nbytes for parameter in reference.model.parameters())
    angles = reference.model.model.rotary_emb.inv_freq.clone()
    reference.keep_in_bfloat16()
    assert sum(parameter.nbytes for parameter in reference.model.parameters()) == size / 2
    assert torch.equal(reference.model.model.rotary_emb.inv_freq, angles)
    batch = collate(groups, PAD)
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = of_bfloat16_numbers.logprobs(batch), reference.logprobs(batch)
    assert torch.equal(expected, found)
    assert not torch.equal(found, of_bfloat16_numbers.logprobs(batch))  # autocast has rounded


def test_a_reference_of_bfloat16_weights_stays_as_it_is(tied_folder, groups):
    policy = make_policy(tied_folder, dtype=torch.bfloat16)
    reference, batch = policy.frozen_copy(), collate(groups, PAD)
    reference.keep_in_bfloat16()
    assert torch.equal(reference.logprobs(batch), policy.logprobs(batch))


def test_a_reference_that_rests_on_the_host_scores_the_same(tied_folder, groups):
    policy, batch = make_policy(tied_folder), collate(groups, PAD)
    reference = policy.frozen_copy()
    before = next(reference.model.parameters()).data_ptr()
    reference.rest_on_host()
    assert next(reference.model.parameters()).data_ptr() != before
    for _ in range(2):
        assert torch.equal(reference.logprobs(batch), policy.logprobs(batch))


def test_weights_name_the_tied_head(tied_folder):
    policy = make_policy(tied_folder)
    names = {name for name, _ in policy.weights()}
    assert "lm_head.weight" in names and "lm_head.weight" not in dict(policy.model.named_parameters())


# Rows without a gradient ------------------------------------------------------------------------------------------

IDLE = torch.tensor([[0.5, -0.5, 0.25, -0.25], [0.0] * 4, [0.0, 0.0, 0.7, -0.7]])
"""The second group is uniform, and so are two responses of the third."""


def backward_passes(policy, monkeypatch):
    """The rows of each backward pass that is made from now on."""
    seen, contribute = [], policy.contribute
    monkeypatch.setattr(policy, "contribute", lambda part, *rest: seen.append(len(part)) or contribute(part, *rest))
    return seen


def without_terms(name):
    return replace(ALGORITHMS[name], kl_coef=0.0, old_kl_coef=0.0, entropy_coef=0.0)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_rows_whose_advantages_are_zero_go_without_a_backward_pass(tied_folder, groups, name, monkeypatch):
    row, policy = without_terms(name), make_policy(tied_folder)
    batch = whole_batch(policy, groups, row, advantages=IDLE)
    monkeypatch.setattr(Objective, "moves", lambda self, batch: torch.ones(len(batch), dtype=torch.bool))
    all_rows, measured = gradient(policy, batch, row)
    monkeypatch.undo()
    seen = backward_passes(policy, monkeypatch)
    found, same = gradient(policy, batch, row)
    assert seen == [6]
    assert_same_gradient(found, all_rows)
    for key in measured:
        assert same[key] == pytest.approx(measured[key], rel=1e-4, abs=1e-6), key


@pytest.mark.parametrize("term", [{"kl_coef": 0.1}, {"entropy_coef": 0.1}, {"old_kl_coef": 0.1}])
def test_a_term_of_every_token_moves_every_row(tied_folder, groups, term, monkeypatch):
    row, policy = replace(without_terms("dr_grpo"), **term), make_policy(tied_folder)
    batch = whole_batch(policy, groups, row, advantages=IDLE)
    seen = backward_passes(policy, monkeypatch)
    gradient(policy, batch, row)
    assert seen == [12]
    assert Objective(without_terms("dr_grpo"), loss_term=lambda logprobs, batch: logprobs).moves(batch).all()
    assert Objective(replace(without_terms("dr_grpo"), kl_coef=0.1, kl_in="reward")).moves(batch).sum() == 6


def test_where_no_row_has_a_gradient_adamw_goes_on_with_zeros(tied_folder, groups, monkeypatch):
    row, policy = without_terms("dr_grpo"), make_policy(tied_folder, learning_rate=1e-3)
    policy.update(whole_batch(policy, groups, row), Objective(row))
    before = policy.logprobs(whole_batch(policy, groups, row))
    seen = backward_passes(policy, monkeypatch)
    policy.update(whole_batch(policy, groups, row, advantages=torch.zeros(3, 4)), Objective(row))
    assert seen == [12] and policy.moves == 2
    assert (policy.logprobs(whole_batch(policy, groups, row)) - before).abs().max() > 0.01  # by its momentum


def test_a_row_that_is_only_measured_is_measured(tied_folder, groups):
    """What is not finite in it skips the update, as anywhere."""
    row, policy = without_terms("dr_grpo"), make_policy(tied_folder)
    batch = whole_batch(policy, groups, row, advantages=IDLE)
    batch.old_logprobs[4][batch.mask[4]] = float("nan")
    assert not Objective(row).moves(batch)[4]
    assert policy.update(batch, Objective(row))["skipped_in_a_row"] == 1
