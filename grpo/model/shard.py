"""A model of which each rank holds a part: FSDP2's `fully_shard` for weights, gradients and the optimizer's state.

    model = shard(model, ranks)                 # before the optimizer is made; with one rank it is left as it is

A layer's weights are gathered where it computes, and given back after it; its gradient is summed over the ranks as it
is made. It is summed, not averaged: the token weights are already those of the whole optimizer batch. On several
machines each holds the whole model among its ranks, and gradients are summed over the machines once an update.

On a card the weights are gathered in bfloat16, half the bytes, and gradients are summed in float32. As on one card, the
sums between the layers stay float32, because that is what the embeddings hand on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from grpo.model.logprobs import token_logprobs
from grpo.model.ranks import Ranks

PASS = "sharded_pass"
"""The method that `shard` gives a model: FSDP gathers the root's weights around methods that it is told of alone."""

Pass = Callable[..., Any]
"""(model, what it is asked) -> what is computed from its layers and its head."""


def shard(
    model: nn.Module,
    ranks: Ranks,
    *,
    computes: Pass = token_logprobs,
    narrow: bool | None = None,
    device: str | None = None,
) -> nn.Module:
    """The model, of which this rank holds one part in as many as a machine has ranks. All ranks have the same one.

    computes: the pass that will be made over it. narrow: whether weights are gathered in bfloat16; unset: on a card.
    device: where it will compute, if it has no numbers yet; unset: where it is.
    """
    if ranks.size == 1:
        return model
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    device = device or next(model.parameters()).device.type
    if ranks.nodes == 1:
        mesh = init_device_mesh(device, (ranks.size,), mesh_dim_names=("shard",))
    else:
        sizes = (ranks.nodes, ranks.size // ranks.nodes)
        mesh = init_device_mesh(device, sizes, mesh_dim_names=("replicate", "shard"))
    policy = MixedPrecisionPolicy()
    if device == "cuda" if narrow is None else narrow:
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: output.float())
    setattr(model, PASS, MethodType(computes, model))
    blocks = set(model._no_split_modules or ())  # {"Qwen2DecoderLayer"}: no list of architectures of our own
    for module in list(model.modules()):
        if type(module).__name__ in blocks:
            fully_shard(module, mesh=mesh, mp_policy=policy)
    if hasattr(model, "score"):  # a head of one number, which needs its float32
        fully_shard(model.score, mesh=mesh, mp_policy=MixedPrecisionPolicy())
    # The root: the embedding, the last norm and the head, tied or not. Given back after a pass, too: without being
    # told so, FSDP would hold it through generation.
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    register_fsdp_forward_method(model, PASS)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no sum with a factor
    return model


def passed(computes: Pass, model: nn.Module, *asked: Any, **settings: Any) -> Any:
    """What a pass computes, whether the model is sharded (for that pass) or not."""
    method = getattr(model, PASS, None)
    return computes(model, *asked, **settings) if method is None else method(*asked, **settings)


def all_reduce_after(model: nn.Module, last: bool) -> None:
    """Whether the machines sum their gradients in the next backward pass: once an update is enough."""
    if hasattr(model, "set_requires_all_reduce"):
        model.set_requires_all_reduce(last)


def whole(tensor: Tensor) -> Tensor:
    """The tensor of all ranks, of which a sharded one holds a part; all ranks ask for it at the same point."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def on_host(model: nn.Module, tensors: Iterable[tuple[str, Tensor]], ranks: Ranks) -> dict[str, Tensor]:
    """Whole copies of a model's tensors in the memory of the host of the rank that writes, made one at a time; empty
    elsewhere. What is tied in the model is one tensor here, too, and so is saved once."""
    names: dict[int, str] = {}
    tied = {name: names.setdefault(id(p), name) for name, p in model.named_parameters(remove_duplicate=False)}
    copies: dict[str, Tensor] = {}
    for name, tensor in tensors:
        found = whole(tensor)
        if ranks.writes:
            copies[name] = copies.get(tied.get(name, name), found.detach().cpu())
    return copies
