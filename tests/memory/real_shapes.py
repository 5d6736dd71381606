"""Configs for the tests of grpo/memory: the real shapes of models, and models of these shapes with few layers."""

from dataclasses import replace

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from grpo.memory.fit import pick_memory_fraction, pick_micro_batch_tokens
from grpo.memory.model_shape import shape_of
from grpo.memory.stages import GIB, Load
from grpo.memory.widths import Widths

# H, I, layers, heads, heads of keys, vocabulary, tied; parameters as their pages name them.
QWEN = {
    "Qwen2.5-0.5B": (896, 4864, 24, 14, 2, 151936, True, 494_032_768),
    "Qwen2.5-1.5B": (1536, 8960, 28, 12, 2, 151936, True, 1_543_714_304),
    "Qwen2.5-3B": (2048, 11008, 36, 16, 2, 151936, True, 3_085_938_688),
    "Qwen2.5-7B": (3584, 18944, 28, 28, 4, 152064, False, 7_615_616_512),
}
CLASSES = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}
PRECISIONS = {
    "float32": Widths(compute=4),
    "autocast": Widths(),
    "bfloat16": Widths(weights=2, gradient=2, optimizer=4),
}
"""Of weights and arithmetic."""


def qwen_config(name):
    """The config of a published model."""
    hidden, intermediate, layers, heads, kv_heads, vocabulary, tied, _ = QWEN[name]
    return Qwen2Config(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, tie_word_embeddings=tied,
    )  # fmt: skip


def small_config(family="qwen2", **changes):
    """Layers of the 0.5B model's shape, few of them, and a small vocabulary."""
    values = dict(
        vocab_size=1000, hidden_size=896, intermediate_size=4864, num_hidden_layers=2, num_attention_heads=14,
        num_key_value_heads=2, tie_word_embeddings=True, head_dim=64,
    )  # fmt: skip
    return CLASSES[family][0](**values | changes)


def small(family="qwen2", precision="float32", **changes):
    """(config, random model)"""
    config = small_config(family, **changes)
    torch.manual_seed(0)
    built = CLASSES[family][1](config).eval()
    return config, built.to(torch.bfloat16) if precision == "bfloat16" else built


def load_of(model, card, widths=PRECISIONS["autocast"]):
    """A run with the real preset's numbers on a card of so many GiB, with the micro-batch and vLLM's share picked."""
    load = Load(
        shape=shape_of(qwen_config(model)), widths=widths, card=card * GIB, micro_batch_tokens=16384, sequence=4024,
        update_sequences=128, generated_sequences=256, recompute=True, memory_fraction=0.4,
    )  # fmt: skip
    load = replace(load, micro_batch_tokens=pick_micro_batch_tokens(load))
    return replace(load, memory_fraction=pick_memory_fraction(load))
