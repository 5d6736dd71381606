"""--plan, the plan that every run on a card begins with, and the refusal of a run that cannot fit."""

import json
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, make_model

from grpo.card import card_of, others, settled, widths_of
from grpo.config import Config
from grpo.errors import UserError
from grpo.memory.adapter import Adapter
from grpo.memory.stages import GIB, total
from grpo.memory.stages import stages as stages_of
from grpo.memory.widths import Widths
from grpo.presets import EMBEDDED_MODEL
from grpo.resolve import parse, resolve
from grpo.train import main

sys.path.append(str(ROOT / "tests" / "memory"))
from real_shapes import qwen_config

SMALL = ("--max-prompt-tokens", "100", "--max-response-tokens", "400", "--data", "arithmetic")


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def card(monkeypatch):
    """Have torch report a card of so many GiB, some of them taken."""

    def put_in(size, taken=0.0, bfloat16=True):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (int((size - taken) * GIB), int(size * GIB)))

    return put_in


@pytest.fixture
def no_model(monkeypatch):
    def too_late(*_, **__):
        raise AssertionError("a model was loaded")

    for place in ("grpo.policies.load_model", "grpo.setup.make_engine"):
        monkeypatch.setattr(place, too_late)


@pytest.fixture
def large(tmp_path):
    """A folder with the config of a model of 1.5B parameters, and nothing else."""
    config = json.loads((EMBEDDED_MODEL / "config.json").read_text()) | dict(
        hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, vocab_size=151936,
        max_position_embeddings=4096, layer_types=["full_attention"] * 28,
    )  # fmt: skip
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_a_plan_for_a_card_that_is_elsewhere(capsys, no_model, large):
    assert main(["--model", large, "--plan-for", "79"]) == 0
    printed = capsys.readouterr().out
    assert "1.54B parameters, on a card of 79.0 GiB, by arithmetic" in printed
    assert "log-probabilities" in printed and "51.0 GiB without" in printed
    assert "picked: --micro-batch-tokens 16384 --concurrency 512 --memory-fraction 0.46" in printed
    assert printed.strip().splitlines()[-1].startswith("It fits: at least")


def test_a_plan_that_does_not_fit_ends_with_1_and_names_what_to_change(capsys, no_model, large):
    flags = ["--kl-coef", "0.1", "--gradient-checkpointing", "False", "--micro-batch-tokens", "16384"]
    assert main(["--model", large, "--plan-for", "44.5", *flags]) == 1
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("It does not fit a card of 44.5 GiB: in the stage 'update'")
    for way in ("--gradient-checkpointing True saves", "--micro-batch-tokens 4024 saves", "--log-kl False) saves 2.9"):
        assert way in last


def test_each_saving_is_what_the_plan_with_that_flag_has(large):
    flags = ["--model", large, "--plan-for", "44.5", "--kl-coef", "0.1", "--gradient-checkpointing", "False"]
    _, plan = settled(parse([*flags, "--micro-batch-tokens", "16384"]))
    _, changed = settled(parse([*flags[:-1], "True", "--micro-batch-tokens", "16384"]))
    (recomputed,) = [load for name, load in others(plan.config, plan.load).items() if "checkpointing" in name]
    assert total(stages_of(recomputed)["update"]) == total(stages_of(changed.load)["update"])


