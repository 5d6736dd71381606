"""`python -m grpo.reward_model`, on the embedded model: it learns a rule, and is served as it was trained."""

import json

import pytest
import torch
from transformers import AutoTokenizer

from grpo import plugins
from grpo.files import write_jsonl
from grpo.model.scalar_model import ScalarModel, conversations, load_scalar_model
from grpo.model.settings import OptimizerSettings
from grpo.presets import EMBEDDED_MODEL
from grpo.problems.preferences import Comparison
from grpo.reward_model import Encoded, encoded, main, slopes_of
from grpo.reward_model_flags import Options


def comparison(i):
    """The response that says yes is better; the lengths say nothing."""
    yes, no = f"yes{i % 7}" + "." * (i % 3), f"no{i % 5}" + "." * (i % 4)
    return {"prompt": f"{i}+{i}=", "chosen": yes, "rejected": no}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_jsonl(folder / "rule.jsonl", [comparison(i) for i in range(60)])
    flags = ["--data", str(folder / "rule.jsonl"), "--runs-dir", str(folder), "--name", "rm"]
    assert main([*flags, "--epochs", "4", "--comparisons-per-update", "8", "--learning-rate", "1e-3"]) == 0
    return folder / "rm"


def test_it_learns_a_rule(trained):
    found = json.loads((trained / "report.json").read_text())
    assert found["comparisons"] == 6 and found["accuracy"]["value"] > 0.95 and found["log_loss"] < 0.3
    assert found["length_alone"] < 0.95
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 4 * 7 and rows[-1]["held_out/accuracy"] == found["accuracy"]["value"]
    assert rows[0]["train/loss"] > 0.4 and rows[-1]["train/loss"] < 0.2
    assert rows[0]["train/learning_rate"] == 1e-3 and rows[-1]["train/learning_rate"] == pytest.approx(1e-3 / 28)


def test_what_is_served_is_what_was_trained(trained, monkeypatch):
    """One by one through rewards/reward_model.py, against the batch that the trainer makes."""
    monkeypatch.setenv("GRPO_REWARD_MODEL", str(trained / "model"))
    prompts, responses = ["1+1=", "27+9=", [{"role": "user", "content": "4+4="}]], ["yes", "no." * 9, ""]
    served = plugins.load("reward_model", "rewards")(responses, prompts)
    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    encode = plugins.load("reward_model:encode", "rewards")
    ids = [encode(tokenizer, prompt, response, 512) for prompt, response in zip(prompts, responses, strict=True)]
    learner = ScalarModel(load_scalar_model(str(trained / "model")), OptimizerSettings(), 4096)
    torch.testing.assert_close(learner.scores(conversations(ids)), torch.tensor(served), atol=5e-6, rtol=1e-5)
    assert served[0] > served[1] + 1


def test_a_comparison_weighs_one_whatever_its_pairs():
    """Two of them, of 1 and of 3 pairs: each has half of the batch's loss."""
    each = [Encoded("p", ((1,), (2,)), (1, 0)), Encoded("q", ((1,), (2,), (3,)), (2, 1, 0))]
    options = Options(centre=0.0)
    loss, slope = slopes_of(torch.zeros(5), each, options)
    assert loss == pytest.approx(0.693147, abs=1e-6)
    # Of -log sigmoid at 0 the slope is -1/2: over 1 pair and 2 comparisons, and over 3 pairs and 2 comparisons.
    assert slope.tolist() == pytest.approx([-0.25, 0.25, -1 / 6, 0.0, 1 / 6])


def test_a_conversation_that_ends_in_the_pad_token_is_refused(tmp_path, capsys):
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_MODEL)
    write_jsonl(tmp_path / "pad.jsonl", [{"prompt": "1", "chosen": "a" + tokenizer.pad_token, "rejected": "b"}])
    assert main(["--data", str(tmp_path / "pad.jsonl"), "--runs-dir", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "end in its pad token" in said.err and "nothing is held out" in said.out


def test_what_is_too_long_is_cut_at_the_left():
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_MODEL)
    (found,) = encoded([Comparison("12", ("34", "567"), (1, 0))], tokenizer, 3)
    assert [tokenizer.decode(ids) for ids in found.ids] == ["234", "567"]
