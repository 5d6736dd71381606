"""A name on the command line -> a function in a file. The folder is the registry.

| written                             | meaning                                              |
|-------------------------------------|------------------------------------------------------|
| `math_answer`                       | `rewards/math_answer.py`, the default function        |
| `./mine.py` · `./mine.py:strict`    | a user's file, the default function · `strict`        |
| `my_pkg.graders:strict`             | an installed module                                   |
| `think_format=0.1`                  | any of these with a weight (`split_weight`)           |

Built-in plug-ins are plain files, loaded by path by the same lines that load a user's file. A plug-in may import what
lies beside it, as in `from ._helper import clean` or `from ._math.text import clean`: its folder is its package. A
built-in file or folder whose name starts with `_` is such a helper, and no plug-in.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import math
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from grpo.errors import UserError

DEFAULT_FUNCTION = {"rewards": "reward", "data": "load"}
"""Folder -> the function that a plug-in of this kind defines when the command line names none."""


def folder(kind: str) -> Path:
    """`rewards/` or `data/`: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def available(kind: str) -> list[str]:
    """Names of the built-in plug-ins of a kind, sorted."""
    return sorted(path.stem for path in folder(kind).glob("*.py") if not path.stem.startswith("_"))


def split_weight(spec: str) -> tuple[str, float]:
    """`"think_format=0.1"` -> `("think_format", 0.1)`; without `=` the weight is 1.

    Raises: UserError where the weight is not a finite number.
    """
    name, equals, weight = spec.rpartition("=")
    if not equals:
        return spec, 1.0
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    if not name or not math.isfinite(value):
        raise UserError(
            f"'{spec}' does not end in a weight: write NAME=NUMBER with a finite number, as in think_format=0.1."
        )
    return name, value


def short_name(spec: str) -> str:
    """The name under which a plug-in is logged: `./my/mine.py:strict` -> `mine.strict`, `math_answer` -> itself."""
    place, function = split_function(spec.removeprefix("trl:"))
    stem = Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]
    return f"{stem}.{function}" if function else stem


def split_function(spec: str) -> tuple[str, str | None]:
    """`"./mine.py:strict"` -> `("./mine.py", "strict")`; None where no function is named."""
    place, colon, function = spec.rpartition(":")
    return (place, function) if colon else (spec, None)


def ingredient(spec: str, table: Mapping[str, Callable], flag: str) -> Callable:
    """A function of a table by name, or a user's own: `./mine.py:rank`, `my_pkg.losses:rank`.

    Raises: UserError naming the flag and what exists.
    """
    return own_ingredient(spec, table, flag) or table[spec]


def own_ingredient(spec: str, names: Collection[str], flag: str) -> Callable | None:
    """A user's own function; None for one of the names. Raises: UserError naming the flag and what exists."""
    if spec in names:
        return None
    if split_function(spec)[1] is None:
        raise UserError(
            f"--{flag} {spec} does not exist. --{flag} takes: {''.join(f'{name}, ' for name in names)}"
            f"{'or ' if names else ''}a function of your own as ./FILE.py:FUNCTION."
        )
    return load(spec, "rewards")


def load(spec: str, kind: str) -> Callable:
    """The function that `spec` names (grammar above; no weight, no `trl:` prefix).

    Raises: UserError naming what was not found and what exists.
    """
    place, function = split_function(spec)
    function = function or DEFAULT_FUNCTION[kind]
    module = _module(place, spec, kind)
    found = getattr(module, function, None)
    if not callable(found):
        others = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        raise UserError(
            f"'{spec}': {place} defines no function '{function}'. "
            f"It defines: {', '.join(others) or 'none'}. Name one of them as {place}:FUNCTION."
        )
    return found


def attribute(spec: str, kind: str, name: str, default: Any) -> Any:
    """What the file that `spec` names defines under `name` beside its function, such as a data set's `REWARD`.

    Raises: UserError where there is no such file.
    """
    return getattr(_module(split_function(spec)[0], spec, kind), name, default)


def _module(place: str, spec: str, kind: str) -> ModuleType:
    if place.endswith(".py") or place.startswith((".", "/", "~")):
        path = Path(place).expanduser().resolve()
        if not path.is_file():
            raise UserError(
                f"'{spec}': there is no file {path}. Give a path to a Python file, or one of the built-in "
                f"{kind}: {', '.join(available(kind))}."
            )
        return _from_path(path, spec)
    builtin = folder(kind) / f"{place}.py"
    if place in available(kind):
        return _from_path(builtin, spec)
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise UserError(
                f"'{spec}': importing {place} failed, because it needs the module '{error.name}', "
                "which is not installed."
            ) from error
        raise UserError(
            f"'{spec}' is neither a built-in of {kind}/, nor a .py file, nor an installed module. "
            f"Built-in: {', '.join(available(kind))}. For a file of your own write its path, as in ./mine.py."
        ) from error


def _from_path(path: Path, spec: str) -> ModuleType:
    package = _package(path.parent)
    # A dot would make the stem a submodule's name; no path with a colon can be written on the command line.
    name = f"{package}.{path.stem.replace('.', ':')}"
    if name in sys.modules:
        return sys.modules[name]
    loaded_before = set(sys.modules)
    module_spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    importlib.invalidate_caches()  # a file beside it may be newer than the last look at the folder
    try:
        module_spec.loader.exec_module(module)
    except BaseException as error:  # SystemExit too: what is half loaded must not be found by the next attempt
        for left in set(sys.modules) - loaded_before:
            if left.startswith(f"{package}."):
                del sys.modules[left]
                above, _, below = left.rpartition(".")
                if above in sys.modules:  # a folder of helpers that another plug-in has loaded stays
                    vars(sys.modules[above]).pop(below, None)
        if not isinstance(error, Exception):
            raise
        raise UserError(f"'{spec}': {path} failed while loading with {type(error).__name__}: {error}") from error
    return module


def _package(folder: Path) -> str:
    """A package made of a folder, so that its files can import each other; returns its name.

    The name is the folder's own, so that two folders with files of the same names share no module.
    """
    name = f"grpo_plugins_{hashlib.sha1(str(folder).encode()).hexdigest()[:16]}"
    if name not in sys.modules:
        package_spec = importlib.machinery.ModuleSpec(name, loader=None, is_package=True)
        package_spec.submodule_search_locations = [str(folder)]
        sys.modules[name] = importlib.util.module_from_spec(package_spec)
    return name
