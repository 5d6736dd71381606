"""Saved rollouts come back as they were, and replaying them gives the numbers of the step that trained on them."""

import json
from dataclasses import replace

import formulas
import pytest
import torch
from conftest import PAD, make_model, make_policy
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2ForCausalLM

from grpo.algorithm.choices import PAIRED, WITH_CRITIC
from grpo.algorithm.objective import Objective
from grpo.algorithm.table import ALGORITHMS
from grpo.config import Config
from grpo.errors import UserError
from grpo.logs import rollouts as rollouts_module
from grpo.logs.rollouts import Recording, load_rollouts, save_rollouts
from grpo.model.batching import collate
from grpo.model.policy import Policy
from grpo.presets import EMBEDDED_MODEL
from grpo.records import Group, Problem, Rollout
from grpo.replay import cosines, main, recorded_batch, replay
from grpo.resolve import resolve
from grpo.train import main as train

SMALL = "--problems-per-step 4 --responses-per-problem 4 --eval-problems 0 --wandb off --engine hf".split()
SETTINGS = {
    "model": None, "temperature": 1.0, "max_response_tokens": 16, "loss_constant": 16.0, "micro_batch_tokens": 64
}  # fmt: skip


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def recording_of(groups, total, **changes):
    total = torch.tensor(total)
    tokens = sum(len(rollout.tokens) for group in groups for rollout in group.rollouts)
    old = torch.linspace(-3.0, -0.5, tokens)
    return replace(Recording(groups, total, total >= 1.0, old, SETTINGS), **changes)


@pytest.fixture
def recording(tied_policy):
    """Two groups of three, one of the responses cut at the limit; sampled by a policy not far from `tied_policy`."""
    groups = [
        Group(
            Problem("", tuple(range(5, 5 + 2 * p)), {}),
            tuple(
                Rollout(tuple(range(9 * i + p, 9 * i + p + n)), (-2.0,) * n, "", truncated=n == 7)
                for i, n in enumerate(lengths, start=1)
            ),
        )
        for p, lengths in ((1, (3, 7, 1)), (2, (4, 2, 5)))
    ]
    made = recording_of(groups, [[1.0, 0.5, 0.0], [0.0, 1.0, 1.0]])
    batch = collate(groups, PAD)
    noise = 0.1 * torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(0))
    return replace(made, old_logprobs=(tied_policy.logprobs(batch) + noise)[batch.mask])


def config(algo, **changes):
    return resolve(Config(algo=algo, log_kl=False, max_response_tokens=16, problems_per_step=2, **changes))


# The file --------------------------------------------------------------------------------------------------------

finite = st.floats(-50, 0)
texts = st.text(max_size=5)
problem = st.builds(
    Problem,
    texts | st.lists(st.fixed_dictionaries({"role": texts, "content": texts}), max_size=2),
    st.lists(st.integers(0, 200_000), min_size=1, max_size=4).map(tuple),
    st.just({}),
)


@st.composite
def rollout(draw):
    pairs = draw(st.lists(st.tuples(st.integers(0, 200_000), finite), min_size=1, max_size=5))
    tokens, logprobs = zip(*pairs, strict=True)
    return Rollout(tokens, logprobs, draw(texts), draw(st.booleans()))


@st.composite
def recordings(draw):
    size = draw(st.integers(1, 3))
    group = st.builds(Group, problem, st.lists(rollout(), min_size=size, max_size=size).map(tuple))
    groups = draw(st.lists(group, min_size=1, max_size=3))
    return recording_of(groups, [[draw(st.floats(-1, 2, width=32)) for _ in range(size)] for _ in groups])


@given(recordings())
def test_round_trip(tmp_path_factory, recording):
    path = tmp_path_factory.mktemp("rollouts") / "deep" / "step-000001.pt"
    save_rollouts(path, recording)
    found = load_rollouts(path)
    assert found.groups == recording.groups and found.settings == recording.settings
    for name in ("total", "correct", "old_logprobs"):
        before, after = getattr(recording, name), getattr(found, name)
        assert torch.equal(before, after) and before.dtype == after.dtype
    assert [file.name for file in path.parent.iterdir()] == ["step-000001.pt"]


