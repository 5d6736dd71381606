"""Every file in rewards/: the contract of a verifier, and the exact rewards of the rule-based ones."""

import ast
import doctest
import inspect
import math
import random
import subprocess
import sys
import time
from fractions import Fraction
from itertools import pairwise

import jsonschema
import pytest
import referencing.exceptions
import tiny_reward_model
from hypothesis import given
from hypothesis import strategies as st
from judge_server import JudgeServer

from grpo import plugins

NAMES = plugins.available("rewards")
verifier = {name: plugins.load(name, "rewards") for name in NAMES}
inclusion = plugins.load("sorted_list:inclusion", "rewards")
gsm8k, exact, think_format, countdown, choice, sorted_list, json_schema, regex, overlong = (
    verifier[name]
    for name in "gsm8k exact think_format countdown choice sorted_list json_schema regex overlong".split()
)

ROW = {
    "answer": "7",
    "nums": [1, 2, 4],
    "target": 7,
    "schema": {"type": "object"},
    "pattern": r"\d+",
    "tests": ["assert f() == 7"],
    "max_response_tokens": 100,
}
OWN_ROW = {"choice": {**ROW, "answer": "B"}}
"""Columns for every verifier to ask from, and those in which one needs another value."""

HOSTILE = {
    "empty": "",
    "white space": " \n\t\r\v " * 1000,
    "NUL": "\0\0 \\boxed{\0} \0",
    "control": "\x01\x1b[31m\x7f\x85",
    "bidirectional": "\u202e7\u2066",
    "surrogate": "\ud800 \\boxed{\udfff}",
    "long text": "and so on " * 10_000,
    "one long word": "x" * 100_000,
    "digits": "9" * 100_000,
    "numbers": "1 " * 50_000,
    "thousands": "1,111" + ",111" * 25_000,
    "minus signs": "-" * 100_000,
    "open brackets": "(" * 100_000,
    "open braces": "{" * 100_000,
    "equals signs": "1 = " * 25_000,
    "open boxes": "\\boxed{" * 15_000,
    "nested boxes": "\\boxed{" * 10_000 + "}" * 10_000,
    "empty boxes": "\\boxed{}" * 12_000,
    "open answers": "<answer>" * 12_000,
    "closed answers": "</answer>" * 11_000,
    "thoughts": "<think></think>" * 6_000,
    "fractions": "\\frac{1}{2}" * 9_000,
    "nested fractions": "\\boxed{" + "\\frac{" * 5_000 + "1" + "}{2}" * 5_000 + "}",
    "hashes": "#### " * 20_000,
    "fences": "```json\n" * 12_000,
    "JSON": "[" * 50_000 + "]" * 50_000,
    "announcements": "the answer is " * 7_000,
}


@pytest.fixture
def settings(request, tmp_path, monkeypatch):
    """The environment variables that the verifier under test asks for."""
    monkeypatch.setenv("GRPO_ALLOW_CODE", "1")
    if request.node.callspec.params["name"] == "python_tests" and sys.platform != "linux":
        pytest.skip("the sandbox is made of Landlock and seccomp")
    if request.node.callspec.params["name"] == "reward_model":
        monkeypatch.setenv("GRPO_REWARD_MODEL", str(tiny_reward_model.save(tmp_path / "model")))
    if request.node.callspec.params["name"] != "llm_judge":
        yield
        return
    with JudgeServer() as server:
        monkeypatch.setenv("GRPO_JUDGE_URL", server.url)
        monkeypatch.setenv("GRPO_JUDGE_MODEL", "judge")
        yield


def call(name, response):
    """The reward of one response, with whatever the verifier's parameters ask for."""
    parameters = inspect.signature(verifier[name]).parameters
    batch = "responses" in parameters
    known = {**OWN_ROW.get(name, ROW), "response": response, "tokens": range(10), "truncated": False, "prompt": "Q"}
    if batch:
        known = {f"{key}s": [value] for key, value in known.items()}
    required = [p for p in parameters if parameters[p].default is inspect.Parameter.empty]
    result = verifier[name](**{p: known[p] for p in required})
    return result[0] if batch else result


# --- the contract -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_is_a_plain_documented_file(name):
    assert name not in sys.stdlib_module_names
    function, module = verifier[name], inspect.getmodule(verifier[name])
    assert module.__doc__ and ">>> " in module.__doc__ and function.__doc__
    annotations = inspect.signature(function)
    assert all(p.annotation is not inspect.Parameter.empty for p in annotations.parameters.values())
    assert annotations.return_annotation is not inspect.Signature.empty
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert not any(module.split(".")[0] == "grpo" for module in imported)


