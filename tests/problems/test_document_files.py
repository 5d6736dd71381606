"""A file of documents -> rows, and what is wrong with a file that has none."""

import json

import pytest

from grpo.errors import UserError
from grpo.problems.document_files import read_documents


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_texts_stand_between_empty_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n\none\nof two lines\n\n \t\n\n  two\r\n\r\nthree")
    assert [row["text"] for row in read_documents(path)] == ["one\nof two lines", "  two", "three"]


def test_rows_are_texts_or_problems_with_their_solutions(tmp_path):
    messages = [{"role": "user", "content": "1+1="}]
    path = lines(
        tmp_path / "a.jsonl",
        {"text": "free", "other": 3},
        {"problem": "1+1=", "solution": "2", "answer": "2"},
        {"problem": messages, "solution": "2"},
    )
    assert read_documents(path) == [
        {"text": "free"},
        {"problem": "1+1=", "solution": "2"},
        {"problem": messages, "solution": "2"},
    ]
    (tmp_path / "b.csv").write_text('problem,solution\n"1+1=","2, of course"\n')
    assert read_documents(tmp_path / "b.csv") == [{"problem": "1+1=", "solution": "2, of course"}]


@pytest.mark.parametrize(
    "name,content,said",
    [
        ("a.md", "text", r"a.md ends in '.md'. A document is a text between empty lines of a .txt file"),
        ("a.txt", " \n\n\t\n", "a.txt has no document in it"),
        ("a.jsonl", "", "a.jsonl has no document in it"),
        ("a.jsonl", '{"problem": "1"}\n', "row 0: there is no column 'solution'. Columns: problem"),
        ("a.jsonl", '{"words": "1"}\n', "row 0: there is no column 'problem'. Columns: words"),
        ("a.jsonl", '{"text": "a"}\n{"text": "  "}\n', "row 1: 'text' is '  ', and must be a text"),
        ("a.jsonl", '{"text": null}\n', "row 0: 'text' is None, and must be a text"),
        ("a.jsonl", '{"problem": [], "solution": "2"}\n', r"row 0: 'problem' is \[\], and must be a text"),
    ],
)
def test_what_is_no_document_is_refused(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        read_documents(tmp_path / name)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.txt cannot be read: No such file"):
        read_documents(tmp_path / "nowhere.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match=r"bytes\.txt cannot be read"):
        read_documents(tmp_path / "bytes.txt")
