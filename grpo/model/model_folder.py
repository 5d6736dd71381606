"""A folder with a model of transformers: which files have to be there. Nothing of it is loaded."""

from __future__ import annotations

from pathlib import Path

from grpo.errors import UserError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def check_model_files(source: str) -> None:
    """All that `--model` can be refused for by its files. Raises: UserError."""
    check_tokenizer_files(source)
    check_weight_files(source)


def check_tokenizer_files(source: str) -> None:
    """Raises: UserError for a local folder without a tokenizer, or one that is no model's."""
    folder = model_folder(source)
    if folder is not None and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise UserError(
            f"The model folder {folder} has no tokenizer: none of {', '.join(TOKENIZER_FILES)} is there. "
            "Save the tokenizer beside the model: tokenizer.save_pretrained(folder)."
        )


def check_weight_files(source: str) -> None:
    """Raises: UserError for a local folder without safetensors, or one that is no model's."""
    folder = model_folder(source)
    if folder is not None and not list(folder.glob("*.safetensors")):
        raise UserError(
            f"The model folder {folder} holds no .safetensors file. Pickled weights (.bin, .pt) are not read, because "
            "they can run code: convert with model.save_pretrained(folder)."
        )


def model_folder(source: str) -> Path | None:
    """The local folder that `source` means, None for a hub name. Raises: UserError where a path leads nowhere."""
    path = Path(source).expanduser()
    if path.is_dir():
        check_whole(path)
        if not (path / "config.json").is_file():
            raise UserError(f"{path} is not a model folder: it has no config.json.")
        return path
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise UserError(f"There is no model folder {path}. Give an existing folder, or a hub name such as org/name.")
    return None


def check_whole(path: Path) -> None:
    """Raises: UserError for the folder of an adapter, and for that of a run, which has its model in it."""
    if (path / "metrics.jsonl").is_file():
        inside = [str(folder) for folder in sorted([path / "model", *path.glob("checkpoint-*")]) if folder.is_dir()]
        raise UserError(
            f"{path} is the folder of a run, and no model. "
            + (f"Its models are: {', '.join(inside)}. Give one of them." if inside else "It has not saved a model yet.")
        )
    if (path / "adapter_config.json").is_file():
        raise UserError(
            f"{path} is a LoRA adapter and not a whole model. Give the merged model: a run with --lora-rank saves it "
            "at its end, as runs/NAME/model. peft merges any adapter: AutoPeftModelForCausalLM.from_pretrained(folder)"
            ".merge_and_unload().save_pretrained(other); copy the tokenizer's files there, too."
        )
