"""A row's problem -> prompt ids: under a template, encoded once. The engine and the trainer both use these ids.

| `--template`               | the prompt is                                                                |
|----------------------------|------------------------------------------------------------------------------|
| `auto`                     | `chat` where the tokenizer has a chat template, else `plain`                 |
| `chat`                     | made by the tokenizer's own chat template, with `--chat-args` and `--system` |
| `qwen_math`, `r1`, `plain` | a text of TEMPLATES, with the problem in place of `{problem}`                |
| `./mine.txt`               | the same of a file, in which `{system}` is the place of `--system`           |
| `./mine.jinja`             | made by the chat template in this file, in place of the tokenizer's own      |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo.errors import UserError
from grpo.problems.rows import Row
from grpo.records import Message, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATES: dict[str, str] = {
    "qwen_math": (
        "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{problem}<|im_end|>\n<|im_start|>assistant\n"
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
"""Named templates."""

TEMPLATE_NAMES = ("auto", "chat", *TEMPLATES)
"""What `--template` accepts besides a file."""

SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
"""What stands for `{system}` without `--system`."""


@dataclass(frozen=True)
class Encoded:
    """Problems ready for the engine, and how many were too long for it."""

    problems: list[Problem]
    dropped: int


def encode(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    template: str,
    max_prompt_tokens: int,
    system: str | None = None,
    chat_args: Sequence[str] = (),
) -> Encoded:
    """Put each row's problem under the template and encode it once; prompts that are too long are dropped and counted.

    system: what `{system}` or the first message says; chat_args: arguments of the chat template, NAME=VALUE each.
    Raises: UserError for an unknown template, one that refuses a problem, `chat` without a chat template, or where
    every prompt is too long.
    """
    encode_one = prompt_encoder(tokenizer, template, system, chat_args)
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


# What is asked for, before there is a tokenizer -------------------------------------------------------------------


def is_file(template: str) -> bool:
    """Whether `--template` is a file."""
    return template.endswith((".txt", ".jinja"))


def text_of(template: str) -> str:
    """The text of a named template or of a file. Raises: UserError where there is none, or it lacks `{problem}`."""
    if not is_file(template):
        return TEMPLATES[template]
    try:
        text = Path(template).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise UserError(f"--template {template} cannot be read: {said}. Give a text file in UTF-8.") from error
    if template.endswith(".txt") and "{problem}" not in text:
        raise UserError(f"--template {template}: the text has no {{problem}} in it, where the problem would stand.")
    return text


def check_template(template: str) -> None:
    """Raises: UserError for a name that no template has, and for a file that cannot be one."""
    if is_file(template):
        text_of(template)
    elif template not in TEMPLATE_NAMES:
        raise UserError(
            f"There is no template '{template}'. There are: {', '.join(TEMPLATE_NAMES)}, and files: ./mine.txt with "
            "{problem} in it, or a chat template ./mine.jinja."
        )


def check_prompts(template: str, system: str | None, chat_args: Sequence[str]) -> None:
    """What is asked of problems, as far as it can be refused without a tokenizer. Raises: UserError."""
    check_template(template)
    chat = template in ("auto", "chat") or template.endswith(".jinja")
    if system is not None and not chat and "{system}" not in text_of(template):
        raise UserError(
            f"--system with --template {template}: there is no {{system}} in it where the text would stand. Use chat, "
            "qwen_math or a file with {system} in it, or leave --system out."
        )
    if parsed(chat_args) and not chat:
        raise UserError(
            f"--chat-args {' '.join(chat_args)} are arguments of a chat template, and --template {template} is none. "
            "Use --template chat, or leave them out."
        )


def parsed(chat_args: Sequence[str]) -> dict[str, Any]:
    """`["enable_thinking=false"]` -> `{"enable_thinking": False}`: values are JSON, or else text. Raises: UserError."""
    found = {}
    for argument in chat_args:
        name, equals, value = argument.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"--chat-args {argument} is not NAME=VALUE, as in enable_thinking=false.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


# With a tokenizer -------------------------------------------------------------------------------------------------


def template_of(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """What `auto` means for a tokenizer; any other name as it is."""
    if template != "auto":
        return template
    return "chat" if tokenizer.chat_template else "plain"


def prompt_encoder(
    tokenizer: PreTrainedTokenizerBase, template: str, system: str | None = None, chat_args: Sequence[str] = ()
) -> Callable[[str | list[Message]], Sequence[int]]:
    """A function from a problem (text or messages) to prompt ids."""
    template = template_of(tokenizer, template)
    check_prompts(template, system, chat_args)
    if template == "chat" or template.endswith(".jinja"):
        render = chat_renderer(tokenizer, template, chat_args)

        def encode_chat(problem):
            return render(messages_of(problem, system), add_generation_prompt=True, tokenize=True, return_dict=False)

        return encode_chat

    # {problem} last: what it holds is taken as it is.
    text = text_of(template).replace("{system}", SYSTEM if system is None else system)

    def encode_named(problem):
        asked = problem if isinstance(problem, str) else "\n\n".join(message["content"] for message in problem)
        # Templates spell out their special tokens; only a plain prompt takes those the tokenizer adds (BOS).
        filled = text.replace("{problem}", asked)
        return tokenizer(filled, add_special_tokens=template == "plain")["input_ids"]

    return encode_named


def chat_renderer(tokenizer: PreTrainedTokenizerBase, template: str, chat_args: Sequence[str]) -> Callable[..., Any]:
    """`apply_chat_template` of the tokenizer, or of the file, with the arguments.

    Raises: UserError where there is no chat template, where it does not know an argument, and where it refuses a
    conversation.
    """
    from jinja2 import Environment, TemplateError, meta

    own = text_of(template) if is_file(template) else None
    if own is None and not tokenizer.chat_template:
        raise UserError(
            "--template chat, but the tokenizer has no chat template. "
            f"Use a named template: {', '.join(TEMPLATES)}, or a file: ./mine.jinja."
        )
    arguments, source = parsed(chat_args), own or tokenizer.chat_template
    if arguments and isinstance(source, str):
        extensions = ["jinja2.ext.loopcontrols", "jinja2.ext.do"]
        try:
            known = meta.find_undeclared_variables(Environment(extensions=extensions).parse(source))
        except TemplateError:  # what transformers adds to jinja is not known here
            known = set(arguments)
        if unknown := [name for name in arguments if name not in known]:
            raise UserError(
                f"--chat-args {', '.join(unknown)}: the chat template knows no such argument. Those that it reads are: "
                f"{', '.join(sorted(known))}."
            )

    def render(messages: Sequence[Mapping[str, str]], **how: Any) -> Any:
        try:
            return tokenizer.apply_chat_template(messages, chat_template=own, **arguments, **how)
        except (TemplateError, TypeError) as error:  # it may refuse a conversation: a system message, two users
            raise UserError(
                f"The chat template refuses a problem: {error}. Use --template with a named one "
                f"({', '.join(TEMPLATES)}), or take out what it refuses, such as a message with the role 'system'."
            ) from error

    return render


def messages_of(problem: str | list[Message], system: str | None) -> list[Message]:
    """The conversation that a problem is. Raises: UserError for `--system` beside a system message of the data."""
    messages = [{"role": "user", "content": problem}] if isinstance(problem, str) else problem
    if system is None:
        return messages
    if messages[0]["role"] == "system":
        raise UserError(
            f"--system, and a problem has a system message of its own, {messages[0]['content']!r:.80}. Leave --system "
            "out, or take the messages out of the data."
        )
    return [{"role": "system", "content": system}, *messages]
