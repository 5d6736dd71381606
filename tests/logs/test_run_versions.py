"""What a run was made by is found, where it can be."""

from grpo.logs.run_versions import commit, versions


def test_versions_and_commit():
    assert {"python", "torch", "transformers", "math-verify"} <= set(versions())
    found = commit()
    assert found is None or len(found.removesuffix("+changes")) == 40
