"""Shapes of published models, without their weights."""

import pytest
from real_shapes import QWEN, qwen_config
from transformers import GPT2Config, Qwen3Config

from grpo.errors import UserError
from grpo.memory.model_shape import shape_of


@pytest.mark.parametrize("name", QWEN)
def test_the_parameters_are_those_of_the_published_model(name):
    shape = shape_of(qwen_config(name))
    assert shape.parameters == QWEN[name][-1]
    assert shape.layer * shape.layers + shape.head * (1 if shape.tied else 2) == pytest.approx(
        shape.parameters, rel=1e-6
    )


def test_the_kv_cache_of_a_token():
    assert shape_of(qwen_config("Qwen2.5-1.5B")).kv_cache * 2 == 28 * 2 * 256 * 2  # 28 KiB in bfloat16


def test_heads_may_have_a_size_and_norms_of_their_own():
    shape = shape_of(
        Qwen3Config(hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4, head_dim=32)
    )
    assert (shape.query, shape.normed_heads) == (128, True)


def test_a_model_of_another_kind_is_not_guessed_at():
    with pytest.raises(UserError, match="type gpt2 is not planned: the formulas hold for llama, mistral, qwen2, qwen3"):
        shape_of(GPT2Config())
