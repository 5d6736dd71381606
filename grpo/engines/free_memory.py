"""Is there room on the card for vLLM's share, beside what the trainer has yet to take of it?

vLLM asks for its share when it starts, and gets it again at each wake. Between the two AdamW's state appears, which
nothing else accounts for: without this check a run would end at its first wake and not at its start.
"""

from __future__ import annotations

import math

from grpo.errors import UserError

GIB = 2**30


def check_free_memory(free: int, total: int, *, fraction: float, reserved: int) -> None:
    """free, total, reserved: bytes of the card. Raises: UserError where the share does not fit into what is free."""
    room = free - reserved
    if room >= fraction * total:
        return
    later = f", of which the optimizer's state will take {reserved / GIB:.1f}" if reserved else ""
    hundredths = math.floor(100 * room / total)
    advice = f"Lower it to {hundredths / 100:g}, end" if hundredths > 0 else "End"
    raise UserError(
        f"--memory-fraction {fraction:g} asks {fraction * total / GIB:.1f} GiB of the card's {total / GIB:.1f} for "
        f"vLLM, but only {free / GIB:.1f} GiB are free{later}. {advice} other programs that use the card (nvidia-smi "
        "lists them), or make the trainer smaller: --plan shows what it takes, and what each flag would save."
    )
