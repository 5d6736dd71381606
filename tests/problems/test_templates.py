"""Prompts under each template, on real and on byte tokenizers, and those that are too long."""

import pytest
from chat_tokenizers import CHATML, REFUSES, chat_tokenizer
from conftest import make_tokenizer
from transformers import AutoTokenizer

from grpo.errors import UserError
from grpo.problems.templates import TEMPLATES, encode, parsed


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
    with pytest.raises(UserError, match=r"no chat template. Use a named template: qwen_math, r1, plain, or a file"):
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


# A system message, arguments of the chat template, and files ---------------------------------------------------------


def text(tokenizer, template="chat", problem="1+1?", **how):
    (made,) = encode([{"problem": problem}], tokenizer, template=template, max_prompt_tokens=500, **how).problems
    return tokenizer.decode(made.prompt_tokens)


def test_a_system_message_comes_first():
    chat = chat_tokenizer()
    expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    assert text(chat, system="Be brief.") == text(chat, "qwen_math", system="Be brief.") == expected
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    with pytest.raises(UserError, match="--system, and a problem has a system message of its own, 'S'"):
        text(chat, problem=messages, system="Be brief.")
    with pytest.raises(UserError, match=r"--system with --template plain: there is no \{system\} in it"):
        text(make_tokenizer(), "auto", system="Be brief.")  # which has no chat template


THINKS = CHATML + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"


def test_arguments_reach_the_chat_template():
    chat = chat_tokenizer(THINKS)
    assert text(chat, chat_args=("enable_thinking=false",)) == text(chat) + "<think></think>"
    assert text(chat, chat_args=("enable_thinking=true",)) == text(chat)
    with pytest.raises(UserError, match=r"enable_thoughts: the chat template knows no such argument.*enable_thinking"):
        text(chat, chat_args=("enable_thoughts=false",))


def test_values_of_arguments_are_json_or_text():
    assert parsed(["a=false", "b=3", "c=low", 'd=["x"]', "e=", "f=a=b"]) == {
        "a": False, "b": 3, "c": "low", "d": ["x"], "e": "", "f": "a=b",
    }  # fmt: skip
    for bad in ("thinking", "=1", "a b=1"):
        with pytest.raises(UserError, match="is not NAME=VALUE, as in enable_thinking=false"):
            parsed([bad])


def test_a_file_is_a_template(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("{system}\nQ: {problem}\nA:")
    assert text(make_tokenizer(), str(path), problem="1+1? {system}", system="S") == "S\nQ: 1+1? {system}\nA:"
    jinja = tmp_path / "mine.jinja"
    jinja.write_text("{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}")
    assert text(make_tokenizer(), str(jinja), system="S") == "[system] S[user] 1+1?"
    path.write_text("no place for it")
    with pytest.raises(UserError, match=r"mine.txt: the text has no \{problem\} in it"):
        text(make_tokenizer(), str(path))


def test_a_chat_template_that_refuses_a_problem_says_what_to_do():
    with pytest.raises(UserError, match=r"The chat template refuses a problem: roles must alternate.*--template"):
        text(chat_tokenizer(REFUSES))
