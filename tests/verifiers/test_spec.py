"""grpo/verifiers/spec.py: every way to plug a verifier in, and the parameters that it may ask for."""

from functools import partial

import pytest
from verifier_tools import HOSTILE, group, nan, rewards_of, rollout, same, write_verifier

from grpo.errors import UserError
from grpo.records import Group, Problem
from grpo.verifiers.verify import Verifiers, check_specs


@pytest.fixture
def file(tmp_path):
    """Write a verifier's file; returns its path."""
    return partial(write_verifier, tmp_path)


def test_a_verifier_may_import_files_beside_it(file):
    file("from . import _deeper\nx = _deeper.x\n", "_helper.py")
    file("x = 0.75\n", "_deeper.py")
    spec = file("""
        from ._helper import x
        def reward(response):
            from . import _later
            return x + _later.x
    """)
    file("x = 1.0\n", "_later.py")
    assert rewards_of([spec], [group(["a"])]).total.tolist() == [[1.75]]


def test_every_parameter_of_the_contract(file):
    spec = file("""
        def reward(response, tokens, truncated, prompt, answer, size, *, unused="default", **rest):
            found = (response, tokens, truncated, prompt, answer, size, unused, rest)
            expected = ("ab", (3, 4), True, "What is 1?", "1", 7, "default", {"other": [1, 2]})
            return found == expected
    """)
    problem = Problem("What is 1?", (9,), {"answer": "1", "size": 7, "other": [1, 2]})
    assert rewards_of([spec], [Group(problem, (rollout("ab", (3, 4), True),))]).total.tolist() == [[1]]


def test_a_default_yields_to_a_column(file):
    spec = file("def reward(response, scale=3.0):\n    return scale\n")
    without, given_ = group(["a"]), group(["a"], scale=5.0)
    assert rewards_of([spec], [without, given_]).total.tolist() == [[3], [5]]


def test_callable_objects_and_modules(file, tmp_path, monkeypatch):
    file(
        """
        from functools import partial
        def scaled(response, scale):
            return scale * len(response)
        doubled = partial(scaled, scale=2)
        class Counter:
            def __call__(self, response, answer):
                return response.count(answer)
        counter = Counter()
        """,
        "my_graders.py",
    )
    monkeypatch.syspath_prepend(tmp_path)
    specs = ["my_graders:doubled", "my_graders:counter=10"]
    check_specs(specs, ["answer"])
    assert rewards_of(specs, [group(["1", "211"])]).total.tolist() == [[12, 26]]


TRL = """
def accuracy(prompts, completions, answer, **kwargs):
    assert set(kwargs) == {"completion_ids", "level"}, kwargs
    assert all(isinstance(completion, str) for completion in completions)
    return [1.0 if a in c else None for c, a in zip(completions, answer)]

def chat(completions, prompts, **kwargs):
    assert prompts[0] == [{"role": "user", "content": "What is 1?"}]
    assert all([m["role"] for m in completion] == ["assistant"] for completion in completions)
    return [float(len(completion[0]["content"])) for completion in completions]

async def ids(completion_ids, **kwargs):
    return [float(sum(each)) for each in completion_ids]
"""


def test_reward_functions_written_for_trl(file):
    spec = file(TRL, "theirs.py")
    text = [group(["1", "2"], level=3, prompt="a column that TRL keeps to itself")]
    text = [Group(Problem("What is 1?", (), each.problem.columns), each.rollouts) for each in text]
    rewards = rewards_of([f"trl:{spec}:accuracy=2"], text)
    assert same(rewards.by_verifier["theirs.accuracy"], [[1, nan]])
    assert rewards.total.tolist() == [[2, 0]]
    problem = Problem([{"role": "user", "content": "What is 1?"}], (), {})
    rollouts = (rollout("abc", (1, 2)), rollout("d", (5,)))
    rewards = rewards_of([f"trl:{spec}:chat", f"trl:{spec}:ids"], [Group(problem, rollouts)])
    assert rewards.by_verifier["theirs.chat"].tolist() == [[3, 1]]
    assert rewards.by_verifier["theirs.ids"].tolist() == [[3, 5]]


def test_check_specs_knows_parameters_and_columns(file):
    spec = file("""
        def reward(response, solution, level=1):
            return 1.0
        def grade(responses, response):
            return responses
        def slash(response, /):
            return 1.0
        def loads(response):
            return 1.0
    """)
    theirs = file("def f(completions, trainer_state, **kwargs):\n    return 1.0\n", "theirs.py")
    check_specs([spec, HOSTILE], ["solution", "answer"])
    with pytest.raises(UserError) as error:
        check_specs([f"{spec}=0.5"], ["problem", "answer"])
    assert str(error.value) == (
        f"verifier '{spec}=0.5' requires 'solution', which is not a column of the data. The columns are: problem, "
        "answer; the response gives: response, tokens, truncated, prompt; the run: step, steps. Rename the parameter, "
        "give it a default, or map a column of the data to that name."
    )
    with pytest.raises(UserError, match=r"requires 'response', which is.*gives: responses, prompts, tokens"):
        check_specs([f"{spec}:grade"], ["answer"])
    with pytest.raises(UserError, match=r"takes response by position only.*Remove the '/'"):
        check_specs([f"{spec}:slash"], ["answer"])
    with pytest.raises(UserError, match=r"requires 'trainer_state'.*gives: prompts, completions, completion_ids"):
        check_specs([f"trl:{theirs}:f"], ["answer"])


def test_a_row_without_the_column(file):
    spec = file("def reward(responses, level):\n    return level\n")
    with Verifiers([HOSTILE, spec]) as verifiers:
        bare = Group(Problem("", (), {}), (rollout("a"),))
        with pytest.raises(
            UserError, match=r"requires 'answer', which is not a column of the data. The columns are: none"
        ):
            verifiers.submit(bare.problem, bare.rollouts[0])
    spec = file("def reward(responses, level=0):\n    return level\n", "optional.py")
    with pytest.raises(UserError, match="only some rows of the data have a column 'level'"):
        rewards_of([spec], [group(["a"], level=1), group(["a"])])
