"""What a template writes after an assistant's text: the end that a model under it has learnt, or learns, to write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo.errors import UserError
from grpo.problems.templates import chat_renderer, template_of, text_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWER = "The answer is 7."


@dataclass(frozen=True)
class Marker:
    """What a template writes after an assistant's text."""

    text: str
    """Stripped; empty where it writes nothing."""
    token: int | None
    """The special token that it begins with; None where it is plain text."""


def template_marker(tokenizer: PreTrainedTokenizerBase, template: str, chat_args: Sequence[str] = ()) -> Marker | None:
    """The end that the template writes, or asks for; None where a chat template does not show it.

    chat: a user and an assistant are rendered, and what follows the assistant's text is the end. r1: the closing tag
    that it asks for. Any other text: what ends the user's turn, if that is written as qwen_math writes it.
    """
    name = template_of(tokenizer, template)
    if name == "chat" or name.endswith(".jinja"):
        messages = [{"role": "user", "content": "What is 3+4?"}, {"role": "assistant", "content": ANSWER}]
        try:
            rendered = chat_renderer(tokenizer, name, chat_args)(messages, tokenize=False)
            _, found, tail = rendered.rpartition(ANSWER)
        except UserError:  # it refuses the conversation
            return None
        if not found:
            return None
        tail = tail.strip()
    elif name == "r1":
        tail = "</answer>"
    else:
        found = re.match(r"<\|\w+\|>", text_of(name).partition("{problem}")[2])
        tail = found[0] if found else ""
    ids = tokenizer(tail, add_special_tokens=False)["input_ids"] if tail else []
    if ids and ids[0] in {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}:
        return Marker(tokenizer.decode(ids[:1]), ids[0])
    return Marker(tail, None)


def marker_ids(tokenizer: PreTrainedTokenizerBase, template: str, chat_args: Sequence[str] = ()) -> tuple[int, ...]:
    """The id of the end that the template writes, which ends a response beside the model's own ends; () where it is no
    token. So a base model under a chat template stops where it has learnt to write `<|im_end|>`, and writes no second
    turn."""
    marker = template_marker(tokenizer, template, chat_args)
    return () if marker is None or marker.token is None else (marker.token,)
