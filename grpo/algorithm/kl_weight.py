"""Weights of the KL that seek a target: Ziegler's for the KL to the reference, PPO's for the KL to the old policy."""

from __future__ import annotations

HORIZON = 10_000
"""Responses over which the weight is adapted, as in TRL, verl and OpenRLHF."""

MAX_ERROR, MAX_GAIN = 0.2, 0.1
"""The paper's bound of the relative error, and its gain K_beta, here a bound of the gain. So a step changes the weight
by 2% at most: while the KL is young (it starts at 0) the weight sinks slowly, and no horizon turns it to 0 or below."""


class KLCoefficient:
    """The weight of the KL: constant, or adapted to a target (Ziegler et al., arXiv 1909.08593, section 2.2):

        value *= 1 + clip(measured / target - 1, -0.2, 0.2) * min(responses / horizon, 0.1)

    The paper's gain is 0.1 a step; responses / horizon is that of its code and of its peers (`AdaptiveKLController`).

    >>> weight = KLCoefficient(0.1, target=0.02, horizon=12_800)
    >>> weight.update(measured=0.0, responses=128)
    >>> round(weight.value, 6)
    0.0998
    """

    def __init__(self, value: float, target: float | None = None, horizon: int = HORIZON) -> None:
        """`target` in nats a token, None for a constant weight; `horizon` in responses."""
        self.value = value
        self.target = target
        self.horizon = horizon

    def update(self, measured: float | None, responses: int) -> None:
        """Adapt to the KL of a step, nats a token, measured on so many responses; None: not measured, no change."""
        if self.target is None or measured is None:
            return
        error = max(-MAX_ERROR, min(MAX_ERROR, measured / self.target - 1))
        self.value *= 1 + error * min(MAX_GAIN, responses / self.horizon)


OLD_FACTOR, OLD_BAND = 2.0, 1.5
"""PPO's: double above 1.5 times the target, halve below the target over 1.5."""


class OldKLCoefficient:
    """The weight of the KL to the policy that sampled: constant, or adapted as in PPO (arXiv 1707.06347, section 4).

    It is measured anew in every step, from 0 on, and so cannot wind the weight down as it would for the KL to the
    reference, which starts a run at 0.
    """

    def __init__(self, value: float, target: float | None = None) -> None:
        """`target` in nats a token, None for a constant weight."""
        self.value = value
        self.target = target

    def update(self, measured: float | None) -> None:
        """Adapt to the KL at the last update of a step, nats a token; None: not measured, no change."""
        if self.target is None or measured is None:
            return
        if measured > OLD_BAND * self.target:
            self.value *= OLD_FACTOR
        elif measured < self.target / OLD_BAND:
            self.value /= OLD_FACTOR
