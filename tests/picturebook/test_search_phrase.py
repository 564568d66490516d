"""Search phrases: what they say is true of their scene, and where else, by hand."""

from random import Random

from blip2_lab.data.scenes import PictureBook
from blip2_lab.picturebook.scene import Scene, Thing, sample_scene
from blip2_lab.picturebook.words import SearchPhrase, search_phrase


def thing(kind, color, size="large", x=0.5, y=0.5):
    return Thing(kind, color, size, x, y)


def phrase(*things, **where):
    return SearchPhrase("", tuple(frozenset(named.items()) for named in things), **where)


def test_a_phrase_is_true_where_color_and_kind_belong_to_one_thing():
    red_boat, blue_fish = thing("boat", "red"), thing("fish", "blue")
    scene = Scene((red_boat, blue_fish), "beach", "day")
    assert phrase({"kind": "boat", "color": "red"}).is_true_of(scene)
    assert not phrase({"kind": "boat", "color": "blue"}).is_true_of(scene), "both are there, not together"
    assert phrase({"color": "blue"}, {"kind": "boat"}).is_true_of(scene)
    assert not phrase({"kind": "boat"}, {"color": "red"}).is_true_of(scene), "two things are named, one fits both"
    assert phrase({"kind": "boat"}, place="beach", time="day").is_true_of(scene)
    assert not phrase({"kind": "boat"}, place="snow").is_true_of(scene)
    assert not phrase({"kind": "boat"}, time="night").is_true_of(scene)


def test_every_phrase_is_true_of_its_own_scene_and_false_of_most_others():
    scenes = [sample_scene(21, index) for index in range(300)]
    phrases = [search_phrase(scene, Random(index)) for index, scene in enumerate(scenes)]
    assert all(p.is_true_of(scene) for p, scene in zip(phrases, scenes, strict=True))
    fits = sum(p.is_true_of(scene) for p in phrases for scene in scenes) / len(scenes) ** 2
    assert 0.01 < fits < 0.15
    for p in phrases:
        for named in p.things:
            assert all(word in p.text for _, value in named for word in value.split())


def test_a_batch_of_phrases_knows_every_scene_they_fit():
    book = PictureBook(3, caption="full and search")
    assert book.matches(range(4), turn=0) is None, "even turns tell everything: true of their own scene alone"
    matches = book.matches(range(40), turn=1)
    assert matches.shape == (40, 40) and matches.diagonal().all() and 40 < matches.sum() < 400
    texts = [book.one_caption(index, turn=1) for index in range(40)]
    for text, column in zip(texts, matches.T.tolist(), strict=True):
        if text.split()[-1].rstrip(".") == "boat" and len(text.split()) == 2:  # "a boat."
            assert column == [any(t.kind == "boat" for t in book.scene(i).things) for i in range(40)]
