"""A folder that is read once and searched: the same scores as retrieval's, only what changed read again."""

import copy
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import blip2_lab
from blip2_lab import cli
from blip2_lab.chat import image_search
from blip2_lab.chat.image_search import (
    Readings,
    build,
    encoder_fingerprint,
    load,
    same_encoder,
    save,
    search,
    search_like,
)
from blip2_lab.models.retrieval import read_gallery, require_stage1
from blip2_lab.models.retrieval import search as search_gallery
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene
from tests.tiny import build_tiny_model, loud


@pytest.fixture(scope="module")
def tiny_model():
    """Loud enough that pictures differ."""
    model = build_tiny_model("t5")
    loud(model, model.stage1)
    return model


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "below").mkdir()
    for number, name in enumerate(("a.png", "b.png", "c.png", "below/d.png", "e.png")):
        draw(sample_scene(3, number), 48).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


@pytest.fixture
def reads(tiny_model, monkeypatch):
    """How many pictures went through the image encoder."""
    seen, forward = [], tiny_model.image_encoder.forward
    monkeypatch.setattr(tiny_model.image_encoder, "forward", lambda p: (seen.extend([1] * len(p)), forward(p))[1])
    return seen


def test_scores_are_those_of_retrieval(tiny_model, folder):
    index = build(tiny_model, folder)
    stage1, encoder = tiny_model.stage1, tiny_model.image_encoder
    ids, mask = stage1.tokenize(["a red boat"])
    with torch.no_grad():
        pixels = encoder.preprocess([Image.open(folder / stamp.file) for stamp in index.stamps])
        expected = search_gallery(stage1, read_gallery(stage1, [encoder(pixels)]), ids, mask, rank_by="both")[0]
    hits = search(tiny_model, index, "a red boat")
    assert [hit.file for hit in hits] == [index.stamps[i].file for i in expected.argsort(descending=True).tolist()]
    assert all(0 <= hit.itm <= 1 for hit in hits)
    listed = {hit.file for hit in sorted(hits, key=lambda hit: -hit.itc)[:2]}
    (best,) = search(tiny_model, index, "a red boat", shortlist=2, top=1)
    assert best == next(hit for hit in hits if hit.file in listed)


def test_a_picture_finds_itself_first(tiny_model, folder):
    hits = search_like(tiny_model, build(tiny_model, folder), folder / "c.png", top=3)
    assert hits[0].file == "c.png" and hits[0].itc == pytest.approx(1, abs=2e-3) and hits[0].itm is None
    assert len(hits) == 3 and hits[0].itc >= hits[1].itc >= hits[2].itc


def test_each_picture_is_read_once_and_only_what_changed_again(tiny_model, folder, reads):
    first = build(tiny_model, folder)
    assert len(reads) == 5
    search(tiny_model, first, "a red boat")
    assert len(reads) == 5
    draw(sample_scene(3, 9), 48).save(folder / "aa.png")
    (folder / "b.png").unlink()
    draw(sample_scene(3, 10), 60).save(folder / "c.png")
    second = build(tiny_model, folder, previous=first)
    assert len(reads) == 7
    assert [stamp.file for stamp in second.stamps] == ["a.png", "aa.png", "below/d.png", "c.png", "e.png"]
    anew = build(tiny_model, folder)
    torch.testing.assert_close(second.image_embeds, anew.image_embeds, atol=2e-3, rtol=0)
    torch.testing.assert_close(second.features, anew.features, atol=2e-2, rtol=1e-2)


