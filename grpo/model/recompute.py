"""Gradient checkpointing: a layer keeps its input alone, and computes its activations again in the backward pass.

    recompute_layers(model)          # once
    with recomputing(model):         # around the forward pass of an update, and nothing else
        outputs = model(...)

transformers recomputes a layer only where the layer's `training` is set, which is not so for a policy: it is in eval
mode, because its log-probabilities must be those of the network that samples. So the flag of the layer itself is set,
for the forward pass of an update, and that of the modules within it, such as dropout, is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from grpo.errors import UserError


def recompute_layers(model: nn.Module) -> None:
    """Have every layer of a transformers model recomputed. Raises: UserError for a model that cannot do that."""
    name = type(model).__name__
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise UserError(f"--gradient-checkpointing: {name} has no layers that can be recomputed. Set it to False.")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in _layers(model):
        active = [key for key, value in vars(layer).items() if "drop" in key and isinstance(value, float) and value > 0]
        if active:  # it would be applied by the layer itself, whose flag is set
            raise UserError(
                f"--gradient-checkpointing: the layers of {name} have dropout of their own ({', '.join(active)}), "
                "which would be switched on with it. Set --gradient-checkpointing False, or the model's dropout to 0."
            )


@contextmanager
def recomputing(model: nn.Module) -> Iterator[None]:
    """A forward pass whose layers are recomputed, where `recompute_layers` has asked for it."""
    layers = _layers(model)
    for layer in layers:
        layer.training = True  # of this module alone: `train()` would reach the dropout within it
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


def _layers(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer) and m.gradient_checkpointing]
