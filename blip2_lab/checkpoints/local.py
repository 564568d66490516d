"""Whether a file or a folder holds a model, as far as the names in it tell, found out before torch is imported.

`check_holds_model` is where to begin.

Notebook: 07.
"""

from __future__ import annotations

from pathlib import Path

from blip2_lab.checkpoints.catalog import EVA_FILE
from blip2_lab.checkpoints.hub import SAFETENSORS
from blip2_lab.checkpoints.names import model_path

PICKLES = ("pytorch_model*.bin", "*.pth")
CHECKPOINTS = (".pth", ".pt", ".bin", ".safetensors")  #: endings of one file with a whole model


def check_holds_model(name_or_path: str | Path) -> None:
    """Raises ValueError, in one sentence, for a file or a folder that is no model; a name of the hub passes."""
    path = model_path(name_or_path)
    if path.is_file():
        check_is_checkpoint(path)
    elif path.is_dir() and not (path / "config.json").is_file() and not is_lavis_folder(path):
        raise ValueError(why_no_model(path))


def check_is_checkpoint(file: Path) -> None:
    """Raises ValueError for a file whose name is not one of a checkpoint, and for one of the files of a model's
    folder."""
    if file.suffix != ".pth" and (file.parent / "config.json").is_file():
        raise ValueError(f"{file} is one of the files of a model: give its folder, {file.parent}.")
    if file.suffix not in CHECKPOINTS:
        raise ValueError(f"{file} is not a checkpoint: its name should end in .pth or .safetensors.")


def is_lavis_folder(folder: Path) -> bool:
    """Whether a folder has exactly one LAVIS checkpoint, not counting the image encoder's file."""
    return folder.is_dir() and not (folder / "config.json").is_file() and len(lavis_checkpoints(folder)) == 1


def lavis_checkpoints(folder: Path) -> list[Path]:
    """The files in a folder that may be LAVIS checkpoints of a BLIP-2."""
    if (folder / "adapter_config.json").is_file():  # peft's: the adapter is no whole model
        return []
    files = [*folder.glob("*.pth"), *folder.glob("*.safetensors")]
    return [path for path in files if path.stem != Path(EVA_FILE).stem]


def why_no_model(folder: Path) -> str:
    """What a folder without config.json holds instead of a model, and what to do, in one sentence."""
    if (folder / "adapter_config.json").is_file():
        return (
            f"{folder} holds an adapter (LoRA), not a model: merge it into the model that it was trained on "
            "(peft: `merge_and_unload`), save that model, and give its folder."
        )
    if (folder / "checkpoints").is_dir():
        return (
            f"{folder} is the folder of a run that has not finished: `blip2-lab train` with the same options goes on."
        )
    if any(path for pattern in (SAFETENSORS, *PICKLES) for path in folder.glob(pattern)):
        return (
            f"{folder} has weights, but no config.json, so the model's shape is not known: copy config.json (and the "
            "tokenizer's files) of the same model into it."
        )
    if (folder / "tokenizer.json").is_file() or (folder / "tokenizer_config.json").is_file():
        return f"{folder} holds a tokenizer, not a model: give the folder that has config.json and the weights, too."
    return f"{folder} holds no model: it has no config.json. Give a folder in transformers' layout."
