"""The loop: draw problems, generate, verify, compare, update, sync. `python -m grpo.train --algo dr_grpo`."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import transformers
from torch import Tensor

from grpo.advantages import ADVANTAGES
from grpo.batching import collate, optimizer_batches
from grpo.checkpoint import save_checkpoint, save_model
from grpo.config import Config, parse
from grpo.errors import UserError
from grpo.evaluate import evaluate
from grpo.logger import summary, whole_samples
from grpo.losses import AGGREGATIONS, TokenLoss, clipped_token_loss
from grpo.metrics import Metrics, Stopwatch, step_metrics, truncated
from grpo.parts import Parts, make_parts
from grpo.problems import draw
from grpo.records import Batch
from grpo.sync import SyncError


def train(config: Config, parts: Parts) -> None:
    """GRPO and its relatives, whole. P problems a step, G responses a problem; one optimizer batch has B of P * G."""
    policy, reference, engine, verifiers = parts.policy, parts.reference, parts.engine, parts.verifiers
    token_loss = partial(loss, config=config)
    synced(parts, parts.first_step - 1)
    if parts.first_step == 1 and parts.held_out:
        parts.logger.log({"step": 0} | held_out_metrics(config, parts, 0))

    for step in range(parts.first_step, config.steps + 1):
        watch, seed = Stopwatch(), step_seed(config, step)
        with watch("generate"):  # 1. G responses a problem, from the current weights
            problems = draw(parts.problems, config.problems_per_step, step, config.seed)
            groups = engine.generate(
                problems,
                config.responses_per_problem,
                temperature=config.temperature,
                max_tokens=config.max_response_tokens,
                seed=seed,
                on_response=verifiers.submit,
            )
        with watch("verify"):  # 2. verifiable rewards [P, G]; most were given while others were being generated
            rewards = verifiers(groups)
            total = rewards.total.masked_fill(truncated(groups), 0.0) if config.truncated == "zero" else rewards.total
        with watch("update"):
            advantages = ADVANTAGES[config.advantage](total)  # 3. is a response better than its group?
            batch = collate(groups, advantages, parts.tokenizer.pad_token_id, mask_truncated=config.truncated == "mask")
            if config.updates_per_step * config.epochs_per_step > 1:  # with one update, old is current: the ratio is 1
                batch = replace(batch, old_logprobs=policy.logprobs(batch))
            if reference is not None:
                batch = replace(batch, ref_logprobs=reference.logprobs(batch))
            aggregate = partial(AGGREGATIONS[config.aggregation], constant=config.loss_constant)
            updates = [  # 4. clipped updates
                policy.update(optimizer_batch, token_loss)
                for optimizer_batch in optimizer_batches(
                    batch, config.updates_per_step, config.epochs_per_step, aggregate, seed
                )
            ]
        with watch("sync"):  # 5. the next responses come from the new weights, and that is proved
            gap = synced(parts, step)

        row = step_metrics(step, groups, rewards, total, updates, watch) | {"policy/sync_gap": gap}
        row |= held_out_metrics(config, parts, step)
        parts.logger.log(row, whole_samples(step, groups, rewards, total, advantages, config.log_samples))
        if config.save_every and step % config.save_every == 0:
            save_checkpoint(config.run_folder, step, policy, parts.tokenizer)


def loss(part: Batch, logprobs: Tensor, config: Config) -> TokenLoss:
    """Per-token loss [B, T] of the configured algorithm."""
    return clipped_token_loss(
        logprobs,
        part.old_logprobs,
        part.advantages,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        sampler_logprobs=part.sampler_logprobs,
        importance_cap=config.importance_cap or None,
        ref_logprobs=part.ref_logprobs,
        kl_coef=config.kl_coef,
        kl_estimator=config.kl_estimator,
    )


def synced(parts: Parts, step: int) -> float:
    """Hand the policy's weights to the engine and prove it; the gap that was measured. Raises: SyncError."""
    parts.engine.sync(parts.policy)
    return parts.probe.check(parts.engine, parts.policy, step)


def held_out_metrics(config: Config, parts: Parts, step: int) -> Metrics:
    """The evaluation, where one is due: before the first step, after the last, and every --eval-every steps."""
    due = step in (0, config.steps) or (config.eval_every and step % config.eval_every == 0)
    if not (due and parts.held_out):
        return {}
    return evaluate(
        parts.engine,
        parts.verifiers,
        parts.held_out,
        temperature=config.eval_temperature,
        max_tokens=config.max_response_tokens,
        seed=config.seed,
    )


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
