"""Which run in wandb a folder's run is, and when older folders of it are renamed."""

import os

import pytest

from grpo.errors import UserError
from grpo.logs.wandb_start import Superseded, id_to_continue, start, tags


@pytest.fixture
def folder(tmp_path):
    for name in ("offline-run-20260101_000000-old", "offline-run-20260102_000000-my-run", "run-20260103_000000-on1"):
        (tmp_path / "wandb" / name).mkdir(parents=True)
    (tmp_path / "wandb" / "superseded-offline-run-20260104_000000-gone").mkdir()
    (tmp_path / "wandb" / "latest-run").symlink_to("run-20260103_000000-on1")
    return tmp_path


def test_the_id_is_that_of_the_newest_part_in_the_same_mode(folder, tmp_path_factory):
    assert id_to_continue(folder, "offline", None) == "my-run"
    assert id_to_continue(folder, "online", None) == "on1"
    assert id_to_continue(tmp_path_factory.mktemp("empty"), "offline", None) is None


def test_an_id_that_is_known_comes_first_unless_it_is_of_the_other_mode(folder):
    assert id_to_continue(folder, "offline", "old") == "old"
    assert id_to_continue(folder, "online", "elsewhere") == "elsewhere"
    assert id_to_continue(folder, "online", "my-run") == "on1"
    assert id_to_continue(folder, "offline", "on1") == "my-run"


def test_a_run_of_the_other_mode_alone_is_not_continued(tmp_path):
    (tmp_path / "wandb" / "run-20260103_000000-on1").mkdir(parents=True)
    assert id_to_continue(tmp_path, "offline", "on1") is None


def test_older_folders_are_renamed_when_something_was_written_after_the_rows(tmp_path):
    older, new = tmp_path / "offline-run-1-a", tmp_path / "new.wandb"
    older.mkdir()
    new.write_bytes(b"header")
    superseded = Superseded([older], new)
    superseded.look()  # the first step after the rows were sent: whatever is written from now on comes after them
    superseded.look()
    assert older.is_dir()
    new.write_bytes(b"header and rows")
    superseded.look()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["superseded-offline-run-1-a"]
    superseded.look()


def test_older_folders_are_renamed_at_the_end_of_the_run(tmp_path):
    older, new = tmp_path / "offline-run-1-a", tmp_path / "new.wandb"
    older.mkdir()
    new.write_bytes(b"rows")
    Superseded([older], new).look(finished=True)
    assert not older.exists() and (tmp_path / "superseded-offline-run-1-a").is_dir()


def test_tags_are_short_and_not_repeated():
    config = {"algo": "grpo", "model": "a" * 99, "data": ("gsm8k", "./math.jsonl", "gsm8k"), "seed": 0}
    assert tags(config) == ["grpo", "a" * 64, "gsm8k", "math.jsonl"] and tags({}) == []
    assert tags({"model": ".", "data": "/"}) == [os.path.basename(os.getcwd())]  # wandb refuses an empty tag


def test_whatever_wandb_raises_as_it_starts_is_said_in_words(tmp_path, monkeypatch):
    """A run that its wandb process believes to be in use is no wandb.Error: the injected fault."""

    def in_use(**_):
        raise RuntimeError("run ID abc is in use")

    monkeypatch.setattr("wandb.init", in_use)
    with pytest.raises(UserError, match=r"run ID abc is in use.*unset WANDB_SERVICE"):
        start(tmp_path, "offline", "abc", project="p", group=None, config={})
