"""What ends a response: the ids that the engine stops at, against the end that the template itself writes; and padding.

A model that is not stopped where it has learnt to stop writes on to the limit, and is punished for what follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from grpo.diagnosis.findings import Finding, fault, not_checked, ok, printable, warning
from grpo.problems.templates import TEMPLATES, template_of

CHECK = "ends"
ANSWER = "The answer is 7."


@dataclass(frozen=True)
class Marker:
    """What a template writes after an assistant's text."""

    text: str
    """Stripped; empty where it writes nothing."""
    token: int | None
    """The special token that it begins with; None where it is plain text."""


def template_marker(tokenizer: PreTrainedTokenizerBase, template: str) -> Marker | None:
    """The end that the template writes, or asks for; None where a chat template does not show it.

    chat: a user and an assistant are rendered, and what follows the assistant's text is the end. qwen_math: what ends
    the user's turn. r1: the closing tag that it asks for.
    """
    name = template_of(tokenizer, template)
    if name == "chat":
        messages = [{"role": "user", "content": "What is 3+4?"}, {"role": "assistant", "content": ANSWER}]
        try:
            _, found, tail = tokenizer.apply_chat_template(messages, tokenize=False).rpartition(ANSWER)
        except TemplateError:
            return None
        if not found:
            return None
        tail = tail.strip()
    elif name == "r1":
        tail = "</answer>"
    else:
        found = re.match(r"<\|\w+\|>", TEMPLATES[name].partition("{problem}")[2])
        tail = found[0] if found else ""
    ids = tokenizer(tail, add_special_tokens=False)["input_ids"] if tail else []
    if ids and ids[0] in {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}:
        return Marker(tokenizer.decode(ids[:1]), ids[0])
    return Marker(tail, None)


def end_findings(
    tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], *, template: str, stop: Sequence[str], engine: str
) -> Iterator[Finding]:
    """`ends`: the ids that end a response; `stop`: texts that do; `engine`: vllm or hf."""
    if ends:
        yield ok(CHECK, f"a response ends at {named(tokenizer, ends)}{_stops(stop)}")
    elif not stop:
        yield fault(
            CHECK,
            "nothing ends a response: neither the tokenizer nor the model's configs name an end-of-sequence token",
            'Set "eos_token" in the model folder\'s tokenizer_config.json, or texts that end a response by --stop.',
        )
    yield from marker_findings(tokenizer, ends, template=template, stop=stop)
    yield from stop_findings(tokenizer, ends, stop, engine)
    yield from pad_findings(tokenizer, ends, stop=stop, engine=engine)


def marker_findings(
    tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], *, template: str, stop: Sequence[str]
) -> Iterator[Finding]:
    """Is the template's own end one that the engine stops at?"""
    name = template_of(tokenizer, template)
    marker = template_marker(tokenizer, template)
    if marker is None:
        yield not_checked(
            CHECK,
            f"what ends a response under template {name}: it cannot be read off the chat template, which refuses a "
            "user's and an assistant's message, or rewrites them",
        )
        return
    shown = printable(marker.text, 60)
    if not marker.text:
        yield ok(CHECK, f"template {name} writes no end of its own after a response")
    elif marker.token is not None and marker.token in ends:
        yield ok(CHECK, f"template {name} ends a response by {shown} ({marker.token}), which is one of them")
    elif marker.token is not None:
        listed = ", ".join(map(str, [*ends, marker.token]))
        # For a chat template it is what the model was trained to write; a base model under qwen_math may end otherwise.
        yield (fault if name == "chat" else warning)(
            CHECK,
            f"template {name} ends a response by {shown} ({marker.token}), at which the engine does not stop: a model "
            "that writes it goes on to the length limit",
            f'Write "eos_token_id": [{listed}] into generation_config.json of the model\'s folder (a model of the hub '
            "must be downloaded to a folder first, and given as --model).",
        )
    elif any(text in marker.text for text in stop):
        yield ok(CHECK, f"template {name} ends a response by the text {shown}, at which --stop ends it")
    else:
        yield warning(
            CHECK,
            f"template {name} ends a response by the text {shown}, which is no token that the engine stops at",
            f"Give --stop '{shown}', unless the model also writes {named(tokenizer, ends) or 'an end'} there.",
        )


def stop_findings(
    tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], stop: Sequence[str], engine: str
) -> Iterator[Finding]:
    """vLLM looks for stop texts where special tokens are left out; one that ends a response anyway does no harm."""
    added = tokenizer.added_tokens_decoder.items()
    tokens = {token.content: i for i, token in added if token.special and i not in ends}
    special = [text for text in stop if any(token in text for token in tokens)]
    if special and engine == "vllm":
        ids = [i for token, i in tokens.items() if any(token in text for text in special)]
        yield fault(
            CHECK,
            f"--stop {' '.join(special)} holds a special token, and vLLM leaves these out of the text in which it "
            "looks for it: it would never stop there",
            f'Instead add the id ({", ".join(map(str, ids))}) to "eos_token_id" in generation_config.json of '
            "the model's folder.",
        )


def pad_findings(
    tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], *, stop: Sequence[str], engine: str
) -> Iterator[Finding]:
    """The pad token: there, and not one that ends a response."""
    pad = tokenizer.pad_token_id
    if pad is None:
        yield fault(
            CHECK,
            "the tokenizer has no pad token, and a run refuses it",
            'Set "pad_token" in tokenizer_config.json of the model\'s folder, to a token that never occurs in text.',
        )
    elif pad not in ends:
        yield ok(CHECK, f"the pad token is {named(tokenizer, [pad])}, which ends no response")
    elif stop and engine == "hf":
        yield fault(
            CHECK,
            f"the pad token {named(tokenizer, [pad])} also ends a response, and behind a --stop text the padding of "
            "--engine hf is taken for the model's own end",
            'Set another "pad_token" in tokenizer_config.json of the model\'s folder, or use --engine vllm.',
        )
    else:
        yield warning(
            CHECK,
            f"the pad token {named(tokenizer, [pad])} also ends a response. Training knows padding by its place, so "
            "that no end is masked here; tools that know it by its id would never teach the model to end",
            'To be safe, set a "pad_token" of its own in tokenizer_config.json of the model\'s folder.',
        )


def named(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """[1, 2] -> "<end> (1), <end2> (2)"."""
    return ", ".join(f"{printable(tokenizer.decode([i]), 40)} ({i})" for i in ids)


def _stops(stop: Sequence[str]) -> str:
    return f", or at the text {', '.join(printable(text, 40) for text in stop)}" if stop else ""
