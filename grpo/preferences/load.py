"""`--data` -> comparisons: saved rollouts of a run, whose verifiers said what is better, or rows of preferences.

A response that was cut at the token limit scores at most 0, as in training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from grpo.errors import UserError
from grpo.logs.rollouts import Recording, load_rollouts
from grpo.outcomes import truncated
from grpo.preference_flags import rollout_files
from grpo.problems.preferences import Comparison, Read, kept, read_rows, some
from grpo.problems.rows import raw_rows

LOOKED_AT = 20
"""Rollouts of a source whose ids are decoded, to see whether they are of the model's tokenizer."""


def load_comparisons(
    data: Sequence[str], tokenizer: PreTrainedTokenizerBase | None = None, data_dir: Path | None = None
) -> Read:
    """The comparisons of all sources together.

    tokenizer: whose ids those of saved rollouts have to be; None where only their text counts.
    Raises: UserError for a source without any, and for rollouts of another family of models.
    """
    found, dropped = [], Counter()
    for spec in data:
        files = rollout_files(spec)
        if files is None:
            read = read_rows(raw_rows(spec, "train", data_dir=data_dir), spec)
        else:
            recordings = [load_rollouts(path) for path in files]
            if tokenizer is not None:
                check_family(recordings[0], tokenizer, spec)
            read = some(kept(c for recording in recordings for c in of_recording(recording)), spec)
        found += read.comparisons
        dropped += read.dropped
    return Read(found, dropped)


def of_recording(recording: Recording) -> list[Comparison]:
    """A comparison for each group."""
    cut = truncated(recording.groups)
    total = recording.total.where(~cut, recording.total.clamp(max=0.0)).tolist()
    return [
        Comparison(group.problem.prompt, tuple(rollout.text for rollout in group.rollouts), tuple(scores), group)
        for group, scores in zip(recording.groups, total, strict=True)
    ]


def check_family(recording: Recording, tokenizer: PreTrainedTokenizerBase, spec: str) -> None:
    """Raises: UserError where most texts are not what the tokenizer makes of their ids."""
    rollouts = [rollout for group in recording.groups for rollout in group.rollouts][:LOOKED_AT]
    same = [tokenizer.decode(rollout.tokens, skip_special_tokens=True) == rollout.text for rollout in rollouts]
    if 2 * sum(same) < len(same):
        raise UserError(
            f"--data {spec} holds token ids of another family of models: decoded by this model's tokenizer, "
            f"{len(same) - sum(same)} of {len(same)} responses are not the text beside them. The run began from "
            f"{recording.settings['model'] or 'the embedded model'}: give that, or a model trained from it, by --model."
        )
