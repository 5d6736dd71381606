"""Memory: what a run needs at its peak, by arithmetic, against what is free. Bytes.

A parameter takes 4 bytes as weight, 4 as gradient and 8 in AdamW's state, all float32; 4 more in the reference. On a
card there are 2 for the bfloat16 copies of the forward pass. With LoRA that holds for the adapter alone: the rest takes
2 on a card and 4 on a CPU, and the reference nothing. vLLM has weights of its own: on a CPU 4 bytes a parameter beside
its KV cache, on a card a fixed share, which it gives back during the update.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM

from grpo.config import Config
from grpo.diagnosis.findings import Finding, fault, not_checked, ok, warning
from grpo.model.learner import autocast
from grpo.model.logprobs import MAX_CHUNK_ELEMENTS
from grpo.model.lora import LoraSettings, adapter_size
from grpo.model.policy import Policy
from grpo.model.pretrained import load_config, position_limit

CHECK = "memory"
GIB = 2**30
CLOSE = 0.9
"""Share of the free memory from which on an estimate is too close to it."""
VLLM_OVERHEAD = 1.5 * GIB
"""What vLLM takes on a card beside weights and KV cache: captured graphs, workspace."""
OWN_WEIGHTS = "vLLM's weights"
LOGITS_COPIES = 6
"""Float32 tensors of a chunk of logits that the backward pass holds at its peak: raw, divided, normalised, their
gradients. With it the whole estimate was 2 to 7% below the measured peak of an update on a CPU."""
AT_ONCE = 256
"""Responses that an engine generates at the same time, at most (setup.py)."""


@dataclass(frozen=True)
class Shape:
    """What the arithmetic needs of a model."""

    parameters: int
    vocabulary: int
    kv_values: int
    """Numbers in the KV cache for one token."""
    trained: int | None = None
    """Parameters of a LoRA adapter; None: all are trained."""


@dataclass(frozen=True)
class Place:
    """Where a run computes."""

    cuda: bool
    free: int | None
    """Before anything is loaded; None where it is not known."""
    total: int = 0
    """Of the card."""


def model_shape(source: str, *, trust_remote_code: bool, lora: LoraSettings | None = None) -> Shape:
    """From the model's config alone: no weights are read."""
    config = load_config(source, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    text = config.get_text_config()
    heads = text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    parameters = sum(parameter.numel() for parameter in model.parameters())
    trained = None if lora is None else adapter_size(model, lora)
    return Shape(parameters, text.vocab_size, 2 * text.num_hidden_layers * kv_heads * size, trained)


def place_of(device: str) -> Place:
    """`device`: cpu or cuda."""
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        return Place(True, free, total)
    return Place(False, free_on_host(Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")))


def free_on_host(meminfo: Path, limit: Path) -> int | None:
    """MemAvailable of /proc/meminfo, or the limit of the container where that is lower; None on another system."""
    if not meminfo.is_file():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limited = limit.read_text().strip() if limit.is_file() else "max"
    return free if limited == "max" else min(free, int(limited))


def activation_bytes(policy: Policy, tokens: int = 64) -> float:
    """Bytes that the layers keep for the backward pass, a token: counted in a forward pass of `tokens` and of twice as
    many, or as the model has positions for."""
    tokens = int(min(tokens, position_limit(policy.model.config) // 2))
    own = {parameter.untyped_storage().data_ptr() for parameter in policy.model.parameters()}

    def kept(count: int) -> int:
        seen: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        ids = torch.zeros((1, count), dtype=torch.int64, device=policy.device)
        # The result is held until all is counted: else its memory, and with it an address, would be used twice.
        with saved_tensors_hooks(pack, lambda tensor: tensor), autocast(policy.device):
            result = policy.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        total = sum(size for address, size in seen.items() if address not in own)
        del result
        return total

    return (kept(2 * tokens) - kept(tokens)) / tokens


def needs(
    config: Config, shape: Shape, place: Place, engine: str, activations: float | None = None
) -> dict[str, dict[str, float]]:
    """Moment of a step -> what it holds -> bytes. `activations`: bytes a token; None: not measured, and left out."""
    count = shape.parameters
    trained = count if shape.trained is None else shape.trained
    held = {"weights": 4 * count, "AdamW": 8 * trained}
    if shape.trained is not None:
        held["weights"] = (2 if place.cuda else 4) * count + 4 * trained
    if config.needs_reference and shape.trained is None:
        held["reference"] = 4 * count
    sequence = config.max_prompt_tokens + config.max_response_tokens
    generate, update = dict(held), dict(held) | {"gradients": 4 * trained}
    if engine == "hf":
        value = 2 if place.cuda else 4
        generate["KV cache"] = min(AT_ONCE, config.responses_per_step) * sequence * shape.kv_values * value
    elif place.cuda:
        generate["vLLM (--memory-fraction)"] = config.memory_fraction * place.total
    else:
        for moment in (generate, update):
            moment |= {OWN_WEIGHTS: 4 * count, "vLLM's KV cache": config.kv_cache_gib * GIB}
    if place.cuda:
        update["bfloat16 copies"] = 2 * trained
    if activations is not None:
        update["activations"] = activations * micro_batch(config)
        rows = min(micro_batch(config), max(1, MAX_CHUNK_ELEMENTS // shape.vocabulary))
        update["logits"] = LOGITS_COPIES * 4 * rows * shape.vocabulary
    return {"the update": update, "generation": generate}


def micro_batch(config: Config) -> int:
    """The most token positions that pass through memory together: a whole response at least, an update's at most."""
    sequence = config.max_prompt_tokens + config.max_response_tokens
    update = config.responses_per_step // config.updates_per_step * sequence
    return min(max(config.micro_batch_tokens, sequence), update)


def memory_findings(
    config: Config, shape: Shape, place: Place, engine: str, activations: float | None = None
) -> Iterator[Finding]:
    """The largest moment against the free memory."""
    moments = needs(config, shape, place, engine, activations)
    where = "on the card" if place.cuda else "in memory"
    moment, parts = max(moments.items(), key=lambda item: sum(item[1].values()))
    need = sum(parts.values())
    listed = ", ".join(f"{name} {shown(size)}" for name, size in parts.items())
    counted = "" if activations is not None else ", activations not counted"
    found = (
        f"{shape.parameters / 1e6:.1f}M parameters: a run needs about {shown(need)} {where}, most during "
        f"{moment} ({listed}{counted})"
    )
    if place.free is None:
        yield not_checked(CHECK, f"{found}; how much is free is not known on this system")
        return
    found += f"; free: {shown(place.free)}"
    if need <= CLOSE * place.free:
        yield ok(CHECK, found)
    else:
        yield (fault if need > place.free else warning)(CHECK, found, _advice(config, parts, place.free, activations))


def kv_cache_findings(config: Config, shape: Shape, place: Place) -> Iterator[Finding]:
    """How many responses of full length vLLM's KV cache holds; it refuses to start where it does not hold one."""
    if place.cuda:
        room = config.memory_fraction * place.total - 2 * shape.parameters - VLLM_OVERHEAD
    else:
        room = config.kv_cache_gib * GIB
    one = (config.max_prompt_tokens + config.max_response_tokens) * shape.kv_values * (2 if place.cuda else 4)
    found = f"vLLM's KV cache, about {shown(max(room, 0))}, holds {int(max(0, room) // one):,} responses of full length"
    flag = "--memory-fraction" if place.cuda else "--kv-cache-gib"
    if room < one:
        yield fault(CHECK, found, f"vLLM would refuse to start: raise {flag}, or lower --max-response-tokens.")
    else:
        yield ok(CHECK, found)


def shown(size: float) -> str:
    """Bytes as GiB, or as MiB where that is little."""
    return f"{size / GIB:.1f} GiB" if size >= 0.1 * GIB else f"{size / 2**20:.1f} MiB"


def _advice(config: Config, parts: dict[str, float], free: int, activations: float | None) -> str:
    """What makes it smaller, by flags, with what each is worth."""
    ways = []
    if "activations" in parts and activations:
        rest = sum(size for name, size in parts.items() if name != "activations")
        fits = int((CLOSE * free - rest) // activations)
        sequence = config.max_prompt_tokens + config.max_response_tokens
        if fits >= sequence:
            ways.append(f"--micro-batch-tokens {fits} would fit")
        elif fits > 0:
            ways.append(f"--max-prompt-tokens and --max-response-tokens of {fits} together would fit")
    if "reference" in parts:
        ways.append(f"--kl-coef 0 --log-kl False keeps no reference ({shown(parts['reference'])})")
    if "vLLM (--memory-fraction)" in parts:
        ways.append("a lower --memory-fraction")
    if OWN_WEIGHTS in parts:
        own = shown(parts[OWN_WEIGHTS])
        ways.append(f"a lower --kv-cache-gib, or --engine hf, which has no weights of its own ({own})")
    if "KV cache" in parts:
        ways.append("a lower --max-response-tokens")
    return f"What helps: {'; '.join([*ways, 'a smaller --model'])}."
