"""The command line, what it resolves to, and what it refuses in one paragraph before a model is loaded."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, make_model

from grpo.algorithm.choices import PAIRED, WITH_CRITIC
from grpo.algorithm.table import ALGORITHMS
from grpo.config import Config
from grpo.errors import UserError
from grpo.flags import choices
from grpo.presets import EMBEDDED_MODEL
from grpo.resolve import parse, resolve
from grpo.train import main


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_defaults_are_the_embedded_preset_and_the_row():
    config = parse([])
    assert config.model == str(EMBEDDED_MODEL) and config.data == "arithmetic" and config.embedded
    assert (config.advantage, config.aggregation, config.kl_coef) == ("centered", "constant", 0.0)
    assert config.loss_constant == config.max_response_tokens
    assert config.name.startswith("dr_grpo-tiny-")


def test_another_model_takes_the_published_recipe():
    config = parse(["--model", "org/name"])
    assert (config.data, config.learning_rate, config.problems_per_step) == ("math12k", 1e-6, 128)
    assert (config.max_prompt_tokens, config.max_response_tokens, config.loss_constant) == (1024, 3000, 3000.0)
    assert (config.updates_per_step, config.responses_per_step // config.updates_per_step) == (8, 128)
    assert not config.embedded and config.name.startswith("dr_grpo-name-")


GAE = ("--advantage", "gae", "--uniform-groups", "keep", "--dynamic-sampling", "0")
KL, CLIPPED, SOFT = ("--kl-coef", "0.5"), ("--surrogate", "clipped"), ("--surrogate", "soft_gate")
CELLS = {  # another value than any row's, and the flags without which it would do nothing
    "advantage": ("optimal_baseline",), "aggregation": ("./mine.py:fn",), "surrogate": ("unclipped",),
    "ratio": ("product", *CLIPPED), "clip_low": ("0.11", *CLIPPED), "clip_high": ("0.33", *CLIPPED),
    "dual_clip": ("7.0", *CLIPPED), "ratio_cap": ("7.5", "--surrogate", "cispo"), "gate_positive": ("1.5", *SOFT),
    "gate_negative": ("1.75", *SOFT), "kl_coef": ("0.5",), "kl_estimator": ("k1", *KL), "kl_in": ("reward", *KL),
    "old_kl_coef": ("0.125",), "entropy_coef": ("0.25",), "truncated": ("mask",), "penalties": ("think_format",),
    "uniform_groups": ("drop",), "dynamic_sampling": ("9",), "importance": ("none",),
    "importance_low": ("0.75", "--importance", "mask"), "importance_cap": ("3.5", "--importance", "truncate"),
    "max_kl": ("0.125", "--surrogate", "unclipped"), "discount": ("0.5", *GAE), "gae_lambda": ("0.25", *GAE),
    "critic_lambda": ("0.75", *GAE), "whiten": ("False", *GAE), "value_clip": ("0.625", *GAE),
    "dpo_beta": ("0.3", "--advantage", "best_worst", "--surrogate", "naive"),
}  # fmt: skip


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_of_a_row_has_a_flag_that_wins(tmp_path, algo, cell):
    assert set(CELLS) == set(ALGORITHMS[algo].__dataclass_fields__) - {"paper", "departures", "notes"}
    (tmp_path / "mine.py").write_text("def fn(mask): return mask.float()\n")
    value, *needed = CELLS[cell]
    if ALGORITHMS[algo].advantage == "mean_normalized" and cell in ("penalties", "kl_in"):
        needed += ["--advantage", "centered"]  # which mean_normalized refuses
    if ALGORITHMS[algo].advantage in PAIRED and cell != "advantage" and "--advantage" not in needed:
        needed += ["--advantage", "centered"]  # pairs refuse many a cell
    if ALGORITHMS[algo].advantage in WITH_CRITIC and cell != "advantage" and "--advantage" not in needed:
        needed += ["--advantage", "centered"]  # a critic refuses what is about groups
        needed += ["--kl-in", "loss"] if cell != "kl_in" else []
    if ALGORITHMS[algo].max_kl and cell != "max_kl":
        needed += ["--max-kl", "0"]  # which a second update and most surrogates refuse
    updates = "1" if cell in ("dpo_beta", "max_kl") else "2"
    config = parse(["--algo", algo, "--updates-per-step", updates, f"--{cell.replace('_', '-')}", value, *needed])
    expected = f"('{value}',)" if cell == "penalties" else value
    assert str(getattr(config, cell)) == str(getattr(config.row, cell)) == expected
    assert parse(["--algo", algo]).row == ALGORITHMS[algo]


def test_loss_constant_is_its_own_option():
    config = parse(["--max-response-tokens", "50", "--loss-constant", "3000"])
    assert (config.loss_constant, config.max_response_tokens) == (3000.0, 50)


def test_several_rewards_with_weights():
    assert parse(["--reward", "math_answer", "think_format=0.1"]).reward == ("math_answer", "think_format=0.1")


def test_reward_is_that_of_the_data_unless_it_is_given(tmp_path):
    assert parse([]).reward == parse(["--data", "math12k"]).reward == ("math_answer",)
    config = parse(["--data", "countdown", "--algo", "dapo"])
    assert config.reward == config.to_json()["reward"] == ("countdown",)
    assert config.verifiers == ("countdown", "overlong=0.5")
    assert parse(["--data", "countdown", "--reward", "think_format"]).reward == ("think_format",)
    (tmp_path / "mine.py").write_text("REWARD = ('exact',)\ndef load(split): return []\n")
    assert parse(["--data", "./mine.py"]).reward == ("exact",)


BAD_VALUES = [
    (["--schedule", "cosine", "--warmup-updates", "100"], "--schedule cosine would do nothing: the warm-up"),
    (["--template", "qwen"], "There is no template 'qwen'. There are: auto, chat, qwen_math, r1, plain, and files"),
    (["--template", "./nowhere.txt"], "--template ./nowhere.txt cannot be read: No such file"),
    (["--template", "r1", "--system", "Think."], "--system with --template r1: there is no {system} in it"),
    (["--chat-args", "enable_thinking"], "--chat-args enable_thinking is not NAME=VALUE"),
    (["--template", "plain", "--chat-args", "a=1"], "--chat-args a=1 are arguments of a chat template"),
    (["--advantage", "median"], "--advantage median does not exist. --advantage takes: raw, max_only, centered"),
    (
        ["--aggregation", "sum"],
        "--aggregation takes: sequence_mean, constant, token_mean, prompt_mean, or a function of your own",
    ),
    (
        ["--algo", "trpo", "--updates-per-step", "2"],
        "--max-kl 0.003 with --updates-per-step or --epochs-per-step above",
    ),
    (["--algo", "trpo", "--lora-rank", "4", "--schedule", "cosine"], "with --lora-rank and --schedule cosine: a trust"),
    (
        ["--algo", "trpo", "--learning-rate", "1e-3"],
        "--max-kl 0.003 with --learning-rate 0.001: a trust region makes one",
    ),
    (
        ["--algo", "trpo", "--max-grad-norm", "2", "--weight-decay", "0.1"],
        "with --max-grad-norm 2 and --weight-decay 0.1",
    ),
    (["--algo", "trpo", "--surrogate", "clipped"], "--max-kl 0.003 with --surrogate clipped: the line search"),
    (["--max-kl", "0.01"], "--max-kl 0.01 would do nothing: it needs --surrogate unclipped"),
    (["--algo", "trpo", "--max-kl", "-1"], "--max-kl -1.0 must not be negative"),
    (["--algo", "ppo", "--gae-lambda", "1.5"], "--gae-lambda 1.5 must be at least 0 and at most 1"),
    (["--algo", "ppo", "--discount", "-0.1"], "--discount -0.1 must be at least 0 and at most 1"),
    (["--algo", "ppo", "--dynamic-sampling", "2"], "by a critic a group of equal rewards teaches as much"),
    (["--algo", "ppo", "--uniform-groups", "drop"], "in a group of one all are equal"),
    (["--algo", "ppo", "--critic-warmup", "100"], "--critic-warmup 100 of --steps 100: the policy would never be"),
    (["--algo", "ppo", "--critic", "./nowhere"], "nowhere"),
    (["--critic-warmup", "2", "--critic", "x"], "--critic and --critic-warmup with --advantage centered: there is no"),
    (["--gae-lambda", "0.5"], "--gae-lambda 0.5 would do nothing: it needs --advantage gae"),
    (["--algo", "online_dpo", "--updates-per-step", "2"], "the slope of a pair's loss is computed once a step"),
    (["--algo", "online_dpo", "--epochs-per-step", "2"], "a second update would follow a stale one"),
    (["--algo", "online_dpo", "--dpo-beta", "0"], "--dpo-beta 0.0 must be more than 0"),
    (["--algo", "online_dpo", "--truncated", "mask"], "--advantage best_worst with --truncated mask"),
    (["--algo", "online_dpo", "--surrogate", "clipped"], "is that of the surrogate naive under its advantages"),
    (["--algo", "online_dpo", "--responses-per-problem", "1"], "in a group of one every advantage is 0"),
    (["--dpo-beta", "0.5"], "--dpo-beta 0.5 would do nothing: it needs --advantage best_worst"),
    (["--kl-target", "0.1"], "needs a --kl-coef to start from (now 0.0)"),
    (["--advantage", "./nowhere.py:rank"], "there is no file"),
    (["--loss-term", "mine"], "--loss-term takes: a function of your own as ./FILE.py:FUNCTION"),
    (
        ["--dual-clip", "3", "--surrogate", "cispo"],
        "--dual-clip 3.0 would do nothing: it needs",
    ),
    (["--ratio-cap", "9"], "--ratio-cap 9.0 would do nothing: it needs --surrogate cispo"),
    (
        ["--algo", "reinforce", "--clip-high", "0.3"],
        "--clip-high 0.3 would do nothing",
    ),
    (["--kl-estimator", "k2"], "--kl-estimator k2 would do nothing: it needs a --kl-coef"),
    (["--kl-in", "reward"], "--kl-in reward would do nothing: it needs a --kl-coef"),
    (["--algo", "dapo", "--uniform-groups", "keep"], "--uniform-groups keep with --dynamic-sampling 3"),
    (["--kl-in", "reward", "--kl-coef", "1", "--truncated", "mask"], "--kl-in reward with --truncated mask"),
    (["--dual-clip", "1.2"], "--dual-clip 1.2 must be more than 1 + --clip-high = 1.2"),
    (
        ["--surrogate", "geometric", "--ratio", "product"],
        "--ratio product would do nothing",
    ),
    (["--importance", "mask", "--importance-low", "9"], "--importance-low 9 is above --importance-cap 5"),
    (["--importance-low", "0.5"], "--importance-low 0.5 would do nothing: it needs --importance mask"),
    (["--old-kl-coef", "1"], "which is 0 with one update a step. Raise --updates-per-step"),
    (["--old-kl-target", "0.1"], "needs an --old-kl-coef to start from (now 0.0)"),
    (
        ["--algo", "maxrl", "--penalties", "overlong"],
        "--advantage mean_normalized divides by a group's mean reward",
    ),
    (["--gate-positive", "0"], "--gate-positive 0.0 must be more than 0"),
    (["--kl-horizon", "0"], "--kl-horizon 0 must be more than 0"),
    (["--ratio-cap", "0"], "--ratio-cap 0.0 must be more than 0"),
    (["--responses-per-problem", "1"], "in a group of one every advantage is 0"),
    (
        ["--problems-per-step", "3", "--updates-per-step", "5"],
        "3 problems x 8 responses = 24 responses, which do not",
    ),
    (["--problems-per-step", "0"], "--problems-per-step 0 must be more than 0"),
    (["--steps", "-1"], "--steps -1 must be more than 0"),
    (["--temperature", "0"], "--temperature 0.0 must be more than 0"),
    (["--temperature", "2.5"], "--temperature 2.5 must not be more than 2"),
    (["--temperature", "0.001"], "--temperature 0.001 must be 0.01 or more"),
    (["--eval-temperature", "3"], "--eval-temperature 3.0 must not be more than 2"),
    (["--head-dtype", "bfloat16", "--device", "cpu"], "--head-dtype bfloat16 saves time on a card"),
    (["--eval-responses", "0"], "--eval-responses 0 must be more than 0"),
    (["--eval-responses", "4", "--eval-temperature", "0"], "greedy responses to a problem are all the same"),
    (["--clip-low", "1.5"], "--clip-low 1.5 must be less than 1"),
    (["--seed", str(2**60)], "must be at least 0 and less than 2^32"),
    (["--seed", "-1"], "--seed -1 must be at least 0"),
    (["--kl-coef", "-0.1"], "--kl-coef -0.1 must not be negative"),
    (["--memory-fraction", "1.5"], "--memory-fraction 1.5 is a share"),
    (["--adam-beta2", "1"], "--adam-beta2 1.0 must be at least 0 and less than 1"),
    (["--resume", "--name", "nowhere"], "there is no run folder"),
    (["--learning-rate", "nan"], "--learning-rate nan must not be negative"),
    (["--data", "arithmetics"], "neither a built-in of data/"),
]


@pytest.mark.parametrize("flags,message", BAD_VALUES)
def test_bad_values_are_one_paragraph(flags, message):
    with pytest.raises(UserError) as error:
        parse(flags)
    assert message in str(error.value).replace("\n", " ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name,value",
    [
        ("kl_estimator", "k4"),
        ("surrogate", "ppo"),
        ("ratio", "group"),
        ("kl_in", "both"),
        ("truncated", "drop"),
        ("engine", "sglang"),
        ("wandb", "yes"),
        ("algo", "ppo_x"),
        ("device", "tpu"),
        ("optimizer", "sgd"),
        ("precision", "float16"),
        ("reference_device", "cuda"),
        ("schedule", "step"),
        ("save_dtype", "float16"),
    ],
)
def test_a_choice_that_does_not_exist_is_refused_by_name_with_those_that_do(capsys, name, value):
    """By the command line, whose types they are, and for a program that makes its own Config."""
    allowed = choices(Config)[name]
    with pytest.raises(SystemExit) as stop:
        main([f"--{name.replace('_', '-')}", value])
    printed = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert stop.value.code == 2 and f"invalid choice '{value}'" in printed
    assert all(f"'{choice}'" in printed for choice in allowed)
    with pytest.raises(UserError, match=f"takes: {', '.join(allowed)}"):
        resolve(Config(**{name: value}))


def test_the_advantages_former_names_are_still_accepted():
    assert parse(["--advantage", "group_normalised"]).advantage == "group_normalized"
    assert parse(["--advantage", "centred"]).row == ALGORITHMS["dr_grpo"]


def test_an_advantage_of_ones_own_may_name_a_verifier(tmp_path):
    (tmp_path / "gdpo.py").write_text(
        "def fn(rewards, by_verifier): return rewards - by_verifier['math_answer'].mean()\n"
    )
    assert parse(["--advantage", "./gdpo.py:fn"]).advantage == "./gdpo.py:fn"


def test_one_response_a_problem_is_fine_where_nothing_is_compared():
    assert parse(["--algo", "reinforce", "--responses-per-problem", "1"]).responses_per_problem == 1


def test_an_existing_run_is_not_overwritten(tmp_path):
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    (tmp_path / "runs" / "taken" / "config.json").touch()
    with pytest.raises(UserError, match="exists already"):
        parse(["--name", "taken"])


def test_cuda_asked_for_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        resolve(Config(device="cuda"))


def test_unknown_flag_ends_with_status_2(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--learning-rat", "1"])
    assert stop.value.code == 2
    assert "--learning-rate" in capsys.readouterr().err  # tyro names the nearest flag


# What needs files: through the command itself, with no model loaded -----------------------------------------------


def refused(capsys, monkeypatch, *flags):
    """The message of the command on bad input; loading a model or starting an engine fails the test."""

    def too_late(*_, **__):
        raise AssertionError("a model was loaded before the input was checked")

    monkeypatch.setattr("grpo.policies.load_model", too_late)
    monkeypatch.setattr("grpo.setup.make_engine", too_late)
    assert main([*flags, "--wandb", "off"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1
    return printed


def test_unknown_reward_and_data(capsys, monkeypatch):
    assert "math_answer" in refused(capsys, monkeypatch, "--reward", "math_anser")
    assert "arithmetic" in refused(capsys, monkeypatch, "--data", "arithmetics")


def test_a_verifier_that_asks_for_a_missing_column(capsys, monkeypatch):
    message = refused(capsys, monkeypatch, "--reward", "countdown")
    assert "nums" in message and "problem" in message and "answer" in message


def test_an_optimizer_that_cannot_run_here(capsys, monkeypatch):
    offloaded = refused(capsys, monkeypatch, "--optimizer", "adamw_offload", "--device", "cpu")
    assert "computes on the CPU" in offloaded
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install torchao" in refused(capsys, monkeypatch, "--optimizer", "adamw_8bit", "--engine", "hf")


@pytest.mark.parametrize(
    "text,part", [("", "no rows"), ("{broken\n", "line 1 is not JSON"), ('{"a": 1}\n', "'problem'")]
)
def test_bad_jsonl(capsys, monkeypatch, tmp_path, text, part):
    (tmp_path / "rows.jsonl").write_text(text)
    assert part in refused(capsys, monkeypatch, "--data", str(tmp_path / "rows.jsonl"))


def test_prompts_that_are_all_too_long(capsys, monkeypatch):
    assert "--max-prompt-tokens 2" in refused(capsys, monkeypatch, "--max-prompt-tokens", "2")


def test_model_folders_that_lack_something(capsys, monkeypatch, tmp_path):
    data = ("--data", "arithmetic", "--max-prompt-tokens", "16", "--max-response-tokens", "16")
    assert "no model folder" in refused(capsys, monkeypatch, "--model", "./nowhere", *data)
    (tmp_path / "empty").mkdir()
    assert "no config.json" in refused(capsys, monkeypatch, "--model", "./empty", *data)
    folder = make_model(tmp_path / "model", tied=True)
    weights = folder / "model.safetensors"
    weights.rename(folder / "pytorch_model.bin")
    assert "no .safetensors" in refused(capsys, monkeypatch, "--model", str(folder), *data)
    (folder / "pytorch_model.bin").rename(weights)
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer" in refused(capsys, monkeypatch, "--model", str(folder), *data)


def test_more_tokens_than_the_model_has_positions(capsys, monkeypatch, tmp_path):
    folder = make_model(tmp_path / "model", tied=True)
    message = refused(capsys, monkeypatch, "--model", str(folder), "--data", "arithmetic")
    assert "1024" in message and "3000" in message and "512" in message


def test_help_shows_every_flag_with_its_default():
    command, env = [sys.executable, "-m", "grpo.train", "--help"], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    for name in Config.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in done.stdout


def test_pairs_are_for_one_update_and_need_the_reference():
    """Whose model has 8 updates a step otherwise."""
    config = resolve(Config(algo="online_dpo", model="org/name", log_kl=False))
    assert config.updates_per_step == 1 and config.needs_reference and config.needs_old_logprobs
    other = resolve(Config(algo="dr_grpo", model="org/name", log_kl=False))
    assert other.updates_per_step == 8 and not other.needs_reference
