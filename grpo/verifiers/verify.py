"""rewards/*.py over the responses of a step, in worker processes, under limits. P problems a step, G responses each.

    with Verifiers(["math_answer", "think_format=0.1"], workers=2, time_limit=5.0, memory_limit=1024) as verifiers:
        verifiers.submit(problem, rollout)      # as the engine finishes each response; optional, returns at once
        rewards = verifiers(groups)             # Rewards: total [P, G], and [P, G] by verifier

A response can be anything, and so can what a verifier does with it. Whatever a call does -- hang, exhaust memory, crash
the interpreter, raise -- costs at most the time limit, scores 0, is counted and is said once. What would be a mistake
of the verifier itself, a wrong return or failing on most of a step, ends the run with an explanation instead.

To try verifiers without a model: `python -m grpo.verifiers --help`.
"""

from __future__ import annotations

import math
import pickle
import threading
import weakref
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial

from grpo.errors import UserError
from grpo.logs.metric_names import METRICS
from grpo.records import Group, Problem, Rewards, Rollout
from grpo.verifiers.failures import Failures
from grpo.verifiers.pool import Call, Outcome, Pool
from grpo.verifiers.spec import Verifier, load_verifier, missing_column


def check_specs(specs: Sequence[str], columns: Collection[str]) -> None:
    """Check `--reward` arguments against the columns of the data, before anything heavy is loaded.

    Raises: UserError where a verifier cannot be loaded, has no finite weight, shares its name with another or with a
    metric, or requires a parameter that is neither given by the response nor a column.
    """
    for verifier in load_all(specs):
        if missing := verifier.missing(columns):
            raise UserError(missing_column(verifier, missing, columns))


def columns_read(specs: Sequence[str]) -> set[str] | None:
    """The columns of the data that verifiers may read; None for all, where one takes `**kwargs`."""
    verifiers = load_all(specs)
    return None if any(v.any_column for v in verifiers) else {name for v in verifiers for name in v.parameters}


def load_all(specs: Sequence[str]) -> list[Verifier]:
    """The verifiers of a run, whose names differ. Raises: UserError."""
    if not specs:
        raise UserError("no verifier is given. Name at least one, as in --reward math_answer.")
    verifiers = [load_verifier(spec) for spec in specs]
    for verifier in verifiers:
        if verifier.not_ready is not None and (why := verifier.not_ready()):
            raise UserError(f"verifier '{verifier.spec}' cannot work here: {why}")
        if f"reward/{verifier.name}" in METRICS:
            raise UserError(
                f"'{verifier.spec}' would be logged as reward/{verifier.name}, which is a metric of its own. Rename "
                "the file, or name another function of it than the default one."
            )
    for name, count in Counter(verifier.name for verifier in verifiers).items():
        if count > 1:
            same = " and ".join(f"'{verifier.spec}'" for verifier in verifiers if verifier.name == name)
            raise UserError(
                f"{same} would both be logged as '{name}'. Leave one out, or rename the file or the function of one."
            )
    return verifiers


