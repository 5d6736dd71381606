"""The weight of the KL seeks its target: by hand, and in a closed loop with a policy that a reward pushes away."""

import math

import pytest

from grpo.algorithm.kl_weight import KLCoefficient, OldKLCoefficient

TARGET, RIGHT = 0.02, 0.1  # nats a token, and the weight under which the policy comes to rest there
FACTORS = [pytest.param(0.01, id="100 times too small"), pytest.param(100, id="100 times too large")]


def closed_loop(update, weight, steps, lag=100):
    """[(KL, weight)] of every step, from the reference on.

    x, the distance to the reference, is 1 at the target: KL = TARGET x^2. The reward pushes by a constant, the KL pulls
    back by weight times x: dx = (1 - x weight / RIGHT) / lag a step, integrated exactly. So x starts at 0, rests at
    RIGHT / weight, and takes the longer the smaller the weight: `lag` steps at the right one.
    """
    x, found = 0.0, []
    for _ in range(steps):
        found.append((TARGET * x**2, weight))
        weight = update(*found[-1])
        pull = weight / RIGHT / lag
        x = x * math.exp(-pull) + (-math.expm1(-pull) / pull if pull else 1) / lag
    return found


def settled(found, within=0.05):
    """Does the KL stay at the target, and the weight at the right one, through the last quarter?"""
    last = found[-len(found) // 4 :]
    return all(abs(kl / TARGET - 1) < within and abs(weight / RIGHT - 1) < within for kl, weight in last)


def proportional(responses, horizon):
    def update(kl, weight):
        controller = KLCoefficient(weight, TARGET, horizon)
        controller.update(kl, responses)
        return controller.value

    return update


def unbounded(gain):
    """The peers' formula, without a bound of the gain."""
    return lambda kl, weight: weight * (1 + max(-0.2, min(0.2, kl / TARGET - 1)) * gain)


def halve_or_double(kl, weight):
    """PPO's rule for the KL to the policy that sampled (arXiv 1707.06347, section 4)."""
    return weight * 2 if kl > 1.5 * TARGET else weight / 2 if kl < TARGET / 1.5 else weight


def test_the_weight_by_hand():
    weight = KLCoefficient(0.1, target=0.02, horizon=10_000)
    values = []
    for measured in (0.0, None, 0.022, 1.0, 0.02):
        weight.update(measured, responses=500)  # a twentieth of the horizon
        values.append(weight.value / 0.1)
    # Errors -1, none, 0.1, 49 and 0, clipped to 0.2, times a twentieth.
    assert values == pytest.approx([0.99, 0.99, 0.99 * 1.005, 0.99 * 1.005 * 1.01, 0.99 * 1.005 * 1.01])


def test_without_a_target_the_weight_is_constant():
    weight = KLCoefficient(0.1)
    weight.update(99.0, responses=128)
    assert weight.value == 0.1


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(("responses", "horizon"), [(128, 10_000), (1024, 10_000), (64, 640), (1024, 1024), (1024, 10)])
def test_it_settles_at_the_target_from_below_and_from_above(responses, horizon, factor):
    found = closed_loop(proportional(responses, horizon), factor * RIGHT, steps=6000)
    assert settled(found)
    assert not settled(found[:400])  # it had to get there


@pytest.mark.parametrize("lag", [20, 100, 300])
def test_a_slow_start_does_not_wind_it_down(lag):
    found = closed_loop(proportional(128, 10_000), RIGHT, steps=6000, lag=lag)
    assert settled(found)
    assert min(weight for _, weight in found) > RIGHT / 3 and max(kl for kl, _ in found) < 2 * TARGET


@pytest.mark.parametrize("factor", FACTORS)
def test_what_it_replaces_does_not_settle(factor):
    """It halves while the KL is young, till nothing holds the policy, and then swings between its bounds for ever."""
    found = closed_loop(halve_or_double, factor * RIGHT, steps=6000)
    assert min(weight for _, weight in found) < 1e-20 * RIGHT and max(kl for kl, _ in found) > 3 * TARGET
    assert not settled(found, within=0.3)


def test_without_its_bound_a_small_horizon_turns_the_weight_to_nothing():
    weights = [weight for _, weight in closed_loop(unbounded(1024 / 200), RIGHT, steps=2)]
    assert weights[0] == RIGHT and weights[1] < 0
    assert settled(closed_loop(proportional(1024, 200), RIGHT, steps=6000))


def test_ppos_weight_doubles_and_halves_outside_its_band():
    """Target 0.02: above 0.03 twice, below 0.0133 half, and what lies between changes nothing."""
    weight = OldKLCoefficient(0.5, target=0.02)
    for measured, expected in ((0.031, 1.0), (0.029, 1.0), (0.014, 1.0), (0.013, 0.5), (None, 0.5)):
        weight.update(measured)
        assert weight.value == expected
    constant = OldKLCoefficient(0.5)
    constant.update(9.0)
    assert constant.value == 0.5
