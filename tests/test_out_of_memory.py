"""What says that memory has run out, real errors among it, and the paragraph that it ends in."""

import errno

import pytest
import torch

from grpo.errors import RunError, UserError
from grpo.out_of_memory import OutOfMemory, out_of_memory, ran_out, said

CARD = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of which 1.2 GiB is free. "
    "Including non-PyTorch memory, this process has 22.4 GiB memory in use. See documentation for Memory Management."
)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(CARD),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA Error: out of memory at /workspace/csrc/cumem_allocator.cpp:62"),  # vLLM that wakes
        ValueError(
            "Free memory on device cuda:0 (3.2/23.6 GiB) on startup is less than desired GPU memory utilization"
        ),
        ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"),
        OutOfMemory("said already"),
    ],
    ids=lambda error: f"{type(error).__name__}: {str(error)[:20]}",
)
def test_memory_that_has_run_out(error):
    assert ran_out(error)


def test_the_allocator_of_this_cpu_says_it():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert ran_out(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes do not fit"),
        OSError(errno.ENOSPC, "No space left on device"),
        UserError("It does not fit: out of memory"),  # these two say what is wrong already
        RunError("out of memory"),
        KeyError("out of memory"),  # of a column's name
    ],
    ids=lambda error: f"{type(error).__name__}: {str(error)[:20]}",
)
def test_every_other_error(error):
    assert not ran_out(error)
    with pytest.raises(type(error)) as caught, out_of_memory("a place", "patience"):
        raise error
    assert caught.value is error


def test_the_paragraph_names_the_stage_and_what_helps_and_keeps_the_notes():
    error = torch.OutOfMemoryError(CARD)
    error.add_note("saved: checkpoint-3")
    with pytest.raises(OutOfMemory) as caught, out_of_memory("starting the engine", "a lower --memory-fraction"):
        raise error
    text = str(caught.value)
    assert text.startswith("Memory ran out in starting the engine (CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert "1.2 GiB is free). What helps: a lower --memory-fraction. " in text and "--plan" in text
    assert caught.value.__notes__ == ["saved: checkpoint-3"]


def test_the_innermost_name_stands():
    with pytest.raises(OutOfMemory, match="in the inner"), out_of_memory("the outer", "x"):
        with out_of_memory("the inner", "y"):
            raise MemoryError


def test_an_error_without_words_has_its_name():
    assert said(MemoryError()) == "MemoryError"
    assert said(RuntimeError("one\n  two")) == "one two"
