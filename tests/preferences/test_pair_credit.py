"""DPO as advantages: its gradient is that of the loss written out, for every cell; and its numbers by hand."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import make_policy

from grpo.algorithm.objective import Objective
from grpo.dpo import ROW, Pairs, examined, update
from grpo.model.batching import collate
from grpo.preferences.pair_credit import PairLoss, numbers, pair_credit
from grpo.preferences.reference import computed
from grpo.records import Group, Problem, Rollout

LN = math.log
MASK = torch.tensor([[0, 1, 1, 1], [0, 1, 0, 0]]).bool()
CELLS = [
    PairLoss("sigmoid", 0.5),
    PairLoss("sigmoid", 0.5, 0.1),
    PairLoss("ipo", 0.5),
    PairLoss("sigmoid", 3.0, length="mean"),
    PairLoss("ipo", 3.0, length="mean"),
    PairLoss("sigmoid", 0.5, sft_coef=0.3),
    PairLoss("sigmoid", 2.0, 0.1, "mean", 0.3),
]


def rollout(*tokens):
    return Rollout(tokens, (0.0,) * len(tokens), "", truncated=False)


@pytest.fixture(scope="module")
def pairs():
    """Responses of different lengths, prompts too."""
    return [
        Group(Problem("", (5, 6), {}), (rollout(10, 11, 12, 1), rollout(20, 1))),
        Group(Problem("", (7,), {}), (rollout(30, 1), rollout(31, 32, 33, 34, 35, 1))),
        Group(Problem("", (8, 9, 10), {}), (rollout(40), rollout(41, 1))),
    ]


def test_by_hand():
    """Changes of +ln 3 and -ln 3 under beta 1/2: beta h = ln 3, whose slope is -1/8 for smoothing 0."""
    logprobs = torch.zeros(2, 4)
    ref = torch.tensor([[9.0, -LN(3), 0, 0], [9.0, LN(3), 7, 7]])  # what stands outside the mask is not read
    found = pair_credit(logprobs, ref, MASK, PairLoss("sigmoid", 0.5))
    assert found.losses.item() == pytest.approx(LN(4 / 3)) and found.margins.item() == pytest.approx(LN(3))
    assert found.advantages.tolist() == [[0, 0.125, 0.125, 0.125], [0, -0.125, 0, 0]]
    smoothed = pair_credit(logprobs, ref, MASK, PairLoss("sigmoid", 0.5, 0.1))
    assert smoothed.losses.item() == pytest.approx(0.397543, abs=1e-6)
    assert smoothed.advantages[0, 1].item() == pytest.approx(0.075)
    said = numbers(found, MASK)
    assert said["chosen"] == pytest.approx(LN(3)) == -said["rejected"]
    assert (said["chosen_tokens"], said["rejected_tokens"], said["accuracy"]) == (3, 1, 1)
    # A mean a token: h is ln 3 / 3 + ln 3, and the chosen's three tokens share its slope.
    mean = pair_credit(logprobs, ref, MASK, PairLoss("sigmoid", 0.5, length="mean"))
    h = LN(3) * 4 / 3
    slope = 0.5 / (1 + math.exp(0.5 * h))
    assert mean.advantages[0, 1].item() == pytest.approx(slope / 3) and -mean.advantages[1, 1].item() == pytest.approx(
        slope
    )


@pytest.mark.parametrize("cells", CELLS, ids=repr)
def test_the_gradient_is_that_of_the_loss_written_out(tied_folder, pairs, cells):
    """Of each response through the model alone, without padding, in plain formulas; however the batch is cut."""
    policy = make_policy(tied_folder)
    generator = torch.Generator().manual_seed(0)
    ref = {}
    total = 0.0
    for i, pair in enumerate(pairs):
        parts = []
        for j, response in enumerate(pair.rollouts):
            ids = torch.tensor([*pair.problem.prompt_tokens, *response.tokens])
            start = len(pair.problem.prompt_tokens)
            every = policy.model(ids[None]).logits[0, :-1].log_softmax(-1)
            tokens = every[range(start - 1, len(ids) - 1), ids[start:]]
            ref[i, j] = tokens.detach() + 0.3 * torch.randn(len(tokens), generator=generator)
            change = tokens - ref[i, j]
            parts.append((change.mean() if cells.length == "mean" else change.sum(), tokens))
        h = parts[0][0] - parts[1][0]
        if cells.loss == "ipo":
            loss = (h - 1 / (2 * cells.beta)) ** 2
        else:
            x, e = cells.beta * h, cells.label_smoothing
            loss = (1 - e) * torch.log1p(torch.exp(-x)) + e * torch.log1p(torch.exp(x))
        total = total + (loss - cells.sft_coef * parts[0][1].mean()) / len(pairs)
    total.backward()
    expected = {name: p.grad.clone() for name, p in policy.model.named_parameters()}
    norm = math.sqrt(sum(grad.square().sum().item() for grad in expected.values()))
    for tokens in (4096, 8):
        policy = make_policy(tied_folder, micro_batch_tokens=tokens)
        batch = collate(pairs)
        flat = torch.cat([ref[i, j] for i in range(len(pairs)) for j in range(2)])
        found = pair_credit(
            policy.logprobs(batch), torch.zeros(batch.mask.shape).masked_scatter(batch.mask, flat), batch.mask, cells
        )
        assert found.losses.mean().item() == pytest.approx(total.item(), rel=1e-5)
        policy.backward(
            replace(batch, advantages=found.advantages, token_weights=batch.mask / len(pairs)), Objective(ROW)
        )
        gap = sum((p.grad - expected[name]).square().sum().item() for name, p in policy.model.named_parameters())
        assert math.sqrt(gap) < 1e-5 * norm


def test_the_first_update_starts_at_log_two_and_separates_the_pairs(tied_folder, pairs):
    policy = make_policy(tied_folder, learning_rate=1e-3)
    made = Pairs(pairs, computed(policy, pairs), [0, 1, 2], [])
    cells = PairLoss("sigmoid", 0.5)
    first = update(policy, made, [2, 0, 1], cells)
    assert first["loss"] == pytest.approx(LN(2), abs=1e-5) and abs(first["chosen"]) < 1e-4
    for _ in range(5):
        update(policy, made, [0, 1, 2], cells)
    last = examined(policy, made, [0, 1, 2], cells)
    assert last["accuracy"] == 1 and last["margin"] > 0.5 and last["chosen"] > last["rejected"]