def test_the_next_sentence_reads_only_pictures_that_are_new_to_it(tiny_model, folder, monkeypatch):
    index = build(tiny_model, folder)
    qformer = tiny_model.stage1.qformer
    seen, read = [], qformer.read_image
    monkeypatch.setattr(qformer, "read_image", lambda features: (seen.extend([1] * len(features)), read(features))[1])
    readings = Readings(qformer, index.features)
    for text in ("a red boat", "a cat at night", "a red boat"):
        assert search(tiny_model, index, text, readings=readings) == search(tiny_model, index, text)
    assert len(seen) == 5 + 3 * 5, "five pictures, each once; without readings for every sentence"
    seen.clear()
    few = Readings(qformer, index.features, most=2)
    for rows in ([0, 1], [1, 2], [1], [0, 2, 3], [2, 3]):
        expected = read(index.features[rows].float())
        for ours, theirs in zip(few(rows).keys_values, expected.keys_values, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                torch.testing.assert_close(ours, theirs)
    assert len(seen) == 2 + 1 + 0 + 2 + 0  # of 0, 2 and 3 it has 2; the two used last stay


def test_without_features_itc_decides(tiny_model, folder, tmp_path):
    index = build(tiny_model, folder, rerank=False)
    save(index, tmp_path / "x.safetensors")
    hits = search(tiny_model, load(tmp_path / "x.safetensors"), "a red boat", top=2)
    assert len(hits) == 2 and hits[0].itc >= hits[1].itc and hits[0].itm is None


def test_a_broken_picture_is_named_and_left_out(tiny_model, folder):
    (folder / "bad.png").write_bytes(b"no png")
    said = []
    assert len(build(tiny_model, folder, say=said.append)) == 5
    assert "bad.png" in said[0]


def test_pictures_that_are_not_read_are_named(tiny_model, folder, tmp_path):
    (tmp_path / "mixed").mkdir()
    for name in ("a.heic", "b.svg"):
        (tmp_path / "mixed" / name).write_bytes(b"x")
    with pytest.raises(ValueError, match="holds no picture that can be read: 'a.heic' has the format HEIC"):
        build(tiny_model, tmp_path / "mixed")
    shutil.copy(next(folder.glob("*.png")), tmp_path / "mixed" / "c.png")
    (tmp_path / "mixed" / "gone.png").symlink_to("nowhere.png")
    said = []
    build(tiny_model, tmp_path / "mixed", say=said.append)
    left_out = [sentence for sentence in said if sentence.startswith("left out: ")]
    assert [sentence.split("'")[1] for sentence in left_out] == ["a.heic", "b.svg", "gone.png"]


def test_what_cannot_be_searched_is_one_sentence(tiny_model, folder, tmp_path):
    index = build(tiny_model, folder)
    with pytest.raises(ValueError, match='"quorx"'):
        search(tiny_model, index, "a quorx")
    for top in (0, -1, 1.5, "3"):
        with pytest.raises(ValueError, match=f"top is {top!r}; it must be a whole number, 1 or more"):
            search(tiny_model, index, "a red boat", top=top)
    with torch.no_grad():
        tiny_model.stage1.itm_head.weight += 1
    try:
        with pytest.raises(ValueError, match="another model"):
            search(tiny_model, index, "a red boat")
    finally:
        with torch.no_grad():
            tiny_model.stage1.itm_head.weight -= 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no picture"):
        build(tiny_model, tmp_path / "empty")
    with pytest.raises(ValueError, match="no folder"):
        build(tiny_model, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="blip2-lab index"):
        load(tmp_path / "nowhere" / image_search.FILE)
    (tmp_path / "junk").write_bytes(b"junk junk junk junk")
    with pytest.raises(ValueError, match="no index of pictures"):
        load(tmp_path / "junk")


def test_a_model_without_stage_1_says_so(tiny_decoder_model):
    stage1 = tiny_decoder_model.stage1
    tiny_decoder_model.attach_stage1(None)
    try:
        with pytest.raises(ValueError, match="no stage 1"):
            require_stage1(tiny_decoder_model)
    finally:
        tiny_decoder_model.attach_stage1(stage1)


def test_the_commands(tiny_model, folder, monkeypatch, capsys):
    monkeypatch.setattr(blip2_lab, "load", lambda name, **_: tiny_model)
    assert cli.main(["index", str(folder)]) == 0
    assert "5 pictures" in capsys.readouterr().out
    assert cli.main(["search", "a red boat", "--folder", str(folder), "--top", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 2
    assert cli.main(["search", str(folder / "c.png"), "--folder", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("c.png")
    assert cli.main(["search", "a red boat", "--folder", str(folder / "below")]) == 2
    assert "blip2-lab index" in capsys.readouterr().err


def test_an_index_of_another_image_encoder_is_refused(tiny_model, tmp_path):
    """The Q-Former is the same. An index of an older version did not know the encoder, and is taken as it is."""
    index = image_search.of_images(tiny_model, {"one": Image.new("RGB", (48, 48), "red")})
    norm = next(p for name, p in tiny_model.image_encoder.named_parameters() if name.endswith("norm1.weight"))
    before = norm.detach().clone()
    with torch.no_grad():
        norm *= 1.1
    try:
        with pytest.raises(ValueError, match="another model"):
            search(tiny_model, index, "a red boat")
        assert search(tiny_model, replace(index, encoder=()), "a red boat")
    finally:
        with torch.no_grad():
            norm.copy_(before)
    save(index, tmp_path / "kept")
    assert load(tmp_path / "kept").encoder == index.encoder and len(index.encoder) > 4
    half = encoder_fingerprint(SimpleNamespace(image_encoder=copy.deepcopy(tiny_model.image_encoder).bfloat16()))
    assert half != index.encoder and same_encoder(half, index.encoder)


def test_a_folder_that_cannot_be_written_is_searched_nevertheless(monkeypatch, tmp_path):
    """A gallery that others share is often read-only."""
    index, said = image_search.PictureIndex((), torch.empty(0), torch.empty(0), "x"), []
    monkeypatch.setattr(image_search, "build", lambda *_, **__: index)
    (tmp_path / image_search.FILE).with_suffix(".part").mkdir()  # stands in the way, as a missing permission would
    assert image_search.open_folder(None, tmp_path, said.append) is index
    assert len(said) == 1 and "cannot be kept" in said[0]
