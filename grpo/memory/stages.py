"""The stages of a step, and what each holds on the card. Bytes.

Trainer and vLLM share the card by turns: vLLM sleeps from the end of the generation to the sync, its weights on the
host and its KV cache dropped. What is estimated, and not counted, is named here as a constant with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from grpo.memory.model_shape import Shape
from grpo.memory.moments import Moment, critic_moment, logprobs_moment, update_moment
from grpo.memory.widths import Widths, gradient_bytes, optimizer_bytes, reference_bytes, weight_bytes

GIB = 2**30
CONTEXT = 1.0 * GIB
"""Estimated: the CUDA context with the kernels that are loaded into it, and the workspaces of matrix products."""
ASLEEP = 1.0 * GIB
"""Estimated: what vLLM keeps while it sleeps, mostly its captured graphs."""
GRAPHS = 1.0 * GIB
"""Estimated: captured graphs and workspaces of vLLM while it generates, which --memory-fraction includes."""
GAPS = 0.05
"""Estimated: share by which torch's allocator takes more than it gives out, of what comes and goes in a pass."""

CRITIC = Widths()
"""A critic's weights are in float32, and its optimizer is AdamW, whatever the policy's."""
PROBE = 304
"""Positions that the proof of a sync scores with the policy while vLLM is awake (engines/sync.py)."""

STAGES = ("generate", "log-probabilities", "update", "critic's update", "sync")
ROWS = (
    "weights", "optimizer", "reference", "critic", "gradients", "activations", "head", "copies of weights",
    "vLLM's weights", "KV cache", "vLLM's workspace", "proof of a sync", "CUDA, gaps", "other programs",
)  # fmt: skip


@dataclass(frozen=True)
class Load:
    """What a run asks of a card."""

    shape: Shape
    widths: Widths
    card: float
    """Bytes of the card."""
    micro_batch_tokens: int
    sequence: int
    """Tokens of the longest prompt and response."""
    update_sequences: int
    """Responses of an optimizer batch."""
    generated_sequences: int
    """Responses that are generated at the same time, at most."""
    recompute: bool
    memory_fraction: float | None
    """Share of the card that vLLM takes while it generates; None: transformers generates with the policy itself."""
    taken: float = 0.0
    """Bytes of the card that are not ours."""
    shards: int = 1
    """Ranks of a machine, among which weights, gradients, state and reference are divided."""
    tensor_parallel: int = 1
    """Ranks among which vLLM's weights and KV cache are divided."""
    critic: Shape | None = None
    """Of PPO's critic, whose head has one number: the embedding, layers and norm alone."""

    @property
    def tokens(self) -> int:
        """Positions of the largest micro-batch: a longer response goes alone, and there may be no more of them."""
        return min(max(self.micro_batch_tokens, self.sequence), self.update_sequences * self.sequence)

    @property
    def vllm(self) -> bool:
        return self.memory_fraction is not None

    @property
    def kv_sequence(self) -> float:
        """Bytes of the KV cache of one response of full length, in bfloat16."""
        return 2 * self.shape.kv_cache * self.sequence / self.tensor_parallel

    @property
    def vllm_weights(self) -> float:
        """In bfloat16."""
        return 2 * self.shape.parameters / self.tensor_parallel

    @property
    def vllm_workspace(self) -> float:
        """Captured graphs, and what a forward pass of vLLM holds: it tries one of 16,384 tokens (8,192 on cards of less
        than 70 GiB) when it starts, and samples from logits in float32, of which there are about three copies."""
        tokens = 16384 if self.card >= 70 * GIB else 8192
        layer = tokens * 2 * (2 * self.shape.hidden + 3 * self.shape.intermediate)
        return GRAPHS + layer + 3 * 4 * self.generated_sequences * self.shape.vocabulary

    @property
    def kv_cache(self) -> float:
        """What of vLLM's share is left for it; all responses at full length for transformers, whose cache is in float32
        where the weights are, also under autocast."""
        if not self.vllm:
            return self.widths.weights / 2 * self.kv_sequence * self.generated_sequences
        return self.memory_fraction * self.card - self.vllm_weights - self.vllm_workspace


def stages(load: Load) -> dict[str, dict[str, float]]:
    """Stage -> row -> bytes."""
    shape, widths = load.shape, load.widths
    stay = {
        "weights": weight_bytes(shape, widths) / load.shards,
        "optimizer": optimizer_bytes(shape, widths) / load.shards,
        "reference": reference_bytes(shape, widths) / load.shards,
        "critic": critic_bytes(load),
        "other programs": load.taken,
    }
    asleep = CONTEXT + (ASLEEP if load.vllm else 0.0)
    generate = {"KV cache": load.kv_cache, "CUDA, gaps": CONTEXT}
    sync = {"CUDA, gaps": CONTEXT}
    if load.vllm:
        generate["proof of a sync"] = (1 + GAPS) * logprobs_moment(shape, widths, PROBE).total
        generate |= {"vLLM's weights": load.vllm_weights, "vLLM's workspace": load.vllm_workspace}
        # The largest tensor is there twice while it is loaded, and one that is merged with its adapter comes from two
        # of float32.
        merged = 0 if widths.adapter is None else (4 + 4 + 2) * shape.intermediate * shape.hidden
        sync = {"vLLM's weights": load.vllm_weights + max(2 * shape.head, merged), "CUDA, gaps": asleep}
    update = {"gradients": gradient_bytes(shape, widths) / load.shards}
    held = {
        "generate": stay | generate,
        "log-probabilities": stay | passing(logprobs_moment(shape, widths, load.tokens), asleep, gathered(load)),
        "update": stay | update | passing(largest_update(load), asleep, gathered(load, gradients=True)),
        "sync": stay | sync,
    }
    if load.critic is not None:
        moment = critic_moment(load.critic, CRITIC, load.tokens, recompute=load.recompute)
        gradient = {"gradients": CRITIC.gradient * load.critic.parameters / load.shards}
        whole = gathered(replace(load, shape=load.critic), gradients=True)
        held["critic's update"] = stay | gradient | passing(moment, asleep, whole)
    return held


def critic_bytes(load: Load) -> float:
    """What stays of a critic: float32 weights, and AdamW's two moments of each."""
    if load.critic is None:
        return 0.0
    return (CRITIC.weights + CRITIC.optimizer) * load.critic.parameters / load.shards


def largest_update(load: Load) -> Moment:
    return update_moment(load.shape, load.widths, load.tokens, recompute=load.recompute)


def passing(moment: Moment, asleep: float, gathered: float = 0.0) -> dict[str, float]:
    """What a forward or backward pass adds; gathered: of sharded weights, instead of the copies that one card makes."""
    copies = gathered or moment.copies
    return {
        "activations": moment.activations,
        "head": moment.head,
        "copies of weights": copies,
        "CUDA, gaps": asleep + GAPS * (moment.total - moment.copies + copies),
    }


def gathered(load: Load, *, gradients: bool = False) -> float:
    """Whole weights in bfloat16 while they compute: embedding, head, and two layers, of which one is fetched while the
    other computes. With gradients, those of the head or of a layer in bfloat16, and in float32 while they are summed.
    0 without shards."""
    if load.shards == 1:
        return 0.0
    shape = load.shape
    root = shape.head * (1 if shape.tied else 2)
    return 2 * (root + 2 * shape.layer) + (6 * max(root, shape.layer) if gradients else 0)


def total(stage: dict[str, float]) -> float:
    return sum(stage.values())
