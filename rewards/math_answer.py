r"""Does the response's final answer equal the gold answer? 1.0 or 0.0.

    reward(r"... so the sum is \boxed{\frac{3}{6}}.", "1/2")     -> 1.0
    reward(r"It is \boxed{0.5} or \boxed{2}.", "1/2")            -> 0.0    two answers are not an answer
    reward("Therefore she pays $1,250 in total.", "1250")        -> 1.0    no box: the final claim of the text
    reward(r"\boxed{y = 2x + 3}", "2x - y + 3 = 0")              -> 1.0    the same line

Four stages, each a group of pure functions:

1. *extract*: the last `\boxed{}` (several in one breath are a list), else the claim with which the text ends;
2. *clean*: one spelling for what LaTeX, Unicode and plain text spell in many ways (`\dfrac`, `½`, `\leqslant`, `<=`);
3. *compare*: by shape (list, set, tuple or interval, union, matrix, relation), then word by word or, for a scalar, by
   value: rationals exactly; whatever has names in it at pseudo-random rational points (the Schwartz-Zippel test);
   irrational numbers to 40 digits;
4. *math-verify*, imported and asked only about scalars that stage 3 cannot read.

Nothing here evaluates Python, every size (length, digits, exponents, nesting, elements) is limited before anything is
computed, and extraction is linear in the response. Where two conventions exist the stricter is taken, with these
exceptions, usual for the MATH data set: a missing unit, percent sign, currency or base is forgiven, a wrong one is not;
`1,2` equals `2,1` and `{1,2}` but `(1,2)` is ordered; a decimal equals a fraction from the fifth significant digit on,
an irrational number from the seventh on.
"""

# ruff: noqa: RUF002 (the docstrings show signs that look like others)

from __future__ import annotations

import logging
import re
import unicodedata
import zlib
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

MAX_ANSWER = 1_500  # characters of an answer; the longest gold of the MATH, OlympiadBench and Minerva sets has 230
MAX_TAIL = 3_000  # characters at the end of a response without a box in which its claim is looked for
MAX_PARTS = 64  # elements of a list, set or matrix
MAX_BOXES = 32  # of a response, counted from its end
MAX_DEPTH = 24  # nested groups of an expression
MAX_DIGITS = 1_000  # of a number as written
MAX_BITS = 1 << 15  # of a rational while it is computed
MAX_MAGNITUDE = 10**6  # binary exponent of an irrational number
MAX_FACTORIAL = 2_000


def reward(response: str, answer: Any, prompt: Any = None) -> float:
    """1.0 where the final answer of `response` equals `answer`, else 0.0.

    answer: a string or a number, or a list of alternatives of which any one is right.
    prompt: text or chat messages; where given, a response that repeats it is not read as having answered.
    """
    golds = answer if isinstance(answer, list | tuple) else [answer]
    readings = extract(without_echo(response, prompt))
    return float(any(_claims(reading, str(gold)) for gold in golds if gold is not None for reading in readings))


def _claims(parts: tuple[str, ...], gold: str) -> bool:
    """Several parts are right where each of them is the gold answer, or all together are the list that it is."""
    if len(parts) > 1 and equal(", ".join(parts), gold):
        return True
    return all(equal(part, gold) for part in parts)


# ---------------------------------------------------------------------------------------------------- 1. extract

BOX = re.compile(r"(?:\\boxed|\\fbox|\x08oxed)(?![A-Za-z])\s*")  # the last is a `\b` that an escape has eaten
BRACES = re.compile(r"\\.|[{}]", re.S)
MATH = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$(.+?)(?<!\\)\$", re.S)
NUMBER = re.compile(
    r"(?<![\w.^{])[-+\u2212]?[$£€]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s?/\s?\d+|:\d\d)?"
    r"(?:\s?\\?%|[eE]-?\d+|\s?(?:\\times|×|x)\s?10\^\{?-?\d+\}?)?(?![\w^])|(?<!\w)\.\d+"
)
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


def without_echo(response: str, prompt: Any) -> str:
    """`response` less any verbatim copy of the prompt (of twenty characters or more) in it."""
    messages = [prompt] if isinstance(prompt, str) else [m.get("content") for m in prompt or [] if isinstance(m, dict)]
    for text in messages:
        if isinstance(text, str) and len(text.strip()) >= 20:
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
        end = _closing(text, inside) if text[inside : inside + 1] == "{" else None
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


def _closing(text: str, opening: int) -> int | None:
    """Index of the brace that closes the one at `opening`; None where it is not within MAX_ANSWER characters."""
    depth = 0
    for match in BRACES.finditer(text, opening, opening + MAX_ANSWER):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.start()
    return None


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


# ------------------------------------------------------------------------------------------------------ 2. clean

GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa mu nu xi rho sigma tau phi chi psi omega".split()
SPELLINGS = {  # what is written for a command: the commands
    r"\frac": "frac dfrac tfrac cfrac",
    r"\binom": "binom dbinom tbinom",
    r"\text": "text textnormal mbox textbf textit textrm texttt textsf mathrm rm hbox mathsf",
    "": "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr displaystyle textstyle limits mathbf boldsymbol"
    " bm vec mathit mathcal boxed fbox operatorname bf underline large Large LARGE"
    " small ! ( ) [ ] -",
    " ": "quad qquad , ; : >",
    " , ": "lor vee land wedge",
    "*": "times cdot ast",
    "/": "div",
    "≤": "le leq leqslant",
    "≥": "ge geq geqslant",
    "≠": "ne neq",
    "<": "lt",
    ">": "gt",
    "⇒": "implies Rightarrow Longrightarrow",
    "≈": "approx simeq",
    "∈": "in",
    "∪": "cup",
    "∖": "setminus backslash",
    "±": "pm",
    "∞": "infty",
    "°": "circ degree",
    "'": "prime",
    "…": "ldots dots cdots dotsc",
    "|": "lvert rvert vert mid |",
    "∅": "emptyset varnothing",
    "⦃": "{ lbrace",
    "⦄": "} rbrace",
    "(": "langle",
    ")": "rangle",
    "⌊": "lfloor",
    "⌋": "rfloor",
    "⌈": "lceil",
    "⌉": "rceil",
    "π": "pi",
    "λ": "lambda",
    "φ": "varphi",
    "ε": "varepsilon",
    "θ": "vartheta",
    "ℝ": "R",
    ":": "colon",
    "¤": "$",
    **{unicodedata.lookup(f"GREEK SMALL LETTER {name}"): name for name in GREEK},
}
COMMANDS = {name: spelling for spelling, names in SPELLINGS.items() for name in names.split()}
COMMANDS |= {sign: sign for sign in "%#&_"} | {" ": " "}
CHARACTERS = str.maketrans(
    dict.fromkeys("−–—", "-")
    | dict.fromkeys("×·⋅∙", "*")
    | dict.fromkeys("÷⁄", "/")
    | dict.fromkeys("‘’′", "'")
    | dict.fromkeys("“”", '"')
    | dict.fromkeys("€£", "¤")
    | {"√": r"\sqrt ", "~": " ", "⩽": "≤", "⩾": "≥", "º": "°", "⟨": "(", "⟩": ")", "∣": "|", "ϕ": "φ", "ϵ": "ε"}
    | {"⇔": "⇒", "∨": ","}
)
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
FUNCTIONS = (
    "arcsin arccos arctan sinh cosh tanh sin cos tan cot sec csc log ln lg exp sqrt abs".split()
)  # longest first where one is the beginning of another