class Verifiers:
    """The verifiers of a run and their worker processes. Close it, or use it in a `with` statement.

    Args:
        specs: verifiers as on the command line, weights included.
        workers: processes that verify at the same time. One more is kept ready, to step in for one that is killed, and
            each batch verifier has one of its own, since it gets a whole step's responses in one call.
        time_limit: seconds of wall clock for one response, of verifiers whose file names no TIME_LIMIT; a call of a
            batch verifier has as many times that as it gets responses.
        memory_limit: MiB of address space for one call, above what the worker uses after its imports; 0 for no limit.
        max_failure_share: share of a step's responses on which a verifier may fail before the run stops.
        correct_at: the reward of the first verifier from which on a response is correct.

    Raises: UserError as `check_specs` does, and for a number out of its range.
    """

    def __init__(
        self,
        specs: Sequence[str],
        *,
        workers: int = 2,
        time_limit: float = 5.0,
        memory_limit: int = 1024,
        max_failure_share: float = 0.5,
        correct_at: float = 1.0,
    ) -> None:
        if workers < 1 or time_limit <= 0 or memory_limit < 0 or not 0 <= max_failure_share <= 1:
            raise UserError(
                f"workers={workers}, time_limit={time_limit}, memory_limit={memory_limit}, max_failure_share="
                f"{max_failure_share}: verifiers need at least one worker, a positive time limit, a memory limit of at "
                "least 0 (0 is none) and a share between 0 and 1."
            )
        self.correct_at = correct_at
        self._verifiers = load_all(specs)
        self.at = (1, 1)
        """The step and the steps of the run, which a verifier may ask for; outside of a run it is at its end."""
        own = {verifier.name: verifier.time_limit for verifier in self._verifiers if verifier.time_limit}
        limits = dict(time_limit=time_limit, memory_limit=memory_limit)
        self._failures = Failures(max_failure_share, **limits, time_limits=own)
        self._singles = [verifier for verifier in self._verifiers if verifier.kind == "single"]
        self._changed = threading.Condition()
        pool = partial(Pool, changed=self._changed, time_limit=time_limit, memory_limit=memory_limit)
        self._pools = {v.name: pool([v], workers=1, spares=0) for v in self._verifiers if v.kind != "single"}
        if self._singles:
            shared = pool(self._singles, workers=workers, spares=1)
            self._pools |= dict.fromkeys((verifier.name for verifier in self._singles), shared)
        self._finalizer = weakref.finalize(self, _close, list(self._pools.values()))
        self._submitted: dict[tuple[int, int], tuple[Problem, Rollout, list[Call]]] = {}
        self._known: dict[bytes, Call] = {}

    def submit(self, problem: Problem, rollout: Rollout) -> None:
        """Start verifying a finished response, while others are still being generated. Returns at once.

        Batch verifiers see the response at the end of the step, with all others.
        """
        self._calls(problem, rollout)

    def __call__(self, groups: Sequence[Group]) -> Rewards:
        """The rewards of P groups of G responses each. Responses that were not submitted are submitted now.

        Raises: UserError where a verifier returned something that is no reward, or failed on too many responses.
        """
        outcomes = self.outcomes(groups)
        sizes = {len(group.rollouts) for group in groups}
        if len(sizes) > 1:
            raise ValueError(f"groups must have the same number of responses, but have {sorted(sizes)}")
        import torch  # here, so that verifiers are checked and tried without it

        shape = (len(groups), sizes.pop() if sizes else 0)
        by_verifier = {
            name: torch.tensor([math.nan if o.reward is None else o.reward for o in row]).reshape(shape)
            for name, row in outcomes.items()
        }
        total = torch.zeros(shape)
        for verifier in self._verifiers:
            total += verifier.weight * by_verifier[verifier.name].nan_to_num(nan=0.0)
        errors = {name: sum(o.failure == "error" for o in row) for name, row in outcomes.items()}
        timeouts = {name: sum(o.failure == "timeout" for o in row) for name, row in outcomes.items()}
        return Rewards(total, by_verifier, errors, timeouts, self.correct_at)

    def outcomes(self, groups: Sequence[Group]) -> dict[str, list[Outcome]]:
        """Verifier name -> the outcome of each of the P * G responses, in order; what `__call__` makes rewards of."""
        pairs = [(group.problem, rollout) for group in groups for rollout in group.rollouts]
        try:
            singles = [self._calls(problem, rollout) for problem, rollout in pairs]
            calls = {v.name: [row[i] for row in singles] for i, v in enumerate(self._singles)}
            for verifier in self._verifiers:
                if verifier.kind != "single" and pairs:
                    calls[verifier.name] = [self._batch_call(verifier, pairs)] * len(pairs)
            self._wait(calls, len(pairs))
            outcomes = {v.name: _each(calls.get(v.name, [])) for v in self._verifiers}
            for name, row in outcomes.items():
                self._failures.report(name, row, [rollout.text for _, rollout in pairs])
            return outcomes
        finally:
            self._forget()

    @property
    def weights(self) -> dict[str, float]:
        """Verifier name -> its weight in the total."""
        return {verifier.name: verifier.weight for verifier in self._verifiers}

    def final_answer(self, response: str) -> str | None:
        """What a response answers, as text, by the function `final_answer` of the first verifier's file.

        None where the response has no answer, or the file no such function. Unlike a verifier it runs in this process.
        Raises: UserError where it raises, or returns something else.
        """
        return self._verifiers[0].answer_of(response)

    def close(self) -> None:
        """End all worker processes. What is not verified by now never will be."""
        self._finalizer()

    def __enter__(self) -> Verifiers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _calls(self, problem: Problem, rollout: Rollout) -> list[Call]:
        key = (id(problem), id(rollout))
        if key not in self._submitted:
            calls = [
                self._put(verifier, (index, 1, verifier.arguments(problem, rollout, self.at)))
                for index, verifier in enumerate(self._singles)
            ]
            self._submitted[key] = (problem, rollout, calls)  # holding both, so that their ids stay theirs
        return self._submitted[key][2]

    def _batch_call(self, verifier: Verifier, pairs: Sequence[tuple[Problem, Rollout]]) -> Call:
        rows = [verifier.arguments(problem, rollout, self.at) for problem, rollout in pairs]
        names = dict.fromkeys(name for row in rows for name in row)
        for name in names:
            if any(name not in row for row in rows):
                raise UserError(f"verifier '{verifier.spec}': only some rows of the data have a column '{name}'.")
        return self._put(verifier, (0, len(rows), {name: [row[name] for row in rows] for name in names}))

    def _put(self, verifier: Verifier, message: tuple) -> Call:
        # The pickled arguments are the cache key: equal responses of a group are verified once, whatever their types.
        try:
            payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # a column may hold anything, and refuse in any way
            raise UserError(
                f"verifier '{verifier.spec}' cannot be given its arguments, {', '.join(message[2])}: a value does not "
                f"pickle ({type(error).__name__}: {error}). Keep plain values in the columns that verifiers ask for."
            ) from error
        pool = self._pools[verifier.name]
        key = payload if verifier.kind == "single" else verifier.name.encode() + payload
        if key not in self._known:
            self._known[key] = call = Call(verifier.name, payload, responses=message[1])
            pool.put(call)
        return self._known[key]

    def _wait(self, calls: dict[str, list[Call]], responses: int) -> None:
        def settled() -> bool:
            if any(pool.fatal for pool in self._pools.values()):
                return True
            done = [[call.outcome for call in row] for row in calls.values()]
            # No need to wait, one time limit after the other, for the rest of a step that is lost already.
            hopeless = any(self._failures.too_many(sum(bool(o and o.failure) for o in row), responses) for row in done)
            return hopeless or all(o is not None for row in done for o in row)

        for pool in self._pools.values():
            pool.awaited.set()
        try:
            with self._changed:
                self._changed.wait_for(settled)
        finally:
            for pool in self._pools.values():
                pool.awaited.clear()
        for pool in self._pools.values():
            if pool.fatal:
                raise pool.fatal

    def _forget(self) -> None:
        for call in self._known.values():
            if call.outcome is None:  # submitted for nothing, or the step is lost: no worker need begin it
                call.outcome = Outcome()
        self._submitted.clear()
        self._known.clear()


def _each(calls: Sequence[Call]) -> list[Outcome]:
    outcomes = [call.outcome or Outcome() for call in calls]
    return [_one_of(o, o.reward[i]) if isinstance(o.reward, list) else o for i, o in enumerate(outcomes)]


def _one_of(batch: Outcome, said: float | dict[str, str] | None) -> Outcome:
    """One response of a batch verifier's call: its reward, or the error that stands in its place."""
    if isinstance(said, dict):
        return replace(batch, reward=0.0, failure="error", message=said["error"])
    return replace(batch, reward=said)


def _close(pools: Sequence[Pool]) -> None:
    for pool in pools:
        pool.close()
