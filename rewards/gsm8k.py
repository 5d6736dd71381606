r"""Grade-school arithmetic: 1.0 where the final number of the response equals the gold number, else 0.0.

The final number stands after the last `####`, GSM8K's own mark; else in the last `<answer>...</answer>` or balanced
`\boxed{...}`; else it is the last number of the text. A marked answer must hold exactly one number, so that listing
several earns nothing. Thousands separators, currency and percent signs, units and a trailing full stop are ignored
(`50%` is the number 50); decimals and fractions are compared exactly, as rationals.

>>> reward("She pays 2 * $9 = $18.", answer="So 2 * 9 = 18\n#### 18")
1.0
>>> reward(r"Half of it, \boxed{\frac{1}{2}}.", answer="0.5")
1.0
>>> reward(r"It is \boxed{17 \text{ or } 18}.", answer="18")
0.0
"""

from __future__ import annotations

import re
from fractions import Fraction

from ._marked import marked_answer

NUMBER = re.compile(
    r"(?:(?P<sign>(?<![\w)\]}%])[-\u2212]\\?\$?|\\?\$[-\u2212])|\\?\$)?(?<![A-Za-z0-9_])"
    r"(?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:\s?/\s?(?P<divisor>[0-9]+)(?![0-9.]))?"
)
DIGITS = 100
"""A number written with more characters than this is no answer: Python refuses to convert 4,300 digits."""


def reward(response: str, answer: str | int | float) -> float:
    """1.0 where the final number equals the gold number, else 0.0.

    answer: a number, or a GSM8K solution that ends in `#### NUMBER`.
    Raises: ValueError where the gold answer holds no number.
    """
    gold = final_number(str(answer))
    if gold is None:
        raise ValueError(f"the column 'answer' holds no number to compare with: {str(answer)[-80:]!r}.")
    return float(final_number(response) == gold)


def final_answer(response: str) -> str | None:
    """The final number, as a fraction in lowest terms: equal numbers are one answer in a vote."""
    number = final_number(response)
    return None if number is None else str(number)


def final_number(text: str) -> Fraction | None:
    """The number that the text ends on; None where there is none, or where a marked answer holds several."""
    marked = text.rpartition("####")[2].strip().partition("\n")[0] if "####" in text else marked_answer(text)
    numbers = _numbers(text if marked is None else marked)
    if not numbers or (marked is not None and len(numbers) > 1):
        return None
    return _value(numbers[-1])


def _numbers(text: str) -> list[re.Match]:
    text = re.sub(r"\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}", r" \1/\2", text)
    return list(NUMBER.finditer(text.replace("{,}", ",").replace("\\!", "").replace("\\,", "")))


def _value(match: re.Match) -> Fraction | None:
    number, divisor = match["number"].replace(",", ""), match["divisor"] or "1"
    if len(number) > DIGITS or len(divisor) > DIGITS or int(divisor) == 0:
        return None
    value = Fraction(number) / int(divisor)
    return -value if match["sign"] else value