@lru_cache(maxsize=1024)
def clean(text: str) -> str:
    r"""One spelling for each thing: `\dfrac12` -> `\frac12`, `10{,}000` -> `10000`, `x \leqslant 2` -> `x ≤2`.

    Structural commands become one Unicode character each (`\{` -> `⦃`, `\cup` -> `∪`), `and` and `or` a comma.
    """
    text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text)
    text = re.sub(r"[⁰¹²³⁴-⁹⁻⁺ⁿ]+", lambda match: f"^{{{match.group().translate(SUPERSCRIPTS)}}}", text)
    text = unicodedata.normalize("NFKC", text.translate(CHARACTERS)).translate(CHARACTERS)
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    text = re.sub(r"(\d)(?:\{,\}|,\\!|\\,|\\!|\\ )\s*(?=\d{3})", r"\1", text)
    text = re.sub(r"\\mathbb\s*\{?([RZNQC])\}?", lambda match: "ℝℤℕℚℂ"["RZNQC".index(match[1])], text)
    text = re.sub(rf"\\(?:operatorname|mathrm|text)\*?\s*\{{({'|'.join(FUNCTIONS)})\}}", r"\\\1 ", text)
    text = re.sub(r"\\(?:mathrm|text|rm)\s*\{\s*([eid])\s*\}", r"\1", text)
    text = re.sub(r"\\(?:text)?color\s*\{[^{}]*\}", "", text)
    text = re.sub(r"\\(?:h|v|phantom)space\*?\{[^{}]*\}|\\\\\[[^\]]*\]", r" \\\\ " if "begin" in text else " ", text)
    text = re.sub(
        r"\\(\\|[A-Za-z]+|.)", lambda m: COMMANDS.get(m[1], "\\" + m[1] + " " * m[1].isalpha()), text, flags=re.S
    )
    text = text.replace("$", "").replace("**", "^").replace("<=", "≤").replace(">=", "≥").replace("!=", "≠")
    text = re.sub(r"\\text\s*\{\s*(?:,?\s*(?:and|or|,))\s*\}|(?<![\w{])(?:and|or)(?![\w}])", " , ", text)
    text = re.sub(r"(?<=\d)\s*(?:\\text\s*\{)?\s*to\s*\}?\s*(?=\d)", ":", text)
    text = re.sub(
        r"(?<=\d)\s*(?:\\text\s*\{)?\s*(m|b)illion\b\s*\}?", lambda m: f"*10^{'6' if m[1] == 'm' else '9'}", text
    )
    text = re.sub(r"\^\s*\{?\s*°\s*\}?", "°", text)
    text = re.sub(r"\^\s*\{?\s*('+)\s*('*)\s*\}?", r"\1\2", text)
    text = re.sub(r"(?<![\w.])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])", r"(\1+\2/\3)", text)
    text = re.sub(r"(?<!\d)(\d*)\.(\d*)\\overline\s*\{(\d+)\}", _repeating, text)
    text = re.sub(r"(?<!\d)(\d*)\.(\d{0,20}?)(\d{1,12}?)\3{2,20}(?:…|\.\.\.)", _repeating, text)
    return " ".join(text.split()).rstrip(".,;:\\ ")


def _repeating(match: re.Match) -> str:
    r"""`0.1\overline{6}` -> `(15/90)`."""
    whole, fixed, period = match.groups()
    value = int(f"{whole}{fixed}{period}"[:MAX_DIGITS]) - int(f"{whole}{fixed}"[:MAX_DIGITS] or "0")
    return f"({value}/{10 ** len(fixed) * (10 ** len(period) - 1)})"


def squash(text: str) -> str:
    r"""The cleaned text without what does not count: spaces, `\text`, braces around one character."""
    text = re.sub(r"\\text\s*(?=\{)|\s+", "", text)
    return re.sub(r"\{(\w)\}", r"\1", text)


# ---------------------------------------------------------------------------------------------------- 3. compare

MIRROR = str.maketrans("<>≤≥", "><≥≤")
OPENING, CLOSING = "([{⦃⌊⌈", ")]}⦄⌋⌉"
NAME = re.compile(
    r"\\frac\s*\{\s*d\s*\w?\s*\}\s*\{\s*d\s*\w\s*\}|"
    r"\(\s*[A-Za-z](?:_\w)?(?:\s*,\s*[A-Za-z](?:_\w)?)+\s*\)|"
    r"(?:(?:\\text\s*\{[^{}=]*\}|\\?[A-Za-z]++|[α-ωℓ])\s*+)++"
    r"(?:_\s*(?:\w|\{[^{}]*\}))?'*\s*(?:\(\s*[\w, ']*\))?\s*(?:\^\{?-1\}?\(\w*\))?"
)  # `x`, `S_{n}`, `f(x)`, `f^{-1}(x)`, `\angle ABC`, `\text{Area}`, `(x, y)`, `dy/dx`
PARAMETER = re.compile(r"(?:where\s+)?[A-Za-z]\s*∈\s*[ℤℕℝ]")
BUILDER = re.compile(r"[A-Za-z]\s*(?:∈\s*ℝ\s*)?[|:](.*)", re.S)
CHOICE = re.compile(r"(?:\\text\s*\{)?\(?\s*([A-Ja-j])\s*\)?\.?\}?")
CHOICE_WITH_TEXT = re.compile(r"(?:\\text\s*\{)?\s*(?:\(\s*([A-J])\s*\)|([A-J])\s*[).:])\s*\}?\s*[^\s},;].*", re.S)
LEAD = re.compile(  # `\text{The answer is }`, `Area:`
    r"(?:\\text\s*\{)?\s*(?!.*\bnot\b)[A-Za-z' ]*?(?:\bis\b|\bare\b|[A-Za-z]:|\babout\b|\bapproximately\b)"
    r"\s*(?:\}\s*:?)?\s*(?=\S)"
)
SMALL = "zero one two three four five six seven eight nine ten eleven twelve".split()
SAME_WORDS = {
    **{word: str(value) for value, word in enumerate(SMALL)},
    **dict.fromkeys("the a an is are answer it option choice its function at of".split(), ""),
    "infinity": "∞",
}
NOTHING = {"∅", "no solution", "no solutions", "no real solution", "no real solutions", "empty set", "none", "⦃⦄"}
EVERYTHING = {"all real numbers", "all reals", "ℝ", "(-∞,∞)", "(-∞,+∞)", "all real x", "real numbers"}


