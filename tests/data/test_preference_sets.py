"""The sets of comparisons: from a folder and from the hub alike, for a reward model, and their prompts for a policy."""

import datasets
import pytest

from grpo import plugins
from grpo.files import write_jsonl
from grpo.problems.preferences import read_rows
from grpo.problems.rows import data_rewards, load_rows, raw_rows

TALK = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: 2+2?\n\nAssistant:"
USER = {"role": "user", "content": "2+2?"}
SETS = {
    "hh_rlhf": (
        [{"chosen": f"{TALK} 4", "rejected": f"{TALK} 5"},
         {"chosen": f"{TALK} 4", "rejected": "\n\nHuman: a\n\nAssistant: b"}],
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}, USER],
        (1.0, 0.0),
        "test",
    ),
    "ultrafeedback": (
        [{"prompt": "2+2?", "chosen": [USER, {"role": "assistant", "content": "4"}],
          "rejected": [USER, {"role": "assistant", "content": "5"}], "score_chosen": 8.5, "score_rejected": 7.0}],
        "2+2?",
        (8.5, 7.0),
        "test_prefs",
    ),
}  # fmt: skip


@pytest.fixture(params=["folder", "hub"])
def rows_of(request, tmp_path, monkeypatch):
    """Set -> its rows, as they come from a folder, or through the `datasets` library."""

    def rows(name):
        raw, _, _, split = SETS[name]
        if request.param == "folder":
            write_jsonl(tmp_path / f"{name}_test.jsonl", raw)
            return raw_rows(name, "test", data_dir=tmp_path), load_rows(name, "test", data_dir=tmp_path)
        write_jsonl(tmp_path / "rows.jsonl", raw)
        files = f"  - {{split: {split}, path: rows.jsonl}}\n"
        (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
        monkeypatch.setitem(plugins.load(name, "data").__globals__, "HUB_NAME", str(tmp_path))
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        return raw_rows(name, "test"), load_rows(name, "test")

    return rows


@pytest.mark.parametrize("name", SETS)
def test_rows_are_comparisons_and_problems(name, rows_of):
    _, prompt, scores, _ = SETS[name]
    rows, problems = rows_of(name)
    (found,) = read_rows(rows, name).comparisons  # the pair that has no prompt in common is left out
    assert (found.prompt, found.responses, found.scores) == (prompt, ("4", "5"), scores)
    assert [row["problem"] for row in problems] == [prompt] and problems[0]["id"] == f"{name}/test/0"
    assert data_rewards(name) == ("reward_model",)
