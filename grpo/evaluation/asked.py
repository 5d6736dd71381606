"""All that `python -m grpo.evaluate` can be refused for before torch is imported."""

from __future__ import annotations

import tyro

from grpo.evaluation.options import Options, check_ks, completed, refuse_with_results
from grpo.evaluation.results import read_results
from grpo.evaluation.sets import load_sets
from grpo.problems.rows import at_hand, check_data_dir, check_exists
from grpo.unix import check_unix
from grpo.verifiers.verify import load_all


def asked(arguments: list[str] | None = None) -> Options:
    """The command line. An unknown flag ends the program with what exists."""
    return tyro.cli(Options, args=arguments, prog="python -m grpo.evaluate")


def check_command(arguments: list[str] | None = None) -> None:
    """What is refused by flags, names and files. Raises: UserError."""
    options = asked(arguments)
    if options.results is not None:
        refuse_with_results(options)
        check_ks(options.k, max(len(read_results(path)[0].responses) for path in options.results))
        return
    options = completed(options)
    check_data_dir(options.data_dir, options.data)
    for data in options.data:
        check_exists(data)
    if options.reward is not None:
        load_all(options.reward)
    if all(map(at_hand, options.data)):
        load_sets(options)
    check_unix()
