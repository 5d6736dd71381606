"""A batch of uneven responses, and the gradient of an update on it: for the tests of the policy on CPU and CUDA."""

import copy
from dataclasses import replace
from functools import partial

import torch

from grpo.algorithm.credit import spread
from grpo.algorithm.ingredients import load_aggregation
from grpo.algorithm.objective import Objective
from grpo.model.batching import collate, optimizer_batches
from grpo.records import Group, Problem, Rollout

PAD = 0


def uneven_groups():
    """Uneven prompts and responses, made by no engine: their log-probabilities differ from the policy's."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for p, prompt in enumerate((2, 7, 4)):
        rollouts = []
        for length in (1, 5 + p, 12 - 3 * p, 3):
            tokens = torch.randint(3, 200, (length,), generator=generator).tolist()
            rollouts.append(Rollout(tuple(tokens), tuple([-3.0] * length), "", truncated=False))
        prompt_tokens = tuple(torch.randint(3, 200, (prompt,), generator=generator).tolist())
        made.append(Group(Problem("", prompt_tokens, {}), tuple(rollouts)))
    return made


ADVANTAGES = torch.tensor([[0.5, -0.5, 0.25, -0.25], [1.0, 0.0, -1.0, 0.0], [-0.7, 0.1, 0.3, 0.3]])


CONSTANT = 16.0


def whole_batch(policy, groups, row, advantages=ADVANTAGES, order=None, extra_padding=0):
    """One optimizer batch of all rows, with old and reference log-probabilities off the policy's."""
    batch = collate(groups, PAD)
    batch = replace(batch, advantages=spread(advantages, batch.mask))
    if extra_padding:
        pad = partial(torch.nn.functional.pad, pad=(0, extra_padding))
        batch = replace(batch, **{name: pad(t) for name, t in batch._tensors().items() if t.ndim == 2})
    if order is not None:
        batch = batch.take(order)
    ours = policy.logprobs(batch)
    # Fixed offsets by target token: ratios inside and outside every clip range, whatever the order of the rows.
    offset = ((batch.targets % 7).float() - 3) / 8
    batch = replace(batch, old_logprobs=ours + offset * batch.mask, ref_logprobs=ours - 0.3 * batch.mask)
    (part,) = optimizer_batches(batch, 1, 1, load_aggregation(row.aggregation, CONSTANT), seed=0)
    return part


def gradient(policy, batch, algorithm, micro_batch_tokens=4096):
    """The gradient that `update` steps along, and its metrics; the weights are put back."""
    kept = copy.deepcopy(policy.model.state_dict())
    policy.micro_batch_tokens, policy.settings = micro_batch_tokens, replace(policy.settings, max_grad_norm=1e9)
    seen = []
    hook = policy.optimizer.register_step_pre_hook(
        lambda *_: seen.extend(p.grad.clone() for p in policy.model.parameters() if p.requires_grad)
    )
    metrics = policy.update(batch, Objective(algorithm))
    hook.remove()
    policy.model.load_state_dict(kept)
    return seen, metrics
