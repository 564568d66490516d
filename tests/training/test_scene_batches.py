"""Batches of the picture book's scenes."""

from __future__ import annotations

import pytest
import torch

from blip2_lab.data.scenes import PictureBook
from blip2_lab.picturebook.scene import Scene, Thing
from blip2_lab.training.scene_batches import CAPTION_VALUES, GROUP_SIZE, SceneBatches, fact_counts

FEATURES = torch.arange(400.0)[:, None, None].expand(400, 2, 3)  # picture k has the feature k


def shown(examples: SceneBatches, index: int) -> list[int]:
    return examples.batch(index).image_features[:, 0, 0].int().tolist()


def test_every_second_batch_is_hard_and_shows_similar_scenes():
    book = PictureBook(3)
    plain, examples = (
        SceneBatches(book, FEATURES, 40, seed=0),
        SceneBatches(book, FEATURES, 40, seed=0, hard_batches_from=4),
    )
    for index in range(12):
        numbers = shown(examples, index)
        assert numbers == shown(examples, index) and len(set(numbers)) == 40
        if index < 4 or index % 2 == 1:
            assert numbers == shown(plain, index)
            continue
        assert numbers != shown(plain, index) and numbers[0] == shown(plain, index)[0]
        assert numbers[:GROUP_SIZE] == examples.similar_scenes(numbers[0])


def test_similar_scenes_differ_in_few_facts_and_never_in_none(monkeypatch):
    book = PictureBook(3)
    examples = SceneBatches(book, FEATURES, 6, seed=0, hard_batches_from=0)

    def apart(a: int, b: int) -> int:
        return sum(abs(x - y) for x, y in zip(fact_counts(book.scene(a)), fact_counts(book.scene(b)), strict=True))

    for number in range(0, 400, 40):
        own, *others = examples.similar_scenes(number)
        assert own == number and len(others) == GROUP_SIZE - 1
        outside = set(range(400)) - {own, *others}
        assert max(apart(own, n) for n in others) <= min(apart(own, n) for n in outside)
    real = PictureBook.scene
    monkeypatch.setattr(PictureBook, "scene", lambda self, number: real(self, 7 if number == 9 else number))
    twins = SceneBatches(book, FEATURES, 6, seed=0, hard_batches_from=0)
    assert 9 not in twins.similar_scenes(7) and 7 not in twins.similar_scenes(9), (
        "a caption of one would be true of the other"
    )


def test_fact_counts_are_what_a_full_caption_states():
    scene = Scene((Thing("boat", "red", "large", 0.1, 0.1), Thing("boat", "red", "small", 0.9, 0.9)), "beach", "night")
    true = dict(zip(CAPTION_VALUES, fact_counts(scene), strict=True))
    assert {name: count for name, count in true.items() if count} == {
        "beach": 1, "night": 1, 2: 1, "boat": 2, "red": 2, "large": 1, "small": 1, "top left": 1, "bottom right": 1
    }  # fmt: skip


@pytest.mark.parametrize("index", [0, 2, 4])
def test_captions_of_hard_batches_are_full(index):
    book = PictureBook(3)
    batch = SceneBatches(book, FEATURES, 6, seed=0, hard_batches_from=0).batch(index)
    for number, caption in zip(batch.image_features[:, 0, 0].int().tolist(), batch.captions, strict=True):
        for thing in book.scene(number).things:
            assert all(word in caption for word in (thing.kind, thing.color, thing.size, thing.position))


def test_every_second_batch_has_things_that_are_alike():
    book = PictureBook(3)
    plain, examples = (SceneBatches(book, FEATURES, 40, seed=0, alike_from=n) for n in (None, 4))
    seen = set()
    for index in range(12):
        numbers = shown(examples, index)
        if index < 4 or index % 2 == 1:
            assert numbers == shown(plain, index)
            continue
        assert len(set(numbers)) == 40
        seen.update(numbers)
        for number in numbers:
            kinds = [thing.kind for thing in book.scene(number).things]
            assert len(kinds) > 2 and max(map(kinds.count, kinds)) > 1
    assert len(seen) > 100, "other scenes each time"


def test_few_scenes_make_one_group():
    examples = SceneBatches(PictureBook(3), FEATURES[:8], 8, seed=0, hard_batches_from=0)
    assert sorted(shown(examples, 0)) == list(range(8))


def test_the_parts_of_a_step_of_scenes_are_its_batch():
    book = PictureBook(3)
    whole = SceneBatches(book, FEATURES, 48, seed=0, hard_batches_from=2)
    split = SceneBatches(book, FEATURES, 24, seed=0, hard_batches_from=2, parts=2)
    for step in (0, 1, 2, 4, 9):  # 400 scenes are eight steps of 48
        pieces = [split.batch(2 * step), split.batch(2 * step + 1)]
        assert [c for piece in pieces for c in piece.captions] == whole.batch(step).captions
        assert torch.equal(torch.cat([piece.image_features for piece in pieces]), whole.batch(step).image_features)
