"""A phrase fits one thing alone, and questions are typed as visitors type."""

from random import Random

from blip2_lab.evaluation.natural import natural_questions, phrases
from blip2_lab.evaluation.natural.reading import count, fits, read
from blip2_lab.picturebook.scene import sample_scene

BOOK = [sample_scene(77, index, "in") for index in range(300)]
QUESTIONS = natural_questions(BOOK, seed=5)


def test_phrases_fit_one_thing_alone():
    rng = Random(3)
    for scene in BOOK[:100]:
        for thing in scene.things:
            phrase = phrases.describe(scene, thing, rng)
            if phrase is not None:
                mention = read(f"the {phrase}").mentions[0]
                assert count(mention, scene) == 1 and fits(mention, thing), (phrase, scene)


def test_typing_has_the_habits_of_visitors():
    texts = [q.text for q in QUESTIONS]
    assert 0.02 < sum(text.isupper() for text in texts) / len(texts) < 0.08
    assert 0.1 < sum(not text.endswith("?") for text in texts) / len(texts) < 0.4
    assert any("colour" in text for text in texts) and any("grey" in text for text in texts)
    clean = "the purple hammer in the corner"
    slips = [phrases.slip(clean, Random(i)) for i in range(50)]
    assert len(set(slips)) > 15 and all(len(clean) - 1 <= len(text) <= len(clean) for text in slips)
