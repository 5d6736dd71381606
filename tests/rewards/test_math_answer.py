"""rewards/math_answer.py: goals on labelled responses, each function on exact cases, hostile input, properties."""

import json
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from grpo.plugins import load

reward = load("math_answer", "rewards")
math_answer = sys.modules[reward.__module__]
spelling, arithmetic, reader, values, shapes, compare, finished = (
    sys.modules[f"{math_answer.__package__}._math.{name}"]
    for name in "text arithmetic reader values shapes compare finished".split()
)

LABELLED = [json.loads(line) for line in (Path(__file__).with_name("math_labelled.jsonl")).open()]
GOALS = {"boxed": (0.985, 0.003), "free": (0.97, 0.0), "hard": (0.85, 0.0)}
"""Track -> least accuracy, greatest share of wrong responses that pass."""


def boxed(text: str) -> str:
    return rf"so the answer is $\boxed{{{text}}}$."


# ------------------------------------------------------------------------------------------------------ labelled


@pytest.mark.parametrize("track", GOALS)
def test_goals_on_the_labelled_responses(track):
    rows = [row for row in LABELLED if row["track"] == track]
    assert len(rows) >= 100 and 0.15 < sum(row["label"] for row in rows) / len(rows) < 0.85
    missed = [row for row in rows if reward(row["response"], row["answer"]) != row["label"]]
    passed = [row for row in missed if not row["label"]]
    accuracy, false_positives = GOALS[track]
    shown = [(row["class"], row["answer"], row["response"][-80:]) for row in missed]
    assert 1 - len(missed) / len(rows) >= accuracy, shown
    assert len(passed) <= false_positives * sum(not row["label"] for row in rows), shown


def test_every_gold_answer_scores_one_in_a_box():
    golds = {
        gold for row in LABELLED for gold in (row["answer"] if isinstance(row["answer"], list) else [row["answer"]])
    }
    assert [gold for gold in golds if reward(boxed(gold), gold) != 1.0] == []


# ------------------------------------------------------------------------------------------------------ contract


def test_answer_may_be_a_number_a_list_or_missing():
    assert reward(boxed("142"), 142) == reward(boxed("142"), 142.0) == 1.0
    assert reward(boxed("2.5"), ["3", r"\frac52"]) == 1.0
    assert reward(boxed("4"), ["3", r"\frac52"]) == 0.0
    assert reward(boxed("None"), None) == reward(boxed(""), "") == reward(boxed("5"), []) == 0.0


def test_reward_is_a_float():
    assert type(reward(boxed("1"), "1")) is float and type(reward("", "1")) is float


def test_an_echo_of_the_prompt_is_no_answer():
    prompt = r"What is 3 + 4? A model once answered \boxed{7}. Was it right?"
    assert reward(prompt, "7") == 1.0
    assert reward(prompt, "7", prompt=prompt) == 0.0
    assert reward(prompt, "7", prompt=[{"role": "user", "content": prompt}]) == 0.0
    assert reward(prompt + r" Yes: \boxed{7}", "7", prompt=prompt) == 1.0


# ------------------------------------------------------------------------------------------------------- extract


@pytest.mark.parametrize(
    ("response", "readings"),
    [
        (r"\boxed{1} ... \boxed{\frac{1}{2}}", [(r"\frac{1}{2}",), ("1", r"\frac{1}{2}")]),
        (r"$x = \boxed{1}$ and $y = \boxed{2}$", [("1", "2")]),
        (r"\boxed{1}, \boxed{2} or \boxed{3}", [("1", "2", "3")]),
        (r"\boxed{\{1, 2\}}", [(r"\{1, 2\}",)]),
        (r"\boxed{ \text{so } \boxed{5} }", [(r" \text{so } \boxed{5} ",)]),
        (r"$= -\boxed{5}$", [("-(5)",)]),
        (r"\fbox{5}", [("5",)]),
        (r"$\boxed 5$", [("5",)]),
        (r"$\boxed{\frac{1}{2}$", [(r"\frac{1}{2}",)]),
        (r"\boxed{51", [("",)]),
        (r"\boxed{}", [("",)]),
        (r"<think>\boxed{1}</think> \boxed{2}", [("2",)]),
        ("", []),
        ("no answer here", [("no answer here",)]),
    ],
)
def test_extract(response, readings):
    found = math_answer.extract(response)
    assert found == readings or (response == "no answer here" and found == [])


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("The answer is 18 dollars.", "18"),
        ("9 * 2 = $18 every day at the market.", "18"),
        ("x\n#### 1,234", "1,234"),
        ("<answer> 7 </answer> and more", "7"),
        (r"By AM-GM the minimum is $4$, attained when $x = 2$.", "4"),
        (r"The roots are $1$, $2$ and $3$.", "1, 2, 3"),
        ("The answer is either 1 or 2.", "1, 2"),
        ("**Final Answer**\n\n\\[ n = 9 \\]", " n = 9 "),
        ("In total he paid $1,250 to them.", "1,250"),
    ],
)
def test_spoken_ends_with_the_expression_of_the_claim(text, last):
    assert list(math_answer.spoken(text))[-1] == last


