"""vLLM's share of a card beside what the trainer has yet to take."""

import pytest

from grpo.engines.free_memory import GIB, check_free_memory
from grpo.errors import UserError


def test_a_share_that_fits_to_the_last_byte_passes():
    check_free_memory(50 * GIB, 80 * GIB, fraction=0.5, reserved=10 * GIB)
    check_free_memory(40 * GIB, 80 * GIB, fraction=0.5, reserved=0)


def test_one_byte_less_is_refused_with_the_share_that_fits():
    with pytest.raises(UserError) as caught:
        check_free_memory(50 * GIB - 1, 80 * GIB, fraction=0.5, reserved=10 * GIB)
    said = str(caught.value)
    assert "--memory-fraction 0.5 asks 40.0 GiB of the card's 80.0" in said
    assert "50.0 GiB are free, of which the optimizer's state will take 10.0" in said
    assert "Lower it to 0.49" in said
    check_free_memory(50 * GIB - 1, 80 * GIB, fraction=0.49, reserved=10 * GIB)  # and it does


def test_where_nothing_would_fit_no_share_is_named():
    with pytest.raises(UserError, match=r"only 5\.0 GiB are free, of which .* will take 11\.0\. End other programs"):
        check_free_memory(5 * GIB, 80 * GIB, fraction=0.4, reserved=11 * GIB)
