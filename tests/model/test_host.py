"""A visit moves every tensor there and back, whatever happens in it. `clone` stands for the way to the card."""

import pytest
import torch
from conftest import make_policy

from grpo.model.host import host_copy, rest_on_host, tensors, visiting


@pytest.fixture
def model(tied_folder):
    return make_policy(tied_folder).model


def places(model):
    return [tensor.data_ptr() for tensor in tensors(model)]


def test_a_copy_is_a_tensor_of_its_own_on_the_host():
    tensor = torch.arange(6.0).view(2, 3)
    copied = host_copy(tensor, pinned=False)
    assert torch.equal(copied, tensor) and copied.data_ptr() != tensor.data_ptr() and copied.device.type == "cpu"


def test_all_tensors_are_elsewhere_in_a_visit_and_back_after_it(model):
    before, moved = places(model), []

    def clone(tensor):
        moved.append(tensor)
        return tensor.clone()

    with visiting(model, clone):
        assert not set(places(model)) & set(before)
        assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()  # still one tensor
        assert any(model.model.rotary_emb.inv_freq.data_ptr() == p for p in places(model))  # buffers come along
    assert places(model) == before and len(moved) == len(before)


def test_a_visit_that_fails_or_does_not_even_begin_leaves_all_in_place(model):
    before = places(model)
    with pytest.raises(KeyError), visiting(model, torch.clone):
        raise KeyError
    assert places(model) == before
    left = iter(range(3))

    def out_of_memory(tensor):
        if next(left, None) is None:
            raise RuntimeError("CUDA out of memory")
        return tensor.clone()

    with pytest.raises(RuntimeError), visiting(model, out_of_memory):
        raise AssertionError("the visit has begun")
    assert places(model) == before


def test_a_module_that_rests_on_the_host_holds_the_same_numbers(model):
    before, weights = places(model), [tensor.clone() for tensor in tensors(model)]
    rest_on_host(model)
    assert not set(places(model)) & set(before)
    assert all(torch.equal(one, two) for one, two in zip(weights, tensors(model), strict=True))
