"""An engine that dies is made anew once, from the current weights; a real vLLM too."""

import subprocess
import sys
from typing import ClassVar

import pytest
import torch
from conftest import END, OTHER_END, ROOT, make_policy

from grpo.engines.hf_engine import HFEngine
from grpo.engines.revival import Revival
from grpo.errors import RunError, UserError
from grpo.out_of_memory import OutOfMemory


class Mortal(HFEngine):
    """The real engine, which dies at chosen calls: the injected fault."""

    deaths: ClassVar[list[str]] = []
    error: ClassVar[Exception] = RuntimeError("EngineCore encountered an issue")
    log: ClassVar[list[str]] = []

    def generate(self, *arguments, **settings):
        self._live("generate")
        return super().generate(*arguments, **settings)

    def sync(self, policy):
        self._live("sync")
        return super().sync(policy)

    def close(self):
        self.log.append("close")

    def _live(self, call):
        self.log.append(call)
        if call in self.deaths:
            self.deaths.remove(call)
            raise self.error


@pytest.fixture
def made(tied_folder, tokenizer):
    """(the policy, what was said, make): engines that share a list of deaths and of calls."""
    policy, said = make_policy(tied_folder), []
    Mortal.deaths, Mortal.log = [], []
    return policy, said, lambda: Mortal(policy, tokenizer, end_ids=[END, OTHER_END])


def generate(engine, problems):
    return engine.generate(problems, 2, temperature=1.0, max_tokens=8, seed=3)


def test_a_death_is_said_and_the_call_repeated_on_a_new_engine_with_the_current_weights(made, problems):
    policy, said, make = made
    engine = Revival(make, said.append)
    engine.sync(policy)
    whole = generate(engine, problems)
    first = engine.engine
    Mortal.deaths = ["generate"]
    Mortal.log.clear()
    assert generate(engine, problems) == whole
    assert engine.engine is not first and Mortal.log == ["generate", "close", "sync", "generate"]
    (line,) = said
    assert "the engine died (RuntimeError: EngineCore encountered an issue)" in line


def test_a_death_while_it_is_synced(made):
    policy, said, make = made
    engine = Revival(make, said.append)
    Mortal.deaths = ["sync"]
    engine.sync(policy)
    assert len(said) == 1 and Mortal.log == ["sync", "close", "sync", "sync"]


def test_a_second_death_is_raised(made, problems):
    policy, said, make = made
    engine = Revival(make, said.append)
    engine.sync(policy)
    Mortal.deaths = ["generate"]
    generate(engine, problems)
    Mortal.deaths = ["generate"]
    with pytest.raises(RuntimeError, match="EngineCore"):
        generate(engine, problems)
    assert len(said) == 1


@pytest.mark.parametrize("call", ["generate", "sync"])
def test_memory_that_runs_out_is_a_death_and_at_the_second_time_a_paragraph(made, problems, monkeypatch, call):
    policy, said, make = made
    monkeypatch.setattr(Mortal, "error", torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    engine = Revival(make, said.append)
    Mortal.deaths = [call]
    engine.sync(policy)
    generate(engine, problems)
    assert len(said) == 1 and "Tried to allocate 2.00 GiB" in said[0]
    Mortal.deaths = [call]
    with pytest.raises(OutOfMemory, match=r"Memory ran out in .*--memory-fraction") as caught:
        engine.sync(policy)
        generate(engine, problems)
    assert ("generating" in str(caught.value)) == (call == "generate")


def test_memory_that_runs_out_while_an_engine_starts_is_a_paragraph(made):
    def make():
        raise ValueError("Free memory on device cuda:0 (3.2/23.6 GiB) on startup is less than desired")

    with pytest.raises(OutOfMemory, match=r"starting the engine .*3.2/23.6 GiB.*--memory-fraction"):
        Revival(make, print)


@pytest.mark.parametrize("error", [UserError("a verifier"), RunError("a disk"), KeyboardInterrupt()])
def test_what_is_no_death_passes(made, problems, error):
    _, said, make = made
    engine = Revival(make, said.append)

    def raising(*_):
        raise error

    with pytest.raises(type(error)):
        engine.generate(problems, 2, temperature=1.0, max_tokens=8, seed=3, on_response=raising)
    assert not said and not engine.revived


VLLM = """
import sys
sys.path[:0] = [sys.argv[1] + "/tests", sys.argv[1]]
from conftest import END, OTHER_END, make_model, make_policy
from pathlib import Path
from transformers import AutoTokenizer
from grpo.engines.revival import Revival
from grpo.engines.sync import SyncProbe
from grpo.engines.vllm_engine import VLLMEngine
from grpo.records import Problem
import torch
folder = make_model(Path(sys.argv[2]) / "tied", tied=True)
tokenizer, policy, said = AutoTokenizer.from_pretrained(folder), make_policy(folder, temperature=0.8), []
make = lambda: VLLMEngine(
    str(folder), tokenizer, end_ids=[END, OTHER_END], max_tokens=192, max_sequences=16, kv_cache_gib=0.1)
engine = Revival(make, said.append)
probe = SyncProbe(range(3, 250), max_tokens=192, temperature=0.8, tolerance=1e-4)
with torch.no_grad():
    for parameter in policy.model.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
engine.sync(policy)
ask = lambda: engine.generate([Problem("", (5, 6, 7), {})], 4, temperature=0.8, max_tokens=16, seed=1)
before, core = ask(), engine.engine.engine
def die():
    raise RuntimeError("the core is gone")
core.step = die
assert ask() == before and len(said) == 1 and engine.engine.engine is not core
assert probe.check(engine, policy, 1) < 1e-5
print("revived")
"""


@pytest.mark.vllm
def test_a_dead_vllm_is_made_anew_in_the_same_process_and_samples_the_same(tmp_path):
    done = subprocess.run([sys.executable, "-c", VLLM, str(ROOT), str(tmp_path)], capture_output=True, text=True)
    assert "revived" in done.stdout, done.stderr[-3000:]