def test_boxes_gives_positions():
    assert math_answer.boxes(r"a \boxed{1} b") == [(2, 11, "1")]


# --------------------------------------------------------------------------------------------------------- clean


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (r"\dfrac12", r"\frac12"),
        (r"10,\!080", "10080"),
        (r"11,\! 111,\! 100", "11111100"),
        (r"10{,}080", "10080"),
        (r"\left( 3, \tfrac{\pi}{2} \right]", r"( 3, \frac{π}{2} ]"),
        (r"x \leqslant 2", "x ≤ 2"),
        (r"\{1 \text{ or } 2\}", "⦃1 , 2⦄"),
        (r"30^{\circ}", "30°"),
        ("x²", "x^{2}"),
        ("2½", r"2\frac{1}{2}"),
        ("1 4/5", r"1\frac{4}{5}"),
        (r"0.1\overline{6}", "(15/90)"),
        ("0.333...", "(3/9)"),
        ("\u202e5\x00\ud800", "5"),
        ("42.", "42"),
        ("5!", "5!"),
        ("−3 × 2", "-3 * 2"),
    ],
)
def test_clean(text, cleaned):
    assert spelling.clean(text) == cleaned


def test_squash():
    assert spelling.squash(r"\text{A, B} x^{2}") == "{A,B}x^2"


# ------------------------------------------------------------------------------------------------------- compare


def test_split_respects_brackets():
    assert spelling.split("(1,2), [3,4); x", ",;") == ["(1,2)", ",", "[3,4)", ";", "x"]


@pytest.mark.parametrize(
    ("text", "kind", "parts"),
    [
        ("1, 2", "list", ["1", "2"]),
        ("1,234", "scalar", ["1234"]),
        ("(1, 2]", "(]", ["1", "2"]),
        ("(5)", "scalar", ["5"]),
        ("⦃1, 2⦄", "set", ["1", "2"]),
        ("⦃x | x > 3⦄", "relation", ["x", ">", "3"]),
        ("(0,1) ∪ (2,3)", "union", ["(0,1)", "(2,3)"]),
        ("(0,5) ∖ ⦃3,1⦄", "union", ["(0,1)", "(1,3)", "(3,5)"]),
        ("1 ± x", "list", ["1 + x", "1 - x"]),
        ("3:5", "ratio", ["3", "5"]),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "matrix", ["2", "1", "2", "3", "4"]),
    ],
)
def test_shape(text, kind, parts):
    assert shapes.shape(text) == (kind, parts)


