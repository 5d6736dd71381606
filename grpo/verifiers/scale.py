"""Verifiers whose rewards have no full marks, such as a learned reward: what has to be said of a run with one."""

from __future__ import annotations

from collections.abc import Sequence

from grpo import plugins


def unbounded(spec: str) -> bool:
    """Whether its file says `UNBOUNDED = True`: its rewards may be any number, below 0 and above 1."""
    place, _ = plugins.split_weight(spec)
    return plugins.attribute(place.removeprefix("trl:"), "rewards", "UNBOUNDED", False) is True


def scale_words(specs: Sequence[str], truncated: str, correct_at: float) -> list[str]:
    """What the start of a run says. truncated: the row's cell.

    >>> scale_words(["math_answer"], "zero", 1.0)
    []
    """
    words = []
    if unbounded(specs[0]):
        words.append(
            f"{specs[0]} says what is correct, and knows no full marks: correct is a reward of {correct_at:g} or more. "
            "Put a verifier of the truth before it, with weight 0: --reward math_answer=0 reward_model"
        )
    weighed = [spec for spec in specs if unbounded(spec) and plugins.split_weight(spec)[1]]
    if weighed and truncated == "zero":
        words.append(
            f"warning: --truncated zero gives a response that is cut off at most 0, which may be more than "
            f"{weighed[0]} gives a finished one. Use --truncated keep"
        )
    return words
