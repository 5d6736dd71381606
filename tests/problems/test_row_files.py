"""Files of rows: what each ending holds, and what is said of a file that is none."""

import pyarrow as pa
import pytest
from pyarrow import parquet

from grpo.errors import UserError
from grpo.problems.row_files import is_row_file, read_row_file


@pytest.fixture
def csv(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "rows.csv"
        path.write_text(text, encoding=encoding, newline="")
        return path

    return write


def test_a_csv_file_is_text_under_column_names(csv):
    path = csv('problem,answer\n"What is 1,000\n+ ""1""?",1001\né²,007\n')
    assert read_row_file(path) == [
        {"problem": 'What is 1,000\n+ "1"?', "answer": "1001"},
        {"problem": "é²", "answer": "007"},
    ]


def test_what_a_spreadsheet_writes_is_read(csv):
    assert read_row_file(csv("problem,answer\r\nq,1\r\n\r\n", encoding="utf-8-sig")) == [
        {"problem": "q", "answer": "1"}
    ]


def test_a_long_problem_is_read(csv):
    assert len(read_row_file(csv(f"problem\n{'x' * 200_000}\n"))[0]["problem"]) == 200_000


@pytest.mark.parametrize(
    "text,message",
    [
        ("problem,answer\nq,1\na, b,2\n", "line 3 has 3 values, not 2"),
        ("problem,answer\nq\n", "line 2 has 1 values, not 2"),
        ("problem,problem\nq,1\n", "two columns of one name: problem, problem"),
        ('problem,answer\n"q"x,1\n', "is not such a file"),
    ],
)
def test_a_bad_csv_file_is_said_by_its_line(csv, text, message):
    with pytest.raises(UserError, match=message) as error:
        read_row_file(csv(text))
    assert "\n" not in str(error.value)


def test_another_encoding_and_a_missing_file_are_said(csv, tmp_path):
    with pytest.raises(UserError, match=r"is not such a file .*utf-8"):
        read_row_file(csv("problem\né\n", encoding="latin-1"))
    with pytest.raises(UserError, match=r"nowhere.csv cannot be read: No such file"):
        read_row_file(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match=r"nowhere.parquet cannot be read"):
        read_row_file(tmp_path / "nowhere.parquet")
    (tmp_path / "text.parquet").write_text("problem\nq\n")
    with pytest.raises(UserError, match=r"text.parquet cannot be read as a .parquet file"):
        read_row_file(tmp_path / "text.parquet")


def test_a_parquet_file_keeps_messages_and_nested_columns(tmp_path):
    rows = [{"prompt": [{"role": "user", "content": "1+1?"}], "reward_model": {"ground_truth": "2"}, "level": 3}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert read_row_file(tmp_path / "rows.parquet") == rows


def test_endings():
    assert all(map(is_row_file, ("a.jsonl", "./b.json", "c/d.csv", "e.parquet")))
    assert not any(map(is_row_file, ("gsm8k", "./mine.py", "org/name", "org/name.csv:config")))
