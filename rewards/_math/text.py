r"""One spelling for what LaTeX, Unicode and plain text spell in many ways, and cuts that respect brackets.

    clean(r"x \leqslant \dfrac12")   -> r"x ≤ \frac12"
    clean("½ or 10{,}000")           -> r"\frac{1}{2} , 10000"
    split("(1,2), 3", ",")           -> ["(1,2)", ",", "3"]

Whatever the other files of this folder read has been through `clean`.
"""

# ruff: noqa: RUF002 (the docstrings show signs that look like others)

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import accumulate

MAX_ANSWER = 1_500
"""Characters of an answer; the longest gold of the MATH, OlympiadBench and Minerva sets has 230."""
MAX_DIGITS = 1_000
"""Of a number as written."""
OPENING, CLOSING = "([{⦃⌊⌈", ")]}⦄⌋⌉"
BRACES = re.compile(r"\\.|[{}]", re.S)
MATH = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$(.+?)(?<!\\)\$", re.S)
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
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
LARGE = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
"""Word of a large number -> its power of ten."""
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
    text = re.sub("[₀-₉]+", lambda match: f"_{{{match.group().translate(SUBSCRIPTS)}}}", text)  # NFKC: a digit more
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
        rf"(?<=\d)\s*(?:\\text\s*\{{)?\s*({'|'.join(LARGE)})\b\s*\}}?", lambda m: f"*10^{{{LARGE[m[1]]}}}", text
    )
    text = re.sub(r"\^\s*\{?\s*°\s*\}?", "°", text)
    text = re.sub(r"\^\s*\{?\s*('+)\s*('*)\s*\}?", r"\1\2", text)
    text = re.sub(r"(?<![\w.])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])", r"\1\\frac{\2}{\3}", text)
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


def closing(text: str, opening: int) -> int | None:
    """Index of the brace that closes the one at `opening`; None where it is not within MAX_ANSWER characters."""
    depth = 0
    for match in BRACES.finditer(text, opening, opening + MAX_ANSWER):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.start()
    return None


def depth(text: str) -> int:
    """How deep brackets are nested (an upper bound where they are not balanced)."""
    return max(accumulate(((char in OPENING) - (char in CLOSING) for char in text), initial=0))


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
