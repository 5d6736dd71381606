"""The work of benchmark.py: shapes, and folders with a model of random weights, prompts and a reward for each of them.

    python scripts/benchmark_shapes.py S1 FOLDER

Imports torch only where a model is written, so that benchmark.py stays small: on Linux a process begins with its
parent's peak of memory.
"""

from __future__ import annotations

import json
import random
import string
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

PROMPTS = 256
PROMPT_TOKENS = 32
WARM_UP = 1
"""Steps of a run that are not measured: caches are filled, and functions compiled."""
BEGUN = "BENCHMARK_BEGUN"
"""Environment variable: the time at which a side's process was started."""
PAD, END = "<pad>", "<end>"
KL_WEIGHT, LEARNING_RATE, CLIP, MAX_GRAD_NORM = 0.04, 1e-5, 0.2, 1.0
BETAS = (0.9, 0.95)
KV_CACHE_GIB = 0.5
MICRO_BATCH_POSITIONS = 8192
"""Positions of one pass at most, on both sides."""


@dataclass(frozen=True)
class Shape:
    """A model of Qwen2's architecture with a tied head, and what is trained on it."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    problems: int
    """In a step."""
    tokens: int
    """Of every response."""
    steps: int
    """That are measured, after one that is not."""
    responses: int = 8
    """To each problem."""

    prompt_tokens: int = PROMPT_TOKENS

    @property
    def sequences(self) -> int:
        """Responses of a step."""
        return self.problems * self.responses

    @property
    def positions(self) -> int:
        """Of a prompt with its response."""
        return self.prompt_tokens + self.tokens

    @property
    def rows_of_a_pass(self) -> int:
        """The largest part of a step that divides it evenly and has at most MICRO_BATCH_POSITIONS."""
        fitting = [n for n in range(1, self.sequences + 1) if self.sequences % n == 0]
        return max(n for n in fitting if n == 1 or n * self.positions <= MICRO_BATCH_POSITIONS)

    @property
    def words(self) -> str:
        return (
            f"{self.layers} layers of {self.hidden}, vocabulary {self.vocabulary:,}; {self.problems} x "
            f"{self.responses} responses of {self.tokens} tokens"
        )


SHAPES = {
    "S1": Shape(128, 384, 4, 4, 2, 512, problems=16, tokens=64, steps=10),  # 0.85M parameters
    "S2": Shape(256, 768, 6, 4, 2, 2048, problems=32, tokens=128, steps=4),  # 5.2M
    "S3": Shape(896, 4864, 2, 14, 2, 151936, problems=4, tokens=128, steps=3),  # 166M: two layers of Qwen2.5-0.5B
    "tiny": Shape(64, 128, 2, 2, 1, 320, problems=2, tokens=8, steps=2, responses=4),  # to try the benchmark itself
}


def reward(response: str) -> float:
    """From 0 to 0.996, a hash of the text: it differs within a group, and no policy can learn it."""
    return zlib.crc32(response.encode()) % 256 / 256


def prompts() -> list[str]:
    """Of PROMPT_TOKENS letters each, every letter one token."""
    draw = random.Random(0)
    return ["".join(draw.choices(string.ascii_lowercase, k=PROMPT_TOKENS)) for _ in range(PROMPTS)]


def write_work(shape: Shape, folder: Path) -> None:
    """`model`, a float32 model with its tokenizer, and `problems.jsonl`, in a folder."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        max_window_layers=shape.layers, max_position_embeddings=4096, tie_word_embeddings=True,
        pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder / "model")
    make_tokenizer(shape.vocabulary).save_pretrained(folder / "model")
    rows = [json.dumps({"problem": prompt, "answer": ""}) for prompt in prompts()]
    (folder / "problems.jsonl").write_text("\n".join(rows) + "\n")


def make_tokenizer(size: int):
    """Pad, end, the 256 bytes, and made-up words for the other ids, so that every id has a text, as a real one has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = [PAD, END, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    texts = [*known, *(f"Ġ{number:x}" for number in range(size - len(known)))]  # Ġ is a space of ByteLevel's
    tokenizer = Tokenizer(models.BPE({text: i for i, text in enumerate(texts)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD, END])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        sys.exit(f"usage: benchmark_shapes.py {{{','.join(SHAPES)}}} FOLDER")
    write_work(SHAPES[sys.argv[1]], Path(sys.argv[2]))
