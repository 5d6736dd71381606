"""`--push-to-hub`: the model of a finished run to the hub, only where it is asked for, and private.

The run is done and on the disk before anything is sent, so an upload that fails loses nothing.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from grpo.errors import RunError, UserError

NAME = re.compile(r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")


def check_push(name: str | None) -> None:
    """Before a run begins. Raises: UserError for what is no name of the hub, and where no token is at hand."""
    if name is None:
        return
    if not NAME.fullmatch(name):
        raise UserError(f"--push-to-hub {name} is no name on the hub. Give one such as OWNER/my-model.")
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise UserError("--push-to-hub with HF_HUB_OFFLINE set: nothing could be sent. Unset one of them.")
    if not get_token():
        raise UserError(
            "--push-to-hub needs a token that may write to the hub, and there is none. Run `hf auth login`, set "
            "HF_TOKEN, or leave the flag out."
        )


def push(folder: Path, name: str) -> str:
    """Upload a model folder to a private repository, which is made if need be; returns its address.

    Raises: RunError, with the folder as it was: the hub refuses or is not reached, or the repository is public, where
    the model would be published.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        name = api.create_repo(name, private=True, exist_ok=True).repo_id
        if api.model_info(name).private is not True:
            raise RunError("the repository exists already and is public, where everyone could read it")
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Trained by grpo")
    except Exception as error:  # of the hub, of the network, of the disk: the model is there all the same
        said = " ".join(str(error).split())[:300]
        raise RunError(
            f"--push-to-hub {name}: the model was not pushed ({type(error).__name__}: {said}). It is whole in "
            f"{folder}. Send it later: {shlex.join(['hf', 'upload', '--private', name, str(folder)])}"
        ) from error
    return f"{api.endpoint}/{name}"
