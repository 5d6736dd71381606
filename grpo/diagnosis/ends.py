"""What ends a response: the ids that the engine stops at, against the end that the template itself writes; and padding.

A model that is not stopped where it has learnt to stop writes on to the limit, and is punished for what follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from grpo.diagnosis.findings import Finding, fault, not_checked, ok, printable, warning
from grpo.problems.markers import template_marker
from grpo.problems.templates import template_of

CHECK = "ends"


def end_findings(
    tokenizer: PreTrainedTokenizerBase,
    ends: Sequence[int],
    *,
    template: str,
    stop: Sequence[str],
    engine: str,
    chat_args: Sequence[str] = (),
) -> Iterator[Finding]:
    """`ends`: the ids that end a response, that of the template included; `stop`: texts that do; `engine`: vllm
    or hf.
    """
    if ends:
        yield ok(CHECK, f"a response ends at {named(tokenizer, ends)}{_stops(stop)}")
    elif not stop:
        yield fault(
            CHECK,
            "nothing ends a response: neither the tokenizer nor the model's configs name an end-of-sequence token",
            'Set "eos_token" in the model folder\'s tokenizer_config.json, or texts that end a response by --stop.',
        )
    yield from marker_findings(tokenizer, ends, template=template, stop=stop, chat_args=chat_args)
    yield from stop_findings(tokenizer, ends, stop, engine)
    yield from pad_findings(tokenizer, ends)


def marker_findings(
    tokenizer: PreTrainedTokenizerBase,
    ends: Sequence[int],
    *,
    template: str,
    stop: Sequence[str],
    chat_args: Sequence[str] = (),
) -> Iterator[Finding]:
    """Is the template's own end one that the engine stops at?"""
    name = template_of(tokenizer, template)
    marker = template_marker(tokenizer, template, chat_args)
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


def pad_findings(tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> Iterator[Finding]:
    """The pad token: not one that ends a response."""
    pad = tokenizer.pad_token_id
    if pad is None:
        yield ok(CHECK, "the tokenizer has no pad token, and needs none: training knows padding by its place")
    elif pad not in ends:
        yield ok(CHECK, f"the pad token is {named(tokenizer, [pad])}, which ends no response")
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
