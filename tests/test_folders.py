"""A folder is whole or the old one, whatever ends the process while it is written, replaced or removed."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from grpo.folders import folder_written_whole, locked, mend, mend_all, remove_folder


def write(folder, text):
    with folder_written_whole(folder) as part:
        (part / "a").write_text(text)
        (part / "inner").mkdir()
        (part / "inner" / "b").write_text(text)


def content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def names(parent):
    return sorted(path.name for path in parent.iterdir())


def test_a_folder_takes_the_place_of_the_old_one_and_of_all_that_was_in_it(tmp_path):
    folder = tmp_path / "deep" / "folder-1"
    write(folder, "one")
    (folder / "more").write_text("more")
    write(folder, "two")
    assert content(folder) == {"a": "two", "inner/b": "two"} and names(folder.parent) == ["folder-1"]


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path, error, old):
    folder = tmp_path / "folder"
    if old:
        write(folder, "one")
    with pytest.raises(type(error)), folder_written_whole(folder) as part:
        (part / "a").write_text("two")
        raise error
    assert names(tmp_path) == ["folder"] * old
    if old:
        assert content(folder) == {"a": "one", "inner/b": "one"}


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failing_rename_leaves_the_old_folder(tmp_path, monkeypatch, failing):
    """The first moves the old folder aside, the second puts the new one in its place."""
    folder = tmp_path / "folder"
    write(folder, "one")
    real, calls = os.replace, []

    def fail(source, target):
        calls.append(source)
        if len(calls) == failing:
            raise OSError("no rename")
        real(source, target)

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no rename"):
        write(folder, "two")
    assert content(folder) == {"a": "one", "inner/b": "one"} and names(tmp_path) == ["folder"]


def test_all_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    seen, fsync, replace = [], os.fsync, os.replace

    def noted(descriptor):
        seen.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", noted)
    monkeypatch.setattr("os.replace", lambda *paths: (seen.append("renamed"), replace(*paths)))
    write(tmp_path / "folder", "one")
    assert sorted(seen[:-2]) == [".folder.part", "a", "b", "inner"] and seen[-2:] == ["renamed", tmp_path.name]


KILLED_AT = """
import os, signal, sys
from pathlib import Path
from grpo import folders
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
folder, place = Path(sys.argv[1]), sys.argv[2]
real, calls = os.replace, []
def replace(source, target):
    calls.append(source)
    if place == f"before rename {len(calls)}": die()
    real(source, target)
    if place == f"after rename {len(calls)}": die()
os.replace = replace
if place == "removing": folders.shutil.rmtree = die
with folders.folder_written_whole(folder) as part:
    (part / "a").write_text("two")
    if place == "writing": die()
"""


@pytest.mark.parametrize(
    "place,left",
    [
        ("writing", "one"),
        ("before rename 1", "one"),
        ("after rename 1", "one"),  # the old folder is away, the new one not yet there
        ("before rename 2", "one"),
        ("after rename 2", "two"),
        ("removing", "one"),  # of leftovers, before anything is written
    ],
)
def test_a_kill_anywhere_leaves_one_of_the_two(tmp_path, place, left):
    folder = tmp_path / "folder"
    write(folder, "one")
    if place == "removing":
        (tmp_path / ".folder.part").mkdir()
    command = [sys.executable, "-c", KILLED_AT, str(folder), place]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == -signal.SIGKILL
    assert any(name.startswith(".folder.") for name in names(tmp_path))
    mend(folder)
    assert content(folder)["a"] == left and names(tmp_path) == ["folder"]


def test_mending_a_place_mends_all_in_it_and_touches_nothing_else(tmp_path):
    write(tmp_path / "one", "one")
    (tmp_path / ".two.old").mkdir()
    (tmp_path / ".two.old" / "a").write_text("two")
    for name in (".one.part", ".three.gone", ".hidden", "x.part"):
        (tmp_path / name).mkdir()
    mend_all(tmp_path)
    assert names(tmp_path) == [".hidden", "one", "two", "x.part"] and content(tmp_path / "two") == {"a": "two"}


def test_a_removed_folder_is_gone_at_once(tmp_path, monkeypatch):
    """A kill while it is deleted leaves nothing under its name."""
    write(tmp_path / "folder", "one")
    monkeypatch.setattr("grpo.folders.shutil.rmtree", lambda *_, **__: None)
    remove_folder(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_folder_is_kept_to_one_process_until_it_ends(tmp_path):
    code = "import sys; from pathlib import Path; from grpo.folders import locked\nwith locked(Path(sys.argv[1])): pass"
    command = [sys.executable, "-c", code, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with locked(tmp_path):
        done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "Another process is at work in" in done.stderr
    assert subprocess.run(command, env=env).returncode == 0
