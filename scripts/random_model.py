"""Write a model of a published shape with random weights and the embedded tokenizer, to try a card without a model hub.

python scripts/random_model.py 0.5B model         its config, weights and tokenizer, in the new folder `model`
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from grpo.presets import EMBEDDED_MODEL

SHAPES = {  # hidden, intermediate, layers, heads, heads of keys, vocabulary
    "tiny": (64, 128, 2, 2, 1, 2000),
    "0.2B": (896, 4864, 2, 14, 2, 151936),  # two layers of the next one
    "0.5B": (896, 4864, 24, 14, 2, 151936),  # Qwen2.5-0.5B
    "1.5B": (1536, 8960, 28, 12, 2, 151936),  # Qwen2.5-1.5B
}


def config_of(shape: str, pad_id: int, end_id: int) -> Qwen2Config:
    """A tied head, as these models have."""
    hidden, intermediate, layers, heads, kv_heads, vocabulary = SHAPES[shape]
    return Qwen2Config(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, tie_word_embeddings=True, max_position_embeddings=4096,
        pad_token_id=pad_id, eos_token_id=end_id, bos_token_id=None, max_window_layers=layers,
    )  # fmt: skip


def write_model(shape: str, folder: Path, device: str) -> None:
    """In bfloat16, as such models are published. `device`: where the random numbers are drawn."""
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_MODEL)
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2ForCausalLM(config_of(shape, tokenizer.pad_token_id, tokenizer.eos_token_id))
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        sys.exit(f"usage: random_model.py {{{','.join(SHAPES)}}} FOLDER")
    write_model(sys.argv[1], Path(sys.argv[2]), "cuda" if torch.cuda.is_available() else "cpu")
