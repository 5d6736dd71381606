"""Short names of data sets, which stay apart."""

from grpo.problems.set_names import data_name, unique_names


def test_short_names_of_data_and_what_happens_where_they_clash():
    specs = ["math500", "./a/mine.jsonl", "./mine.py:hard", "org/set:main", "/b/mine.jsonl"]
    assert [data_name(spec) for spec in specs] == ["math500", "mine", "mine.hard", "set:main", "mine"]
    assert list(unique_names(specs, data_name).values()) == [
        "math500",
        ".-a-mine.jsonl",
        "mine.hard",
        "set-main",
        "b-mine.jsonl",
    ]
