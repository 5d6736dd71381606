"""Prompts under each template, on real and on byte tokenizers, and those that are too long."""

import pytest
from transformers import AutoTokenizer

from grpo.errors import UserError
from grpo.problems.templates import TEMPLATES, encode


@pytest.fixture(scope="module")
def qwen(shared_data):
    return AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "qwen2.5")


def prompt(tokenizer, template, problem="What is 1+1?"):
    (made,) = encode([{"problem": problem}], tokenizer, template=template, max_prompt_tokens=500).problems
    return made


def test_qwen_math_template_on_the_real_tokenizer(qwen):
    made = prompt(qwen, "qwen_math")
    assert qwen.decode(made.prompt_tokens) == (
        "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
        "<|im_start|>user\nWhat is 1+1?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert made.prompt_tokens[0] == 151644  # <|im_start|> as one special token, not as text
    assert made.prompt == "What is 1+1?"


def test_chat_template_of_the_real_tokenizer(qwen):
    text = qwen.decode(prompt(qwen, "chat").prompt_tokens)
    assert text.endswith("<|im_start|>user\nWhat is 1+1?<|im_end|>\n<|im_start|>assistant\n")
    assert prompt(qwen, "auto").prompt_tokens == prompt(qwen, "chat").prompt_tokens
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert "system\nS<|im_end|>" in qwen.decode(prompt(qwen, "chat", messages).prompt_tokens)


def test_r1_and_plain_on_the_real_tokenizer(qwen):
    assert qwen.decode(prompt(qwen, "plain").prompt_tokens) == "What is 1+1?"
    text = qwen.decode(prompt(qwen, "r1").prompt_tokens)
    assert text.endswith("User: What is 1+1?\nAssistant: <think>") and "{problem}" not in text


def test_braces_in_a_problem_are_left_alone(tokenizer):
    made = prompt(tokenizer, "qwen_math", r"Solve \frac{a}{b} {problem}")
    assert r"Solve \frac{a}{b} {problem}" in tokenizer.decode(made.prompt_tokens)


def test_auto_is_plain_without_a_chat_template(tokenizer):
    assert tokenizer.chat_template is None
    assert prompt(tokenizer, "auto").prompt_tokens == prompt(tokenizer, "plain").prompt_tokens
    with pytest.raises(UserError, match=r"no chat template. Use a named template: qwen_math, r1, plain"):
        prompt(tokenizer, "chat")
    with pytest.raises(UserError, match="no template 'qwen'"):
        prompt(tokenizer, "qwen")
    assert set(TEMPLATES) == {"qwen_math", "r1", "plain"}


def test_too_long_prompts_are_dropped_and_counted(tokenizer):
    rows = [{"problem": "x" * length} for length in (4, 5, 6, 50)]
    encoded = encode(rows, tokenizer, template="plain", max_prompt_tokens=5)
    assert [problem.prompt for problem in encoded.problems] == ["xxxx", "xxxxx"] and encoded.dropped == 2
    with pytest.raises(UserError, match="All 4 prompts are longer than --max-prompt-tokens 3: the shortest has 4"):
        encode(rows, tokenizer, template="plain", max_prompt_tokens=3)
