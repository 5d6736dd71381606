"""Explaining an algorithm: its numbers are those computed by hand and those of the trainer's own loss."""

import math
from dataclasses import replace

import matplotlib.image
import pytest
import torch

from grpo.algorithm import curves
from grpo.algorithm.advantages import AdvantageInputs
from grpo.algorithm.choices import PAIRED, WITH_CRITIC
from grpo.algorithm.credit import spread
from grpo.algorithm.ingredients import load_advantage, load_aggregation
from grpo.algorithm.objective import Objective
from grpo.algorithm.row import Algorithm
from grpo.algorithm.table import ALGORITHMS
from grpo.explain import main
from grpo.records import Batch

LENGTHS = torch.tensor([10, 40])


def weights(advantage, aggregation):
    """Two groups of 4, of 10 and of 40 tokens a response, with one correct answer each; C = 50."""
    shown = curves.token_weights(Algorithm(advantage, aggregation), LENGTHS, responses=4, correct=1, constant=50.0)
    return shown.correct.tolist(), shown.incorrect.tolist()


@pytest.mark.parametrize(
    "aggregation,expected",
    [
        ("sequence_mean", [1 / 10, 1 / 40]),
        ("constant", [1 / 50, 1 / 50]),
        ("token_mean", [8 / 200, 8 / 200]),  # B over 4 * 10 + 4 * 40 tokens
    ],
)
def test_weight_at_two_lengths(aggregation, expected):
    correct, incorrect = weights("centered", aggregation)  # advantages 3/4 and -1/4
    assert correct == pytest.approx([0.75 * weight for weight in expected])
    assert incorrect == pytest.approx([0.25 * weight for weight in expected])


def test_weight_of_the_two_in_the_title():
    correct, incorrect = weights("group_normalized", "sequence_mean")  # deviation of 1, 0, 0, 0 with ddof 1: 1/2
    assert correct == pytest.approx([1.5 / 10, 1.5 / 40], rel=1e-3)
    assert incorrect == pytest.approx([0.5 / 10, 0.5 / 40], rel=1e-3)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_weight_is_the_gradient_of_the_trainers_loss(name):
    """Of the objective that trains, on the batch that the curves are of."""
    row = ALGORITHMS[name]
    shown = curves.token_weights(row, LENGTHS, responses=4, correct=1, constant=50.0)
    rewards = torch.tensor([[1.0, 0, 0, 0]] * 2)
    mask = (torch.arange(40) < LENGTHS[:, None]).repeat_interleave(4, dim=0)
    logprobs = torch.full((8, 40), -1.0, requires_grad=True)
    old = logprobs.detach()
    groups = torch.zeros(8, dtype=torch.int64)
    batch = Batch(
        inputs=torch.zeros(8, 40), targets=torch.zeros(8, 40), lengths=LENGTHS, mask=mask, sampler_logprobs=old,
        advantages=spread(load_advantage(row.advantage)(AdvantageInputs.of_rewards(rewards)), mask),
        token_weights=load_aggregation(row.aggregation, 50.0)(mask, groups), groups=groups,
        old_logprobs=old, ref_logprobs=old,
    )  # fmt: skip
    Objective(replace(row, entropy_coef=0.0))(batch, logprobs, torch.zeros_like(logprobs)).loss.backward()
    pull = 8 * logprobs.grad[[0, 4, 3, 7], 0].abs()
    torch.testing.assert_close(pull.double(), torch.cat([shown.correct, shown.incorrect]), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    "advantage,one,half",
    [
        ("centered", (7 / 8, -1 / 8), (1 / 2, -1 / 2)),
        ("leave_one_out", (1.0, -1 / 7), (4 / 7, -4 / 7)),
        ("raw", (1.0, 0.0), (1.0, 0.0)),
        # The deviation, of ddof 1, is sqrt(8 / 7 * p * (1 - p)): sqrt(1 / 8) and sqrt(2 / 7).
        ("group_normalized", (7 / 8 * 8**0.5, -1 / 8 * 8**0.5), (0.875**0.5, -(0.875**0.5))),
    ],
)
def test_advantage_at_one_eighth_and_one_half(advantage, one, half):
    shown = curves.group_advantages(Algorithm(advantage, "constant"), 8)
    for count, expected in ((1, one), (4, half)):
        assert (shown.correct[count].item(), shown.incorrect[count].item()) == pytest.approx(expected, rel=1e-3)
    assert shown.correct[0].isnan() and shown.incorrect[8].isnan()
    assert len(shown.correct) == 9 and not shown.correct[1:].isnan().any() and not shown.incorrect[:8].isnan().any()


