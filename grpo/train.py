"""The loop: draw problems, generate, verify, compare, update, sync. `python -m grpo.train --algo dr_grpo`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import transformers
from torch import Tensor

from grpo.algorithm.advantages import Advantage
from grpo.algorithm.dynamic_sampling import Scored, refill
from grpo.algorithm.kl import KLCoefficient, response_kl
from grpo.algorithm.losses import Bounds, TokenLoss, policy_token_loss
from grpo.config import Config, parse
from grpo.engines.sync import SyncError
from grpo.errors import UserError
from grpo.evaluation.measures import training_metrics
from grpo.evaluation.responses import evaluate
from grpo.evaluation.results import write_results
from grpo.logs.logger import summary, whole_samples
from grpo.logs.metrics import Metrics, Stopwatch, correct, lengths, step_metrics, truncated
from grpo.logs.rollouts import SETTINGS, Recording, save_rollouts
from grpo.model.batching import collate, optimizer_batches
from grpo.model.checkpoint import save_checkpoint, save_model
from grpo.model.policy import LossTerm
from grpo.problems.draw import draw
from grpo.records import Batch, Group, Rewards
from grpo.setup import Parts, make_parts


def train(config: Config, parts: Parts) -> None:
    """GRPO and its relatives, whole. P problems a step, G responses a problem; one optimizer batch has B of P * G."""
    policy, reference, kl_coef = parts.policy, parts.reference, parts.kl_coef
    token_loss = partial(loss, config=config, kl_coef=kl_coef, loss_term=parts.loss_term)
    synced(parts, parts.first_step - 1)
    if parts.first_step == 1 and parts.held_out:
        parts.logger.log({"step": 0} | held_out_metrics(config, parts, 0))

    for step in range(parts.first_step, config.steps + 1):
        watch, refills = Stopwatch(), 0
        scored = generate_and_verify(config, parts, watch, step)  # 1. G responses a problem  2. rewards [P, G]
        if config.dynamic_sampling:
            again = partial(generate_and_verify, config, parts, watch, step)
            scored, refills = refill(scored, again, config.dynamic_sampling)
        groups, rewards, total = scored
        record(config, parts, step, groups, rewards)

        with watch("update"):
            batch = collate(groups, parts.tokenizer.pad_token_id, mask_truncated=config.truncated == "mask")
            if config.off_policy or config.kl_in == "reward":  # else the ratio's denominator is the value itself
                batch = replace(batch, old_logprobs=policy.logprobs(batch))
            if reference is not None:
                batch = replace(batch, ref_logprobs=reference.logprobs(batch))
            batch, total = compare(batch, total, config, parts.advantage, kl_coef)  # 3. better than its group? [P, G]
            aggregate = partial(parts.aggregation, constant=config.loss_constant)
            cut = optimizer_batches(
                batch, config.updates_per_step, config.epochs_per_step, aggregate, step_seed(config, step)
            )
            updates = [policy.update(optimizer_batch, token_loss) for optimizer_batch in cut]  # 4. clipped updates
        with watch("sync"):  # 5. the next responses come from the new weights, and that is proved
            gap = synced(parts, step)

        row = step_metrics(step, groups, rewards, total, updates, watch)
        row |= {"policy/sync_gap": gap, "policy/kl_coef": kl_coef.value, "group/refills": refills}
        kl_coef.update(row["policy/kl"] or 0.0)
        row |= held_out_metrics(config, parts, step)
        parts.logger.log(
            row, whole_samples(step, groups, rewards, total, batch.advantages.view_as(total), config.log_samples)
        )
        if config.save_every and step % config.save_every == 0:
            save_checkpoint(config.run_folder, step, policy, parts.tokenizer, kl_coef)


def generate_and_verify(config: Config, parts: Parts, watch: Stopwatch, step: int, attempt: int = 0) -> Scored:
    """P groups of G responses from the current weights, and their rewards [P, G].

    Verifiers get each response as it is finished, while others are still being generated.
    """
    seed = f"{config.seed}/{attempt}" if attempt else config.seed
    with watch("generate"):
        groups = parts.engine.generate(
            draw(parts.problems, config.problems_per_step, step, seed),
            config.responses_per_problem,
            temperature=config.temperature,
            max_tokens=config.max_response_tokens,
            seed=step_seed(config, step) + 500_000_003 * attempt,
            on_response=parts.verifiers.submit,
        )
    watch.tokens += lengths(groups).sum().item()
    with watch("verify"):
        rewards = parts.verifiers(groups)
    return groups, rewards, credited(rewards.total, groups, config)


def credited(total: Tensor, groups: Sequence[Group], config: Config) -> Tensor:
    """[P, G]: the verifiers' total, with 0 for truncated responses where `--truncated zero` says so."""
    return total.masked_fill(truncated(groups), 0.0) if config.truncated == "zero" else total


def record(config: Config, parts: Parts, step: int, groups: list[Group], rewards: Rewards) -> None:
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
                old_logprobs=parts.policy.logprobs(batch)[batch.mask],
                settings=settings | ({"model": None} if config.embedded else {}),
            ),
        )


def compare(
    batch: Batch, total: Tensor, config: Config, advantage: Advantage, kl_coef: KLCoefficient
) -> tuple[Batch, Tensor]:
    """How much better is a response than its group? The batch with advantages, and the rewards [P, G] they compare.

    These are `total`, less the KL of the response where `--kl-in reward` puts it there.
    """
    if config.kl_in == "reward":
        kl = response_kl(batch.old_logprobs, batch.ref_logprobs, batch.mask)
        total = total - kl_coef.value * kl.reshape(total.shape)
    return replace(batch, advantages=advantage(total).flatten().float()), total


def loss(
    part: Batch,
    logprobs: Tensor,
    entropy: Tensor,
    config: Config,
    kl_coef: KLCoefficient,
    loss_term: LossTerm | None = None,
) -> TokenLoss:
    """Per-token loss [B, T] of the configured algorithm, and the user's own term on top."""
    token = policy_token_loss(
        logprobs,
        part.old_logprobs,
        part.advantages,
        part.mask,
        Bounds(config.clip_low, config.clip_high, config.ratio_cap),
        ratio=config.ratio,
        surrogate=config.surrogate,
        sampler_logprobs=part.sampler_logprobs,
        importance_cap=config.importance_cap or None,
        ref_logprobs=part.ref_logprobs,
        kl_coef=kl_coef.value if config.kl_in == "loss" else 0.0,
        kl_estimator=config.kl_estimator,
        entropy=entropy,
        entropy_coef=config.entropy_coef,
    )
    return token if loss_term is None else replace(token, loss=token.loss + loss_term(logprobs, part))


def synced(parts: Parts, step: int) -> float:
    """Hand the policy's weights to the engine and prove it; the gap that was measured. Raises: SyncError."""
    parts.engine.sync(parts.policy)
    return parts.probe.check(parts.engine, parts.policy, step)


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


def step_seed(config: Config, step: int) -> int:
    """A seed for the step's sampling and shuffles, a pure function of seed and step: a resumed run draws the same."""
    return config.seed * 1_000_003 + step


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
