"""The sets of data/: from the hub and from a folder alike, their gold answers right, their verifiers, `--data-dir`."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import datasets
import pytest
from conftest import ROOT

from grpo import plugins
from grpo.errors import UserError
from grpo.files import read_jsonl
from grpo.problems.rows import check_data_dir, data_rewards, load_rows
from grpo.resolve import parse
from grpo.rows_of_run import load_data
from grpo.verifiers.check import main as check_verifiers

LABELLED = ("id", "problem", "answer", "level", "subject")
COLUMNS = {
    "aime24": ("id", "problem", "answer"),
    "aime25": ("id", "problem", "answer"),
    "amc": ("id", "problem", "answer"),
    "asdiv": ("id", "problem", "answer"),
    "countdown": ("id", "nums", "target", "problem"),
    "gsm8k": ("id", "problem", "answer", "solution"),
    "math12k": LABELLED,
    "math500": LABELLED,
    "math_lvl3to5": LABELLED,
    "minerva": ("id", "problem", "answer"),
    "olympiadbench": ("id", "problem", "answer"),
    "svamp": ("id", "problem", "answer"),
}
"""What a row has, wherever it comes from."""
ROWS = {
    "aime24": (30, 30),
    "aime25": (30, 30),
    "amc": (83, 83),
    "asdiv": (1788, 1788),
    "countdown": (10240, 1024),
    "gsm8k": (7473, 1319),
    "math12k": (11965, 500),
    "math500": (500, 500),
    "math_lvl3to5": (8857, 500),
    "minerva": (272, 272),
    "olympiadbench": (675, 675),
    "svamp": (1000, 1000),
}
"""Rows of train and of test in the shared folder; a set with one split gives it for both."""
TRAINING = ("asdiv", "countdown", "gsm8k", "math12k", "math_lvl3to5")
EVALUATION = ("aime24", "aime25", "amc", "countdown", "gsm8k", "math500", "minerva", "olympiadbench", "svamp")


@pytest.fixture(scope="session")
def folder(shared_data) -> Path:
    return shared_data / "datasets"


# From the shared folder ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
def test_rows_from_a_folder(name, folder):
    for split, count in zip(("train", "test"), ROWS[name], strict=True):
        rows = load_rows(name, split, data_dir=folder)
        assert len(rows) == len({row["id"] for row in rows}) == count
        assert {tuple(row) for row in rows} == {COLUMNS[name]}
        assert all(isinstance(row["problem"], str) and row["problem"].strip() for row in rows)


@pytest.mark.parametrize("name", [name for name in COLUMNS if "answer" in COLUMNS[name]])
def test_every_gold_answer_gets_full_marks_in_a_box(name, folder):
    (verifier,) = data_rewards(name)
    reward = plugins.load(verifier, "rewards")
    for split in ("train", "test"):
        failing = [
            (row["id"], gold)
            for row in load_rows(name, split, data_dir=folder)
            for gold in (row["answer"] if isinstance(row["answer"], list) else [row["answer"]])
            if reward(rf"So it is $\boxed{{{gold}}}$.", row["answer"], row["problem"]) != 1.0
        ]
        assert failing == []


def test_minerva_has_answers_with_alternatives(folder):
    rows = load_rows("minerva", "test", data_dir=folder)
    listed = [row for row in rows if isinstance(row["answer"], list)]
    assert len(listed) == 40 and listed[0]["answer"] == ["0.01", "0.02"]
    reward = plugins.load("math_answer", "rewards")
    answers = ("0.01", "0.02", "0.03", "0.01, 0.02")
    assert [reward(rf"\boxed{{{answer}}}", listed[0]["answer"]) for answer in answers] == [1.0, 1.0, 0.0, 0.0]


def test_levels_and_subjects_of_math(folder):
    everything = load_rows("math12k", "train", data_dir=folder)
    levels = Counter(row["level"] for row in everything)
    assert levels == {1: 958, 2: 2148, 3: 2607, 4: 2765, 5: 3485, None: 2}
    assert load_rows("math_lvl3to5", "train", data_dir=folder) == [
        row for row in everything if row["level"] in (3, 4, 5)
    ]
    test = load_rows("math_lvl3to5", "test", data_dir=folder)
    assert test == load_rows("math12k", "test", data_dir=folder) == load_rows("math500", "test", data_dir=folder)
    assert Counter(row["level"] for row in test) == {1: 43, 2: 90, 3: 105, 4: 128, 5: 134}
    assert len({row["subject"] for row in test}) == 7


@pytest.mark.parametrize("split", ["train", "test"])
def test_countdown_asks_for_what_its_verifier_reads(split, folder):
    reward = plugins.load("countdown", "rewards")
    assert data_rewards("countdown") == ("countdown",)
    solved = read_jsonl(folder / f"countdown_{split}.jsonl")
    for row, known in zip(load_rows("countdown", split, data_dir=folder), solved, strict=True):
        nums, target, answer = row["nums"], row["target"], known["answer"]
        assert f"numbers {', '.join(map(str, nums))} exactly once" in row["problem"]
        assert f"equal to {target}." in row["problem"] and r"in \boxed{}" in row["problem"]
        assert reward(rf"{row['problem']} So \boxed{{{answer}}}.", nums, target) == 1.0
        assert reward(f"<think> ... </think> <answer> {answer} </answer>", nums, target) == 1.0
        assert reward(row["problem"], nums, target) == 0.0


@pytest.mark.parametrize("train", TRAINING)
def test_no_held_out_problem_is_trained_on(train, folder):
    def texts(name, split):
        return {re.sub("[^a-z0-9]", "", row["problem"].lower()) for row in load_rows(name, split, data_dir=folder)}

    trained_on = texts(train, "train")
    assert {name: trained_on & texts(name, "test") for name in EVALUATION} == {name: set() for name in EVALUATION}


# From the hub ----------------------------------------------------------------------------------------------------

MATH = {"problem": "p", "answer": "3", "solution": r"\boxed{3}", "level": 2, "subject": "Algebra", "unique_id": "u"}
MATH_ROW = {"id": "u", "problem": "p", "answer": "3", "level": 2, "subject": "Algebra"}
HUB = {
    "aime24": (
        "HuggingFaceH4/aime_2024",
        {"train": [{"id": 60, "problem": "p", "solution": "s", "answer": "025", "url": "u", "year": "2024"}]},
        [{"id": "aime24/0", "problem": "p", "answer": "025"}],
    ),
    "aime25": (
        "math-ai/aime25",
        {"test": [{"id": "0", "problem": "p", "answer": "70"}]},
        [{"id": "aime25/0", "problem": "p", "answer": "70"}],
    ),
    "amc": (
        "AI-MO/aimo-validation-amc",
        {"train": [{"id": 0, "problem": "p", "answer": 142.0, "url": "u"}]},
        [{"id": "amc/0", "problem": "p", "answer": "142"}],
    ),
    "asdiv": (
        "EleutherAI/asdiv",
        {
            "validation": [
                {"body": "b0. ", "question": "q0?", "answer": "9 (apples)"},
                {"body": "b1.", "question": "q1?", "answer": "2; 3"},
                {"body": "b2.", "question": "q2?", "answer": "Sunday"},
                {"body": "b3.", "question": "q3?", "answer": "1,200"},
                {"body": "b4.", "question": "q4?", "answer": "1/6 (of the floor)"},
                {"body": "b5.", "question": "q5?", "answer": "2 (girls); 3 (boys)"},
                {"body": "b6.", "question": "q6?", "answer": "7:30 (AM)"},
            ]
        },
        [
            {"id": "asdiv/0", "problem": "b0. q0?", "answer": "9"},
            {"id": "asdiv/3", "problem": "b3. q3?", "answer": "1200"},
            {"id": "asdiv/4", "problem": "b4. q4?", "answer": "1/6"},
        ],
    ),
    "gsm8k": (
        "openai/gsm8k",
        {"test": [{"question": "How many?", "answer": "He has <<3*400=1200>>1,200.\n#### 1,200"}]},
        [
            {
                "id": "gsm8k/test/0",
                "problem": "How many?",
                "answer": "1200",
                "solution": "He has <<3*400=1200>>1,200.",
            }
        ],
    ),
    "math12k": (
        "nlile/hendrycks-MATH-benchmark",
        {"test": [MATH, MATH | {"answer": "", "solution": "none"}]},
        [MATH_ROW],
    ),
    "math500": ("HuggingFaceH4/MATH-500", {"test": [MATH]}, [MATH_ROW]),
    "minerva": (
        "math-ai/minervamath",
        {"test": [{"question": "q", "answer": "9.6"}]},
        [{"id": "minerva/0", "problem": "q", "answer": "9.6"}],
    ),
    "olympiadbench": (
        "math-ai/olympiadbench",
        {"test": [{"id": 1, "question": "q", "final_answer": ["$1$"]}, {"question": "r", "final_answer": ["2", "3"]}]},
        [
            {"id": "olympiadbench/0", "problem": "q", "answer": "$1$"},
            {"id": "olympiadbench/1", "problem": "r", "answer": "2,3"},
        ],
    ),
    "svamp": (
        "ChilleD/SVAMP",
        {
            "train": [{"Body": "b.", "Question": "q?", "Answer": "145.0"}],
            "test": [{"Body": "c. ", "Question": "r?", "Answer": "0.5"}],
        },
        [
            {"id": "svamp/0", "problem": "b. q?", "answer": "145"},
            {"id": "svamp/1", "problem": "c. r?", "answer": "0.5"},
        ],
    ),
}
"""Name -> name on the hub, rows there (by split), and what becomes of them as the test split."""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Puts rows where a set looks for its hub data: the real loader, only the place of the repository is changed."""

    def publish(function, rows: dict[str, list[dict]]) -> str:
        for split, each in rows.items():
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each))
        files = "".join(f"  - {{split: {split}, path: {split}.jsonl}}\n" for split in rows)
        (tmp_path / "README.md").write_text(
            f"---\nconfigs:\n- config_name: main\n  default: true\n  data_files:\n{files}---\n"
        )
        name = function.__globals__["HUB_NAME"]
        monkeypatch.setitem(function.__globals__, "HUB_NAME", str(tmp_path))
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        return name

    return publish


