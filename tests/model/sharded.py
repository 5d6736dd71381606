"""What a policy computes on several ranks, for tests that compare it with a single process.

torchrun ... tests/model/sharded.py FOLDER OUT NODES CASE ...     # what rank 0 has found of the cases, into OUT
"""

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from conftest import VOCABULARY

from grpo.algorithm.credit import spread
from grpo.algorithm.ingredients import load_aggregation
from grpo.algorithm.objective import Objective
from grpo.algorithm.table import ALGORITHMS
from grpo.model import learner, logprobs
from grpo.model import policy as policy_file
from grpo.model.batching import collate, optimizer_batches
from grpo.model.critic import ValueObjective, update_critic
from grpo.model.dealt import dealt
from grpo.model.imitation import imitate
from grpo.model.optimizers import OptimizerSettings, state_bytes
from grpo.model.policy import Policy
from grpo.model.pretrained import load_model
from grpo.model.ranks import Ranks
from grpo.model.recompute import recompute_layers
from grpo.model.scalar_model import ScalarModel, make_scalar_model, token_values
from grpo.model.shard import whole
from grpo.records import Group, Problem, Rollout

CASES = {
    "sequence_mean": dict(row="grpo"),
    "constant": dict(row="dr_grpo"),
    "token_mean": dict(row="dapo"),
    "prompt_mean": dict(row="scale_rl"),
    "untied head": dict(row="grpo", model="untied"),
    "checkpointed blocks": dict(row="grpo", recompute=True),
    "ranks without rows": dict(row="grpo", problems=1, responses=2),
    "head in chunks": dict(row="grpo", chunk=7),
    "as a card": dict(row="grpo", card=True),
    "entropy bonus": dict(row="grpo", entropy_coef=0.05),
}


learner_autocast = learner.autocast


def as_a_card(device):
    """bfloat16 arithmetic on the CPU, wherever a card has it."""
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def groups(problems, responses):
    """Responses of 1 to 60 tokens, made by no engine."""
    generator = torch.Generator().manual_seed(3)

    def ids(count):
        return tuple(torch.randint(3, 200, (count,), generator=generator).tolist())

    made = []
    for p in range(problems):
        lengths = torch.randint(1, 61, (responses,), generator=generator).tolist()
        rollouts = tuple(Rollout(ids(n), tuple([-3.0] * n), "", truncated=False) for n in lengths)
        made.append(Group(Problem("", ids(2 + p), {}), rollouts))
    return made


def found(
    folder,
    ranks,
    *,
    row,
    model="tied",
    recompute=False,
    problems=8,
    responses=4,
    entropy_coef=0.0,
    chunk=None,
    card=False,
):
    """Log-probabilities, the gradient of a batch, and what 16 updates come to, whole."""
    for place in (learner, policy_file):
        place.autocast = as_a_card if card else learner_autocast
    logprobs.MAX_CHUNK_ELEMENTS = 2**25 if chunk is None else chunk * VOCABULARY
    row = replace(ALGORITHMS[row], entropy_coef=entropy_coef)

    def made(device):
        loaded = load_model(str(folder / model), device=device, trust_remote_code=False)
        if card:  # weights that bfloat16 has: what is left is how the passes round
            for parameter in loaded.parameters():
                parameter.data = parameter.data.bfloat16().float()
        if recompute:
            recompute_layers(loaded)
        return loaded

    policy = Policy(
        dealt(made, ranks, device="cpu", narrow=card),
        temperature=0.8,
        micro_batch_tokens=150,
        optimizer=OptimizerSettings(learning_rate=2e-4, max_grad_norm=0.5),
        train_entropy=entropy_coef > 0,
        ranks=ranks,
    )
    batch = collate(groups(problems, responses), 0)
    advantages = torch.randn(problems, responses, generator=torch.Generator().manual_seed(1))
    ours = policy.logprobs(batch)
    offset = ((batch.targets % 7).float() - 3) / 8  # ratios inside and outside every clip range
    batch = replace(
        batch,
        advantages=spread(advantages, batch.mask),
        old_logprobs=ours + offset * batch.mask,
        ref_logprobs=ours - 0.3 * batch.mask,
    )
    aggregation, objective = load_aggregation(row.aggregation, 64.0), Objective(row)
    (one,) = optimizer_batches(batch, 1, 1, aggregation, seed=0)
    measured = policy.backward(one, objective)
    gradient = {name: whole(p.grad).clone() for name, p in policy.model.named_parameters()}
    policy.drop_gradient()
    times = (2, 8) if problems == 1 else (4, 4)
    updates = [policy.update(part, objective) for part in optimizer_batches(batch, *times, aggregation, seed=1)]
    weights = {name: tensor.clone() for name, tensor in policy.weights()}
    return dict(
        logprobs=ours,
        measured=measured,
        gradient=gradient,
        updates=updates,
        weights=weights,
        state_bytes=ranks.exchange(state_bytes(policy.optimizer)),
    )


