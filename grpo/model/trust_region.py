"""TRPO's update (Schulman et al. 2015, arXiv 1502.05477): the longest step within a KL divergence of the old policy.

    maximise  L(θ) = sum of weight · ratio · A      subject to      KL(old ‖ θ) ≤ δ, nats a token

To first order L is g·s for a step s, and to second order the KL is ½ sᵀFs, with F the Fisher information. The best
step is then √(2δ / xᵀFx) x with x = F⁻¹g, which conjugate gradients find from products F v alone. A line search makes
it shorter until the KL, which is computed exactly over the whole vocabulary, is at most δ, and L has risen. Where no
length does, nothing moves.

It takes some twenty passes over the batch with gradients of gradients. That is why PPO's clip has replaced it, and why
it is for small models here.

N response tokens, V vocabulary, θ parameters.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from grpo.algorithm.objective import Objective
from grpo.errors import UserError
from grpo.model.learner import not_finite
from grpo.model.logprobs import response_states, tempered
from grpo.model.policy import Policy
from grpo.records import Batch

MAX_PARAMETERS = 20_000_000
DAMPING = 0.01
"""Added to F's diagonal: directions in which the policy does not change would have no limit."""
ITERATIONS = 10
"""Of conjugate gradients."""
SHORTER, TRIES = 0.8, 10
"""What the line search multiplies a step by, and how often it looks."""


def check_size(model: nn.Module) -> None:
    """Raises: UserError for a model whose updates would take hours."""
    size = sum(parameter.numel() for parameter in model.parameters())
    if size > MAX_PARAMETERS:
        raise UserError(
            f"--max-kl is TRPO's trust region, with some twenty passes an update, for models of at most "
            f"{MAX_PARAMETERS:,} parameters; this one has {size:,}. PPO's clip took its place: --algo dr_grpo."
        )


class TrustRegionPolicy(Policy):
    """A policy whose updates are TRPO's; its optimizer rests."""

    def update(self, batch: Batch, objective: Objective, begin: None = None) -> dict[str, float | None]:
        """See `trust_region_update`. Nothing is learnt beside."""
        return trust_region_update(self, batch, objective)


def trust_region_update(policy: Policy, batch: Batch, objective: Objective) -> dict[str, float | None]:
    """One step on a whole optimizer batch. Returns what Learner.update does, with the length of the step along x as its
    learning rate, and `trust_kl`, `trust_gain` and `trust_tries`. A step that the line search refuses moves nothing.
    """
    if batch.old_logprobs is None:
        batch = replace(batch, old_logprobs=policy.logprobs(batch))
    measured = policy.backward(batch, objective)
    parameters = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
    gradient = -flat([zero_where_none(parameter) for parameter in parameters])
    policy.drop_gradient()
    measured |= {"grad_norm": gradient.norm().item(), "learning_rate": 0.0}
    measured |= {"trust_kl": 0.0, "trust_gain": 0.0, "trust_tries": 0.0}
    if not_finite(measured):
        policy.skipped_in_a_row += 1
    else:
        policy.skipped_in_a_row = 0
        measured |= _step(policy, batch, objective, parameters, gradient, measured["loss"])
    return measured | {"skipped_in_a_row": float(policy.skipped_in_a_row)}


def _step(
    policy: Policy, batch: Batch, objective: Objective, parameters: list[Tensor], gradient: Tensor, loss: float
) -> dict[str, float]:
    """Direction, length and line search; `loss` is that of the old policy."""

    def product(vector: Tensor) -> Tensor:
        return fisher_product(policy, batch, parameters, vector)

    direction = conjugate_gradient(lambda vector: product(vector) + DAMPING * vector, gradient, ITERATIONS)
    curvature = direction.dot(product(direction)).item()
    if not (math.isfinite(curvature) and curvature > 0):  # no gradient: all groups are uniform
        return {}
    length = math.sqrt(2 * objective.max_kl / curvature)
    old, kept = copy.deepcopy(policy.model), [parameter.detach().clone() for parameter in parameters]
    for tries in range(1, TRIES + 1):
        move(parameters, kept, length * direction)
        kl, gain = exact_kl(policy, old, batch), loss - loss_of(policy, batch, objective)
        if kl <= objective.max_kl and gain > 0:
            policy.moves += 1
            found = {"trust_kl": kl, "trust_gain": gain, "learning_rate": length}
            return found | {"trust_tries": float(tries)}
        length *= SHORTER
    move(parameters, kept, None)
    return {"trust_tries": float(TRIES)}


