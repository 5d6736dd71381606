"""A saved model in another precision: `--save-dtype bfloat16` halves what float32 weights take on disk.

Only the model at the end is saved so. A checkpoint holds the weights as they are, because a resumed run needs them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from grpo.files import read_json, write_json

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""`--save-dtype`, by the names of settings.SAVE_DTYPES -> that of the weights in the folder."""


def recast(folder: Path, name: str) -> None:
    """Round the weights of a Hugging Face folder to the nearest, a file at a time, and say so in its config.json."""
    for path in sorted(folder.glob("*.safetensors")):
        tensors = {
            key: tensor.to(DTYPES[name]) if tensor.is_floating_point() else tensor
            for key, tensor in load_file(path).items()
        }
        save_file(tensors, path, metadata={"format": "pt"})
    for index in folder.glob("*.safetensors.index.json"):
        content = read_json(index, "")
        sizes = [tensor.nbytes for path in folder.glob("*.safetensors") for tensor in load_file(path).values()]
        content["metadata"]["total_size"] = sum(sizes)
        write_json(index, content)
    config = read_json(folder / "config.json", "")
    write_json(folder / "config.json", config | {"dtype": name})
