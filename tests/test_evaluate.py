"""The command: what it refuses, what it plans, how it resumes, what it reports; and whole, with real vLLM."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from grpo.errors import UserError
from grpo.evaluate import chunk_seed, locked, main
from grpo.evaluation.options import Options, resolve
from grpo.evaluation.pairing import compare_files, compare_models, evaluated
from grpo.evaluation.plan import claim, data_name, finished, model_name, plan, unique_names
from grpo.evaluation.report import markdown, sections, summary
from grpo.evaluation.results import ProblemResult, ResponseResult, append_results, read_results, write_results
from grpo.presets import EMBEDDED_MODEL

TINY = str(EMBEDDED_MODEL)


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def small(tmp_path, **values) -> Options:
    return resolve(Options(**({"problems": 5, "chunk_problems": 2, "responses": 2, "out": tmp_path / "out"} | values)))


def planned(options: Options):
    return [evaluation for evaluations in plan(options).values() for evaluation in evaluations]


def result(problem, right, *, tokens=10, level=None):
    """The result on a planned problem: a response for each of `right`."""
    responses = [ResponseResult("r", r, {"judge": float(r)}, tokens, False, "7" if r else "8", None) for r in right]
    return ProblemResult(0, None, problem.prompt, problem.columns["answer"], level, None, tuple(responses))


# Flags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags,message",
    [
        (["--model", "./nowhere"], "There is no model folder nowhere"),
        (["--data", "mathx"], "'mathx' is neither a built-in of data/"),
        (["--template", "qwen"], "There is no template 'qwen'"),
        (["--reward", "nothing"], "'nothing' is neither a built-in of rewards/"),
        (["--reward", "countdown"], "requires 'nums', 'target'"),
        (["--data-dir", "nowhere"], "--data-dir nowhere is no folder"),
        (["--responses", "0", "--no-greedy"], "leave nothing to generate"),
        (["--responses", "-1"], "--responses -1 must not be negative"),
        (["--temperature", "0"], "--temperature 0.0 must be more than 0"),
        (["--chunk-problems", "0"], "--chunk-problems 0 must be more than 0"),
        (["--memory-fraction", "2"], "--memory-fraction 2.0 is a share"),
        (["--k", "9"], "--k 9: with 8 responses a problem, k is from 1 to 8"),
        (["--max-response-tokens", "5000"], "more than the 512 positions"),
        (["--engine", "sglang"], "--engine takes: auto, vllm, hf"),
        (["--engine", "hf", "--device", "gpu"], "--device takes: auto, cpu, cuda"),
        (["--out", TINY + "/config.json"], "config.json is a file. Give a folder"),
        (["--results"], "--results is given without a value"),
        (["--model"], "--model is given without a value"),
        (["--template"], "--template is given without a value"),
        (["--data", "--model", TINY], "--data is given without a value"),
        (["--results", "a.jsonl"], "There is no result file a.jsonl"),
        (["--results", "a.jsonl", "--template", "chat"], "--template has no meaning beside --results"),
    ],
)
def test_what_is_refused_before_a_model_is_loaded(capsys, monkeypatch, flags, message):
    monkeypatch.setattr("grpo.evaluate.in_own_process", lambda *_: pytest.fail("too late"))
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in " ".join(error.split())


def test_a_device_is_for_the_engine_that_takes_one():
    assert resolve(Options(engine="hf", device="cpu")).device == "cpu"
    with pytest.raises(UserError, match="--device cpu has no meaning for vllm"):
        resolve(Options(engine="vllm", device="cpu"))


def test_defaults_are_the_embedded_model_on_its_task():
    options = resolve(Options())
    assert (options.model, options.data, options.problems) == ((TINY,), ("arithmetic",), 256)
    assert (options.max_prompt_tokens, options.max_response_tokens) == (32, 96)
    assert options.out.parent == Path("evaluations")


def test_another_model_gets_the_lengths_that_its_positions_allow():
    options = resolve(Options(model=(TINY,)))
    assert (options.data, options.problems) == (("math500",), None)
    assert (options.max_prompt_tokens, options.max_response_tokens) == (128, 384)  # of 512
    assert resolve(Options(model=(TINY,), max_prompt_tokens=12)).max_response_tokens == 500


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


def test_short_names_of_data_and_what_happens_where_they_clash():
    specs = ["math500", "./a/mine.jsonl", "./mine.py:hard", "org/set:main", "/b/mine.jsonl"]
    assert [data_name(spec) for spec in specs] == ["math500", "mine", "mine.hard", "set:main", "mine"]
    assert list(unique_names(specs, data_name).values()) == [
        "math500",
        ".-a-mine.jsonl",
        "mine.hard",
        "set-main",
        "b-mine.jsonl",
    ]


def begin(options: Options):
    """A first result for each evaluation."""
    for evaluation in planned(options):
        append_results(evaluation.path(options.out), [result(evaluation.problems[0], [True])])


# Resuming ---------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("seed", [0, 7, -1, 2**70])
def test_every_chunk_has_a_seed_that_torch_takes(seed):
    seeds = [chunk_seed(seed, chunk) for chunk in range(3)]
    assert len(set(seeds)) == 3 and all(0 <= each < 2**63 for each in seeds)
    assert chunk_seed(2, 3) == 2_000_009


def test_two_commands_do_not_share_a_folder(tmp_path):
    with (
        locked(tmp_path / "out"),
        pytest.raises(UserError, match="Another command is writing"),
        locked(tmp_path / "out"),
    ):
        pass
    with locked(tmp_path / "out"):
        pass


# Reports ----------------------------------------------------------------------------------------------------------


def made(names, rights, **kwargs):
    rows = []
    for i, right in enumerate(rights):
        responses = [ResponseResult("", r, {}, 10 + 10 * i, False, "7" if r else "8", None) for r in right]
        rows.append(ProblemResult(i, None, f"p{i}", "7", 1 + i % 2, "Algebra", tuple(responses)))
    return evaluated(names, rows, None, **kwargs)


def cell(model, template):
    return dict(model=model, data="set", template=template, decoding="sampled")


def test_each_model_is_compared_with_the_first_and_under_its_best_template():
    """The base is best under `plain`, the trained model under `chat`: there the gain is 50 points, not 100."""
    found = [
        made(cell("base", "chat"), [[False]] * 4),
        made(cell("base", "plain"), [[True], [True], [False], [False]]),
        made(cell("new", "chat"), [[True]] * 4),
        made(cell("new", "plain"), [[False]] * 4),
    ]
    comparisons = compare_models(found)
    values = {(c.where, c.second, c.first): c.difference.estimate.value for c in comparisons}
    assert values == {
        ("set, chat, sampled", "new", "base"): 1.0,
        ("set, plain, sampled", "new", "base"): -0.5,
        ("set, best templates, sampled", "new (chat)", "base (plain)"): 0.5,
    }
    assert compare_models(found[:2]) == []
    text = markdown(sections(found, comparisons))
    assert "chosen by the accuracy that is shown" in text and "| set, plain, sampled | new − base | 4 | -50.0 [" in text


def test_the_tables_by_hand():
    found = [made(cell("base", "chat"), [[True, False], [True, True]], dropped=3)]
    main_table, by_level = sections(found, [])
    assert main_table.title == "Results: model base, data set, template chat, decoding sampled"
    columns = dict(zip(main_table.header, *main_table.rows, strict=True))
    assert columns == {
        "problems": "2",
        "n": "2",
        "accuracy (avg@n)": "75.0 [50.0, 100.0]",
        "pass@2": "100.0 [15.8, 100.0]",  # Clopper and Pearson: 0.025^(1/2)
        "maj@2": "75.0 [50.0, 100.0]",
        "truncated": "0.0%",
        "tokens": "15.0",
        "right": "16.7",
        "wrong": "10.0",
    }
    assert any(note.endswith("longer than --max-prompt-tokens: 3.") for note in main_table.notes)
    assert (by_level.header, by_level.rows) == (["1 (1)", "2 (1)"], [["50.0", "100.0"]])  # one subject only: no table
    numbers = summary(found, [])
    assert numbers["evaluations"][0]["by_level"]["1"] == {"problems": 1, "value": 0.5, "low": None, "high": None}
    assert numbers["evaluations"][0]["pass_at"][2]["value"] == 1.0
    json.dumps(numbers, allow_nan=False)


def test_names_from_the_data_stay_names_on_the_page():
    """One line a row, and nothing in it that a page would act on."""
    found = [made(cell("a|b\n<script>", "chat"), [[True]], dropped=0), made(cell("new", "chat"), [[False]])]
    (row,) = [line for line in markdown(sections(found, [])).splitlines() if "script" in line]
    assert row.startswith(r"| a\|b \<script> | 1 | 1 | 100.0 |")


def test_a_level_with_fewer_problems_in_one_evaluation_says_both_numbers():
    found = [made(cell("base", template), [[True]] * count) for template, count in (("chat", 4), ("plain", 3))]
    assert sections(found, [])[1].header == ["template", "1 (2)", "2 (1 or 2)"]


def test_the_report_says_what_template_auto_was(tmp_path):
    plain = tmp_path / "base"
    shutil.copytree(TINY, plain)
    (plain / "chat_template.jinja").unlink()
    options = small(tmp_path, model=(TINY, str(plain)), data=("arithmetic",), greedy=False)
    found = [made(e.names, [[True, True]], settings=e.settings) for e in planned(options)]
    assert "Template auto: tiny: chat, base: plain." in sections(found, [])[0].notes


def test_a_report_says_why_there_is_no_vote_and_what_failed():
    rows = [ProblemResult(0, None, "p", "7", None, None, (ResponseResult("", False, {}, 5, False, None, "error"),) * 2)]
    (table,) = sections([evaluated({"file": "a"}, rows, None)], [])
    assert "failures" in table.header and table.rows[0][-1] == "2"
    assert any(note.startswith("No maj@k where") for note in table.notes) and "maj@2" not in table.header


def test_result_files_are_compared_without_a_model(tmp_path, capsys, monkeypatch):
    """Seven problems, of which the second file has one more right: that is noise."""
    for name, right in (("a", 3), ("b", 4)):
        one = made({}, [[i < right] for i in range(7)])
        write_results(tmp_path / f"{name}.jsonl", one.results)
    monkeypatch.setattr("grpo.evaluate.in_own_process", lambda *_: pytest.fail("no model is needed"))
    assert main(["--results", "a.jsonl", "b.jsonl"]) == 0
    printed = capsys.readouterr().out
    assert "b.jsonl − a.jsonl" in printed and "+14.3" in printed and "within noise" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "b.jsonl"}
    assert main(["--results", "a.jsonl", "b.jsonl", "--out", "report"]) == 0
    (compared,) = json.loads((tmp_path / "report" / "summary.json").read_text())["comparisons"]
    assert compared["p_value"] == 1.0 and compared["difference"]["value"] == pytest.approx(1 / 7)


def test_files_on_different_data_are_refused():
    other = evaluated(
        {"file": "b"}, [ProblemResult(0, None, "x", "1", None, None, made({}, [[True]]).results[0].responses)], None
    )
    with pytest.raises(UserError, match="b and a have no problem in common"):
        compare_files([made({"file": "a"}, [[True]]), other])


# Whole ------------------------------------------------------------------------------------------------------------


def command(*flags):
    return [sys.executable, "-m", "grpo.evaluate", *map(str, flags)]


def test_a_verifier_that_always_fails_ends_the_command_with_its_message(tmp_path, capfd):
    """In the model's own process; its message and its exit status reach the console."""
    (tmp_path / "bad.py").write_text("def reward(response): raise RuntimeError('never works')\n")
    flags = ["--engine", "hf", "--problems", "2", "--responses", "0", "--reward", "./bad.py", "--out", "out"]
    assert main(flags) == 2
    error = capfd.readouterr().err
    assert "error: verifier 'bad' failed on at least" in error and "never works" in error
    assert not list((tmp_path / "out").glob("*.jsonl"))


