"""Arithmetic that stays small: rationals exactly, all else to 60 digits, and a refusal before anything grows large.

    power(Fraction(2), Fraction(-3))             -> Fraction(1, 8)
    power(Fraction(9), Fraction(10**9))          raises Unreadable
    near(power(Fraction(2), Fraction(1, 2)), x)  compares to 40 digits

What is not rational is a number of a 60-digit context of our own.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

MAX_BITS = 1 << 15
"""Of a rational while it is computed."""
MAX_MAGNITUDE = 10**6
"""Binary exponent of an irrational number."""
MAX_FACTORIAL = 2_000


class Unreadable(ValueError):
    """The expression is not in the grammar of `Reader`, or too large to be computed."""


@lru_cache(maxsize=1)
def mp() -> Any:
    """A 60-digit context of our own (mpmath's global precision belongs to sympy); imported when first needed."""
    import mpmath

    context = mpmath.MPContext()
    context.dps = 60
    return context


def near(a: Any, b: Any) -> bool:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    a, b = mp().convert(a), mp().convert(b)
    return bool(abs(a - b) <= max(abs(a), abs(b), 1) * mp().mpf(10) ** -40)


def bounded(x: Any) -> Any:
    if isinstance(x, Fraction) and x.numerator.bit_length() + x.denominator.bit_length() > MAX_BITS:
        raise Unreadable("too large a number")
    return x


def divide(a: Any, b: Any) -> Any:
    if b == 0:
        raise ZeroDivisionError
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return bounded(a / b)
    return mp().convert(a) / mp().convert(b)


def power(base: Any, exponent: Any) -> Any:
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


def factorial(n: Any) -> Any:
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


def binomial(n: Any, k: Any) -> Any:
    if not all(isinstance(x, Fraction) and x.denominator == 1 and 0 <= x <= MAX_FACTORIAL for x in (n, k)):
        raise Unreadable("a binomial out of range")
    return factorial(n) / (factorial(k) * factorial(n - k)) if k <= n else Fraction(0)


def rounded_to(x: Any, bracket: str) -> Any:
    if isinstance(x, Fraction):
        return Fraction(x.__floor__() if bracket == "⌊" else x.__ceil__())
    return mp().floor(x) if bracket == "⌊" else mp().ceil(x)


def function_value(name: str, x: Any, base: Any) -> Any:
    if name == "abs":
        return abs(x)
    if name == "sqrt":
        return power(x, Fraction(1, 2))
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
