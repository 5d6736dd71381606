"""Documents as token ids: what is learnt of them, and what ends them."""

import pytest
from conftest import END, OTHER_END

from grpo.errors import UserError
from grpo.problems.documents import encode_documents
from grpo.problems.templates import prompt_encoder


@pytest.fixture(scope="module")
def encoded(tied_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tied_folder)
    encode = prompt_encoder(tokenizer, "plain")

    def of(rows, most=100, end=END):
        return encode_documents(rows, tokenizer, encode=encode, end=end, most=most), tokenizer

    return of


def parts(found):
    return [(group.problem.prompt_tokens, group.rollouts[0].tokens) for group in found.groups]


def test_of_a_text_every_token_but_the_first_is_learnt_and_its_end(encoded):
    found, tokenizer = encoded([{"text": "abcd"}])
    ids = tuple(tokenizer("abcd")["input_ids"])
    assert len(ids) > 1 and parts(found) == [(ids[:1], (*ids[1:], END))] and found.dropped == 0


def test_of_a_problem_the_solution_alone_is_learnt(encoded):
    found, tokenizer = encoded([{"problem": "abc", "solution": "de"}])
    assert parts(found) == [(tuple(tokenizer("abc")["input_ids"]), (*tokenizer("de")["input_ids"], END))]


def test_a_long_text_is_cut_and_a_long_solution_dropped(encoded):
    text = "abcdefghij"
    found, tokenizer = encoded([{"text": text}, {"problem": text, "solution": text}], most=4)
    whole = (*tokenizer(text)["input_ids"], END)
    pieces = [whole[at : at + 4] for at in range(0, len(whole), 4)]
    short = [piece for piece in pieces if len(piece) == 1]
    assert parts(found) == [(piece[:1], piece[1:]) for piece in pieces if len(piece) > 1]
    assert found.dropped == 1 + len(short)  # a piece of one token has nothing that is foretold


def test_a_solution_ends_as_a_response_does_and_a_text_with_the_end_of_sequence(encoded):
    """A base model's template may end a response otherwise than its texts end."""
    rows = [{"problem": "abc", "solution": "de"}, {"text": "abcd"}]
    (solution, text), tokenizer = parts(encoded(rows, end=OTHER_END)[0]), encoded(rows)[1]
    assert solution[1] == (*tokenizer("de")["input_ids"], OTHER_END)
    assert text[1][-1] == tokenizer.eos_token_id == END
    assert parts(encoded(rows, end=None)[0])[0][1] == tuple(tokenizer("de")["input_ids"])


def test_documents_of_which_nothing_is_left_are_refused(encoded):
    with pytest.raises(
        UserError, match="nothing can be learnt from its 1 documents: they have a single token, or more"
    ):
        encoded([{"problem": "abcdefghij", "solution": "abcdefghij"}], most=4)
