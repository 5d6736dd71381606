"""Folders that are whole or the old ones, as files.py has it for files.

    with folder_written_whole(Path("runs/a/checkpoint-7")) as part:
        model.save_pretrained(part)

What is under way lies beside the folder under a hidden name, `.checkpoint-7.part`, that no search for `checkpoint-*`
finds. What a death leaves behind is put right by `mend`: the next time that the folder is written, or a run resumed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grpo.errors import UserError
from grpo.files import flush
from grpo.unix import unix_module

PART, OLD, GONE = ".part", ".old", ".gone"
"""Ends of hidden names: not yet whole; whole, and about to be replaced; on its way out."""


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Write a folder whole or not at all, whatever ends the process or the machine.

    Yields the folder to fill, which then takes the place of `folder` by a rename, after all of it is on the disk. Where
    the block raises, the old folder stays.
    """
    folder = folder.resolve()
    mend(folder)
    part, old = _hidden(folder, PART), _hidden(folder, OLD)
    try:
        part.mkdir(parents=True)
        yield part
        for path in [*part.rglob("*"), part]:
            flush(path)
        if folder.exists():
            os.replace(folder, old)  # a rename does not replace a folder that holds something
        os.replace(part, folder)
        flush(folder.parent)
    except BaseException:
        mend(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that no death leaves half of it under its name."""
    gone = _hidden(folder, GONE)
    shutil.rmtree(gone, ignore_errors=True)
    os.replace(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)


def mend(folder: Path) -> None:
    """Put right what a death has left of writing or removing this folder."""
    old = _hidden(folder, OLD)
    if old.exists() and not folder.exists():  # it died between the two renames
        os.replace(old, folder)
    for end in (PART, OLD, GONE):
        shutil.rmtree(_hidden(folder, end), ignore_errors=True)


def mend_all(parent: Path) -> None:
    """`mend` every folder of which `parent` holds something hidden."""
    for end in (PART, OLD, GONE):
        for path in parent.glob(f".*{end}"):
            mend(parent / path.name.removeprefix(".").removesuffix(end))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a folder to this process, however it ends. Raises: UserError where another process has it."""
    fcntl = unix_module("fcntl")
    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(number)
        raise UserError(f"Another process is at work in {folder}. Wait for its end, or end it first.") from error
    try:
        yield
    finally:
        os.close(number)


def _hidden(folder: Path, end: str) -> Path:
    return folder.with_name(f".{folder.name}{end}")
