"""Train a reward model from comparisons: `python -m grpo.reward_model --data runs/a/rollouts`.

    GRPO_REWARD_MODEL=runs/NAME/model python -m grpo.train --reward math_answer=0 reward_model

All pairs of a prompt are learnt from at once, and each response is read once. A tenth of the prompts is held out, never
pairs of a prompt that is trained on. The model reads a conversation as rewards/reward_model.py gives it to it.
"""

from __future__ import annotations

from grpo.early import refuse_early
from grpo.reward_model_flags import Options, asked
from grpo.unix import check_unix

if __name__ == "__main__":  # --help and refusals are there at once, before the imports below
    refuse_early(asked, check_unix)

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from grpo import plugins
from grpo.algorithm.preference_losses import bradley_terry, slopes
from grpo.devices import check_device, torch_device
from grpo.errors import UserError
from grpo.files import write_json
from grpo.model.checkpoint import save_model
from grpo.model.pretrained import load_tokenizer
from grpo.model.recompute import recompute_layers
from grpo.model.scalar_model import Pulled, ScalarModel, conversations, make_scalar_model
from grpo.out_of_memory import out_of_memory
from grpo.preferences.command import exit_status
from grpo.preferences.journal import Journal, count_updates, passes
from grpo.preferences.load import load_comparisons
from grpo.preferences.reward_report import Judged, Report, pair_accuracy, report, words
from grpo.problems.preferences import HELD_OUT, Comparison, split_by_prompt
from grpo.records import Batch


@dataclass(frozen=True)
class Encoded:
    """A comparison as the model reads it."""

    key: str
    ids: tuple[tuple[int, ...], ...]
    """K conversations."""
    scores: tuple[float, ...]


def encoded(comparisons: Sequence[Comparison], tokenizer: PreTrainedTokenizerBase, longest: int) -> list[Encoded]:
    """By the function that serves the model. Raises: UserError for a conversation that ends in the pad token, which
    whoever reads the rightmost token that is no padding would miss."""
    encode = plugins.load("reward_model:encode", "rewards")
    found = []
    for comparison in comparisons:
        ids = tuple(tuple(encode(tokenizer, comparison.prompt, text, longest)) for text in comparison.responses)
        found.append(Encoded(comparison.key, ids, comparison.scores))
    if any(one[-1] == tokenizer.pad_token_id for each in found for one in each.ids):
        raise UserError(
            f"Conversations of this tokenizer end in its pad token, {tokenizer.pad_token!r}: transformers reads a "
            "reward at the last token that is no padding, which would be another one. Give the tokenizer a pad token "
            "of its own: tokenizer.pad_token = ...; tokenizer.save_pretrained(folder)."
        )
    return found


def slopes_of(rewards: Tensor, comparisons: Sequence[Encoded], options: Options) -> tuple[float, Tensor]:
    """The loss of some comparisons, and its derivative with respect to each of their rewards, [B]."""
    sizes = [len(each.ids) for each in comparisons]

    def loss(values: Tensor) -> Tensor:
        each = [
            bradley_terry(part, torch.tensor(comparison.scores), options.margin, options.centre)
            for part, comparison in zip(values.split(sizes), comparisons, strict=True)
        ]
        return torch.stack(each).mean()

    return loss(rewards).item(), slopes(rewards, loss)


def update(learner: ScalarModel, comparisons: Sequence[Encoded], options: Options) -> dict[str, float]:
    """One optimizer step. The responses of a comparison need not share a micro-batch: the loss reaches each of them
    through its slope alone."""
    batch = conversations([ids for each in comparisons for ids in each.ids])
    rewards = learner.scores(batch)
    loss, slope = slopes_of(rewards, comparisons, options)
    measured = learner.update(pulled(batch, slope), Pulled())
    return measured | {
        "loss": loss,
        "reward": rewards.mean().item(),
        "accuracy": pair_accuracy(judged(rewards, comparisons)),
    }


