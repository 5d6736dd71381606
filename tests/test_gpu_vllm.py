"""vLLM on a card that it shares with the trainer, one engine for all of these tests; and its build for the CPU beside a
policy that computes as on a card.
"""

import pytest
import torch
from conftest import END, OTHER_END
from devices import policy_on, same

from grpo.engines.choose import built_for_a_card
from grpo.engines.sync import TOLERANCE, SyncError, SyncProbe
from grpo.model.batching import collate

pytestmark = pytest.mark.vllm
TEMPERATURE = 0.8
_made = []


@pytest.fixture
def engine(device, request, tied_folder, tokenizer):
    """The session's on the CPU, one of this file's own on a card."""
    if device == "cpu":
        return request.getfixturevalue("vllm_engine")
    if not built_for_a_card():
        pytest.skip("needs vLLM's build for CUDA")
    from grpo.engines.vllm_engine import VLLMEngine

    if not _made:
        ends = [END, OTHER_END]
        _made.append(
            VLLMEngine(str(tied_folder), tokenizer, end_ids=ends, max_tokens=192, max_sequences=64, memory_fraction=0.2)
        )
    return _made[0]


@pytest.fixture
def policy(device, tied_folder):
    return policy_on(device, tied_folder, temperature=TEMPERATURE)


@pytest.fixture
def probe(policy, engine):
    """With the tolerance of the coarser precision, as grpo.setup makes it."""
    tolerance = max(TOLERANCE[policy.precision], TOLERANCE[engine.precision])
    return SyncProbe(range(3, 250), max_tokens=192, temperature=TEMPERATURE, tolerance=tolerance)


def move(policy, seed, scale=0.05):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator).to(parameter.device))


def generate(engine, problems, seed, group_size=4, max_tokens=24, **settings):
    return engine.generate(problems, group_size, temperature=TEMPERATURE, max_tokens=max_tokens, seed=seed, **settings)


def gap(groups, policy):
    """Mean |difference| of the sampler's log-probabilities from the policy's, nats."""
    batch = collate(groups, pad_id=0)
    return (policy.logprobs(batch) - batch.sampler_logprobs)[batch.mask].abs().mean().item()


def test_it_sleeps_from_the_release_to_the_sync_and_wakes_with_the_new_weights(device, engine, policy, probe, problems):
    assert engine.on_cuda == engine.sleeps == (device == "cuda")
    for step in range(3):
        engine.sync(policy)
        assert not engine.asleep and probe.check(engine, policy, step) < probe.tolerance
        assert gap(generate(engine, problems, seed=step), policy) < probe.tolerance
        engine.release()
        assert engine.asleep == engine.sleeps
        move(policy, step)


def test_a_sync_that_is_lost_or_lacks_a_tensor_is_caught(engine, policy, probe):
    engine.sync(policy)
    probe.check(engine, policy, 0)
    move(policy, 1)
    with pytest.raises(SyncError, match="step 1: "):
        probe.check(engine, policy, 1)
    engine.sync(policy)
    probe.check(engine, policy, 1)
    move(policy, 2, scale=0.2)  # one tensor alone is to show above what bfloat16 rounds
    whole, name = policy.weights, "model.layers.1.mlp.up_proj.weight"
    policy.weights = lambda: ((key, tensor) for key, tensor in whole() if key != name)
    engine.sync(policy)
    with pytest.raises(SyncError, match="step 2: "):
        probe.check(engine, policy, 2)
    policy.weights = whole
    engine.sync(policy)
    assert probe.check(engine, policy, 3) < probe.tolerance


def test_a_seed_gives_the_same_responses_whatever_was_asked_in_between(engine, policy, problems):
    """Each after a sync, as in training: with a filled prefix cache a card's kernels round otherwise."""

    def synced(seed):
        engine.sync(policy)
        return generate(engine, problems, seed)

    one = synced(5)
    between = generate(engine, problems[:2], seed=6, group_size=3)
    engine.score([[5, 6, 7, 8]])
    engine.release()
    assert same(synced(5), one) > 0.8 and same(synced(6), one) < 0.3
    assert [group.problem for group in between] == problems[:2]
    assert len({rollout.tokens for group in one for rollout in group.rollouts}) > 12


def test_the_responses_of_a_group_are_drawn_apart_and_the_trainers_generator_is_left_alone(
    device, engine, policy, problems
):
    engine.sync(policy)
    torch.manual_seed(1)
    (group, *_) = generate(engine, problems[:1], seed=7, group_size=16)
    after = torch.rand(3, device=device)
    assert len({rollout.tokens for rollout in group.rollouts}) > 12
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(3, device=device))


def test_a_generation_that_is_cut_short_leaves_nothing_behind(engine, policy, problems):
    engine.sync(policy)
    whole = generate(engine, problems, seed=3)
    engine.sync(policy)

    def interrupt(problem, rollout):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(engine, problems, seed=4, on_response=interrupt)
    engine.sync(policy)
    again = generate(engine, problems, seed=3)
    assert same(again, whole) > 0.8 and [group.problem for group in again] == problems


def test_the_card_is_free_while_it_sleeps(engine, policy, problems):
    """Of a tenth of the card it keeps little: its weights are on the host, its KV cache is gone."""
    if not engine.sleeps:
        pytest.skip("vLLM sleeps on a card alone")
    from peak_memory import used_of_card

    engine.sync(policy)
    generate(engine, problems, seed=0)
    awake = used_of_card()
    engine.release()
    asleep = used_of_card()
    assert engine.asleep and awake - asleep > 0.05 * torch.cuda.mem_get_info()[1]
