"""The report as a page and as numbers."""

import json

from rich.console import Console
from synthetic_evaluations import cell, named

from grpo.evaluation.pairing import model_differences
from grpo.evaluation.report import markdown, print_report, summary, write_report
from grpo.evaluation.sections import sections


def test_names_from_the_data_stay_names_on_the_page():
    """One line a row, and nothing in it that a page would act on."""
    found = [named(cell("a|b\n<script>", "chat"), [[True]], dropped=0), named(cell("new", "chat"), [[False]])]
    (row,) = [line for line in markdown(sections(found, [])).splitlines() if "script" in line]
    assert row.startswith(r"| a\|b \<script> | 1 | 1 | 100.0 |")


def test_the_numbers_are_those_of_the_tables():
    found = [named(cell("base", "chat"), [[True, False], [True, True]], dropped=3, settings={"seed": 0})]
    (numbers,) = summary(found, [])["evaluations"]
    assert (numbers["model"], numbers["dropped"], numbers["settings"]) == ("base", 3, {"seed": 0})
    assert numbers["accuracy"] == {"value": 0.75, "low": 0.5, "high": 1.0}
    assert numbers["by_level"]["1"] == {"problems": 1, "value": 0.5, "low": None, "high": None}
    assert numbers["pass_at"][2]["value"] == 1.0
    assert (numbers["length_correct"], numbers["length_incorrect"]) == (50 / 3, 10.0)


def test_a_report_is_a_page_and_its_numbers(tmp_path):
    """Six problems, all of which the second alone gets correct: of 64 sign patterns two are as extreme."""
    found = [named(cell(model, "chat"), [[correct]] * 6) for model, correct in (("base", False), ("new", True))]
    write_report(tmp_path / "out", found, model_differences(found))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.md", "summary.json"}
    page = (tmp_path / "out" / "report.md").read_text()
    assert "| set, chat, sampled | new − base | 6 | +100.0 | 0.0312 | higher |" in page
    (less,) = json.loads((tmp_path / "out" / "summary.json").read_text())["comparisons"]
    assert less == {
        "where": "set, chat, sampled", "second": "new", "first": "base", "problems": 6,
        "difference": {"value": 1.0, "low": None, "high": None}, "p_value": 2 / 64, "verdict": "higher",
    }  # fmt: skip


def test_the_console_has_names_as_they_are(capsys):
    found = [named(cell(f"[red]{name}[/]", "chat"), [[True], [False]]) for name in "ab"]
    print_report(sections(found, []), Console(width=160))
    printed = capsys.readouterr().out
    assert "[red]a[/]" in printed and "50.0 [0.0, 100.0]" in printed and "correct" in printed
