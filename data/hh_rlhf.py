r"""HH-RLHF (arXiv 2204.05862): 161k + 8.6k pairs of conversations about help and harm; MIT licence. Comparisons.

    load("test")[0]  ->  {"id": "hh_rlhf/test/0", "prompt": [{"role": "user", "content": "..."}], "chosen": "...",
                          "rejected": "...", "problem": the same as prompt}

For `python -m grpo.reward_model` and `python -m grpo.dpo`; the prompts train a policy as well, with a reward model for
a verifier. A pair whose conversations differ before the last answer is left out.
"""

from __future__ import annotations

import re
from pathlib import Path

from ._source import folder_rows, hub_rows, of_split

HUB_NAME = "Anthropic/hh-rlhf"
FILES = {"train": "hh_rlhf_train.jsonl", "test": "hh_rlhf_test.jsonl"}
COLUMNS = ("chosen", "rejected")
REWARD = ("reward_model",)
ROLES = {"Human": "user", "Assistant": "assistant"}


def load(split: str, data_dir: str | Path | None = None) -> list[dict]:
    """Rows of "train" or "test", from a folder or else from the hub; raises what these raise (`_source`)."""
    if data_dir is not None:
        rows = folder_rows(data_dir, of_split(FILES, split), COLUMNS)
    else:
        rows = hub_rows(HUB_NAME, COLUMNS, split=split)
    found = []
    for i, row in enumerate(rows):
        chosen, rejected = messages(row["chosen"]), messages(row["rejected"])
        prompt = chosen[:-1]
        if not prompt or prompt != rejected[:-1] or chosen[-1]["role"] != "assistant" != rejected[-1]["role"]:
            continue
        texts = {"chosen": chosen[-1]["content"], "rejected": rejected[-1]["content"]}
        found.append({"id": f"hh_rlhf/{split}/{i}", "prompt": prompt, **texts, "problem": prompt})
    return found


def messages(text: str) -> list[dict[str, str]]:
    """The turns of a conversation that is one text.

    >>> messages("\\n\\nHuman: Hi\\n\\nAssistant: Hello")
    [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]
    """
    parts = re.split(r"\n\n(Human|Assistant):", text)[1:]
    return [{"role": ROLES[who], "content": said.strip()} for who, said in zip(parts[::2], parts[1::2], strict=True)]
