"""The command, end to end, with real vLLM: every row runs, the first command learns, and real models and data fit."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, make_tokenizer
from small_runs import SMALL, finite, rows, run
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from grpo.algorithm.choices import WITH_CRITIC
from grpo.algorithm.table import ALGORITHMS
from grpo.logs.metric_names import METRICS

VLLM = pytest.mark.vllm
EVERY_ROW = [(algo, "hf") for algo in ALGORITHMS]
EVERY_ROW += [pytest.param(algo, "vllm", marks=VLLM) for algo in ("grpo", "dr_grpo", "dapo")]


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("algo,engine", EVERY_ROW)
def test_every_row_runs(tmp_path, capsys, algo, engine):
    folder = run(tmp_path, "--algo", algo, "--engine", engine, "--steps", "2")
    before, *steps = rows(folder)
    assert [row["step"] for row in (before, *steps)] == [0, 1, 2]
    elsewhere = {"memory/device_gib", "time/wait"}
    keys = set(METRICS) - elsewhere - {key for key in METRICS if "<" in key or key.startswith("eval/")}
    row_of = {
        "critic/": ALGORITHMS[algo].advantage in WITH_CRITIC,
        "policy/trust_": ALGORITHMS[algo].max_kl > 0,
        "policy/ptx": False,  # documents belong to no row: test_pretraining
    }
    for start, has_them in row_of.items():
        those = {key for key in METRICS if key.startswith(start)}
        assert all((those <= set(row)) == has_them == bool(those & set(row)) for row in steps)
        keys -= those
    for row in steps:
        assert keys <= set(row) and finite(row)
        trained = row["group/dropped"] < 1  # else no token is left to compare on
        assert row["policy/engine_gap"] < 1e-4 if trained else row["policy/engine_gap"] is None
        assert row["policy/sync_gap"] < 1e-4
        assert row["time/step"] == pytest.approx(
            sum(row[f"time/{s}"] for s in ("generate", "verify", "update", "sync", "other"))
        )
        assert row["time/idle"] == pytest.approx((row["time/verify"] + row["time/other"]) / row["time/step"])
    assert {"eval/accuracy", "eval/length"} <= set(steps[-1]) and "eval/accuracy" in before
    assert steps[0]["policy/kl"] == pytest.approx(0.0, abs=1e-6)
    assert steps[1]["policy/kl"] > 1e-6 if steps[1]["group/dropped"] < 1 else steps[1]["policy/kl"] is None
    config = json.loads((folder / "config.json").read_text())
    assert "group/refills" in steps[0]
    assert config["algo"] == algo and config["advantage"] == ALGORITHMS[algo].advantage
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [1, 1, 2, 2]
    printed = capsys.readouterr().out
    assert f"sampler: {engine}" in printed and "4 problems x 4 responses = 16 responses" in printed
    assert "--model Qwen/Qwen2.5-Math-1.5B" in printed and f"model    {os.path.join('runs', 'run', 'model')}" in printed


@VLLM
def test_the_saved_model_loads_in_transformers_and_vllm(tmp_path, tokenizer):
    from grpo.engines.vllm_engine import VLLMEngine
    from grpo.records import Problem

    folder = run(tmp_path, "--engine", "hf", "--steps", "1") / "model"
    saved = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    engine = VLLMEngine(
        str(folder), saved, end_ids=[saved.eos_token_id], max_tokens=96, max_sequences=4, kv_cache_gib=0.1
    )
    prompt = saved.apply_chat_template(
        [{"role": "user", "content": "12+34="}], add_generation_prompt=True, return_dict=False
    )
    (group,) = engine.generate([Problem("", tuple(prompt), {})], 1, temperature=0.0, max_tokens=64, seed=0)
    (rollout,) = group.rollouts
    with torch.no_grad():
        table = model(torch.tensor([[*prompt, *rollout.tokens]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    expected = table.gather(-1, torch.tensor(rollout.tokens)[:, None]).squeeze(-1)
    torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, atol=1e-4, rtol=0)
    assert r"\boxed{" in rollout.text


def test_a_users_verifier_and_data_plug_in_with_no_edit(tmp_path):
    (tmp_path / "short.py").write_text(
        "def reward(response, answer, target_length):\n    return 1.0 if len(response) <= target_length else 0.0\n"
    )
    lines = [{"question": f"{i}+1=", "gold": str(i + 1), "target_length": 9} for i in range(40)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = run(
        tmp_path,
        "--data",
        "./mine.jsonl",
        "--problem-column",
        "question",
        "--answer-column",
        "gold",
        "--steps",
        "1",
        "--reward",
        "math_answer",
        "./short.py=0.5",
        "--engine",
        "hf",
    )
    row = rows(folder)[-1]
    total = row["reward/math_answer"] + 0.5 * row["reward/short"]
    assert row["reward/mean"] == pytest.approx(total, abs=0.03)  # less where a response was truncated


SMALL_MODEL = dict(
    vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=512, eos_token_id=1, pad_token_id=0, bos_token_id=None,
)  # fmt: skip
OTHER_MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL_MODEL)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL_MODEL, head_dim=32)),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SMALL_MODEL, head_dim=32, query_pre_attn_scalar=32, final_logit_softcapping=2.0)
    ),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=320, n_embd=64, n_layer=2, n_head=2, n_positions=512, eos_token_id=1, bos_token_id=None)
    ),
}


@pytest.mark.parametrize("engine", [pytest.param("vllm", marks=VLLM), "hf"])
@pytest.mark.parametrize("name", OTHER_MODELS)
def test_other_architectures(tmp_path, name, engine):
    """Tied and untied heads, another layout, squashed logits: after updates, sampler and trainer still agree."""
    torch.manual_seed(0)
    OTHER_MODELS[name]().save_pretrained(tmp_path / name)
    make_tokenizer().save_pretrained(tmp_path / name)
    (tmp_path / "any.py").write_text("def reward(tokens): return float(sum(tokens) % 7)\n")
    folder = run(
        tmp_path, "--model", str(tmp_path / name), "--data", "arithmetic", "--reward", "./any.py", "--steps", "2",
        "--learning-rate", "1e-3", "--max-prompt-tokens", "32", "--max-response-tokens", "64", "--truncated", "keep",
        "--temperature", "0.7", "--engine", engine, "--eval-problems", "0",
    )  # fmt: skip
    for row in rows(folder):
        assert row["policy/grad_norm"] > 0
        assert row["policy/sync_gap"] < 1e-4 and row["policy/engine_gap"] < 1e-4


REAL_LIMIT_GIB = 8.0


@VLLM
def test_real_tokenizer_vocabulary_and_problems(tmp_path, shared_data):
    """GSM8K under Qwen2.5's tokenizer, a random two-layer Qwen2 with all 151,936 tokens: 3 steps through vLLM."""
    model = tmp_path / "qwen2-two-layers"
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "qwen2.5")
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=151_936,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    ).save_pretrained(model)
    tokenizer.save_pretrained(model)
    command = [
        sys.executable, "-m", "grpo.train", "--algo", "grpo", "--model", str(model), "--template", "qwen_math",
        "--data", str(shared_data / "datasets" / "gsm8k_train.jsonl"), "--steps", "3", "--problems-per-step", "2",
        "--responses-per-problem", "4", "--max-prompt-tokens", "200", "--max-response-tokens", "48",
        "--eval-problems", "4", "--learning-rate", "1e-4", "--engine", "vllm", "--wandb", "off", "--name", "real",
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    steps = rows(tmp_path / "runs" / "real")[1:]
    assert [row["step"] for row in steps] == [1, 2, 3]
    for row in steps:
        assert finite(row) and row["policy/engine_gap"] < 1e-4 and row["policy/sync_gap"] < 1e-4
        assert row["policy/entropy"] > 10  # a random model over 151,936 tokens: ln 151,936 is 11.9
        assert row["memory/host_gib"] < REAL_LIMIT_GIB
    sample = json.loads((tmp_path / "runs" / "real" / "samples.jsonl").read_text().splitlines()[0])
    assert sample["columns"]["answer"] and sample["verifiers"] == {"math_answer": 0.0}
    dropped = next(line for line in done.stdout.splitlines() if line.startswith("data:"))
    assert "longer than 200 tokens" in dropped and "(0 dropped" not in dropped


@pytest.mark.slow
def test_the_first_command_learns_its_task(tmp_path):
    """`python -m grpo.train --algo dr_grpo`, as the README has it: held-out accuracy from 40-75% to 90% or more."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    done = subprocess.run(
        [sys.executable, "-m", "grpo.train", "--algo", "dr_grpo"], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    table = rows(folder)
    assert 0.40 <= table[0]["eval/accuracy"] <= 0.75
    assert table[-1]["step"] <= 100 and table[-1]["eval/accuracy"] >= 0.90
    assert table[-1]["eval/length"] > 1.2 * table[0]["eval/length"]  # it learns to write the steps down
    assert max(row["policy/sync_gap"] for row in table[1:]) < 1e-4
    assert list((folder / "wandb").glob("offline-run-*"))


def test_the_base_install_without_vllm_runs(tmp_path):
    """No vllm in sight: the command says so and trains with transformers generation."""
    code = "import sys; sys.modules['vllm'] = None; from grpo.train import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *SMALL, "--steps", "1", "--name", "base"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert "sampler: hf (vllm is NOT installed" in done.stdout
    assert rows(tmp_path / "runs" / "base")[-1]["step"] == 1
