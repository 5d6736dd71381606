"""LoRA (arXiv 2106.09685): the weights stay, and each linear layer learns a change of low rank beside them.

    y = W x + (alpha / rank) * B (A x)          W [out, in] is frozen; A [rank, in] and B [out, rank] are trained

B begins at 0, so that the model begins as it is. The layers and the files are peft's; the model stays a model of
transformers. Merging is not peft's: no weight is ever changed for it, and W + (alpha / rank) B A is made one matrix at
a time, in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from grpo.errors import UserError
from grpo.model.settings import LoraSettings
from grpo.model.shard import whole

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

NAME = "default"
"""Of the one adapter, as peft calls it where nothing is said."""
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What peft puts before a parameter's name in that file."""
BASE = ".base_layer."
"""Between the name of an adapted layer and those of its own parameters."""


def target_layers(model: PreTrainedModel, targets: Sequence[str] | None) -> list[str]:
    """Paths of the layers that the targets name. Raises: UserError for one that names no linear layer of the model."""
    head = model.get_output_embeddings()
    linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]
    if targets is None:
        return linear
    found = {target: [name for name in linear if f".{name}".endswith(f".{target}")] for target in targets}
    wrong = [target for target, names in found.items() if not names]
    if wrong or not targets:
        names = dict.fromkeys(name.rpartition(".")[2] for name in linear)
        raise UserError(
            f"--lora-targets {' '.join(wrong) or 'names no layer'}: an adapter stands beside a linear layer, and the "
            f"model has these: {', '.join(names)}. The embedding and the output head, whose logits are computed in "
            "float32, stay as they are. Leave the flag out for all of them."
        )
    wanted = {name for names in found.values() for name in names}
    return [name for name in linear if name in wanted]


def adapter_size(model: PreTrainedModel, settings: LoraSettings) -> int:
    """Parameters that an adapter of the model has: rank * (in + out) for each matrix. Raises: UserError."""
    names = target_layers(model, settings.targets)
    return settings.rank * sum(sum(model.get_submodule(name).weight.shape) for name in names)


def check_targets(config: PretrainedConfig, settings: LoraSettings, *, trust_remote_code: bool) -> None:
    """Before a model is loaded: one without numbers has the same layers. Raises: UserError."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    target_layers(model, settings.targets)


def add_adapter(model: PreTrainedModel, settings: LoraSettings, *, base: str, dtype: torch.dtype, seed: int) -> None:
    """Freeze the model and put an adapter into it, whose parameters alone have a gradient.

    base: where the model is from; dtype: of the adapter's numbers; seed: of A's first ones. Raises: UserError.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = target_layers(model, settings.targets)
    asked = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=names,
        lora_dropout=0.0,  # a policy's log-probabilities must be those of the sampler's network
        bias="none",
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in names),
        task_type="CAUSAL_LM",
        base_model_name_or_path=str(Path(base).resolve()) if Path(base).is_dir() else base,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(asked, model, adapter_name=NAME)
    for parameter in adapter_parameters(model).values():
        parameter.data = parameter.data.to(dtype)
    for layer in adapted_layers(model).values():
        # peft would take each input to A's float32, from where autocast takes it back to a bfloat16 copy that is kept:
        # one for each layer, instead of the one input that several of them share.
        layer.cast_input_dtype_enabled = False


def adapted_layers(model: nn.Module) -> dict[str, LoraLayer]:
    """Path -> layer with an adapter."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The adapter's parameters under the names of peft's file."""
    ends = tuple(f".lora_{part}.{NAME}.weight" for part in "AB")
    return {
        PREFIX + name.replace(f".{NAME}.weight", ".weight"): parameter
        for name, parameter in model.named_parameters()
        if name.endswith(ends)
    }


def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every (name, tensor) of the model without an adapter that computes the same, made one at a time."""
    layers = adapted_layers(model)
    for name, tensor in model.state_dict().items():
        path, of_layer, rest = name.partition(BASE)
        if of_layer:
            yield f"{path}.{rest}", merged(layers[path]) if rest == "weight" else whole(tensor)
        elif f".{NAME}." not in name:
            yield name, whole(tensor)


@torch.no_grad()
def merged(layer: LoraLayer) -> Tensor:
    """W + (alpha / rank) B A: the sum in float32, then in the precision of W, which stays as it is."""
    weight = whole(layer.get_base_layer().weight)
    change = [whole(layer.lora_B[NAME].weight).float(), whole(layer.lora_A[NAME].weight).float()]
    if layer.fan_in_fan_out:  # GPT-2 keeps its matrices the other way round, [in, out]
        change = [matrix.T for matrix in reversed(change)]
    return torch.addmm(weight.float(), *change, alpha=layer.scaling[NAME]).to(weight.dtype)


@contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """Within it the model is the one that the adapter was put into."""
    layers = adapted_layers(model).values()
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def save_adapter(model: PreTrainedModel, folder: Path, parameters: Mapping[str, Tensor] | None = None) -> None:
    """As peft saves one: its config, which names the base, and its weights in the precision that they have.

    parameters: the adapter's, whole, where the model has only parts of them.
    """
    parameters = parameters or adapter_parameters(model)
    config = copy.copy(model.peft_config[NAME])
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(folder)
    tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in parameters.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


@torch.no_grad()
def load_adapter(model: PreTrainedModel, folder: Path) -> None:
    """The weights of a saved adapter into one of the same layers and rank. Raises: UserError where they differ."""
    own, saved = adapter_parameters(model), load_file(folder / WEIGHTS)
    if {name: tensor.shape for name, tensor in own.items()} != {name: tensor.shape for name, tensor in saved.items()}:
        raise UserError(f"The adapter in {folder} has other layers, or another rank, than this run.")
    for name, parameter in own.items():
        parameter.copy_(saved[name])
