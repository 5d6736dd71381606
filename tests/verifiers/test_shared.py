"""grpo/verifiers/shared.py on a world of one, where it must be the verifiers themselves; tests/test_ranks_run.py has
several ranks."""

import pytest
import torch
from verifier_tools import group, write_verifier

from grpo.model.ranks import Ranks
from grpo.verifiers.shared import SharedVerifiers
from grpo.verifiers.verify import Verifiers


@pytest.fixture
def pair(tmp_path):
    """Verifiers that read the response and the step, and the same shared."""
    spec = write_verifier(tmp_path, "def reward(response, step):\n    return len(response) + step / 10\n")
    with Verifiers([f"{spec}=0.5"], workers=1, time_limit=10.0, correct_at=2.0) as verifiers:
        yield verifiers, SharedVerifiers(verifiers, Ranks())


def test_all_that_the_loop_asks_of_verifiers_is_there(pair):
    verifiers, shared = pair
    public = {name for name in (*dir(verifiers), *vars(verifiers)) if not name.startswith("_")} - {"close"}
    assert public <= {name for name in dir(shared) if not name.startswith("_")}
    assert (shared.correct_at, shared.weights) == (2.0, {"mine": 0.5})


def test_rewards_and_outcomes_are_the_verifiers_own(pair):
    verifiers, shared = pair
    groups = [group(["a", "bb"]), group(["ccc", ""])]
    shared.at = (3, 4)
    assert verifiers.at == (3, 4)
    one, other = verifiers(groups), shared(groups)
    assert torch.equal(one.total, other.total) and other.total[0, 1].item() == pytest.approx(0.5 * 2.3)
    assert other.correct_at == 2.0
    rewards = [{name: [outcome.reward for outcome in row] for name, row in v.outcomes(groups).items()} for v in pair]
    assert rewards[0] == rewards[1]
