r"""GSM8K: 7,473 training and 1,319 test problems of primary-school arithmetic in words (arXiv 2110.14168), MIT licence.

    load("test")[0]  ->  {"id": "gsm8k/test/0", "problem": "Janet's ducks lay 16 eggs ...", "answer": "18",
                          "solution": "Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 duck eggs a day. ..."}

The answer is what stands after `####`, without thousands separators. Beware of copies: the `gsm_8k` training set that
understand-r1-zero and oat ship has 8,792 rows, which are these two splits together. A model trained on it has seen the
test problems.
"""

from __future__ import annotations

from pathlib import Path

from ._source import folder_rows, hub_rows, of_split

HUB_NAME, CONFIG = "openai/gsm8k", "main"
FILES = {"train": "gsm8k_train.jsonl", "test": "gsm8k_test.jsonl"}
COLUMNS = ("id", "problem", "answer", "solution")


def load(split: str, data_dir: str | Path | None = None) -> list[dict]:
    """Rows of "train" or "test", from a folder or else from the hub; raises what these raise (`_source`)."""
    if data_dir is not None:
        return folder_rows(data_dir, of_split(FILES, split), COLUMNS)
    rows = []
    for i, row in enumerate(hub_rows(HUB_NAME, ("question", "answer"), split=split, config=CONFIG)):
        solution, _, answer = row["answer"].rpartition("####")
        rows.append(
            {
                "id": f"gsm8k/{split}/{i}",
                "problem": row["question"],
                "answer": answer.strip().replace(",", ""),
                "solution": solution.strip(),
            }
        )
    return rows
