r"""What stands behind a number: a product of powers of known units, and the words beside them.

    unit_of("kilometers per hour")       -> {"km": 1, "h": -1}
    unit_of(r"\text{m/s}^2")             -> {"m": 1, "s": -2}
    unit_of("square feet of carpet")     -> {"ft": 2, "carpet": 1}
    agree({"km": 1, "h": -1}, unit_of("km/h"))   -> True
    unit_of("tenths")                    -> None: a word that makes another number of it

No unit is converted into another one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

from .text import FUNCTIONS, GREEK

Unit = Mapping[str, int]
"""Symbol of a known unit, or the stem of an unknown word -> its power; empty: no unit."""

GLUED = """cm centimeter centimetre|mm millimeter millimetre|km kilometer kilometre|in inch inche|ft foot feet|yd yard
    mi mile|s sec second|min minute|h hr hour|day|week wk|month|year yr|g gram gramme gm|kg kilogram kilo|lb pound
    oz ounce|l liter litre|ml milliliter millilitre|gal gallon|dollar usd buck ¤|cent ¢|° degree deg|rad radian|am|pm
    m meter metre|mph|kph|kmh|mpg|rpm|kwh|hz hertz|n newton|j joule|w watt|v volt|k kelvin|c celsius centigrade
    f fahrenheit|% percent pct"""
"""Lines of one unit each, its symbol first. These may follow their number at once: `5cm`."""
APART = """μm micrometer micrometre micron um|nm nanometer nanometre|μs microsecond|ms millisecond|mg milligram
    μg microgram|kw kilowatt|kj kilojoule|kpa kilopascal|pa pascal|ω ohm|ampere amp|mol mole|cal calorie
    kcal kilocalorie|ha hectare|acre|ton|tonne|cup|pint pt|quart qt|tablespoon tbsp|teaspoon tsp|bit|byte|kb kilobyte
    mb megabyte|gb gigabyte|knot|atm|dozen|pair|score|unit"""
"""These only after a space, or in a `\\text`: `5 nm`, for `5nm` is a product of names."""
COMPOUND = {
    "mph": {"mi": 1, "h": -1},
    "kph": {"km": 1, "h": -1},
    "kmh": {"km": 1, "h": -1},
    "mpg": {"mi": 1, "gal": -1},
    "kwh": {"kw": 1, "h": 1},
}


def _table(lines: str) -> dict[str, str]:
    each = [line.split() for line in lines.replace("\n", "|").split("|")]
    return {word: words[0] for words in each for word in words}


GLUED_NAMES = _table(GLUED)
NAMES = GLUED_NAMES | _table(APART)
KNOWN = frozenset(NAMES.values()) | {"μm", "μs", "μg"}
IRREGULAR = {"children": "child", "people": "person", "men": "man", "women": "woman", "mice": "mouse", "geese": "goose"}
SAID = frozenset("of the a an each in total more fewer less".split()) - {"in"}
"""Words that say nothing of the unit."""
BEFORE = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
AFTER = {"squared": 2, "cubed": 3}
NUMBERS = frozenset(
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion
    half halves third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth hundredth thousandth millionth
    plus minus over negative inverse divided choose factorial infinity inf not or no least most than
    mod modulo pi""".split()
) | set(GREEK)
"""Words that make another number of the one before them, or nothing certain."""
TOKEN = re.compile(r"[a-zμω]+|\^?\{?-?\d+\}?|[°%¢¤/*]")
MAX_TOKENS = 24


