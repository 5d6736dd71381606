"""Shared fixtures: small random models as Hugging Face folders, engines on them, and where the shared data lies."""

import os
import signal
from pathlib import Path

from gpu_processes import (  # isort: skip  (hides the card, and must stand before torch is imported)
    pytest_collection_modifyitems,  # noqa: F401
    pytest_configure,  # noqa: F401
    pytest_runtest_logreport,  # noqa: F401
    pytest_runtest_protocol,  # noqa: F401
)
from two_processes import pytest_cmdline_main  # noqa: F401  # isort: skip

import grpo  # noqa: F401  # isort: skip  (sets OMP_WAIT_POLICY, which must stand before torch is imported)
import hypothesis
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from grpo.engines.choose import built_for_a_card, choose_engine
from grpo.errors import UserError
from grpo.model.optimizers import OptimizerSettings
from grpo.model.policy import Policy
from grpo.records import Batch, Problem
from grpo.verifiers.verify import Verifiers

os.environ.setdefault("WANDB_MODE", "offline")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a script, which ignores Ctrl-C ...
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ... and would hand that on to every process of the tests
# No deadline: the machine may be busy. Continuous integration draws the same examples every time, people new ones.
hypothesis.settings.register_profile("any", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "any")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
END, OTHER_END, PAD = 1, 2, 0
VOCABULARY = 320


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, and say why."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and torch sees none")
    if item.get_closest_marker("vllm"):
        skip_without_vllm()


def skip_without_vllm() -> None:
    """vLLM's build for the CPU is tested where it is installed; that for CUDA in tests/test_gpu_vllm.py."""
    try:
        choose_engine("vllm")
    except UserError as error:
        pytest.skip("needs vLLM's build for the CPU, and that for CUDA is here" if built_for_a_card() else str(error))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets and tokenizers that developers have beside the checkout."""
    if not (SHARED / "datasets").is_dir():
        pytest.skip(f"needs the shared data sets and tokenizers, and {SHARED} is not there")
    return SHARED


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens, with a pad token and two ends of sequence."""
    special = ["<pad>", "<end>", "<end2>"]
    vocabulary = {token: i for i, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")


def make_model(folder: Path, *, tied: bool, seed: int = 0, spread: float = 0.2) -> Path:
    """A two-layer random Qwen2 whose distributions are far from uniform, so that a wrong weight shows."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        initializer_range=spread,
        bos_token_id=None,
        eos_token_id=[END, OTHER_END],
        pad_token_id=PAD,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tied_folder(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tied", tied=True)


@pytest.fixture(scope="session")
def tokenizer(tied_folder):
    return AutoTokenizer.from_pretrained(tied_folder)


def make_policy(
    folder: Path, temperature: float = 1.0, micro_batch_tokens: int = 4096, dtype=torch.float32, **optimizer
) -> Policy:
    """A policy on the model of a folder, on the CPU."""
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=dtype)
    settings = OptimizerSettings(**optimizer)
    return Policy(model, temperature=temperature, micro_batch_tokens=micro_batch_tokens, optimizer=settings)


def make_batch(mask: torch.Tensor, **tensors: torch.Tensor) -> Batch:
    """A batch around a mask [B, T]: inputs and targets count up from 1, and what is not given is zero or absent."""
    inputs = torch.arange(1, mask.numel() + 1).view(mask.shape)
    lengths = torch.tensor([int(row.nonzero().max()) + 1 if row.any() else 1 for row in mask])
    tensors.setdefault("sampler_logprobs", torch.zeros(mask.shape))
    tensors.setdefault("groups", torch.arange(len(mask)) // 2)  # two responses a problem
    return Batch(inputs=inputs, targets=inputs + 1, lengths=lengths, mask=mask, **tensors)


@pytest.fixture(scope="session")
def vllm_engine(tied_folder, tokenizer):
    """One real vLLM for all tests of a session: it takes seconds to start. Every test syncs it before use."""
    skip_without_vllm()
    from grpo.engines.vllm_engine import VLLMEngine

    return VLLMEngine(
        str(tied_folder), tokenizer, end_ids=[END, OTHER_END], max_tokens=192, max_sequences=64, kv_cache_gib=0.1
    )


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch) -> str:
    """A card, and a CPU that computes as a card does: bfloat16 over float32 weights."""
    from devices import compute_as_a_card

    if request.param == "cpu":
        compute_as_a_card(monkeypatch)
    return request.param


@pytest.fixture
def problems() -> list[Problem]:
    """Prompts of different lengths, the longest of several blocks of the prefix cache."""
    return [
        Problem(f"problem {i}", tuple(3 + (7 * i + 5 * j) % 200 for j in range(length)), {"answer": str(i)})
        for i, length in enumerate((3, 10, 33, 80))
    ]


@pytest.fixture(scope="session")
def verifiers():
    """A pool with the default verifier."""
    with Verifiers(("math_answer",), workers=1) as pool:
        yield pool


@pytest.fixture(scope="session")
def tied_policy(tied_folder) -> Policy:
    """A policy that no test may change."""
    return make_policy(tied_folder)