@pytest.mark.parametrize(
    ("text", "number", "units"),
    [
        ("¤18.90", "18.90", {"dollar": 1}),
        (r"5\text{ cm}^2", "5", {"cm": 2}),
        (r"5 \text{ square centimeters}", "5", {"cm": 2}),
        ("5 apples", "5", {"apple": 1}),
        ("5 cm", "5", {"cm": 1}),
        ("5 n", "5 n", {}),
        ("30°", "30", {"°": 1}),
        (r"\sin 30°", r"\sin 30°", {}),
        (r"9.8 \text{m}/\text{s}^2", "9.8", {"m": 1, "s": -2}),
    ],
)
def test_split_unit(text, number, units):
    assert values.split_unit(text) == (number, units)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\frac34", Fraction(3, 4)),
        (r"2\frac{1}{3}", Fraction(7, 3)),
        ("2^{-3}", Fraction(1, 8)),
        ("2^3^2", Fraction(512)),
        ("-2^2", Fraction(-4)),
        ("6/2*3", Fraction(9)),
        ("6/-2*3", Fraction(-9)),
        ("5!", Fraction(120)),
        (r"\binom{5}{2}", Fraction(10)),
        ("1.5e3", Fraction(1500)),
        ("⌊-5/2⌋", Fraction(-3)),
        ("|3-5|", Fraction(2)),
        ("50%", Fraction(1, 2)),
    ],
)
def test_value_is_exact_for_rationals(text, value):
    assert reader.value(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(",
        "1)",
        "2 3",
        "x2",
        "9^{9^9}",
        "99999!",
        "1e99999",
        r"\int x",
        "__import__('os')",
        "2^{99999999}",
        "9" * 1500,
    ],
)
def test_value_refuses_what_it_cannot_read_or_what_is_too_large(text):
    with pytest.raises(arithmetic.Unreadable):
        reader.value(text)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("0.14142136", "i", False),
        ("x + 1", "1 + x", True),
        ("x + 1", "y + 1", False),
        ("I(0) e^{-t}", "0", False),
        (r"\sin^2 x + \cos^2 x", "1", False),  # names on one side only: not the same answer
        ("|x|", "x", False),
        (r"\sqrt{2}", "1.41421", False),
        (r"\sqrt{2}", "1.414213562", True),
        (r"\sqrt{2}", "1.414213563", False),
        (r"\frac{1}{3}", "0.33333", True),
        (r"\frac{1}{3}", "0.3333", False),
        (r"\frac{1}{4}", "0.2500001", False),
        ("10^{30}", "10^{30}+1", False),
        ("x^{50}", "x^{51}", False),
    ],
)
def test_identical(a, b, same):
    assert values.identical(a, b) is same
    assert values.identical(b, a) is same


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("5, 6", "5"),
        (r"5 \text{ or } 6", "5"),
        (r"\{4, 5, 6\}", "5"),
        ("[0, 10]", "5"),
        (r"\text{(C)} or 17", "C"),
        (r"\text{(C) or (D)}", "C"),
        ("5 = 6", "6"),
        ("2 + 2 = 5", "5"),
        ("x = 5 = 6", "6"),
        (r"5.5 \approx 5", "5"),
        ("x^2 + y^2 = 25", "x^2 + y^2 = 5^3"),
        ("25", "x^2 + y^2 = 25"),
        ("y = 5", "x = 5"),
        (r"\text{not } 5", "5"),
        ("(2, 1)", "(1, 2)"),
        ("[1, 2]", "(1, 2)"),
        ("5 a (", "5"),
        ("5 n", "5"),
        (r"5 \text{ m}", r"5 \text{ cm}"),
        (r"5\%", r"5^\circ"),
        (r"\$5", r"5 \text{ cents}"),
        ("25168", "2516_8"),
        ("164 square feet", r"164\pi \text{ square feet}"),
    ],
)
def test_near_misses_do_not_pass(answer, gold):
    assert reward(boxed(answer), gold) == 0.0


def test_math_verify_is_asked_about_what_the_calculator_cannot_read():
    assert reward(boxed(r"\int_0^1 2x \, dx"), "1") == 1.0
    assert reward(boxed(r"\int_0^1 2x \, dx"), "2") == 0.0


