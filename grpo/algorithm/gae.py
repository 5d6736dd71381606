"""Credit for each token from a critic: rewards and values [B, T] -> advantages [B, T]. Pure functions.

    r_t = -coef * kl_t, + the response's reward at its last token
    δ_t = r_t + g V_{t+1} - V_t            A_t = δ_t + g λ A_{t+1}            R_t = A_t(λ of the critic) + V_t

Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438, eq. 16), g the discount and λ the decay.
Position t is the state in which `targets[:, t]` is chosen; V_t is the critic's value of it. After the last token V and
A are 0, whether the response ended or was cut: a value there would pay for not finishing. Positions outside the mask
are never read, and a gap within a response is skipped.

B sequences, T token positions (already shifted), N response tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from grpo.shapes import is_mask, of_shape, same_shape

EPSILON = 1e-4
"""Added to the standard deviation, as for the advantages of groups."""


def token_rewards(total: Tensor, mask: Tensor, kl: Tensor | None = None, coef: float = 0.0) -> Tensor:
    """What each token earns: the response's reward at its last token, less coef times its own KL.

    Shapes: total [B], mask [B, T] bool, kl [B, T] (log-probability less the reference's) -> [B, T], 0 outside the mask.
    A response without a token in the mask earns nothing.

    >>> token_rewards(torch.tensor([1.0]), torch.tensor([[True, True, False]]), torch.tensor([[0.2, -0.1, 9.0]]), 0.1)
    tensor([[-0.0200,  1.0100,  0.0000]])
    """
    is_mask("mask", mask)
    of_shape("total", total, "[B]", (len(mask),))
    rewards = torch.zeros(mask.shape, dtype=total.dtype, device=total.device)
    if kl is not None:
        same_shape("[B, T]", kl=kl, mask=mask)
        rewards = torch.where(mask, -coef * kl, rewards)
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = positions == torch.where(mask, positions, -1).amax(dim=1, keepdim=True)
    return torch.where(last & mask, rewards + total[:, None], rewards)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, discount: float, decay: float) -> Tensor:
    """Advantages [B, T], 0 outside the mask. Shapes: rewards, values [B, T], mask [B, T] bool.

    >>> r, v, m = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.25, 0.75]]), torch.ones(1, 3, dtype=torch.bool)
    >>> gae(r, v, m, discount=1.0, decay=0.5)
    tensor([[0.0625, 0.6250, 0.2500]])
    """
    is_mask("mask", mask)
    same_shape("[B, T]", rewards=rewards, values=values, mask=mask)
    found = torch.zeros_like(rewards)
    value = ahead = rewards.new_zeros(len(rewards))  # of the next token; 0 after the last one
    for t in reversed(range(rewards.shape[1])):
        here = mask[:, t]
        advantage = rewards[:, t] + discount * value - values[:, t] + discount * decay * ahead
        found[:, t] = torch.where(here, advantage, found[:, t])
        ahead, value = torch.where(here, advantage, ahead), torch.where(here, values[:, t], value)
    return found


def whiten(advantages: Tensor, mask: Tensor) -> Tensor:
    """(A - mean) / (std + 1e-4) over the N response tokens, std with ddof 1; 0 outside. One token alone is centred.

    >>> whiten(torch.tensor([[1.0, 2.0, 3.0, 6.0]]), torch.ones(1, 4, dtype=torch.bool))
    tensor([[-0.9258, -0.4629,  0.0000,  1.3887]])
    """
    is_mask("mask", mask)
    same_shape("[B, T]", advantages=advantages, mask=mask)
    found, chosen = torch.zeros_like(advantages), advantages[mask]
    if not chosen.numel():
        return found
    centred = chosen - chosen.mean()
    return found.masked_scatter(mask, centred / (chosen.std() + EPSILON) if len(chosen) > 1 else centred)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """(loss, whether the clip holds it) of each position: ½ max((V - R)², (V_old + clamp(V - V_old, ±clip) - R)²).

    The larger of the two, as in PPO's code (openai/baselines, ppo2): beyond the clip a value that moves on towards R
    gains nothing, and one that moves away still pays. clip 0: ½ (V - R)². Shapes: all [B, T].
    """
    same_shape("[B, T]", values=values, old_values=old_values, returns=returns)
    plain = (values - returns).square()
    if not clip:
        return 0.5 * plain, torch.zeros_like(plain, dtype=torch.bool)
    clipped = (old_values + (values - old_values).clamp(-clip, clip) - returns).square()
    return 0.5 * torch.maximum(plain, clipped), clipped > plain


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float | None:
    """1 - Var(R - V) / Var(R) over the response tokens: 1 is a perfect critic, 0 a constant, less is worse than that.

    None where R does not vary. Shapes: [B, T], mask bool.
    """
    is_mask("mask", mask)
    same_shape("[B, T]", values=values, returns=returns, mask=mask)
    value, target = values[mask].double(), returns[mask].double()
    spread = target.var(correction=0).item() if len(target) else 0.0
    return 1 - (target - value).var(correction=0).item() / spread if spread else None