def test_no_pull_outside_the_clip_range():
    ratios = torch.tensor([0.5, 0.79, 0.81, 1.0, 1.19, 1.27, 1.29, 3.0], dtype=torch.float64)
    value, pull = curves.surrogates(ALGORITHMS["grpo"], ratios)
    assert pull.correct.tolist() == pytest.approx([0.5, 0.79, 0.81, 1.0, 1.19, 0, 0, 0])
    assert pull.incorrect.tolist() == pytest.approx([0, 0, -0.81, -1.0, -1.19, -1.27, -1.29, -3.0])
    assert value.correct.tolist() == pytest.approx([0.5, 0.79, 0.81, 1.0, 1.19, 1.2, 1.2, 1.2])
    assert value.incorrect.tolist() == pytest.approx([-0.8, -0.8, -0.81, -1.0, -1.19, -1.27, -1.29, -3.0])
    _, higher = curves.surrogates(ALGORITHMS["dapo"], ratios)
    assert higher.correct.tolist() == pytest.approx([0.5, 0.79, 0.81, 1.0, 1.19, 1.27, 0, 0])


def test_pull_without_a_clip_range():
    ratios = torch.tensor([0.5, 2.0, 9.0], dtype=torch.float64)
    pulls = {name: curves.surrogates(ALGORITHMS[name], ratios)[1] for name in ("reinforce", "rloo", "cispo")}
    assert pulls["reinforce"].correct.tolist() == pytest.approx([1, 1, 1])
    assert pulls["rloo"].incorrect.tolist() == pytest.approx([-0.5, -2, -9])
    assert pulls["cispo"].incorrect.tolist() == pytest.approx([-0.5, -2, -5])


def test_kl_values_and_pulls():
    e = math.exp(1)
    expected = {
        "k1": ([-1, 0, 1], [-1, -1, -1]),
        "k2": ([0.5, 0, 0.5], [1, 0, -1]),
        "k3": ([e - 2, 0, 1 / e], [e - 1, 0, 1 / e - 1]),
        "k3_ratio": ([e - 2, 0, 1 / e], [1, 0, -1]),  # ratio * k3 adds k3 to the derivative 1 - exp(-d): d
    }
    for name, (values, pulls) in expected.items():
        value, pull = curves.kl_curves(name, torch.tensor([-1.0, 0.0, 1.0]))
        assert value.tolist() == pytest.approx(values, abs=1e-6) and pull.tolist() == pytest.approx(pulls, abs=1e-6)


def test_the_length_bias_in_words_and_in_a_picture(tmp_path, capsys):
    assert main(["grpo", "dr_grpo", "--out", str(tmp_path / "x.png")]) == 0
    printed = capsys.readouterr().out
    assert "under grpo a token of an incorrect answer of 1,000 tokens weighs 10x less than one of 100\n" in printed
    assert "under dr_grpo a token of an incorrect answer of 1,000 tokens weighs the same as one of 100\n" in printed
    # 7/8 + 7 * 1/8 over 4 * 1/2 + 4 * 1/2; and the same over deviations of sqrt(1/8) and sqrt(2/7)
    assert "under dr_grpo a group with 1 of 8 correct pulls 0.438 times as hard as one with 4 of 8" in printed
    assert "under grpo a group with 1 of 8 correct pulls 0.661 times as hard as one with 4 of 8" in printed
    clip = "under grpo a token of a correct answer has no pull above a ratio of 1.2, one of an "
    clip += "incorrect answer none below 0.8\n"
    assert clip in printed
    assert "under grpo the KL (0.04 k3) pulls" in printed and "under dr_grpo nothing pulls" in printed
    picture = matplotlib.image.imread(tmp_path / "x.png")
    assert picture.shape[0] > 600 and picture.shape[1] > 1000
    colours = (picture[..., :3] * 255).round().astype(int).reshape(-1, 3)
    second = (colours == (0xD5, 0x5E, 0x00)).all(axis=1).sum()
    assert second > 1000  # pixels of the second algorithm's lines


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_row_is_explained(tmp_path, capsys, name):
    assert main([name, "--out", str(tmp_path / "x.png"), "--max-response-tokens", "300"]) == 0
    printed = capsys.readouterr().out
    assert (
        printed.count(f"under {name} ") == 5 + (ALGORITHMS[name].advantage in PAIRED + WITH_CRITIC)
        and (tmp_path / "x.png").stat().st_size > 20_000
    )


