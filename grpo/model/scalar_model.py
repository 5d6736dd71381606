"""A model of one number: the layers of a language model under a linear head, a reward model or a critic.

    model = make_scalar_model("runs/a/model", pad_id=0)      # a new head
    model = load_scalar_model("runs/rm/model")               # with the head that was trained
    learner = ScalarModel(model, OptimizerSettings(), micro_batch_tokens=16384)
    learner.scores(conversations([[5, 6, 7], [5, 6]]))       # [2]

It is transformers' AutoModelForSequenceClassification with one output, so that others can load it. It is read at the
positions of a batch's mask: a conversation's last token for a reward model. The hidden states go to the head in
float32, because bfloat16 steps by 0.004 near 1.

B sequences, T token positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from grpo.algorithm.objective import Measured
from grpo.errors import UserError
from grpo.model.batching import PAD_ID
from grpo.model.learner import Learner, autocast
from grpo.model.pretrained import PRECISIONS, load_config
from grpo.model.shard import on_host, passed
from grpo.records import Batch


def make_scalar_model(
    source: str,
    *,
    pad_id: int | None,
    device: str = "cpu",
    precision: str = "mixed",
    trust_remote_code: bool = False,
    seed: int = 0,
) -> PreTrainedModel:
    """The layers of a language model under a new head, drawn from N(0, 1 / sqrt(H + 1)), H the hidden size.

    pad_id: the tokenizer's. Where a model is saved with it, transformers reads the rightmost token that is none.
    Raises: UserError for a model that cannot have such a head.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would warn that the head is new
    try:
        model = _loaded(source, device, precision, trust_remote_code, num_labels=1)
    finally:
        logging.set_verbosity(verbosity)
    model.config.get_text_config().pad_token_id = model.config.pad_token_id = pad_id
    generator = torch.Generator().manual_seed(seed)
    weight = model.score.weight
    drawn = torch.randn(weight.shape, generator=generator) / math.sqrt(weight.shape[1] + 1)
    with torch.no_grad():
        weight.copy_(drawn.to(weight))
    return model


def load_scalar_model(
    source: str, *, device: str = "cpu", precision: str = "mixed", trust_remote_code: bool = False
) -> PreTrainedModel:
    """A model that was trained to one number, with its head. Raises: UserError where it is none."""
    check_scalar(source, trust_remote_code=trust_remote_code)
    return _loaded(source, device, precision, trust_remote_code)


def check_scalar(source: str, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """Its config. Raises: UserError where it is no model of one number."""
    config = load_config(source, trust_remote_code=trust_remote_code)
    named = config.architectures or ["none"]
    if config.num_labels != 1 or not named[0].endswith("ForSequenceClassification"):
        raise UserError(
            f"{source} is no model of one number: it is {named[0]} with {config.num_labels} outputs. Give a sequence "
            "classifier of one output, such as python -m grpo.reward_model saves."
        )
    return config


def _loaded(source: str, device: str, precision: str, trust_remote_code: bool, **changes: int) -> PreTrainedModel:
    try:
        if device == "meta":  # its config alone is read
            config = load_config(source, trust_remote_code=trust_remote_code)
            for name, value in changes.items():
                setattr(config, name, value)
            with torch.device("meta"):
                return AutoModelForSequenceClassification.from_config(
                    config, dtype=PRECISIONS[precision], trust_remote_code=trust_remote_code
                )
        model = AutoModelForSequenceClassification.from_pretrained(
            source,
            dtype=PRECISIONS[precision],
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            **changes,
        )
    except (OSError, ValueError, SafetensorError) as error:
        said = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"{source} could not be loaded as a sequence classifier of one output ({type(error).__name__}: {said}). "
            "Give a model whose family transformers has one of, such as Qwen2 or Llama."
        ) from error
    if not isinstance(getattr(model, "score", None), torch.nn.Linear):
        raise UserError(
            f"{source}: a {type(model).__name__} has no linear head `score`. Give a decoder, such as Qwen2."
        )
    return model.to(device)


def token_values(model: PreTrainedModel, inputs: Tensor, mask: Tensor) -> Tensor:
    """[B, T] float32: the head's number at each position of the mask, 0 elsewhere."""
    states = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state
    with torch.autocast(states.device.type, enabled=False):
        found = model.score(states[mask].float())[:, 0]
    return found.new_zeros(mask.shape).masked_scatter(mask, found)


class ScalarModel(Learner):
    """Its output, which an objective gets, is a number at each position of the mask, [B, T], and 0 elsewhere."""

    def outputs(self, micro_batch: Batch) -> tuple[Tensor]:
        """[B, T] float32."""
        return (passed(token_values, self.model, micro_batch.inputs, micro_batch.mask),)

    @torch.no_grad()
    def values(self, batch: Batch) -> Tensor:
        """[B, T] float32 under the current weights, 0 outside the mask."""

        def make(micro_batch: Batch) -> Tensor:
            with autocast(self.device):
                return self.outputs(micro_batch)[0].cpu()

        result = torch.zeros(batch.mask.shape)
        for rows, found in self.each_micro_batch(batch, make, name="a pass of the scalar model"):
            result[rows, : found.shape[1]] = found
        if self.ranks.size > 1:
            result[batch.mask] = self.ranks.added(result[batch.mask])  # where this rank has none stands 0
        return result

    def scores(self, batch: Batch) -> Tensor:
        """[B]: the number of each conversation."""
        return self.values(batch).sum(dim=1)

    def gathered(self) -> dict[str, Tensor] | None:
        """As Policy.gathered."""
        return None if self.ranks.size == 1 else on_host(self.model, self.model.state_dict().items(), self.ranks)

    def save(self, folder: Path, gathered: dict[str, Tensor] | None = None) -> None:
        """Into a folder that transformers loads."""
        self.model.save_pretrained(folder, state_dict=gathered)


@dataclass(frozen=True)
class Pulled:
    """The objective whose gradient with respect to an output is minus its advantage: any loss, by its slopes."""

    def __call__(self, micro_batch: Batch, values: Tensor) -> Measured:
        loss = -(micro_batch.advantages * values).sum()
        return Measured(loss, {"pull": loss.detach()}, {}, micro_batch.mask.sum())


def conversations(ids: Sequence[Sequence[int]]) -> Batch:
    """Token ids of B conversations, padded on the right; the mask is the last token of each. Nothing is shifted."""
    lengths = torch.tensor([len(one) for one in ids])
    inputs = torch.full((len(ids), int(lengths.max())), PAD_ID)
    for row, one in enumerate(ids):
        inputs[row, : len(one)] = torch.tensor(one)
    mask = torch.arange(inputs.shape[1]) == lengths[:, None] - 1
    return Batch(
        inputs=inputs,
        targets=torch.zeros_like(inputs),
        lengths=lengths,
        mask=mask,
        groups=torch.arange(len(ids)),
        sampler_logprobs=torch.zeros(inputs.shape),
    )
