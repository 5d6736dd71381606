"""What a command comes to, under which names, and what an earlier one has left to it."""

import json
import os
import shutil
from dataclasses import replace

import pytest
from synthetic_evaluations import TINY, planned, result, small

from grpo.errors import UserError
from grpo.evaluation.options import Options
from grpo.evaluation.plan import claim, finished, model_name
from grpo.evaluation.results import append_results, read_results, write_results


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_combination_is_an_evaluation(tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"problem": "1+1=", "answer": "2"}\n')
    options = small(tmp_path, data=("arithmetic", "./mine.jsonl"), template=("chat", "plain"))
    assert [evaluation.name for evaluation in planned(options)] == [
        f"tiny--{data}--{template}--{decoding}"
        for data in ("arithmetic", "mine")
        for template in ("chat", "plain")
        for decoding in ("greedy", "sampled")
    ]
    greedy, sampled, *_ = planned(options)
    assert (greedy.settings["responses"], greedy.settings["temperature"]) == (1, 0.0)
    assert (sampled.settings["responses"], sampled.settings["temperature"]) == (2, 1.0)
    assert len(greedy.problems) == 5 and greedy.problems[0].columns["max_response_tokens"] == 96
    assert len(planned(replace(options, greedy=False))) == len(planned(replace(options, responses=0))) == 4


def test_prompts_that_are_too_long_are_counted(tmp_path):
    (tmp_path / "mine.jsonl").write_text("".join(f'{{"problem": "{"1+" * n}1=", "answer": "2"}}\n' for n in (1, 30)))
    (evaluation, _) = planned(small(tmp_path, data=("./mine.jsonl",)))
    assert (len(evaluation.problems), evaluation.dropped) == (1, 1)


@pytest.mark.parametrize(
    "spec,name",
    [
        (TINY, "tiny"),
        ("/x/runs/a/model", "a"),
        ("/x/runs/a/checkpoint-20", "a-checkpoint-20"),
        ("/x/models/Qwen2.5-1.5B", "Qwen2.5-1.5B"),
        ("Qwen/Qwen2.5-1.5B", "Qwen2.5-1.5B"),
    ],
)
def test_short_names_of_models(spec, name):
    assert model_name(spec) == name


# Resuming ---------------------------------------------------------------------------------------------------------


def begin(options: Options):
    """A first result for each evaluation."""
    for evaluation in planned(options):
        append_results(evaluation.path(options.out), [result(evaluation.problems[0], [True])])


@pytest.mark.parametrize(
    "change,named",
    [
        ({"temperature": 0.5}, "--temperature 1.0, and now it is 0.5"),
        ({"seed": 7}, "--seed 0, and now it is 7"),
        ({"responses": 4}, "--responses 2, and now it is 4"),
        ({"problems": 6}, "--problems 5, and now it is 6"),
        ({"chunk_problems": 3}, "--chunk-problems 2, and now it is 3"),
        ({"max_response_tokens": 50}, "--max-response-tokens 96, and now it is 50"),
        ({"reward": ("gsm8k",)}, "--reward ['math_answer'], and now it is ['gsm8k']"),
    ],
)
def test_a_changed_setting_is_refused_and_named(tmp_path, change, named):
    options = small(tmp_path)
    options.out.mkdir()
    claim(options.out, planned(options))
    begin(options)
    claim(options.out, planned(options))  # the same again is fine
    with pytest.raises(UserError) as error:
        claim(options.out, planned(replace(options, **change)))
    assert named in str(error.value)


def test_what_has_no_results_yet_may_be_begun_anew(tmp_path):
    """After a command that failed before its first response, the one that mends it may have the same --out."""
    options = small(tmp_path)
    options.out.mkdir()
    claim(options.out, planned(options))
    claim(options.out, planned(replace(options, seed=7)))
    begin(options)
    with pytest.raises(UserError, match="--seed 7, and now it is 0"):
        claim(options.out, planned(options))


def test_another_template_or_set_joins_the_same_folder(tmp_path):
    options = small(tmp_path)
    options.out.mkdir()
    claim(options.out, planned(options))
    claim(options.out, planned(replace(options, template=("plain",))))
    assert len(json.loads((options.out / "settings.json").read_text())) == 4


def test_weights_written_anew_are_refused(tmp_path):
    model = tmp_path / "mine"
    shutil.copytree(TINY, model)
    options = small(tmp_path, model=(str(model),), data=("arithmetic",))
    options.out.mkdir()
    claim(options.out, planned(options))
    begin(options)
    os.utime(model / "model.safetensors", (1, 1))
    with pytest.raises(UserError, match="was begun with other weights"):
        claim(options.out, planned(options))


def test_only_whole_chunks_are_kept(tmp_path):
    evaluation, _ = planned(small(tmp_path))  # 5 problems in chunks of 2
    path = evaluation.path(tmp_path)
    assert finished(evaluation, tmp_path) == []
    rows = [result(problem, [True]) for problem in evaluation.problems]
    for written, kept in ((1, 0), (2, 2), (3, 2), (4, 4), (5, 5)):
        write_results(path, rows[:written])
        assert finished(evaluation, tmp_path) == rows[:kept]
        append_results(path, rows[kept:])
        assert read_results(path) == rows
    write_results(path, rows[:3])
    path.write_bytes(path.read_bytes() + b'{"index": 3, "pro')  # killed in the middle of a line
    assert finished(evaluation, tmp_path) == rows[:2] == read_results(path)


def test_results_on_other_problems_are_refused(tmp_path):
    evaluation, _ = planned(small(tmp_path))
    rows = [result(problem, [True]) for problem in evaluation.problems]
    write_results(evaluation.path(tmp_path), [rows[1], rows[0]])
    with pytest.raises(UserError, match="the data has changed since"):
        finished(evaluation, tmp_path)
