"""The loop: generate, verify, credit, update, sync. `python -m grpo.train --algo dr_grpo`."""

from __future__ import annotations

import gc

from grpo.asked import check_command
from grpo.early import refuse_early
from grpo.unix import check_unix

if __name__ == "__main__":  # --help and refusals are there at once, before the imports below
    refuse_early(check_command, check_unix)
    gc.disable()  # a search for garbage among what is imported finds nothing, and takes a second

import errno
from dataclasses import replace
from functools import partial
from typing import Any

import transformers
from rich.console import Console

from grpo.algorithm.credit import credit
from grpo.algorithm.dynamic_sampling import Scored, dropped, enough, score, select
from grpo.algorithm.objective import Objective
from grpo.card import check_card, settled
from grpo.config import Config
from grpo.devices import torch_device
from grpo.errors import RunError, UserError
from grpo.evaluation.measures import training_metrics
from grpo.evaluation.responses import evaluate
from grpo.evaluation.results import write_results
from grpo.hub_push import push
from grpo.interrupts import Interrupted, interruptible
from grpo.kept_steps import save_skipped, save_step
from grpo.logs.logger import summary
from grpo.logs.metrics import Metrics, Stopwatch, of_ranks, step_metrics
from grpo.logs.samples import whole_samples
from grpo.logs.zero_rewards import zero_rewards
from grpo.model.batching import collate, optimizer_batches
from grpo.model.checkpoint import save_model, save_trained
from grpo.model.critic import update_with_critic
from grpo.model.rank_end import leave, said_once, speaks, tell
from grpo.model.ranks import OtherRankFailed, Ranks, meet
from grpo.out_of_memory import out_of_memory
from grpo.problems.draw import draw, draw_anew
from grpo.rank_flags import check_heads, check_ranks, same_config
from grpo.records import Batch, Problem
from grpo.resolve import parse
from grpo.setup import Parts, make_parts

