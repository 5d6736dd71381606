"""Is there a file of rollouts? rollouts.py reads it, with torch."""

from __future__ import annotations

from pathlib import Path

from grpo.errors import UserError


def check_rollout_file(path: Path) -> None:
    """Raises: UserError where there is no such file."""
    if not path.is_file():
        raise UserError(
            f"There is no rollout file {path}. A run writes one a step with --save-rollouts: "
            "runs/NAME/rollouts/step-000001.pt."
        )
