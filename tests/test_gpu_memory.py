"""What a run takes of a card, by --plan's arithmetic and as the card's allocator counts it: to a tenth."""

import gc
import sys

import pytest
import torch
from conftest import ROOT, make_policy

sys.path.append(str(ROOT / "scripts"))
import measure_memory
import random_model
from gpu_parts import objects
from memory_rows import GIB, Row, table

FLAGS = (
    "--data arithmetic --engine hf --max-prompt-tokens 64 --max-response-tokens 448 --problems-per-step 32 "
    "--updates-per-step 2 --wandb off"
).split()


@pytest.mark.parametrize("recompute", [True, False], ids=["recomputed", "whole"])
@pytest.mark.parametrize(
    "device,shape,positions", [("cpu", "tiny", "2048"), pytest.param("cuda", "0.2B", "8192", marks=pytest.mark.gpu)]
)
def test_the_peaks_of_both_passes(tmp_path, capsys, device, shape, positions, recompute):
    gc.collect()  # policies of other tests
    random_model.write_model(shape, tmp_path / "model", device)
    flags = [*FLAGS, "--model", str(tmp_path / "model"), "--device", device, "--micro-batch-tokens", positions]
    assert measure_memory.main([*flags, "--gradient-checkpointing", str(recompute), "--json"]) == 0
    printed = capsys.readouterr().out
    rows = {row["what"]: Row(**row) for row in objects(printed, '{"what"')}
    for stage in ("weights", "log-probabilities", "update"):
        assert rows[stage].ratio == pytest.approx(1, abs=0.1), printed
    assert f"{device}; hf" in printed and f"{int(positions):,} positions" in printed


def test_what_a_card_reports_becomes_rows(tmp_path, monkeypatch, vllm_engine):
    """The figures of a card are made up, the policy and vLLM are real, on the CPU."""
    random_model.write_model("tiny", tmp_path / "model", "cpu")
    flags = [*FLAGS, "--model", str(tmp_path / "model"), "--device", "cpu", "--micro-batch-tokens", "2048"]
    config, _ = measure_memory.settled(measure_memory.parse(flags))
    load = measure_memory.load_on(config)
    used = iter([3.0 * GIB, 4.0 * GIB, 20 * GIB, 4.5 * GIB])
    monkeypatch.setattr(measure_memory, "peak_on_card", lambda run: (run(), (6 * GIB, 7 * GIB))[1])
    monkeypatch.setattr(measure_memory, "used_of_card", lambda: next(used))
    allocated = iter([1 * GIB, 3 * GIB])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: next(allocated))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 2.5 * GIB)
    monkeypatch.setattr(vllm_engine, "close", lambda: None)
    monkeypatch.setattr(measure_memory, "make_engine", lambda *_: vllm_engine)
    monkeypatch.setattr(measure_memory, "make_policy", lambda *_: make_policy(tmp_path / "model"))
    monkeypatch.setattr(vllm_engine, "sync", lambda policy: None)  # its model is another one
    rows = list(measure_memory.of_trainer(config, measure_memory.replace(load, memory_fraction=0.1), on_card=True))
    measured = {row.what: row.measured / GIB for row in rows}
    assert measured["weights"] == 2.0 and measured["update"] == 5.0
    assert (
        measured["update, with the allocator's gaps (estimated)"] == 6.0 and measured["CUDA itself (estimated)"] == 0.5
    )
    assert measured["vLLM asleep (estimated)"] == 0.5
    assert measured["vLLM awake: --memory-fraction of the card"] == 16.0
    assert "| update | 0.0" in table(rows)
