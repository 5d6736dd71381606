"""rewards/reward_model.py against a direct forward of a tiny model."""

import pytest
import tiny_reward_model
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from grpo import plugins
from grpo.errors import UserError
from grpo.presets import EMBEDDED_MODEL
from grpo.verifiers.verify import load_all

reward, not_ready = (plugins.load(f"reward_model:{name}", "rewards") for name in ("reward", "not_ready"))


@pytest.fixture
def model(tmp_path, monkeypatch):
    folder = tiny_reward_model.save(tmp_path / "model")
    monkeypatch.setenv("GRPO_REWARD_MODEL", str(folder))
    return folder


def forward(folder, text):
    """The model's output for a text, of which it reads the last POSITIONS tokens."""
    ids = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"]
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return network(input_ids=torch.tensor([ids[-tiny_reward_model.POSITIONS :]])).logits.item()


def test_equals_a_direct_forward_of_the_templated_conversation(model):
    prompts = ["2+2?", [{"role": "system", "content": "Add."}, {"role": "user", "content": "2+2?"}], "2+2?"]
    rewards = reward(["4", "5", ""], prompts=prompts)
    texts = ["u:2+2?<eos>a:4<eos>", "s:Add.<eos>u:2+2?<eos>a:5<eos>", "u:2+2?<eos>a:<eos>"]
    assert rewards == [forward(model, text) for text in texts]
    assert len(set(rewards)) == 3


def test_without_a_template_prompt_and_response_are_joined(tmp_path, monkeypatch):
    folder = tiny_reward_model.save(tmp_path / "plain", template=None)
    monkeypatch.setenv("GRPO_REWARD_MODEL", str(folder))
    chat = [{"role": "system", "content": "Add."}, {"role": "user", "content": "2+2?"}]
    assert reward(["4", "5"], prompts=["2+2=", chat]) == [forward(folder, "2+2=4"), forward(folder, "Add.\n2+2?\n5")]


def test_a_long_conversation_is_cut_at_the_left(model):
    long, tail = "x" * 1000 + "the end", "x" * (tiny_reward_model.POSITIONS - len("the end") - 1) + "the end<eos>"
    assert reward([long], prompts=["q"]) == [forward(model, tail)]
    assert reward([long], prompts=["q"]) == reward([long], prompts=["another question"])


def test_a_reward_does_not_depend_on_the_rest_of_the_batch(model):
    together = reward(["short", "a much longer response", "\0", "\ud800"], prompts=["q"] * 4)
    assert together == [reward([r], prompts=["q"])[0] for r in ("short", "a much longer response", "\0", "\ud800")]


def test_lists_of_different_length_are_an_error(model):
    with pytest.raises(ValueError, match="longer"):
        reward(["a", "b"], prompts=["q"])


def test_needs_a_model_and_that_it_has_one_output(tmp_path, monkeypatch):
    monkeypatch.delenv("GRPO_REWARD_MODEL", raising=False)
    with pytest.raises(ValueError, match="set the environment variable GRPO_REWARD_MODEL"):
        reward(["a"], prompts=["q"])
    monkeypatch.setenv("GRPO_REWARD_MODEL", str(tiny_reward_model.save(tmp_path, outputs=3)))
    with pytest.raises(ValueError, match="has 3 outputs"):
        reward(["a"], prompts=["q"])


def test_what_is_no_reward_model_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("GRPO_REWARD_MODEL", str(tiny_reward_model.save(tmp_path / "good")))
    assert not_ready() is None and [v.name for v in load_all(["reward_model"])] == ["reward_model"]
    monkeypatch.setenv("GRPO_REWARD_MODEL", "org/name")
    assert not_ready() is None  # on the hub, which is not asked here
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    for name, said in (
        ("", "set the environment variable GRPO_REWARD_MODEL"),
        (str(tmp_path / "nowhere"), "there is no such folder"),
        (str(tmp_path / "broken"), "cannot be read (JSONDecodeError)"),
        (str(tiny_reward_model.save(tmp_path / "three", outputs=3)), "with 3 outputs"),
        (str(EMBEDDED_MODEL), "is Qwen2ForCausalLM with 2 outputs"),
    ):
        monkeypatch.setenv("GRPO_REWARD_MODEL", name)
        with pytest.raises(UserError) as refused:
            load_all(["math_answer=0", "reward_model"])
        assert str(refused.value).startswith("verifier 'reward_model' cannot work here: ") and said in str(
            refused.value
        )


def test_refuses_weights_that_are_not_safetensors(model, monkeypatch):
    (model / "model.safetensors").unlink()
    torch.save({}, model / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        reward(["a"], prompts=["q"])
