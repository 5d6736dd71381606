"""grpo/files.py: what is on disk after every way in which writing can end, and what is said of a file that is wrong."""

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo.errors import UserError
from grpo.files import (
    append_jsonl,
    cut_torn_line,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
    write_text,
    written_whole,
)

LONG = {"text": "x" * 5000}


@contextmanager
def disk_of(size):
    """A disk that is full once a file has `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Writing ---------------------------------------------------------------------------------------------------------


def test_a_file_takes_the_place_of_the_old_one_and_folders_are_made(tmp_path):
    path = tmp_path / "new" / "folder" / "config.json"
    write_json(path, {"a": 1})
    write_json(path, {"b": path})
    assert json.loads(path.read_text()) == {"b": str(path)} and path.read_text().endswith("\n}\n")
    write_text(path, "é\n")
    assert path.read_bytes() == b"\xc3\xa9\n" and names(path.parent) == ["config.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [True, False])
def test_an_interrupted_write_leaves_the_old_file_and_no_part(tmp_path, error, old):
    path = tmp_path / "a.json"
    if old:
        write_json(path, {"a": 1})
    with pytest.raises(error), written_whole(path) as part:
        part.write_text('{"a": ')
        raise error
    assert names(tmp_path) == (["a.json"] if old else [])
    assert not old or read_json(path, "") == {"a": 1}


def test_a_failing_rename_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def fail(*_):
        raise OSError("no more")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no more"):
        write_json(path, {"a": 2})
    assert read_json(path, "") == {"a": 1} and names(tmp_path) == ["a.json"]


def test_the_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    path, seen = tmp_path / "a.json", []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor):
        seen.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    def noted_replace(part, to):
        seen.append("renamed")
        replace(part, to)

    monkeypatch.setattr("os.fsync", noted_fsync)
    monkeypatch.setattr("os.replace", noted_replace)
    write_json(path, LONG)
    assert seen == [path.stat().st_size, "renamed", tmp_path.stat().st_size]  # the folder's names last


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    script = (
        "import sys, pathlib, time; from grpo.files import written_whole\n"
        "with written_whole(pathlib.Path(sys.argv[1])) as part:\n"
        "    part.write_text('{')\n"
        "    print('half', flush=True)\n"
        "    time.sleep(100)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "half\n"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert read_json(path, "") == {"a": 1}
    write_json(path, {"a": 2})  # what is left of the other is in nobody's way
    assert read_json(path, "") == {"a": 2} and names(tmp_path) == ["a.json"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    write_jsonl(tmp_path / "b.jsonl", [{"b": 1}])
    with disk_of(100):
        with pytest.raises(OSError):
            write_json(tmp_path / "a.json", LONG)
        with pytest.raises(OSError):
            write_jsonl(tmp_path / "b.jsonl", [{"b": 2}, LONG])
    assert read_json(tmp_path / "a.json", "") == {"a": 1} and read_jsonl(tmp_path / "b.jsonl") == [{"b": 1}]
    assert names(tmp_path) == ["a.json", "b.jsonl"]


def test_a_full_disk_takes_no_part_of_a_line(tmp_path):
    """The write that is cut short is taken back, so that later lines stand on lines of their own."""
    path = tmp_path / "a.jsonl"
    append_jsonl(path, [{"a": 1}])
    with disk_of(100), pytest.raises(OSError):
        append_jsonl(path, [{"a": 2}, LONG])
    assert path.read_bytes() == b'{"a": 1}\n'
    append_jsonl(path, [{"a": 3}])
    assert read_jsonl(path) == [{"a": 1}, {"a": 3}]


def test_lines_are_appended_in_one_write(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    script = (
        "import sys, pathlib; from grpo.files import append_jsonl\n"
        "sizes = []\n"
        "sys.setprofile(lambda frame, event, it: event == 'c_call' and it.__name__ == 'write' and sizes.append(1))\n"
        "append_jsonl(pathlib.Path(sys.argv[1]), [{'text': 'x' * 100_000}] * 3)\n"
        "sys.setprofile(None)\n"
        "print(len(sizes))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n" and len(read_jsonl(path)) == 3


def test_a_link_stays_one_and_a_device_too(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "a.json")
    write_json(tmp_path / "link.json", {"a": 1})
    assert (tmp_path / "link.json").is_symlink() and read_json(tmp_path / "real" / "a.json", "") == {"a": 1}
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_json(tmp_path / "pipe", 7)
    assert os.read(reader, 10) == b"7\n" and names(tmp_path) == ["link.json", "pipe", "real"]
    os.close(reader)


# Lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["\ud800 lone surrogate", "\ud83d\ude00 two", "a\u2028b\u2029c\x85d\x0ce", "new\nline\r", "NUL \x00", "é"]
)
def test_any_text_is_one_line_and_comes_back(tmp_path, text):
    path = tmp_path / "a.jsonl"
    append_jsonl(path, [{"text": text}])
    append_jsonl(path, [{"text": "next"}])
    assert path.read_bytes().count(b"\n") == 2
    assert read_jsonl(path, errors="surrogatepass") == [{"text": text}, {"text": "next"}]


@given(
    st.lists(st.dictionaries(st.text(st.characters(exclude_categories=())), st.integers() | st.floats() | st.none()))
)
def test_rows_that_are_read_and_written_again_are_the_same_bytes(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    write_jsonl(path, rows)
    before = path.read_bytes()
    write_jsonl(path, read_jsonl(path, errors="surrogatepass"))
    assert path.read_bytes() == before


def test_blank_lines_are_skipped_and_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"a": 1}\r\n \t\n{"a": 2}')
    assert read_jsonl(path, lambda row: row["a"]) == [1, 2]
    path.write_text("\n\n{\n")
    with pytest.raises(UserError, match=r"a\.jsonl, line 3 is not JSON"):
        read_jsonl(path)
    path.write_text("")
    assert read_jsonl(path) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"a": ', "line 2 is not JSON (Expecting value"),
        (b"[1]", "line 2 is a list, not a row with `a`"),
        (b"null", "line 2 is a NoneType, not a row with `a`"),
        (b"{}", "line 2 is not a row with `a` (KeyError: 'a')"),
        (b'{"a": "b"}', "line 2 is not a row with `a` (invalid literal for int()"),
        (b'{"a": []}', "line 2 is not a row with `a` (TypeError: "),
        (b'{"a": Infinity}', "line 2 is not a row with `a` (OverflowError: "),
        (b"[" * 100_000, "line 2 is not JSON ("),
        ('{"a": "é"}'.encode("latin-1"), "line 2 is not JSON ('utf-8' codec can't decode byte 0xe9"),
        (b'{"a": "\xed\xa0\x80"}', "line 2 is not JSON ('utf-8' codec can't decode byte 0xed"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(tmp_path, line, said):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    with pytest.raises(UserError) as error:
        read_jsonl(path, lambda row: int(row["a"]), what="a row with `a`", advice="Mend it.", torn=[])
    assert str(error.value).startswith(f"{path}, {said}") and str(error.value).endswith(". Mend it.")


@pytest.mark.parametrize("end", [b'{"a": 2, "b', b"{", b'{"text": "\xc3', b'{"b": 1}'])
def test_a_torn_last_line_is_an_error_unless_there_is_a_place_for_it(tmp_path, end):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + end)
    with pytest.raises(UserError, match="line 2 is not"):
        read_jsonl(path, lambda row: row["a"])
    torn = []
    assert read_jsonl(path, lambda row: row["a"], torn=torn) == [1] and torn == [end]
    path.write_bytes(b'{"a": 1}\n{"a": 2}')  # all there, but for its end
    torn = []
    assert read_jsonl(path, torn=torn) == [{"a": 1}, {"a": 2}] and torn == []


@pytest.mark.parametrize(
    ("before", "after"), [(b'{"a": 1}\n{"a', b'{"a": 1}\n'), (b'{"a', b""), (b'{"a": 1}\n', b'{"a": 1}\n'), (b"", b"")]
)
def test_a_torn_line_is_cut_off(tmp_path, before, after):
    path = tmp_path / "a.jsonl"
    path.write_bytes(before)
    cut_torn_line(path)
    assert path.read_bytes() == after


def test_what_cannot_be_read_is_said(tmp_path):
    for read in (read_jsonl, read_json):
        with pytest.raises(UserError, match=r"nowhere cannot be read: No such file or directory\. Look again\."):
            read(tmp_path / "nowhere", advice="Look again.")
        with pytest.raises(UserError, match=r"cannot be read: Is a directory\. Look again\."):
            read(tmp_path, advice="Look again.")
    for content in (b"", b"{", b"\xff"):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.json is not JSON \(.*\)\. Mend it\."):
            read_json(tmp_path / "a.json", "Mend it.")
