"""Checkpoints: whole or not at all, bit for bit, and folders that transformers and vLLM load."""

import pytest
import torch
from conftest import make_policy
from transformers import AutoModelForCausalLM, AutoTokenizer

from grpo.algorithm.kl_weight import KLCoefficient, OldKLCoefficient
from grpo.errors import UserError
from grpo.model import checkpoint
from grpo.model.checkpoint import latest_checkpoint, restore, save_checkpoint, save_model

KL = KLCoefficient(0.3, target=0.1)
OLD = OldKLCoefficient(0.7, target=0.1)


def step(policy, seed):
    """One optimizer step on a made-up gradient."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in policy.model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    policy.optimizer.step()
    policy.schedule.step()


def weights(policy):
    return {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}


def test_a_restored_policy_goes_on_bit_for_bit(tmp_path, tied_folder, tokenizer):
    policy = make_policy(tied_folder, learning_rate=1e-3, warmup_updates=10)
    step(policy, 1)
    save_checkpoint(tmp_path, 3, policy, tokenizer, KL, OLD)
    step(policy, 2)

    folder = latest_checkpoint(tmp_path)
    resumed = make_policy(folder, learning_rate=1e-3, warmup_updates=10)
    assert restore(folder, resumed, KLCoefficient(9.0), OldKLCoefficient(9.0)) == 3
    step(resumed, 2)
    expected, found = weights(policy), weights(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert resumed.schedule.get_last_lr() == policy.schedule.get_last_lr()


def test_the_adapted_weight_of_the_kl_is_restored_and_a_constant_one_is_the_flags(tmp_path, tied_folder, tokenizer):
    policy = make_policy(tied_folder)
    save_checkpoint(tmp_path, 1, policy, tokenizer, KL, OLD)
    adapted, constant = KLCoefficient(9.0, target=0.1), KLCoefficient(9.0)
    old_adapted, old_constant = OldKLCoefficient(9.0, target=0.1), OldKLCoefficient(9.0)
    for weights in ((adapted, old_adapted), (constant, old_constant)):
        restore(latest_checkpoint(tmp_path), policy, *weights)
    assert (adapted.value, constant.value, old_adapted.value, old_constant.value) == (0.3, 9.0, 0.7, 9.0)


def test_the_saved_model_is_a_hugging_face_folder(tmp_path, tied_folder, tokenizer):
    policy = make_policy(tied_folder)
    step(policy, 1)
    save_model(tmp_path / "model", policy, tokenizer)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, policy.model.state_dict()[name])
    assert AutoTokenizer.from_pretrained(tmp_path / "model")("abc")["input_ids"] == tokenizer("abc")["input_ids"]
    assert list((tmp_path / "model").glob("*.safetensors")) and not list(tmp_path.glob("model/*.bin"))


def test_the_newest_by_number_and_only_whole_ones(tmp_path, tied_folder, tokenizer):
    policy = make_policy(tied_folder)
    for number in (5, 20, 100):
        save_checkpoint(tmp_path, number, policy, tokenizer, KL, OLD)
    (tmp_path / "checkpoint-200.part").mkdir()
    (tmp_path / "checkpoint-300").mkdir()
    assert latest_checkpoint(tmp_path).name == "checkpoint-100"


def test_none_is_said(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in"):
        latest_checkpoint(tmp_path)


def test_an_interrupted_save_leaves_the_old_folder(tmp_path, tied_folder, tokenizer, monkeypatch):
    policy = make_policy(tied_folder)
    save_checkpoint(tmp_path, 1, policy, tokenizer, KL, OLD)
    before = weights(policy)
    step(policy, 1)

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint.torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path, 1, policy, tokenizer, KL, OLD)
    again = make_policy(latest_checkpoint(tmp_path))
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(again).items())


def test_the_state_is_read_without_running_code(tmp_path, tied_folder, tokenizer):
    """A pickled object in the state file is refused: weights_only."""
    import pickle

    policy = make_policy(tied_folder)
    save_checkpoint(tmp_path, 1, policy, tokenizer, KL, OLD)
    folder = latest_checkpoint(tmp_path)
    torch.save({"step": 1, "kl_coef": 0.0, "optimizer": pytest.raises}, folder / checkpoint.STATE)
    with pytest.raises(pickle.UnpicklingError, match="Weights only"):
        restore(folder, policy, KL, OLD)
