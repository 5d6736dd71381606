"""What a token's loss is made of is checked once, by name."""

import doctest

import pytest
import torch

from grpo.algorithm import token_inputs
from grpo.algorithm.token_inputs import TokenInputs, response_mean


def test_worked_examples():
    failed, attempted = doctest.testmod(token_inputs)
    assert failed == 0 and attempted == 2


@pytest.mark.parametrize("name", ["old_logprobs", "advantages", "sampler_logprobs", "ref_logprobs", "entropy"])
def test_a_wrong_shape_is_refused_by_name(name):
    """[B, 1] would broadcast, and [B] would not; both are named."""
    right = dict.fromkeys(["logprobs", "old_logprobs", "advantages", "entropy", "ref_logprobs"], torch.zeros(2, 3))
    right |= {"sampler_logprobs": torch.zeros(2, 3), "mask": torch.ones(2, 3, dtype=torch.bool)}
    TokenInputs(**right)
    for wrong in (torch.zeros(2, 1), torch.zeros(2), torch.zeros(3, 2)):
        with pytest.raises(ValueError, match=rf"{name} must be \[B, T\] = \[2, 3\], as logprobs is"):
            TokenInputs(**right | {name: wrong})
    with pytest.raises(ValueError, match=r"mask must be a bool tensor \[B, T\], not torch.float32"):
        TokenInputs(**right | {"mask": torch.ones(2, 3)})


def test_the_mean_of_an_empty_response_is_zero():
    assert response_mean(torch.ones(2, 2), torch.tensor([[False, False], [True, False]])).tolist() == [[0.0], [1.0]]
