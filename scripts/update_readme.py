"""Write the tables of the README files (algorithms, flags, metrics, files) from the code. A test holds them together.

    python scripts/update_readme.py

Each table stands between <!-- NAME --> and <!-- /NAME -->; everything else on a page is written by hand.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from functools import partial
from itertools import pairwise
from pathlib import Path

from transformers import Qwen2Config

from grpo.algorithm.choices import WITH_CRITIC
from grpo.algorithm.table import ALGORITHMS, EVERYWHERE
from grpo.card import make_plan
from grpo.compare import Options as CompareOptions
from grpo.config import Config
from grpo.dpo_flags import Options as DPOOptions
from grpo.evaluation.options import Options as EvaluateOptions
from grpo.flags import flag
from grpo.logs.metric_names import METRICS
from grpo.logs.pictures import PICTURES
from grpo.memory.fit import left
from grpo.memory.hours import CARDS, Work, bytes_of, hours
from grpo.memory.model_shape import Shape, shape_of
from grpo.memory.stages import GIB, stages, total
from grpo.resolve import resolve
from grpo.reward_model_flags import Options as RewardModelOptions

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("grpo", "rewards", "data", "scripts")
"""Where README files are, besides the main one."""
ROLES = {
    "scripts/curves.png": "the figure of the main README, drawn by python -m grpo.compare",
    "grpo/tiny_model/": "the embedded model, a Hugging Face folder; its README says how it was made",
    "tests/": "test_<file>.py for each file; `python -m pytest -m 'not slow'` leaves out the ones that take minutes",
}
"""What files and folders are for that do not say so themselves."""
COMMENT = re.compile(r"(?:<!-- |/\* |// |# )(.+?)(?: -->| \*/)?$")


# Tables ----------------------------------------------------------------------------------------------------------


def algorithms(departures: str = "grpo/algorithm/README.md") -> str:
    """The algorithm table, one line a row; its last column leads to the `departures` page."""
    header = "`--algo` advantage aggregation surrogate ratio,limits KL truncated also departures".split()
    lines = [[cell.replace(",", ", ") for cell in header], ["---"] * len(header)]
    for name, row in ALGORITHMS.items():
        limits = {
            "clipped": f"{row.ratio}, {row.clip_low:g}/{row.clip_high:g}",
            "geometric": f"log ±{row.clip_low:g}",
            "soft_gate": f"{row.ratio}, {row.gate_positive:g}/{row.gate_negative:g}",
            "cispo": f"{row.ratio}, cap {row.ratio_cap:g}",
            "unclipped": row.ratio,
        }.get(row.surrogate, "")
        kl = f"{row.kl_coef:g} {row.kl_estimator if row.kl_in == 'loss' else 'in the reward'}" if row.kl_coef else "0"
        also = [*row.penalties, *(["dynamic sampling"] if row.dynamic_sampling else [])]
        also += ["drops uniform groups"] if row.uniform_groups == "drop" else []
        also += ["a critic"] if row.advantage in WITH_CRITIC else []
        also += ["whitened"] if row.whiten else []
        also += [f"KL of a step ≤ {row.max_kl:g}"] if row.max_kl else []
        link = f"[{len(row.departures)}]({departures}#{name})"
        cells = [row.advantage, row.aggregation, row.surrogate, limits, kl, row.truncated, ", ".join(also), link]
        lines.append([f"`{name}`", *cells])
    return table(lines)


def papers() -> str:
    """Every row's paper, what the row does otherwise, and what only looks so."""
    parts = []
    for name, row in ALGORITHMS.items():
        lines = [f"#### {name}", "", f"{row.paper}.", ""]
        lines += [f"- Differs: {point}." for point in row.departures] or ["- Differs in nothing else than every row."]
        parts.append("\n".join([*lines, *(f"- As in the paper: {note}." for note in row.notes)]))
    return "\n\n".join([*parts, f"Every row differs in this: {EVERYWHERE}."])


def flags(options: type) -> str:
    """Every flag of a command, a dataclass, with its default and help, as its --help has it."""
    help_of = {name: text for group in options.__mro__[-2::-1] for name, text in documented(group).items()}
    lines = [["flag", "default", "meaning"], ["---"] * 3]
    for field in fields(options):
        default = None if field.default is MISSING else field.default
        values = default if isinstance(default, tuple) else (default,)
        shown = " ".join(str(value) for value in values if value is not None)
        name = field.name.upper() if "Positional" in str(field.type) else f"--{field.name.replace('_', '-')}"
        lines.append([f"`{name}`", shown, " ".join(help_of[field.name].split())])
    return table(lines)