@pytest.mark.slow
def test_ctrl_c_keeps_whole_chunks_and_says_how_to_go_on(tmp_path):
    flags = ["--engine", "hf", "--responses", "0", "--chunk-problems", "8", "--out", "out"]
    # A session of its own, whose processes all get the signal, as from a terminal.
    begun = subprocess.Popen(
        command(*flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    for line in begun.stdout:
        if "16/256" in line:
            break
    os.killpg(begun.pid, signal.SIGINT)
    _, error = begun.communicate()
    assert begun.returncode == 130
    assert error.strip().endswith("the same command with the same --out goes on") and "Traceback" not in error
    assert len(read_results(tmp_path / "out" / "tiny--arithmetic--auto--greedy.jsonl")) % 8 == 0


def other_model(folder: Path) -> Path:
    """The tiny model with slightly other weights."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(TINY, folder)
    weights = load_file(folder / "model.safetensors")
    noise = torch.Generator().manual_seed(0)
    moved = {k: v + 0.02 * torch.randn(v.shape, generator=noise).to(v.dtype) for k, v in weights.items()}
    save_file(moved, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.slow
def test_two_models_two_templates_killed_and_resumed(tmp_path, capsys):
    """The killed and resumed command ends with the very files and report of the uninterrupted one."""
    pytest.importorskip("vllm", reason="vllm is not installed: python scripts/install.py")
    flags = [
        "--model", TINY, other_model(tmp_path / "other"), "--data", "arithmetic", "--template", "chat", "plain",
        "--problems", "24", "--chunk-problems", "8", "--responses", "4", "--max-response-tokens", "64",
    ]  # fmt: skip
    whole = subprocess.run(command(*flags, "--out", "whole"), capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    evaluations = [
        f"{m}--arithmetic--{t}--{d}"
        for m in ("tiny", "other")
        for t in ("chat", "plain")
        for d in ("greedy", "sampled")
    ]
    assert {path.stem for path in (tmp_path / "whole").glob("*.jsonl")} == set(evaluations)

    begun = subprocess.Popen(command(*flags, "--out", "part"), stdout=subprocess.PIPE, text=True)
    for line in begun.stdout:
        if "sampled: 8/24" in line:
            break
    begun.send_signal(signal.SIGKILL)  # the command alone: its model's process must die with it
    begun.wait()
    begun.stdout.read()  # ends when no process holds the pipe
    left = {path.name: path.read_bytes() for path in (tmp_path / "part").glob("*.jsonl")}
    assert 0 < len(left) < 8 and not (tmp_path / "part" / "report.md").exists()
    time.sleep(1)
    assert left == {path.name: path.read_bytes() for path in (tmp_path / "part").glob("*.jsonl")}

    arguments = list(map(str, flags))
    assert main([*arguments, "--out", "part", "--seed", "1"]) == 2
    assert "--seed 0, and now it is 1" in capsys.readouterr().err
    resumed = subprocess.run(command(*flags, "--out", "part"), capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "tiny, arithmetic, chat, greedy: 24 problems, finished before" in resumed.stdout
    for name in (*(f"{evaluation}.jsonl" for evaluation in evaluations), "report.md", "summary.json"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name

    assert main([*arguments, "--out", "part"]) == 0  # nothing is left to do, and no model is loaded
    assert capsys.readouterr().out.count("finished before") == 8
    found = json.loads((tmp_path / "part" / "summary.json").read_text())
    accuracy = {
        tuple(e[n] for n in ("model", "template", "decoding")): e["accuracy"]["value"] for e in found["evaluations"]
    }
    assert accuracy["tiny", "chat", "greedy"] > 0.7 and accuracy["tiny", "plain", "greedy"] < 0.2
    chat = next(c for c in found["comparisons"] if c["where"] == "arithmetic, chat, greedy")
    difference = accuracy["other", "chat", "greedy"] - accuracy["tiny", "chat", "greedy"]
    assert chat["difference"]["value"] == pytest.approx(difference) and chat["problems"] == 24
