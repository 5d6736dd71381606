"""Result files: what is written comes back, and what is no result is said."""

import resource

import pytest
from synthetic_evaluations import RESULTS, problem

from grpo.errors import UserError
from grpo.evaluation.results import ResponseResult, append_results, read_results, write_results
from grpo.files import cut_torn_line


@pytest.mark.parametrize("text", ["\ud800 lone", "a\u2028b\x85c", "NUL \x00", "new\nline\r"])
def test_results_come_back_from_their_file(tmp_path, text):
    results = [problem(0, ResponseResult(text, True, {"a": 1.0, "b": None}, 3, False, text, None), level=2)]
    path = tmp_path / "evaluations" / "step-000000.jsonl"
    write_results(path, results)
    append_results(path, RESULTS)
    assert read_results(path) == results + RESULTS
    assert len(path.read_bytes().split(b"\n")) == 5 and not list(path.parent.glob("*.part"))


def test_a_torn_line_is_cut_off(tmp_path):
    path = tmp_path / "r.jsonl"
    write_results(path, RESULTS)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:100])
    with pytest.raises(UserError, match="line 4 is not JSON"):
        read_results(path)
    cut_torn_line(path)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:50])
    cut_torn_line(path)
    assert path.read_bytes() == b""


def test_a_disk_that_is_full_is_an_error_and_no_short_line(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError):
            append_results(tmp_path / "r.jsonl", RESULTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "content",
    [b"[1]", b"{}", b'{"responses": []}', b'{"step": 1, "responses": [{"a": 1}]}', b"no json", b"7", b"\xff\xfe"],
)
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(content + b"\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1 is .*Give a file of results"):
        read_results(path)


def test_no_file_and_an_empty_one_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.jsonl cannot be read: No such file.*Give a file of results"):
        read_results(tmp_path / "nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="is empty"):
        read_results(tmp_path / "empty.jsonl")