def pulled(batch: Batch, slope: Tensor) -> Batch:
    """The batch whose outputs are pulled against the slopes [B] of the loss."""
    return replace(batch, advantages=-slope[:, None] * batch.mask)


def judged(rewards: Tensor, comparisons: Sequence[Encoded]) -> list[Judged]:
    """Comparisons with the rewards [B] of their responses."""
    parts = rewards.split([len(each.ids) for each in comparisons])
    return [
        Judged(each.key, tuple(part.tolist()), each.scores, tuple(map(len, each.ids)))
        for part, each in zip(parts, comparisons, strict=True)
    ]


def examined(learner: ScalarModel, comparisons: Sequence[Encoded]) -> Report:
    """The report on comparisons under the current weights."""
    rewards = learner.scores(conversations([ids for each in comparisons for ids in each.ids]))
    return report(judged(rewards, comparisons))


def train(options: Options, learner: ScalarModel, training: list[Encoded], held_out: list[Encoded]) -> Report | None:
    """All updates. Returns the report on what is held out, None where nothing is."""
    journal, found = Journal(options), None
    updates = count_updates(len(training), options.comparisons_per_update, options.epochs)
    per_epoch = updates // options.epochs
    order = passes(len(training), options.comparisons_per_update, options.epochs, options.seed)
    for number, (epoch, rows) in enumerate(order, start=1):
        measured = update(learner, [training[row] for row in rows], options)
        metrics = {"update": number, "epoch": epoch}
        names = ("loss", "accuracy", "reward", "grad_norm", "learning_rate")
        metrics |= {f"train/{name}": measured[name] for name in names}
        if held_out and number % per_epoch == 0:
            found = examined(learner, held_out)
            metrics |= {"held_out/accuracy": found.accuracy.value, "held_out/log_loss": found.log_loss}
        journal.log(metrics, updates, measured["skipped_in_a_row"])
    return found


@out_of_memory("training the reward model", "a lower --micro-batch-tokens, or --gradient-checkpointing True")
def run(options: Options) -> None:
    """Load, train, report and save. Raises: UserError before a model is loaded."""
    check_device(options.device)
    read = load_comparisons(options.data, data_dir=options.data_dir)
    tokenizer = load_tokenizer(options.model, trust_remote_code=options.trust_remote_code)
    longest = plugins.load("reward_model:longest", "rewards")
    parts = split_by_prompt(read.comparisons)
    shown = f"{options.model}: {len(parts[0]):,} comparisons to train on, {len(parts[1]):,} held out by prompt"
    print(shown + (f"; {read.words}" if read.words else ""))
    if not parts[1]:
        print(f"warning: fewer than {HELD_OUT} prompts: nothing is held out, so nothing says whether it generalises")
    model = make_scalar_model(
        options.model,
        pad_id=tokenizer.pad_token_id,
        device=torch_device(options),
        precision=options.precision,
        trust_remote_code=options.trust_remote_code,
        seed=options.seed,
    )
    training, held_out = (encoded(part, tokenizer, longest(model, tokenizer)) for part in parts)
    if options.gradient_checkpointing:
        recompute_layers(model)
    updates = count_updates(len(training), options.comparisons_per_update, options.epochs)
    learner = ScalarModel(model, options.optimizer_settings(updates), options.micro_batch_tokens)
    found = train(options, learner, training, held_out)
    folder = options.run_folder / "model"
    save_model(folder, learner, tokenizer, options.save_dtype)
    if found is not None:
        print(f"held out: {words(found)}")
        write_json(options.run_folder / "report.json", found.to_json())
    print(
        f"saved: {folder}. As a reward, beside the verifier that says what is correct: GRPO_REWARD_MODEL={folder} "
        "python -m grpo.train --reward math_answer=0 reward_model"
    )


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit status: 0 done, 1 the run could not go on, 2 bad input."""
    return exit_status(run, asked, arguments)


if __name__ == "__main__":
    sys.exit(main())