MAX_SKIPPED = 3
"""Skipped updates in a row that end a run."""

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""A disk that is full, over quota, read-only or broken: said without a traceback."""


def train(config: Config, parts: Parts) -> None:
    """GRPO and its relatives, whole. P problems a step, G responses a problem, B = P * G sequences, T tokens."""
    engine, verifiers, policy, probe = parts.engine, parts.verifiers, parts.policy, parts.probe
    engine.sync(policy)
    probe.check(engine, policy, parts.first_step - 1)
    if parts.first_step == 1 and parts.held_out:
        parts.logger.log({"step": 0} | held_out_metrics(config, parts, 0))
    elif found := missing_evaluation(config, parts):
        parts.logger.amend(found)

    for step in range(parts.first_step, config.steps + 1):
        watch, pool, verifiers.at = Stopwatch(parts.ranks), [], (step, config.steps)
        # The algorithm, with its KL weights as they are in this step.
        row = replace(config.row, kl_coef=parts.kl_coef.value, old_kl_coef=parts.old_kl_coef.value)

        for attempt in range(1 + row.dynamic_sampling):  # once, unless the row draws anew for groups that teach nothing
            # 1. Generate: G responses to each of P problems.        "12+34=" -> "2+4=6, 1+3=4, \boxed{46}", ...
            problems = draw_problems(config, parts, step, attempt, pool)
            if not problems:  # the data has no more than the step has asked
                break
            with watch("generate"):
                groups = engine.generate(
                    problems,
                    config.responses_per_problem,
                    temperature=config.temperature,
                    max_tokens=config.max_response_tokens,
                    seed=step_seed(config, step, attempt),
                    on_response=verifiers.submit,  # verified while others are still being generated
                )
            # 2. Verify: rewards [P, G].                              "... \boxed{46}" -> 1.0, "... \boxed{45}" -> 0.0
            with watch("verify"):
                rewards = verifiers(groups)
            watch.count(groups, engine.passes)
            pool.append(score(groups, rewards, row))
            if enough(pool, config.problems_per_step):
                break
        groups, rewards, total, informative = select(pool, config.problems_per_step)
        with watch("generate"):
            engine.release()  # the device is the trainer's until the sync
        # Groups -> a batch of B rows, shifted once.                  prompt ab, response cd -> inputs abc, targets bcd
        left_out = dropped(informative, row)
        batch = collate(groups, mask_truncated=row.truncated == "mask", dropped=left_out)
        with watch("update"):
            batch = with_logprobs(batch, config, parts)
        if config.save_rollouts:
            save_step(config, parts, step, groups, rewards, batch)
        # 3. Credit: better than its group? [P, G] -> [B, T].         [1, 0] -> [. .5 .5], [. -.5 .]
        credited = credit(batch, groups, total, parts.advantage, row, rewards.by_verifier)
        batch = credited.on(batch)

        with parts.keeper.whole_step(step):  # the weights move: from here on a Ctrl-C waits for the end of the step
            # 4. Update: clipped. [B, T] -> one number each.          1,024 responses -> 8 optimizer batches of 128
            objective, times = Objective(row, parts.loss_term), (config.updates_per_step, config.epochs_per_step)
            cut = optimizer_batches(batch, *times, parts.aggregation, step_seed(config, step))
            with watch("update"):
                updates = [update(config, parts, step, at, part, objective) for at, part in enumerate(cut)]
            metrics = step_metrics(step, groups, rewards, credited.rewards, updates, watch.tokens, engine.held_bytes)
            metrics |= {"policy/kl_coef": row.kl_coef, "policy/old_kl_coef": row.old_kl_coef}
            metrics |= {"group/refills": len(pool) - 1, "group/dropped": left_out.float().mean().item()}
            parts.kl_coef.update(metrics["policy/kl"], len(batch))
            parts.old_kl_coef.update(metrics["policy/old_kl"])
            parts.lengths.note(groups)
            # 5. Sync: the next responses come from the new weights, and that is proved.
            with parts.logger.row(metrics, whole_samples(step, groups, rewards, credited, config.log_samples)):
                with watch("sync"):
                    engine.sync(policy)
                    metrics["policy/sync_gap"] = probe.check(engine, policy, step)
                metrics |= watch.metrics()
                metrics |= of_ranks(metrics, parts.ranks)
                with parts.ranks.signals_pass():
                    metrics |= held_out_metrics(config, parts, step)
            save_skipped(config, parts, step, groups, rewards, batch, updates)
            if step == 1 and (found := zero_rewards(groups, rewards, credited.rewards)):
                parts.logger.say(found)
            heed(parts, metrics)
            parts.keeper.save_if_due(step, metrics.get("eval/accuracy"))


def draw_problems(config: Config, parts: Parts, step: int, attempt: int, pool: list[Scored]) -> list[Problem]:
    """The problems of a step, longest first; at a further attempt others, none of which the step has asked."""
    asked = [group.problem for scored in pool for group in scored.groups]
    drawn = (
        draw_anew(parts.problems, config.problems_per_step, step, attempt, config.seed, asked)
        if attempt
        else draw(parts.problems, config.problems_per_step, step, config.seed)
    )
    return parts.lengths.longest_first(drawn)


def with_logprobs(batch: Batch, config: Config, parts: Parts) -> Batch:
    """The batch with what the policy that sampled, the reference and the critic say of it, where they are needed."""
    if config.needs_old_logprobs:
        batch = replace(batch, old_logprobs=parts.policy.logprobs(batch))
    if parts.reference is not None:
        batch = replace(batch, ref_logprobs=parts.reference.logprobs(batch))
    if parts.critic is not None:
        batch = replace(batch, old_values=parts.critic.values(batch))
    return batch


def update(config: Config, parts: Parts, step: int, at: int, batch: Batch, objective: Objective) -> dict[str, Any]:
    """Update `at`, from 0, of a step, in whose warm-up the critic is updated alone. Returns what was measured."""
    begin = parts.documents and partial(parts.documents.imitate, parts.policy, step, at)
    cells = {"clip": config.value_clip, "warming": step <= config.critic_warmup, "begin": begin}
    return update_with_critic(parts.policy, parts.critic, batch, objective, **cells)


def step_seed(config: Config, step: int, attempt: int = 0) -> int:
    """A seed for the step's sampling and shuffles, a pure function of seed, step and attempt: a resumed run draws the
    same."""
    return config.seed * 1_000_003 + step + 500_000_003 * attempt


def heed(parts: Parts, metrics: Metrics) -> None:
    """Say what the metrics warn of. Raises: RunError for a warning of --stop-on, and for 3 skipped updates in a row."""
    with parts.ranks.together():
        check_course(parts, metrics)


def check_course(parts: Parts, metrics: Metrics) -> None:
    for warning in parts.guards.look(metrics):
        parts.logger.say(f"warning: {warning.text} (--stop-on {warning.name} would end the run here)")
        if warning.stops:
            raise RunError(f"--stop-on {warning.name}: {warning.text}")
    if max(metrics["policy/skipped_in_a_row"], metrics.get("critic/skipped_in_a_row") or 0) >= MAX_SKIPPED:
        raise RunError(
            f"{MAX_SKIPPED} updates in a row had a NaN or infinite number in them and were skipped. Look at the last "
            "rows of metrics.jsonl for a loss, KL or gap that ran away. Most often --learning-rate is too high: begin "
            "a new run with a lower one, from a checkpoint of this one (--model)."
        )


def held_out_metrics(config: Config, parts: Parts, step: int) -> Metrics:
    """The evaluation, where one is due: before the first step, after the last, and every --eval-every steps."""
    due = step in (0, config.steps) or (config.eval_every and step % config.eval_every == 0)
    if not (due and parts.held_out):
        return {}
    found, parts.verifiers.at = {}, (step, config.steps)
    for name, problems in parts.held_out.items():
        found[name] = evaluate(
            parts.engine,
            parts.verifiers,
            problems,
            config.eval_responses,
            temperature=config.eval_temperature,
            max_tokens=config.max_response_tokens,
            seed=config.seed,
        )
        of_set = f"-{name}" if len(parts.held_out) > 1 else ""
        if parts.ranks.writes:
            write_results(config.run_folder / "evaluations" / f"step-{step:06d}{of_set}.jsonl", found[name])
    return training_metrics(found, parts.verifiers.weights)


def missing_evaluation(config: Config, parts: Parts) -> Metrics:
    """Of a resumed run: the evaluation after its last step, where one was due and the run ended before it."""
    last = parts.first_step - 1
    return {} if not last or last in parts.logger.accuracies else held_out_metrics(config, parts, last)


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit status: 0 done, 1 the run could not go on, 2 bad input or verifier, 128 + n ended by signal n.

    130 is Ctrl-C, 143 a scheduler's SIGTERM. Whatever ends it, the last whole step is saved.
    """
    transformers.utils.logging.disable_progress_bar()  # ours is the only one
    try:
        with interruptible(), out_of_memory("the run", "a smaller --model, or fewer --problems-per-step"):
            config, ranks = joined(arguments)
            with ranks.together():
                config, plan = settled(config, ranks.size, ranks.nodes)
            if plan and ranks.writes:
                plan.show(Console(soft_wrap=True, highlight=False))
            if config.planned:
                if ranks.writes:
                    print(plan.verdict)
                return 0 if plan.fits else 1
            if plan:
                with ranks.together():
                    check_card(plan)
            with make_parts(config, plan, ranks) as parts:
                with parts.keeper.rescuing(), ranks.signals_wait():
                    train(config, parts)
                    if config.lora is not None:
                        save_trained(config.run_folder / "adapter", parts.policy, parts.tokenizer)
                    save_model(config.run_folder / "model", parts.policy, parts.tokenizer, config.save_dtype)
                    if parts.critic is not None:
                        save_model(config.run_folder / "critic", parts.critic, parts.tokenizer, config.save_dtype)
                parts.logger.say(summary(config.run_folder))
            if config.push_to_hub:  # the run is done, and its folder closed
                with ranks.together():
                    if ranks.writes:
                        print(f"pushed   {push(config.run_folder / 'model', config.push_to_hub)}")
    except OtherRankFailed as error:
        say_end("", error)
        return 1
    except (UserError, RunError) as error:
        say_end(f"error: {error}", error)
        return 2 if isinstance(error, UserError) else 1
    except Interrupted as error:
        say_end(f"interrupted by {error}", error)
        return 128 + error.number
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        say_end(f"error: {error}. What was written before is whole.", error)
        return 1
    return 0


def joined(arguments: list[str] | None) -> tuple[Config, Ranks]:
    """The config, and this process's place among those that torchrun has started. Raises: UserError, on all of them,
    for flags that are wrong on one, that differ, or that several processes cannot work with."""
    refused: UserError | SystemExit | None = None
    try:
        with said_once():
            config = parse(arguments)
    except (UserError, SystemExit) as error:  # the others still have to be told
        refused = error
    wait = {} if refused else {"minutes": config.rank_minutes, "on_card": torch_device(config) == "cuda"}
    ranks = Ranks.join(**wait)
    with ranks.together():
        if refused:
            raise refused
    config = same_config(config, ranks)
    with ranks.together():
        check_ranks(config, ranks.size)
        check_heads(config)
    return config, ranks


def say_end(text: str, error: BaseException) -> None:
    """Why the run ended, and how it can go on."""
    if speaks(error):
        tell("\n".join([text, *getattr(error, "__notes__", [])]))
    meet(error)


if __name__ == "__main__":
    gc.freeze()  # what was imported is never looked through
    gc.enable()
    leave(main)
