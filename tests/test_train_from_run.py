"""A run that starts from the model of another: it begins where the other ended, template and tokenizer included."""

import pytest
from small_runs import HF, rows, run

from grpo.errors import UserError
from grpo.model.model_folder import check_model_files
from grpo.model.pretrained import load_tokenizer
from grpo.presets import EMBEDDED_MODEL


def test_it_begins_where_the_other_ended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    limits = [
        "--max-prompt-tokens",
        "32",
        "--max-response-tokens",
        "96",
        "--data",
        "arithmetic",
        "--eval-problems",
        "64",
    ]
    first = run(tmp_path, *HF, *limits, "--steps", "1", "--learning-rate", "5e-3", name="first")
    more = run(tmp_path, *HF, *limits, "--steps", "1", "--model", "runs/first/model", name="more")
    end, start = rows(first)[-1], rows(more)[0]
    evaluated = [name for name in end if name.startswith("eval/")]
    assert (end["step"], start["step"]) == (1, 0) and "eval/accuracy" in evaluated
    assert {name: start[name] for name in evaluated} == {name: end[name] for name in evaluated}
    assert start["eval/length"] != rows(first)[0]["eval/length"]  # the step has changed something
    before, after = (
        load_tokenizer(str(EMBEDDED_MODEL), trust_remote_code=False),
        load_tokenizer("runs/first/model", trust_remote_code=False),
    )
    assert after.chat_template == before.chat_template and after.get_vocab() == before.get_vocab()
    with pytest.raises(UserError, match=r"is the folder of a run, and no model. Its models are: runs/first/model"):
        check_model_files("runs/first")
