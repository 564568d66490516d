"""The weight files of a model: find them, download them, check that they are complete, read them tensor by tensor.

`weight_files` and `read_tensors` are for folders, `fetch` (with hub.py) is for the hub, `model_folder` for saving.

Notes:

* An interrupted download is resumed by the same command, within a file too. (huggingface_hub restarts a file, of up to
  10 GB.) Disk and memory are checked before the download (checkpoints/memory.py), with the sizes from the hub or, where
  it cannot be reached, from the catalog.
* A file is checked before it is read; the error names a shard that is missing, truncated or of another format. Files in
  the hub's cache are named by their SHA-256; `corrupted_files` compares it with the content (`blip2-lab doctor`).
* Saving over an older model leaves nothing of it: a `stage1` or a shard that stayed would be loaded as a part of the
  new model. Files that no model has, such as a README, stay.
* Pickles are read only with `weights_only=True`, so a `.pth` file cannot execute code.

Notebook: 07.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import torch
from torch import Tensor

from blip2_lab.checkpoints.hub import (
    SAFETENSORS,
    WANTED,
    WANTED_PICKLED,
    first_line,
    not_fetched,
    why_unreachable,
)
from blip2_lab.checkpoints.local import PICKLES
from blip2_lab.common.files import flush, make_readable, read_object

SINGLE_FILE = "model.safetensors"  #: read alone, also where other safetensors files are beside it
LFS_POINTER = b"version https://git-lfs"  #: how such a file begins
RESUMABLE_BYTES = 100_000_000  #: downloads of larger files can be resumed


def weight_files(folder: Path) -> list[Path]:
    """The files with a folder's tensors: safetensors, or else pickles. Raises ValueError when one is missing."""
    index = sorted(folder.glob("*.index.json"))
    safe = [path for path in index if ".safetensors" in path.name] or index
    if safe and (names := _files_in_index(safe[0])):
        files = [folder / name for name in names]
        if absent := [path.name for path in files if not path.is_file()]:
            raise ValueError(f"{folder} is not complete: {', '.join(absent)} missing. Fetch the same model again.")
        return files
    for pattern in (SINGLE_FILE, SAFETENSORS, *PICKLES):
        if files := sorted(folder.glob(pattern)):
            return files
    raise ValueError(f"{folder} holds no weights: there is no {SAFETENSORS} file in it.")


def _files_in_index(index: Path) -> list[str]:
    listed = read_object(index, remedy="fetch the same model again").get("weight_map")
    names = list(listed.values()) if isinstance(listed, dict) else [None]
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ValueError(f"{index} is damaged: it lists no files of its folder. Fetch the same model again.")
    return sorted(set(names))


def check_complete(files: Sequence[Path]) -> None:
    """Raises ValueError for a file that is truncated or of another format. Reads a few kilobytes of each."""
    for path in files:
        if path.suffix != ".safetensors":
            if not zipfile.is_zipfile(path):  # the directory of a zip is at its end, so a truncated file has none
                raise ValueError(why_unreadable(path, "is cut off, or is no PyTorch file"))
            continue
        expected = _expected_size(path)
        if expected != path.stat().st_size:
            size = f"{path.stat().st_size:,} bytes instead of {expected:,}"
            raise ValueError(f"{path} is cut off or damaged: {size}. Delete it and fetch the same model again.")


def _expected_size(path: Path) -> int:
    """The file size according to a safetensors header: 8 bytes for its length, the header, the tensors."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length < 100_000_000 else b""
    try:
        tensors = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise ValueError(why_unreadable(path, "is damaged: it has no safetensors header")) from None
    return 8 + length + max(ends, default=0)


def why_unreadable(path: Path, why: str) -> str:
    """The sentence about a file of a model that cannot be read. A clone without Git LFS has pointers."""
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            return f"{path} is a pointer of Git LFS, not the file itself: run `git lfs pull` in its folder."
    return f"{path} {why}. Fetch the same model again."


def corrupted_files(files: Sequence[Path]) -> list[str]:
    """The files of the hub's cache whose SHA-256 is not their name. Reads all bytes: seconds for a gigabyte."""
    wrong = []
    for path in files:
        if re.fullmatch("[0-9a-f]{64}", path.resolve().name):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != path.resolve().name:
                wrong.append(path.name)
    return wrong


def read_tensors(files: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every tensor, one at a time. The tensors are views of the files: copy those that you keep."""
    for path in files:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  it is not a dictionary
                    yield name, file.get_tensor(name)
        else:
            yield from read_pickle(path).items()


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth` or `.bin` file, or those under its key "model". Memory-mapped; executes no code."""
    import pickle

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].partition(". ")[0][:150]
        raise ValueError(
            f"{path} cannot be read as plain weights ({reason}). It is damaged, or holds more than tensors: fetch it "
            "again from a source you trust. Code in it is not run."
        ) from None
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{path} holds no state dict: names and tensors, alone or under the key 'model'.")
    return state


# --- Saving ---------------------------------------------------------------------------------------------------------

#: The files of a saved model: transformers', and those that other commands of the lab put beside it about its weights.
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*processor_config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model.bin.index.json",
    "tokenizer*.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "chat_template.*",
    "drawn_world.safetensors",
    "doctor.safetensors",
    "training.json",
    "grounding.json",
    "calibration.json",
)
STAGE1 = "stage1"  #: the sub-folder of a model's stage 1
QFORMER_TOKENIZER = "qformer_tokenizer"  #: the sub-folder of the tokenizer of a Q-Former that reads questions