@pytest.mark.parametrize("name", NAMES)
def test_worked_example_is_true(name, settings):
    failed, attempted = doctest.testmod(inspect.getmodule(verifier[name]))
    assert attempted > 0 and failed == 0


@pytest.mark.parametrize("name", NAMES)
def test_survives_hostile_responses_alike_each_time(name, settings):
    for kind, response in HOSTILE.items():
        start = time.process_time()
        first = call(name, response)
        assert time.process_time() - start < 3, kind
        assert first is None or (isinstance(first, (float, bool)) and math.isfinite(first)), kind
        assert call(name, response) == first, kind


def test_none_loads_torch():
    script = "import sys; from grpo import plugins\nfor n in plugins.available('rewards'): plugins.load(n, 'rewards')\n"
    script += "print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# --- the marked answer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "marked"),
    [
        ("no mark", None),
        (r"\boxed{4}", "4"),
        (r"\boxed{4} then \boxed{5}.", "5"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{5}}", r"\boxed{5}"),
        (r"\boxed{5} and \boxed{6", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed {5} \fbox{6}", "5"),
        (r"} \boxed{5}", "5"),
        (r"\boxed{}", ""),
        ("<answer>4</answer>", "4"),
        (r"\boxed{3} <answer>4</answer>", "4"),
        (r"<answer>so \boxed{4}</answer> not \boxed{5}", "4"),
        ("<answer>3</answer><answer>4</answer>", "4"),
        ("<answer>4", None),
        ("4</answer>", None),
    ],
)
def test_marked_answer(response, marked):
    assert inspect.getmodule(exact).marked_answer(response) == marked


# --- one by one ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "answer", "expected"),
    [
        ("#### 72", "72", 1.0),
        ("72 first, then #### 73", "72", 0.0),
        ("so\n####  1,234.00 dollars\nbye 9", "1234", 1.0),
        ("####\n72", "72", 1.0),
        ("#### 71 or 72", "72", 0.0),
        ("####", "72", 0.0),
        (r"\boxed{72}", "Reasoning 3*24\n#### 72", 1.0),
        (r"\boxed{71, 72}", "72", 0.0),
        (r"\boxed{72} after 1 minute", "72", 1.0),
        (r"It is \boxed{\$1{,}000\text{ dollars}}.", "1000", 1.0),
        (r"\boxed{50\%}", "50", 1.0),
        (r"\boxed{0.5}", "50%", 0.0),
        ("She has 72.", 72, 1.0),
        ("She pays $72.50.", 72.5, 1.0),
        ("She pays $72.50.", "72", 0.0),
        ("5, 72, 9", "72", 0.0),
        ("The gold is 72, I say 9", "72", 0.0),
        ("5 - 3 = -2", "-2", 1.0),
        ("10-2", "2", 1.0),
        ("\u22123", "-3", 1.0),
        ("a loss of -$5", "-5", 1.0),
        ("3/4", "0.75", 1.0),
        ("0.1", "1/10", 1.0),
        ("0.3333333333333333", "1/3", 0.0),
        ("1/0", "0", 0.0),
        ("12345678901234567890", "12345678901234567891", 0.0),
        ("9" * 5000, "9", 0.0),
        ("no number", "72", 0.0),
        ("H2O and CO2", "2", 0.0),
        ("1,23", "23", 1.0),
    ],
)
def test_gsm8k(response, answer, expected):
    assert gsm8k(response, answer=answer) == expected


@given(st.integers(-(10**12), 10**12))
def test_gsm8k_reads_every_integer_in_every_spelling(n):
    for text in (f"{n}", f"{n:,}", f"{n}.0", f"{n}.", f"#### {n:,}", rf"\boxed{{{n:,}}}", f"It is ${n}"):
        assert gsm8k(text, answer=str(n)) == 1.0
        assert gsm8k(text, answer=str(n + 1)) == 0.0


