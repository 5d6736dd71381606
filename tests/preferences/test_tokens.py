"""Pairs as token ids: those that were sampled, or a text's with one end of sequence."""

import pytest
from transformers import AutoTokenizer

from grpo.dpo_flags import Options, asked
from grpo.preferences.tokens import LONG_PROMPT, LONG_RESPONSE, make_pairs
from grpo.presets import EMBEDDED_MODEL
from grpo.problems.preferences import Comparison
from grpo.records import Group, Problem, Rollout


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(EMBEDDED_MODEL)


def options(*flags) -> Options:
    return asked(["--data", "org/name", *flags])


def test_a_text_gets_one_end_of_sequence(tokenizer):
    end = tokenizer.eos_token_id
    texts = ("4", "5" + tokenizer.eos_token)
    ((pair,), dropped) = make_pairs([Comparison("2+2=", texts, (0, 1))], tokenizer, options())
    better, worse = (rollout.tokens for rollout in pair.rollouts)
    assert better == (*tokenizer("5")["input_ids"], end) and worse == (*tokenizer("4")["input_ids"], end)
    assert tokenizer.decode(pair.problem.prompt_tokens) == "2+2=\n" and not dropped  # under the chat template
    ((plain,), _) = make_pairs([Comparison("2+2=", texts, (0, 1))], tokenizer, options("--template", "plain"))
    assert tokenizer.decode(plain.problem.prompt_tokens) == "2+2="


def test_rollouts_keep_the_ids_that_were_sampled(tokenizer):
    rollouts = tuple(Rollout(ids, (-1.0,) * len(ids), text, False) for ids, text in (((9, 8), "x"), ((7,), "y")))
    group = Group(Problem("p", (1, 2, 3), {}), rollouts)
    ((pair,), _) = make_pairs([Comparison("p", ("x", "y"), (0.0, 1.0), group)], tokenizer, options())
    assert pair.problem is group.problem and pair.rollouts == rollouts[::-1]


def test_what_is_too_long_is_counted(tokenizer):
    comparisons = [
        Comparison("2+2=", ("4", "5"), (1, 0)),
        Comparison("2+2=" * 9, ("4", "5"), (1, 0)),
        Comparison("2+2=", ("4" * 97, "5"), (1, 0)),
    ]
    pairs, dropped = make_pairs(comparisons, tokenizer, options())
    assert len(pairs) == 1 and dropped == {LONG_PROMPT: 1, LONG_RESPONSE: 1}


def test_more_pairs_of_a_prompt(tokenizer):
    comparison = Comparison("2+2=", ("4", "5", "6"), (1, 0, 0.5))
    for count in (1, 2, 3, 9):
        pairs, _ = make_pairs([comparison], tokenizer, options("--pairs-per-prompt", str(count)))
        assert len(pairs) == min(count, 3)
        assert [rollout.text for rollout in pairs[0].rollouts] == ["4", "5"]