@pytest.mark.parametrize(
    "name,sentence",
    [
        ("gspo", "has no pull above a ratio of 1.0004, one of an incorrect answer none below 0.9997"),
        ("dapo", "has no pull above a ratio of 1.28, one of an incorrect answer none below 0.8"),
        ("cispo", "no token ever loses its pull, which is 5 from a ratio of 5 on"),
        ("rloo", "no token ever loses its pull, which grows with the ratio"),
        ("reinforce", "no token ever loses its pull, which is 1 at any ratio"),
    ],
)
def test_clip_ranges_are_read_off_the_curves(name, sentence):
    assert sentence in curves.clip_sentence(name, ALGORITHMS[name])


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["a2c"], f"error: There is no algorithm 'a2c'. Name one or two of: {', '.join(ALGORITHMS)}."),
        (["grpo", "dapo", "gspo"], "error: 3 algorithms were named, and a picture shows one or two."),
        (["grpo", "--correct", "8"], "error: --correct 8 of --responses 8"),
        (["grpo", "--max-response-tokens", "20"], "error: --max-response-tokens 20 is too short a range"),
    ],
)
def test_what_cannot_be_drawn_is_said(tmp_path, capsys, arguments, message):
    assert main([*arguments, "--out", str(tmp_path / "x.png")]) == 2
    assert capsys.readouterr().err.startswith(message) and not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    "flags,message",
    [
        (["--advantage", "nosuch"], "error: --advantage nosuch does not exist."),
        (["--aggregation", "nosuch"], "error: --aggregation nosuch does not exist."),
        (["--clip-high", "-1"], "error: --clip-high -1.0 must not be negative."),
        (["--ratio-cap", "3"], "error: --ratio-cap 3.0 would do nothing: it needs --surrogate cispo."),
    ],
)
def test_cells_that_will_not_do_are_one_paragraph(capsys, flags, message):
    assert main(["grpo", *flags]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_cell_that_is_given_is_that_of_every_row(tmp_path, capsys):
    assert main(["grpo", "--dual-clip", "3", "--importance", "mask", "--out", str(tmp_path / "x.png")]) == 0
    printed = capsys.readouterr().out
    assert "one of an incorrect answer none below 0.8 or above 3" in printed
    assert "and not at all below 0.5 or above 5" in printed


def test_a_tokens_credit_looks_ahead_by_discount_and_decay():
    ahead = torch.tensor([0, 1, 3])
    found = curves.gae_weights(replace(ALGORITHMS["ppo"], discount=0.5, gae_lambda=0.8), ahead)
    assert found.tolist() == pytest.approx([1.0, 0.4, 0.064])
    assert curves.gae_weights(ALGORITHMS["ppo"], ahead).tolist() == [1, 1, 1]
    assert "14 tokens later counts half" in curves.gae_sentence("x", replace(ALGORITHMS["ppo"], gae_lambda=0.95))
    assert "all that comes after it" in curves.gae_sentence("x", ALGORITHMS["ppo"])
    assert "as right as it is" in curves.gae_sentence("x", replace(ALGORITHMS["ppo"], gae_lambda=0.0))


def test_a_pair_is_pulled_by_its_margin(tmp_path, monkeypatch, capsys):
    """sigmoid(-x) of the margin x; smoothed: that less 0.1; IPO is 0 at a margin of 1/2 and falls by 2 a unit."""
    margins = torch.tensor([-2.0, 0.0, 0.5, 2.0], dtype=torch.float64)
    shown = curves.pair_curves(replace(ALGORITHMS["online_dpo"], dpo_beta=0.25), margins)
    assert shown["sigmoid"][1].tolist() == pytest.approx(torch.sigmoid(-margins).tolist())
    assert shown["smoothed 0.1"][1].tolist() == pytest.approx((torch.sigmoid(-margins) - 0.1).tolist())
    assert shown["ipo"][0].tolist() == pytest.approx([6.25, 0.25, 0.0, 2.25])
    assert shown["ipo"][1].tolist() == pytest.approx([5.0, 1.0, 0.0, -3.0])
    monkeypatch.chdir(tmp_path)
    assert main(["online_dpo", "dr_grpo"]) == 0
    printed = capsys.readouterr().out
    assert "DPO at beta 0.1" in printed and "pulled apart by 0.05 a token while the policy is the reference" in printed
    assert (tmp_path / "explain.png").stat().st_size > 10_000