def test_an_interrupted_save_leaves_the_old_file(tmp_path, recording, monkeypatch):
    path = tmp_path / "step-000001.pt"
    save_rollouts(path, recording)

    def interrupted(content, part):
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(rollouts_module.torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_rollouts(path, replace(recording, groups=[]))
    assert load_rollouts(path).groups == recording.groups


def test_files_that_are_missing_or_something_else(tmp_path, capsys):
    assert main(["nowhere.pt"]) == 2
    assert capsys.readouterr().err.startswith("error: There is no rollout file nowhere.pt. A run writes one a step")
    (tmp_path / "text.pt").write_text("not a rollout file at all")
    torch.save({"lengths": torch.tensor([1])}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("text.pt", "other.pt", "list.pt"):
        with pytest.raises(UserError, match=f"{name} is not a rollout file"):
            load_rollouts(tmp_path / name)


# The replay ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_gradient_is_that_of_a_training_step(tied_folder, recording, algo):
    """Against Policy.update on a batch put together here by hand, seen by a hook just before the optimizer's step."""
    row, policy = ALGORITHMS[algo], make_policy(tied_folder, micro_batch_tokens=20, max_grad_norm=1e9)
    reference = policy.frozen_copy() if config(algo).needs_reference else None
    found = replay(recording, config(algo), policy, reference)
    assert all(p.grad is None for p in policy.model.parameters())

    total = recording.total.clone()
    if row.truncated == "zero":
        total[0, 1] = 0.0  # the response of seven tokens
    batch = recorded_batch(recording)
    lengths, tokens = batch.mask.sum(1).tolist(), int(batch.mask.sum())
    divisors = [formulas.divisor(row.aggregation, length, 6, tokens, 16.0) for length in lengths]
    batch = replace(
        batch,
        token_weights=batch.mask / torch.tensor(divisors)[:, None],
        ref_logprobs=reference.logprobs(batch) if reference else None,
    )
    ratios = None
    if row.advantage in PAIRED:
        ratios = ((batch.old_logprobs - batch.ref_logprobs) * batch.mask).sum(1).view_as(total).tolist()
    advantages = torch.tensor(formulas.advantages(row.advantage, total.tolist(), None, ratios))
    batch = replace(batch, advantages=advantages.flatten()[:, None] * batch.mask)
    if row.advantage in WITH_CRITIC:  # of a new one: rewards to go, less the KL of the tokens still to come
        kl = ((batch.old_logprobs - batch.ref_logprobs) * batch.mask).flip(1).cumsum(1).flip(1)
        chosen = (batch.advantages - row.kl_coef * kl)[batch.mask]
        whitened = (chosen - chosen.mean()) / (chosen.std() + 1e-4)
        batch = replace(batch, advantages=torch.zeros_like(batch.advantages).masked_scatter(batch.mask, whitened))
    seen = []
    policy.optimizer.register_step_pre_hook(lambda *_: seen.extend(p.grad.clone() for p in policy.model.parameters()))
    metrics = policy.update(batch, Objective(row))
    # Of a sequence ratio under the constant, 1/C with C = 16, it is 0.008; of every other row more than 0.01.
    assert metrics["grad_norm"] > (0.005 if algo == "luspo" else 0.01)
    for ours, theirs in zip(found.gradient, seen, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert found.figures["loss"] == pytest.approx(metrics["loss"], rel=1e-4)
    assert found.figures["gradient norm"] == pytest.approx(metrics["grad_norm"], rel=1e-4)


def test_figures_by_hand(tied_policy, recording):
    """|advantage| over B C, over the tokens of correct and of incorrect responses; the truncated one keeps 0.5."""
    figures = replay(recording, config("dr_grpo", truncated="keep"), tied_policy, None).figures
    # Advantages 1/2, 0, -1/2 of 3, 7, 1 tokens and -2/3, 1/3, 1/3 of 4, 2, 5; the positive ones are correct. B C = 96.
    assert figures["|advantage|"] == pytest.approx((0.5 + 0.5 + 4 / 3) / 6)
    assert figures["|advantage| * weight, correct"] == pytest.approx((3 * 0.5 + 2 / 3 + 5 / 3) / 10 / 96)
    assert figures["|advantage| * weight, incorrect"] == pytest.approx((7 * 0 + 0.5 + 4 * 2 / 3) / 12 / 96)
    none_correct = replace(recording, correct=torch.zeros(2, 3, dtype=torch.bool))
    assert replay(none_correct, config("dr_grpo"), tied_policy, None).figures["|advantage| * weight, correct"] is None


def test_a_recording_of_an_earlier_version_is_replayed(tmp_path, tied_policy, recording):
    """It has no rewards by verifier: which groups teach nothing is told by what was correct."""
    path = tmp_path / "step.pt"
    all_wrong = replace(recording, total=torch.tensor([[0.1, 0.5, 0.0], [0.0, 1.0, 1.0]]))
    save_rollouts(path, replace(all_wrong, correct=all_wrong.total >= 1.0))
    content = torch.load(path, weights_only=True)
    del content["by_verifier"]
    torch.save(content, path)
    old = load_rollouts(path)
    assert old.by_verifier == {}
    assert replay(old, config("dapo"), tied_policy, None).figures["|advantage|"] > 0
    kept = replay(replace(old, groups=old.groups[1:], total=old.total[1:], correct=old.correct[1:],
                          old_logprobs=old.old_logprobs[-11:]), config("dapo"), tied_policy, None)  # fmt: skip
    both = replay(old, config("dapo"), tied_policy, None)
    for one, other in zip(both.gradient, kept.gradient, strict=True):  # the first group is dropped, denominator and all
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_clipped_tokens_are_counted(tied_policy, recording):
    """At a ratio of e, those whose advantage is positive; the others have no upper limit."""
    batch = collate(recording.groups, PAD)
    up = replace(recording, old_logprobs=(tied_policy.logprobs(batch) - 1.0)[batch.mask])
    share = replay(up, config("dapo"), tied_policy, None).figures["tokens clipped, share"]
    # Of 22 tokens; the advantage is positive for the responses of 3, 2 and 5. That of 7 has the mean reward: 0.
    assert share == pytest.approx(10 / 22)


def test_cosines(tied_policy, recording):
    rows = {algo: replay(recording, config(algo), tied_policy, None) for algo in ("dr_grpo", "dapo", "rloo")}
    matrix = cosines(rows)
    for one in rows:
        assert matrix[one][one] == pytest.approx(1.0, abs=1e-9)
        for other in rows:
            assert matrix[one][other] == pytest.approx(matrix[other][one]) and -1 <= matrix[one][other] < 1 + 1e-9
    flat = {name: torch.cat([g.flatten() for g in row.gradient]) for name, row in rows.items()}
    expected = torch.nn.functional.cosine_similarity(flat["dr_grpo"], flat["dapo"], dim=0).item()
    assert matrix["dr_grpo"]["dapo"] == pytest.approx(expected, abs=1e-5) and expected < 0.999


def test_equal_rewards_teach_reinforce_and_not_grpo(tied_policy, recording):
    equal = replace(recording, total=torch.ones(2, 3))
    rows = {
        "grpo": replay(equal, config("grpo", kl_coef=0.0, truncated="keep"), tied_policy, None),
        "reinforce": replay(equal, config("reinforce"), tied_policy, None),
    }
    assert rows["grpo"].figures["gradient norm"] == rows["grpo"].figures["loss"] == 0.0
    assert rows["reinforce"].figures["gradient norm"] > 0.1
    assert cosines(rows)["grpo"] == {"grpo": None, "reinforce": None}


# The two commands ------------------------------------------------------------------------------------------------


def test_a_run_is_replayed_with_the_numbers_that_it_logged(tmp_path, capsys):
    """Step 1 from the starting model, step 2 from the checkpoint that sampled it; with a KL, so with a reference."""
    flags = ["--algo", "grpo", "--steps", "2", "--learning-rate", "1e-3", "--save-every", "1"]
    assert train([*SMALL, *flags, "--name", "plain"]) == 0
    assert train([*SMALL, *flags, "--name", "saved", "--save-rollouts"]) == 0
    assert not (tmp_path / "runs/plain/rollouts").exists()
    logged, saved = (
        [json.loads(line) for line in (tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("plain", "saved")
    )
    for step, models in ((1, []), (2, ["--model", "runs/saved/checkpoint-1"])):
        before = logged[step - 1]
        assert saved[step - 1]["policy/loss"] == before["policy/loss"]  # saving changes nothing
        path = f"runs/saved/rollouts/step-{step:06d}.pt"
        assert main([path, *models, "--algo", "grpo", "rloo", "--out", "out.json"]) == 0
        found = json.loads((tmp_path / "out.json").read_text())
        assert found["gap"] < 1e-6 and found["model"] == (models[1] if models else str(EMBEDDED_MODEL))
        assert set(found["algorithms"]) == set(found["cosines"]) == {"grpo", "rloo"}
        figures = found["algorithms"]["grpo"]
        assert figures["gradient norm"] == pytest.approx(before["policy/grad_norm"], rel=1e-4)
        assert figures["loss"] == pytest.approx(before["policy/loss"], rel=1e-3, abs=1e-7)
        assert found["cosines"]["grpo"]["grpo"] == pytest.approx(1.0) and found["cosines"]["grpo"]["rloo"] < 1
    printed = capsys.readouterr().out
    assert "a new critic" not in printed
    assert main([path, "--algo", "ppo"]) == 0
    assert "ppo: rollouts hold no values, so it is credited as by a new critic" in capsys.readouterr().out
    assert "16 responses" in printed and "cosine of the gradients" in printed and "gradient norm" in printed
    # Without the checkpoint the model is not the one that sampled, and that is said.
    assert main([path, "--algo", "dr_grpo", "--out", "out.json"]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["gap"] > 1e-3


def test_saving_repeats_no_pass_that_the_step_makes(tmp_path, monkeypatch):
    """With two updates a step their log-probabilities are computed anyway, and what is saved is those; of masked
    responses alone there are none."""
    asked, logprobs = [], Policy.logprobs
    monkeypatch.setattr(
        Policy, "logprobs", lambda self, batch, *rest: asked.append(len(batch)) or logprobs(self, batch, *rest)
    )
    flags = [*SMALL, "--algo", "dr_grpo", "--steps", "1", "--save-rollouts", "--updates-per-step", "2"]
    for name, masked, passes in (("kept", [], 1), ("masked", ["--truncated", "mask", "--max-response-tokens", "8"], 2)):
        asked.clear()
        assert train([*flags, *masked, "--name", name]) == 0
        assert asked.count(16) == passes  # the others are the probe's
        recording = load_rollouts(tmp_path / "runs" / name / "rollouts" / "step-000001.pt")
        sampler = [number for group in recording.groups for rollout in group.rollouts for number in rollout.logprobs]
        assert (recording.old_logprobs - torch.tensor(sampler)).abs().max() < 1e-4


@pytest.mark.parametrize(
    "flags,message",
    [
        (["--algo", "a2c"], "error: There is no algorithm 'a2c'. --algo takes: reinforce"),
        (["--model", "./nowhere"], "error: There is no model folder nowhere."),
        (["--model", "small"], "error: step.pt holds token id 33"),
    ],
)
def test_what_cannot_be_replayed_is_said(tmp_path, capsys, recording, flags, message):
    save_rollouts(tmp_path / "step.pt", recording)
    make_small_vocabulary(tmp_path / "small")
    assert main(["step.pt", *flags]) == 2
    assert capsys.readouterr().err.startswith(message)


def make_small_vocabulary(folder):
    """A model that knows fewer tokens than the recording has."""
    make_model(folder, tied=True)
    model = Qwen2ForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(20)
    model.save_pretrained(folder)