@pytest.mark.parametrize("name", HUB)
def test_rows_from_the_hub(name, hub):
    hub_name, rows, expected = HUB[name]
    assert hub(plugins.load(name, "data"), rows) == hub_name
    found = load_rows(name, "test")
    assert found == expected and {tuple(row) for row in found} == {COLUMNS[name]}


def test_countdown_from_the_hub(hub, monkeypatch):
    load = plugins.load("countdown", "data")
    assert (
        hub(load, {"train": [{"target": i, "nums": [i, 1, 1]} for i in range(4)]}) == "Jiayi-Pan/Countdown-Tasks-3to4"
    )
    monkeypatch.setitem(load.__globals__, "HUB_SPLITS", {"train": "train[:2]", "test": "train[3:4]"})
    assert [row["target"] for row in load_rows("countdown", "train")] == [0, 1]
    (row,) = load_rows("countdown", "test")
    assert (row["id"], row["nums"], row["target"]) == ("countdown/test/0", [3, 1, 1], 3)
    assert tuple(row) == COLUMNS["countdown"]


def test_levels_from_the_hub(hub):
    rows = [MATH | {"level": level, "problem": f"p{level}"} for level in range(1, 6)]
    load = plugins.load("math_lvl3to5", "data")
    hub(load.__globals__["math12k"].load, {"train": rows, "test": rows})
    assert [row["problem"] for row in load_rows("math_lvl3to5", "train")] == ["p3", "p4", "p5"]
    assert len(load_rows("math_lvl3to5", "test")) == 5


