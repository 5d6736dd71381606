"""Flags: what is unset is filled in, by the embedded model or by what a model allows."""

from pathlib import Path

import pytest
from synthetic_evaluations import TINY

from grpo.errors import UserError
from grpo.evaluation.options import Options, resolve


def test_a_device_is_for_the_engine_that_takes_one():
    assert resolve(Options(engine="hf", device="cpu")).device == "cpu"
    with pytest.raises(UserError, match="--device cpu has no meaning for vllm"):
        resolve(Options(engine="vllm", device="cpu"))


def test_defaults_are_the_embedded_model_on_its_task():
    options = resolve(Options())
    assert (options.model, options.data, options.problems) == ((TINY,), ("arithmetic",), 256)
    assert (options.max_prompt_tokens, options.max_response_tokens) == (32, 96)
    assert options.out.parent == Path("evaluations")


def test_another_model_gets_the_lengths_that_its_positions_allow():
    options = resolve(Options(model=(TINY,)))
    assert (options.data, options.problems) == (("math500",), None)
    assert (options.max_prompt_tokens, options.max_response_tokens) == (128, 384)  # of 512
    assert resolve(Options(model=(TINY,), max_prompt_tokens=12)).max_response_tokens == 500