@pytest.mark.parametrize(
    ("response", "answer", "expected"),
    [
        ("Paris", "Paris", 1.0),
        ("  Paris\n", " Paris ", 1.0),
        ("paris", "Paris", 0.0),
        ("Paris.", "Paris", 0.0),
        ("Cafe\u0301", "Caf\u00e9", 1.0),
        (r"Paris? No: \boxed{Rome}", "Paris", 0.0),
        (r"\boxed{Paris, Rome}", "Paris", 0.0),
        ("<answer> Paris </answer>", "Paris", 1.0),
        ("It is 'Paris', he said.", "Paris", 0.0),
        ("\\boxed{}", "Paris", 0.0),
        ("Paris\0", "Paris", 0.0),
        ("7", 7, 1.0),
        ("", "Paris", 0.0),
    ],
)
def test_exact(response, answer, expected):
    assert exact(response, answer=answer) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<think>a</think><answer>b</answer>", 1.0),
        ("\n<think>\na\n</think>\n\n<answer>b</answer>\n", 1.0),
        ("a</think> <answer>b</answer>", 1.0),
        ("<think>a</think>b", 0.0),
        ("<answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer> more", 0.0),
        ("more <think>a</think><answer>b</answer>", 0.0),
        ("<think>a</think> more <answer>b</answer>", 0.0),
        ("<think>a</think><think>a</think><answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer><answer>b</answer>", 0.0),
        ("<think>a<think>a</think><answer>b</answer>", 0.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("<think>a<answer>b</answer></think>", 0.0),
        ("a</think></answer>b<answer>", 0.0),
        ("<think></think><answer>b</answer>", 0.0),
        ("<think>a</think><answer> </answer>", 0.0),
        ("<think>a</think><answer>b", 0.0),
    ],
)
def test_think_format(response, expected):
    assert think_format(response) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<answer>(1 + 2) * 8</answer>", 1.0),
        ("<answer>(1 + 2) * 8 = 24</answer>", 1.0),
        ("<answer>(1 + 2) * 8 = 3 * 8 = 24.</answer>", 1.0),
        ("<answer>(1 + 2) * 8 = 25</answer>", 0.0),
        (r"\boxed{(1+2)\times 8}", 1.0),
        (r"\boxed{8 \div \frac{1}{1 + 2}}", 0.0),
        (r"\boxed{\left(1+2\right)\cdot 8}", 1.0),
        ("<answer>$8 \u00d7 (2 + 1)$</answer>", 1.0),
        ("<answer>-(-8 * (1 + 2))</answer>", 1.0),
        ("First 1 + 2 = 3.\nThen (1 + 2) * 8 = 24.", 1.0),
        ("(1 + 2) * 8 = 24\n3 * 8 = 24", 0.0),
        ("I quote (1 + 2) * 8 = 24 and say 1 + 2 = 3", 0.0),
        ("(1 + 2) * 8 = 24.5", 0.0),
        ("<answer>(1 + 2) * 8, (2 + 1) * 8</answer>", 0.0),
        ("<answer>24</answer>", 0.0),
        ("<answer>24 * 1 ** 28</answer>", 0.0),
        ("<answer>8 * 2 // 1 + 8</answer>", 0.0),
        ("<answer>8 * (1 + 2) + 8 - 8</answer>", 0.0),
        ("<answer>8 * 3</answer>", 0.0),
        ("<answer>12 * 8 / 4</answer>", 0.0),
        ("<answer>1.2 * 8</answer>", 0.0),
        ("<answer>8 * (1 + 0x2)</answer>", 0.0),
        ("<answer>8 * (2 + True)</answer>", 0.0),
        ("<answer>8(1 + 2)</answer>", 0.0),
        ("<answer>8 / (1 + 2 - 3)</answer>", 0.0),
        ("<answer>8 * (1 + 2) or 8</answer>", 0.0),
        ("<answer>__import__('os').getpid()</answer>", 0.0),
        ("<answer>8 * (1 + 2</answer>", 0.0),
        ("<answer></answer>", 0.0),
        ("", 0.0),
    ],
)
def test_countdown(response, expected):
    assert countdown(response, nums=[8, 1, 2], target=24) == expected


def test_countdown_divides_exactly():
    assert countdown("<answer>8 / (3 - 8 / 3)</answer>", nums=[3, 3, 8, 8], target=24) == 1.0
    assert countdown(r"<answer>\frac{8}{3 - \frac{8}{3}}</answer>", nums=[3, 3, 8, 8], target=24) == 1.0
    assert countdown("<answer>1 / 3 + 2 / 3</answer>", nums=[1, 2, 3, 3], target=1) == 1.0