def test_the_exact_path_imports_neither_sympy_nor_torch():
    code = (
        "import sys; from grpo.plugins import load; reward = load('math_answer', 'rewards');"
        r"assert reward('\\boxed{\\frac{1}{2}, 3x+1}', '1+3x, 0.5') == 1.0;"
        "print([m for m in ('torch', 'sympy', 'math_verify') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------------ finished


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("47+385", "432"),
        ("47 + 385", "432"),
        ("385+47", "432"),
        ("(47+385)", "432"),
        ("x = 47+385", "432"),
        ("47+385 = 385+47", "432"),
        ("47+385, 385+47", "432"),
        (r"\$47+385", "432"),
        ("47+385 dollars", "432"),
        (r"\text{The answer is } 47+385", "432"),
        ("432+0", "432"),
        ("1,000 - 1", "999"),
        (r"2 \cdot 3", "6"),
        ("2(3)", "6"),
        ("(2)(3)", "6"),
        (r"\frac{8+2}{2}", "5"),
        ("123456*1000001", "123456123456"),
        ("1.5e3+1", "1501"),
        ("(0+1, 2)", "(1, 2)"),
        ("0+1, 1+1", "1, 2"),
    ],
)
def test_a_calculation_is_no_number(answer, gold):
    assert compare.equal(answer, gold)
    assert reward(boxed(answer), gold) == 0.0


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("47+385 = 432", "432"),
        ("432 = 47+385", "432"),
        (r"47+385 \approx 432", "432"),
        (r"\frac{8}{2}", "4"),
        ("8/2", "4"),
        (r"-\frac{1}{2}", "-0.5"),
        (r"1\frac{1}{2}", "1.5"),
        ("1 1/2", "1.5"),
        ("2½", "5/2"),
        (r"50\%", "0.5"),
        (r"1.5 \times 10^{3}", "1500"),
        (r"1.5 \cdot 10^{-3}", "0.0015"),
        ("10^5", "100000"),
        ("1e3", "1000"),
        ("2 million", "2000000"),
        ("5!", "120"),
        (r"\binom{5}{2}", "10"),
        (r"\sqrt{9}", "3"),
        (r"5 \text{ m}^2", "5"),
        (r"3\sqrt{2}", r"\sqrt{18}"),
        (r"1+\sqrt{2}", r"\sqrt{2}+1"),
        ("x + 1 + 1", "x + 2"),
        ("1024", "2^{10}"),
        ("4^5", "2^{10}"),
        ("2^{20}", "1048576"),
        ("2^{30}-1", "1073741823"),
        ("2+3", "3+2"),
        ("2^{10}", "1024"),
        (r"\frac{1}{2}+\frac{1}{3}", r"\frac{5}{6}"),
        ("(x, y) = (1, 2)", "(1, 2)"),
        (r"y = \frac{3}{4}x - 3", "3x - 4y = 12"),
        (r"3 \pm 2", "1, 5"),
        ("-(5)", "-5"),
    ],
)
def test_a_value_is_a_number_however_it_is_written(answer, gold):
    assert reward(boxed(answer), gold) == 1.0


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("47+385", 0.0),
        ("47+385=", 0.0),
        ("The answer is 47+385.", 0.0),
        ("47+385=432", 1.0),
        ("The sum of 47 and 385 is 432.", 1.0),
    ],
)
def test_a_calculation_without_a_box_is_no_number(response, expected):
    assert reward(response, "432", prompt="47+385=") == reward(response, "432") == expected


