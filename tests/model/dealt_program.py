"""What two ranks hold of a model that rank 0 has read; every assertion holds on each. Started by test_dealt.py.

torchrun ... tests/model/dealt_program.py FOLDER     # where test_dealt.py has put the models; rank 0 saves into it
"""

import gc
import os
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import DTensor

from grpo.config import Config
from grpo.errors import UserError
from grpo.model.dealt import dealt
from grpo.model.lora import adapter_parameters, save_adapter
from grpo.model.pretrained import load_model
from grpo.model.ranks import OtherRankFailed, Ranks
from grpo.model.shard import whole
from grpo.policies import make_policy, make_reference
from grpo.resolve import resolve

folder = Path(sys.argv[1])
ranks = Ranks.join(minutes=1)


def loaded(name, device="cpu"):
    return load_model(str(folder / name), device=device, trust_remote_code=False)


def made(name):
    return dealt(partial(loaded, name), ranks, device="cpu")


def same(model, expected):
    """All numbers to the last bit, those that no file holds among them."""
    found = dict(model.named_buffers()) | model.state_dict()
    wanted = dict(expected.named_buffers()) | expected.state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(whole(found[name]), tensor), name
    return len(wanted)


# Tied and untied.
for name in ("tied", "untied"):
    model, expected = made(name), loaded(name)
    assert same(model, expected) > 20 and "model.rotary_emb.inv_freq" in dict(model.named_buffers())
    assert all(isinstance(p, DTensor) and p.device.type == "cpu" for p in model.parameters())
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == (name == "tied")
    assert len(list(model.parameters())) == len(list(expected.parameters()))
    assert model.config.to_dict() == expected.config.to_dict() and not model.training
    if ranks.writes:
        assert model.generation_config.to_dict() == expected.generation_config.to_dict()
        assert model._weight_conversions == expected._weight_conversions

# The policy, its reference, an adapter that begins and one that goes on.
settings = dict(model=str(folder / "tied"), device="cpu", engine="vllm", kl_coef=0.1)
config = resolve(Config(name="a", **settings))
policy = make_policy(config.model, config, ranks)
reference = make_reference(policy, config, None)
same(policy.model, make_policy(config.model, config).model)
same(reference.model, loaded("tied"))
assert not any(p.requires_grad for p in reference.model.parameters())

config = resolve(Config(name="b", lora_rank=3, **settings))
one = make_policy(config.model, config)
adapted = make_policy(config.model, config, ranks)
same(adapted.model, one.model)
assert [n for n, p in adapted.model.named_parameters() if p.requires_grad] == [
    n for n, p in one.model.named_parameters() if p.requires_grad
]
for parameter in adapter_parameters(one.model).values():
    torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
if ranks.writes:
    (folder / "adapter").mkdir()
    save_adapter(one.model, folder / "adapter")
ranks.exchange(None)
same(make_policy(str(folder / "adapter"), config, ranks).model, one.model)

# What cannot be read, or is not as its config says, ends all.
for name, words in {"broken": "could not be loaded", "two heads": "differ in lm_head.weight"}.items():
    with pytest.raises(UserError if ranks.writes else OtherRankFailed) as error:
        made(name)
    assert words in str(error.value) or not ranks.writes


def peak_of(make):
    """MiB that the host's memory of this process has grown by at most."""

    def said(name):
        return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith(name))) / 1024

    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = said("VmRSS")
    kept = make()
    return said("VmHWM") - before, kept


mine, model = peak_of(lambda: made("large"))
size = sum(p.numel() for p in model.parameters()) * 4 / 2**20
print(f"rank {ranks.rank}: {mine:.0f} MiB at the peak, of a model of {size:.0f}")
copy = peak_of(lambda: loaded("large"))[0]
assert size > 300 and copy > 0.95 * size  # a guard: so much it is where a rank has a copy
if not ranks.writes:
    assert mine < 0.65 * size
same(model, loaded("large"))
ranks.exchange(None)
sys.stdout.flush()
os._exit(0)  # as the command ends (rank_end.py): gloo's threads may abort a process that is taken down
