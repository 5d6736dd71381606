"""The rows of a run: what it trains on, and what is held out."""

from __future__ import annotations

from grpo.config import Config
from grpo.errors import UserError
from grpo.problems.hub import hub_splits, is_hub_name, parts_of
from grpo.problems.pass_rates import ADVICE, keep, read_pass_rates
from grpo.problems.rows import Row, at_hand, check_data_dir, check_exists, has_split, is_built_in, load_rows
from grpo.problems.set_names import data_name, unique_names
from grpo.verifiers.verify import check_specs, load_all

EVERY_TENTH = "every tenth row"
"""The name of a held-out set that is made of the rows of --data."""


def check_data(config: Config) -> None:
    """What data and verifiers can be refused for before any library is imported. Raises: UserError."""
    if config.eval_data == ():
        raise UserError("--eval-data is given without a value. Give it one or several data sets, or leave it out.")
    check_eval_columns(config)
    check_rates(config)
    specs = [config.data, *(config.eval_data or ())]
    check_data_dir(config.data_dir, specs)
    for spec in specs:
        check_exists(spec)
    load_all(config.verifiers)
    if all(map(at_hand, specs)):
        rows, held_out = load_data(config)
        keep_by_rate(config, rows)
        for some in (rows, *held_out.values()):
            check_specs(config.verifiers, set(some[0]))


def check_eval_columns(config: Config) -> None:
    """Raises: UserError for columns of the held-out data where they would name none."""
    own = [spec for spec in config.eval_data or () if not is_built_in(spec)]
    given = {"--eval-problem-column": config.eval_problem_column, "--eval-answer-column": config.eval_answer_column}
    named = " and ".join(name for name, column in given.items() if column is not None)
    if named and not own:
        why = "the sets of data/ have their own" if config.eval_data else "there is no --eval-data"
        raise UserError(
            f"{named} would do nothing: {why}. It names a column of a file or of a set of the hub that --eval-data "
            "gives. Leave it out; --problem-column and --answer-column are those of --data."
        )


def load_data(config: Config) -> tuple[list[Row], dict[str, list[Row]]]:
    """Training rows, and of every held-out set, by its name, the first `--eval-problems` rows; no set where it is 0.

    Data without a test split (a file of rows, and some sets of the hub) has every tenth row held out of training, from
    the first on, where --eval-data names no other. Every row can be read by a verifier as a column, and so can the
    run's `max_response_tokens`.
    """
    check_data_dir(config.data_dir, list(dict.fromkeys([config.data, *(config.eval_data or ())])))
    columns = dict(problem_column=config.problem_column, answer_column=config.answer_column)
    rows = load_rows(config.data, "train", data_dir=config.data_dir, **columns)
    held_out: dict[str, list[Row]] = {}
    if config.eval_problems and config.eval_data:
        held_out = {name: eval_rows(config, spec) for spec, name in unique_names(config.eval_data, data_name).items()}
    elif config.eval_problems and has_test(config.data):
        held_out = {data_name(config.data): load_rows(config.data, "test", data_dir=config.data_dir, **columns)}
    elif config.eval_problems and len(rows) >= 10:
        picked = range(0, len(rows), 10)[: config.eval_problems]
        held_out = {EVERY_TENTH: [rows[i] for i in picked]}
        rows = [row for i, row in enumerate(rows) if i not in set(picked)]
    settings = {"max_response_tokens": config.max_response_tokens}
    first = slice(config.eval_problems)
    held_out = {name: [settings | row for row in some[first]] for name, some in held_out.items()}
    return [settings | row for row in rows], held_out


def check_rates(config: Config) -> None:
    """Raises: UserError for --keep-rate and --pass-rates that do not go together, and for limits that are none."""
    if (config.keep_rate is None) != (config.pass_rates is None):
        given, other = ("--pass-rates", "--keep-rate 0.1 0.9")
        if config.pass_rates is None:
            given, other = ("--keep-rate", "--pass-rates FILE")
        raise UserError(f"{given} without {other} would do nothing. {ADVICE}")
    if config.keep_rate is not None and not 0 <= config.keep_rate[0] <= config.keep_rate[1] <= 1:
        low, high = config.keep_rate
        raise UserError(f"--keep-rate {low:g} {high:g} must be two shares, the lower first, as in --keep-rate 0.1 0.9.")


def keep_by_rate(config: Config, rows: list[Row]) -> tuple[list[Row], str]:
    """The training rows that --keep-rate leaves, and how many they are, in words, "" where it is unset.

    Raises: UserError where none is left, or the file is about other problems.
    """
    if config.keep_rate is None:
        return rows, ""
    kept = keep(rows, read_pass_rates(config.pass_rates), *config.keep_rate)
    if kept.unmeasured == len(rows):
        raise UserError(
            f"--pass-rates {config.pass_rates} has none of the {len(rows)} problems of {config.data}. {ADVICE}"
        )
    if not kept.rows:
        low, high = config.keep_rate
        raise UserError(f"--keep-rate {low:g} {high:g} leaves nothing to train on: {kept}. Choose wider limits.")
    return kept.rows, str(kept)


def eval_rows(config: Config, spec: str) -> list[Row]:
    """The rows of a set of `--eval-data`. A set of data/ has columns of its own; of any other they are
    --eval-problem-column and --eval-answer-column, and where these are unset those of --data."""
    if is_built_in(spec):
        return load_rows(spec, "test", data_dir=config.data_dir, flags="eval-")
    problem = config.eval_problem_column or config.problem_column
    answer = config.eval_answer_column or config.answer_column
    return load_rows(spec, "test", problem_column=problem, answer_column=answer, flags="eval-")


def has_test(spec: str) -> bool:
    """Whether `--data SPEC` has a test split: a set of data/ and a function of one's own do, a file of rows does not,
    and a set of the hub is asked, unless one of its splits is named. Raises: UserError where that fails."""
    if not has_split(spec) or not is_hub_name(spec):
        return has_split(spec)
    try:
        return parts_of(spec)[2] is None and "test" in hub_splits(spec)
    except (OSError, ValueError, RuntimeError) as error:
        said = (str(error).splitlines() or [""])[0]
        raise UserError(f"--data {spec}: asking the hub for its splits failed ({said}). Give --eval-data.") from error
