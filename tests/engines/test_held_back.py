"""A library's start-up notes: off the console, unless it fails."""

import os

import pytest

from grpo.engines.held_back import held_back_stderr


def write():
    """To the file itself, as C++ does; pytest's own sys.stderr is another one."""
    os.write(2, b"a note\n")
    os.write(2, b"another\n")


def test_notes_are_kept_off_the_console_and_what_comes_later_is_not(capfd):
    with held_back_stderr():
        write()
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "later\n"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_where_it_fails_they_are_all_shown(capfd, error):
    with pytest.raises(error), held_back_stderr():
        write()
        raise error
    shown = capfd.readouterr().err
    assert shown == "a note\nanother\n"
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "later\n"