@lru_cache(maxsize=1024)
def equal(answer: str, gold: str) -> bool:
    """Whether two answers, as written, are the same answer."""
    if max(len(answer), len(gold)) > MAX_ANSWER:
        return False
    answer, gold = clean(answer), clean(gold)
    if _depth(answer) > MAX_DEPTH or not squash(answer).strip("{}") or not squash(gold).strip("{}"):
        return False
    return _same(answer, gold) or _same_choice(answer, gold)


def _depth(text: str) -> int:
    """How deep brackets are nested (an upper bound where they are not balanced)."""
    return max(accumulate(((char in OPENING) - (char in CLOSING) for char in text), initial=0))


def _same_choice(answer: str, gold: str) -> bool:
    """`(C)`, `C.`, `Option C` and `(C) 12` are choice C; a gold `(C) 12` may be answered `12` as well."""
    if listed := CHOICE_WITH_TEXT.fullmatch(gold):
        letter = listed[1] or listed[2]
        return _same_choice(answer, letter) or _same(answer, re.sub(r"^.*?[A-J]\s*[).:]\}?\s*", "", gold, count=1))
    if re.fullmatch(r"[A-J]{2,6}", gold) and re.fullmatch(r"(?:\\text\{)?[A-J](?:\s*,\s*[A-J])+\}?", answer):
        return sorted(gold) == re.findall("[A-J]", answer)
    choice = CHOICE.fullmatch(gold)
    if not choice or not choice[1].isupper():
        return False
    answer = re.sub(r"^(?:\\text\s*\{)?\s*(?:option|choice|answer)\s*:?", "", answer, flags=re.I).strip()
    if given := CHOICE.fullmatch(answer):
        return given[1].upper() == choice[1]
    given = CHOICE_WITH_TEXT.fullmatch(answer)
    return (
        given is not None
        and (given[1] or given[2]) == choice[1]
        and not re.search(r"[(,]\s*[A-J]\s*\)", answer[given.end(given.lastindex) :])
    )


def _same(answer: str, gold: str) -> bool:
    if squash(answer) == squash(gold):
        return True
    if not gold[:1].isalpha() and (lead := LEAD.match(answer)):
        answer = answer[lead.end() :]
        if "{" in lead.group() and "}" not in lead.group():
            answer = answer.rstrip("}")
    for group in (NOTHING, EVERYTHING):
        if _words(gold) in group or squash(gold) in group:
            if _words(answer) in group or squash(_value_of(answer)) in group:
                return True
    if (_wordy(gold) or _wordy(answer)) and _words(answer) == _words(gold):
        return True
    return _same_shape(shape(answer), shape(gold))


def _wordy(text: str) -> bool:
    return re.search(r"[A-Za-z]{3}|^\W*[Nn]o\W*$", re.sub(r"\\[A-Za-z]+", "", text)) is not None


def _words(text: str) -> str:
    """Lower-case words, numbers and signs, without wrappers, articles and full stops: `An Ellipse.` -> `ellipse`."""
    tokens = re.findall(
        r"[^\W\d_]+|\d+(?:\.\d+)?|[^\s\w.'\"{}]", re.sub(r"\\text\s*", "", text).lower().replace(".m.", "m")
    )
    return " ".join(filter(None, (SAME_WORDS.get(token, token) for token in tokens))).replace("does not exist", "dne")


