"""scripts/first_run.ipynb: it holds no outputs, and run for real it draws the numbers of metrics.jsonl."""

import json
import os
import re
from itertools import pairwise

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

from grpo.logs.metric_names import METRICS

PATH = ROOT / "scripts" / "first_run.ipynb"
SMALL = ["--problems-per-step", "4", "--responses-per-problem", "4", "--eval-problems", "8", "--eval-every", "1"]
SMALL += ["--wandb", "off", "--verifier-workers", "1"]
SETTINGS = f"""
PLACE, NAME, STEPS, MORE = Path("."), "small", 3, {SMALL!r}
"""
QUICKER = "MORE += ['--engine', 'hf']"
"""For the second run: vLLM has been met in the first, and takes its time to start."""
DRAWN = """
lines = [line for axes in panels for line in axes.lines]
print(json.dumps([[line.get_label(), *(list(map(float, data)) for data in line.get_data())] for line in lines]))
"""
LINES = ("reward/mean", "eval/accuracy", "length/correct", "length/incorrect")


@pytest.fixture
def notebook():
    return nbformat.read(PATH, as_version=nbformat.NO_CONVERT)


def test_it_is_valid_and_clean(notebook):
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None, cell.id


def test_what_it_draws_are_metrics_and_each_code_cell_is_explained(notebook):
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    named = set(re.findall(r'"(\w+/\w+)"', "\n".join(code)))
    assert named == set(LINES) and named <= set(METRICS)
    kinds = [cell.cell_type for cell in notebook.cells]
    assert all(before == "markdown" for before, kind in pairwise(kinds) if kind == "code")


@pytest.mark.slow
@pytest.mark.vllm
def test_every_cell_runs_and_the_lines_are_the_rows_of_the_run(notebook, tmp_path, monkeypatch):
    """With vLLM, in an empty folder; the settings are changed in their own cell, and the lines asked of the figure."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    folder = tmp_path / "empty"
    folder.mkdir()
    (settings,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    settings.source += SETTINGS
    at = [cell.id for cell in notebook.cells].index("compare")
    notebook.cells.insert(at, nbformat.v4.new_code_cell(QUICKER))
    notebook.cells.append(nbformat.v4.new_code_cell(DRAWN))
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()

    for cell in notebook.cells:
        assert not any(output.output_type == "error" for output in cell.get("outputs", ())), cell.outputs
    rows = {
        name: [json.loads(line) for line in (folder / "runs" / name / "metrics.jsonl").open()]
        for name in ("small", "small-grpo")
    }
    assert [row["step"] for row in rows["small"]] == [row["step"] for row in rows["small-grpo"]] == [0, 1, 2, 3]
    drawn = json.loads(notebook.cells[-1].outputs[0].text)
    expected = []
    for key in LINES:
        measured = [row for row in rows["small"] if row.get(key) is not None]
        expected.append([key, [row["step"] for row in measured], [row[key] for row in measured]])
    assert drawn == expected and all(steps for _, steps, _ in drawn[:2])
    said = {
        cell.id: "".join(str(output.get("text", "")) for output in cell.get("outputs", ())) for cell in notebook.cells
    }
    assert "dr_grpo trains the embedded tiny model" in said["train"] and "sampler: vllm" in said["train"]
    images = [
        cell.id
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert images == ["draw", "compare"]
    configs = [json.loads((folder / "runs" / name / "config.json").read_text())["algo"] for name in rows]
    assert configs == ["dr_grpo", "grpo"]
    assert (folder / "runs" / "small" / "comparison.html").exists() and os.listdir(folder) == ["runs"]
