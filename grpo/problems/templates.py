"""A row's problem -> prompt ids: under a template, encoded once. The engine and the trainer both use these ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo.errors import UserError
from grpo.problems.rows import Row
from grpo.records import Message, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATES: dict[str, str] = {
    "qwen_math": (
        "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
        "<|im_start|>user\n{problem}<|im_end|>\n<|im_start|>assistant\n"
    ),
    "r1": (
        "A conversation between User and Assistant. The User asks a question, and the Assistant solves it. The "
        "Assistant first thinks about the reasoning process in the mind and then provides the User with the answer. "
        "The reasoning process is enclosed within <think> </think> and answer is enclosed within <answer> </answer> "
        "tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>.\n"
        "User: {problem}\nAssistant: <think>"
    ),
    "plain": "{problem}",
}
"""Named templates; `chat` is the tokenizer's own chat template, and `auto` is chat where there is one, else plain."""

TEMPLATE_NAMES = ("auto", "chat", *TEMPLATES)
"""What `--template` accepts."""


@dataclass(frozen=True)
class Encoded:
    """Problems ready for the engine, and how many were too long for it."""

    problems: list[Problem]
    dropped: int


def encode(
    rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, *, template: str, max_prompt_tokens: int
) -> Encoded:
    """Put each row's problem under the template and encode it once; prompts that are too long are dropped and counted.

    Raises: UserError for an unknown template, `chat` without a chat template, or where every prompt is too long.
    """
    encode_one = prompt_encoder(tokenizer, template)
    problems, dropped, shortest = [], 0, None
    for row in rows:
        tokens = tuple(encode_one(row["problem"]))
        if len(tokens) > max_prompt_tokens:
            dropped += 1
            shortest = min(shortest or len(tokens), len(tokens))
        else:
            problems.append(Problem(row["problem"], tokens, row))
    if not problems:
        raise UserError(
            f"All {dropped} prompts are longer than --max-prompt-tokens {max_prompt_tokens}: the shortest has "
            f"{shortest} tokens under template '{template}'. Raise --max-prompt-tokens."
        )
    return Encoded(problems, dropped)


def check_template(template: str) -> None:
    """Raises: UserError for a name that no template has."""
    if template not in TEMPLATE_NAMES:
        raise UserError(f"There is no template '{template}'. There are: {', '.join(TEMPLATE_NAMES)}.")


def template_of(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """What `auto` means for a tokenizer; any other name as it is."""
    if template != "auto":
        return template
    return "chat" if tokenizer.chat_template else "plain"


def prompt_encoder(tokenizer: PreTrainedTokenizerBase, template: str) -> Callable[[str | list[Message]], Sequence[int]]:
    """A function from a problem (text or messages) to prompt ids."""
    template = template_of(tokenizer, template)
    if template == "chat":
        if not tokenizer.chat_template:
            raise UserError(
                "--template chat, but the tokenizer has no chat template. "
                f"Use a named template: {', '.join(TEMPLATES)}."
            )

        def encode_chat(problem):
            messages = [{"role": "user", "content": problem}] if isinstance(problem, str) else problem
            return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)

        return encode_chat
    check_template(template)

    def encode_named(problem):
        text = problem if isinstance(problem, str) else "\n\n".join(message["content"] for message in problem)
        # Named templates spell out their special tokens; only a plain prompt takes those the tokenizer adds (BOS).
        filled = TEMPLATES[template].replace("{problem}", text)
        return tokenizer(filled, add_special_tokens=template == "plain")["input_ids"]

    return encode_named
