"""Documents beside the rewards in runs (--ptx-data): which are drawn, resumed, and refused."""

import json

import pytest
import torch
from conftest import make_policy
from small_runs import SMALL, finite, rows, run, same_end
from transformers import AutoTokenizer

from grpo import pretraining
from grpo.pretraining import Pretraining, make_pretraining
from grpo.problems.documents import Documents
from grpo.records import Group, Problem, Rollout
from grpo.resolve import parse
from grpo.train import main

FLAGS = ["--engine", "hf", "--eval-problems", "0", "--save-every", "2", "--updates-per-step", "2"]
PTX = ["--ptx-data", "sorted.jsonl", "--ptx-coef", "0.05", "--ptx-per-update", "3"]


@pytest.fixture(autouse=True)
def inside_a_folder_with_documents(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = [{"problem": f"sort {i}1", "solution": f"\\boxed{{1{i}}}"} for i in range(2, 9)]
    (tmp_path / "sorted.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))


def test_every_update_draws_others_until_all_were_drawn(tied_folder, monkeypatch):
    drawn = []
    monkeypatch.setattr(pretraining, "imitate", lambda policy, batch, coef: drawn.append(batch.targets[:, 0].tolist()))
    groups = [Group(Problem("", (1,), {}), (Rollout((10 + i,), (0.0,), "", False),)) for i in range(12)]
    made = Pretraining(Documents(groups, 0), per_update=3, updates=2, coef=0.1, seed=0)
    policy = make_policy(tied_folder)
    for step in (1, 2, 3):
        for update in (0, 1):
            made.imitate(policy, step, update)
    assert sorted(first for update in drawn[:4] for first in update) == list(range(10, 22))  # a pass over the documents
    assert drawn[0] != drawn[4]  # and another in another order
    made.imitate(policy, 2, 1)
    assert drawn[-1] == drawn[3]


def test_a_run_imitates_and_a_resumed_one_is_the_same_bit_for_bit(tmp_path, capsys):
    whole = run(tmp_path, *FLAGS, *PTX, "--steps", "3", name="whole")
    assert "beside: sorted.jsonl, 3 of 7 documents an update (0 dropped, too long or short)" in capsys.readouterr().out
    part = run(tmp_path, *FLAGS, *PTX, "--steps", "2", name="part")
    assert main(["--name", "part", "--resume", "--steps", "3"]) == 0
    same_end(whole, part)
    without = run(tmp_path, *FLAGS, "--steps", "3", name="without")
    steps = rows(whole)
    assert all(finite(row) and row["policy/ptx"] > 0 < row["policy/ptx_grad_norm"] for row in steps)
    assert "policy/ptx" not in rows(without)[0]
    assert steps[-1]["policy/ptx"] < steps[0]["policy/ptx"]  # they are learnt
    assert steps[0]["reward/mean"] == rows(without)[0]["reward/mean"]  # the first responses are the same


def test_the_term_is_learnt_where_the_rewards_are_silent(tmp_path):
    """Every group is uniform under a reward that is always 0, so that what moves is the documents' doing."""
    (tmp_path / "nothing.py").write_text("def reward(response): return 0.0\n")
    flags = [*FLAGS, "--reward", "./nothing.py", "--steps", "6", "--learning-rate", "1e-3"]
    folder = run(tmp_path, *flags, "--ptx-data", "sorted.jsonl", "--ptx-coef", "1", "--ptx-per-update", "7")
    learnt = [row["policy/ptx"] for row in rows(folder)]
    assert learnt[-1] < 0.5 * learnt[0]


def test_a_critic_that_warms_up_leaves_the_documents_for_later(tmp_path):
    folder = run(tmp_path, *FLAGS, *PTX, "--algo", "ppo", "--critic-warmup", "1", "--steps", "2")
    first, second = rows(folder)
    assert first.get("policy/ptx") is None and second["policy/ptx"] > 0


def test_the_problem_stands_under_the_runs_template(tmp_path):
    config = parse([*SMALL, *PTX])
    tokenizer = AutoTokenizer.from_pretrained(config.model)
    made = make_pretraining(config, tokenizer)
    ids = [*made.documents.groups[0].problem.prompt_tokens, *made.documents.groups[0].rollouts[0].tokens]
    asked = [{"role": "user", "content": "sort 21"}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(ids) == f"{prompt}\\boxed{{12}}{tokenizer.eos_token}"
    assert torch.tensor(made.documents.groups[0].rollouts[0].logprobs).eq(0).all()


@pytest.mark.parametrize(
    "flags,said",
    [
        (["--ptx-coef", "0.1"], "--ptx-coef without --ptx-data: there are no documents to imitate"),
        (["--ptx-per-update", "4"], "--ptx-per-update without --ptx-data"),
        (["--ptx-data", "sorted.jsonl"], "--ptx-data sorted.jsonl without --ptx-coef: its weight"),
        (["--ptx-data", "sorted.jsonl", "--ptx-coef", "0"], "--ptx-coef 0.0 must be more than 0"),
        ([*PTX, "--ptx-per-update", "0"], "--ptx-per-update 0 must be more than 0"),
        (["--ptx-data", "nowhere.txt", "--ptx-coef", "1"], "nowhere.txt cannot be read"),
        (["--ptx-data", "empty.txt", "--ptx-coef", "1"], "empty.txt has no document in it"),
        ([*PTX, "--algo", "trpo"], "with --ptx-data: a trust region makes one step"),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_model_is_loaded(tmp_path, capsys, monkeypatch, flags, said):
    (tmp_path / "empty.txt").write_text("\n \n")
    monkeypatch.setattr("grpo.setup.make_policy", None)
    assert main([*SMALL, *flags]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_documents_that_are_all_too_long_are_refused_before_a_model_is_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("grpo.setup.make_policy", None)
    assert main([*SMALL, *PTX, "--max-prompt-tokens", "8", "--max-response-tokens", "1", "--engine", "hf"]) == 2
    assert "nothing can be learnt from its 7 documents" in " ".join(capsys.readouterr().err.split())
