"""The rows of a run: what it trains on, and what is held out."""

from __future__ import annotations

from grpo.config import Config
from grpo.problems.rows import Row, at_hand, check_data_dir, check_exists, has_split, load_rows
from grpo.verifiers.verify import check_specs, load_all


def check_data(config: Config) -> None:
    """What data and verifiers can be refused for before any library is imported. Raises: UserError."""
    specs = [config.data, *([config.eval_data] if config.eval_data else [])]
    check_data_dir(config.data_dir, specs)
    for spec in specs:
        check_exists(spec)
    load_all(config.verifiers)
    if all(map(at_hand, specs)):
        for rows in load_data(config):
            if rows:
                check_specs(config.verifiers, set(rows[0]))


def load_data(config: Config) -> tuple[list[Row], list[Row]]:
    """Training rows, and the first `--eval-problems` held-out rows.

    A .jsonl file has no test split: without --eval-data every tenth row is held out of training, from the first on.
    Every row can be read by a verifier as a column, and so can the run's `max_response_tokens`.
    """
    held_out_data = config.eval_data or config.data
    check_data_dir(config.data_dir, list(dict.fromkeys([config.data, held_out_data])))
    columns = dict(problem_column=config.problem_column, answer_column=config.answer_column)
    rows = load_rows(config.data, "train", data_dir=config.data_dir, **columns)
    held_out: list[Row] = []
    if config.eval_problems:
        if config.eval_data or has_split(config.data):
            held_out = load_rows(held_out_data, "test", data_dir=config.data_dir, **columns)
        elif len(rows) >= 10:
            picked = range(0, len(rows), 10)[: config.eval_problems]
            held_out = [rows[i] for i in picked]
            rows = [row for i, row in enumerate(rows) if i not in set(picked)]
        held_out = held_out[: config.eval_problems]
    settings = {"max_response_tokens": config.max_response_tokens}
    return [settings | row for row in rows], [settings | row for row in held_out]