def critic_found(folder, ranks):
    """Values, the gradient of their loss, and what 8 updates of a critic come to, whole."""

    def made(device):
        model = make_scalar_model(str(folder / "untied"), pad_id=0, device=device)
        recompute_layers(model)
        return model

    model = dealt(made, ranks, device="cpu", computes=token_values)
    critic = ScalarModel(model, OptimizerSettings(learning_rate=2e-4, max_grad_norm=0.5), 150, ranks)
    batch = collate(groups(4, 4), 0)
    values = critic.values(batch)
    returns = ((batch.targets % 5).float() - 2) * batch.mask
    # Within the clip or far beyond it. Updates have none: values would come to its limit, where rounding decides.
    batch = replace(batch, old_values=values + (batch.targets % 2).float() * batch.mask, returns=returns)
    (one,) = optimizer_batches(batch, 1, 1, load_aggregation("token_mean", 64.0), seed=0)
    measured = critic.backward(one, ValueObjective(0.2))
    gradient = {name: whole(p.grad).clone() for name, p in critic.model.named_parameters()}
    critic.drop_gradient()
    parts = optimizer_batches(batch, 4, 2, load_aggregation("token_mean", 64.0), seed=1)
    updates = [update_critic(critic, part, clip=0.0) for part in parts]
    gathered = critic.gathered() or dict(critic.model.state_dict())
    return dict(logprobs=values, measured=measured, gradient=gradient, updates=updates, weights=gathered)


def documents_found(folder, ranks):
    """The gradient of documents beside that of responses, and two updates with both."""

    def made(device):
        return load_model(str(folder / "tied"), device=device, trust_remote_code=False)

    model, settings = dealt(made, ranks, device="cpu"), OptimizerSettings(learning_rate=2e-4, max_grad_norm=0.5)
    policy = Policy(model, temperature=0.8, micro_batch_tokens=150, optimizer=settings, ranks=ranks)
    batch, documents = collate(groups(4, 4), 0), collate(groups(1, 5), 0)
    batch = replace(batch, advantages=batch.mask * (1 - 2.0 * (batch.groups % 2))[:, None])
    (one,) = optimizer_batches(batch, 1, 1, load_aggregation("token_mean", 64.0), seed=0)
    objective, begin = Objective(ALGORITHMS["reinforce"]), partial(imitate, policy, documents, 0.3)
    measured = policy.backward(one, objective, begin)
    gradient = {name: whole(p.grad).clone() for name, p in policy.model.named_parameters()}
    policy.drop_gradient()
    updates = [policy.update(one, objective, begin) for _ in range(2)]
    weights = {name: tensor.clone() for name, tensor in policy.weights()}
    return dict(logprobs=policy.logprobs(batch), measured=measured, gradient=gradient, updates=updates, weights=weights)


BESIDE = {"critic": critic_found, "documents": documents_found}


if __name__ == "__main__":
    folder, out, nodes, *names = sys.argv[1:]
    ranks = Ranks.join(minutes=1, nodes=int(nodes))
    results = {name: found(Path(folder), ranks, **CASES[name]) for name in names if name in CASES}
    results |= {name: find(Path(folder), ranks) for name, find in BESIDE.items()}
    if ranks.writes:
        torch.save(results, out)
    ranks.exchange(None)
    os._exit(0)  # as the command ends (rank_end.py): gloo's threads may abort a process that is taken down
