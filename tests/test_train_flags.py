"""What one flag changes in a run, seen in its metrics: the cells of a row, and ingredients of one's own."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from small_runs import HF, finite, rows, run

from grpo.algorithm.table import ALGORITHMS


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_several_updates_and_epochs_use_the_old_policys_ratio(tmp_path):
    flags = [
        "--updates-per-step",
        "2",
        "--epochs-per-step",
        "3",
        "--learning-rate",
        "3e-3",
        "--steps",
        "2",
        "--engine",
        "hf",
    ]
    first, second = rows(run(tmp_path, *flags, "--eval-problems", "0"))
    # From the second update on the policy is not the one that sampled: the ratio leaves 1, and is clipped at this rate.
    assert first["policy/clip_low"] + first["policy/clip_high"] > 0
    assert (
        first["policy/engine_gap"] < 1e-4
    )  # measured against the recomputed old log-probabilities, not the moving ones
    assert finite(first) and finite(second)


def test_kl_coef_works_on_both_rows(tmp_path):
    """At step 1 the policy is the reference and k3 has no gradient; at step 2 the loss holds the KL on top."""
    for algo in ("grpo", "dr_grpo"):
        flags = ["--algo", algo, "--steps", "2", "--engine", "hf", "--eval-problems", "0"]
        without = rows(run(tmp_path, *flags, "--kl-coef", "0", name=f"{algo}-without"))
        held = rows(run(tmp_path, *flags, "--kl-coef", "2", name=f"{algo}-held"))
        assert held[0]["policy/grad_norm"] == pytest.approx(without[0]["policy/grad_norm"], rel=1e-4)
        assert held[1]["policy/kl"] == pytest.approx(without[1]["policy/kl"], rel=1e-3)  # the same weights and rollouts
        added = held[1]["policy/loss"] - without[1]["policy/loss"]
        if ALGORITHMS[algo].aggregation == "constant":  # sum of the token KLs over B times C
            expected = 2 * held[1]["policy/kl"] * held[1]["tokens"] / (16 * 96)
            assert added == pytest.approx(expected, rel=1e-3)
        assert added > 0 and held[1]["policy/grad_norm"] != without[1]["policy/grad_norm"]


def test_kl_in_the_reward_lowers_it_by_the_kl(tmp_path):
    """At step 1 there is none; from step 2 on the logged reward is off the verifiers' by the weighted KL."""
    flags = ["--algo", "rloo", "--kl-in", "reward", "--kl-coef", "0.5", "--steps", "2", "--engine", "hf"]
    first, second = rows(run(tmp_path, *flags, "--eval-problems", "0", "--learning-rate", "1e-3"))
    assert first["reward/mean"] == pytest.approx(first["reward/math_answer"], abs=1e-5)
    assert abs(second["reward/math_answer"] - second["reward/mean"]) > 1e-3


def test_an_entropy_bonus_keeps_the_policy_open(tmp_path):
    flags = ["--steps", "6", "--engine", "hf", "--eval-problems", "0", "--learning-rate", "1e-3"]
    plain = rows(run(tmp_path, *flags, name="plain"))[-1]["policy/entropy"]
    bonus = rows(run(tmp_path, *flags, "--entropy-coef", "1", name="bonus"))[-1]["policy/entropy"]
    assert bonus > 2 * plain


def test_dynamic_sampling_draws_anew_and_leaves_fewer_uniform_groups(tmp_path):
    flags = ["--steps", "2", "--engine", "hf", "--eval-problems", "0", "--responses-per-problem", "2"]
    plain = rows(run(tmp_path, *flags, name="plain"))
    again = rows(run(tmp_path, *flags, "--dynamic-sampling", "4", name="again"))
    assert sum(row["group/refills"] for row in plain) == 0 < sum(row["group/refills"] for row in again) <= 8
    assert sum(row["group/uniform"] for row in again) < sum(row["group/uniform"] for row in plain)
    assert sum(row["tokens_dropped"] for row in plain) == 0 < sum(row["tokens_dropped"] for row in again)
    assert again[-1]["tokens_total"] == sum(row["tokens"] + row["tokens_dropped"] for row in again)


