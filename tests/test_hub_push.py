"""--push-to-hub: huggingface_hub's own client against a hub on this machine, and an upload that fails."""

import pytest
from hub_server import HubServer
from small_runs import HF, SMALL, run

from grpo import hub_push
from grpo.errors import RunError, UserError
from grpo.hub_push import check_push, push
from grpo.train import main

END = [*HF, "--steps", "1", "--eval-problems", "0"]


@pytest.fixture
def served(monkeypatch):
    """Start a hub that the client talks to, with a token of nobody's."""
    import huggingface_hub
    from huggingface_hub import constants

    started = []

    def serve(**how):
        hub = HubServer(**how).__enter__()
        started.append(hub)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        real = huggingface_hub.HfApi
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: real(endpoint=hub.url))
        return hub

    yield serve
    for hub in started:
        hub.__exit__()


def test_the_model_of_a_run_arrives_as_it_was_saved(tmp_path, monkeypatch, served, capsys):
    monkeypatch.chdir(tmp_path)
    hub = served()
    folder = run(tmp_path, *END, "--push-to-hub", "me/m") / "model"
    assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "model.safetensors" in hub.files
    assert hub.created[0]["visibility"] == "private" and hub.tokens == {"Bearer hf_of_a_test"}
    assert f"pushed   {hub.url}/me/m" in capsys.readouterr().out


def test_a_failed_upload_loses_nothing_and_is_the_exit_status(tmp_path, monkeypatch, served, capsys):
    monkeypatch.chdir(tmp_path)
    hub = served(commit_status=403)
    assert main([*SMALL, *END, "--name", "run", "--push-to-hub", "me/m"]) == 1
    said = capsys.readouterr()
    assert "the model was not pushed (" in said.err and "hf upload --private me/m runs/run/model" in said.err
    assert (tmp_path / "runs/run/model/model.safetensors").is_file() and not hub.files
    assert "hf_of_a_test" not in said.out + said.err + (tmp_path / "runs/run/config.json").read_text()


def test_a_public_repository_gets_nothing(tmp_path, served):
    hub = served(private=False)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RunError, match="exists already and is public"):
        push(tmp_path, "me/m")
    assert not hub.files


def test_what_is_refused_before_a_run(monkeypatch):
    import huggingface_hub
    from huggingface_hub import constants

    check_push(None)
    with pytest.raises(UserError, match="no name on the hub"):
        check_push("a/b/c")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="needs a token"):
        check_push("me/m")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        check_push("me/m")
    assert hub_push.NAME.fullmatch("my-model")
