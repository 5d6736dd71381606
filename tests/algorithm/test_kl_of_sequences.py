"""What each KL term does to whole responses, exactly: a policy over at most three tokens, every response enumerated.

Two symbols and a stop; a response ends with the stop or is cut at three tokens. The policy is a table of logits, a row
a prefix. An optimizer batch is one group of G = 2 responses, and every batch is enumerated too. `s` is a prefix, `v` a
token after it, D the sum of l - l_ref over a response, |o| its tokens, N those of the batch, sg() held fixed.
"""

from functools import cache
from itertools import product

import pytest
import torch
from numpy.polynomial.polynomial import polypow

from grpo.algorithm.advantages import ADVANTAGES
from grpo.algorithm.ingredients import load_aggregation
from grpo.algorithm.kl import response_kl
from grpo.algorithm.losses import policy_token_loss
from grpo.algorithm.row import Algorithm
from grpo.algorithm.token_inputs import TokenInputs

STOP, LIMIT, C = 2, 3, 4.0
PREFIXES = [prefix for length in range(LIMIT) for prefix in product((0, 1), repeat=length)]
RESPONSES = [(*prefix, STOP) for prefix in PREFIXES] + list(product((0, 1), repeat=LIMIT))
LENGTHS = torch.tensor([len(response) for response in RESPONSES])
MASK = torch.arange(LIMIT) < LENGTHS[:, None]
PREFIX = torch.tensor([[PREFIXES.index(o[:t]) if t < len(o) else 0 for t in range(LIMIT)] for o in RESPONSES])
TOKEN = torch.tensor([[o[t] if t < len(o) else 0 for t in range(LIMIT)] for o in RESPONSES])