def test_a_column_that_the_hub_no_longer_has(hub):
    hub(plugins.load("minerva", "data"), {"test": [{"problem": "q", "answer": "9.6"}]})
    with pytest.raises(UserError, match="on the hub lacks question; it has problem, answer"):
        load_rows("minerva", "test")


def test_a_split_that_is_not_there(hub, tmp_path):
    hub(plugins.load("gsm8k", "data"), {"train": [{"question": "q", "answer": "#### 1"}]})
    with pytest.raises(UserError, match=r'--data gsm8k: loading its split \'dev\' failed .*Unknown split "dev"'):
        load_rows("gsm8k", "dev")
    for name in ("gsm8k", "math12k", "math_lvl3to5", "countdown"):
        with pytest.raises(
            UserError, match=f"--data {name}, split 'dev'.*: there is no split 'dev', only train and test"
        ):
            load_rows(name, "dev", data_dir=tmp_path)


def test_a_folder_and_the_verifiers_of_a_set_need_no_hub_library(tmp_path):
    (tmp_path / "svamp_test.jsonl").write_text('{"id": "0", "problem": "p", "answer": "1"}\n')
    script = (
        "import sys; from grpo.problems.rows import data_rewards, load_rows\n"
        f"print(data_rewards('countdown'), load_rows('svamp', 'test', data_dir={str(tmp_path)!r}))\n"
        "print('datasets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "('countdown',) [{'id': '0', 'problem': 'p', 'answer': '1'}]\nFalse\n"


# --data-dir ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path) -> Path:
    """A folder with one set, of one problem."""
    folder = tmp_path / "sets"
    folder.mkdir()
    (folder / "gsm8k_test.jsonl").write_text('{"id": "0", "problem": "p", "answer": "1", "solution": "s", "more": 1}\n')
    return folder


def test_a_missing_file_is_named_with_what_is_there(small):
    with pytest.raises(UserError) as error:
        load_rows("aime24", "test", data_dir=small)
    assert f"there is no file {small / 'aime24.jsonl'}; the folder holds gsm8k_test.jsonl." in str(error.value)
    (small / "gsm8k_test.jsonl").unlink()
    with pytest.raises(UserError, match=r"no file .*gsm8k_test.jsonl; the folder holds no .jsonl file"):
        load_rows("gsm8k", "test", data_dir=small)


@pytest.mark.parametrize(
    "text,message",
    [
        ('{"id": "0", "problem": "p", "answer": "1"}\n{"id": ', "line 2 is not JSON"),
        ('\n{"id": "0", "problem": "p"}\n', "line 2 lacks answer; it has id, problem"),
        ("[1, 2]\n", "line 1 is a list"),
        ("", "has no rows"),
    ],
)
def test_a_file_that_will_not_do(small, text, message):
    (small / "amc.jsonl").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_rows("amc", "test", data_dir=small)
    assert "--data amc" in str(error.value) and "\n" not in str(error.value)


def test_the_folder_that_is_none_and_the_sets_that_are_not_read_from_it(small):
    check_data_dir(None, ["arithmetic"])
    check_data_dir(small, ["arithmetic", "gsm8k"])
    check_data_dir(small, ["./rows.jsonl", "gsm8k"])
    with pytest.raises(UserError, match=r"--data-dir .*nowhere is no folder"):
        check_data_dir(small / "nowhere", ["gsm8k"])
    with pytest.raises(UserError, match=r"openai/gsm8k is a name on the hub.*: aime24, .*gsm8k, .*svamp, "):
        check_data_dir(small, ["gsm8k", "openai/gsm8k"])
    with pytest.raises(
        UserError, match=r"nothing would be read from it, because arithmetic, ./rows.jsonl does not come"
    ):
        check_data_dir(small, ["arithmetic", "./rows.jsonl"])


def test_a_users_file_may_read_the_folder(small, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def load(split, data_dir=None): return [{'problem': f'{split} {data_dir}'}]\n"
        "def plain(split): return [{'problem': split}]\n"
    )
    spec = str(tmp_path / "mine.py")
    assert load_rows(spec, "test", data_dir=small) == [{"problem": f"test {small}"}]
    assert load_rows(spec, "test") == [{"problem": "test None"}]
    assert load_rows(f"{spec}:plain", "test", data_dir=small) == [{"problem": "test"}]
    check_data_dir(small, [spec])
    with pytest.raises(UserError, match="nothing would be read from it"):
        check_data_dir(small, [f"{spec}:plain"])


def test_a_run_may_mix_a_generated_set_with_one_from_the_folder(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parse(["--eval-data", "gsm8k", "--data-dir", str(small)])
    rows, held_out = load_data(config)
    assert len(rows) == 8192 and rows[0]["problem"].endswith("=")
    assert held_out["gsm8k"] == [{"max_response_tokens": 96, "id": "0", "problem": "p", "answer": "1", "solution": "s"}]
    assert config.to_json()["data_dir"] == str(small)
    with pytest.raises(UserError, match="nothing would be read from it, because arithmetic does not"):
        load_data(parse(["--data-dir", str(small)]))
    with pytest.raises(UserError, match=r"no file .*gsm8k_train.jsonl"):
        load_data(parse(["--data", "gsm8k", "--data-dir", str(small)]))


# The verifiers of a set ------------------------------------------------------------------------------------------


def test_a_set_names_its_verifiers(tmp_path):
    assert data_rewards("countdown") == ("countdown",)
    for spec in ("gsm8k", "arithmetic", "rows.jsonl", "./rows.jsonl", "org/name", "org/name:config"):
        assert data_rewards(spec) == ("math_answer",)
    (tmp_path / "mine.py").write_text("REWARD = ['exact', 'think_format=0.1']\ndef load(split): return []\n")
    assert data_rewards(str(tmp_path / "mine.py")) == data_rewards(f"{tmp_path / 'mine.py'}:load")
    assert data_rewards(str(tmp_path / "mine.py")) == ("exact", "think_format=0.1")
    with pytest.raises(UserError, match="neither a built-in of data/"):
        data_rewards("gsm9k")


@pytest.mark.parametrize("value", ["'exact'", "()", "(1,)", "None"])
def test_verifiers_that_are_no_tuple_of_texts(value, tmp_path):
    (tmp_path / "mine.py").write_text(f"REWARD = {value}\ndef load(split): return []\n")
    with pytest.raises(UserError, match=r"REWARD in its file is .*, and must be a tuple of verifiers"):
        data_rewards(str(tmp_path / "mine.py"))


def test_verifiers_are_tried_on_a_set_by_name(small, capsys):
    command = ["--reward", "math_answer", "--workers", "1", "--data"]
    check_verifiers([*command, "gsm8k", "--split", "test", "--data-dir", str(small)])
    assert "│ math_answer │ 1            │ 1       │ 1         │ 1     │" in capsys.readouterr().out
    (small / "countdown_train.jsonl").write_text('{"id": "0", "nums": [1, 2], "target": 3}\n')
    for rest, said in (
        (["gsm8k", "--data-dir", str(small)], "no file"),
        (["countdown", "--data-dir", str(small)], "a row lacks answer; it has: id, nums, target, problem"),
        ([str(small / "gsm8k_test.jsonl"), "--data-dir", str(small)], "nothing would be read from it"),
    ):
        with pytest.raises(SystemExit) as stop:
            check_verifiers([*command, *rest])
        assert stop.value.code == 2 and said in capsys.readouterr().err


# The page --------------------------------------------------------------------------------------------------------


def test_the_page_lists_every_set():
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / "data" / "README.md").read_text(), re.M)
    assert sorted(listed) == plugins.available("data")
