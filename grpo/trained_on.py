"""What a run trains on, as fingerprints in its config.json: `--resume` refuses problems that have changed since.

    "trained_on": {"problems": "9f86d081...", "documents": "60303ae2...", "template": "fd61a03a..."}

Problems count as their prompts and the columns that the verifiers read, without the template: some chat templates write
the date. A template of one's own file has a fingerprint of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grpo.config import Config
from grpo.errors import UserError
from grpo.pretraining import Pretraining
from grpo.problems.fingerprint import fingerprint, seen
from grpo.problems.templates import is_file, text_of
from grpo.records import Problem
from grpo.verifiers.verify import columns_read


def trained_on(config: Config, problems: Sequence[Problem], documents: Pretraining | None) -> dict[str, str]:
    """What is trained on -> its fingerprint, for config.json."""
    columns = columns_read(config.verifiers)
    found = {"problems": fingerprint(seen(problem, columns) for problem in problems)}
    if documents is not None:
        found["documents"] = documents.content
    if is_file(config.template):
        found["template"] = fingerprint([text_of(config.template)])
    return found


def check_unchanged(config: Config, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """before: of the run that is resumed; a run of an earlier version has none of it. Raises: UserError."""
    changed = [name for name, was in before.items() if name in now and now[name] != was]
    if changed:
        named = {"problems": _problems(config), "documents": f"--ptx-data {config.ptx_data}"}
        named["template"] = f"--template {config.template}"
        listed = " and ".join(named[name] for name in changed)
        raise UserError(
            f"--resume: what the run {config.name} is trained on has changed since it began: {listed}. Its steps would "
            "no longer be those of one run. Bring the content back as it was, in the same order, or begin a new run "
            f"from its weights: --model {config.run_folder}/model or one of its checkpoints, under another --name."
        )


def _problems(config: Config) -> str:
    """The flags that decide on them."""
    found = f"--data {config.data}"
    if config.data_dir is not None:
        found += f" in --data-dir {config.data_dir}"
    if config.pass_rates is not None:
        found += f", of which --pass-rates {config.pass_rates} keeps some"
    return f"{found} (its prompts, or columns that the verifiers read)"
