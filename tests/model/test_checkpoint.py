"""Checkpoints: whole or not at all, bit for bit, and folders that transformers and vLLM load."""

import json
import pickle

import pytest
import torch
from conftest import make_policy
from transformers import AutoModelForCausalLM, AutoTokenizer

from grpo.algorithm.kl_weight import KLCoefficient, OldKLCoefficient
from grpo.errors import RunError
from grpo.model import checkpoint
from grpo.model.checkpoint import (
    MANIFEST,
    STATE,
    Restored,
    Trained,
    checkpoints,
    damage,
    restore,
    save_checkpoint,
    save_model,
)
from grpo.problems.lengths import EarlierLengths


def trained(policy, kl=0.3, old_kl=0.7, target=0.1):
    of_kl = KLCoefficient(kl, target=target), OldKLCoefficient(old_kl, target=target)
    return Trained(policy, *of_kl, EarlierLengths([], waiting=False))


def save(run, step, policy, tokenizer, **said):
    folder = run / f"checkpoint-{step}"
    save_checkpoint(folder, step, trained(policy), tokenizer, **said)
    return folder


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
    policy.skipped_in_a_row = 2
    folder = save(tmp_path, 3, policy, tokenizer, wandb_id="abc")
    step(policy, 2)

    resumed = make_policy(folder, learning_rate=1e-3, warmup_updates=10)
    assert restore(folder, trained(resumed)) == Restored(step=3, wandb_id="abc")
    assert resumed.skipped_in_a_row == 2
    step(resumed, 2)
    expected, found = weights(policy), weights(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert resumed.schedule.get_last_lr() == policy.schedule.get_last_lr()


def test_the_adapted_weight_of_the_kl_is_restored_and_a_constant_one_is_the_flags(tmp_path, tied_folder, tokenizer):
    policy = make_policy(tied_folder)
    folder = save(tmp_path, 1, policy, tokenizer)
    adapted, constant = trained(policy, 9.0, 9.0), trained(policy, 9.0, 9.0, target=None)
    for one in (adapted, constant):
        restore(folder, one)
    assert (adapted.kl_coef.value, adapted.old_kl_coef.value) == (0.3, 0.7)
    assert (constant.kl_coef.value, constant.old_kl_coef.value) == (9.0, 9.0)


def test_the_config_of_the_run_is_in_it(tmp_path, tied_folder, tokenizer):
    folder = save(tmp_path, 1, make_policy(tied_folder), tokenizer, config={"seed": 3, "reward": ("a", "b")})
    assert torch.load(folder / STATE, weights_only=True)["config"] == {"seed": 3, "reward": ("a", "b")}


def test_the_saved_model_is_a_hugging_face_folder(tmp_path, tied_folder, tokenizer):
    policy = make_policy(tied_folder)
    step(policy, 1)
    save_model(tmp_path / "model", policy, tokenizer)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, policy.model.state_dict()[name])
    assert AutoTokenizer.from_pretrained(tmp_path / "model")("abc")["input_ids"] == tokenizer("abc")["input_ids"]
    assert list((tmp_path / "model").glob("*.safetensors")) and not list(tmp_path.glob("model/*.bin"))


def test_checkpoints_come_by_number_and_nothing_else_does(tmp_path):
    for name in ("checkpoint-100", "checkpoint-5", "checkpoint-20", "checkpoint-7.part", ".checkpoint-8.part"):
        (tmp_path / name).mkdir()
    assert list(checkpoints(tmp_path)) == [5, 20, 100]


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", STATE, "config.json", "tokenizer.json"])
@pytest.mark.parametrize("fault", [cut, flip, lambda path: path.unlink()])
def test_damage_is_found_and_named(tmp_path, tied_folder, tokenizer, name, fault):
    folder = save(tmp_path, 1, make_policy(tied_folder), tokenizer)
    assert damage(folder) is None
    fault(folder / name)
    assert name in damage(folder)


def test_a_manifest_that_cannot_be_read_is_damage(tmp_path, tied_folder, tokenizer):
    folder = save(tmp_path, 1, make_policy(tied_folder), tokenizer)
    (folder / MANIFEST).write_text("[]")
    assert damage(folder) == f"{MANIFEST} cannot be read"
    (folder / MANIFEST).unlink()  # as an earlier version has it
    assert damage(folder) is None
    cut(folder / STATE)
    (folder / STATE).write_bytes((folder / STATE).read_bytes()[:-100])
    assert damage(folder) == f"{STATE} cannot be read"


def test_a_failing_save_leaves_the_old_folder(tmp_path, tied_folder, tokenizer, monkeypatch):
    policy = make_policy(tied_folder)
    folder = save(tmp_path, 1, policy, tokenizer)
    before = weights(policy)
    step(policy, 1)

    def fail(*_, **__):
        raise RuntimeError("[enforce fail] PytorchStreamWriter failed writing file")

    monkeypatch.setattr(checkpoint.torch, "save", fail)
    with pytest.raises(RunError, match=r"checkpoint-1 could not be saved.*What was saved before is whole"):
        save(tmp_path, 1, policy, tokenizer)
    assert damage(folder) is None and [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    again = make_policy(folder)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(again).items())


def test_too_little_space_is_said_before_anything_is_written(tmp_path, tied_folder, tokenizer, monkeypatch):
    """Weights and both of AdamW's moments: 4 + 8 bytes a parameter, and a few for the step counts."""
    policy = make_policy(tied_folder)
    step(policy, 1)
    needed = 12 * sum(p.numel() for p in policy.model.parameters())
    tied = policy.model.lm_head.weight.nbytes  # named twice in the state, written once
    usage = type("Usage", (), {"free": needed - 1})
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(RunError, match=r"it takes .* MiB, and .* MiB are free"):
        save(tmp_path, 1, policy, tokenizer)
    assert not list(tmp_path.iterdir())
    usage.free = needed + tied + 1000
    save(tmp_path, 1, policy, tokenizer)


def test_the_state_is_read_without_running_code(tmp_path, tied_folder, tokenizer):
    """A pickled object in the state file is refused: weights_only."""
    policy = make_policy(tied_folder)
    folder = save(tmp_path, 1, policy, tokenizer)
    torch.save({"step": 1, "kl_coef": 0.0, "optimizer": pytest.raises}, folder / STATE)
    with pytest.raises(pickle.UnpicklingError, match="Weights only"):
        restore(folder, trained(policy))


def test_a_checkpoint_of_an_earlier_version_is_restored(tmp_path, tied_folder, tokenizer):
    """What it does not know is as the flags say, or as at the beginning."""
    policy = make_policy(tied_folder)
    folder = save(tmp_path, 1, policy, tokenizer)
    state = torch.load(folder / STATE, weights_only=True)
    for name in ("old_kl_coef", "skipped_in_a_row", "config", "wandb_id"):
        del state[name]
    torch.save(state, folder / STATE)
    again = trained(policy, 9.0, 4.0)
    assert restore(folder, again) == Restored(step=1, wandb_id=None) and again.old_kl_coef.value == 4.0


def test_the_manifest_lists_every_other_file(tmp_path, tied_folder, tokenizer):
    folder = save(tmp_path, 1, make_policy(tied_folder), tokenizer)
    listed = json.loads((folder / MANIFEST).read_text())
    assert {path.name for path in folder.iterdir()} == {MANIFEST, *listed}
    assert all((folder / name).stat().st_size == said["bytes"] for name, said in listed.items())
