"""Write the README's tables (algorithms, flags, metrics, file tree) from the code. A test holds them together.

    python scripts/update_readme.py

Each table stands between <!-- NAME --> and <!-- /NAME -->; everything else in the README is written by hand.
"""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from grpo.algorithm.table import ALGORITHMS
from grpo.config import Config
from grpo.logs.metrics import METRICS
from grpo.logs.pictures import PICTURES

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("grpo", "rewards", "data", "scripts")
ROLES = {
    ".ci/run": "what continuous integration runs: the README's test command",
    "pyproject.toml": "dependencies and their pins, extras cpu, gpu and test",
    "README.md": "this page",
    "data/README.md": "how to write a data set",
    "rewards/README.md": "how to write a verifier",
    "scripts/curves.png": "the README's figure, by python -m grpo.compare",
    "grpo/tiny_model/": "the embedded model, a Hugging Face folder; its README says how it was made",
    "tests/": "test_<file>.py for each file above; `python -m pytest -m 'not slow'` leaves out the minutes-long ones",
}
"""What files are for that do not say so themselves."""
COMMENT = re.compile(r"(?:<!-- |/\* |// |# )(.+?)(?: -->| \*/)?$")


def algorithms() -> str:
    """THE TABLE, a line a row."""
    header = [
        "`--algo`",
        "advantage",
        "aggregation",
        "surrogate",
        "ratio, limits",
        "KL in the loss",
        "truncated",
        "also",
    ]
    lines = [header, ["---"] * len(header)]
    for name, row in ALGORITHMS.items():
        limits = {
            "clipped": f"{row.ratio}, {row.clip_low}/{row.clip_high}",
            "cispo": f"{row.ratio}, cap {row.ratio_cap}",
            "unclipped": row.ratio,
        }.get(row.surrogate, "")
        kl = f"{row.kl_coef} {row.kl_estimator}" if row.kl_coef else "0"
        also = ", ".join([*row.penalties, *(["dynamic sampling"] if row.dynamic_sampling else [])])
        cells = [row.advantage, row.aggregation, row.surrogate, limits, kl, row.truncated, also]
        lines.append([f"`{name}`", *cells])
    return table(lines)


def flags() -> str:
    """Every flag with its default and help, as the command's --help has it."""
    tree = ast.parse((ROOT / "grpo" / "config.py").read_text())
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config")
    help_of = {
        field.target.id: text.value.value
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }
    lines = [["flag", "default", "meaning"], ["---"] * 3]
    for field in fields(Config):
        values = field.default if isinstance(field.default, tuple) else (field.default,)
        shown = " ".join(str(value) for value in values if value is not None)
        lines.append([f"`--{field.name.replace('_', '-')}`", shown, help_of[field.name]])
    return table(lines)


def metrics() -> str:
    """Every key of metrics.jsonl, and what only wandb has, in one sentence each."""
    keys = {**METRICS, **PICTURES}
    return table([["key", "meaning"], ["---"] * 2, *([f"`{key}`", text] for key, text in keys.items())])


def files() -> str:
    """The tracked files, each with the first sentence of its docstring; a package is one line."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    packages = [name.removesuffix("__init__.py") for name in listed if re.fullmatch(r"grpo/\w+/__init__\.py", name)]
    folders = [folder for folder in (*ROLES, *packages) if folder.endswith("/")]
    shown: dict[str, str] = {}
    for name in sorted(listed, key=lambda path: (path.count("/") == 0, path)):
        if name != ".gitignore":
            folded = next((folder for folder in folders if name.startswith(folder)), name)
            shown.setdefault(
                folded, ROLES.get(folded) or role(ROOT / name)
            )  # of a package: its __init__.py, which is first
    lines = []
    for folder in (*FOLDERS, ""):
        inside = {
            name: text
            for name, text in shown.items()
            if (name.partition("/")[0] == folder if folder else name.partition("/")[0] not in FOLDERS)
        }
        indent = "  " if folder else ""
        lines += [f"{folder}/"] if folder else []
        lines += [f"{indent}{name.removeprefix(f'{folder}/'):28s} {text}" for name, text in inside.items()]
    return "```\n" + "\n".join(lines) + "\n```"


def role(path: Path) -> str:
    """The first sentence of a Python file's docstring, or of another file's first comment."""
    text = path.read_text()
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    else:  # a line of HTML, CSS, JavaScript or shell
        text = next((found[1] for line in text.split("\n") if (found := COMMENT.match(line))), "")
    return re.split(r"(?<!Dr)\.(?= |$)", " ".join(text.split("\n\n")[0].split()), maxsplit=1)[0]


def table(rows: list[list[str]]) -> str:
    """Markdown; a | inside a cell is escaped."""
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def render(text: str) -> str:
    """The README with every marked table made anew. Raises: ValueError for a missing marker."""
    for name, make in {"algorithms": algorithms, "flags": flags, "metrics": metrics, "files": files}.items():
        opening, closing = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        start, end = text.index(opening) + len(opening), text.index(closing)
        text = text[:start] + make() + text[end:]
    return text


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(render(readme.read_text()))
    sys.exit(0)