@contextmanager
def model_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to save a model in; at the end, its files replace those of an older model in `folder`.

    The old config.json is removed first and the new one comes last, so a folder whose replacement was interrupted is no
    model. An error inside leaves the older model as it was. Raises OSError where it cannot be written.
    """
    from safetensors import SafetensorError

    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / ".saving"
    shutil.rmtree(fresh, ignore_errors=True)  # of an interrupted save
    fresh.mkdir()
    try:
        yield fresh
        saved = [path for path in fresh.rglob("*") if path.is_file()]
        make_readable(*saved)
        for path in saved:
            flush(path)
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if isinstance(error, SafetensorError):  # a full disk
            raise OSError(f"the model cannot be written to {folder} ({error}); what was there is unchanged") from None
        raise
    (folder / "config.json").unlink(missing_ok=True)
    for old in [path for pattern in MODEL_FILES for path in folder.glob(pattern)]:
        old.unlink(missing_ok=True)
    if (folder / STAGE1 / "config.json").is_file():
        shutil.rmtree(folder / STAGE1)
    shutil.rmtree(folder / QFORMER_TOKENIZER, ignore_errors=True)
    for path in sorted(fresh.iterdir(), key=lambda path: path.name == "config.json"):
        os.replace(path, folder / path.name)
    fresh.rmdir()
    flush(folder)


# --- The hub --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hub:
    """The endpoint and the cache folder of the hub; the defaults follow HF_ENDPOINT and HF_HOME."""

    endpoint: str | None = None
    cache: Path | None = None

    def snapshot(self, name: str, patterns: Sequence[str] = WANTED, **options):
        """huggingface_hub's download of the wanted files; `dry_run` and `local_files_only` are its options."""
        from huggingface_hub import snapshot_download

        where = dict(cache_dir=self.cache, endpoint=self.endpoint)
        return snapshot_download(name, allow_patterns=list(patterns), **where, **options)

    def listing(self, name: str) -> tuple[list, Sequence[str]]:
        """The files of a download and their patterns: pickles only where there are no safetensors."""
        for patterns in (WANTED, WANTED_PICKLED):
            files = self.snapshot(name, patterns, dry_run=True)
            if any(fnmatch(file.filename, patterns[-1]) for file in files):
                break
        return files, patterns

    @property
    def folder(self) -> Path:
        from huggingface_hub import constants

        return Path(self.cache or constants.HF_HUB_CACHE)


def cached_folder(name: str, hub: Hub = Hub()) -> Path | None:  # noqa: B008  Hub is frozen
    """The folder of an earlier, complete download, or None."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(hub.snapshot(name, local_files_only=True))
        check_complete(weight_files(folder))
    except (LocalEntryNotFoundError, ValueError):
        return None
    return folder if (folder / "config.json").is_file() else None


def bytes_to_fetch(name: str, hub: Hub = Hub()) -> int | None:  # noqa: B008
    """Bytes of a download, without the files that are in the cache; None when the hub cannot be reached."""
    if why_unreachable(hub.endpoint) is not None:
        return None
    try:
        files, _ = hub.listing(name)
    except (OSError, ValueError, *network_errors()):
        return None
    return sum(file.file_size for file in files if file.will_download)


def fetch(name: str, hub: Hub = Hub()) -> Path:  # noqa: B008
    """Download a model from the hub, or resume a download, and check that it is complete. Raises ValueError."""
    if (reason := why_unreachable(hub.endpoint)) is not None:
        raise ValueError(not_fetched(name, reason))
    try:
        files, patterns = hub.listing(name)
        for file in files:
            if file.will_download and file.file_size > RESUMABLE_BYTES:
                _fetch_large(name, file.filename, file.commit_hash, hub)
        folder = Path(hub.snapshot(name, patterns))
    except (OSError, ValueError, *network_errors()) as error:  # no network, no such name, no permission, or cut off
        raise ValueError(not_fetched(name, _why_not_fetched(error))) from None
    if wrong := corrupted_files(weight_files(folder)):
        raise ValueError(f"{', '.join(wrong)} of {name} differ from what the hub has: delete them and fetch again.")
    return folder


def _why_not_fetched(error: Exception) -> str:
    """In one line. When the network goes away huggingface_hub (2.4) mentions a dry run that was not asked for."""
    if type(error).__name__ == "DryRunError":
        error = error.__cause__ or ConnectionError("the hub cannot be reached")
    return first_line(error)


def _fetch_large(name: str, filename: str, commit: str, hub: Hub) -> None:
    """Download one file into the hub's cache, under its SHA-256, where `snapshot_download` finds it. An incomplete
    file is kept as `.part` and resumed."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(name, filename, revision=commit, endpoint=hub.endpoint)
    file = get_hf_file_metadata(url)
    blob = hub.folder / repo_folder_name(repo_id=name, repo_type="model") / "blobs" / file.etag
    blob.parent.mkdir(parents=True, exist_ok=True)
    part = blob.with_name(f"{blob.name}.part")
    headers = (
        build_hf_headers() if file.location == url else {}
    )  # a URL on another host is signed: do not send the token there
    with part.open("ab") as stream:
        http_get(file.location, stream, resume_size=stream.tell(), headers=headers, expected_size=file.size)
    part.replace(blob)


def network_errors() -> tuple[type[Exception], ...]:
    """The exceptions of huggingface_hub and of its HTTP client when a connection fails."""
    from huggingface_hub.errors import HfHubHTTPError

    clients = (sys.modules.get(name) for name in ("httpx", "httpx2"))
    return (HfHubHTTPError, *(client.HTTPError for client in clients if client is not None))
