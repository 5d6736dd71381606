r"""Multiple choice: 1.0 where the letter that the response settles on is the gold letter, else 0.0.

The letter is read from the last `<answer>...</answer>` or balanced `\boxed{...}`; else from the last "the answer is" or
"answer:"; else from the last line. There it must come first, as in `B`, `(B)`, `B.`, `**B**`, `\text{(B)}`, `B) 42`,
`option B`, or be the only letter in brackets. A second letter on offer ("B or C"), or a "not", makes it no answer.

>>> reward("It boils at 100 degrees, so the answer is (B).", answer="B")
1.0
>>> reward(r"\boxed{\text{B. 100 degrees}}", answer="(b)")
1.0
>>> reward("The answer is B or C.", answer="B")
0.0
"""

from __future__ import annotations

import re

from ._marked import marked_answer

DECORATION = re.compile(r"\\(?:text|textbf|mathrm|mathbf|bf|rm)\b|\\[()\[\],;! ]|[*_`${}]")
INTRODUCTION = re.compile(
    r"^(?:(?:the|correct|best|final|option|choice|answer|is|so|thus|hence|therefore)\b[\s:,]*)*", re.IGNORECASE
)
LEADING = re.compile(
    r"\(\s*([A-Za-z])\s*\)|\[\s*([A-Za-z])\s*\]"  # (B), [b]
    r"|([A-Za-z])(?=\s*(?:$|[.):,;]|\s(?:because|since|as|for|or|and)\b))"  # alone, B., B), B because
    r"|([B-HJ-Z])(?=\s)"  # B Paris; but "A dog" and "I think" are words
)
BRACKETED = re.compile(r"\(\s*([A-Z])\s*\)")
RIVAL = re.compile(
    r"\(\s*([A-Z])\s*\)"
    r"|(?:\bor\b|\band\b|[,/&;|])\s*\(?([A-Za-z])\b(?=\s*(?:$|[.):,;/&|]|or\b|and\b))"
    r"|(?:^|\s)([A-Z])[.):](?=\s|$)"
    r"|^\s+([B-HJ-Z])(?=\s|$)"
)
LINE = 1000
"""Characters of the segment that are read."""


def reward(response: str, answer: str) -> float:
    """1.0 where the response's letter is the gold letter, else 0.0.

    answer: the gold letter in any of the spellings above, in either case.
    Raises: ValueError where the gold answer holds no letter.
    """
    gold = _letter(answer)
    if gold is None:
        raise ValueError(f"the column 'answer' must be a choice such as 'B' or '(B)', not {answer[:80]!r}.")
    return float(final_answer(response) == gold)


def final_answer(response: str) -> str | None:
    """The letter that the response settles on, as a capital."""
    return _letter(_final_segment(response))


def _final_segment(response: str) -> str:
    marked = marked_answer(response)
    if marked is not None:
        return marked
    announced = list(re.finditer(r"answer\W{0,3}(?:is\b|:)", response, re.IGNORECASE))
    rest = response[announced[-1].end() :] if announced else ""
    lines = (rest.strip() or response.strip()).splitlines() or [""]
    return lines[0] if rest.strip() else lines[-1]


def _letter(segment: str) -> str | None:
    """The one letter that the segment names, as a capital; None where it names none, several, or negates."""
    text = DECORATION.sub("", segment[:LINE]).strip(" \t\n:")
    text = INTRODUCTION.sub("", text)
    if re.search(r"\bnot\b|n't\b|\bneither\b", text, re.IGNORECASE):
        return None
    leading = LEADING.match(text)
    if leading is None:
        bracketed = {letter.upper() for letter in BRACKETED.findall(text)}
        return bracketed.pop() if len(bracketed) == 1 else None
    letter = next(filter(None, leading.groups())).upper()
    rivals = {next(filter(None, rival.groups())).upper() for rival in RIVAL.finditer(text[leading.end() :])}
    return letter if rivals <= {letter} else None
