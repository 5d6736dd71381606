"""The R1 format: 1.0 where the response is `<think>...</think>` and then `<answer>...</answer>`, else 0.0.

Each tag occurs exactly once, in that order, with text within and only white space around. The opening `<think>` may be
missing, because templates such as R1's end the prompt with it. Content is not judged: add this verifier to one that
judges it with a small weight (`--reward gsm8k think_format=0.1`). Format after arXiv 2501.12948, table 1.

>>> reward("<think>2 + 2 is 4.</think> <answer>4</answer>")
1.0
>>> reward("2 + 2 is 4.</think> <answer>4</answer>")
1.0
>>> reward("<think>2 + 2 is 4.</think> The answer is 4.")
0.0
"""

from __future__ import annotations


def reward(response: str) -> float:
    """1.0 where the response has the format, else 0.0."""
    text = response.strip().removeprefix("<think>")
    if "<think>" in text or any(text.count(tag) != 1 for tag in ("</think>", "<answer>", "</answer>")):
        return 0.0
    thought, _, rest = text.partition("</think>")
    between, _, rest = rest.partition("<answer>")
    answer, _, after = rest.partition("</answer>")
    return float(bool(thought.strip() and answer.strip()) and not between.strip() and not after)
