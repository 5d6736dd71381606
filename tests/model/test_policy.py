"""The update: its gradient is the formula's, and depends on nothing but the batch."""

import copy
import math
from dataclasses import asdict, replace
from functools import partial

import formulas
import pytest
import torch
from conftest import make_policy

from grpo.algorithm.aggregations import AGGREGATIONS
from grpo.algorithm.losses import Bounds, policy_token_loss
from grpo.algorithm.table import ALGORITHMS
from grpo.model.batching import collate, optimizer_batches
from grpo.records import Group, Problem, Rollout

PAD = 0


@pytest.fixture
def groups():
    """Uneven prompts and responses, made by no engine: their log-probabilities differ from the policy's."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for p, prompt in enumerate((2, 7, 4)):
        rollouts = []
        for length in (1, 5 + p, 12 - 3 * p, 3):
            tokens = torch.randint(3, 200, (length,), generator=generator).tolist()
            rollouts.append(Rollout(tuple(tokens), tuple([-3.0] * length), "", truncated=False))
        prompt_tokens = tuple(torch.randint(3, 200, (prompt,), generator=generator).tolist())
        made.append(Group(Problem("", prompt_tokens, {}), tuple(rollouts)))
    return made


REWARDS = [[1.0, 0.0, 0.5, 0.0], [0.0, 1.0, 1.0, 1.0], [0.2, 0.9, 0.1, 0.4]]
ADVANTAGES = torch.tensor([[0.5, -0.5, 0.25, -0.25], [1.0, 0.0, -1.0, 0.0], [-0.7, 0.1, 0.3, 0.3]])


def token_loss(row):
    """The loss of a row, as train.py puts it together."""

    def loss(part, logprobs, entropy):
        return policy_token_loss(
            logprobs, part.old_logprobs, part.advantages, part.mask, Bounds(row.clip_low, row.clip_high, row.ratio_cap),
            ratio=row.ratio, surrogate=row.surrogate, sampler_logprobs=part.sampler_logprobs,
            importance_cap=row.importance_cap, ref_logprobs=part.ref_logprobs, kl_coef=row.kl_coef,
            kl_estimator=row.kl_estimator, entropy=entropy, entropy_coef=row.entropy_coef,
        )  # fmt: skip

    return loss


CONSTANT = 16.0


def whole_batch(policy, groups, row, advantages=ADVANTAGES, order=None, extra_padding=0):
    """One optimizer batch of all rows, with old and reference log-probabilities off the policy's."""
    batch = replace(collate(groups, PAD), advantages=advantages.flatten())
    if extra_padding:
        pad = partial(torch.nn.functional.pad, pad=(0, extra_padding))
        batch = replace(batch, **{name: pad(t) for name, t in batch._tensors().items() if t.ndim == 2})
    if order is not None:
        batch = batch.take(order)
    ours = policy.logprobs(batch)
    # Fixed offsets by target token: ratios inside and outside every clip range, whatever the order of the rows.
    offset = ((batch.targets % 7).float() - 3) / 8
    batch = replace(batch, old_logprobs=ours + offset * batch.mask, ref_logprobs=ours - 0.3 * batch.mask)
    (part,) = optimizer_batches(batch, 1, 1, partial(AGGREGATIONS[row.aggregation], constant=CONSTANT), seed=0)
    return part


def gradient(policy, batch, algorithm, micro_batch_tokens=4096):
    """The gradient that `update` steps along, and its metrics; the weights are put back."""
    kept = copy.deepcopy(policy.model.state_dict())
    policy.micro_batch_tokens, policy.max_grad_norm = micro_batch_tokens, 1e9
    seen = []
    hook = policy.optimizer.register_step_pre_hook(
        lambda *_: seen.extend(p.grad.clone() for p in policy.model.parameters())
    )
    metrics = policy.update(batch, token_loss(algorithm))
    hook.remove()
    policy.model.load_state_dict(kept)
    return seen, metrics


def assert_same_gradient(one, two):
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6 * max(1.0, a.abs().max().item()))