def metrics() -> str:
    """Every key of metrics.jsonl, and what only wandb has, in one sentence each."""
    keys = {**METRICS, **PICTURES}
    return table([["key", "meaning"], ["---"] * 2, *([f"`{key}`", text] for key, text in keys.items())])


QWEN = {  # H, I, layers, heads, heads of keys, vocabulary, tied: the config.json of each
    "0.5B": (896, 4864, 24, 14, 2, 151936, True),
    "1.5B": (1536, 8960, 28, 12, 2, 151936, True),
    "3B": (2048, 11008, 36, 16, 2, 151936, True),
    "7B": (3584, 18944, 28, 28, 4, 152064, False),
}
FITS: tuple[tuple[int, str, dict[str, object]], ...] = (
    (16, "0.5B", {}),
    (16, "1.5B", dict(optimizer="adamw_8bit", precision="bfloat16")),
    (16, "1.5B", dict(optimizer="adamw_offload", precision="bfloat16")),
    (16, "1.5B", dict(lora_rank=16)),
    (24, "0.5B", {}),
    (24, "1.5B", {}),
    (24, "1.5B", dict(optimizer="adamw_8bit")),
    (24, "1.5B", dict(optimizer="adamw_offload")),
    (24, "3B", dict(optimizer="adamw_offload", precision="bfloat16")),
    (24, "3B", dict(lora_rank=16)),
    (48, "1.5B", {}),
    (48, "3B", {}),
    (48, "3B", dict(optimizer="adamw_8bit")),
    (48, "3B", dict(optimizer="adamw_offload")),
    (48, "7B", dict(optimizer="adamw_offload", precision="bfloat16")),
    (48, "7B", dict(lora_rank=16)),
    (80, "1.5B", {}),
    (80, "3B", {}),
    (80, "7B", dict(optimizer="adamw_offload")),
    (80, "7B", dict(optimizer="adamw_8bit", precision="bfloat16")),
    (80, "7B", dict(lora_rank=16)),
    (141, "7B", {}),
    (141, "7B", dict(optimizer="adamw_8bit")),
)
"""The rows of the table: card (a key of hours.CARDS), model (of QWEN), and the flags that are not at their default."""
PROMPT, RESPONSE = 150, 1000
"""Mean tokens that the hours are reckoned with."""


def cards() -> str:
    """Which model fits which card with which flags, and how long the published recipe takes, by arithmetic."""
    lines = [["card", "model", "flags", "picked", "update", "peak", "left", "hours"], ["---"] * 8]
    for size, model, changed in FITS:
        card = CARDS[size]
        config = resolve(Config(model=model, name="plan", plan_for=card.gib, **changed))
        plan = make_plan(config, qwen_shape(model), bytes_of(card))
        load, set_by_hand = plan.load, " ".join(f"{flag(name)} {value}" for name, value in changed.items())
        update, free = total(stages(load)["update"]) / GIB, min(left(load).values()) / GIB
        shown = [card.sold_as, model, f"`{set_by_hand}`" if changed else ""]
        if not plan.fits:
            lines.append([*shown, "", f"{update:.1f}", "", f"does not fit: {-free:.1f} lacking", ""])
            continue
        picked = f"{load.micro_batch_tokens}, {load.memory_fraction:g}, {int(load.kv_cache // load.kv_sequence)}"
        work = Work(
            responses=config.responses_per_step,
            updates=config.updates_per_step,
            prompt=PROMPT,
            response=RESPONSE,
            old_logprobs=config.needs_old_logprobs,
            offloads=config.optimizer == "adamw_offload",
        )
        long = f"{hours(load, card, work, config.steps):.0f}"
        lines.append([*shown, picked, f"{update:.1f}", f"{card.gib - free:.1f}", f"{free:.1f}", long])
    return table(lines)


def qwen_shape(model: str) -> Shape:
    hidden, intermediate, layers, heads, kv_heads, vocabulary, tied = QWEN[model]
    return shape_of(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            tie_word_embeddings=tied,
        )
    )


