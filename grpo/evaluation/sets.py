"""The data sets of an evaluation: their rows, and the verifiers that judge them."""

from __future__ import annotations

from grpo.evaluation.options import Options
from grpo.problems.rows import Row, check_data_dir, data_rewards, is_built_in, load_rows
from grpo.verifiers.verify import check_specs


def load_sets(options: Options) -> dict[str, tuple[list[Row], tuple[str, ...]]]:
    """Data set -> its rows and its verifiers, which have what they need. Raises: UserError."""
    check_data_dir(options.data_dir, options.data)
    columns = dict(problem_column=options.problem_column, answer_column=options.answer_column)
    sets = {}
    for data in dict.fromkeys(options.data):
        named = {} if is_built_in(data) and len(options.data) > 1 else columns  # several: those of data/ have their own
        rows = load_rows(data, options.split, data_dir=options.data_dir, **named)[: options.problems]
        reward = options.reward or data_rewards(data)
        rows = [{"max_response_tokens": options.max_response_tokens} | row for row in rows]  # as in training
        check_specs(reward, set(rows[0]))
        sets[data] = rows, reward
    return sets