@pytest.mark.parametrize("entropy_coef", [0.0, 0.05])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_gradient_equals_the_formulas_written_by_another_hand(tied_folder, groups, name, entropy_coef):
    """One sequence at a time, logits in full, no padding: tests/formulas.py, for any row of the table."""
    row, policy = replace(ALGORITHMS[name], entropy_coef=entropy_coef), make_policy(tied_folder)
    policy.train_entropy = entropy_coef > 0
    compared = torch.tensor(formulas.advantages(row.advantage, REWARDS))
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
        loss = loss + total / formulas.divisor(row.aggregation, len(response), len(responses), tokens, CONSTANT)
    loss.backward()
    assert_same_gradient(found, [p.grad for p in policy.model.parameters()])
    assert metrics["policy/loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert metrics["policy/kl"] == pytest.approx(math.exp(-0.3) - 1 + 0.3, rel=1e-3)


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
    assert_same_gradient(whole, [sum(parts) for parts in zip(*shares, strict=True)])


def test_grpo_and_dr_grpo_differ_in_the_documented_cells_only():
    one, two = asdict(ALGORITHMS["grpo"]), asdict(ALGORITHMS["dr_grpo"])
    assert {key for key in one if one[key] != two[key]} == {"advantage", "aggregation", "kl_coef"}


def test_one_on_policy_update_has_ratio_one_and_a_gradient(tied_folder, groups):
    """Loss about 0 where advantages cancel, gradient not: the README's "this is not a bug"."""
    policy = make_policy(tied_folder)
    batch = replace(collate(groups, PAD), advantages=torch.tensor([0.5, -0.5, 0.5, -0.5] * 3))
    (part,) = optimizer_batches(batch, 1, 1, partial(AGGREGATIONS["sequence_mean"], constant=0), seed=0)
    _, metrics = gradient(policy, part, replace(ALGORITHMS["dr_grpo"], importance_cap=None))
    assert metrics["policy/loss"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["policy/grad_norm"] > 0.01
    assert abs(metrics["policy/surrogate"]) > 1e-4
    assert metrics["policy/clip_low"] == metrics["policy/clip_high"] == 0.0


def test_zero_advantages_and_no_kl_change_nothing(tied_folder, groups):
    policy, algorithm = make_policy(tied_folder), ALGORITHMS["dr_grpo"]
    batch = whole_batch(policy, groups, algorithm, advantages=torch.zeros(3, 4))
    grads, metrics = gradient(policy, batch, algorithm)
    assert metrics["policy/grad_norm"] == 0.0
    assert not any(grad.any() for grad in grads)


def test_a_gradient_that_is_not_finite_leaves_the_weights(tied_folder, groups):
    policy, algorithm = make_policy(tied_folder), ALGORITHMS["dr_grpo"]
    batch = whole_batch(policy, groups, algorithm, advantages=torch.full((3, 4), float("nan")))
    before = copy.deepcopy(policy.model.state_dict())
    with pytest.raises(FloatingPointError, match="gradient is nan"):
        policy.update(batch, token_loss(algorithm))
    after = policy.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_update_moves_towards_the_better_responses(tied_folder, groups):
    policy, algorithm = make_policy(tied_folder, learning_rate=1e-3), ALGORITHMS["dr_grpo"]
    batch = replace(collate(groups, PAD), advantages=ADVANTAGES.flatten())
    (part,) = optimizer_batches(batch, 1, 1, partial(AGGREGATIONS["constant"], constant=16.0), seed=0)
    before = policy.logprobs(batch).sum(1)
    for _ in range(5):
        policy.update(part, token_loss(algorithm))
    change = policy.logprobs(batch).sum(1) - before
    assert (change * batch.advantages).sum() > 0.1


def test_warmup_and_grad_clip(tied_folder, groups):
    policy = make_policy(tied_folder, learning_rate=1e-3, warmup_updates=3, max_grad_norm=1e-3)
    batch = whole_batch(policy, groups, ALGORITHMS["grpo"])
    norms = []
    policy.optimizer.register_step_pre_hook(
        lambda *_: norms.append(torch.stack([p.grad.norm() for p in policy.model.parameters()]).norm().item())
    )
    rates = [policy.update(batch, token_loss(ALGORITHMS["grpo"]))["policy/learning_rate"] for _ in range(5)]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3])
    assert norms == pytest.approx([1e-3] * 5, rel=1e-3)


def test_reference_stays_where_the_policy_was(tied_folder, groups):
    policy = make_policy(tied_folder, learning_rate=1e-2)
    batch = whole_batch(policy, groups, ALGORITHMS["dr_grpo"])
    reference = policy.frozen_copy()
    before = policy.logprobs(batch)
    policy.update(batch, token_loss(ALGORITHMS["dr_grpo"]))
    torch.testing.assert_close(reference.logprobs(batch), before, rtol=0, atol=0)
    assert (policy.logprobs(batch) - before).abs().max() > 0.01
    assert not any(p.requires_grad for p in reference.model.parameters())


def test_weights_name_the_tied_head(tied_folder):
    policy = make_policy(tied_folder)
    names = {name for name, _ in policy.weights()}
    assert "lm_head.weight" in names and "lm_head.weight" not in dict(policy.model.named_parameters())
