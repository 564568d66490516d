"""Files of a model: cut off, missing, altered, dangerous; downloads that fail, are resumed, or do not fit."""

import hashlib
import http.server
import json
import os
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import blip2_lab
from blip2_lab.chat import out_of_distribution
from blip2_lab.checkpoints import files as weights
from blip2_lab.checkpoints import load, memory
from blip2_lab.checkpoints.files import (
    check_complete,
    corrupted_files,
    model_folder,
    read_pickle,
    read_tensors,
    weight_files,
)
from blip2_lab.checkpoints.hub import download_command
from blip2_lab.doctor.model import REFERENCE
from blip2_lab.models.stage1 import Stage1Model
from tests.tiny import build_tiny_model


@pytest.fixture
def sharded(tmp_path):
    """Two shards and their index."""
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    for name, file in names.items():
        save_file({name: torch.arange(1000.0)}, tmp_path / file, metadata={"format": "pt"})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return tmp_path


def test_shards_are_read_one_tensor_at_a_time(sharded):
    files = weight_files(sharded)
    check_complete(files)
    assert {name: len(tensor) for name, tensor in read_tensors(files)} == {"a": 1000, "b": 1000}


def test_a_missing_shard_is_named(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="not complete: model-00002-of-00002.safetensors missing"):
        weight_files(sharded)


@pytest.mark.parametrize("keep", [0, 5, 60, 4000])
def test_a_truncated_shard_is_named(sharded, keep):
    file = sharded / "model-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="model-00001-of-00002.safetensors is (cut off|damaged)"):
        check_complete(weight_files(sharded))


def test_a_pointer_of_git_lfs_in_the_place_of_a_file_is_told(sharded, tmp_path):
    file = sharded / "model-00001-of-00002.safetensors"
    for pointer in (file, tmp_path / "pytorch_model.bin"):
        pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 5\n")
        with pytest.raises(ValueError, match=f"{pointer.name} is a pointer of Git LFS, .*: run `git lfs pull`"):
            check_complete([pointer])


def test_an_altered_header_and_a_damaged_index_are_named(sharded):
    file = sharded / "model-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:8] + b"garbage" + file.read_bytes()[15:])
    with pytest.raises(ValueError, match="00001.*is damaged"):
        check_complete(weight_files(sharded))
    for wrong in ("{}", "{", "[]", '{"weight_map": {"a": 5}}', '{"weight_map": {"a": "../x.safetensors"}}'):
        (sharded / "model.safetensors.index.json").write_text(wrong)
        with pytest.raises(ValueError, match=r"index.json is damaged"):
            weight_files(sharded)


def test_one_changed_bit_in_the_cache_is_found(sharded):
    """In the hub's cache a file is a link to one that is named by its own SHA-256."""
    file = sharded / "model-00001-of-00002.safetensors"
    blob = sharded / hashlib.sha256(file.read_bytes()).hexdigest()
    file.rename(blob)
    file.symlink_to(blob)
    assert corrupted_files(weight_files(sharded)) == []
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    check_complete(weight_files(sharded))  # its size is right
    assert corrupted_files(weight_files(sharded)) == [file.name]


