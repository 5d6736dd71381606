"""A model of one number: its head, its outputs where the mask is, and an update by slopes."""

from dataclasses import replace

import pytest
import torch
from conftest import END, PAD
from transformers import AutoModelForSequenceClassification

from grpo.errors import UserError
from grpo.model.optimizers import OptimizerSettings
from grpo.model.scalar_model import Pulled, ScalarModel, conversations, load_scalar_model, make_scalar_model

IDS = [[7, 8, 9, END], [40], [11, 12], [30, 31, 32, 33, 34, 35]]


def learner(folder, micro_batch_tokens=4096, **settings):
    model = make_scalar_model(str(folder), pad_id=PAD)
    return ScalarModel(model, OptimizerSettings(**settings), micro_batch_tokens)


def test_a_new_head_is_drawn_by_seed(tied_folder):
    one, same, other = (make_scalar_model(str(tied_folder), pad_id=PAD, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.score.weight, same.score.weight) and not torch.equal(one.score.weight, other.score.weight)
    assert one.score.weight.shape == (1, 64) and one.score.weight.std().item() == pytest.approx(65**-0.5, rel=0.3)
    assert one.config.pad_token_id == PAD


def test_what_is_trained_is_what_is_served(tied_folder, tmp_path):
    """Conversations in one padded batch, against each alone through transformers' own class, saved and loaded."""
    trained = learner(tied_folder)
    scores = trained.scores(conversations(IDS))
    trained.save(tmp_path / "model")
    served = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    assert served.config.num_labels == 1 and served.config.pad_token_id == PAD
    with torch.no_grad():
        alone = [served(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits.item() for ids in IDS]
    torch.testing.assert_close(scores, torch.tensor(alone), atol=2e-6, rtol=1e-5)
    assert scores.std() > 0.1
    again = ScalarModel(load_scalar_model(str(tmp_path / "model")), OptimizerSettings(), 16)
    torch.testing.assert_close(again.scores(conversations(IDS)), scores, atol=2e-6, rtol=1e-5)


def test_the_gradient_is_that_of_the_loss_itself(tied_folder):
    """Of the loss through one graph, without slopes; and however the batch is cut."""
    batch = conversations(IDS)

    def loss(scores):
        return (scores[0] * scores[1] - scores[2]).square() + scores[3].exp()

    direct = learner(tied_folder)
    loss(direct.outputs(batch)[0].sum(1)).backward()
    expected = {name: p.grad.clone() for name, p in direct.model.named_parameters()}
    for tokens in (4096, 6):
        one = learner(tied_folder, tokens)
        scores = one.scores(batch).requires_grad_()
        (slope,) = torch.autograd.grad(loss(scores), scores)
        one.backward(replace(batch, advantages=-slope[:, None] * batch.mask), Pulled())
        for name, parameter in one.model.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[name], atol=2e-5, rtol=1e-4)


def test_values_stand_where_the_mask_is(tied_folder):
    batch = conversations(IDS)
    every = replace(batch, mask=torch.arange(6) < batch.lengths[:, None])
    values = learner(tied_folder).values(every)
    assert (values != 0).equal(every.mask)
    torch.testing.assert_close((values * batch.mask).sum(1), learner(tied_folder).scores(batch), atol=2e-6, rtol=1e-5)


def test_several_outputs_and_a_language_model_are_refused(tied_folder, tmp_path):
    with pytest.raises(UserError, match="no model of one number: it is Qwen2ForCausalLM"):
        load_scalar_model(str(tied_folder))
    AutoModelForSequenceClassification.from_pretrained(tied_folder, num_labels=3).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="with 3 outputs"):
        load_scalar_model(str(tmp_path))
