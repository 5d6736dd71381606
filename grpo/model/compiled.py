"""`--compile`: the layers through torch.compile, which fuses what lies between their matrix products.

The first pass of a kind takes seconds, so it is for runs of hours. Values change by rounding.
"""

from __future__ import annotations

import os
import shutil

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from grpo.errors import UserError

KINDS = 16
"""Versions of a layer at most: with and without a gradient, of the policy and the reference, of one row and of more."""


def check_compile(engine: str) -> None:
    """Raises: UserError where compiling would do harm or cannot work, before a model is loaded."""
    if engine == "hf":
        raise UserError(
            "--compile with --engine hf: the sampler would be the compiled model, and be compiled anew as its "
            "responses grow. Leave --compile out, or install vllm (scripts/install.py)."
        )
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(
            f"--compile needs a C++ compiler, and there is no {compiler} here. Install one (on Debian and Ubuntu: apt "
            "install g++), set CXX to another one, or leave --compile out."
        )


def compile_layers(model: nn.Module) -> None:
    """Every layer of a transformers model, in place; its parameters and their names stay. All lengths share a version.

    Raises: UserError for a model without such layers.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(f"--compile: {type(model).__name__} has no layers that could be compiled. Leave --compile out.")
    # Beyond the limit torch goes on uncompiled, without a word.
    torch._dynamo.config.recompile_limit = KINDS
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    for layer in layers:
        layer.compile(dynamic=True)
