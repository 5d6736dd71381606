"""The command with --lora-rank: it learns, resumes bit for bit, saves adapter and merged model, and refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from small_runs import SMALL, rows, run, timeless
from transformers import AutoModelForCausalLM, AutoTokenizer
from updates import PAD, uneven_groups

from grpo.card import settled
from grpo.config import Config
from grpo.errors import UserError
from grpo.model.batching import collate
from grpo.model.checkpoint import damage
from grpo.model.lora import LoraSettings
from grpo.model.policy import Policy
from grpo.policies import make_policy, make_reference
from grpo.presets import EMBEDDED_MODEL
from grpo.replay import main as replay
from grpo.resolve import parse, resolve
from grpo.train import main

LORA = ["--lora-rank", "4"]
QUICK = [*LORA, "--engine", "hf", "--eval-problems", "0", "--max-response-tokens", "16"]
IDS = torch.arange(3, 43).view(2, 20)


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def model_of(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("engine", [pytest.param("vllm", marks=pytest.mark.vllm), "hf"])
def test_two_steps_and_two_more_are_four_to_the_last_bit(tmp_path, engine):
    flags = [*LORA, "--algo", "grpo", "--engine", engine, "--updates-per-step", "2", "--save-every", "2"]
    flags += ["--eval-problems", "0", "--steps"]
    whole, part = run(tmp_path, *flags, "4", name="whole"), run(tmp_path, *flags, "2", name="part")
    assert main(["--name", "part", "--resume", "--steps", "4"]) == 0
    assert [timeless(row) for row in rows(part)] == [timeless(row) for row in rows(whole)] and len(rows(whole)) == 4
    for place in ("model/model.safetensors", "adapter/adapter_model.safetensors", "samples.jsonl"):
        assert (part / place).read_bytes() == (whole / place).read_bytes()
    assert (whole / "checkpoint-4" / "adapter_model.safetensors").read_bytes() == (
        whole / "adapter" / "adapter_model.safetensors"
    ).read_bytes()
    assert rows(whole)[0]["policy/kl"] > 0 and rows(whole)[-1]["policy/sync_gap"] < 1e-4


def test_a_checkpoint_holds_the_adapter_and_the_run_saves_both_models(tmp_path, capsys):
    folder = run(tmp_path, *QUICK, "--steps", "1", "--save-every", "1", "--learning-rate", "0.01")
    printed = capsys.readouterr().out
    assert "a LoRA adapter of rank 4 with 0.0M" in printed and "run/adapter (the LoRA adapter alone" in printed
    checkpoint = folder / "checkpoint-1"
    assert damage(checkpoint) is None and not list(checkpoint.glob("model*"))
    (checkpoint / "adapter_model.safetensors").write_bytes(b"half of it")
    assert damage(checkpoint) == "adapter_model.safetensors is not what was written"

    saved = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert (saved["r"], saved["lora_alpha"]) == (4, 8.0)
    assert saved["base_model_name_or_path"] == str(EMBEDDED_MODEL)
    base, merged = model_of(EMBEDDED_MODEL), model_of(folder / "model")
    assert base.state_dict().keys() == merged.state_dict().keys()
    before = base(IDS).logits
    adapted = PeftModel.from_pretrained(base, str(folder / "adapter")).eval()
    torch.testing.assert_close(adapted(IDS).logits, merged(IDS).logits, rtol=1e-4, atol=1e-4)
    alone = AutoPeftModelForCausalLM.from_pretrained(str(folder / "adapter"), dtype=torch.float32).eval()
    assert torch.equal(alone(IDS).logits, adapted(IDS).logits) and (before - adapted(IDS).logits).abs().max() > 0.1
    for place in ("adapter", "model"):
        assert AutoTokenizer.from_pretrained(folder / place)("12+34=") == AutoTokenizer.from_pretrained(EMBEDDED_MODEL)(
            "12+34="
        )


@pytest.mark.vllm
def test_the_merged_model_loads_in_vllm(tmp_path):
    """In a process of its own: a second vLLM in this one would take the session's down when it goes."""
    folder = run(tmp_path, *QUICK, "--steps", "1", "--learning-rate", "0.01") / "model"
    program = (
        "import sys, torch\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "from grpo.engines.vllm_engine import VLLMEngine\n"
        "folder = sys.argv[1]\n"
        "settings = dict(end_ids=[257], max_tokens=64, max_sequences=2, kv_cache_gib=0.1)\n"
        "engine = VLLMEngine(folder, AutoTokenizer.from_pretrained(folder), **settings)\n"
        "ids = list(range(40, 70))\n"
        "model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()\n"
        "table = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)\n"
        "expected = table.gather(-1, torch.tensor(ids[1:])[:, None]).squeeze(-1)\n"
        "torch.testing.assert_close(torch.tensor(engine.score([ids])[0]), expected, atol=1e-4, rtol=1e-4)\n"
        "print('agrees')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, folder], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("agrees\n"), done.stderr


def test_rollouts_are_replayed_on_the_model_that_the_run_began_with_and_on_the_merged_one(tmp_path, capsys):
    folder = run(tmp_path, *QUICK, "--steps", "1", "--save-rollouts", "--learning-rate", "0.01")
    path = str(folder / "rollouts" / "step-000001.pt")
    assert replay([path, "--device", "cpu", "--out", "start.json"]) == 0
    assert json.loads(Path("start.json").read_text())["gap"] < 1e-5  # the first step is sampled by the base itself
    assert replay([path, "--device", "cpu", "--model", str(folder / "model"), "--out", "end.json"]) == 0
    assert json.loads(Path("end.json").read_text())["gap"] > 1e-3
    assert replay([path, "--device", "cpu", "--model", str(folder / "adapter")]) == 2
    assert "adapter is a LoRA adapter and not a whole model" in capsys.readouterr().err


def test_a_reference_after_a_resume_is_the_base_still(tmp_path):
    folder = run(tmp_path, *QUICK, "--algo", "grpo", "--steps", "2", "--save-every", "2", "--learning-rate", "0.01")
    config = parse(["--name", "run", "--resume"])
    checkpoint = folder / "checkpoint-2"
    policy = make_policy(str(checkpoint), config)
    reference = make_reference(policy, config, checkpoint)
    base = Policy(model_of(EMBEDDED_MODEL), temperature=1.0, micro_batch_tokens=4096)
    batch = collate(uneven_groups(), PAD)
    assert torch.equal(reference.logprobs(batch), base.logprobs(batch))
    assert (policy.logprobs(batch) - base.logprobs(batch)).abs().max() > 0.01


@pytest.mark.parametrize(
    "flags,message",
    [
        (["--lora-alpha", "8"], "--lora-alpha without --lora-rank: all weights would be trained"),
        (["--lora-targets", "q_proj"], "--lora-targets without --lora-rank"),
        (["--lora-rank", "0"], "--lora-rank 0 must be more than 0."),
        ([*LORA, "--lora-alpha", "0"], "--lora-alpha 0.0 must be more than 0."),
        (
            [*LORA, "--reference-device", "cpu"],
            "--reference-device cpu with --lora-rank: the reference is the",
        ),
        (
            [*LORA, "--lora-targets", "q_proj", "wq"],
            "--lora-targets wq: .* these: q_proj, .*, down_proj. The em",
        ),
        ([*LORA, "--lora-targets", "lm_head"], "--lora-targets lm_head: .*The embedding and the output head, whose"),
    ],
)
def test_what_is_refused_in_one_paragraph_before_a_model_is_loaded(capsys, monkeypatch, flags, message):
    def too_late(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("grpo.policies.load_model", too_late)
    assert main([*SMALL, *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    with pytest.raises(UserError, match=message):
        settled(parse([*SMALL, *flags]))


@pytest.mark.parametrize("place", ["adapter", "checkpoint-1"])
def test_an_adapter_is_no_model(tmp_path, capsys, place):
    folder = run(tmp_path, *QUICK, "--steps", "1", "--save-every", "1")
    capsys.readouterr()
    flags = ["--model", str(folder / place), "--data", "arithmetic", "--wandb", "off"]
    for command in (flags, [*flags, "--plan-for", "24"], [*flags, *LORA]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert f"{place} is a LoRA adapter and not a whole model. Give the merged model" in error
        assert error.count("\n") == 1


def test_a_run_goes_on_with_its_own_adapter_alone(tmp_path, capsys):
    run(tmp_path, *QUICK, "--steps", "1", "--save-every", "1")
    flags = ["--name", "run", "--resume", "--steps", "2"]
    for other in (["--lora-rank", "8"], ["--lora-alpha", "3"], ["--lora-targets", "q_proj"]):
        assert main([*flags, *other]) == 2
        assert f"{other[0]} {other[1]}" in (said := capsys.readouterr().err) and "the run has" in said
    assert main([*flags, *LORA]) == 0


def test_what_is_left_unset():
    config = resolve(Config(lora_rank=8))
    assert config.lora == LoraSettings(8, 16.0, None) and config.learning_rate == pytest.approx(2e-3)
    assert resolve(Config(lora_rank=8, learning_rate=3e-5, lora_alpha=1.0)).learning_rate == 3e-5
    assert resolve(Config(model="some/model", name="a", lora_rank=8)).learning_rate == pytest.approx(1e-5)
    assert resolve(Config()).lora is None and resolve(Config()).learning_rate == 2e-4


def test_some_layers_alone(tmp_path):
    folder = run(tmp_path, *QUICK, "--lora-targets", "q_proj", "mlp.up_proj", "--steps", "1")
    names = {name.split(".")[-3] for name in load_file(folder / "adapter" / "adapter_model.safetensors")}
    assert names == {"q_proj", "up_proj"}
    one, two = model_of(EMBEDDED_MODEL).state_dict(), model_of(folder / "model").state_dict()
    changed = {name.split(".")[-2] for name in one if not torch.equal(one[name], two[name])}
    assert changed == {"q_proj", "up_proj"}


def test_precision_bfloat16_trains_a_bfloat16_adapter_and_resumes_bit_for_bit(tmp_path):
    flags = [*QUICK, "--device", "cpu", "--precision", "bfloat16", "--save-every", "1", "--steps"]
    whole, part = run(tmp_path, *flags, "2", name="whole"), run(tmp_path, *flags, "1", name="part")
    assert main(["--name", "part", "--resume", "--steps", "2"]) == 0
    for place in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (part / place).read_bytes() == (whole / place).read_bytes()
        assert {tensor.dtype for tensor in load_file(whole / place).values()} == {torch.bfloat16}


def test_on_a_card_the_base_is_loaded_in_bfloat16_and_the_adapter_is_float32(monkeypatch):
    config = resolve(Config(lora_rank=4))
    monkeypatch.setattr("grpo.policies.torch_device", lambda _: "cuda")
    asked = []

    def on_the_cpu(source, *, device, precision, trust_remote_code):
        asked.append((device, precision))
        return AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)

    monkeypatch.setattr("grpo.policies.load_model", on_the_cpu)
    policy = make_policy(config.model, config)
    assert asked == [("cuda", "bfloat16")]
    dtypes = {(p.requires_grad, p.dtype) for p in policy.model.parameters()}
    assert dtypes == {(False, torch.bfloat16), (True, torch.float32)}


@pytest.mark.slow
def test_it_learns_to_add(tmp_path):
    """From about 68% to more than 90% of held-out problems, with the learning rate that is used where none is given."""
    flags = ["--lora-rank", "8", "--steps", "40", "--eval-problems", "256", "--responses-per-problem", "8"]
    folder = run(tmp_path, *flags, "--problems-per-step", "16")
    before, after = (row["eval/accuracy"] for row in rows(folder) if "eval/accuracy" in row and row["step"] in (0, 40))
    assert before < 0.75 and after > 0.88
