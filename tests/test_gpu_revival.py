"""A vLLM on a card that dies, and is made anew in the same process from the current weights. The file's only test: an
engine that sleeps can be there once in a process.
"""

import pytest
import torch
from conftest import END, OTHER_END
from devices import policy_on, same

from grpo.engines.choose import built_for_a_card
from grpo.engines.revival import Revival
from grpo.engines.sync import TOLERANCE, SyncProbe


@pytest.mark.gpu
@pytest.mark.vllm
def test_a_dead_vllm_is_made_anew_on_the_card(tied_folder, tokenizer, problems):
    if not built_for_a_card():
        pytest.skip("needs vLLM's build for CUDA")
    from grpo.engines.vllm_engine import VLLMEngine

    said, policy = [], policy_on("cuda", tied_folder, temperature=0.8)
    ends, limits = [END, OTHER_END], dict(max_tokens=192, max_sequences=16, memory_fraction=0.1)
    engine = Revival(lambda: VLLMEngine(str(tied_folder), tokenizer, end_ids=ends, **limits), said.append)
    probe = SyncProbe(range(3, 250), max_tokens=192, temperature=0.8, tolerance=TOLERANCE[torch.bfloat16])
    engine.sync(policy)
    before = engine.generate(problems, 4, temperature=0.8, max_tokens=16, seed=1)

    def die():
        raise RuntimeError("the core is gone")

    engine.engine.engine.step = die
    assert same(engine.generate(problems, 4, temperature=0.8, max_tokens=16, seed=1), before) > 0.8
    assert len(said) == 1 and probe.check(engine, policy, 1) < probe.tolerance
