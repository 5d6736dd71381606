"""The names that flags are read by are those of the precisions and optimizers that there are."""

from grpo.memory.widths import STATE
from grpo.model.head import HEAD_DTYPES
from grpo.model.pretrained import PRECISIONS
from grpo.model.settings import HEAD_DTYPE_NAMES, OPTIMIZERS, PRECISION_NAMES


def test_each_name_means_something_and_each_meaning_has_its_name():
    assert tuple(PRECISIONS) == PRECISION_NAMES
    assert tuple(HEAD_DTYPES) == HEAD_DTYPE_NAMES
    assert set(STATE) == set(OPTIMIZERS)  # bytes of the state by optimizer
