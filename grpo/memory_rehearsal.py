"""The largest micro-batch that a run can meet, rehearsed on a card before the first step: does it really fit?

A forward and backward pass by the run's own objective, and the passes for log-probabilities, beside all that an update
holds. The gradient of an earlier micro-batch is there, because the pass is made twice, and for AdamW's state, which
comes with the first update, as many bytes are set aside. Memory that runs out is met here, and not after an hour of
generating: micro-batches are halved as they would be there (model/passes.py).

Nothing that the run computes later is changed: weights, optimizer and random generators stay as they are, bit for bit.
"""

from __future__ import annotations

import gc
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from grpo.algorithm.ingredients import load_loss_term
from grpo.algorithm.objective import Objective
from grpo.card import Plan
from grpo.config import Config
from grpo.memory.stages import ASLEEP, GIB, Load, stages
from grpo.memory.widths import STATE
from grpo.model.critic import ValueObjective
from grpo.model.learner import Learner
from grpo.model.policy import Policy, Reference
from grpo.model.scalar_model import ScalarModel
from grpo.out_of_memory import out_of_memory
from grpo.records import Batch

NO_TENSORS = ("CUDA, gaps", "other programs")
"""Rows of a plan that torch does not count."""


@dataclass(frozen=True)
class Rehearsed:
    """The largest micro-batch that fits, and what it has taken."""

    responses: int
    positions: int
    """Of each of them, prompt included."""
    peak: int | None
    """Bytes of all of torch's tensors at the worst moment; None on a CPU, where torch counts none."""

    def line(self, plan: Plan | None) -> str:
        """What is said of it, beside what the plan has for it."""
        found = f"{self.peak / GIB:.1f} GiB at the peak" if self.peak is not None else "it fits"
        planned = ""
        if plan is not None:
            same = replace(plan.load, micro_batch_tokens=self.responses * self.positions)
            planned = f", planned {planned_tensors(same) / GIB:.1f}"
        return (
            f"rehearsed: {found}{planned} (largest micro-batch, {self.responses} x {self.positions:,} positions; "
            "CUDA, vLLM asleep and gaps of the allocator come on top)"
        )


def rehearse(
    config: Config,
    policy: Policy,
    reference: Reference | None,
    critic: ScalarModel | None = None,
    *,
    asleep: float = 0.0,
) -> Rehearsed:
    """Make the passes and drop what they have computed.

    asleep: bytes to be left free for what vLLM keeps while it sleeps; it has not started yet.
    Raises: OutOfMemory where a single response is too large, or there is no room for the optimizer's state.
    """
    cuda = policy.device.type == "cuda"
    if cuda:
        release()
    with out_of_memory("making room for the optimizer's state", "--optimizer adamw_8bit or adamw_offload"):
        aside = state_to_come(policy, config.optimizer)
        aside += [] if critic is None else state_to_come(critic, critic.settings.name)
        of_engine = torch.empty(int(asleep), dtype=torch.uint8, device=policy.device)
    learners = [policy] if critic is None else [policy, critic]
    with torch.random.fork_rng(devices=[policy.device] if cuda else []):
        shape, before = None, None
        while before != (now := [learner.micro_batch_tokens for learner in learners]):
            before = now  # once more after a halving: what failed is not what was planned
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            shape = _passes(config, policy, reference)
            policy.drop_gradient()
            if critic is not None:
                _passes_of_critic(config, critic)
                critic.drop_gradient()
    peak = torch.cuda.max_memory_allocated() - of_engine.nbytes if cuda else None
    del aside, of_engine
    if cuda:
        release()
        torch.cuda.reset_peak_memory_stats()
    return Rehearsed(*shape, peak)


def release() -> None:
    """Give the card back what torch's allocator keeps in reserve: vLLM starts next, and asks how much is free."""
    gc.collect()
    torch.cuda.empty_cache()


def state_to_come(learner: Learner, optimizer: str) -> list[Tensor]:
    """As many bytes on the device as the optimizer's state will have there, a tensor for each of the parameters that
    have none yet; a run that goes on from a checkpoint has it all."""
    missing = [
        parameter
        for group in learner.optimizer.param_groups
        for parameter in group["params"]
        if parameter not in learner.optimizer.state
    ]
    return [torch.empty(STATE[optimizer] * p.numel(), dtype=torch.uint8, device=p.device) for p in missing]