@pytest.mark.parametrize(
    ("prompt", "answer", "gold", "expected"),
    [
        ("Expand $(x+1)^2$.", "(x+1)^2", "x^2+2x+1", 0.0),
        ("Expand $(x+1)^2$.", "x^2+1+2x", "x^2+2x+1", 1.0),
        (r"Simplify \(\sqrt{18}\).", r"\sqrt{18}", r"3\sqrt{2}", 0.0),
        (r"Let $a = \sqrt{9}$. Find $a$.", r"\sqrt{9}", "3", 0.0),
        (r"Let $a = \sqrt{9}$. Find $a$.", r"a = \sqrt{9}", "3", 0.0),
        (r"Compute $\dfrac{8}{2}$.", r"\frac 82", "4", 0.0),
        (r"Which is larger, $\frac{1}{2}$ or $0.3$?", r"\frac12", "0.5", 1.0),
        ("Write $2x - y + 3 = 0$ in slope-intercept form.", "2x - y + 3 = 0", "y = 2x + 3", 0.0),
        ("Is $12x$ even?", "2x", r"x \cdot 2", 1.0),
        ("How many primes are in $(1, 2)$?", "(1, 2)", "(1, 2)", 1.0),
        ("What is 2^10?", "2^{10}", "1024", 0.0),
        ("How many subsets has a set of 10 elements?", "2^{10}", "1024", 1.0),
        ("How many subsets has a pair of sets of 10 elements, not 2?", "2^{20}", "1048576", 1.0),
        ("What is 2^30 - 1?", "2^{30} - 1", "1073741823", 1.0),
        ("What is $2^{30} - 1$?", "2^{30} - 1", "1073741823", 0.0),
        ("Add 1/2 and 1/3.", r"\frac{1}{3} + \frac{1}{2}", r"\frac{5}{6}", 0.0),
        ("Divide 1,000 by 8.", "1000/8", "125", 0.0),
        ("Divide 8 by 4 and by 2.", "8/4/2", "1", 0.0),
        ("What is 47+385?", "(47+385)/1", "432", 0.0),
        ("What is 47+385?", "47+385^1", "432", 0.0),
        ("Line up 5 people.", "5!", "120", 1.0),
        ("Take 50% of 3/2 cups.", r"\frac{3}{4}", "0.75", 1.0),
        ([{"role": "user", "content": "Compute $5!$."}], "5!", "120", 0.0),
        ([{"role": "user", "content": None}, "odd"], "5!", "120", 1.0),
    ],
)
def test_a_formula_of_the_prompt_is_no_answer(prompt, answer, gold, expected):
    assert reward(boxed(answer), gold, prompt=prompt) == expected


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("47+385", True),
        ("(2)(3)", True),
        ("5 - -3", True),
        ("2^{3+4}", True),
        (r"\sqrt{2+2}", True),
        ("5 - 2^3", False),
        ("2^3 * 5", False),
        ("1/2 + 3", False),
        ("3! + 2", False),
        ("-5", False),
        ("1.5 * 10^{3}", False),
    ],
)
def test_arithmetic_is_of_integers_and_decimals(text, plain):
    assert finished._is_arithmetic(text) is plain


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("47+385", ["+"]),
        ("1-2*3", ["-", "*"]),
        ("2(3)", ["*"]),
        (r"\frac{8}{2}", []),
        ("8/4/2", ["/"]),
        ("1.5*10^{3}", []),
        ("2*1.5*10^3", ["*"]),
        ("-5", []),
        ("(-5)", []),
        ("f(3)", []),
        ("x-coordinate", []),
        (r"\text{m}^2", []),
    ],
)
def test_operations(text, found):
    assert finished.operations(text) == found


@given(
    st.integers(0, 9999), st.integers(0, 9999), st.sampled_from(["{}+{}", "{} + {}", r"{}\cdot{}", "{}({})", "{}-{}"])
)
@settings(deadline=None)
def test_a_calculation_with_two_numbers_never_passes(a, b, form):
    gold = a + b if "+" in form else a - b if "-" in form else a * b
    assume(str(gold) != form.format(a, b))
    assert reward(boxed(form.format(a, b)), str(gold)) == 0.0
    if "+" in form:  # of text without a box that is no formula, `5(0)`, the last number may be read
        assert reward(form.format(a, b), str(gold)) == 0.0
    assert reward(boxed(f"{form.format(a, b)} = {gold}"), str(gold)) == 1.0


# ------------------------------------------------------------------------------------------------------- hostile