@given(st.lists(st.integers(0, 99), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_countdown_agrees_with_random_expressions(nums, rng: random.Random):
    terms = [(str(n), Fraction(n)) for n in nums]
    while len(terms) > 1:
        (left, x), (right, y) = (terms.pop(rng.randrange(len(terms))) for _ in "ab")
        op = rng.choice("+-*/" if y else "+-*")
        value = {"+": x + y, "-": x - y, "*": x * y}[op] if op != "/" else x / y
        terms.append((f"({left} {op} {right})", value))
    text, value = terms[0]
    assert countdown(f"<answer>{text}</answer>", nums=nums, target=value) == 1.0
    assert countdown(f"<answer>{text}</answer>", nums=nums, target=value + 1) == 0.0
    assert countdown(f"<answer>{text}</answer>", nums=[*nums, 1], target=value) == 0.0


@pytest.mark.parametrize(
    "response",
    "B|(B)|(b)|B.|B)|B) 42|**B**|**(B)**|**Answer:** B|option B|Answer: B|The answer is: B|\\boxed{B}|\\boxed{b}|"
    "\\text{(B)}|\\boxed{\\textbf{(B)}\\ 42}|\\boxed{\\text{B. 42}}|<answer>(B) Paris</answer>|The answer is **B**.|"
    "The answer is B because A is wrong|The correct answer is option (B).|The answer is the second, (B)|B Paris|"
    "Not (A).\nHence B.|The answer is A. No, the answer is B.|The answer is (B) Vitamin A".split("|"),
)
def test_choice_reads_the_letter(response):
    for gold in ("B", "(B)", "b", "\\text{(B)}", "B."):
        assert choice(response, answer=gold) == 1.0
    assert choice(response, answer="A") == choice(response, answer="C") == 0.0


@pytest.mark.parametrize(
    "response",
    "A, B|B, C|B or C|(A) or (B)|A/B|B and C|B C|A B C D|(A) (B) (C)|B. x C. y|not B|The answer is not (B)|Boat|"
    "The answer is B or C|\\boxed{B, C}|\\boxed{}|B is tempting.\nThe answer is A|The answer is BC|".split("|"),
)
def test_choice_rejects_lists_negations_and_words(response):
    assert choice(response, answer="B") == 0.0


def test_choice_does_not_take_words_for_letters():
    assert choice("A dog is there", answer="A") == choice("the answer is a dog", answer="A") == 0.0
    assert choice("I think so", answer="I") == 0.0


@pytest.mark.parametrize(
    ("response", "positions", "included"),
    [
        ("1 2 3", 1.0, 1.0),
        ("[1, 2, 3]", 1.0, 1.0),
        ("Sorting 3 2 1 gives <answer>1, 2, 3</answer>", 1.0, 1.0),
        ("3 2 1", 1 / 3, 3 / 5),
        ("2 1 3", 1 / 3, 4 / 5),
        ("2 3 1", 0.0, 4 / 5),
        ("1 2", 2 / 3, 3 / 5),
        ("1 2 3 4", 3 / 4, 5 / 7),
        ("1 2 3 3", 3 / 4, 5 / 7),
        ("0 1 2 3", 0.0, 5 / 7),
        ("1 1 1", 1 / 3, 1 / 5),
        ("4 5 6", 0.0, 0.0),
        ("-1 -2 -3", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_sorted_list(response, positions, included):
    for answer in ("1 2 3", [1, 2, 3]):
        assert sorted_list(response, answer=answer) == positions
        assert inclusion(response, answer=answer) == included


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_sorted_list_pays_in_full_for_the_sorted_list_alone(numbers, rng):
    gold, shuffled = sorted(numbers), rng.sample(numbers, len(numbers))
    for function in (sorted_list, inclusion):
        value = function(" ".join(map(str, shuffled)), answer=gold)
        assert 0 <= value <= 1 and (value == 1) == (shuffled == gold)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.lists(st.integers(0, 30), min_size=1, max_size=20))
def test_sorted_list_surplus_numbers_earn_nothing(numbers, response):
    gold = sorted(numbers)
    more = [*response, 1000]
    for function in (sorted_list, inclusion):
        assert function(str(more), answer=gold) <= function(str(response), answer=gold)
    foreign = [n + 100 for n in response]
    assert sorted_list(str(foreign), answer=gold) == inclusion(str(foreign), answer=gold) == 0


SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer"}, "next": {"$ref": "#"}},
    "required": ["age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ('{"age": 41}', 1.0),
        (' \n{"age": 41}\n', 1.0),
        ('{"age": 41, "next": {"age": 1}}', 1.0),
        ('{"age": 41, "next": {}}', 0.0),
        ('Here:\n```json\n{"age": 41}\n```\nDone.', 1.0),
        ('```json\n{}\n```\n```json\n{"age": 41}\n```', 1.0),
        ('```json\n{"age": 41}\n```\n```json\n{}\n```', 0.0),
        ('```json\n{"age": 41}', 0.0),
        ('<think>{}</think><answer>{"age": 41}</answer>', 1.0),
        ('<answer>```json\n{"age": 41}\n```</answer>', 1.0),
        ('It is {"age": 41}', 0.0),
        ('{"age": 41} {"age": 41}', 0.0),
        ('{"age": "41"}', 0.0),
        ('{"age": NaN}', 0.0),
        ("{'age': 41}", 0.0),
        ('{"age": 41, "x": 1}', 0.0),
        ('{"age": ' + "1" * 5000 + "}", 0.0),
        ("[41]", 0.0),
        ("", 0.0),
    ],
)
def test_json_schema(response, expected):
    assert json_schema(response, schema=SCHEMA) == expected


def test_json_schema_may_be_text_or_true_and_must_be_right():
    assert json_schema("[1]", schema='{"type": "array", "items": {"type": "number"}}') == 1.0
    assert json_schema("[1]", schema=True) == 1.0
    assert json_schema('{"type": 3}', schema={"$ref": "https://json-schema.org/draft/2020-12/schema"}) == 0.0
    with pytest.raises(jsonschema.SchemaError):
        json_schema("[1]", schema={"type": "nonsense"})


def test_json_schema_fetches_nothing(monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("it opened a connection"))
    with pytest.raises(referencing.exceptions.Unresolvable):
        json_schema("{}", schema={"$ref": "https://example.org/schema.json"})


def test_regex():
    assert regex(" 42\n", pattern=r"\d+") == 1.0
    assert regex("is 42", pattern=r"\d+") == 0.0
    assert regex("is 42", pattern=r"\d+", search=True) == 1.0
    assert regex("YES\nno", pattern=r"(?is)yes.*") == 1.0
    assert regex("a\0b", pattern=r"a.b") == 1.0


def test_overlong_is_equation_13_of_dapo():
    penalties = [
        overlong(tokens=[0] * n, max_response_tokens=20, overlong_buffer=4) for n in (0, 16, 17, 18, 19, 20, 99)
    ]
    assert penalties == [0.0, 0.0, -0.25, -0.5, -0.75, -1.0, -1.0]
    assert overlong(tokens=[0] * 18, max_response_tokens=20) == -0.5
    assert overlong(tokens=[0] * 20, max_response_tokens=20, overlong_buffer=0) == 0.0
    assert overlong(tokens=[0] * 21, max_response_tokens=20, overlong_buffer=0) == -1.0


@given(st.integers(1, 500), st.integers(0, 500))
def test_overlong_falls_from_0_to_minus_1(limit, buffer):
    buffer = min(buffer, limit)
    penalties = [overlong(tokens=range(n), max_response_tokens=limit, overlong_buffer=buffer) for n in range(limit + 3)]
    assert penalties[0] == 0.0 and penalties[-1] == -1.0
    assert all(0 >= x >= y >= -1 for x, y in pairwise(penalties))


@pytest.mark.parametrize(
    ("function", "columns", "explanation"),
    [
        (gsm8k, {"answer": "none"}, "holds no number"),
        (exact, {"answer": "  "}, "is empty"),
        (choice, {"answer": "the second"}, "must be a choice"),
        (countdown, {"nums": [], "target": 1}, "at least one number"),
        (countdown, {"nums": [-1], "target": 1}, "none below 0"),
        (sorted_list, {"answer": "3 1 2"}, "ascending order"),
        (inclusion, {"answer": []}, "ascending order"),
    ],
)
def test_a_wrong_row_is_an_error_and_not_a_zero(function, columns, explanation):
    with pytest.raises(ValueError, match=explanation):
        function("1", **columns)


def test_overlong_buffer_must_fit():
    with pytest.raises(ValueError, match="between 0 and 20"):
        overlong(tokens=[], max_response_tokens=20, overlong_buffer=21)
