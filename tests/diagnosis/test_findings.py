"""Findings as they are shown: grouped, counted, and with nothing in them that a terminal would act on."""

import io

import pytest
from rich.console import Console

from grpo.diagnosis.findings import attempt, exit_status, fault, guarded, not_checked, ok, printable, show, warning
from grpo.errors import UserError


def shown(*findings, width=100):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    assert show(iter(findings), console) == list(findings)
    return console.file.getvalue()


def test_findings_are_grouped_by_check_with_advice_and_counts():
    text = shown(ok("a", "fine"), warning("a", "odd", "Raise --x."), fault("b", "broken"), not_checked("c", "because"))
    lines = [line.strip() for line in text.splitlines()]
    assert lines[:7] == ["a", "ok fine", "warning odd", "-> Raise --x.", "b", "fault broken", "c"]
    assert lines[7] == "not checked because"
    assert lines[8].startswith("1 ok, 1 warnings, 1 faults, 1 not checked; ")


@pytest.mark.parametrize(
    "findings,status",
    [
        ([], 0),
        ([ok("a", "")], 0),
        ([warning("a", "", ""), not_checked("b", "")], 0),
        ([ok("a", ""), fault("b", "")], 1),
    ],
)
def test_only_a_fault_makes_the_exit_status_1(findings, status):
    assert exit_status(findings) == status


@pytest.mark.parametrize(
    "text,expected",
    [
        ("a\x1b[2Jb\n", r"a\x1b[2Jb\n"),
        ("\u202egnol\u2066", r"\u202egnol\u2066"),
        ("\r\x00\x9b\u2028", r"\r\x00\x9b\u2028"),
        ("\ud800", r"\ud800"),
        ("naïve 日本 🙂 [bold]x[/] :smile:", "naïve 日本 🙂 [bold]x[/] :smile:"),
    ],
)
def test_nothing_that_a_terminal_acts_on_is_left(text, expected):
    assert printable(text) == expected


def test_a_long_text_keeps_its_ends():
    text = printable("a" * 100 + "b" * 100, limit=20)
    assert text == "a" * 10 + " [... 180 characters ...] " + "b" * 10


def test_markup_emoji_and_escapes_of_a_finding_are_shown_as_they_are():
    text = shown(warning("c", "[red]no[/red] :smile: \x1b[31m", "[link=x]y[/link]"))
    assert r"[red]no[/red] :smile: \x1b[31m" in text and "[link=x]y[/link]" in text and "\x1b" not in text


def returned(generator):
    """(findings, value)."""
    findings = []
    while True:
        try:
            findings.append(next(generator))
        except StopIteration as stop:
            return findings, stop.value


def test_what_a_run_would_raise_becomes_a_fault():
    def refuse():
        raise UserError("there is none. Choose another.")

    assert returned(attempt("x", lambda: 3)) == ([], 3)
    assert returned(attempt("x", refuse)) == ([fault("x", "there is none. Choose another.")], None)
    with pytest.raises(ZeroDivisionError):  # a mistake of the doctor's own is not hidden
        returned(attempt("x", lambda: 1 / 0))

    def some():
        yield ok("y", "first")
        refuse()

    assert [finding.level for finding in guarded("y", some())] == ["ok", "fault"]
