"""The stages of a run on a CPU: the same arithmetic, with no card's overhead, and a vLLM that does not sleep. Bytes.

vLLM has weights of its own there, float32, and a KV cache of the size that it is told, the whole time.
"""

from __future__ import annotations

from dataclasses import replace

from grpo.memory.moments import Moment, critic_moment, logprobs_moment
from grpo.memory.stages import CRITIC, Load, critic_bytes, largest_update
from grpo.memory.widths import gradient_bytes, optimizer_bytes, reference_bytes, weight_bytes

FLOAT32 = 4


def host_stages(load: Load, vllm_cache: float | None) -> dict[str, dict[str, float]]:
    """Stage -> row -> bytes. vllm_cache: bytes of vLLM's KV cache; None: transformers generates with the policy itself,
    and keeps a cache of all responses while it does."""
    shape, widths = load.shape, load.widths
    stay = {
        "weights": weight_bytes(shape, widths),
        "optimizer": optimizer_bytes(shape, widths),
        "reference": reference_bytes(shape, widths),
        "critic": critic_bytes(load),
    }
    cache = {}
    if vllm_cache is None:
        cache = {"KV cache": host_kv_sequence(load, widths.compute) * load.generated_sequences}
    else:
        stay |= {"vLLM's weights": FLOAT32 * shape.parameters, "KV cache": vllm_cache}
    held = {
        "generate": stay | cache,
        "log-probabilities": stay | _passing(logprobs_moment(shape, widths, load.tokens)),
        "update": stay | {"gradients": gradient_bytes(shape, widths)} | _passing(largest_update(load)),
    }
    if load.critic is not None:
        moment = critic_moment(load.critic, replace(CRITIC, compute=FLOAT32), load.tokens, recompute=load.recompute)
        held["critic's update"] = stay | {"gradients": FLOAT32 * load.critic.parameters} | _passing(moment)
    return held


def host_kv_sequence(load: Load, width: int = FLOAT32) -> int:
    """Bytes of the KV cache of one response of full length; vLLM's is in float32."""
    return width * load.shape.kv_cache * load.sequence


def _passing(moment: Moment) -> dict[str, float]:
    return {"activations": moment.activations, "head": moment.head, "copies of weights": moment.copies}