@lru_cache(maxsize=1024)
def unit_of(text: str) -> Unit | None:
    r"""The unit that cleaned text behind a number stands for; None where it is not only a unit.

    `\frac{\text{km}}{\text{h}}` is `km/h`. What comes after a `/` or a `per` divides, to the end.
    """
    tokens = TOKEN.findall(_spelled(text))
    if len(tokens) > MAX_TOKENS:
        return None
    terms: list[tuple[Unit, int]] = []
    side, ahead = 1, 1
    for token in tokens:
        if token in ("/", "per"):
            side = -1
        elif token in BEFORE:
            ahead *= BEFORE[token]
        elif token in AFTER or token.strip("^{}-").isdigit():
            if not terms:
                return None
            unit, power = terms.pop()
            terms.append((unit, power * (AFTER.get(token) or int(token.strip("^{}")))))
        elif token != "*" and token not in SAID:
            if {token, token.removesuffix("s")} & NUMBERS:
                return None
            name = _name(token)
            terms.append((COMPOUND.get(name, {name: 1}), side * ahead))
            ahead = 1
    return _product(terms) if ahead == 1 else None


def _spelled(text: str) -> str:
    r"""Without `\text` and full stops, in lower case, with `μ` at its unit and a fraction as a division."""
    text = re.sub(r"\}\s*\{", "}/{", text) if "\\frac" in text else text
    text = re.sub(r"\\text|\\frac|\.", "", text).lower().replace("\\omega", "ω")
    return re.sub(r"(?<=[μ^{])\s+|\s+(?=\})", "", text)


def _name(word: str) -> str:
    """The symbol of a known unit, else what is common to the singular and the plural of the word."""
    return next((NAMES[spelt] for spelt in spellings(word) if spelt in NAMES), stem(word))


def spellings(word: str) -> list[str]:
    """The word, and what it may be the plural of; `lbs` of `lb`, but `ns` of no `n`."""
    return [word, *([word.removesuffix("s"), stem(word)] if len(word) > 2 else [])]


def stem(word: str) -> str:
    """The same text for a singular and its plural: `box`, `boxes` -> `box` · `horse`, `horses` -> `hors` · `berries`,
    `berry` -> `berry` · `glass` -> `glass` · `children` -> `child`."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if len(word.removesuffix("s")) > 3 and word.endswith(("ie", "ies")):
        return word.removesuffix("s")[:-2] + "y"
    if found := re.fullmatch(r"(.+(?:s|x|z|ch|sh))es?", word):
        return found[1]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _product(terms: list[tuple[Unit, int]]) -> Unit:
    powers: Counter[str] = Counter()
    for unit, power in terms:
        for name, each in unit.items():
            powers[name] += each * power
    if powers["c"] or powers["f"]:
        powers["°"] = 0  # `°C` is no angle
    if powers["unit"] == 1:
        powers["unit"] = 0  # `5 units` says no more than `5`
    return {name: power for name, power in sorted(powers.items()) if power}


def agree(unit: Unit, wanted: Unit) -> bool:
    """Whether two units do not contradict each other: one is missing, or they are the same as far as they are known.

    Where both have words of another kind they share one of those.
    """
    if not unit or not wanted:
        return True
    (known, words), (known_wanted, words_wanted) = _parts(unit), _parts(wanted)
    if known != known_wanted or not (known or words & words_wanted):
        return False
    return not words or not words_wanted or bool(words & words_wanted)


def _parts(unit: Unit) -> tuple[Unit, set[str]]:
    known = {name: power for name, power in unit.items() if name in KNOWN}
    return known, set(unit) - set(known)


def is_plain_unit(text: str, apart: bool, letters: bool = False) -> bool:
    """Whether letters behind a number, outside of any `\\text`, are its unit and no names of variables.

    apart: a space is between them. Single letters are names, unless they divide, or `letters` says that they are units;
    beside a word that is no unit they are names in any case: `5 choose k`.
    """
    text = _spelled(text)
    words = [word for word in re.findall(r"[a-zμω]+", text) if word not in SAID and word != "per"]
    if not words or set(words) & set(FUNCTIONS):
        return False
    if all(len(word) == 1 for word in words) and "/" not in text and not letters:
        return False
    names = NAMES if apart else GLUED_NAMES
    unknown = [word for word in words if word not in BEFORE and not any(spelt in names for spelt in spellings(word))]
    return not unknown or (apart and all(len(word) > 2 for word in unknown) and all(len(word) > 1 for word in words))