def conjugate_gradient(product: Callable[[Tensor], Tensor], target: Tensor, iterations: int) -> Tensor:
    """x with `product`(x) = target, approached from 0; exact after as many iterations as x has numbers.

    Shapes: [n] -> [n]. `product` is linear, symmetric and positive.
    """
    found, left = torch.zeros_like(target), target.clone()
    direction, size = left.clone(), left.dot(left)
    smallest = 1e-12 * size
    for _ in range(iterations):
        if size <= smallest:
            break
        moved = product(direction)
        along = size / direction.dot(moved)
        found += along * direction
        left -= along * moved
        before, size = size, left.dot(left)
        direction = left + (size / before) * direction
    return found


def fisher_product(policy: Policy, batch: Batch, parameters: list[Tensor], vector: Tensor) -> Tensor:
    """F v: the second derivative of the mean KL(old ‖ θ) of a response token at θ = old, times v. Shapes: [θ] -> [θ].

    Over the whole batch: F on a part of it bounds the KL there, and lets it run away elsewhere.
    """
    tokens, total = batch.mask.sum().item(), torch.zeros_like(vector)
    parts = like(parameters, vector)

    def add(micro_batch: Batch) -> None:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
            logprobs = distributions(policy.model, micro_batch, policy.temperature)
            before = logprobs.detach()
            kl = (before.exp() * (before - logprobs)).sum() / tokens
            slope = torch.autograd.grad(kl, parameters, create_graph=True)
            along = sum((one * other).sum() for one, other in zip(slope, parts, strict=True))
            total.add_(flat(torch.autograd.grad(along, parameters)))

    policy.each_micro_batch(batch, add, name="a product with the Fisher information", afresh=lambda: total.zero_())
    return total


def distributions(model: nn.Module, batch: Batch, temperature: float) -> Tensor:
    """[N, V] float32: log-probabilities of every token at every response position, with their graph.

    By the head itself: head.py's product has no second derivative.
    """
    logits = model.get_output_embeddings()(response_states(model, batch.inputs, batch.mask)).float()
    return tempered(model, logits, temperature).log_softmax(dim=-1)


@torch.no_grad()
def exact_kl(policy: Policy, old: nn.Module, batch: Batch) -> float:
    """KL(old ‖ policy), nats, a mean over the response tokens, each over the whole vocabulary."""

    def of(micro_batch: Batch) -> float:
        before = distributions(old, micro_batch, policy.temperature)
        now = distributions(policy.model, micro_batch, policy.temperature)
        return (before.exp() * (before - now)).sum().item()

    made = policy.each_micro_batch(batch, of, name="a pass for the KL")
    return sum(kl for _, kl in made) / batch.mask.sum().item()


def loss_of(policy: Policy, batch: Batch, objective: Objective) -> float:
    """The objective's loss under the current weights."""

    def of(micro_batch: Batch) -> float:
        return policy.measure(micro_batch, objective).loss.item()

    return sum(loss for _, loss in policy.each_micro_batch(batch, of, name="a pass of the line search"))


@torch.no_grad()
def move(parameters: Sequence[Tensor], start: Sequence[Tensor], step: Tensor | None) -> None:
    """The parameters become start + step, or start to the last bit."""
    parts = [None] * len(parameters) if step is None else like(parameters, step)
    for parameter, at, part in zip(parameters, start, parts, strict=True):
        parameter.copy_(at if part is None else at + part)


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def like(parameters: Sequence[Tensor], vector: Tensor) -> list[Tensor]:
    """A vector, cut into the shapes of the parameters."""
    parts = vector.split([parameter.numel() for parameter in parameters])
    return [part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]


def zero_where_none(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
