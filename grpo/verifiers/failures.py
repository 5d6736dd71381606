"""What becomes of failed calls: each message is said once, and too many failures in a step end the run.

    failures = Failures(0.5, time_limit=5.0, memory_limit=1024)
    failures.report("mine", outcomes, texts)        logs, or raises

A failed call scores 0, so that a step of little else would teach nothing.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from grpo.errors import UserError
from grpo.verifiers.pool import Outcome

MESSAGES_SHOWN = 20
"""Distinct failure messages that a verifier may log in a run."""

PRINTS_SHOWN = 3
"""Distinct texts of what a verifier has printed that are shown in a run."""

logger = logging.getLogger("grpo.verifiers")


class Failures:
    """The failures of a run.

    Args:
        max_share: share of a step's responses on which a verifier may fail before the run stops.
        time_limit, memory_limit: seconds and MiB that a call may take, for the message; time_limits: those of
            verifiers that have one of their own, by name.
    """

    def __init__(
        self,
        max_share: float,
        *,
        time_limit: float,
        memory_limit: int,
        time_limits: Mapping[str, float] | None = None,
    ) -> None:
        self._max_share, self._time_limit, self._memory_limit = max_share, time_limit, memory_limit
        self._time_limits = time_limits or {}
        self._printed: defaultdict[str, set[str]] = defaultdict(set)
        self._shown: defaultdict[str, set[str]] = defaultdict(set)

    def too_many(self, failed: int, responses: int) -> bool:
        """Whether the rewards of a step mean nothing any more."""
        return failed > self._max_share * responses

    def report(self, name: str, outcomes: Sequence[Outcome], texts: Sequence[str]) -> None:
        """Say what a verifier has failed on in a step: new messages only. Raises: UserError where it is too much.

        outcomes, texts: of all responses of the step, the text being that of the response.
        """
        self._show_printed(name, outcomes)
        failed = [(outcome, text) for outcome, text in zip(outcomes, texts, strict=True) if outcome.failure]
        for outcome, text in failed:
            shown = self._shown[name]
            if outcome.message not in shown and len(shown) < MESSAGES_SHOWN:
                shown.add(outcome.message)
                last = " Further messages of this verifier are not shown." if len(shown) == MESSAGES_SHOWN else ""
                logger.warning(
                    "verifier '%s' failed: %s. Scored 0; the response begins %.80r.%s",
                    name,
                    outcome.message,
                    text[:80],
                    last,
                )
        if self.too_many(len(failed), len(outcomes)):
            self._stop(name, [outcome for outcome, _ in failed], len(outcomes))

    def _show_printed(self, name: str, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            shown = self._printed[name]
            if len(shown) >= PRINTS_SHOWN:
                return
            if outcome.printed and outcome.printed not in shown:
                shown.add(outcome.printed)
                last = " What it prints further is not shown." if len(shown) == PRINTS_SHOWN else ""
                logger.warning("verifier '%s' printed: %s%s", name, outcome.printed.rstrip(), last)

    def _stop(self, name: str, failed: Sequence[Outcome], responses: int) -> None:
        limit = self._time_limits.get(name, self._time_limit)
        [(message, _)] = Counter(outcome.message for outcome in failed).most_common(1)
        timeouts = sum(outcome.failure == "timeout" for outcome in failed)
        raise UserError(
            f"verifier '{name}' failed on at least {len(failed)} of {responses} responses of this step "
            f"({len(failed) / responses:.0%}: {len(failed) - timeouts} errors, {timeouts} time-outs), and at most "
            f"{self._max_share:.0%} may fail before the rewards mean nothing. Most often: {message}. Mend the "
            f"verifier, trying it with `python -m grpo.verifiers`, or raise its limits, now {limit:g} s and "
            f"{self._memory_limit} MiB a call, or the share that may fail."
        )