def rooms() -> str:
    """The project on one screen: the commands and rooms of grpo, and the other folders, one line each."""
    names = tracked()
    inside = [name.removeprefix("grpo/") for name in names if name.startswith("grpo/")]
    commands = [name for name in inside if re.fullmatch(r"\w+\.py", name) and is_command(f"grpo/{name}")]
    commands.sort(key=lambda name: name != "train.py")  # the main job first
    return block(
        [
            line("grpo/", "grpo/"),
            *(line(f"  {name}", f"grpo/{name}") for name in (*commands, *folders(inside))),
            *(line(name, name) for name in ("rewards/", "data/", "scripts/", "tests/")),
        ]
    )


def files(folder: str) -> str:
    """The tracked files of a folder, one line each, its rooms after its own files; the embedded model is one line."""
    names = [name.removeprefix(folder) for name in tracked() if name.startswith(folder)]
    lines = [line(name, folder + name) for name in names if "/" not in name and name != "README.md"]
    for room in folders(names):
        lines.append(line(room, folder + room))
        if folder + room not in ROLES:
            inside = [name for name in names if name.startswith(room) and not name.endswith("__init__.py")]
            lines += [line(f"  {name.removeprefix(room)}", folder + name) for name in inside]
    return block(lines)


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"algorithms": algorithms, "rooms": rooms},
    "grpo/README.md": {"files": partial(files, "grpo/"), "flags": partial(flags, Config), "cards": cards},
    "grpo/algorithm/README.md": {"algorithms": partial(algorithms, ""), "papers": papers},
    "grpo/logs/README.md": {"metrics": metrics},
    "grpo/evaluation/README.md": {"flags": partial(flags, EvaluateOptions)},
    "grpo/comparison/README.md": {"flags": partial(flags, CompareOptions)},
    "grpo/preferences/README.md": {
        "reward_model": partial(flags, RewardModelOptions),
        "dpo": partial(flags, DPOOptions),
    },
    "rewards/README.md": {"files": partial(files, "rewards/")},
    "data/README.md": {"files": partial(files, "data/")},
    "scripts/README.md": {"files": partial(files, "scripts/")},
}
"""Page -> its marked tables, and what makes each of them."""


# What they are made of -------------------------------------------------------------------------------------------


def tracked() -> list[str]:
    """The paths of git's index, in order."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(listed.splitlines())


def folders(names: Iterable[str]) -> list[str]:
    """The folders that directly hold one of the files, each with a slash at its end.

    >>> folders(["a.py", "model/b.py", "model/c.py"])
    ['model/']
    """
    return sorted({name.rpartition("/")[0] + "/" for name in names if "/" in name})


def is_command(name: str) -> bool:
    """Whether `python -m` runs the file."""
    return '__name__ == "__main__"' in (ROOT / name).read_text()


def role(name: str) -> str:
    """What a file or folder is for, in its own words: docstring, first comment, or heading of its README or notebook.

    Raises: ValueError for a folder that has neither __init__.py nor README.md.
    """
    if name in ROLES:
        return ROLES[name]
    path = ROOT / name
    if name.endswith("/"):
        path = next((page for page in (path / "__init__.py", path / "README.md") if page.exists()), path)
        if path.is_dir():
            raise ValueError(f"{name} says nowhere what it is for. Give it a README.md, or a line in ROLES.")
    text = path.read_text()
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    elif path.suffix == ".ipynb":
        text = "".join(json.loads(text)["cells"][0]["source"]).partition("\n")[0].removeprefix("# ")
    else:  # a line of Markdown, HTML, CSS, JavaScript or shell
        text = next((found[1] for line in text.split("\n") if (found := COMMENT.match(line))), "")
    return re.split(r"(?<!Dr)(?<!\.)\.(?= |$)", " ".join(text.split("\n\n")[0].split()), maxsplit=1)[0]


def documented(group: type) -> dict[str, str]:
    """Field -> docstring, of the fields that a dataclass itself defines."""
    (definition,) = ast.parse(inspect.getsource(group)).body
    return {
        field.target.id: text.value.value
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


def line(shown: str, name: str) -> str:
    return f"{shown:28s} {role(name)}"


def block(lines: list[str]) -> str:
    return "```\n" + "\n".join(lines) + "\n```"


def table(rows: list[list[str]]) -> str:
    """Markdown; a | inside a cell is escaped."""
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def render(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """A page with every marked table made anew. Raises: ValueError for a missing marker."""
    for name, make in tables.items():
        opening, closing = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        start, end = text.index(opening) + len(opening), text.index(closing)
        text = text[:start] + make() + text[end:]
    return text


if __name__ == "__main__":
    for page, tables in PAGES.items():
        readme = ROOT / page
        readme.write_text(render(readme.read_text(), tables))
    sys.exit(0)
