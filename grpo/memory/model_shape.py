"""A model's config -> its shape: what the arithmetic of its memory needs to know. No weights are read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from grpo.errors import UserError

KNOWN = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose layers the formulas of activations.py were measured on, or which are built as those are."""


@dataclass(frozen=True)
class Shape:
    """H hidden, I intermediate, V vocabulary, L layers."""

    parameters: int
    """All of them; a head that is tied to the embedding counts once."""
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    normed_heads: bool
    """Whether queries and keys have a norm of their own (Qwen3)."""

    @property
    def head(self) -> int:
        """Parameters of the output head, and of the embedding: V * H."""
        return self.vocabulary * self.hidden

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        return (self.parameters - self.head * (1 if self.tied else 2)) // self.layers

    @property
    def query(self) -> int:
        """Numbers in the queries of a token."""
        return self.heads * self.head_size

    @property
    def key(self) -> int:
        """Numbers in the keys of a token, and in its values."""
        return self.kv_heads * self.head_size

    @property
    def kv_cache(self) -> int:
        """Numbers in the KV cache of a token."""
        return 2 * self.layers * self.key


def critic_shape(shape: Shape) -> Shape:
    """Of a critic with a model's layers: no output head, and one number beside the last norm."""
    without = 0 if shape.tied else shape.head
    return replace(shape, parameters=shape.parameters - without + shape.hidden, tied=True)


def shape_of(config: PretrainedConfig, *, trust_remote_code: bool = False) -> Shape:
    """The parameters are counted on the meta device, which holds no numbers.

    Raises: UserError for a model whose layers are not KNOWN.
    """
    if config.model_type not in KNOWN:
        raise UserError(
            f"The memory of a model of type {config.model_type} is not planned: the formulas hold for "
            f"{', '.join(KNOWN)}."
        )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        vocabulary=config.vocab_size,
        tied=config.tie_word_embeddings,
        normed_heads=config.model_type == "qwen3",
    )