def test_other_safetensors_beside_the_model_are_not_read(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    save_file({"z": torch.zeros(1)}, tmp_path / "another.safetensors")
    assert [file.name for file in weight_files(tmp_path)] == ["model.safetensors"]
    with pytest.raises(ValueError, match="holds no weights"):
        weight_files(tmp_path / "..")


class Bomb:
    def __reduce__(self):
        return (Path("/nonexistent/blip2_lab_was_here").touch, ())


def test_a_pickle_executes_no_code(tmp_path):
    torch.save({"model": Bomb()}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="bad.pth cannot be read as plain weights.*is not run"):
        read_pickle(tmp_path / "bad.pth")


def test_a_pickle_is_a_state_dict_alone_or_under_model(tmp_path):
    for content in ({"a": torch.ones(2)}, {"model": {"a": torch.ones(2)}, "epoch": 3}):
        torch.save(content, tmp_path / "x.pth")
        assert read_pickle(tmp_path / "x.pth")["a"].tolist() == [1, 1]
    torch.save([1, 2], tmp_path / "x.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        read_pickle(tmp_path / "x.pth")
    (tmp_path / "x.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:-30])
    with pytest.raises(ValueError, match="x.pth is cut off"):
        check_complete([tmp_path / "x.pth"])


# --- the hub --------------------------------------------------------------------------------------------------------


class FakeHub(http.server.BaseHTTPRequestHandler):
    """One repository; the connection breaks in the middle of the weights until `whole` is set."""

    files: dict[str, bytes] = {}
    whole = False
    asked_from: list[int] = []

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body: bool):
        path = self.path.split("?")[0]
        if "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.files.items()
            ]
            return self._send(200, json.dumps(tree).encode() if body else b"", {})
        if path.startswith("/api/"):
            siblings = [{"rfilename": name, "size": len(content)} for name, content in self.files.items()]
            text = json.dumps(
                {"id": "owner/model", "sha": "0" * 40, "siblings": siblings, "private": False, "tags": []}
            )
            return self._send(200, text.encode() if body else b"", {})
        content = self.files.get(path.rsplit("/", 1)[1])
        if content is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": "0" * 40}
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        if not body:
            return self._send(200, b"", headers, length=len(content))
        if path.endswith(".safetensors"):
            self.asked_from.append(start)
        part = content[start:]
        if path.endswith(".safetensors") and not self.whole:
            self._send(206 if start else 200, part[: len(part) // 2], headers, length=len(part))
            self.close_connection = True
            return None
        return self._send(206 if start else 200, part, headers)

    def _send(self, status: int, content: bytes, headers: dict, length: int | None = None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    save_file({"a": torch.randn(7_500_000)}, tmp_path / "w.safetensors", metadata={"format": "pt"})
    FakeHub.files = {"config.json": b"{}", "model.safetensors": (tmp_path / "w.safetensors").read_bytes()}
    FakeHub.whole, FakeHub.asked_from = False, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(weights, "RESUMABLE_BYTES", 1_000_000)
    monkeypatch.setattr("time.sleep", lambda _: None)  # it waits between attempts
    yield weights.Hub(f"http://127.0.0.1:{server.server_port}", tmp_path / "cache")
    server.shutdown()


def test_an_interrupted_download_is_resumed(hub):
    assert weights.bytes_to_fetch("owner/model", hub) == sum(map(len, FakeHub.files.values()))
    with pytest.raises(ValueError, match="goes on where it stopped") as caught:
        weights.fetch("owner/model", hub)
    assert "\n" not in str(caught.value) and "hf download owner/model" in str(caught.value)
    assert weights.cached_folder("owner/model", hub) is None, "half a model is none"
    already = max(FakeHub.asked_from)
    assert already > 0, "it went on by itself as far as it could"
    FakeHub.whole, FakeHub.asked_from = True, []
    folder = weights.fetch("owner/model", hub)
    assert (folder / "model.safetensors").read_bytes() == FakeHub.files["model.safetensors"]
    assert min(FakeHub.asked_from) >= already, "what was there was not asked for again"
    assert weights.cached_folder("owner/model", hub) == folder and weights.bytes_to_fetch("owner/model", hub) == 0


def test_pickles_are_fetched_where_there_are_no_safetensors(hub, tmp_path):
    """As in the repositories of Meta's OPT, which LAVIS's checkpoints need."""
    torch.save({"a": torch.ones(3)}, tmp_path / "p.bin")
    pickle = (tmp_path / "p.bin").read_bytes()
    FakeHub.files = {"config.json": b"{}", "pytorch_model.bin": pickle, "tf_model.h5": b"no"}
    assert weights.bytes_to_fetch("owner/model", hub) == 2 + len(pickle)
    folder = weights.fetch("owner/model", hub)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "pytorch_model.bin"]
    assert dict(read_tensors(weight_files(folder)))["a"].tolist() == [1, 1, 1]
    assert "'pytorch_model*.bin'" in download_command("facebook/opt-2.7b")
    assert ".bin" not in download_command("Salesforce/blip2-opt-2.7b")


def test_without_network_one_sentence_has_the_command(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError) as caught:
        load.find_model("owner/nothing")
    message = str(caught.value)
    assert "\n" not in message and "owner/nothing is not a folder here and could not be fetched" in message
    assert "`hf download owner/nothing --include '*.json'" in message
    assert "HF_HUB_OFFLINE is set" in message and "DryRun" not in message


def test_a_hub_that_cannot_be_reached_is_no_dry_run():
    class DryRunError(OSError):
        pass

    error = DryRunError("Dry run cannot be performed")
    assert weights._why_not_fetched(error) == "ConnectionError: the hub cannot be reached"
    error.__cause__ = TimeoutError("no answer.\nsecond line")
    assert weights._why_not_fetched(error) == "TimeoutError: no answer"


def test_disk_and_memory_are_checked_before_a_download(monkeypatch):
    monkeypatch.setattr(weights, "fetch", lambda name: pytest.fail("fetched"))
    monkeypatch.setattr(weights, "cached_folder", lambda name: None)
    monkeypatch.setattr(weights, "bytes_to_fetch", lambda name: None)
    monkeypatch.setattr(memory, "free_memory", lambda device: 3 * memory.GIB)
    with pytest.raises(ValueError, match="needs 7.5 GiB for its weights"):
        load.find_model("Salesforce/blip2-opt-6.7b", quantize="int8")
    monkeypatch.setattr(memory, "free_memory", lambda device: 64 * memory.GIB)
    monkeypatch.setattr(memory, "free_disk", lambda folder: 10**9)
    with pytest.raises(ValueError, match="31.0 GB to fetch"):
        load.find_model("Salesforce/blip2-opt-6.7b", quantize="int8")


# --- Saving ---------------------------------------------------------------------------------------------------------


def test_a_saved_model_has_no_rest_of_an_older_one(tmp_path):
    older, newer, folder = build_tiny_model("t5"), build_tiny_model("t5"), tmp_path / "model"
    newer.attach_stage1(None)
    blip2_lab.save(older, folder)
    for name in (out_of_distribution.FILE, REFERENCE, "model-00001-of-00002.safetensors", "pytorch_model.bin"):
        (folder / name).write_bytes(b"of the older one")
    (folder / "README.md").write_text("mine")
    assert blip2_lab.load(folder).stage1 is not None
    blip2_lab.save(newer, folder)
    assert not (folder / "stage1").exists() and blip2_lab.load(folder).stage1 is None
    left = {path.name for path in folder.iterdir()}
    blip2_lab.save(newer, tmp_path / "alone")
    assert left - {path.name for path in (tmp_path / "alone").iterdir()} == {"README.md"}
    older.stage1.attach_image_encoder(None)
    blip2_lab.save(older.stage1, folder)  # a model of another kind
    assert "processor_config.json" in left and not (folder / "processor_config.json").exists()
    assert isinstance(blip2_lab.load(folder), Stage1Model)


def test_an_error_while_saving_leaves_the_older_model(tmp_path):
    with model_folder(tmp_path / "model") as fresh:
        (fresh / "config.json").write_text("old")
    with pytest.raises(RuntimeError), model_folder(tmp_path / "model") as fresh:
        (fresh / "config.json").write_text("new")
        raise RuntimeError("the disk is full")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["config.json"]
    assert (tmp_path / "model" / "config.json").read_text() == "old"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_saved_files_have_the_mode_of_other_new_files(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        blip2_lab.save(build_tiny_model("t5"), tmp_path / "model")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "model").rglob("*") if path.is_file()} == {mode}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], "adapter .LoRA.*merge_and_unload"),
        (["model.safetensors"], "not a BLIP-2 of LAVIS.* copy its config.json"),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], "has weights, but no config.json"),
        (["tokenizer.json"], "holds a tokenizer, not a model"),
        (["checkpoints/step-1/model.safetensors"], "has not finished"),
        (["notes.md"], "has no config.json"),
    ],
)
def test_a_folder_that_is_no_model_says_what_it_is(tmp_path, files, says):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".safetensors"):
            save_file({"weight": torch.zeros(2)}, tmp_path / name)
        else:
            (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=says):
        blip2_lab.load(tmp_path)


def test_damaged_config_and_tokenizer_are_named(tmp_path):
    blip2_lab.save(build_tiny_model("t5"), tmp_path)
    whole = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="the tokenizer in .* cannot be read"):
        blip2_lab.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text(whole)
    config = json.loads((tmp_path / "config.json").read_text())
    vision = config["vision_config"]
    for wrong in ({"vision_config": "none"}, {"vision_config": vision | {"patch_size": 0}}, {"num_query_tokens": -1}):
        (tmp_path / "config.json").write_text(json.dumps(config | wrong))
        with pytest.raises(ValueError, match="config.json does not describe a BLIP-2"):
            blip2_lab.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="has no tokenizer: .*Copy the tokenizer's files"):
        blip2_lab.load(tmp_path).generate(Image.new("RGB", (8, 8)), "a")