def test_dynamic_sampling_ends_with_the_data_and_drops_what_it_could_not_replace(tmp_path):
    """Six problems, of which a step asks four: a redraw finds two more, and another none. Nothing is ever correct."""
    lines = [{"problem": f"{i}+1=", "answer": "never"} for i in range(6)]
    (tmp_path / "six.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = ["--data", "./six.jsonl", "--reward", "exact", "--algo", "dapo", "--engine", "hf", "--steps", "1"]
    (row,) = rows(run(tmp_path, *flags, "--eval-problems", "0"))
    assert row["group/refills"] == 1 and row["group/dropped"] == 1.0
    assert row["policy/grad_norm"] == 0.0 and finite(row)


@pytest.mark.parametrize("importance,cut", [("mask", 2), ("truncate", 1), ("none", 0)])
def test_a_sampler_that_is_off_for_one_token_in_a_thousand_is_seen_and_cut(tmp_path, monkeypatch, importance, cut):
    """Off by 5 nats, up and down by turns: a mean gap of 0.005 shows little, the share of cut weights tells."""
    from grpo.engines.hf_engine import HFEngine

    real, counted = HFEngine.generate, itertools.count()

    def off(value):
        number = next(counted)
        return value + (0 if number % 1000 else 5.0 if number // 1000 % 2 else -5.0)

    def generate(self, *arguments, on_response=None, **settings):
        groups = real(self, *arguments, on_response=on_response, **settings)
        if on_response is None:  # the probe of the sync, which would stop the run
            return groups
        spoilt = [replace(r, logprobs=tuple(map(off, r.logprobs))) for group in groups for r in group.rollouts]
        size = len(groups[0].rollouts)
        parts = range(0, len(spoilt), size)
        return [replace(g, rollouts=tuple(spoilt[i : i + size])) for g, i in zip(groups, parts, strict=True)]

    monkeypatch.setattr(HFEngine, "generate", generate)
    flags = ["--problems-per-step", "16", "--responses-per-problem", "8", "--steps", "1", "--engine", "hf"]
    (row,) = rows(run(tmp_path, *flags, "--eval-problems", "0", "--importance", importance))
    thousands = (row["tokens"] - 1) // 1000 + 1
    lower = (thousands + 1) // 2  # the first is lower, and so is every other: there w is e^5
    expected = {2: thousands, 1: lower, 0: 0}[cut] / row["tokens"]
    assert row["policy/importance_cut"] == pytest.approx(expected, rel=1e-5)
    assert row["policy/engine_gap"] == pytest.approx(5 * thousands / row["tokens"], rel=1e-3)
    assert row["policy/importance"] == pytest.approx(1.0, abs=0.01) and finite(row)


def test_ingredients_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def rank(rewards):\n    return rewards.argsort(dim=1).argsort(dim=1).float() - (rewards.shape[1] - 1) / 2\n"
        "def half(mask, constant):\n    return mask.float() / (2 * constant)\n"
    )
    flags = ["--advantage", "./mine.py:rank", "--aggregation", "./mine.py:half", "--loss-constant", "10"]
    folder = run(tmp_path, *flags, "--steps", "1", "--engine", "hf", "--eval-problems", "0", "--importance-cap", "0")
    (row,) = rows(folder)
    assert finite(row) and row["policy/grad_norm"] > 0
    advantages = [json.loads(line)["advantage"] for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert {abs(value) for value in advantages} <= {0.5, 1.5}


def test_a_loss_term_of_ones_own(tmp_path):
    """A constant 3 on every token adds 3 times the sum of the weights: tokens over B times C."""
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def three(logprobs, batch):\n"
        "    assert logprobs.shape == batch.mask.shape == batch.old_logprobs.shape\n"
        "    return torch.full_like(logprobs, 3.0)\n"
    )
    flags = ["--steps", "1", "--engine", "hf", "--eval-problems", "0"]
    (plain,) = rows(run(tmp_path, *flags, name="plain"))
    (more,) = rows(run(tmp_path, *flags, "--loss-term", "./mine.py:three", name="more"))
    assert more["policy/loss"] - plain["policy/loss"] == pytest.approx(3 * plain["tokens"] / (16 * 96), rel=1e-4)
    assert more["policy/grad_norm"] == pytest.approx(plain["policy/grad_norm"], rel=1e-5)


def test_without_a_reference_the_kl_is_null(tmp_path):
    (row,) = rows(run(tmp_path, "--steps", "1", "--log-kl", "False", "--engine", "hf", "--eval-problems", "0"))
    assert row["policy/kl"] is None


def test_truncated_responses(tmp_path):
    """With a budget too small to answer in, `zero` gives reward 0 and `mask` trains on no token."""
    flags = ["--steps", "1", "--max-response-tokens", "3", "--engine", "hf", "--eval-problems", "0"]
    (zero,) = rows(run(tmp_path, *flags, "--truncated", "zero", name="zero"))
    assert zero["length/truncated"] == 1.0 and zero["reward/mean"] == 0.0 and zero["group/uniform"] == 1.0
    (mask,) = rows(run(tmp_path, *flags, "--truncated", "mask", "--algo", "grpo", name="mask"))
    assert mask["length/truncated"] == 1.0 and mask["policy/grad_norm"] == 0.0 and finite(mask)


def test_a_run_with_a_schedule_falls_and_is_saved_in_bfloat16(tmp_path):
    flags = ["--schedule", "linear", "--steps", "2", "--learning-rate", "1e-3", "--save-dtype", "bfloat16"]
    folder = run(tmp_path, *HF, *flags)
    # 2 steps of 2 updates: 1, 3/4, 1/2, 1/4 of the rate; a row has that of its last update.
    assert [row["policy/learning_rate"] for row in rows(folder)[1:]] == pytest.approx([0.75e-3, 0.25e-3])
    saved = load_file(folder / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}
