"""The feature cache: computed once, complete, verified, and resumed after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from blip2_lab.data import feature_cache
from blip2_lab.data.feature_cache import cache_bytes, cached_features

ROOT = Path(__file__).parents[2]


class Encoder:
    """Mean color, twice: [B,2,3]. Counts the pictures it has seen."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        means = torch.tensor(np.array([np.asarray(image, dtype=np.float32).mean((0, 1)) for image in images]))
        return torch.stack([means, -means], dim=1)


def picture(index: int) -> Image.Image:
    return Image.new("RGB", (2, 2), (index, 2 * index, 0))


def quiet(_: str) -> None:
    pass


ROW = 2 * 3 * 2  #: bytes of one picture's features


def test_features_in_memory_and_on_disk_are_the_same(tmp_path):
    path = tmp_path / "caches" / "one"
    memory = cached_features(Encoder(), picture, 10, chunk=4, say=quiet)
    disk = cached_features(Encoder(), picture, 10, chunk=4, path=path, shard_bytes=4 * ROW, threads=3, say=quiet)
    assert len(memory) == len(disk) == 10
    assert memory[7].shape == (2, 3) and memory[7].dtype == disk[7].dtype == torch.bfloat16
    assert torch.equal(memory[range(10)], disk[range(10)])
    assert memory[7][0].tolist() == [7, 14, 0] and disk[[7, 2]][:, 1].tolist() == [[-7, -14, 0], [-2, -4, 0]]
    sizes = [file.stat().st_size for file in sorted(path.glob("*.bf16"))]
    assert sizes == [4 * ROW, 4 * ROW, 2 * ROW] and sum(sizes) == cache_bytes(10, 2, 3) == cache_bytes(5, 2, 3, views=2)
    second = Encoder()
    again = cached_features(second, picture, 10, path=path, shard_bytes=4 * ROW, say=quiet)
    assert second.seen == 1  # only the one that tells the shape
    assert torch.equal(again[range(10)], memory[range(10)])


def test_an_interrupted_cache_is_resumed(tmp_path):
    def torn(index):
        if index == 9:
            raise KeyboardInterrupt
        return picture(index)

    options = dict(chunk=2, path=tmp_path / "f", shard_bytes=6 * ROW, say=quiet)
    with pytest.raises(KeyboardInterrupt):
        cached_features(Encoder(), torn, 14, **options)
    again = Encoder()
    features = cached_features(again, picture, 14, **options)
    assert again.seen == 1 + 6  # 0 to 7 were done: the first shard, and one chunk of the second
    assert torch.equal(features[range(14)], cached_features(Encoder(), picture, 14, say=quiet)[range(14)])


SLOW = """
import sys, time
import torch
from PIL import Image
from blip2_lab.data.feature_cache import cached_features

def encode(images):
    time.sleep(0.05)
    return torch.tensor([[image.getpixel((0, 0))] for image in images], dtype=torch.float32)

cached_features(encode, lambda i: Image.new("RGB", (1, 1), (i, 0, 0)), 200, chunk=2, path=sys.argv[1], shard_bytes=120)
"""


def test_a_killed_cache_is_resumed_and_complete(tmp_path):
    path = tmp_path / "f"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(path)], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(path.glob("*.bf16"))) < 3 and time.monotonic() < deadline:  # in the middle of a shard or just after
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    state = json.loads((path / "cache.json").read_text())
    done = 20 * len(state["sha256"]) + sum(state["rows"].values())
    assert 40 <= done < 200
    seen = []

    def encode(images):
        seen.extend(images)
        return torch.tensor([[image.getpixel((0, 0))] for image in images], dtype=torch.float32)

    features = cached_features(
        encode, lambda i: Image.new("RGB", (1, 1), (i, 0, 0)), 200, chunk=2, path=path, shard_bytes=120, say=quiet
    )
    assert len(seen) == 1 + 200 - done
    assert features[range(200)][:, 0, 0].tolist() == list(range(200))


@pytest.mark.parametrize("damage", ["a bit", "cut", "gone"])
def test_a_damaged_shard_is_computed_again_alone(tmp_path, damage):
    options = dict(path=tmp_path / "f", shard_bytes=4 * ROW)
    whole = cached_features(Encoder(), picture, 10, say=quiet, **options)[range(10)].clone()
    shard = tmp_path / "f" / "00001.bf16"
    content = bytearray(shard.read_bytes())
    if damage == "a bit":
        content[5] ^= 1
        shard.write_bytes(content)
    elif damage == "cut":
        shard.write_bytes(content[:-1])
    else:
        shard.unlink()
    said, encoder = [], Encoder()
    features = cached_features(encoder, picture, 10, say=said.append, **options)
    assert encoder.seen == 1 + 4 and torch.equal(features[range(10)], whole)
    assert "00001.bf16 is damaged" in said[0]


