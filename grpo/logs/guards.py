"""Warnings that a run's metrics give, each said once, in plain words, with the flag that acts on it.

    guards = Guards(rows, stop_on=["reward_collapse"])
    for warning in guards.look(row):
        print(warning.text)

Pure: what is said depends on the rows alone, so that a resumed run says what the uninterrupted one would have said.
Each guard asks for means or medians over 10 or 20 steps, because a single step is noise: a healthy run's KL, for one,
was 2.6 nats in one step and 0.02 in those around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from grpo.logs.metric_names import Metrics
from grpo.logs.tracks import LONG, SHORT, Tracks, begun, followed


@dataclass(frozen=True)
class Guard:
    """A warning: `sees` says whether it is due, `says` what is said. Both are asked after each step."""

    sees: Callable[[Tracks], bool]
    says: Callable[[Tracks], str]


def reward_collapse(tracks: Tracks) -> bool:
    """Most of what was gained is lost, by far more than noise, and by enough to matter. Rewards may be negative."""
    reward = tracks["reward/mean"]
    if reward.count <= SHORT:
        return False
    start, best, now = reward.first[0], reward.best, fmean(reward.last[-SHORT:])
    lost = best - now
    return lost > 4 * reward.noise and lost > 0.3 * max(abs(best), abs(now)) and now < start + (best - start) / 4


def uniform_groups(tracks: Tracks) -> bool:
    """All groups but one in twenty, for LONG steps."""
    uniform = tracks["group/uniform"]
    return uniform.count >= LONG and fmean(uniform.last) >= 0.95


def kl_runaway(tracks: Tracks) -> bool:
    """Half a nat a token, in most of the last steps. Healthy runs stay at a few hundredths."""
    kl = tracks["policy/kl"]
    return kl.count >= SHORT and median(kl.last[-SHORT:]) > 0.5


def entropy_collapse(tracks: Tracks) -> bool:
    """Near 0, while the problems are not solved: where nearly all responses are correct, that is success."""
    entropy, correct = tracks["policy/entropy"], tracks["correct"]
    if entropy.count <= SHORT or (correct.count and fmean(correct.last[-SHORT:]) > 0.8):
        return False
    return fmean(entropy.last[-SHORT:]) < max(0.01, 0.05 * entropy.first[0])


def length_limit(tracks: Tracks) -> bool:
    """A quarter of the responses."""
    truncated = tracks["length/truncated"]
    return truncated.count >= SHORT and fmean(truncated.last[-SHORT:]) > 0.25


def engine_gap(tracks: Tracks) -> bool:
    """Three times what it was in the first steps, and more than rounding in bfloat16 makes of it."""
    gap = tracks["policy/engine_gap"]
    return gap.count >= LONG and median(gap.last[-SHORT:]) > max(1e-3, 3 * median(gap.first))


def now(tracks: Tracks, name: str, mean: Callable[[Iterable[float]], float] = fmean) -> float:
    """The last steps' mean, or median."""
    return mean(tracks[name].last[-SHORT:])


GUARDS: dict[str, Guard] = {
    "reward_collapse": Guard(
        reward_collapse,
        lambda tracks: (
            f"the reward has collapsed: {now(tracks, 'reward/mean'):.2f} over the last {SHORT} steps, after "
            f"{tracks['reward/mean'].best:.2f} at best. Most often the updates are too large: lower "
            "--learning-rate or --max-grad-norm, and begin anew."
        ),
    ),
    "uniform_groups": Guard(
        uniform_groups,
        lambda tracks: (
            f"for {LONG} steps nearly all responses to a problem have scored the same, at a mean reward of "
            f"{now(tracks, 'reward/mean') if tracks['reward/mean'].last else 0.0:.2f}: there is nothing left to learn "
            "from. Either the problems are solved, or they are too hard: take others by --data, more "
            "--responses-per-problem, or --dynamic-sampling."
        ),
    ),
    "kl_runaway": Guard(
        kl_runaway,
        lambda tracks: (
            f"the KL to the reference has run away: {now(tracks, 'policy/kl', median):.2f} nats a token over the last "
            f"{SHORT} steps. The policy has left the model that it came from: lower --learning-rate, or hold it by "
            "--kl-coef."
        ),
    ),
    "entropy_collapse": Guard(
        entropy_collapse,
        lambda tracks: (
            f"the entropy is near 0, {now(tracks, 'policy/entropy'):.4f} nats a token over the last {SHORT} steps, and "
            "the problems are not solved: the policy repeats one answer, and tries no other. Lower --learning-rate, "
            "or raise --clip-high, --temperature or --entropy-coef."
        ),
    ),
    "length_limit": Guard(
        length_limit,
        lambda tracks: (
            f"{now(tracks, 'length/truncated'):.0%} of the responses of the last {SHORT} steps were cut at the length "
            "limit, and their rewards say little. Raise --max-response-tokens, or see --truncated."
        ),
    ),
    "engine_gap": Guard(
        engine_gap,
        lambda tracks: (
            f"sampler and trainer drift apart: their log-probabilities differ by "
            f"{now(tracks, 'policy/engine_gap', median):.1e} over the last {SHORT} steps, after "
            f"{median(tracks['policy/engine_gap'].first):.1e} in the first {SHORT}. Lower --learning-rate, or correct "
            "for it by --importance."
        ),
    ),
}
"""Name -> guard. The names are the choices of `--stop-on`."""

STOPS = tuple(GUARDS)


@dataclass(frozen=True)
class RunWarning:
    """What a guard has seen at a step; `stops` where the run is to end for it."""

    name: str
    text: str
    stops: bool


@dataclass
class Guards:
    """The guards of one run. `rows` are the earlier rows of a resumed run; what they gave is not said again."""

    rows: Sequence[Metrics] = ()
    stop_on: Sequence[str] = ()
    tracks: Tracks = field(init=False, default_factory=begun)
    said: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        for row in self.rows:
            self.look(row)
        self.rows = ()
        self.said -= set(self.stop_on)  # what still holds ends a resumed run as it would have ended the first

    def look(self, row: Metrics) -> list[RunWarning]:
        """What this row, after those before, gives for the first time."""
        self.tracks = followed(self.tracks, row)
        due = [name for name, guard in GUARDS.items() if name not in self.said and guard.sees(self.tracks)]
        self.said.update(due)
        return [RunWarning(name, GUARDS[name].says(self.tracks), name in self.stop_on) for name in due]