N = 100_000
HOSTILE = {
    "power tower": boxed("9^{9^{9^{9^9}}}"),
    "factorial": boxed("((9!)!)!"),
    "binomial": boxed(r"\binom{10^9}{5 \cdot 10^8}"),
    "powers multiplied": boxed("*".join(["9^{9999}"] * 150)),
    "power of a sum": boxed("(x+1)^{99}" * 100),
    "exponentials": boxed("e^{e^{e^{e^{100}}}}"),
    "large argument": boxed(r"\sin(10^{1000})"),
    "long sum": boxed(r"\sum_{k=1}^{999999999} \frac{1}{k}"),
    "million digits": boxed("9" * 10 * N),
    "1500 digits": boxed("9" * 1400),
    "decimal exponent": boxed("1e999999999"),
    "periods": boxed("0." + "3" * 1400 + "..."),
    "deep braces": boxed("{" * N + "5" + "}" * N),
    "deep brackets": boxed("(1," * 250 + "2" + ")" * 250),
    "deep fractions": boxed(r"\frac{1}{" * 200 + "5" + "}" * 200),
    "deep functions": boxed(r"\sin " * 240 + "5"),
    "deep roots": boxed(r"\sqrt{" * 200 + "5" + "}" * 200),
    "set of thousands": boxed(r"\{" + ",".join(map(str, range(50_000))) + r"\}"),
    "set of hundreds": boxed(r"\{" + ",".join(map(str, range(300))) + r"\}"),
    "wide matrix": boxed(r"\begin{pmatrix}" + "5&" * 700 + r"\end{pmatrix}"),
    "many boxes": r"\boxed{6}" * N,
    "open boxes": r"\boxed{" * N,
    "empty boxes": r"\boxed{}" * N,
    "open braces": "{" * 10 * N,
    "dollars": "$" * 10 * N,
    "open formulas": r"\[" * N,
    "cues": "the answer is " * N,
    "answers": "the answer " * N,
    "numbers": "1 2 " * N,
    "words so": "so 6 " * N,
    "because": r"because ) \( " * N,
    "stars": "**" * N,
    "hashes": "#" * N,
    "tags": "<answer>" * N,
    "thinks": "</think>" * N,
    "letters in a name": boxed("Dividing both sides by " * 60 + "("),
    "signs": boxed("=" * 1400),
    "percents": boxed("%" * 1400),
    "spaces": boxed("5 a" + " " * 1400 + "("),
    "absolute values": boxed("|" * 1400),
    "ratios": boxed("1:A) " * 280),
    "python": boxed("__import__('os').system('exit 1')"),
    "lambda": boxed("(lambda: 5)()"),
    "attribute": boxed(r"5.__class__.__bases__"),
    "nan": boxed(r"\text{NaN}"),
    "infinity": boxed(r"\infty"),
    "symbol": boxed("x"),
    "tautology": boxed("x = x"),
    "zero by zero": boxed(r"\frac{0}{0}"),
    "all integers": boxed(r"\mathbb{Z}"),
    "interval": boxed(r"(-\infty, \infty)"),
    "no characters": boxed("\x00\u202e\ud800"),
    "unbalanced": boxed(r"6}\left("),
    "null": "\x00" * N,
    "surrogates": "\ud800" * N,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("gold", ["5", r"\frac{1}{2}", "(1,2)", "y=2x", "Evelyn", "C", ""])
def test_hostile_responses_score_zero_at_once(name, gold):
    start = time.perf_counter()
    assert reward(HOSTILE[name], gold) == 0.0
    assert time.perf_counter() - start < 3  # most take a millisecond; math-verify's first import a second


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_gold_answers_are_survived(name):
    gold = HOSTILE[name].partition("boxed{")[2][:-3] or HOSTILE[name]
    assert reward(boxed("7"), gold) == 0.0
    assert reward(HOSTILE[name], gold[:20_000]) in (0.0, 1.0)


VOCABULARY = [
    *r"a 1 , ( [ { \{ ) ] } = < . ... \text{a} \text{ \frac \frac{1}{2} \sqrt ^ ^2 _ ' ! % ° $ \$ \( \[".split(),
    *r": | ∈ ± ∪ ∖ * / + - & ½ ² ** # 0. x=1, \begin{pmatrix} \end{pmatrix} \overline{1} \boxed{ \left( \\".split(),
    *["x ", " ", "\n", "5 cm ", "A) ", "is ", "the answer is ", "not ", "and ", "1 and ", "so ", "because "],
]


@pytest.mark.parametrize("token", VOCABULARY)
def test_no_pattern_backtracks_without_end(token):
    body = (token * 1400)[:1400]
    start = time.perf_counter()
    for response in (boxed(body + "("), boxed(body + "x"), body * 20):
        assert reward(response, "17") == 0.0
    assert time.perf_counter() - start < 3


# ---------------------------------------------------------------------------------------------------- properties

integers = st.integers(-(10**6), 10**6)
rationals = st.builds(Fraction, st.integers(-9999, 9999), st.integers(1, 999))


def spellings(number: Fraction) -> list[str]:
    """A rational as fractions of several kinds, a mixed number and, where it ends, a decimal and a percentage."""
    sign, n, d = "-" if number < 0 else "", abs(number.numerator), number.denominator
    spelled = [
        f"{sign}{n}/{d}",
        rf"{sign}\frac{{{n}}}{{{d}}}",
        rf"\dfrac{{{sign}{n}}}{{{d}}}",
        rf"{sign}\frac{{{3 * n}}}{{{3 * d}}}",
    ]
    if n > d > 1:
        spelled += [rf"{sign}{n // d}\frac{{{n % d}}}{{{d}}}", rf"{sign}{n // d}\tfrac{{{n % d}}}{{{d}}}"]
    if 10**6 % d == 0:
        spelled += [f"{float(number):.6f}", rf"{float(number * 100):.4f}\%"]
    return spelled


@given(rationals, st.data())
@settings(deadline=None)
def test_spellings_of_a_rational_agree(number, data):
    a, b = (data.draw(st.sampled_from(spellings(number))) for _ in "ab")
    assert reward(boxed(a), b) == 1.0


@given(rationals, rationals, st.data())
@settings(deadline=None)
def test_spellings_of_other_rationals_do_not(x, y, data):
    assume(x != y and x != 100 * y and y != 100 * x)
    a, b = (data.draw(st.sampled_from([text for text in spellings(n) if "%" not in text])) for n in (x, y))
    assert reward(boxed(a), b) == 0.0


@given(
    integers,
    integers,
    st.sampled_from(["{}", r"\text{{{}}}", "{}.", "x = {}", r"{} \text{{ cm}}", r"\$ {}", "{:,}", r"{}^\circ"]),
)
@settings(deadline=None)
def test_a_wrong_integer_never_passes(right, wrong, form):
    assert reward(boxed(form.format(right)), str(right)) == 1.0
    assert reward(boxed(form.format(wrong)), str(right)) == float(wrong == right)


expressions = st.recursive(
    st.sampled_from(["x", "y", "2", "3", r"\pi", r"\frac{1}{2}", r"\sqrt{2}", "0.5", "0.14142136", "i", r"\ln 2"]),
    lambda inner: st.one_of(
        st.builds(r"\left({} + {}\right)".format, inner, inner),
        st.builds("({} - {})".format, inner, inner),
        st.builds(r"{} \cdot {}".format, inner, inner),
        st.builds(r"\frac{{{}}}{{{}}}".format, inner, inner),
        st.builds(r"\sqrt{{{}}}".format, inner),
        st.builds("({})^2".format, inner),
        st.builds("2^{{{}}}".format, inner),
    ),
    max_leaves=6,
)


@given(expressions, expressions)
@settings(deadline=None)
def test_symmetric(a, b):
    assert compare.equal(a, b) == compare.equal(b, a)


@given(expressions)
@settings(deadline=None)
def test_reflexive_under_another_spelling(a):
    assert reward(boxed(a.replace(r"\frac", r"\dfrac").replace(r"\cdot", r"\times").replace("x", "{x}")), a) == 1.0


@given(expressions, st.integers(1, 9))
@settings(deadline=None)
def test_one_more_is_not_the_same(a, more):
    assert reward(boxed(f"{a} + {more}"), a) == 0.0


latex = st.lists(st.sampled_from([*VOCABULARY, "5", "x", "\x00", "\ud800", "or", "\\"]), max_size=25).map("".join)


@given(latex, latex, st.booleans())
@settings(deadline=None, max_examples=400)
def test_random_text_never_raises(response, gold, in_box):
    assert reward(boxed(response) if in_box else response, gold) in (0.0, 1.0)


@given(st.text(max_size=60), st.text(max_size=30))
@settings(deadline=None)
def test_any_text_never_raises(response, gold):
    assert reward(response, gold) in (0.0, 1.0)


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=5, unique=True), st.data())
@settings(deadline=None)
def test_a_list_has_no_order_and_a_tuple_has(numbers, data):
    shuffled = data.draw(st.permutations(numbers))
    listed, other = (", ".join(map(str, values)) for values in (numbers, shuffled))
    assert reward(boxed(other), listed) == 1.0
    assert reward(boxed(rf"\{{{other}\}}"), listed) == 1.0
    assert reward(boxed(f"({other})"), f"({listed})") == float(shuffled == numbers)
    assert reward(boxed(listed), str(numbers[-1])) == 0.0


