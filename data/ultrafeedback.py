r"""UltraFeedback, binarized (arXiv 2310.16944): 61k + 2k pairs of answers, judged by GPT-4; MIT licence. Comparisons.

    load("test")[0]  ->  {"id": "ultrafeedback/test/0", "prompt": "...", "chosen": "...", "rejected": "...",
                          "score_chosen": 8.5, "score_rejected": 7.0, "problem": the same as prompt}

For `python -m grpo.reward_model` and `python -m grpo.dpo`; the prompts train a policy as well, with a reward model for
a verifier. A pair of equal scores is there, and those commands drop and count it.
"""

from __future__ import annotations

from pathlib import Path

from ._source import folder_rows, hub_rows, of_split

HUB_NAME = "HuggingFaceH4/ultrafeedback_binarized"
SPLITS = {"train": "train_prefs", "test": "test_prefs"}
FILES = {"train": "ultrafeedback_train.jsonl", "test": "ultrafeedback_test.jsonl"}
COLUMNS = ("prompt", "chosen", "rejected", "score_chosen", "score_rejected")
REWARD = ("reward_model",)


def load(split: str, data_dir: str | Path | None = None) -> list[dict]:
    """Rows of "train" or "test", from a folder or else from the hub; raises what these raise (`_source`)."""
    if data_dir is not None:
        rows = folder_rows(data_dir, of_split(FILES, split), COLUMNS)
    else:
        rows = hub_rows(HUB_NAME, COLUMNS, split=of_split(SPLITS, split))
    found = []
    for i, row in enumerate(rows):
        answers = {name: row[name][-1]["content"] for name in ("chosen", "rejected")}
        row = {**row, **answers, "id": f"ultrafeedback/{split}/{i}", "problem": row["prompt"]}
        found.append(row)
    return found
