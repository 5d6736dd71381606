"""A wrong shape is an error that names its argument, and not a broadcast."""

import doctest

import pytest
import torch

from grpo import shapes
from grpo.shapes import is_mask, of_shape, same_shape


def test_worked_examples():
    failed, attempted = doctest.testmod(shapes, extraglobs={"torch": torch})
    assert failed == 0 and attempted == 1


def test_same_shape_names_the_argument_that_is_wrong():
    same_shape("[B, T]", a=torch.zeros(2, 3), b=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"^a must be \[B, T\], but its shape is \[2\]$"):
        same_shape("[B, T]", a=torch.zeros(2), b=torch.zeros(2))
    with pytest.raises(ValueError, match=r"^c must be \[P, G\] = \[2, 3\], as a is, but its shape is \[2, 1\]$"):
        same_shape("[P, G]", a=torch.zeros(2, 3), b=torch.zeros(2, 3), c=torch.zeros(2, 1))


def test_of_shape_gives_the_tensor_back_or_says_what_it_is():
    tensor = torch.zeros(2, 1)
    assert of_shape("x", tensor, "[B, T]", (2, 1)) is tensor
    with pytest.raises(ValueError, match=r"^x must be \[B, T\] = \[2, 3\], but its shape is \[2, 1\]$"):
        of_shape("x", tensor, "[B, T]", (2, 3))
    with pytest.raises(ValueError, match=r"^x must be a tensor \[B\] = \[2\], not a list$"):
        of_shape("x", [1, 2], "[B]", (2,))


@pytest.mark.parametrize("wrong", [torch.zeros(2, 3), torch.zeros(2, dtype=torch.bool)])
def test_a_mask_is_bool_and_has_two_dimensions(wrong):
    is_mask("mask", torch.zeros(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask must be a bool tensor \[B, T\]"):
        is_mask("mask", wrong)
