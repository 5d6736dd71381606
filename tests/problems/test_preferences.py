"""Every format of comparisons is read, what teaches nothing is counted, and what is none is refused by its row."""

import pytest

from grpo.errors import UserError
from grpo.problems.preferences import APART, EQUAL, TIED, Comparison, best_pairs, kept, read_rows, split_by_prompt

USER, SYSTEM = {"role": "user", "content": "2+2?"}, {"role": "system", "content": "Add."}


def says(text):
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    "row,prompt,responses,scores",
    [
        ({"prompt": "2+2?", "chosen": "4", "rejected": "5"}, "2+2?", ("4", "5"), (1, 0)),
        ({"prompt": "2+2?", "chosen": [says("4")], "rejected": [says("5")]}, "2+2?", ("4", "5"), (1, 0)),
        ({"prompt": [SYSTEM, USER], "chosen": "4", "rejected": "5"}, [SYSTEM, USER], ("4", "5"), (1, 0)),
        # UltraFeedback: the conversations hold the prompt as well
        ({"prompt": "2+2?", "chosen": [USER, says("4")], "rejected": [USER, says("5")]}, "2+2?", ("4", "5"), (1, 0)),
        ({"chosen": [SYSTEM, USER, says("4")], "rejected": [SYSTEM, USER, says("5")]},
         [SYSTEM, USER], ("4", "5"), (1, 0)),
        # HH-RLHF: the prompt ends at the last turn, not at the first
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
             "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: e"},
            "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", (" d", " e"), (1, 0),
        ),
        # ... and one response may begin with the other
        ({"chosen": "\n\nHuman: a\n\nAssistant: bc", "rejected": "\n\nHuman: a\n\nAssistant: b"},
         "\n\nHuman: a\n\nAssistant:", (" bc", " b"), (1, 0)),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": 3}, "p", ("a", "b"), (3, 0)),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": 8.5, "score_rejected": "7"},
         "p", ("a", "b"), (8.5, 7)),
        ({"prompt": "p", "responses": ["a", "b", "c"], "scores": [1, 3, 1]}, "p", ("a", "b", "c"), (1, 3, 1)),
    ],
)  # fmt: skip
def test_formats(row, prompt, responses, scores):
    (found,) = read_rows([row], "it.jsonl").comparisons
    assert (found.prompt, found.responses, found.scores) == (prompt, responses, scores)


def test_what_teaches_nothing_is_dropped_and_counted():
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    apart = [{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: x\n\nAssistant: c"},
             {"chosen": [USER, says("4")], "rejected": [SYSTEM, USER, says("5")]}]  # fmt: skip
    tied = [
        {"prompt": "p", "responses": ["a", "b"], "scores": [1, 1]},
        good | {"score_chosen": 1, "score_rejected": 2},
        good | {"margin": 0},
    ]
    read = read_rows([good, good | {"rejected": "a"}, *apart, *tied], "it.jsonl")
    assert len(read.comparisons) == 1 and read.dropped == {EQUAL: 1, APART: 2, TIED: 3}
    assert read.words.startswith("1 dropped with equal responses, 2 dropped whose two conversations")
    with pytest.raises(UserError, match="holds no comparison: 1 dropped with equal responses"):
        read_rows([good | {"rejected": "a"}], "it.jsonl")
    with pytest.raises(UserError, match="it has no rows"):
        read_rows([], "it.jsonl")


@pytest.mark.parametrize(
    "row,message",
    [
        ({"question": "p", "answer": "a"}, "row 1: it is no comparison. Its columns are: question, answer."),
        ({"prompt": "p", "chosen": "a", "rejected": [says("b")]}, "must both be texts"),
        ({"chosen": "a", "rejected": "b"}, "must hold '.n.nAssistant:'"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "prompt must be a text"),
        ({"chosen": [says("4")], "rejected": [says("5")]}, "prompt must be a text"),
        ({"chosen": [USER], "rejected": [USER, says("5")]}, "must be the assistant's, and is of the user"),
        ({"chosen": [{"text": "a"}], "rejected": [says("5")]}, "with a role and a content each"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [1]}, "two lists of the same length"),
        ({"prompt": "p", "responses": ["a"], "scores": [1]}, "needs two responses or more"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [1, float("nan")]}, "scores is nan, and must be a finite"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": None}, "margin is None"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": 1}, "score_rejected is None"),
    ],
)
def test_what_is_no_comparison_is_refused_by_its_row(row, message):
    with pytest.raises(UserError, match=message):
        read_rows([{"prompt": "p", "chosen": "a", "rejected": "b"}, row], "it.jsonl")


def test_the_split_is_by_prompt_and_never_by_pair():
    comparisons = [Comparison(f"p{i % 25}", (f"a{i}", "b"), (1, 0)) for i in range(100)]
    training, held_out = split_by_prompt(comparisons)
    assert len(held_out) == 2 * 4 and len(training) == 92  # a tenth of 25 prompts, all four comparisons of each
    assert not {c.prompt for c in training} & {c.prompt for c in held_out}
    again, _ = split_by_prompt(comparisons[::-1])
    assert sorted(map(repr, again)) == sorted(map(repr, training))  # it does not depend on the order
    assert split_by_prompt(comparisons[:9]) == (comparisons[:9], [])


def test_the_best_pair_is_the_best_and_the_worst():
    comparison = Comparison("p", ("a", "b", "c", "d", "d"), (0.5, 1, 0, 1, 1))
    drawn = {best_pairs(comparison, 1, seed)[0] for seed in range(50)}
    assert drawn == {(1, 2), (3, 2), (4, 2)}  # any of the three best, against the worst
    assert best_pairs(comparison, 1, 7) == best_pairs(comparison, 1, 7)
    every = best_pairs(comparison, 99, 0)
    assert {*every[:3]} == drawn and {*every[3:]} == {(1, 0), (3, 0), (4, 0), (0, 2)}
    assert best_pairs(Comparison("p", ("a", "a", "b"), (1, 0, 0)), 9, 0) == [(0, 2)]  # no pair of equal texts


def test_rollouts_that_teach_nothing_are_counted():
    read = kept(
        [Comparison("p", ("a", "b"), (1, 0)), Comparison("p", ("a", "b"), (1, 1)), Comparison("p", ("a", "a"), (1, 0))]
    )
    assert len(read.comparisons) == 1 and read.dropped == {TIED: 1, EQUAL: 1}
