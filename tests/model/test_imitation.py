"""The pre-training term's gradient: that of the mean -log p, at temperature 1, beside the rewards' and no more."""

from dataclasses import replace

import pytest
import torch
from conftest import END, make_policy
from test_passes import fault_in_the_forward_pass
from updates import uneven_groups, whole_batch

from grpo.algorithm.objective import Objective
from grpo.algorithm.table import ALGORITHMS
from grpo.model import logprobs
from grpo.model.batching import collate
from grpo.model.imitation import imitate
from grpo.records import Group, Problem, Rollout

COEF = 0.05
TEXTS = ([5, 9, 30, 31, END], [7, 8, END], [40, 41, 42, 43, 44, 45, 46, END])


def documents(texts=TEXTS, prompt=1):
    def group(asked, learnt):
        return Group(Problem("", tuple(asked), {}), (Rollout(tuple(learnt), (0.0,) * len(learnt), "", False),))

    return collate([group(text[:prompt], text[prompt:]) for text in texts])


def gradients(policy):
    return [parameter.grad.clone() for parameter in policy.model.parameters()]


def plainly(policy, texts=TEXTS, prompt=1):
    """The loss by the model's own logits, one text after the other; and its gradient."""
    losses = []
    for text in texts:
        table = policy.model(torch.tensor([text[:-1]])).logits[0].float().log_softmax(-1)
        losses.append(-table.gather(1, torch.tensor(text[1:])[:, None])[prompt - 1 :])
    loss = torch.cat(losses).mean()
    return loss.item(), torch.autograd.grad(COEF * loss, list(policy.model.parameters()))


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("prompt", [1, 2])
def test_gradient_and_loss_are_those_of_the_mean_over_learnt_tokens(tied_folder, prompt):
    policy = make_policy(tied_folder)
    policy.temperature = 0.5  # the sampler's, at which nothing of it was sampled
    measured = imitate(policy, documents(prompt=prompt), COEF)
    loss, expected = plainly(policy, prompt=prompt)
    assert_close(gradients(policy), expected)
    assert measured["ptx"] == pytest.approx(loss, rel=1e-5)
    assert measured["ptx_grad_norm"] == pytest.approx(
        torch.cat([g.flatten() for g in expected]).norm().item(), rel=1e-4
    )
    assert policy.temperature == 0.5


def test_it_is_the_same_however_it_is_cut_and_padded(tied_folder, monkeypatch):
    policy = make_policy(tied_folder)
    _, expected = plainly(policy)
    monkeypatch.setattr(logprobs, "MAX_CHUNK_ELEMENTS", 2 * 320)  # and the head's logits in pieces of two tokens
    for tokens in (1, 8, 4096):
        policy.micro_batch_tokens = tokens
        imitate(policy, documents(), COEF)
        assert_close(gradients(policy), expected)
        policy.drop_gradient()


def test_an_update_steps_along_both_gradients_added(tied_folder):
    policy, row = make_policy(tied_folder), ALGORITHMS["grpo"]
    batch = whole_batch(policy, uneven_groups(), row)
    policy.backward(batch, Objective(row))
    of_rewards = gradients(policy)
    policy.drop_gradient()
    _, of_documents = plainly(policy)
    both = [one + other for one, other in zip(of_rewards, of_documents, strict=True)]
    seen = []
    policy.optimizer.register_step_pre_hook(lambda *_: seen.append(gradients(policy)))
    policy.settings = replace(policy.settings, max_grad_norm=1e9)
    measured = policy.update(batch, Objective(row), lambda: imitate(policy, documents(), COEF))
    assert_close(seen[0], both)
    assert measured["grad_norm"] == pytest.approx(torch.cat([g.flatten() for g in both]).norm().item(), rel=1e-4)
    assert measured["ptx"] > 0 and measured["kl"] is not None


def test_a_pass_that_is_made_again_counts_the_documents_once(tied_folder):
    policy, row = make_policy(tied_folder), ALGORITHMS["grpo"]
    policy.say = lambda text: None
    batch = whole_batch(policy, uneven_groups(), row)
    policy.backward(batch, Objective(row), lambda: imitate(policy, documents(), COEF))
    expected = gradients(policy)
    policy.drop_gradient()
    with fault_in_the_forward_pass(policy, above=40):
        policy.backward(batch, Objective(row), lambda: imitate(policy, documents(), COEF))
    assert policy.micro_batch_tokens < 4096
    assert_close(gradients(policy), expected)


def test_a_document_that_is_no_number_skips_the_update(tied_folder):
    policy, row = make_policy(tied_folder), ALGORITHMS["grpo"]
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    batch = whole_batch(policy, uneven_groups(), row)
    measured = policy.update(batch, Objective(row), lambda: imitate(policy, documents(), float("inf")))
    assert measured["skipped_in_a_row"] == 1
    assert all(torch.equal(value, before[name]) for name, value in policy.model.state_dict().items())
