"""A few responses on the page: of three steps, of the first run that has some, and all of it text."""

import json

from parsed_page import HOSTILE, Page
from synthetic_runs import group, make_run, ramp

from grpo.comparison.samples import LONGEST, picked, samples_section


def with_samples(folder, rows):
    run = make_run(folder, ramp(20.0))
    (run.folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def test_two_responses_of_the_first_a_middle_and_the_last_step(tmp_path):
    run = with_samples(tmp_path / "a", [{"step": s, "prompt": f"p{s}"} for s in range(1, 10) for _ in "abc"])
    assert [row["prompt"] for row in picked(run)] == ["p1", "p1", "p5", "p5", "p9", "p9"]
    assert [row["step"] for row in picked(with_samples(tmp_path / "b", [{"step": 4}]))] == [4]
    assert picked(make_run(tmp_path / "c", ramp(20.0))) == []


def test_what_is_said_of_a_response(tmp_path):
    row = {"step": 2, "prompt": [{"role": "user", "content": "2+2="}], "response": HOSTILE, "reward": 0.5}
    run = with_samples(tmp_path / "a", [row | {"truncated": True, "columns": {"answer": "4"}}])
    found = Page(samples_section([group(HOSTILE, make_run(tmp_path / "none", ramp(20.0)), run)]))
    assert "".join(found.texts["summary"]) == f"{HOSTILE}, a"
    assert found.texts["p"] == ["step 2 · reward 0.5 · gold answer 4 · cut at the limit"]
    assert "".join(found.texts["pre"]) == f"user: 2+2={HOSTILE}"


def test_a_long_response_is_cut_and_says_so(tmp_path):
    run = with_samples(tmp_path / "a", [{"step": 1, "prompt": "p", "response": "x" * (LONGEST + 1200)}])
    _, text = Page(samples_section([group("g", run)])).texts["pre"]
    assert text == "x" * LONGEST + " ... (1,200 more characters)"


def test_no_section_without_samples(tmp_path):
    assert samples_section([group("g", make_run(tmp_path / "a", ramp(20.0)))]) == ""
