"""The loop: generate, verify, credit, update, sync. `python -m grpo.train --algo dr_grpo`."""

from __future__ import annotations

import sys
from dataclasses import replace

import transformers

from grpo.algorithm.credit import credit
from grpo.algorithm.dynamic_sampling import Scored, dropped, enough, score, select
from grpo.algorithm.objective import Objective
from grpo.config import Config
from grpo.engines.sync import SyncError
from grpo.errors import UserError
from grpo.evaluation.measures import training_metrics
from grpo.evaluation.responses import evaluate
from grpo.evaluation.results import write_results
from grpo.logs.logger import summary, whole_samples
from grpo.logs.metrics import Metrics, Stopwatch, step_metrics
from grpo.logs.rollouts import SETTINGS, Recording, save_rollouts
from grpo.model.batching import collate, optimizer_batches
from grpo.model.checkpoint import save_checkpoint, save_model
from grpo.outcomes import correct
from grpo.problems.draw import draw, draw_anew
from grpo.records import Batch, Group, Problem, Rewards
from grpo.resolve import parse
from grpo.setup import Parts, make_parts


def train(config: Config, parts: Parts) -> None:
    """GRPO and its relatives, whole. P problems a step, G responses a problem, B = P * G sequences, T tokens."""
    engine, verifiers, policy, probe = parts.engine, parts.verifiers, parts.policy, parts.probe
    pad_id = parts.tokenizer.pad_token_id
    engine.sync(policy)
    probe.check(engine, policy, parts.first_step - 1)
    if parts.first_step == 1 and parts.held_out:
        parts.logger.log({"step": 0} | held_out_metrics(config, parts, 0))

    for step in range(parts.first_step, config.steps + 1):
        watch, pool = Stopwatch(), []
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
            watch.count(groups)
            pool.append(score(groups, rewards, row))
            if enough(pool, config.problems_per_step):
                break
        groups, rewards, total, informative = select(pool, config.problems_per_step)
        save_step(config, parts, step, groups, rewards)

        with watch("update"):
            # Groups -> a batch of B rows, shifted once.              prompt ab, response cd -> inputs abc, targets bcd
            left_out = dropped(informative, row)
            batch = collate(groups, pad_id, mask_truncated=row.truncated == "mask", dropped=left_out)
            batch = with_logprobs(batch, config, parts)
            # 3. Credit: better than its group? [P, G] -> [B, T].     [1, 0] -> [. .5 .5], [. -.5 .]
            credited = credit(batch, groups, total, parts.advantage, row, rewards.by_verifier)
            batch = replace(batch, advantages=credited.of_tokens)
            # 4. Update: clipped. [B, T] -> one number each.          1,024 responses -> 8 optimizer batches of 128
            objective, times = Objective(row, parts.loss_term), (config.updates_per_step, config.epochs_per_step)
            updates = [
                policy.update(optimizer_batch, objective)
                for optimizer_batch in optimizer_batches(batch, *times, parts.aggregation, step_seed(config, step))
            ]
        # 5. Sync: the next responses come from the new weights, and that is proved.
        with watch("sync"):
            engine.sync(policy)
            gap = probe.check(engine, policy, step)

        metrics = step_metrics(step, groups, rewards, credited.rewards, updates, watch)
        metrics |= {"policy/sync_gap": gap, "policy/kl_coef": row.kl_coef, "policy/old_kl_coef": row.old_kl_coef}
        metrics |= {"group/refills": len(pool) - 1, "group/dropped": left_out.float().mean().item()}
        parts.kl_coef.update(metrics["policy/kl"], len(batch))
        parts.old_kl_coef.update(metrics["policy/old_kl"])
        metrics |= held_out_metrics(config, parts, step)
        parts.logger.log(metrics, whole_samples(step, groups, rewards, credited, config.log_samples))
        if config.save_every and step % config.save_every == 0:
            save_checkpoint(config.run_folder, step, policy, parts.tokenizer, parts.kl_coef, parts.old_kl_coef)


def draw_problems(config: Config, parts: Parts, step: int, attempt: int, pool: list[Scored]) -> list[Problem]:
    """The problems of a step; at a further attempt others, none of which the step has asked."""
    if not attempt:
        return draw(parts.problems, config.problems_per_step, step, config.seed)
    asked = [group.problem for scored in pool for group in scored.groups]
    return draw_anew(parts.problems, config.problems_per_step, step, attempt, config.seed, asked)


def with_logprobs(batch: Batch, config: Config, parts: Parts) -> Batch:
    """The batch with the log-probabilities of the policy that sampled, and of the reference, where they are needed."""
    if config.off_policy or config.kl_in == "reward":  # else the ratio's denominator is the value itself
        batch = replace(batch, old_logprobs=parts.policy.logprobs(batch))
    if parts.reference is not None:
        batch = replace(batch, ref_logprobs=parts.reference.logprobs(batch))
    return batch


def step_seed(config: Config, step: int, attempt: int = 0) -> int:
    """A seed for the step's sampling and shuffles, a pure function of seed, step and attempt: a resumed run draws the
    same."""
    return config.seed * 1_000_003 + step + 500_000_003 * attempt


def save_step(config: Config, parts: Parts, step: int, groups: list[Group], rewards: Rewards) -> None:
    """With --save-rollouts: the step's rollouts as a file, before the policy that sampled them is updated."""
    if config.save_rollouts:
        batch = collate(groups, parts.tokenizer.pad_token_id)  # nothing masked, whatever --truncated says
        settings = {name: getattr(config, name) for name in SETTINGS}
        save_rollouts(
            config.run_folder / "rollouts" / f"step-{step:06d}.pt",
            Recording(
                groups,
                rewards.total,
                correct(rewards),
                by_verifier=rewards.by_verifier,
                old_logprobs=parts.policy.logprobs(batch)[batch.mask],
                settings=settings | ({"model": None} if config.embedded else {}),
            ),
        )


def held_out_metrics(config: Config, parts: Parts, step: int) -> Metrics:
    """The evaluation, where one is due: before the first step, after the last, and every --eval-every steps."""
    due = step in (0, config.steps) or (config.eval_every and step % config.eval_every == 0)
    if not (due and parts.held_out):
        return {}
    results = evaluate(
        parts.engine,
        parts.verifiers,
        parts.held_out,
        config.eval_responses,
        temperature=config.eval_temperature,
        max_tokens=config.max_response_tokens,
        seed=config.seed,
    )
    write_results(config.run_folder / "evaluations" / f"step-{step:06d}.jsonl", results)
    return training_metrics(results)


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit status: 0 done, 1 sync or gradient gone wrong, 2 bad input or verifier, 130 interrupted."""
    transformers.utils.logging.disable_progress_bar()  # ours is the only one
    try:
        config = parse(arguments)
        with make_parts(config) as parts:
            train(config, parts)
            save_model(config.run_folder / "model", parts.policy, parts.tokenizer)
            parts.logger.say(summary(config.run_folder))
    except (UserError, SyncError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        print("interrupted; what was logged and saved is whole", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
