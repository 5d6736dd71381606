r"""Does the response's final answer equal the gold answer, as mathematics? 1.0 or 0.0.

>>> reward(r"... so the sum is \boxed{\frac{3}{6}}.", answer="1/2")
1.0
>>> reward(r"It is \boxed{0.5} or \boxed{2}.", answer="1/2")  # two answers are not an answer
0.0
>>> reward("Therefore she pays $1,250 in total.", answer="1250")  # no box: the final claim of the text
1.0
>>> reward(r"\boxed{y = 2x + 3}", answer="2x - y + 3 = 0")  # the same line
1.0
>>> reward(r"\boxed{47+385}", answer="432")  # the problem, not its answer
0.0

Four stages, each in files of pure functions, those of `_math/`:

1. *extract* (here): the last `\boxed{}` (several in one breath are a list), else the claim with which the text ends;
2. *clean* (`text`): one spelling for what LaTeX, Unicode and plain text spell in many ways (`\dfrac`, `½`, `<=`);
3. *compare* (`compare`, `shapes`): by shape (list, set, tuple or interval, union, matrix, relation), then word by word
   or, for a scalar, by value (`values`, `reader`): rationals exactly; whatever has names in it at pseudo-random
   rational points (the Schwartz-Zippel test); irrational numbers to 40 digits. What the reader does not know goes to
   math-verify (`fallback`);
4. *finished* (`finished`): an answer that only writes down what is to be computed is none.

Nothing here evaluates Python, every size (length, digits, exponents, nesting, elements) is limited before anything is
computed, and extraction is linear in the response. Where two conventions exist the stricter is taken, with these
exceptions, usual for the MATH data set: a missing unit, percent sign, currency or base is forgiven, a wrong one (or
another noun) is not; `1,2` equals `2,1` and `{1,2}` but `(1,2)` is ordered; a decimal equals a fraction from the fifth
significant digit on, an irrational number from the seventh on; a gold decimal of four digits or more takes a more exact
number that rounds to it; degrees equal radians; `nπ` is `kπ`, `8:34 p.m.` is `20:34`, and what a gold answer is called
may be left out.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from ._math.compare import equal
from ._math.finished import finished
from ._math.text import MATH, MAX_ANSWER, clean, closing, squash

MAX_TAIL = 3_000
"""Characters at the end of a response without a box in which its claim is looked for."""
MAX_BOXES = 32
"""Of a response, counted from its end."""
BOX = re.compile(r"(?:\\boxed|\\fbox|\x08oxed)(?![A-Za-z])\s*")  # the last is a `\b` that an escape has eaten
NUMBER = re.compile(
    r"(?<![\w.^{])[-+\u2212]?[$£€]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s?/\s?\d+|:\d\d)?"
    r"(?:\s?\\?%|[eE]-?\d+|\s?(?:\\times|×|x)\s?10\^\{?-?\d+\}?)?(?![\w^])|(?<!\w)\.\d+"
)
THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
CURRENCY = re.compile(r"(?<!\\)\$(?=\d[\d,]*(?:\.\d+)?(?:\s+[A-Za-z(*]|[.,;!?)*]+(?:\s|$)|\s*$|\*\*))", re.M)
CUE = re.compile(
    r"\b(?:answer|(?:correct|right|best) (?:option|choice|statement))\b[^.\n:=]{0,60}?(?:\bis\b|\bare\b|:|=)"
    r"(?:\s*(?:equal to|simply|therefore|thus|:|option|choice|\*+|(?=\n)))*\s*",
    re.I,
)
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z*$\\(])|\n+")
VERB = re.compile(r"\b(?:is|are|was|were|be|equals?|makes?|has|have|had|takes?|costs?|total of|result in)\b", re.I)
JOINED = re.compile(r"\s*,?\s*(?:\b(?:and|or)\b|,)\s*(?:[A-Za-z]\s*=\s*)?", re.I)
ARITHMETIC = re.compile(r"[\s*+\-/x×÷()]*+=?[\s*+\-/x×÷()]*+")
CONCLUSION = re.compile(r"\b(?:hence|thus|therefore|so)\b,?\s", re.I)
ASIDE = re.compile(r"\b(?:because|since|when|where|for which|if|attained|as long as)\b", re.I)
LONE_NAME = re.compile(r"\\?[A-Za-z]+(?:_\{?\w+\}?)?(?:\(\w\))?")
OPTION = re.compile(
    r"\b(?:option|choice|answer)\s*(?:is\s*)?:?\s*\(?([A-J])\b|\(([A-J])\)|\b([A-J]) is (?:the )?correct"
)


def prepare() -> None:
    """Import math-verify, which takes a second: called once in each worker, before any limit applies."""
    import math_verify  # noqa: F401


def reward(response: str, answer: Any, prompt: Any = None) -> float:
    """1.0 where the final answer of `response` equals `answer`, else 0.0.

    answer: a string or a number, or a list of alternatives of which any one is right.
    prompt: text or chat messages; where given, neither a response that repeats it nor one that gives back a formula of
        it is read as having answered.
    """
    golds = [str(gold) for gold in (answer if isinstance(answer, list | tuple) else [answer]) if gold is not None]
    asked = _texts(prompt)
    readings = extract(without_echo(response, asked))
    return float(any(_claims(reading, gold, asked) for gold in golds for reading in readings))


def final_answer(response: str) -> str | None:
    r"""What the response claims, in the one spelling of `clean`: equal texts are one answer in a vote.

    r"\boxed{\dfrac{1}{2}}" and r"so $\frac12$."  -> r"\frac12"; 0.5 is another text.
    """
    readings = extract(response)
    if not readings:
        return None
    # Of a claim in words the last reading is the expression in it; a list of boxes is one claim, the first.
    parts = next((reading for reading in reversed(readings) if len(reading) == 1), readings[0])
    if any(len(part) > MAX_ANSWER for part in parts):
        return None
    return ",".join(map(_vote, parts)) or None


def _vote(part: str) -> str:
    r"""One part as text: `\$1,250` -> `1250`, `\text{(A)}` -> `(A)`. A currency is forgiven, so it splits no vote."""
    text = THOUSANDS.sub(lambda match: match[0].replace(",", ""), squash(clean(part)).replace("¤", ""))
    return text[1:-1] if re.fullmatch(r"\{[^{}]*\}", text) else text


def _claims(parts: tuple[str, ...], gold: str, asked: list[str]) -> bool:
    """Several parts are right where each of them is the gold answer, or all together are the list that it is."""
    whole = ", ".join(parts)
    right = (len(parts) > 1 and equal(whole, gold)) or all(equal(part, gold) for part in parts)
    return right and finished(whole, gold, asked)


def _texts(prompt: Any) -> list[str]:
    """The texts of a prompt: itself, or the contents of its messages."""
    found = [prompt] if isinstance(prompt, str) else [m.get("content") for m in prompt or [] if isinstance(m, dict)]
    return [text for text in found if isinstance(text, str)]


def without_echo(response: str, asked: list[str]) -> str:
    """`response` less any verbatim copy of what was asked (of twenty characters or more) in it."""
    for text in asked:
        if len(text.strip()) >= 20:
            response = response.replace(text.strip(), " ")
    return response


def extract(response: str) -> list[tuple[str, ...]]:
    r"""Readings of the final claim, each a tuple of the parts that it lists.

    r"... \boxed{1} and \boxed{2}"   -> [("1", "2")]
    "The answer is 18 dollars."      -> [("18 dollars",), ("18",)]
    """
    _, think, rest = response.rpartition("</think>")
    response = rest if think and rest.strip() else response
    found = boxes(response)
    if not found:
        return [(text,) for text in spoken(response)]
    last = [found[-1]]
    for before, after in reversed(list(pairwise(found))):
        if not _one_breath(response[before[1] : after[0]]):
            break
        last.insert(0, before)
    readings = [tuple(content for _, _, content in last)]
    if 1 < len(found) <= 6 and len(last) == 1:  # a gold list may be answered part by part, a box each
        readings.append(tuple(content for _, _, content in found))
    return readings


def boxes(text: str) -> list[tuple[int, int, str]]:
    r"""(start, end, content) of the last outermost boxes. A box cut off by the end of the text has no content."""
    found: list[tuple[int, int, str]] = []
    for match in deque(BOX.finditer(text), maxlen=MAX_BOXES):
        start, inside = match.start(), match.end()
        if found and start < found[-1][1]:
            continue
        end = closing(text, inside) if text[inside : inside + 1] == "{" else None
        if end is not None:
            content, after = text[inside + 1 : end], end + 1
        else:  # `\boxed 5$`, or a brace forgotten before the end of the formula
            cut = re.compile(r"\$|\\\)|\\\]|\n\n").search(text, inside, inside + MAX_ANSWER)
            after = cut.start() if cut else len(text)
            content = text[inside:after].removeprefix("{") if cut else ""
        if re.search(r"(?:^|[=$(:\[])\s*-\s*$", text[max(0, start - 20) : start]):
            content = f"-({content})"
        found.append((start, after, content))
    return found


def _one_breath(between: str) -> bool:
    """Whether the text between two boxes only joins them: `$ and $`, `,`, `$, $y = `."""
    if len(between) > 60 or "\n\n" in between or "." in between:
        return False
    return not re.sub(r"\\?\b(?:and|or|text|quad|qquad|mbox)\b|[A-Za-z]\w?\s*=|[\s$,;&*:(){}\[\]\\]", "", between)


def spoken(text: str) -> Iterator[str]:
    """Readings of the claim of a response without a box, the whole claim before the expression in it."""
    low = text.lower()
    if (start := low.rfind("<answer>")) >= 0:
        inner = text[start + 8 : start + 8 + MAX_TAIL].partition("</")[0].strip()
        yield from _readings(inner, first=False)
        return
    if (start := text.rfind("####")) >= 0:
        yield from _readings(text[start + 4 : start + 4 + MAX_TAIL].strip().partition("\n")[0], first=True)
        return
    tail = CURRENCY.sub("", text[-MAX_TAIL:])
    tail = MATH.sub(lambda match: " ".join(match.group().split()), tail)
    tail = re.sub(r":\s*\n+\s*(?=\$|\\\[|\\\(|\*\*)", ": ", tail).strip()
    for cue in reversed(list(CUE.finditer(tail))):
        claim = SENTENCE.split(tail[cue.end() :].lstrip(" *\n"), maxsplit=1)[0]
        if not re.match(r"\W*not\b", claim) and (readings := list(_readings(claim, first=True, cued=True))):
            yield from readings
            return
    sentences = [sentence for sentence in SENTENCE.split(tail) if sentence.strip(" *$")]
    for sentence in reversed(sentences[-4:]):
        if readings := list(_readings(sentence, first=False)):
            yield from readings
            return


def _readings(claim: str, first: bool, cued: bool = False) -> Iterator[str]:
    """The claim itself where it may be one, the option letter that it names, the expression that it states."""
    bold = re.findall(r"\*\*(.+?)\*\*", claim)
    plain = claim.replace("**", "").strip(" *\n").rstrip(".")
    found = _expression(plain, first)
    if plain and (cued or first or len(plain) <= 60) and (cued or found or len(plain) <= 30):
        yield plain
    if verdict := re.match(r"(?i:yes|no)\b(?=[,.]|$)", plain):
        yield verdict.group()
    if letters := {next(filter(None, groups)) for groups in OPTION.findall(plain)}:
        if len(letters) == 1:
            yield letters.pop()
    if bold and not first and (emphasised := _expression(bold[-1], first=True)):
        yield emphasised
    elif found:
        yield found


def _expression(sentence: str, first: bool) -> str:
    """The formula or number (or several joined by `and`) that a sentence states; "" where it has none.

    first: take the first, as after "the answer is"; else the one after the verb, after `=`, or the last.
    """
    spans = _stated(sentence)
    if not first:
        starts = [m.end() for m in CONCLUSION.finditer(sentence) if spans and m.end() <= spans[-1][0]]
        spans = [span for span in spans if span[0] >= max(starts, default=0)]
    ends = [m.start() for m in ASIDE.finditer(sentence) if spans and m.start() >= spans[0][1]]
    spans = [span for span in spans if span[1] <= min(ends, default=len(sentence))]
    runs: list[tuple[int, int, str]] = []
    for start, end, content in spans:
        between = sentence[runs[-1][1] : start] if runs else ""
        if re.search(r"\bnot (?:equal to )?$", sentence[max(0, start - 20) : start]):
            continue
        if runs and JOINED.fullmatch(between):
            runs[-1] = (runs[-1][0], end, f"{runs[-1][2]}, {content}")
        elif between.strip() and ARITHMETIC.fullmatch(between):
            whole = content if "=" in between else f"{runs[-1][2]}{between.replace('x', '*')}{content}"
            runs[-1] = (runs[-1][0], end, whole)
        else:
            runs.append((start, end, content))
    if not runs or first:
        return runs[0][2] if runs else ""
    for verb in reversed(list(VERB.finditer(sentence))):
        for start, _, content in runs:
            if 0 <= start - verb.end() <= 25:
                return content
    equations = [content for start, _, content in runs if "=" in content or sentence[:start].rstrip(" $").endswith("=")]
    return equations[-1] if equations else runs[-1][2]


def _stated(sentence: str) -> list[tuple[int, int, str]]:
    """(start, end, text) of the formulas and the numbers outside them; mere names only where there is nothing else."""
    spans, end = [], 0
    for match in MATH.finditer(sentence):
        spans += [(m.start(), m.end(), m.group()) for m in NUMBER.finditer(sentence, end, match.start())]
        spans.append((match.start(), match.end(), next(filter(None, match.groups()))))
        end = match.end()
    spans += [(m.start(), m.end(), m.group()) for m in NUMBER.finditer(sentence, end)]
    return [span for span in spans if not LONE_NAME.fullmatch(span[2].strip())] or spans
