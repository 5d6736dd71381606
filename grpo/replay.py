"""What each algorithm makes of the same rollouts: `python -m grpo.replay runs/NAME/rollouts/step-000001.pt`.

A run writes such files with `--save-rollouts`. Advantages, loss and gradient come from the functions that train, on the
whole batch as one update: the batch and the rewards are those of the run (its algorithm's penalties and dynamic
sampling included), everything else of an algorithm is its row of the table. The frozen reference is the run's starting
model. So is the model whose gradient is taken, unless --model names another, such as the checkpoint that sampled.

P problems a step, G responses a problem, B = P * G sequences, T token positions (already shifted).
"""

from __future__ import annotations

from grpo.early import refuse_early
from grpo.replay_flags import Options, asked, check_algorithms, check_command

if __name__ == "__main__":  # --help and refusals are there at once, before the imports below
    refuse_early(check_command)

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch import Tensor

from grpo.algorithm.choices import WITH_CRITIC
from grpo.algorithm.credit import credit, creditable
from grpo.algorithm.dynamic_sampling import dropped, informative
from grpo.algorithm.ingredients import load_advantage, load_aggregation
from grpo.algorithm.objective import Objective
from grpo.config import Config
from grpo.errors import UserError
from grpo.files import write_json
from grpo.logs.rollouts import Recording, load_rollouts
from grpo.model.batching import collate, optimizer_batches
from grpo.model.model_folder import check_weight_files
from grpo.model.policy import Policy, Reference
from grpo.model.pretrained import load_model
from grpo.outcomes import first_of, truncated
from grpo.policies import make_policy
from grpo.records import Batch
from grpo.resolve import resolve


@dataclass(frozen=True)
class Replayed:
    """What one algorithm makes of the batch."""

    figures: dict[str, float | None]
    gradient: list[Tensor]
    """Of the loss, on the CPU, in the order of the model's parameters; before the gradient clipping of a run."""


def replay(recording: Recording, config: Config, policy: Policy, reference: Reference | None) -> Replayed:
    """The batch under one algorithm, as one update that is not made; the policy is left as it was."""
    row = config.row
    cut = truncated(recording.groups)
    left_out = dropped(informative(first_rewards(recording), cut, row), row)
    batch = recorded_batch(recording, mask_truncated=row.truncated == "mask", dropped=left_out)
    if reference is not None:
        batch = replace(batch, ref_logprobs=reference.logprobs(batch))
    total = creditable(recording.total, cut, row)
    credited = credit(batch, recording.groups, total, load_advantage(row.advantage), row, recording.by_verifier)
    batch = replace(batch, advantages=credited.of_tokens)
    aggregate = load_aggregation(row.aggregation, config.loss_constant)
    (batch,) = optimizer_batches(batch, updates=1, epochs=1, aggregate=aggregate, seed=0)

    policy.train_entropy = row.entropy_coef > 0
    measured = policy.backward(batch, Objective(row))
    parameters = list(policy.model.parameters())
    gradient = [torch.zeros(p.shape) if p.grad is None else p.grad.cpu() for p in parameters]
    policy.model.zero_grad(set_to_none=True)
    pull = batch.advantages.abs() * batch.token_weights
    correct = recording.correct.flatten()[:, None]
    figures = {
        "loss": measured["loss"],
        "gradient norm": dot(gradient, gradient) ** 0.5,
        "|advantage|": credited.of_responses.abs().mean().item(),
        "tokens clipped, share": measured["clip_low"] + measured["clip_high"] + measured["clip_dual"],
        "importance weight cut, share": measured["importance_cut"],
        "|advantage| * weight, correct": mean(pull[batch.mask & correct]),
        "|advantage| * weight, incorrect": mean(pull[batch.mask & ~correct]),
    }
    return Replayed(figures, gradient)


def first_rewards(recording: Recording) -> Tensor:
    """[P, G] of the verifier that says what is correct; of earlier recordings, which lack it, 1 where it was."""
    return first_of(recording.by_verifier) if recording.by_verifier else recording.correct.float()


def recorded_batch(recording: Recording, *, mask_truncated: bool = False, dropped: Tensor | None = None) -> Batch:
    """The batch with the log-probabilities of the policy that sampled it."""
    response = collate(recording.groups).mask
    old = torch.zeros(response.shape).masked_scatter(response, recording.old_logprobs)
    batch = collate(recording.groups, mask_truncated=mask_truncated, dropped=dropped)
    return replace(batch, old_logprobs=old * batch.mask)


