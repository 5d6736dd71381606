r"""The value of an expression: a calculator that reads LaTeX and plain notation, and computes while it reads.

    value(r"2\frac{1}{3}")   -> Fraction(7, 3)
    value(r"\sqrt{2}")       -> 1.41421..., 60 digits
    value("x + 1", point=0)  -> 1 + the rational that stands for x at point 0
    value("5 a (")           raises Unreadable

Nothing here evaluates Python; digits, exponents and nesting are limited before anything is computed.
"""

from __future__ import annotations

import re
import zlib
from fractions import Fraction
from functools import lru_cache
from typing import Any

from .arithmetic import (
    Unreadable,
    binomial,
    bounded,
    divide,
    factorial,
    function_value,
    mp,
    power,
    rounded_to,
)
from .text import CLOSING, FUNCTIONS, MAX_DIGITS

MAX_DEPTH = 24
"""Nested groups of an expression."""
TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?(?:[eE][+-]?\d+)|\d+\.\d+|\d+\.?|\.\d+|[A-Za-z]+|\S", re.S)
ACCENTS = {r"\dot", r"\ddot", r"\hat", r"\bar", r"\tilde", r"\overline", r"\text", r"\underline", r"\widehat"}
UNREAD = {"\\" + name for name in "int sum prod lim begin end max min pmod bmod not det".split()}
ENDS = set(')]}⦄⌋⌉+-±,;:=<>≤≥≠≈∈∪∩⦃…&?"@#') | {""}


@lru_cache(maxsize=2048)
def value(text: str, point: int = 0) -> Any:
    """Fraction where all is rational, else a 60-digit number; names stand for the numbers of `point`.

    Raises: Unreadable; ZeroDivisionError.
    """
    return Reader(text, point).read()


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
            result = bounded(result + sign * self.signed())
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
                result = bounded(result * self.signed_power())
            elif token == "/":
                self.take()
                result = divide(result, self.signed_power())
            elif token in ENDS or token == "|":
                return result
            elif token[0].isdigit() and self.last not in CLOSING:
                raise Unreadable("a number right after a number or a name")
            else:
                result = bounded(result * self.power())

    def power(self) -> Any:
        result = self.atom()
        while (token := self.peek()) in ("^", "!", "°", "%"):
            self.take()
            if token == "^":
                result = power(result, self.exponent())
            elif token == "!":
                self.discrete = True
                result = factorial(result)
            else:
                result = divide(result, Fraction(100)) if token == "%" else result * mp().pi / 180
        return result

    def exponent(self) -> Any:
        sign = 1
        while self.peek() in ("-", "+"):
            sign *= -1 if self.take() == "-" else 1
        result = self.atom()
        if self.peek() == "^":
            self.take()
            result = power(result, self.exponent())
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
            result = rounded_to(self.total(), token)
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
                return result + divide(self.argument(), self.argument())
        if self.peek() == "_":
            raise Unreadable("a number with a base")
        return result

    def command(self, token: str) -> Any:
        if token == r"\frac":
            numerator = self.argument()
            return divide(numerator, self.argument())
        if token == r"\sqrt":
            index = Fraction(2)
            if self.peek() == "[":
                self.take()
                index = self.total()
                self.take("]")
            return power(
                self.argument() if self.peek() in ("{", "(") or not self.peek()[:1].isdigit() else self.atom_digit(),
                divide(Fraction(1), index),
            )
        if token == r"\binom":
            self.discrete = True
            n, k = self.argument(), self.argument()
            return binomial(n, k)
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
            return function_value(f"arc{name}", argument, base)
        result = function_value(name, argument, base)
        return result if raised is None else power(result, raised)

    def signed_power(self) -> Any:
        sign = 1
        while self.peek() in ("+", "-"):
            sign *= -1 if self.take() == "-" else 1
        return sign * self.power()
