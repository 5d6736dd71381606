"""Was a benchmark's run disturbed? What else the cores of this machine did while it ran, from /proc/stat.

The rule: a run is disturbed where the CPU time of all other processes was more than 5% of what the cores could give
while it ran. Time that the host of a virtual machine took away counts as theirs.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LIMIT = 0.05
STAT = Path("/proc/stat")


@dataclass(frozen=True)
class Clock:
    """What has gone by, in seconds."""

    wall: float
    busy: float
    """CPU time of all processes of the machine."""
    own: float
    """CPU time of this process and of its children that have ended."""
    cores: int


def busy_seconds(stat: str, ticks: int) -> tuple[float, int]:
    """/proc/stat -> CPU seconds spent since the machine started, and its cores.

    A line is `cpu user nice system idle iowait irq softirq steal guest guest_nice`, in ticks; guests are in user and
    nice already (proc(5)). Raises: ValueError where there is no such line.
    """
    lines = [line.split() for line in stat.splitlines() if line.startswith("cpu")]
    if not lines or len(lines[0]) < 5:
        raise ValueError("no line of CPU times")
    user, nice, system, _idle, _iowait, *others = (int(number) for number in lines[0][1:9])
    return (user + nice + system + sum(others)) / ticks, len(lines) - 1


def now() -> Clock | None:
    """None where the machine does not say, as macOS."""
    try:
        busy, cores = busy_seconds(STAT.read_text(), os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError):
        return None
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Clock(time.monotonic(), busy, sum(each.ru_utime + each.ru_stime for each in used), cores)


def share_of_others(before: Clock, after: Clock) -> float:
    """CPU time of other processes between two moments, over what all cores could give; not below 0."""
    others = (after.busy - before.busy) - (after.own - before.own)
    return max(0.0, others / (after.cores * (after.wall - before.wall)))


class Watch:
    """`others`: the share of other processes while the block ran; None where the machine does not say."""

    others: float | None = None

    @property
    def disturbed(self) -> bool:
        return self.others is not None and self.others > LIMIT


@contextmanager
def watched() -> Iterator[Watch]:
    """The block must wait for the children that it starts."""
    watch, before = Watch(), now()
    yield watch
    after = now()
    if before and after:
        watch.others = share_of_others(before, after)