def test_without_verification_the_shards_are_not_read(tmp_path):
    options = dict(path=tmp_path / "f", say=quiet)
    cached_features(Encoder(), picture, 4, **options)
    shard = tmp_path / "f" / "00000.bf16"
    shard.write_bytes(bytes(len(shard.read_bytes())))
    assert cached_features(Encoder(), picture, 4, verify=False, **options)[3].tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("change", [{"fingerprint": "another encoder"}, {"count": 7}])
def test_a_cache_with_another_fingerprint_or_shape_is_recomputed(tmp_path, change):
    arguments = {"count": 8, "fingerprint": "one"}
    options = dict(path=tmp_path / "f", say=quiet)
    cached_features(lambda images: 5 + Encoder()(images), picture, **arguments, **options)
    arguments |= change
    features = cached_features(Encoder(), picture, **arguments, **options)
    assert features[0][0].tolist() == [0, 0, 0] and len(features) == arguments["count"]


def test_two_processes_compute_a_cache_once(tmp_path):
    said, encoders = [], [Encoder(), Encoder()]
    options = dict(path=tmp_path / "f", chunk=2, say=said.append)

    def slow(index):
        time.sleep(0.01)
        return picture(index)

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda encoder: cached_features(encoder, slow, 20, **options), encoders))
    assert said == [f"computing the features of 20 pictures, once (0.2 kB in {tmp_path / 'f'})"]
    assert sorted(encoder.seen for encoder in encoders) == [1, 21]
    assert torch.equal(both[0][range(20)], both[1][range(20)])


FULL = """
import resource, sys
from PIL import Image
import torch
from blip2_lab.data.feature_cache import cached_features

resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))  # every file of this process: like a disk that is full
encode = lambda images: torch.zeros(len(images), 5, 60)
try:
    cached_features(encode, lambda i: Image.new("RGB", (1, 1)), 40, chunk=2, path=sys.argv[1], say=lambda _: None)
except ValueError as error:
    print(error)
"""


def test_a_disk_that_becomes_full_is_a_sentence_and_what_was_computed_is_kept(tmp_path):
    """A write to memory that is mapped from a file of holes ended the process with a bus error."""
    path = tmp_path / "f"
    command = [sys.executable, "-c", FULL, str(path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"the disk of {path} is full after the features of 6 of 40 pictures: make room")
    seen = []

    def encode(images):
        seen.extend(images)
        return torch.zeros(len(images), 5, 60)

    cached_features(encode, lambda i: Image.new("RGB", (1, 1)), 40, chunk=2, path=path, say=quiet)
    assert len(seen) == 1 + 34


def test_space_is_checked_before_anything_is_computed(tmp_path, monkeypatch):
    encoder = Encoder()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ValueError, match=r"for the features of 100 views: 1.2 kB in .*, and 1.0 kB are free on its d"):
        cached_features(encoder, picture, 100, path=tmp_path / "f", what="views", say=quiet)
    assert encoder.seen == 1  # it told the shape


def test_an_unfinished_file_of_an_older_version_is_resumed(tmp_path):
    """It was made as long as the whole shard before it was filled."""

    def torn(index):
        if index == 6:
            raise KeyboardInterrupt
        return picture(index)

    options = dict(chunk=2, path=tmp_path / "f", say=quiet)
    with pytest.raises(KeyboardInterrupt):
        cached_features(Encoder(), torn, 10, **options)
    with (tmp_path / "f" / "00000.bf16").open("r+b") as file:
        file.truncate(10 * ROW)
    encoder = Encoder()
    features = cached_features(encoder, picture, 10, **options)
    assert encoder.seen == 1 + 4
    assert torch.equal(features[range(10)], cached_features(Encoder(), picture, 10, say=quiet)[range(10)])


def test_progress_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "SAY_EVERY", -1)
    said = []
    cached_features(Encoder(), picture, 6, chunk=2, path=tmp_path / "f", shard_bytes=3 * ROW, say=said.append)
    assert said[1:] == [f"features: {done} of 6 pictures" for done in (2, 3, 5, 6)]


def test_nothing_to_cache():
    with pytest.raises(ValueError, match="no picture"):
        cached_features(Encoder(), picture, 0)
