"""Log-probabilities of the starting model: kept in a file, and refused for other pairs or another model."""

from dataclasses import replace

import pytest
import torch
from conftest import make_model, make_policy

from grpo.errors import UserError
from grpo.model.batching import collate
from grpo.preferences import reference as module
from grpo.preferences.reference import computed, fingerprint, reference_logprobs
from grpo.records import Group, Problem, Rollout


@pytest.fixture(scope="module")
def pairs():
    def rollout(*ids):
        return Rollout(ids, (0.0,) * len(ids), "", truncated=False)

    return [
        Group(Problem("", (5, 6), {}), (rollout(10, 11, 12, 1), rollout(20, 1))),
        Group(Problem("", (7,), {}), (rollout(30, 1), rollout(31, 32, 33, 34, 1))),
        Group(Problem("", (8, 9, 10), {}), (rollout(40), rollout(41, 1))),
    ]


def test_they_are_those_of_the_policy(tied_policy, pairs, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 2)  # several batches of different widths
    found = computed(tied_policy, pairs)
    rows = [2, 0]
    batch = collate([pairs[row] for row in rows])
    torch.testing.assert_close(found.of(batch, rows), tied_policy.logprobs(batch), atol=1e-5, rtol=1e-5)


def test_a_file_is_read_for_the_same_pairs_alone(tied_policy, pairs, tmp_path):
    saved = reference_logprobs(tied_policy, pairs, tmp_path / "reference.pt", None)
    again = reference_logprobs(tied_policy, pairs, tmp_path / "other.pt", tmp_path / "reference.pt")
    assert all(map(torch.equal, saved.of_pairs, again.of_pairs)) and not (tmp_path / "other.pt").exists()
    swapped = [replace(pairs[0], rollouts=pairs[0].rollouts[::-1]), *pairs[1:]]
    with pytest.raises(UserError, match="is of other pairs than these"):
        reference_logprobs(tied_policy, swapped, tmp_path / "other.pt", tmp_path / "reference.pt")
    (tmp_path / "text.pt").write_text("no")
    for name in ("text.pt", "nowhere.pt"):
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            reference_logprobs(tied_policy, pairs, tmp_path / "other.pt", tmp_path / name)


def test_a_file_of_another_model_is_refused(tied_policy, pairs, tmp_path):
    other = make_policy(make_model(tmp_path / "model", tied=True, seed=1))
    reference_logprobs(other, pairs, tmp_path / "reference.pt", None)
    with pytest.raises(UserError, match="was computed by another model"):
        reference_logprobs(tied_policy, pairs, tmp_path / "other.pt", tmp_path / "reference.pt")


def test_the_fingerprint_is_of_ids(pairs):
    assert fingerprint(pairs) == fingerprint(list(pairs)) != fingerprint(pairs[:2])
