"""What is left to do for a model: chunks with seeds of their own, and a file that ends the same however it began."""

import pytest
from rich.console import Console
from synthetic_evaluations import TINY, planned, small

from grpo.evaluation.plan import finished
from grpo.evaluation.results import read_results, write_results
from grpo.evaluation.tasks import Task, chunk_seed, evaluate_model


@pytest.mark.parametrize("seed", [0, 7, -1, 2**70])
def test_every_chunk_has_a_seed_that_torch_takes(seed):
    seeds = [chunk_seed(seed, chunk) for chunk in range(3)]
    assert len(set(seeds)) == 3 and all(0 <= each < 2**63 for each in seeds)
    assert chunk_seed(2, 3) == 2_000_009


def test_a_task_that_was_begun_ends_as_one_that_was_not(tmp_path):
    """Two chunks, through the engine of transformers: the second alone is generated, from its own seed."""
    options = small(tmp_path, engine="hf", problems=4, greedy=False, max_response_tokens=24)
    (evaluation,) = planned(options)
    options.out.mkdir()
    path, console = evaluation.path(options.out), Console(width=160)
    evaluate_model(TINY, [Task(evaluation, [])], options, console)
    whole, results = path.read_bytes(), read_results(path)
    assert [len(each.responses) for each in results] == [2] * 4 and Task(evaluation, results).complete
    write_results(path, results[:3])
    task = Task(evaluation, finished(evaluation, options.out))
    assert len(task.done) == 2 and not task.complete
    evaluate_model(TINY, [task], options, console)
    assert path.read_bytes() == whole