def widest(tokens: int, longest: int, responses: int) -> tuple[int, int]:
    """(responses, positions of each) of the micro-batch with most positions that can be cut from `responses`.

    tokens: at most so many positions in it, but for a response that goes alone; longest: positions of a response.

    >>> widest(16384, 4023, 128), widest(1000, 4023, 128), widest(16384, 4023, 2)
    ((8, 2048), (1, 4023), (2, 4023))
    """
    shapes = [(count, min(longest, tokens // count)) for count in range(2, min(responses, tokens) + 1)]
    return max([(1, longest), *shapes], key=lambda shape: shape[0] * shape[1])


def large_batch(config: Config, vocabulary: int, responses: int, positions: int) -> Batch:
    """So many equal rows, with as much of each in the response as there can be. Ids and numbers only have to be there.

    Shapes: [responses, positions].
    """
    ids = torch.arange(responses * (positions + 1)).remainder(vocabulary).view(responses, positions + 1)
    mask = torch.zeros(responses, positions, dtype=torch.bool)
    mask[:, -min(positions, config.max_response_tokens) :] = True
    uniform = -math.log(vocabulary) * mask  # log-probabilities that a model could give
    return Batch(
        inputs=ids[:, :-1],
        targets=ids[:, 1:],
        lengths=torch.full((responses,), positions),
        mask=mask,
        groups=torch.arange(responses) // config.responses_per_problem,
        sampler_logprobs=uniform,
        advantages=mask.float(),
        token_weights=mask / mask.sum(),
        old_logprobs=uniform if config.needs_old_logprobs else None,
        ref_logprobs=uniform if config.needs_reference else None,
    )


def planned_tensors(load: Load) -> float:
    """What the plan has for the passes, of that which torch counts. Bytes."""
    held = stages(load)
    return max(
        sum(size for row, size in held[stage].items() if row not in NO_TENSORS)
        for stage in held
        if stage not in ("generate", "sync")
    )


def asleep_bytes(engine: str) -> float:
    """What vLLM will keep of the card while the policy is trained, by the plan's estimate."""
    return ASLEEP if engine == "vllm" else 0.0


def largest_batch(config: Config, learner: Learner, responses: int, times: int = 1) -> Batch:
    """So many of the learner's largest micro-batches that can be cut from `responses`, or as many as these make."""
    ranks, longest = learner.ranks, longest_row(config)
    rows, positions = widest(learner.micro_batch_tokens, longest, ranks.most(responses))
    vocabulary = learner.model.config.get_text_config().vocab_size
    return large_batch(config, vocabulary, min(times * rows * ranks.size, responses), positions)


def longest_row(config: Config) -> int:
    """Positions of the longest row: the last token is only predicted."""
    return config.max_prompt_tokens + config.max_response_tokens - 1


def _passes(config: Config, policy: Policy, reference: Reference | None) -> tuple[int, int]:
    """Those of a step, each at its largest; returns (responses, positions) of the backward pass's micro-batch."""
    policy.logprobs(largest_batch(config, policy, config.responses_per_step))
    if reference is not None:
        reference.logprobs(largest_batch(config, policy, config.responses_per_step))
    # Twice as large, so that the second pass meets the gradient of the first.
    objective, of_update = Objective(config.row, load_loss_term(config.loss_term)), responses_of_update(config)
    policy.backward(largest_batch(config, policy, of_update, times=2), objective)
    return widest(policy.micro_batch_tokens, longest_row(config), policy.ranks.most(of_update))


def _passes_of_critic(config: Config, critic: ScalarModel) -> None:
    """The same of a critic: its values, and its backward pass."""
    critic.values(largest_batch(config, critic, config.responses_per_step))
    batch = largest_batch(config, critic, responses_of_update(config), times=2)
    zeros = torch.zeros(batch.mask.shape)
    critic.backward(replace(batch, old_values=zeros, returns=zeros), ValueObjective(config.value_clip))


def responses_of_update(config: Config) -> int:
    return config.responses_per_step // config.updates_per_step