POLICY, REFERENCE = torch.randn(2, len(PREFIXES), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def logprobs(table):
    """[prefixes, 3] logits -> [responses, T]."""
    return table.log_softmax(1)[PREFIX, TOKEN]


def chances(table):
    """[responses]: the probability of each."""
    return (logprobs(table) * MASK).sum(1).exp()


P, Q = chances(POLICY), chances(REFERENCE)
D = P.log() - Q.log()
assert P.sum().item() == pytest.approx(1.0)  # every response is there


def gradient(objective, *, of=POLICY):
    table = of.clone().requires_grad_()
    return torch.autograd.grad(objective(table), table)[0]


# What the project computes ---------------------------------------------------------------------------------------


@cache
def batches(size):
    """[n, G]: every batch of G responses, and its weights [n, G, T]. Each is one over a whole number: float64 again."""
    index = torch.cartesian_prod(*[torch.arange(len(RESPONSES))] * size)
    same = torch.zeros(size, dtype=torch.int64)
    weights = {
        name: torch.stack([load_aggregation(name, C)(MASK[batch], same) for batch in index]).double() for name in WEIGHT
    }
    return index, {name: 1 / (1 / weight).round() for name, weight in weights.items()}


def expected(aggregation, *, estimator="k3", advantage=None, reference=REFERENCE, size=2, coef=1.0):
    """The expected gradient of the KL in the loss or, with an advantage's name, of k1 taken off the reward."""
    index, weights = batches(size)

    def expectation(table):
        current, ref = logprobs(table), logprobs(reference)
        old = current.detach()
        penalty = coef * response_kl(old, ref, MASK)[index]
        flat = MASK[index].flatten(0, 1)
        of_responses = ADVANTAGES[advantage](-penalty).flatten() if advantage else torch.zeros(index.numel())
        inputs = TokenInputs(
            current[index].flatten(0, 1),
            old[index].flatten(0, 1),
            of_responses[:, None] * flat,
            flat,
            ref_logprobs=ref[index].flatten(0, 1),
        )
        row = Algorithm("raw", aggregation, kl_coef=0.0 if advantage else coef, kl_estimator=estimator)
        token = policy_token_loss(inputs, row)
        losses = (weights[aggregation] * token.loss.view(*index.shape, LIMIT)).sum((1, 2))
        return (P[index].prod(1) * losses).sum()

    return gradient(expectation)


# What it might be the gradient of ---------------------------------------------------------------------------------

OTHER = LENGTHS[:, None] + LENGTHS.double()  # N of two responses
WEIGHT = {  # [responses, the other's]: G times the weight of a token of the first
    "constant": torch.full_like(OTHER, 1 / C),
    "sequence_mean": (1 / LENGTHS.double())[:, None].expand_as(OTHER),
    "token_mean": 2 / OTHER,
    "prompt_mean": 2 / OTHER,  # the two are of one problem
}


def tally(values):
    """[responses] -> [prefixes, 3]: summed over the responses that have token v after prefix s."""
    cells = torch.zeros(len(PREFIXES) * 3, dtype=torch.float64)
    return cells.index_add(0, (PREFIX * 3 + TOKEN)[MASK], values[:, None].expand(-1, LIMIT)[MASK]).view(-1, 3)


def visits(p):
    """[prefixes, 1]: the probability that a response comes past the prefix."""
    return tally(p).sum(1, keepdim=True)


def next_token_kl(direction, weight=1.0, by=P):
    """Of the next token at the prefixes that `by` visits (held fixed), each token's share weighted [prefixes, 3].

    The share is that of the generalised KL, p log(p/q) - p + q: never negative, and its last two terms cancel where
    all tokens weigh the same.
    """

    def objective(table):
        p, q = table.softmax(1), REFERENCE.softmax(1)
        p, q = (p, q) if direction == "reverse" else (q, p)
        return (visits(by) * weight * (p * (p / q).log() - p + q)).sum()

    return objective


def sequence_kl(table):
    p = chances(table)
    return (p * (p.log() - Q.log())).sum()


def same(found, exact):
    torch.testing.assert_close(found, exact, atol=1e-10, rtol=0)
    assert exact.abs().max() > 1e-3


def unlike(found, other):
    """Not the other, whatever that is multiplied by: a twentieth of it or more points elsewhere."""
    return 1 - torch.cosine_similarity(found.flatten(), other.flatten(), dim=0).square() > 0.05**2


# In the loss -----------------------------------------------------------------------------------------------------

DIRECTION = {"k2": "reverse", "k3_ratio": "reverse", "k3": "forward"}
DIVIDED = ["sequence_mean", "token_mean"]


@pytest.mark.parametrize("reference", [REFERENCE, POLICY], ids=["reference", "policy itself"])
def test_k1_is_no_kl(reference):
    """Nothing under the constant; else E[1/|o|] or E[1/N]: a pull to longer responses, whatever the reference."""
    assert expected("constant", estimator="k1", reference=reference).abs().max() < 1e-15
    found = {name: expected(name, estimator="k1", reference=reference) for name in DIVIDED}
    same(found["sequence_mean"], gradient(lambda table: (chances(table) / LENGTHS).sum()))
    same(found["token_mean"], gradient(lambda table: chances(table) @ (1 / OTHER) @ chances(table)))
    longer = gradient(lambda table: (chances(table) * LENGTHS).sum())
    assert all((-pull * longer).sum() > 1e-3 for pull in found.values())


@pytest.mark.parametrize("estimator", DIRECTION)
def test_under_the_constant_the_others_are_the_next_tokens_kl(estimator):
    found = C * expected("constant", estimator=estimator)
    same(found, gradient(next_token_kl(DIRECTION[estimator])))
    # The sequence's own are something else: the forward KL goes by the reference's prefixes, ...
    forward = gradient(lambda table: (Q * (Q.log() - chances(table).log())).sum())
    same(forward, gradient(next_token_kl("forward", by=Q)))
    assert unlike(found, forward) and unlike(found, gradient(sequence_kl))


def test_the_next_tokens_kl_is_a_part_of_the_sequences():
    """... and the reverse KL also counts to which prefixes a token leads (arXiv 2506.09477)."""
    p, q = POLICY.softmax(1), REFERENCE.softmax(1)
    leads_to = gradient(lambda table: (visits(chances(table)) * (p * (p / q).log())).sum())
    same(gradient(sequence_kl), gradient(next_token_kl("reverse")) + leads_to)


@pytest.mark.parametrize("aggregation", DIVIDED)
@pytest.mark.parametrize("estimator", DIRECTION)
def test_divided_by_a_length_a_token_weighs_what_it_leads_to(estimator, aggregation):
    """The share of token v at prefix s weighs sg(E[1/|o| given s and v]), or E[B/N]: stopping more than going on."""
    weight = tally(P * (WEIGHT[aggregation] @ P)) / tally(P)
    found = expected(aggregation, estimator=estimator)
    same(found, gradient(next_token_kl(DIRECTION[estimator], weight)))
    assert (weight[:3, STOP] > 1.05 * weight[:3, :STOP].amax(1)).all()  # the four longest prefixes end either way
    assert expected(aggregation, estimator=estimator, reference=POLICY).abs().max() < 1e-15  # yet no pull at home
    plain = (weight * tally(P)).sum(1, keepdim=True) / visits(P)  # E[1/|o| given s]: not this either
    assert unlike(found, gradient(next_token_kl(DIRECTION[estimator], plain)))
    assert unlike(found, gradient(next_token_kl(DIRECTION[estimator]))) and unlike(found, gradient(sequence_kl))


def test_the_token_mean_of_many_responses_is_a_constant():
    """B E|o| E[1/N given |o|] goes to 1 as 1/B: k1 goes to nothing, the others to what they are under C = E|o|."""
    one = torch.stack([P[LENGTHS == length].sum() for length in range(LIMIT + 1)])  # P(|o|)
    mean, gaps = (one * torch.arange(LIMIT + 1)).sum(), {}
    for size in (64, 128):
        others = torch.tensor(polypow(one.numpy(), size - 1))  # P(tokens of the other responses)
        shares = [(size * mean * others / (length + torch.arange(len(others)))).sum() for length in (1, 2, 3)]
        gaps[size] = torch.stack(shares).sub(1).abs().max().item()
    assert gaps[64] < 0.02 and gaps[128] == pytest.approx(gaps[64] / 2, rel=0.05)


# In the reward ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("advantage", ["raw", "leave_one_out", "centered"])
def test_in_the_reward_under_the_constant_it_is_the_sequences_kl(advantage, size):
    share = (size - 1) / size if advantage == "centered" else 1
    same(C * expected("constant", advantage=advantage, size=size), share * gradient(sequence_kl))


@pytest.mark.parametrize("aggregation", DIVIDED)
@pytest.mark.parametrize("advantage", ["raw", "leave_one_out", "centered"])
def test_in_the_reward_divided_by_a_length_it_is_a_smaller_price_for_longer_responses(advantage, aggregation):
    """The policy gradient of a price held fixed: D / |o| (or B D / N), less the baseline over the same."""
    price = (WEIGHT[aggregation] * (D[:, None] - (0 if advantage == "raw" else D))) @ P
    found = expected(aggregation, advantage=advantage)
    same(found, (0.5 if advantage == "centered" else 1) * gradient(lambda table: (chances(table) * price).sum()))
    assert unlike(found, gradient(sequence_kl)) and unlike(found, gradient(next_token_kl("reverse")))
    assert expected(aggregation, advantage=advantage, reference=POLICY).abs().max() < 1e-15


@pytest.mark.parametrize("coef", [1e8, 1e9])
def test_divided_by_the_groups_deviation_the_weight_of_the_kl_drops_out(coef):
    """Where nothing else is rewarded: of two responses it tells which has the larger D, and no more."""
    found = C * expected("constant", advantage="group_normalized", coef=coef)
    rank = torch.sign(D[:, None] - D) @ P / 2**0.5
    same(found, gradient(lambda table: (chances(table) * rank).sum()))
    assert unlike(found, gradient(sequence_kl))
