"""What flags alone are refused for."""

import pytest

from grpo.errors import UserError
from grpo.evaluation.options import Options, completed


def test_a_device_is_for_the_engine_that_takes_one():
    assert completed(Options(engine="hf", device="cpu")).device == "cpu"
    with pytest.raises(UserError, match="--device cpu has no meaning for vllm"):
        completed(Options(engine="vllm", device="cpu"))