# Conventions: roundings, angles, parameters, names, bases and hours ---------------------------------------------------

SAME_BY_CONVENTION = [
    # a more exact answer that rounds to a gold decimal of four digits or more
    (r"\pi", "3.142"), ("3.14159", "3.142"), (r"-\pi", "-3.142"), ("1/3", "0.3333"), (r"\sqrt{2}", "1.414"),
    ("12.3456", "12.35"),
    # degrees and radians
    (r"90^\circ", r"\frac{\pi}{2}"), (r"\frac{\pi}{2}", r"90^\circ"), (r"\frac{\pi}{2}\text{ rad}", "90°"),
    # the name of a whole number
    (r"n\pi", r"x = k\pi"), (r"x=n\pi", r"k\pi"), (r"x = 2n\pi, n\in\mathbb{Z}", r"x = 2k\pi, k \in \mathbb{Z}"),
    # what a ratio or a length is called
    ("7:32", "S : T = 7:32"), ("7/32", "S : T = 7:32"), ("1", "|AB| = 1"), ("|AB|=1", "1"),
    # Unicode subscripts
    ("2516₈", "2516_8"), ("2516_8", "2516₈"), ("2516", "2516₈"), ("a₁", "a_1"),
    # hours
    ("20:34", r"8:34 \text{ p.m.}"), ("8:34 p.m.", "20:34"), ("20:34", "8:34 PM"),
]  # fmt: skip
OTHER_BY_CONVENTION = [
    (r"\pi", "3.14"), (r"5+6\sqrt{2}", "13.5"), ("12.46", "12.5"), ("6/13", "0.5"), ("3.1416", "3.142"),
    ("3.1435", "3.142"), ("3.142", "3.14159265"), ("12.5", "12.46"), ("12 23/50", "12.5"), ("13", "12.96"),
    (r"355/113", "3.1417"), ("-3.14159", "3.142"),
    (r"45^\circ", r"\frac{\pi}{2}"), ("90", r"\frac{\pi}{2}"), (r"\frac{\pi}{2}^\circ", r"\frac{\pi}{2}\text{ rad}"),
    ("n", "k"), (r"n\pi", r"2k\pi"), (r"x\pi", r"k\pi"), (r"\frac{\pi}{3}+2n\pi", r"\frac{\pi}{3}+2k\pi"),
    ("32:7", "S : T = 7:32"), ("T : S = 7:32", "S : T = 7:32"), ("-1", "|AB| = 1"), ("|AC| = 1", "|AB| = 1"),
    ("1", "|x| = 1"),
    ("25168", "2516₈"), ("2516_9", "2516₈"),
    ("8:34", "20:34"), ("8:34 a.m.", "20:34"), ("20:34", "8:34 a.m."), ("20:35", "8:34 p.m."), ("20:34", "0:34 pm"),
]  # fmt: skip


@pytest.mark.parametrize("answer,gold", SAME_BY_CONVENTION)
def test_a_convention_is_known(answer, gold):
    assert compare.equal(answer, gold)


@pytest.mark.parametrize("answer,gold", OTHER_BY_CONVENTION)
def test_a_convention_lets_nothing_else_through(answer, gold):
    assert not compare.equal(answer, gold)


@example(10_000, 1, -50, 2)
@given(st.integers(10**4, 10**6), st.integers(1, 4), st.integers(-50, 50), st.integers(2, 4))
def test_a_decimal_is_taken_for_a_rounding_exactly_where_it_is_one(gold, places, more, further):
    """gold / 10^places, and an answer with `further` more places, up to half a unit of the last place beside it."""
    scale = 10**further
    answer = gold * scale + more * scale // 100 + (1 if more > 0 else 0)
    texts = (f"{answer / 10 ** (places + further):.{places + further}f}", f"{gold / 10**places:.{places}f}")
    assert compare.equal(*texts) == (abs(answer - gold * scale) * 2 <= scale)
