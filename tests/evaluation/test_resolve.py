"""What is unset is filled in, by the embedded model or by what a model allows."""

from pathlib import Path

from synthetic_evaluations import TINY

from grpo.evaluation.options import Options
from grpo.evaluation.resolve import resolve


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
