r"""Makes `grpo/tiny_model`: a Qwen2 of half a million parameters, warm-started on worked solutions of mixed quality.

    python scripts/make_tiny_model.py                     # writes grpo/tiny_model; about 15 minutes on one core
    python scripts/make_tiny_model.py --out /elsewhere --steps 500

The warm start is supervised training on the worked solutions that `data/arithmetic.py`, `data/sorting.py` and
`data/parity.py` write of problems in their train splits.
"""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean

import torch
import torch.nn.functional as F
import tyro
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from grpo import plugins

# Plain files outside the package: loaded by path, as the trainer loads them.
arithmetic, sorting, parity = (
    sys.modules[plugins.load(task, "data").__module__] for task in ("arithmetic", "sorting", "parity")
)

TASKS = {"arithmetic": 0.4, "sorting": 0.3, "parity": 0.3}
"""Task -> its share of the worked solutions."""
STYLES = {"direct": 0.35, "brief": 0.25, "columns": 0.25, "checked": 0.15}
"""Style of an addition -> its share of them."""
PAD, EOS = "<|endoftext|>", "<|im_end|>"
CHUNKS = ("\\boxed{", "check")
"""Strings that are one token, so that responses are short."""
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n' }}{% endif %}"
)
"""The contents one after the other, then a line break: `47+385=` is a prompt of eight tokens."""
MAX_LENGTH = 512
MAX_RESPONSE_TOKENS = 96
MICRO_BATCH = 32


@dataclass
class Options:
    """Train the tiny model and save it as a Hugging Face folder."""

    out: Path = Path(__file__).resolve().parent.parent / "grpo" / "tiny_model"
    """folder to write"""
    seed: int = 0
    """seed of the weights, the worked solutions and the sampled accuracy"""
    steps: int = 2400
    """optimizer steps"""
    batch_size: int = 128
    """worked solutions a step"""
    learning_rate: float = 3e-3
    """peak of AdamW's learning rate: up over the first tenth of the steps, then down to zero, both along a cosine"""
    threads: int = 1
    """torch threads; the same seed, threads and machine give the same weights"""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, two special tokens, and `CHUNKS`: any text encodes and decodes to itself."""
    alphabet = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD, EOS])
    tokenizer.add_tokens([AddedToken(chunk, normalized=False, special=False) for chunk in CHUNKS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.05,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def encode_problem(tokenizer: PreTrainedTokenizerFast, problem: str) -> list[int]:
    messages = [{"role": "user", "content": problem}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


def demonstration(task: str, rng: Random) -> tuple[str, str]:
    """A fresh problem of a task's train split, and a worked solution."""
    if task == "arithmetic":
        problem = arithmetic.draw_problem(rng, "train")["problem"]
        (style,) = rng.choices(list(STYLES), list(STYLES.values()))
        return problem, arithmetic.worked_solution(problem, rng, style)
    source = {"sorting": sorting, "parity": parity}[task]
    problem = source.draw_problem(rng, "train")["problem"]
    return problem, source.worked_solution(problem, rng)


def demonstrations(tokenizer: PreTrainedTokenizerFast, rng: Random, count: int) -> list[tuple[list[int], list[int]]]:
    """Fresh worked solutions as (inputs, targets), shifted once, shortest first; targets are -100 on the prompt."""
    pairs = []
    for task in rng.choices(list(TASKS), list(TASKS.values()), k=count):
        problem, solution = demonstration(task, rng)
        prompt = encode_problem(tokenizer, problem)
        response = [*tokenizer.encode(solution), tokenizer.eos_token_id]
        pairs.append(((prompt + response)[:-1], [-100] * (len(prompt) - 1) + response))
    return sorted(pairs, key=lambda pair: len(pair[0]))


