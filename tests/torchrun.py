"""Programs of several ranks, as torchrun starts them: on the CPU, one thread each."""

import os
import subprocess
import sys

from conftest import ROOT


def environment(**variables):
    """Of a rank; those that another torchrun has set are not handed on."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TORCHELASTIC", "RANK"))}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "model")])
    own = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return inherited | own | variables


def command(ranks, *program, **options):
    """torchrun on this machine; options: its own, such as shutdown_timeout=5."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    where = [] if "nnodes" in options else ["--standalone"]
    return [sys.executable, "-m", "torch.distributed.run", *where, f"--nproc-per-node={ranks}", *given, *program]


def torchrun(ranks, *program, cwd=None, status=0, **options):
    """Run it to its end; returns what it has printed, both streams. The status must be `status`."""
    asked = command(ranks, *map(str, program), **options)
    done = subprocess.run(asked, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=600)
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    return said
