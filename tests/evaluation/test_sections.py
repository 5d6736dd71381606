"""The tables of a report, by hand, and the notes that they need."""

import shutil

from synthetic_evaluations import TINY, cell, named, planned, small

from grpo.evaluation.pairing import evaluated, model_differences
from grpo.evaluation.results import ProblemResult, ResponseResult
from grpo.evaluation.sections import sections


def test_the_tables_by_hand():
    found = [named(cell("base", "chat"), [[True, False], [True, True]], dropped=3)]
    main_table, by_level = sections(found, [])
    assert main_table.title == "Results: model base, data set, template chat, decoding sampled"
    columns = dict(zip(main_table.header, *main_table.rows, strict=True))
    assert columns == {
        "problems": "2",
        "n": "2",
        "accuracy (avg@n)": "75.0 [50.0, 100.0]",
        "pass@2": "100.0 [15.8, 100.0]",  # Clopper and Pearson: 0.025^(1/2)
        "maj@2": "75.0 [50.0, 100.0]",
        "truncated": "0.0%",
        "tokens": "15.0",
        "correct": "16.7",
        "incorrect": "10.0",
    }
    assert any(note.endswith("longer than --max-prompt-tokens: 3.") for note in main_table.notes)
    assert (by_level.header, by_level.rows) == (["1 (1)", "2 (1)"], [["50.0", "100.0"]])  # one subject only: no table


def test_a_level_with_fewer_problems_in_one_evaluation_says_both_numbers():
    found = [named(cell("base", template), [[True]] * count) for template, count in (("chat", 4), ("plain", 3))]
    assert sections(found, [])[1].header == ["template", "1 (2)", "2 (1 or 2)"]


def test_the_report_says_what_template_auto_was(tmp_path):
    plain = tmp_path / "base"
    shutil.copytree(TINY, plain)
    (plain / "chat_template.jinja").unlink()
    options = small(tmp_path, model=(TINY, str(plain)), data=("arithmetic",), greedy=False)
    found = [named(e.names, [[True, True]], settings=e.settings) for e in planned(options)]
    assert "Template auto: tiny: chat, base: plain." in sections(found, [])[0].notes


def test_a_report_says_why_there_is_no_vote_and_what_failed():
    rows = [ProblemResult(0, None, "p", "7", None, None, (ResponseResult("", False, {}, 5, False, None, "error"),) * 2)]
    (table,) = sections([evaluated({"file": "a"}, rows, None)], [])
    assert "failures" in table.header and table.rows[0][-1] == "2"
    assert any(note.startswith("No maj@k where") for note in table.notes) and "maj@2" not in table.header


def test_the_differences_by_hand():
    """From 2 of 4 to 0 of 4 correct under `plain`, from 2 to 4 under the best templates."""
    found = [
        named(cell("base", "chat"), [[False]] * 4),
        named(cell("base", "plain"), [[True], [True], [False], [False]]),
        named(cell("new", "chat"), [[True]] * 4),
        named(cell("new", "plain"), [[False]] * 4),
    ]
    table = sections(found, model_differences(found))[-1]
    assert table.title == "Differences from the first"
    assert table.header == ["where", "difference", "problems", "points", "p", "reading"]
    plain = next(row for row in table.rows if row[0] == "set, plain, sampled")
    assert plain == ["set, plain, sampled", "new − base", "4", "-50.0 [-100.0, +0.0]", "0.5000", "within noise"]
    best = next(row for row in table.rows if row[0] == "set, best templates, sampled")
    assert best[1] == "new (chat) − base (plain)" and best[3] == "+50.0 [+0.0, +100.0]"
    assert any("chosen by the accuracy that is shown" in note for note in table.notes)
    assert any(note.startswith("3 differences: the p-values are not corrected") for note in table.notes)
