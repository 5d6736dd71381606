"""The learner trains any module by any objective: a linear model by least squares, against numbers by hand."""

from dataclasses import replace

import pytest
import torch
from conftest import make_batch
from torch import nn

from grpo.algorithm.objective import Measured
from grpo.model.learner import Learner, not_finite
from grpo.model.optimizers import OptimizerSettings

MASK = torch.tensor([[True, True, True], [True, False, False], [True, True, False], [True, True, True]])


class Score(nn.Module):
    """One number a position: weight times the input id."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, inputs):
        return self.weight * inputs.float()


def least_squares(micro_batch, scores):
    """Mean over the batch's tokens of (score - 1)^2, by token weights."""
    error = (scores - 1.0).square() * micro_batch.mask
    return Measured(
        loss=(micro_batch.token_weights * error).sum(),
        sums={"loss": (micro_batch.token_weights * error).sum().detach()},
        means={"error": error.sum().detach()},
        count=micro_batch.mask.sum(),
    )


def batch():
    return make_batch(MASK, token_weights=MASK.float() / MASK.sum())


@pytest.mark.parametrize("micro_batch_tokens", [1, 4, 100])
def test_the_gradient_and_the_means_are_those_of_the_whole_batch(micro_batch_tokens):
    learner = Learner(Score(), OptimizerSettings(), micro_batch_tokens)
    whole = batch()
    measured = learner.backward(whole, least_squares)
    x = whole.inputs[MASK].float()
    assert learner.model.weight.grad.item() == pytest.approx((2 * x * (0.5 * x - 1)).mean().item(), rel=1e-5)
    expected = ((0.5 * x - 1) ** 2).mean().item()
    assert measured == {"loss": pytest.approx(expected, rel=1e-5), "error": pytest.approx(expected, rel=1e-5)}


def test_an_update_steps_down_and_reports_norm_and_rate():
    learner = Learner(Score(), OptimizerSettings(learning_rate=0.1, warmup_updates=1), 4)
    first = learner.update(batch(), least_squares)
    assert first["learning_rate"] == pytest.approx(0.05) and first["grad_norm"] > 1.0
    # Adam's first step is the learning rate against the sign of the gradient.
    assert learner.model.weight.item() == pytest.approx(0.5 - 0.05, rel=1e-4)
    assert learner.update(batch(), least_squares)["learning_rate"] == pytest.approx(0.1)
    assert learner.model.weight.grad is None


def times(number, *, of):
    """Least squares with one of its numbers spoiled."""

    def spoiled(micro_batch, scores):
        found = least_squares(micro_batch, scores)
        if of == "gradient":
            return replace(found, loss=found.loss * number)
        if of == "loss":
            return replace(found, sums={"loss": found.sums["loss"] * number})
        return replace(found, means={"error": found.means["error"] * number})

    return spoiled


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("of", ["gradient", "loss", "mean"])
def test_an_update_with_a_number_that_is_not_finite_is_skipped(number, of):
    learner = Learner(Score(), OptimizerSettings(learning_rate=0.1, warmup_updates=9), 4)
    found = learner.update(batch(), times(number, of=of))
    assert found["skipped_in_a_row"] == 1.0 and not_finite(found)
    assert learner.model.weight.item() == 0.5 and learner.model.weight.grad is None
    assert not learner.optimizer.state and learner.schedule.last_epoch == 0


def test_skipped_updates_in_a_row_are_counted_and_the_next_sound_one_is_as_if_they_had_not_been():
    learner, other = (Learner(Score(), OptimizerSettings(learning_rate=0.1, warmup_updates=9), 4) for _ in range(2))
    broken, sound = times(float("nan"), of="gradient"), least_squares
    objectives = [broken, broken, sound, broken, sound]
    assert [learner.update(batch(), o)["skipped_in_a_row"] for o in objectives] == [1, 2, 0, 1, 0]
    for _ in range(2):
        found = other.update(batch(), sound)
    assert not not_finite(found) and learner.model.weight.item() == other.model.weight.item()


def test_a_module_learns():
    learner = Learner(Score(), OptimizerSettings(learning_rate=0.02), 4)
    errors = [learner.update(batch(), least_squares)["error"] for _ in range(60)]
    assert errors[-1] < 0.2 * errors[0]
