"""Commands in a process where the large libraries cannot be imported: [[module, flags], ...] on stdin, JSON on stdout.

    python tests/without_libraries.py fcntl SIGHUP      and these modules and signals of Unix are not there either

Each command runs as `python -m MODULE FLAGS` in a fork of this process; its answer is [exit status, what it printed].
An import of one of LARGE fails, with its name in the traceback that the command then ends with.
"""

import importlib
import importlib.abc
import json
import os
import runpy
import signal
import sys
import tempfile

LARGE = ("torch", "transformers", "vllm", "datasets", "scipy", "sympy", "wandb", "matplotlib", "peft", "tokenizers")

READ_FIRST = (
    "grpo.asked",
    "grpo.compare_flags",
    "grpo.doctor_flags",
    "grpo.dpo_flags",
    "grpo.reward_model_flags",
    "grpo.evaluation.asked",
    "grpo.explain_flags",
    "grpo.replay_flags",
    "grpo.verifiers.check",
)
"""What the commands import before their guards, once for all forks."""


class Refused(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in LARGE:
            raise ImportError(f"{name} was imported too early")


def answer(module, flags):
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if not child:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            sys.argv = [module, *flags]
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
                status = 0
            except SystemExit as stop:
                status = stop.code or 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
                status = 1
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        _, ended = os.waitpid(child, 0)
        output.seek(0)
        return os.waitstatus_to_exitcode(ended), output.read()


def take_away(name):
    """Make this a system that lacks a module or a signal, as Windows does."""
    if name.startswith("SIG"):
        delattr(signal, name)
    else:
        sys.modules[name] = None


if __name__ == "__main__":
    import asyncio  # noqa: F401  on Unix it needs fcntl itself, and on Windows it does not

    for name in sys.argv[1:]:
        take_away(name)
    sys.meta_path.insert(0, Refused())
    for name in READ_FIRST:
        importlib.import_module(name)
    cases = json.load(sys.stdin)
    json.dump([answer(*case) for case in cases], sys.stdout)
