"""The whole suite in two processes, where pytest-xdist is installed: most tests keep only one core busy.

`python -m pytest` without a path is the whole suite; with a path, or with `-n 0`, all runs in one process. So it does
on a machine with a card, which the tests of one process may fill. A file of tests runs in one of the two, so that what
its tests share is made once.
"""

import os

import pytest
from gpu_processes import driver_is_here


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Before xdist reads the options."""
    chosen = getattr(config.option, "numprocesses", 0)  # 0 without xdist; None where the user has not said
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    one = driver_is_here() or (os.cpu_count() or 1) < 2 or config.option.usepdb or config.option.collectonly
    if chosen is None and whole and not one and not hasattr(config, "workerinput"):
        config.option.numprocesses, config.option.dist = 2, "loadfile"
        config.option.loadscopereorder = False  # else the files of few tests come last, and those take longest