def padded(rows: list[list[int]], value: int) -> Tensor:
    """[B, T] from rows of uneven length."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def warm_start(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, options: Options) -> None:
    """Next-token training on the response tokens of fresh worked solutions."""
    rng = Random(options.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=options.steps, pct_start=0.1, cycle_momentum=False
    )
    started = time.time()
    for step in range(options.steps):
        pairs = demonstrations(tokenizer, rng, options.batch_size)
        tokens = sum(target != -100 for _, targets in pairs for target in targets)
        total = 0.0
        # Cut by length, so that a bare answer is not padded to the width of a checked one: twice as fast.
        for start in range(0, len(pairs), MICRO_BATCH):
            inputs, targets = zip(*pairs[start : start + MICRO_BATCH], strict=True)
            logits = model(input_ids=padded(inputs, tokenizer.pad_token_id)).logits
            loss = F.cross_entropy(logits.flatten(0, 1), padded(targets, -100).flatten(), reduction="sum") / tokens
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0 or step == options.steps - 1:
            print(f"step {step:5d}  loss {total:.4f}  {time.time() - started:.0f} s", flush=True)


@torch.no_grad()
def respond(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, problems: list[str]) -> list[list[int]]:
    """One response to each problem, sampled at temperature 1, the end-of-sequence token included."""
    prompts = [encode_problem(tokenizer, problem) for problem in problems]
    padded_prompts = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    width = padded_prompts["input_ids"].shape[1]
    output = model.generate(
        **padded_prompts, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=MAX_RESPONSE_TOKENS
    )
    return [[token for token in row if token != tokenizer.pad_token_id] for row in output[:, width:].tolist()]


def right(task: str, row: dict[str, str], text: str) -> bool:
    """Whether a response is right, as the task's verifier would have it."""
    if task == "parity":
        return re.fullmatch(row["pattern"], text) is not None
    return text == row["answer"] if task == "sorting" else text.endswith(f"\\boxed{{{row['answer']}}}")


def report(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> str:
    """A Markdown table: accuracy and length on the test problems at temperature 1, by task and style of addition."""
    found = defaultdict(list)
    for task in TASKS:
        rows = sys.modules[plugins.load(task, "data").__module__].load("test")
        for row, tokens in zip(rows, respond(model, tokenizer, [row["problem"] for row in rows]), strict=True):
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            outcome = (right(task, row, text), len(tokens))
            found[task].append(outcome)
            if task == "arithmetic":
                found[f"{task}, {arithmetic.style_of(text)}"].append(outcome)
    lines = ["| task | responses | accuracy | tokens |", "|---|---|---|---|"]
    for name in sorted(found):
        outcomes, lengths = zip(*found[name], strict=True)
        lines.append(f"| {name} | {len(lengths)} | {fmean(outcomes):.1%} | {fmean(lengths):.1f} |")
    return "\n".join(lines)


def model_card(options: Options, parameters: int, table: str) -> str:
    """README.md of the model's folder."""
    tasks = ", ".join(f"{share:.0%} {task}" for task, share in TASKS.items())
    styles = ", ".join(f"{share:.0%} {style}" for style, share in STYLES.items())
    return f"""# tiny_model

A Qwen2 of {parameters:,} parameters with one token a byte, for trying the trainer on two CPU cores. It adds two numbers
of two to four digits in writing and boxes the answer, sorts up to six numbers, and guesses the parity of a string of
bits before it works it out, all with many slips. Stored as float16; train it in float32.

- Made by `python scripts/make_tiny_model.py --seed {options.seed} --steps {options.steps} --threads {options.threads}`.
- Warm-start data: {options.steps * options.batch_size:,} worked solutions of problems in the train splits ({tasks}), as
  `data/arithmetic.py`, `data/sorting.py` and `data/parity.py` write them.
- Additions are written in four styles: {styles}; each carry is wrong with probability
  {arithmetic.SLIP}, in a check never.
- No other data or weights went into it.

Sampled at temperature 1 on the test problems, one response each:

{table}
"""


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    print(f"{model.num_parameters():,} parameters")
    warm_start(model, tokenizer, options)
    model.half().save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    # Measured on what was written, not on the float32 weights it was rounded from.
    torch.manual_seed(options.seed)
    table = report(Qwen2ForCausalLM.from_pretrained(options.out, dtype=torch.float32).eval(), tokenizer)
    (options.out / "README.md").write_text(model_card(options, model.num_parameters(), table))
    print(table)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
