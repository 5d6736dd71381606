"""Made-up tokenizers with chat templates, on the bytes of conftest.py."""

from conftest import make_tokenizer
from tokenizers.processors import TemplateProcessing

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ENDS_BY_END = "{% for m in messages %}{{ m['content'] + '<end>' }}{% endfor %}"
ENDS_BY_TEXT = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ' ###\n' }}{% endfor %}"
REFUSES = "{{ raise_exception('roles must alternate') }}"


def chat_tokenizer(template=CHATML, tokens=("<|im_start|>", "<|im_end|>")):
    """Bytes, with a chat template and the special tokens that it writes; ends by <end> (1)."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    tokenizer.chat_template = template
    return tokenizer


def bos_tokenizer(template=None):
    """Bytes, and <bos> in front of every text."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", bos)])
    tokenizer.chat_template = template
    return tokenizer