def test_plan_without_a_card_asks_for_its_size(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--plan"]) == 2
    assert "--plan-for 24" in capsys.readouterr().err


def test_plan_is_for_the_card_that_is_here(capsys, card, no_model):
    card(23.5, taken=3)
    assert main(["--plan"]) == 0
    printed = capsys.readouterr().out
    assert "on a card of 23.5 GiB" in printed and "other programs" in printed
    assert card_of(resolve(Config(plan=True))) == (23.5 * GIB, 2 * GIB)  # one of them is our own context


def test_a_run_on_a_card_begins_with_the_table(capsys, card, no_model):
    card(23.5)
    with pytest.raises(AssertionError, match="a model was loaded"):
        main(["--engine", "hf", "--wandb", "off"])
    printed = capsys.readouterr().out
    assert "log-probabilities" in printed and "picked: --micro-batch-tokens 16384" in printed


def test_a_run_that_cannot_fit_is_refused_in_one_paragraph_before_a_model_is_loaded(capsys, card, no_model, large):
    card(23.5)
    assert main(["--model", large, "--wandb", "off", "--engine", "hf", *SMALL]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: It does not fit a card of 23.5 GiB") and error.count("\n") == 1
    assert not Path("runs").exists()


def test_a_card_without_bfloat16_is_refused_in_one_paragraph_before_a_model_is_loaded(
    capsys, card, no_model, monkeypatch
):
    card(14.6, bfloat16=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    for flags in (["--wandb", "off"], ["--plan"]):
        assert main(["--engine", "hf", *flags]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: The card Tesla T4 has compute capability 7.5, and no arithmetic in bfloat16")
        assert error.count("\n") == 1
    assert main(["--engine", "hf", "--plan-for", "80"]) == 0  # a card that is elsewhere
    assert not Path("runs").exists()


def test_what_is_set_stays_and_what_is_unset_is_picked(card, large):
    card(79)
    config, plan = settled(parse(["--model", large, "--micro-batch-tokens", "5000"]))
    assert config.micro_batch_tokens == plan.load.micro_batch_tokens == 5000
    assert config.memory_fraction == plan.load.memory_fraction
    assert config.concurrency == plan.load.generated_sequences > 256  # responses are seldom of full length
    assert plan.picked == (f"--concurrency {config.concurrency}", f"--memory-fraction {config.memory_fraction}")
    config, plan = settled(parse(["--model", large, "--concurrency", "100"]))
    assert config.concurrency == plan.load.generated_sequences == 100
    share = plan.load.memory_fraction
    assert share < settled(parse(["--model", large]))[1].load.memory_fraction  # room for 100 of full length, not 256
    config, plan = settled(parse(["--model", large, "--memory-fraction", "0.3", "--engine", "hf"]))
    assert (config.micro_batch_tokens, config.memory_fraction, config.concurrency) == (16384, 0.3, 256)
    assert plan.load.memory_fraction is None  # transformers takes no share


@pytest.mark.parametrize("optimizer,bytes_of_state", [("adamw", 8), ("adamw_8bit", 2), ("adamw_offload", 0)])
def test_the_optimizer_counts_and_smaller_ones_are_named(large, optimizer, bytes_of_state):
    _, plan = settled(parse(["--model", large, "--plan-for", "23.5", "--optimizer", optimizer]))
    assert plan.load.widths.optimizer == bytes_of_state
    named = {name.split()[1] for name in others(plan.config, plan.load) if name.startswith("--optimizer")}
    assert named == {"adamw": {"adamw_8bit", "adamw_offload"}, "adamw_8bit": {"adamw_offload"}}.get(optimizer, set())
    assert plan.fits == (optimizer != "adamw")


def test_lora_is_planned_and_suggested(large, capsys):
    """Beside a base in bfloat16, which is the reference too, only the adapter has gradients and a state."""
    assert main(["--model", large, "--plan-for", "23.5", "--algo", "grpo"]) == 1
    assert "--lora-rank 16 saves" in capsys.readouterr().out
    assert main(["--model", large, "--plan-for", "15.5", "--algo", "grpo", "--lora-rank", "16"]) == 0
    _, plan = settled(parse(["--model", large, "--plan-for", "15.5", "--lora-rank", "16", "--lora-targets", "q_proj"]))
    adapter = Adapter(16, 4, ("q_proj",))
    assert plan.load.widths == Widths(weights=2, gradient=4, optimizer=8, adapter=adapter, pieces=True, chunk=2**25)
    assert not any("--lora-rank" in name for name in others(plan.config, plan.load))
    _, whole = settled(parse(["--model", large, "--plan-for", "79", "--kl-coef", "0.1"]))
    (suggested,) = [load for name, load in others(whole.config, whole.load).items() if name == "--lora-rank 16"]
    _, changed = settled(parse(["--model", large, "--plan-for", "79", "--kl-coef", "0.1", "--lora-rank", "16"]))
    assert suggested.widths == changed.load.widths


def test_seven_billion_parameters_fit_48_gb_three_24_and_one_and_a_half_16(tmp_path, capsys):
    for name, card in (("Qwen2.5-7B", "44.5"), ("Qwen2.5-3B", "23.5"), ("Qwen2.5-1.5B", "15.5")):
        qwen_config(name).save_pretrained(tmp_path / name)
        flags = ["--model", str(tmp_path / name), "--plan-for", card]
        assert (main(flags), main([*flags, "--lora-rank", "16"])) == (1, 0), name
        assert "It fits" in capsys.readouterr().out


def test_a_reference_counts_where_there_is_one(large):
    _, without = settled(parse(["--model", large, "--plan-for", "79"]))
    _, with_one = settled(parse(["--model", large, "--plan-for", "79", "--algo", "grpo"]))
    assert (without.load.widths.reference, with_one.load.widths.reference) == (0, 2)


def test_nothing_is_planned_on_a_cpu():
    config, plan = settled(parse([]))
    unset = (config.micro_batch_tokens, config.memory_fraction, config.concurrency)
    assert plan is None and unset == (8192, 0.4, 256)


def test_a_model_of_another_kind_runs_unplanned_and_has_no_plan(tmp_path, card, capsys):
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    card(23.5)
    config, plan = settled(parse(["--model", str(folder)]))
    unset = (config.micro_batch_tokens, config.memory_fraction, config.concurrency)
    assert plan is None and unset == (8192, 0.4, 256)
    assert main(["--model", str(folder), "--plan"]) == 2
    assert "type gpt2 is not planned" in capsys.readouterr().err


def test_a_resumed_run_is_planned_from_its_checkpoint(tmp_path, card):
    card(23.5)
    make_model(tmp_path / "runs" / "a" / "checkpoint-2", tied=True)
    config = resolve(Config(model="./gone", name="a", resume=True), given=())
    assert settled(config)[1].load.shape.layers == 2
    with pytest.raises(UserError, match="could not be loaded"):
        settled(resolve(Config(model="./gone", name="b")))


def test_every_flag_that_saves_bytes_is_planned_for():
    """README's table: weights and gradient by --precision, the state by --optimizer, 2 for a reference on the card."""

    def bytes_of(**flags):
        found = widths_of(resolve(Config(model="some/model", name="a", **flags)))
        return found.weights, found.gradient, found.optimizer, found.reference

    assert bytes_of() == (4, 4, 8, 0)
    assert bytes_of(log_kl=True) == (4, 4, 8, 2)
    assert bytes_of(kl_coef=0.04, reference_device="cpu") == (4, 4, 8, 0)
    assert bytes_of(precision="bfloat16", optimizer="adamw_8bit") == (2, 2, 2, 0)
    assert bytes_of(optimizer="adamw_offload") == (4, 4, 0, 0)
