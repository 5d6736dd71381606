"""Prompts: the template as text and as ids, the beginning-of-sequence token (BOS), and lengths against the limits."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Iterator, Sequence
from statistics import median

import numpy as np
from transformers import PreTrainedTokenizerBase

from grpo.diagnosis.findings import Finding, fault, ok, printable, warning
from grpo.errors import UserError
from grpo.model.pretrained import load_tokenizer
from grpo.problems.rows import Row
from grpo.problems.templates import TEMPLATES, encode, is_file, template_of, text_of
from grpo.records import Problem

CHECK = "prompts"
FEW_DROPPED, MANY_DROPPED = 0.01, 0.5
"""Shares of dropped prompts: up to the first all is well, from the second on most of the data is not used."""
EXAMPLES = 32
"""Prompts in which the text of the problem is looked for."""


def read_tokenizer(source: str, *, trust_remote_code: bool) -> Generator[Finding, None, PreTrainedTokenizerBase | None]:
    """The tokenizer; None after a fault."""
    try:
        return load_tokenizer(source, trust_remote_code=trust_remote_code)
    except UserError as error:
        yield fault("tokenizer", str(error))
        return None


def encode_all(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    system: str | None = None,
    chat_args: Sequence[str] = (),
) -> list[Problem]:
    """Every row under the template, whatever its length. Raises: UserError where the template cannot be applied."""
    how = dict(template=template, system=system, chat_args=chat_args)
    return encode(rows, tokenizer, max_prompt_tokens=sys.maxsize, **how).problems


def prompt_findings(
    problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase, *, template: str
) -> Iterator[Finding]:
    """The first prompt, and what is odd about the first ones. `template`: as on the command line."""
    name = template_of(tokenizer, template)
    yield ok(
        CHECK, f"template {name}; the first prompt as text: {printable(tokenizer.decode(problems[0].prompt_tokens))}"
    )
    yield ok(CHECK, f"the same as ids: {shown_ids(problems[0].prompt_tokens)}")
    yield from begin_findings(problems, tokenizer, name)
    yield from marker_findings(tokenizer, name)
    yield from text_findings(problems[:EXAMPLES], tokenizer)


def shown_ids(ids: Sequence[int], ends: int = 12) -> str:
    """[1, 2, ..., 98, 99] -> the first and the last of them, and how many there are."""
    if len(ids) <= 2 * ends:
        return " ".join(map(str, ids))
    return f"{' '.join(map(str, ids[:ends]))} ... {' '.join(map(str, ids[-ends:]))} ({len(ids)} ids)"


def begin_findings(problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase, template: str) -> Iterator[Finding]:
    """Does each prompt begin with BOS once, where the tokenizer has one that it writes itself?"""
    bos = tokenizer.bos_token_id
    adds = bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
    doubled = sum(problem.prompt_tokens[:2] == (bos, bos) for problem in problems)
    missing = sum(problem.prompt_tokens[:1] != (bos,) for problem in problems)
    if bos is not None and doubled:
        yield fault(
            CHECK,
            f"{doubled} of {len(problems)} prompts begin with {tokenizer.bos_token} ({bos}) twice: the tokenizer adds "
            "one to a text that has it already, or the chat template writes it twice",
            "Take the token out of the problems of the data, or out of the chat template in the model's folder.",
        )
    elif adds and missing:
        yield warning(
            CHECK,
            f"the tokenizer begins a text with {tokenizer.bos_token} ({bos}), but {missing} of {len(problems)} prompts "
            f"begin without it under template {template}; some models (Gemma, Llama) write nonsense then",
            "Use a template that writes it: --template chat"
            f"{'' if tokenizer.chat_template else ' (this tokenizer has no chat template)'} or plain.",
        )
    elif adds:
        yield ok(CHECK, f"each begins with {tokenizer.bos_token} ({bos}) once")
    else:
        yield ok(CHECK, "the tokenizer begins no text with a BOS token, and none is doubled")


def marker_findings(tokenizer: PreTrainedTokenizerBase, template: str) -> Iterator[Finding]:
    """Named templates spell out their special tokens; a tokenizer of another family reads them as mere text."""
    text = text_of(template) if template in TEMPLATES or is_file(template) else ""
    markers = sorted(set(re.findall(r"<\|\w+\|>", text)))
    unknown = [marker for marker in markers if len(tokenizer(marker, add_special_tokens=False)["input_ids"]) > 1]
    if unknown:
        yield warning(
            CHECK,
            f"template {template} writes {', '.join(unknown)}, which this tokenizer does not know as tokens and reads "
            "as so many characters",
            "Use --template chat, or one without such tokens: r1, plain.",
        )


def text_findings(problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase) -> Iterator[Finding]:
    """Can the problem be read in the prompt? A template may drop it, and a tokenizer may not know its characters."""
    lost = [problem for problem in problems if not _holds(tokenizer.decode(problem.prompt_tokens), problem.prompt)]
    if lost:
        yield warning(
            CHECK,
            f"in {len(lost)} of the first {len(problems)} prompts the text of the problem cannot be read as it is in "
            f"the data, where it begins '{printable(_text(lost[0].prompt)[-1], 80)}'",
            "Read the first prompt above. If the problem is missing, choose another --template or --problem-column; if "
            "characters are, the tokenizer does not know them.",
        )


def length_findings(
    lengths: Sequence[int], *, what: str, max_prompt_tokens: int, max_response_tokens: int, positions: float
) -> Iterator[Finding]:
    """Prompt lengths against --max-prompt-tokens. `what`: "prompts", "held-out prompts"; `positions`: the model's."""
    dropped = sum(length > max_prompt_tokens for length in lengths)
    share = dropped / len(lengths)
    p95, p99 = (int(np.percentile(lengths, q, method="higher")) for q in (95, 99))
    shape = (
        f"{len(lengths)} {what} of {min(lengths)} to {max(lengths)} tokens, median {median(lengths):g}, 95th "
        f"percentile {p95}; {f'{dropped} ({share:.1%})' if dropped else 'none'} longer than --max-prompt-tokens "
        f"{max_prompt_tokens}{', and dropped' if dropped else ''}"
    )
    if share <= FEW_DROPPED:
        yield ok(CHECK, shape)
        return
    advice = f"--max-prompt-tokens {p99} keeps 99% of them."
    if p99 + max_response_tokens > positions:
        advice += (
            f" With --max-response-tokens {max_response_tokens} that is more than the model's {positions:g} positions: "
            f"lower that to {max(1, int(positions) - p99)}, or leave out the long problems on purpose."
        )
    yield (fault if share >= MANY_DROPPED else warning)(CHECK, shape, advice)


def _text(prompt: str | list[dict[str, str]]) -> list[str]:
    return [prompt] if isinstance(prompt, str) else [message["content"] for message in prompt]


def _holds(decoded: str, prompt: str | list[dict[str, str]]) -> bool:
    """The last message, white space left out: a decoder may space words otherwise."""
    return "".join(_text(prompt)[-1].split()) in "".join(decoded.split())
