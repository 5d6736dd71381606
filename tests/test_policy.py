"""The update: its gradient is the formula's, and depends on nothing but the batch."""

import copy
from functools import partial

import pytest
import torch
from conftest import make_policy

from grpo.algorithms import ALGORITHMS
from grpo.batching import collate, optimizer_batches
from grpo.losses import AGGREGATIONS, clipped_token_loss
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


ADVANTAGES = torch.tensor([[0.5, -0.5, 0.25, -0.25], [1.0, 0.0, -1.0, 0.0], [-0.7, 0.1, 0.3, 0.3]])


def token_loss(algorithm):
    """The loss of a row, as train.py puts it together."""

    def loss(part, logprobs):
        return clipped_token_loss(
            logprobs,
            part.old_logprobs,
            part.advantages,
            clip_low=algorithm.clip_low,
            clip_high=algorithm.clip_high,
            sampler_logprobs=part.sampler_logprobs,
            importance_cap=algorithm.importance_cap,
            ref_logprobs=part.ref_logprobs,
            kl_coef=algorithm.kl_coef,
            kl_estimator=algorithm.kl_estimator,
        )

    return loss


def whole_batch(policy, groups, algorithm, advantages=ADVANTAGES, order=None, extra_padding=0):
    """One optimizer batch of all rows, with old and reference log-probabilities off the policy's."""
    from dataclasses import replace

    batch = collate(groups, advantages, PAD)
    if extra_padding:
        wide = [torch.nn.functional.pad(t, (0, extra_padding)) if t.ndim == 2 else t for t in batch._tensors().values()]
        batch = type(batch)(*wide)
    if order is not None:
        batch = batch.take(order)
    ours = policy.logprobs(batch)
    # Fixed offsets by target token: ratios inside and outside the clip range, whatever the order of the rows.
    offset = ((batch.targets % 7).float() - 3) / 8
    batch = replace(batch, old_logprobs=ours + offset * batch.mask, ref_logprobs=ours - 0.3 * batch.mask)
    aggregate = partial(AGGREGATIONS[algorithm.aggregation], constant=16.0)
    (part,) = optimizer_batches(batch, 1, 1, aggregate, seed=0)
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


@pytest.mark.parametrize("name", ALGORITHMS)
def test_gradient_equals_the_whole_formula_written_out(tied_folder, groups, name):
    """One sequence at a time, logits in full, no padding, the formulas of ALGORITHMS by hand."""
    algorithm, policy = ALGORITHMS[name], make_policy(tied_folder)
    batch = whole_batch(policy, groups, algorithm)
    found, metrics = gradient(policy, batch, algorithm)

    policy.model.zero_grad()
    rows = [(g.problem.prompt_tokens, r.tokens) for g in groups for r in g.rollouts]
    count = len(rows)
    loss = torch.zeros(())
    for i, (prompt, response) in enumerate(rows):
        ids = torch.tensor([[*prompt, *response]])
        table = policy.model(ids).logits[0, :-1].log_softmax(-1)
        ours = table.gather(-1, ids[0, 1:, None]).squeeze(-1)[len(prompt) - 1 :]
        old, ref, sampler = (
            t[i][batch.mask[i]] for t in (batch.old_logprobs, batch.ref_logprobs, batch.sampler_logprobs)
        )
        ratio, a = (ours - old).exp(), ADVANTAGES.flatten()[i]
        surrogate = torch.min(ratio * a, ratio.clamp(1 - algorithm.clip_low, 1 + algorithm.clip_high) * a)
        importance = (old - sampler).exp().clamp(max=2.0)
        d = ours - ref
        token = -surrogate * importance + algorithm.kl_coef * ((-d).exp() - 1 + d)
        divisor = {"sequence_mean": len(response), "constant": 16.0}[algorithm.aggregation]
        loss = loss + token.sum() / divisor / count
    loss.backward()
    assert_same_gradient(found, [p.grad for p in policy.model.parameters()])
    assert metrics["policy/loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert metrics["policy/clip_low"] > 0 and metrics["policy/clip_high"] > 0  # the offsets reach both sides


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


def test_grpo_and_dr_grpo_differ_in_the_documented_cells_only():
    from dataclasses import asdict

    one, two = asdict(ALGORITHMS["grpo"]), asdict(ALGORITHMS["dr_grpo"])
    assert {key for key in one if one[key] != two[key]} == {"advantage", "aggregation", "kl_coef"}


def test_one_on_policy_update_has_ratio_one_and_a_gradient(tied_folder, groups):
    """Loss about 0 where advantages cancel, gradient not: the README's "this is not a bug"."""
    policy = make_policy(tied_folder)
    batch = collate(groups, torch.tensor([[0.5, -0.5, 0.5, -0.5]] * 3), PAD)
    (part,) = optimizer_batches(batch, 1, 1, partial(AGGREGATIONS["sequence_mean"], constant=0), seed=0)
    _, metrics = gradient(
        policy,
        part,
        ALGORITHMS["dr_grpo"].__class__("centred", "sequence_mean", 0.2, 0.2, kl_coef=0.0, importance_cap=None),
    )
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
    batch = collate(groups, ADVANTAGES, PAD)
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
