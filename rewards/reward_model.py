"""A learned reward: a Hugging Face sequence-classification model with one output scores each response (RLHF).

The model is named by the environment variable GRPO_REWARD_MODEL, a folder or a name on the hub; GRPO_REWARD_DEVICE
(`cpu` by default) says where it runs. It is loaded once for each worker process, from safetensors, with no code of its
own. It reads the conversation under its own chat template, or prompt and response joined where it has none; what is
longer than it can read is cut at the left, so that the response stays. The reward is its raw output, unbounded: weigh
it, or use an algorithm that standardises rewards within a group.

One conversation at a time, without padding: the reward of a response does not depend on what it was batched with. A
call covers a whole step, so the time limit on a call must suit it. The model is loaded before the memory limit applies
(`prepare`; with torch, about 1.5 GiB of address space plus twice the model's file).

>>> rewards = reward(["It is 4.", "It is 5."], prompts=["What is 2 + 2?", "What is 2 + 2?"])
>>> [type(reward) for reward in rewards]
[<class 'float'>, <class 'float'>]
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Message = dict[str, str]

UNSET = "set the environment variable GRPO_REWARD_MODEL to a folder or a hub name."


def reward(responses: Sequence[str], prompts: Sequence[str | list[Message]]) -> list[float]:
    """The model's output for each response; lists in, list out.

    Raises: ValueError where GRPO_REWARD_MODEL is not set or names a model with several outputs.
    """
    import torch  # here, so that the trainer reads the signature without it

    model, tokenizer = prepare()
    rewards = []
    with torch.inference_mode():
        for prompt, response in zip(prompts, responses, strict=True):
            ids = torch.tensor([encode(tokenizer, prompt, response, longest(model, tokenizer))], device=model.device)
            rewards.append(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().item())
    return rewards


UNBOUNDED = True
"""Its rewards may be any number."""


def not_ready() -> str | None:
    """Why it cannot work here, as far as the environment and the files of a local model say."""
    name = os.environ.get("GRPO_REWARD_MODEL")
    if not name:
        return f"{UNSET} python -m grpo.reward_model makes one from comparisons."
    folder = Path(name).expanduser()
    if not folder.is_dir():
        local = name.startswith((".", "/", "~")) or name.count("/") > 1
        return f"GRPO_REWARD_MODEL names {name}, and there is no such folder." if local else None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        outputs = len(config.get("id2label", [0, 1]))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return f"the config.json of {name} cannot be read ({type(error).__name__}). Name a reward model's folder."
    kind = (config.get("architectures") or ["no model"])[0]
    if not kind.endswith("ForSequenceClassification") or outputs != 1:
        return f"{name} is {kind} with {outputs} outputs; a reward model is a sequence classifier of one output."
    return None


def prepare() -> tuple[Any, Any]:
    """The model that the environment names, and its tokenizer. Workers call this once, before any limit applies."""
    name = os.environ.get("GRPO_REWARD_MODEL")
    if not name:
        raise ValueError(f"reward_model: {UNSET}")
    return load(name, os.environ.get("GRPO_REWARD_DEVICE", "cpu"))


@functools.cache
def load(name: str, device: str) -> tuple[Any, Any]:
    """The model in evaluation mode and its tokenizer, read once.

    Raises: ValueError where it has several outputs, and what transformers raises where it cannot be read.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(
        name, dtype="auto", use_safetensors=True, trust_remote_code=False
    )
    if model.config.num_labels != 1:
        raise ValueError(f"reward_model: {name} has {model.config.num_labels} outputs; a reward model has one.")
    return model.to(device).eval(), AutoTokenizer.from_pretrained(name, trust_remote_code=False)


def longest(model: Any, tokenizer: Any) -> int:
    """Tokens that the model can read."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(positions or tokenizer.model_max_length, tokenizer.model_max_length)


def encode(tokenizer: Any, prompt: str | list[Message], response: str, limit: int) -> list[int]:
    """Ids of the conversation, at most `limit`, the last ones.

    The prompt's text becomes the user's message where the model has a chat template; without one, the contents of
    messages are joined by line breaks.
    """
    response = response.encode("utf-8", "replace").decode()  # tokenizers refuse lone surrogates
    if tokenizer.chat_template:
        asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        text = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": response}], tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]  # the template has written them
    else:
        asked = prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt) + "\n"
        ids = tokenizer(asked + response)["input_ids"]
    return ids[-limit:]