def split(text: str, separators: str) -> list[str]:
    """`text` cut at the separators that stand in no bracket; the odd elements are the separators."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        if char in OPENING:
            depth += 1
        elif char in CLOSING:
            depth -= 1
        elif depth == 0 and char in separators:
            parts += [text[start:index].strip(), char]
            start = index + 1
    return [*parts, text[start:].strip()]


def shape(text: str) -> tuple[str, list[str]]:
    r"""(kind, parts) of a cleaned answer.

    `1, 2` list · `⦃1, 2⦄` set · `(1, 2]` tuple, kind "(]" · `(0,1) ∪ (2,3)` union · `2 < x ≤ 3` relation, operators
    at the odd places · `\begin{pmatrix}..` matrix, first part the number of rows · all else scalar.
    """
    text = split(text.strip(), "⇒")[-1]
    while (wrapper := re.match(r"(?:\\text\s*)?\{", text)) and _closing(text, wrapper.end() - 1) == len(text) - 1:
        text = text[wrapper.end() : -1].strip()
    if (
        re.fullmatch(r"¤?\s*-?\d{1,3}(,\d{3})+(?!\d).*", text)
        and len(split(re.sub(r",(?=\d{3})", "", text), ",;")) == 1
    ):
        text = re.sub(r",(?=\d{3})", "", text)
    if matrix := re.fullmatch(
        r"[(\[]?\s*\\begin\s*\{([a-zA-Z]*)\}(?:\{[clr|]*\})?(.*)\\end\s*\{\1\}\s*[)\]]?", text, re.S
    ):
        rows = [row.split("&") for row in matrix[2].split("\\\\") if row.strip()]
        if matrix[1] in ("cases", "aligned", "align"):
            return "list", [" ".join(row) for row in rows]
        if matrix[1] != "vmatrix":
            return "matrix", [str(len(rows)), *(cell for row in rows for cell in row)]
    listed = [part for part in split(text, ",;")[::2] if part]
    if len(listed) > 1:
        listed = [part for part in listed if not PARAMETER.fullmatch(part)] or listed[:1]
    if len(listed) > 1:
        return "list", listed
    text = listed[0] if listed else text
    sides = split(text, "=<>≤≥≠≈∈")
    if len(sides) > 1:
        return "relation", sides
    if len(union := split(text, "∪")) > 1:
        return "union", union[::2]
    if len(minus := split(text, "∖")) == 3 and (pieces := _without_points(minus[0], minus[2])):
        return "union", pieces
    if len(text) > 1 and text[0] in "([⦃" and text[-1] in ")]⦄" and _closed_at_end(text):
        inner = [part for part in split(text[1:-1], ",;")[::2] if part]
        if text[0] == "⦃":
            built = BUILDER.fullmatch(text[1:-1].strip())
            return shape(built[1]) if built else ("set", inner)
        if len(inner) > 1:
            return text[0] + text[-1], inner
        if text[0] + text[-1] in ("()", "[]") and inner:
            return shape(inner[0])
    if "±" in text:
        return "list", [text.replace("±", "+"), text.replace("±", "-")]
    if len(ratio := split(text, ":")) > 1:
        return "ratio", ratio[::2]
    return "scalar", [text]


def _without_points(whole: str, points: str) -> list[str]:
    """`(-1, 5) ∖ ⦃0, 2⦄` -> `(-1,0)`, `(0,2)`, `(2,5)`; [] where it cannot be told."""
    base = shape("(-∞,∞)" if whole == "ℝ" else whole)
    kind, holes = shape(points)
    if kind != "set" or base[0] not in ("()", "(]", "[)", "[]") or any(has_names(hole) for hole in holes):
        return []
    ends = [base[1][0], *sorted(holes, key=lambda hole: mp().re(value(hole))), base[1][1]]
    pieces = [f"({low},{high})" for low, high in pairwise(ends)]
    return [base[0][0] + pieces[0][1:], *pieces[1:-1], pieces[-1][:-1] + base[0][1]]


def _closed_at_end(text: str) -> bool:
    depth = 0
    for index, char in enumerate(text):
        depth += (char in OPENING) - (char in CLOSING)
        if depth == 0:
            return index == len(text) - 1
    return False


def _same_shape(answer: tuple[str, list[str]], gold: tuple[str, list[str]]) -> bool:
    (kind, parts), (wanted, golds) = answer, gold
    if max(len(parts), len(golds)) > MAX_PARTS:
        return False
    if "relation" in (kind, wanted):
        return _same_relation(answer, gold)
    if kind == wanted == "scalar":
        return same_value(parts[0], golds[0])
    if _interval_parts(answer) and _interval_parts(gold) and "union" in (kind, wanted):
        return _match_any_order(_interval_parts(answer), _interval_parts(gold))
    if kind == "list" and wanted == "scalar":  # `1/2 or 0.5` is one answer
        return all(_same(part, golds[0]) for part in parts)
    if {kind, wanted} <= {"list", "set", "scalar"}:
        return _match_any_order(_expand(parts), _expand(golds))
    if {kind, wanted} == {"ratio", "scalar"}:
        return _same(*("/".join(f"({part})" for part in side) for side in (parts, golds)))
    if "matrix" in (kind, wanted) and kind != wanted:
        parts, golds = (_vector(*side) for side in (answer, gold))
        return bool(parts) and _match_in_order(parts, golds)
    if kind == wanted or {kind, wanted} == {"()", "list"}:
        return _match_in_order(
            _by_name(parts) if kind == "list" else parts, _by_name(golds) if wanted == "list" else golds
        )
    return False


def _vector(kind: str, parts: list[str]) -> list[str]:
    """The entries of a matrix of one row or column, or of a tuple in round brackets."""
    if kind == "matrix":
        rows, entries = int(parts[0]), parts[1:]
        return entries if rows in (1, len(entries)) else []
    return parts if kind == "()" else []


def _match_in_order(parts: list[str], golds: list[str]) -> bool:
    return len(parts) == len(golds) and all(
        _same(_value_of(p), _value_of(g)) for p, g in zip(parts, golds, strict=True)
    )


def _match_any_order(parts: list[str], golds: list[str]) -> bool:
    if len(parts) != len(golds):
        return False
    left = list(golds)
    for part in parts:
        found = next((gold for gold in left if _same(part, gold)), None)
        if found is None:
            return False
        left.remove(found)
    return True


def _expand(parts: list[str]) -> list[str]:
    """`1 ± i, -2` -> `1 + i, 1 - i, -2`."""
    return [side for part in parts for side in ([part.replace("±", s) for s in "+-"] if "±" in part else [part])]


def _by_name(parts: list[str]) -> list[str]:
    """`y = 2, x = 1` in the order of the names; any other list as it is."""
    names = [part.partition("=")[0].strip() for part in parts if "=" in part]
    return sorted(parts) if len(set(names)) == len(parts) else parts


def _value_of(text: str) -> str:
    """What `x = 5`, `x ∈ [1, 2]`, `5 = x`, `f(x) = x + 1 = 1 + x` give to the name; any other text as it is."""
    kind, sides = shape(text)
    if kind != "relation" or not set(sides[1::2]) <= set("=≈∈"):
        return text
    given = [side for side in sides[::2] if not NAME.fullmatch(side)]
    numbers = [side for side in given if not has_names(side)]
    if not given or (len(numbers) < len(given) and given[-1] not in numbers and not _all_same(given)):
        return text if given else sides[-1]
    rounded = "≈" in sides
    if not rounded and not _all_same(numbers):
        return text
    if rounded and len(numbers) > 1:
        return numbers[0] if _close(numbers[0], numbers[-1]) else text
    return given[-1]


def _all_same(sides: list[str]) -> bool:
    return all(_same(a, b) for a, b in pairwise(sides))


def _close(exact: str, rounded: str) -> bool:
    try:
        a, b = (mp().convert(value(text)) for text in (exact, rounded))
        return bool(abs(a - b) <= abs(b) / 100)
    except Unreadable:
        return False


def _same_relation(answer: tuple[str, list[str]], gold: tuple[str, list[str]]) -> bool:
    if interval := _interval_parts(gold):
        if (given := _interval_parts(answer)) and _match_any_order(given, interval):
            return True
    (kind, sides), (wanted, golds) = answer, gold
    if kind == wanted and set(sides[1::2]) != {"="} and sides[1::2] != golds[1::2]:
        sides = [part.translate(MIRROR) if at % 2 else part for at, part in enumerate(sides)][::-1]
    if kind == wanted and sides[1::2] == golds[1::2]:
        if sides[1::2] == ["="]:
            return _same_equation(sides[::2], golds[::2])
        if len(sides) == 3 and sides[1] in "<>≤≥≠":
            return _proportional(sides[::2], golds[::2], positive=sides[1] != "≠")
        if all(_same(*pair) for pair in zip(sides[::2], golds[::2], strict=True)):
            return True
    if kind == "relation" and wanted != "relation" and "≈" in sides and _close(sides[-3], sides[-1]):
        return _same(sides[-3], "".join(golds)) or _same(sides[-1], "".join(golds)) if wanted == "scalar" else False
    answer = shape(_value_of("".join(sides))) if kind == "relation" else answer
    if wanted == "relation" and (NAME.fullmatch(golds[0]) or not any(has_names(side) for side in golds[::2])):
        gold = shape(_value_of("".join(golds)))
    return "relation" not in (answer[0], gold[0]) and _same_shape(answer, gold)


def _same_equation(sides: list[str], golds: list[str]) -> bool:
    """Two equations of two sides: the same name with the same value, or differences that are proportional."""
    named, wanted = NAME.fullmatch(sides[0]), NAME.fullmatch(golds[0])
    if named and wanted and _same(sides[1], golds[1]):
        one, other = sorted((squash(sides[0]), squash(golds[0])), key=len)
        return one == other or (one in ("y", other[0]) and "(" in other) or _wordy(one) or _wordy(other)
    if wanted and not has_names(golds[1]):
        return squash(sides[1]) == squash(golds[0]) and _same(sides[0], golds[1])
    return _proportional(sides, golds)


def _proportional(sides: list[str], golds: list[str], positive: bool = False) -> bool:
    """Whether left minus right of one relation is a (positive) constant times that of the other."""
    first, second = (f"({a})-({b})" for a, b in (sides, golds))
    ratios = []
    for point in (0, 1, 2, 3):
        try:
            numerator, denominator = value(first, point), value(second, point)
            ratios.append(_divide(numerator, denominator))
        except (Unreadable, ZeroDivisionError):
            return False
    if _near(ratios[0], 0) or not all(_near(ratio, ratios[0]) for ratio in ratios):
        return False
    return not positive or ((not hasattr(ratios[0], "imag") or ratios[0].imag == 0) and ratios[0].real > 0)


def _interval_parts(side: tuple[str, list[str]]) -> list[str]:
    """An inequality in one name, or several joined by `or`, or a union, as intervals; [] for anything else."""
    kind, parts = side
    if kind in ("()", "(]", "[)", "[]") and len(parts) == 2:
        return [kind[0] + ",".join(parts) + kind[1]]
    if kind == "union":
        return parts
    if kind == "list":
        pieces = [shape(part) for part in parts]
        found = [_interval_parts(piece) for piece in pieces if piece[0] == "relation"]
        return [piece for each in found for piece in each] if len(found) == len(parts) and all(found) else []
    if kind != "relation":
        return []
    if parts[1:2] == ["∈"] and NAME.fullmatch(parts[0]):
        return _interval_parts(shape(parts[2]))
    if len(parts) == 3 and has_names(parts[2]):
        parts = [parts[2], parts[1].translate(MIRROR), parts[0]]
    if len(parts) == 5 and set(parts[1::2]) <= set(">≥"):
        parts = [part.translate(MIRROR) if at % 2 else part for at, part in enumerate(parts)][::-1]
    name = parts[0] if len(parts) == 3 else parts[2]
    ends = [part for part in parts[::2] if part != name]
    if not re.fullmatch(r"\\?[A-Za-zα-ω](?:_\w)?", name) or any(has_names(end) for end in ends):
        return []
    match parts:
        case [_, "<" | "≤" as operator, high]:
            return [f"(-∞,{high}{')' if operator == '<' else ']'}"]
        case [_, ">" | "≥" as operator, low]:
            return [f"{'(' if operator == '>' else '['}{low},∞)"]
        case [_, "≠", hole]:
            return [f"(-∞,{hole})", f"({hole},∞)"]
        case [low, "<" | "≤" as left, _, "<" | "≤" as right, high]:
            return [f"{'(' if left == '<' else '['}{low},{high}{')' if right == '<' else ']'}"]
    return []


# ---------------------------------------------------------------------------------------- scalars: units and values

UNITS = {
    word: line.split()[0]
    for line in """cm centimeter centimetre|m meter metre|mm millimeter millimetre|km kilometer kilometre|in inch inche
    ft foot feet|yd yard|mi mile|s sec second|min minute|h hr hour|day|week|month|year|g gram gm|kg kilogram|lb pound
    oz ounce|l liter litre|ml milliliter millilitre|gal gallon|dollar usd buck ¤|cent ¢|° degree deg|rad radian|am|pm
    mph|kph|hz|j|n|w|v|k|c|2 square sq squared|3 cubic cu cubed|/ per|%|unit""".replace("\n", "|").split("|")
    for word in line.split()
}
UNIT = r"\\text\s*\{(?:[^{}\d^]|\^\s*\{?\s*-?\d\s*\}?)*\}(?:\s*\^\s*\{?\s*-?\d\s*\}?)?"
TAIL = re.compile(
    rf"[\s/*]*((?<!\s)°\s*[CF](?![A-Za-z])|[°%'¢¤]|{UNIT}|\\frac\s*\{{\s*{UNIT}\s*\}}\s*\{{\s*{UNIT}\s*\}})\.?$"
)
PLAIN_TAIL = re.compile(r"(?<=[\d)}°%π])(\s*)([A-Za-z][A-Za-z ./]*?)((?:\s*\^\s*\{?-?\d\}?)?)\.?$")
BASED = re.compile(
    r"(-?)\(?([0-9A-F.]+)\)?\s*"
    r"(?:_\s*\{?\s*(?:\\text\s*\{)?\s*(\d+|two|three|four|five|six|seven|eight|nine|ten)\}?\s*\}?)?"
)
DECIMAL = re.compile(r"[-+]?(\d*)\.(\d+)")


def same_value(answer: str, gold: str) -> bool:
    """Whether two scalars are the same number or expression, in units that do not contradict each other."""
    (text, unit), (target, wanted) = split_unit(answer), split_unit(gold)
    if not text or not target:
        return False
    percent, wanted_percent = "%" in unit, "%" in wanted
    if unit and wanted and "?" not in unit + wanted and unit != wanted:
        return False
    if _same_base(text, target):
        return True
    if "_" in text + target and BASED.fullmatch(text) and BASED.fullmatch(target):
        return False
    return identical(text, target) or (
        percent != wanted_percent
        and identical(*(f"({s})/100" if p else s for s, p in ((text, percent), (target, wanted_percent))))
    )


def split_unit(text: str) -> tuple[str, list[str]]:
    r"""`¤18.90` -> (`18.90`, [`dollar`]); `5\text{ cm}^2` -> (`5`, [`2`, `cm`]); an unknown unit is `?`."""
    text, units = text.strip(), []
    if text[:1] in "¤" or text[:2] == "-¤":
        text, units = text.replace("¤", "", 1).strip(), ["dollar"]
    angle = re.search(r"\\?(?:sin|cos|tan|cot|sec|csc)", text)
    while (tail := TAIL.search(text)) and len(units) < 8:
        rest, written = text[: tail.start()].strip(), tail[1]
        if not rest or (angle and written == "°") or re.search(r"\b(?:not|or|least|most|than|no)\b", written):
            break
        units += _units(written)
        text = rest
    if tail := PLAIN_TAIL.search(text):
        names = _units(tail[2])
        long = all(len(word) > 2 and word.lower() not in FUNCTIONS for word in re.findall(r"[A-Za-z]+", tail[2]))
        if (tail[1] and long) or (len(tail[2]) > 1 and "?" not in names):
            units += _units(tail[2] + tail[3])
            text = text[: tail.start()].strip()
    return text, sorted(units)


def _units(text: str) -> list[str]:
    """Units by their short names, powers as numbers; `?` for a word that is not in the table."""
    words = re.findall(r"[a-z]+|-?\d|[°%¢¤/]", re.sub(r"\\text|\\frac|\.", "", text).lower())
    known = [UNITS.get(word) or UNITS.get(word.rstrip("s"), word if word[-1].isdigit() else "?") for word in words]
    return [unit for unit in known if unit != "unit"]


def _same_base(answer: str, gold: str) -> bool:
    """`2516_8`, `(2516)_{8}` and, with the base left out, `2516`."""
    a, g = BASED.fullmatch(answer), BASED.fullmatch(gold)
    return bool(
        a and g and (a[1], a[2].lstrip("0")) == (g[1], g[2].lstrip("0")) and (a[3] == g[3] or not a[3] or not g[3])
    )


def identical(answer: str, gold: str) -> bool:
    """Whether two expressions have the same value, at every point where they have names."""
    try:
        first, a = _examined(answer)
        second, g = _examined(gold)
    except Unreadable:
        return _math_verify(answer, gold)
    except ZeroDivisionError:
        return False
    if not first.named and not second.named:
        return _near(a, g) or _rounded(answer, a, g) or _rounded(gold, g, a)
    if first.named != second.named and not (first.named & second.named):
        return False
    points = [*range(10, 20)] if first.discrete or second.discrete else [0, 1, 2]
    points += [20, 21] if first.absolute != second.absolute else []
    seen = 0
    for point in points:
        try:
            if not _near(value(answer, point), value(gold, point)):
                return False
            seen += 1
        except ZeroDivisionError:
            continue
        except Unreadable:
            if not first.discrete:
                return False
    return seen > 1


def _examined(text: str) -> tuple[Reader, Any]:
    """What has been seen in an expression, and its value at the first point at which it has one."""
    for point in (0, *range(10, 16)):
        reader = Reader(text, point)
        try:
            return reader, reader.read()
        except Unreadable:
            if not reader.discrete or point == 15:
                raise
        except ZeroDivisionError:
            if not reader.named or point == 15:
                raise
    raise Unreadable(text)


def _near(a: Any, b: Any) -> bool:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    a, b = mp().convert(a), mp().convert(b)
    return bool(abs(a - b) <= max(abs(a), abs(b), 1) * mp().mpf(10) ** -40)


def _rounded(text: str, decimal: Any, exact: Any) -> bool:
    """Whether `text` is a long decimal that agrees with a number which no decimal can equal, to its last digit."""
    digits = DECIMAL.fullmatch(text.strip().rstrip("….").strip())
    if not digits or not isinstance(decimal, Fraction):
        return False
    terminating = isinstance(exact, Fraction) and not _reduced(exact.denominator)
    needed = 5 if isinstance(exact, Fraction) else 7
    if terminating or len((digits[1] + digits[2]).lstrip("0")) < needed:
        return False
    if mp().im(exact) != 0:
        return False
    missing = (mp().re(exact) - decimal) * (1 if decimal > 0 else -1) * 10 ** len(digits[2])
    return bool(-0.5 <= missing < 1)  # rounded, or cut off


def _reduced(denominator: int) -> bool:
    """Whether the denominator has a prime factor other than 2 and 5."""
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator > 1


# ------------------------------------------------------------------------------------- the value of an expression


class Unreadable(ValueError):
    """The expression is not in the grammar of `Reader`, or too large to be computed."""


@lru_cache(maxsize=1)
def mp() -> Any:
    """A 60-digit context of our own (mpmath's global precision belongs to sympy); imported when first needed."""
    import mpmath

    context = mpmath.MPContext()
    context.dps = 60
    return context


def has_names(text: str) -> bool:
    """Whether a cleaned expression contains a variable; unreadable text counts as having one."""
    reader = Reader(split_unit(text)[0], 0)
    try:
        reader.read()
    except (Unreadable, ZeroDivisionError):
        return True
    return bool(reader.named - {"∞"})


@lru_cache(maxsize=2048)
def value(text: str, point: int = 0) -> Any:
    """Fraction where all is rational, else a 60-digit number; names stand for the numbers of `point`.

    Raises: Unreadable; ZeroDivisionError.
    """
    return Reader(text, point).read()


TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?(?:[eE][+-]?\d+)|\d+\.\d+|\d+\.?|\.\d+|[A-Za-z]+|\S", re.S)
ACCENTS = {r"\dot", r"\ddot", r"\hat", r"\bar", r"\tilde", r"\overline", r"\text", r"\underline", r"\widehat"}
UNREAD = {"\\" + name for name in "int sum prod lim begin end max min pmod bmod not det".split()}
ENDS = set(')]}⦄⌋⌉+-±,;:=<>≤≥≠≈∈∪∩⦃…&?"@#') | {""}


class Reader:
    """A recursive-descent calculator for LaTeX and plain notation; it computes while it reads.

    point: 0-9 give each name a positive rational, 10-19 a small positive integer, 20-29 a negative rational.
    named, discrete, absolute: what has been seen: the names; a factorial, binomial or rounding; an absolute value.
    """

    def __init__(self, text: str, point: int) -> None:
        self.tokens = TOKEN.findall(text)[::-1]
        self.point, self.depth, self.last = point, 0, ""
        self.named: set[str] = set()
        self.discrete = self.absolute = False

    def read(self) -> Any:
        try:
            result = self.total()
        except (OverflowError, TypeError) as error:  # mpmath's words for a pole, or for ordering complex numbers
            raise Unreadable(str(error)) from error
        if self.tokens:
            raise Unreadable(self.tokens[-1])
        return result

    def peek(self) -> str:
        return self.tokens[-1] if self.tokens else ""

    def take(self, expected: str = "") -> str:
        if not self.tokens or (expected and self.tokens[-1] != expected):
            raise Unreadable(expected or "end of text")
        self.last = self.tokens.pop()
        return self.last

    def total(self) -> Any:
        result = self.signed()
        while self.peek() in ("+", "-"):
            sign = -1 if self.take() == "-" else 1
            result = _bounded(result + sign * self.signed())
        return result

    def signed(self) -> Any:
        sign = 1
        while self.peek() in ("+", "-"):
            sign *= -1 if self.take() == "-" else 1
        return sign * self.product()

    def product(self) -> Any:
        result = self.power()
        while True:
            token = self.peek()
            if token == "*":
                self.take()
                result = _bounded(result * self.signed_power())
            elif token == "/":
                self.take()
                result = _divide(result, self.signed_power())
            elif token in ENDS or token == "|":
                return result
            elif token[0].isdigit() and self.last not in CLOSING:
                raise Unreadable("a number right after a number or a name")
            else:
                result = _bounded(result * self.power())

    def power(self) -> Any:
        result = self.atom()
        while (token := self.peek()) in ("^", "!", "°", "%"):
            self.take()
            if token == "^":
                result = _power(result, self.exponent())
            elif token == "!":
                self.discrete = True
                result = _factorial(result)
            else:
                result = _divide(result, Fraction(100)) if token == "%" else result * mp().pi / 180
        return result

    def exponent(self) -> Any:
        sign = 1
        while self.peek() in ("-", "+"):
            sign *= -1 if self.take() == "-" else 1
        result = self.atom()
        if self.peek() == "^":
            self.take()
            result = _power(result, self.exponent())
        return sign * result

    def argument(self) -> Any:
        r"""What `\frac` or `\sqrt` applies to: a group, or one digit or letter."""
        token = self.peek()
        if len(token) > 1 and token[0].isalnum():
            self.tokens[-1:] = [token[1:], token[0]]
        return self.atom()

    def raw_group(self) -> str:
        """The text of a group or of one token, for names that are not computed with."""
        if self.peek() != "{":
            return self.take()
        taken, depth = [], 0
        while True:
            token = self.take()
            depth += (token == "{") - (token == "}")
            if depth == 0:
                return "".join(taken)
            if token != "{" or depth > 1:
                taken.append(token)

    def atom(self) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        result = self.group()
        self.depth -= 1
        return result

    def group(self) -> Any:
        token = self.take()
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            return self.number(token)
        if token in "([{":
            result = self.total()
            self.take({"(": ")", "[": "]", "{": "}"}[token])
            return result
        if token in "⌊⌈":
            self.discrete = True
            result = _round(self.total(), token)
            self.take({"⌊": "⌋", "⌈": "⌉"}[token])
            return result
        if token == "|":
            self.absolute = True
            result = abs(self.total())
            self.take("|")
            return result
        if token[0] == "\\":
            return self.command(token)
        if token[0].isalpha() or token == "∞":
            return self.word(token)
        raise Unreadable(token)

    def number(self, token: str) -> Any:
        mantissa, _, exponent = token.lower().partition("e")
        if len(mantissa) > MAX_DIGITS or len(exponent) > 4:
            raise Unreadable("too many digits")
        if exponent and abs(int(exponent)) > MAX_DIGITS:
            raise Unreadable("too large an exponent")
        result = Fraction(token.rstrip("."))
        if token.isdigit() and self.peek() == r"\frac":
            numerals = re.match(r"\\frac(?:\{\d+\}|\d)(?:\{\d+\}|\d)", "".join(self.tokens[: -8 - 1 : -1]))
            if numerals:  # a mixed number
                self.take()
                return result + _divide(self.argument(), self.argument())
        if self.peek() == "_":
            raise Unreadable("a number with a base")
        return result

    def command(self, token: str) -> Any:
        if token == r"\frac":
            numerator = self.argument()
            return _divide(numerator, self.argument())
        if token == r"\sqrt":
            index = Fraction(2)
            if self.peek() == "[":
                self.take()
                index = self.total()
                self.take("]")
            return _power(
                self.argument() if self.peek() in ("{", "(") or not self.peek()[:1].isdigit() else self.atom_digit(),
                _divide(Fraction(1), index),
            )
        if token == r"\binom":
            self.discrete = True
            n, k = self.argument(), self.argument()
            return _binomial(n, k)
        if token[1:] in FUNCTIONS:
            return self.function(token[1:])
        if token in UNREAD:
            raise Unreadable(token)
        if token in ACCENTS:
            return self.name(f"{token}{self.raw_group()}" if token != r"\text" else self.raw_group().strip())
        if self.peek() == "{":
            raise Unreadable(token)
        return self.name(token)

    def atom_digit(self) -> Any:
        return self.atom() if "." in self.peek() else self.argument()

    def word(self, token: str) -> Any:
        """A run of letters: a function, a constant, or a product of names of one letter each."""
        for known in (*FUNCTIONS, "pi", "infty"):
            if token.startswith(known):
                if token != known:
                    self.tokens.append(token[len(known) :])
                if known == "pi":
                    return +mp().pi
                return self.name("∞") if known == "infty" else self.function(known)
        if len(token) > 1:
            self.tokens.append(token[1:])
            token = token[0]
        alone = self.peek() not in ("_", "'")
        if token == "π" and alone:
            return +mp().pi
        if token == "e" and alone:
            return mp().e + 0
        if token == "i" and alone:
            return mp().mpc(0, 1)
        return self.name(token)

    def name(self, name: str) -> Any:
        """A name with its subscript, its primes and, as in `I(0)`, a number at which it is taken."""
        while self.peek() in ("_", "'"):
            name += "'" if self.take() == "'" else "_" + self.raw_group()
        if len(self.tokens) > 2 and self.tokens[-1] == "(" and self.tokens[-2].isdigit() and self.tokens[-3] == ")":
            name += "".join(self.take() for _ in range(3))
        self.named.add(name)
        seed = zlib.crc32(f"{name} {self.point}".encode("utf-8", "replace"))
        if self.point // 10 == 1:
            return Fraction(3 + seed % 37)
        return Fraction(9973 + seed % 29989, 9973) * (-1 if self.point >= 20 else 1)

    def function(self, name: str) -> Any:
        raised, base = None, None
        while self.peek() in ("^", "_"):
            if self.take() == "^":
                raised = self.exponent()
            else:
                base = self.argument() if self.peek() == "{" or not self.peek()[:1].isdigit() else self.atom()
        if name == "sqrt" and self.peek()[:1].isdigit():
            argument = self.atom()
        elif self.peek() in ("(", "{", "["):
            argument = self.atom()
        else:
            argument = self.signed_power()
            while self.peek() not in ENDS | {"*", "/", "|", "(", "["} and self.peek().lstrip("\\") not in FUNCTIONS:
                argument = argument * self.power()
        if name == "abs":
            self.absolute = True
        if raised == -1 and name in ("sin", "cos", "tan"):
            return _function(f"arc{name}", argument, base)
        result = _function(name, argument, base)
        return result if raised is None else _power(result, raised)

    def signed_power(self) -> Any:
        sign = 1
        while self.peek() in ("+", "-"):
            sign *= -1 if self.take() == "-" else 1
        return sign * self.power()


def _bounded(x: Any) -> Any:
    if isinstance(x, Fraction) and x.numerator.bit_length() + x.denominator.bit_length() > MAX_BITS:
        raise Unreadable("too large a number")
    return x


def _divide(a: Any, b: Any) -> Any:
    if b == 0:
        raise ZeroDivisionError
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _bounded(a / b)
    return mp().convert(a) / mp().convert(b)


def _power(base: Any, exponent: Any) -> Any:
    """base ** exponent, exact where it can be; an odd root of a negative number is the real one."""
    if isinstance(exponent, Fraction) and exponent.denominator == 1 and isinstance(base, Fraction):
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits * abs(exponent) > MAX_BITS:
            raise Unreadable("too large a power")
        return base**exponent.numerator
    if base == 0:
        if isinstance(exponent, Fraction) and exponent > 0:
            return Fraction(0)
        raise Unreadable("a power of zero")
    base, number = mp().convert(base), mp().convert(exponent)
    if abs(number) * (abs(mp().log(abs(base))) + 4) > MAX_MAGNITUDE:
        raise Unreadable("too large a power")
    odd_root = isinstance(exponent, Fraction) and exponent.denominator % 2 and mp().im(base) == 0 and mp().re(base) < 0
    if odd_root:
        return (-1) ** exponent.numerator * mp().power(-base, number)
    return mp().power(base, number)


def _factorial(n: Any) -> Any:
    if isinstance(n, Fraction) and n.denominator == 1:
        if n < 0:
            raise ZeroDivisionError  # a pole
        if n > MAX_FACTORIAL:
            raise Unreadable("too large a factorial")
        result = 1
        for factor in range(2, n.numerator + 1):
            result *= factor
        return Fraction(result)
    raise Unreadable("a factorial of no integer")


def _binomial(n: Any, k: Any) -> Any:
    if not all(isinstance(x, Fraction) and x.denominator == 1 and 0 <= x <= MAX_FACTORIAL for x in (n, k)):
        raise Unreadable("a binomial out of range")
    return _factorial(n) / (_factorial(k) * _factorial(n - k)) if k <= n else Fraction(0)


def _round(x: Any, bracket: str) -> Any:
    if isinstance(x, Fraction):
        return Fraction(x.__floor__() if bracket == "⌊" else x.__ceil__())
    return mp().floor(x) if bracket == "⌊" else mp().ceil(x)


def _function(name: str, x: Any, base: Any) -> Any:
    if name == "abs":
        return abs(x)
    if name == "sqrt":
        return _power(x, Fraction(1, 2))
    x = mp().convert(x)
    if name in ("ln", "log", "lg"):
        if x == 0 or base == 0 or base == 1:
            raise ZeroDivisionError
        base = 10 if name == "lg" else base
        return mp().log(x) if base is None else mp().log(x) / mp().log(base)
    if abs(x) > MAX_MAGNITUDE:
        raise Unreadable(f"too large an argument of {name}")
    names = {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}
    return getattr(mp(), names.get(name, name))(x)


# ------------------------------------------------------------------------------------------------ 4. math-verify


def _math_verify(answer: str, gold: str) -> bool:
    """What math-verify says of two short scalars, one of which has a sum, an integral or a limit in it.

    Not asked about any other text that `Reader` refuses: of `5 a (` it reads the 5. Its own time limits are off: they
    work in a main thread only, and the caller has a better one.
    """
    if not any(command in answer + gold for command in UNREAD) or not all(map(_may_be_shown, (answer, gold))):
        return False
    from math_verify import LatexExtractionConfig, parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns, rightly, that its time limits are off
    form = [LatexExtractionConfig(boxed_match_priority=-1)]
    parsed = [parse(f"${_latex(side)}$", form, parsing_timeout=None) for side in (gold, answer)]
    return all(parsed) and verify(*parsed, timeout_seconds=None)


def _may_be_shown(text: str) -> bool:
    """Short, balanced, with numbers of at most two digits, flat exponents and no words."""
    if len(text) > 200 or re.search(r"\d{3}|[\":]|__|!|\\binom|\\text|\\begin|(?<![\\A-Za-z])[A-Za-z]{4}", text):
        return False
    balanced = all(text.count(a) == text.count(b) for a, b in zip(OPENING, CLOSING, strict=True))
    return balanced and text.count("^") <= 8 and not re.search(r"\^\s*\{[^{}]*\^", text)


def _latex(text: str) -> str:
    spelled = {"≤": r"\le ", "≥": r"\ge ", "∞": r"\infty ", "π": r"\pi ", "*": r"\cdot ", "°": r"^\circ ", "±": r"\pm "}
    return "".join(spelled.get(char, char) for char in text)