def cosines(replayed: dict[str, Replayed]) -> dict[str, dict[str, float | None]]:
    """Cosine of every two gradients; None where one of them is zero and has no direction."""
    norms = {name: one.figures["gradient norm"] for name, one in replayed.items()}

    def cosine(a: str, b: str) -> float | None:
        both = norms[a] * norms[b]
        return dot(replayed[a].gradient, replayed[b].gradient) / both if both else None

    return {a: {b: cosine(a, b) for b in replayed} for a in replayed}


def dot(one: list[Tensor], other: list[Tensor]) -> float:
    """Inner product of two gradients, in float64."""
    return sum(torch.dot(a.flatten().double(), b.flatten().double()).item() for a, b in zip(one, other, strict=True))


def mean(values: Tensor) -> float | None:
    return values.mean().item() if values.numel() else None


def configs(recording: Recording, options: Options) -> dict[str, Config]:
    """Each algorithm's row with the run's settings. Raises: UserError for a name or a combination that won't do."""
    check_algorithms(options)
    problems, responses = recording.total.shape
    shared = Config(
        **recording.settings,
        problems_per_step=problems,
        responses_per_problem=responses,
        updates_per_step=1,
        log_kl=False,
        device=options.device,
        trust_remote_code=options.trust_remote_code,
        **options.given(),
    )
    return {name: resolve(replace(shared, algo=name)) for name in options.algo}


def load(recording: Recording, options: Options, config: Config) -> Policy:
    """The policy. Raises: UserError where the model can't be loaded or has too few tokens."""
    source = options.model or config.model
    check_weight_files(source)
    policy = make_policy(source, config)
    known = policy.model.config.vocab_size
    ids = (max((*g.problem.prompt_tokens, *r.tokens)) for g in recording.groups for r in g.rollouts)
    if (largest := max(ids)) >= known:
        raise UserError(
            f"{options.rollouts} holds token id {largest}, but {source} knows only {known} tokens: it is not of the "
            f"run's family. Give the model of the run, {config.model}, or one trained from it."
        )
    return policy


def starting_model(policy: Policy, options: Options, config: Config) -> Reference:
    """The frozen reference of the run."""
    if options.model is None:
        return policy.frozen_copy()
    model = load_model(config.model, device=str(policy.device), trust_remote_code=options.trust_remote_code)
    return Reference(model, config.temperature, config.micro_batch_tokens)


def table(title: str, rows: Iterable[tuple[str, dict[str, float | None]]], columns: Iterable[str]) -> Table:
    """A line for each of `rows`; a dash where there is no value."""
    made = Table("", title=title, title_justify="left")
    for column in columns:
        made.add_column(column, justify="right")
    for name, values in rows:
        made.add_row(name, *("-" if value is None else f"{value:.4g}" for value in values.values()))
    return made


def run(options: Options) -> None:
    """Replay, print, and write. Raises: UserError."""
    recording = load_rollouts(options.rollouts)
    rows = configs(recording, options)
    first = next(iter(rows.values()))
    policy = load(recording, options, first)
    reference = starting_model(policy, options, first) if any(c.needs_reference for c in rows.values()) else None
    batch = recorded_batch(recording)
    gap = (policy.logprobs(batch) - batch.old_logprobs)[batch.mask].abs().mean().item()
    replayed = {
        name: replay(recording, config, policy, reference if config.needs_reference else None)
        for name, config in rows.items()
    }
    matrix = cosines(replayed)

    correct, count = int(recording.correct.sum()), recording.correct.numel()
    print(f"{options.rollouts}: {count} responses, {correct} correct; model: {options.model or first.model}")
    print(f"its log-probabilities are {gap:.2g} nats a token from those of the policy that sampled")
    print("means are over responses; for |advantage| * weight, over the tokens of correct and of incorrect ones")
    for name, config in rows.items():
        if config.advantage in WITH_CRITIC:
            print(f"{name}: rollouts hold no values, so it is credited as by a new critic, which expects 0")
    names = list(next(iter(replayed.values())).figures)
    figures = ((label, {name: one.figures[label] for name, one in replayed.items()}) for label in names)
    console = Console()
    console.print(table("on the same batch", figures, replayed))
    console.print(table("cosine of the gradients", matrix.items(), matrix))
    if options.out is not None:
        algorithms = {name: one.figures for name, one in replayed.items()}
        content = {"rollouts": str(options.rollouts), "model": options.model or first.model, "gap": gap}
        write_json(options.out, content | {"algorithms": algorithms, "cosines": matrix})


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit status: 0 done, 2 bad input."""
    transformers.utils.logging.disable_progress_bar()
    try:
        run(asked(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
