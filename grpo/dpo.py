"""Direct preference optimization (arXiv 2305.18290): `python -m grpo.dpo --data runs/a/rollouts`.

A policy learns from pairs of responses, without a reward model and without sampling. The update is that of every other
algorithm: DPO is the surrogate -A l under advantages that come from the pair's margin (preferences/pair_credit.py).
A tenth of the prompts is held out.
"""

from __future__ import annotations

from grpo.dpo_flags import Options, asked
from grpo.early import refuse_early
from grpo.unix import check_unix

if __name__ == "__main__":  # --help and refusals are there at once, before the imports below
    refuse_early(asked, check_unix)

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from grpo.algorithm.objective import Objective
from grpo.algorithm.row import Algorithm
from grpo.devices import check_device, torch_device
from grpo.errors import UserError
from grpo.model.batching import collate
from grpo.model.checkpoint import save_model
from grpo.model.policy import Policy
from grpo.model.pretrained import load_model, load_tokenizer
from grpo.model.recompute import recompute_layers
from grpo.out_of_memory import out_of_memory
from grpo.preferences.command import exit_status
from grpo.preferences.journal import Journal, count_updates, passes
from grpo.preferences.load import load_comparisons
from grpo.preferences.pair_credit import PairCredit, PairLoss, numbers, pair_credit
from grpo.preferences.reference import ReferenceLogprobs, reference_logprobs
from grpo.preferences.tokens import make_pairs
from grpo.presets import EMBEDDED_MODEL
from grpo.problems.preferences import HELD_OUT, split_by_prompt
from grpo.records import Batch, Group

ROW = Algorithm(advantage="best_worst", aggregation="constant", surrogate="naive", importance="none")
"""What the update does with the advantages: -A l, each pair with a weight of 1 / N."""
FALL = -5.0
"""Nats that the chosen responses may lose before it is said."""


@dataclass(frozen=True)
class Pairs:
    """Pairs, their log-probabilities under the reference, and which are trained on."""

    pairs: list[Group]
    reference: ReferenceLogprobs
    training: list[int]
    held_out: list[int]

    def credited(self, policy: Policy, rows: Sequence[int], cells: PairLoss) -> tuple[Batch, PairCredit]:
        """The batch of some pairs, and what they teach the policy as it is."""
        batch = collate([self.pairs[row] for row in rows])
        found = pair_credit(policy.logprobs(batch), self.reference.of(batch, rows), batch.mask, cells)
        return batch, found


def update(policy: Policy, pairs: Pairs, rows: Sequence[int], cells: PairLoss) -> dict[str, float]:
    """One optimizer step on some pairs. Returns what the pairs were before it."""
    batch, credit = pairs.credited(policy, rows, cells)
    batch = replace(batch, advantages=credit.advantages, token_weights=batch.mask / len(rows))
    measured = policy.update(batch, Objective(ROW))
    kept = {name: measured[name] for name in ("grad_norm", "learning_rate", "skipped_in_a_row")}
    return numbers(credit, batch.mask) | kept


def examined(policy: Policy, pairs: Pairs, rows: Sequence[int], cells: PairLoss) -> dict[str, float]:
    """Loss, accuracy, margin and changes of some pairs under the policy as it is."""
    batch, credit = pairs.credited(policy, rows, cells)
    return numbers(credit, batch.mask)


def train(options: Options, policy: Policy, pairs: Pairs, journal: Journal) -> None:
    """All updates."""
    cells = PairLoss(options.loss, options.beta, options.label_smoothing, options.length, options.sft_coef)
    updates = count_updates(len(pairs.training), options.pairs_per_update, options.epochs)
    order = passes(len(pairs.training), options.pairs_per_update, options.epochs, options.seed)
    found = {}
    for number, (epoch, places) in enumerate(order, start=1):
        measured = update(policy, pairs, [pairs.training[place] for place in places], cells)
        skipped = measured.pop("skipped_in_a_row")
        metrics = {"update": number, "epoch": epoch} | {f"train/{name}": value for name, value in measured.items()}
        found = measured
        if pairs.held_out and number % (updates // options.epochs) == 0:
            found = examined(policy, pairs, pairs.held_out, cells)
            metrics |= {f"held_out/{name}": value for name, value in found.items()}
        journal.log(metrics, updates, skipped)
    if found["chosen"] < FALL:
        journal.say(
            f"warning: the chosen responses have become {-found['chosen']:.1f} nats less likely. Loss and accuracy of "
            "pairs do not show what the policy writes: evaluate it. A lower --learning-rate, fewer --epochs, a higher "
            "--beta or an --sft-coef keeps it closer to the start"
        )


def make_policy(options: Options, updates: int) -> Policy:
    """The starting model with its optimizer, at temperature 1."""
    model = load_model(
        options.model,
        device=torch_device(options),
        trust_remote_code=options.trust_remote_code,
        precision=options.precision,
    )
    if options.gradient_checkpointing:
        recompute_layers(model)
    settings = options.optimizer_settings(updates)
    return Policy(model, temperature=1.0, micro_batch_tokens=options.micro_batch_tokens, optimizer=settings)


def split_pairs(options: Options, tokenizer: PreTrainedTokenizerBase) -> tuple[list[Group], list[Group]]:
    """(to train on, held out), and says how many. Raises: UserError where there is none."""
    read = load_comparisons(options.data, tokenizer, options.data_dir)
    parts = split_by_prompt(read.comparisons)
    (training, dropped), (held_out, others) = (make_pairs(part, tokenizer, options) for part in parts)
    told = replace(read, dropped=read.dropped + dropped + others).words
    if not training:
        raise UserError(f"--data {' '.join(options.data)}: no pair is left to train on: {told}.")
    print(
        f"{options.model}: {len(training):,} pairs to train on, {len(held_out):,} held out by prompt"
        + (f"; {told}" if told else "")
    )
    if not held_out:
        print(f"warning: nothing is held out: that takes {HELD_OUT} prompts")
    return training, held_out


@out_of_memory("training", "a lower --micro-batch-tokens, or --gradient-checkpointing True")
def run(options: Options) -> None:
    """Load, train and save. Raises: UserError before a model is loaded."""
    check_device(options.device)
    tokenizer = load_tokenizer(options.model, trust_remote_code=options.trust_remote_code)
    training, held_out = split_pairs(options, tokenizer)
    policy = make_policy(options, count_updates(len(training), options.pairs_per_update, options.epochs))
    largest = max(max(*p.problem.prompt_tokens, *r.tokens) for p in training + held_out for r in p.rollouts)
    if largest >= policy.model.config.vocab_size:
        raise UserError(f"The data holds token id {largest}, which {options.model} does not know.")
    pairs = training + held_out
    reference = reference_logprobs(policy, pairs, options.run_folder / "reference.pt", options.reference)
    journal = Journal(options)
    indices = list(range(len(pairs)))
    made = Pairs(pairs, reference, indices[: len(training)], indices[len(training) :])
    train(options, policy, made, journal)
    folder = options.run_folder / "model"
    save_model(folder, policy, tokenizer, options.save_dtype)
    data = "arithmetic" if options.model == str(EMBEDDED_MODEL) else "math500"
    journal.say(
        f"saved: {folder}. What it writes: python -m grpo.evaluate --model {options.model} {folder} --data {data}"
    )


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit status: 0 done, 1 the run could not go on, 2 bad input."""
    return exit_status(run, asked, arguments)


if __name__ == "__main__":
    sys.exit(main())
