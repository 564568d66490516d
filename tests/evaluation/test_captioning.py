"""Caption scores by hand, against pycocoevalcap where it is, and its quirks one by one."""

import importlib.util
import math
import os
import random
import shutil
import sys
from pathlib import Path

import pytest

from blip2_lab.evaluation import captioning
from blip2_lab.evaluation.captioning import bleu, caption_scores, cider_d, common_length, rouge_l


def test_bleu_by_hand():
    """Caption: a red boat on a sea (6 words). References: a boat on the sea (5); the red boat (3).

    Words found: a (1 of 2: each reference has one), red, boat, on, sea -> 5 of 6.
    Pairs: red boat, boat on -> 2 of 5. Triples: none of 4. The closest reference has 5 words, so there is no penalty.
    BLEU-1 = 5/6. BLEU-2 = sqrt(5/6 * 2/5) = sqrt(1/3).
    """
    scores = bleu(["a red boat on a sea"], [["a boat on the sea", "the red boat"]])
    assert scores[0].corpus == pytest.approx(5 / 6) and scores[1].corpus == pytest.approx(math.sqrt(1 / 3))
    assert scores[2].corpus == pytest.approx(0, abs=1e-4)


def test_bleu_penalizes_a_short_caption():
    """a boat (2 words) against a boat on the sea (5): precisions 1 and 1, penalty exp(1 - 5/2)."""
    scores = bleu(["a boat"], [["a boat on the sea"]])
    assert [scores[0].corpus, scores[1].corpus] == pytest.approx([math.exp(-1.5)] * 2)


def test_bleu_compares_with_the_closest_reference_and_the_shorter_of_two():
    """4 words; references of 3 and 5 are equally close: 3 counts, and there is no penalty."""
    assert bleu(["a b c d"], [["a b c", "a b c d e"]])[0].corpus == pytest.approx(1)
    # references of 1 and 5: 5 is closer, and 4 words are penalized by exp(1 - 5/4)
    assert bleu(["a b c d"], [["a", "a b c d e"]])[0].corpus == pytest.approx(math.exp(-0.25))


def test_bleu_of_a_corpus_is_no_mean_of_images():
    """1 of 1 word, and 1 of 3 words: 2 of 4 in all; the mean of the images would be 2/3."""
    scores = bleu(["a", "a x y"], [["a"], ["a b c"]])[0]
    assert scores.images == pytest.approx([1, 1 / 3]) and scores.corpus == pytest.approx(1 / 2)


def test_rouge_l_by_hand():
    """Caption: a red boat (3). References: a boat (2), in common a boat; the big red boat at sea (6), in common
    red boat.

    Precision is at most 2/3, recall at most 2/2: (1 + 1.44) * 2/3 * 1 / (1 + 1.44 * 2/3) = 1.6267 / 1.96.
    """
    score = rouge_l(["a red boat"], [["a boat", "the big red boat at sea"]])
    assert score.corpus == pytest.approx(2.44 * 2 / 3 / 1.96)


def test_rouge_l_takes_precision_and_recall_from_different_references():
    """a b: precision 1 with the first reference (a b c d), recall 1 with the second (a): together 1."""
    assert rouge_l(["a b"], [["a b c d", "a"]]).corpus == pytest.approx(1)


def test_rouge_l_splits_at_single_spaces():
    """As pycocoevalcap's rouge.py: a no-break space splits nothing; two empty texts have an empty token in common."""
    assert rouge_l(["5\xa01/2"], [["5 1/2"]]).corpus == 0
    assert rouge_l([""], [[""]]).corpus == pytest.approx(1)
    assert bleu(["5\xa01/2"], [["5 1/2"]])[1].corpus == pytest.approx(1)  # split() does split there


def test_common_length_is_of_a_subsequence():
    assert common_length("a b c d".split(), "b x d".split()) == 2
    assert common_length("b a".split(), "a b".split()) == 1
    assert common_length([], ["a"]) == 0


def test_cider_by_hand():
    """Two images. References: a cat; a dog. Captions: a cat; a cat.

    Words: a occurs in both images: weight log 2 - log 2 = 0. cat and dog in one: log 2. Pairs in one: log 2.
    First caption: words (0, log 2) and pairs equal to the reference's: cosine 1 for n = 1 and 2, and 0 for n = 3 and 4,
    which are empty: 10 * 2/4 = 5. Second caption: nothing in common with a dog but a, of weight 0: 0. Mean 2.5.
    """
    score = cider_d(["a cat", "a cat"], [["a cat"], ["a dog"]])
    assert score.images == pytest.approx([5, 0]) and score.corpus == pytest.approx(2.5)


def test_cider_penalizes_another_length_counted_in_pairs():
    """cat against cat cat cat: 0 pairs and 2. Words: min(1, 3) * 3 / (1 * 3) = 1, so only the penalty is left.

    exp(-(2 ** 2) / (2 * 6 ** 2)), for one n of four, times ten.
    """
    score = cider_d(["cat", "x"], [["cat cat cat"], ["dog"]])
    assert score.images[0] == pytest.approx(10 / 4 * math.exp(-4 / 72))


def test_cider_clips_a_repeated_word():
    """cat cat cat against cat: min(3, 1) * 1 / (3 * 1) = 1/3, times the penalty for 2 pairs more."""
    score = cider_d(["cat cat cat", "x"], [["cat"], ["dog"]])
    assert score.images[0] == pytest.approx(10 / 4 / 3 * math.exp(-4 / 72))


def test_cider_of_one_image_is_zero():
    """Every word is in all of the one image's references: log 1 - log 1 = 0."""
    assert cider_d(["a cat"], [["a cat"]]).corpus == 0


def test_cider_depends_on_the_images_that_are_evaluated():
    """The more images have red in a reference, the less it matters that the caption lacks it."""
    two = cider_d(["cat", "dog"], [["red cat"], ["dog"]]).images[0]
    three = cider_d(["cat", "dog", "red"], [["red cat"], ["dog"], ["red"]]).images[0]
    assert three > two + 0.1


def test_all_scores_of_texts_as_people_write_them():
    scores = caption_scores(["A red boat."], [["a red boat", "The boat is red!"]])
    assert list(scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    assert [scores["BLEU-3"].corpus, scores["ROUGE-L"].corpus] == pytest.approx([1, 1])


def test_what_cannot_be_scored_is_said():
    for captions, references in ([], []), (["a"], []), (["a"], [[]]), (["a"], ["a"]), (["a", "b"], [["a"], []]):
        with pytest.raises(ValueError, match="There|Each image"):
            caption_scores(captions, references)


def test_dicts_and_lists_of_pycocoevalcap_are_told():
    for captions, references, says in (
        ({1: ["a boat"]}, {1: ["a boat"]}, "captions are a list with one text an image"),
        ([["a boat"]], [["a boat"]], "A caption is one text an image, and this is \\['a boat'\\]"),
        (["a boat", None], [["a boat"]] * 2, "this is None"),
    ):
        with pytest.raises(ValueError, match=says):
            caption_scores(captions, references)


def test_the_caption_results_are_as_coco_takes_them(tmp_path):
    captioning.write_results(tmp_path / "r.json", {7: "a “red” boat"})
    assert (tmp_path / "r.json").read_text(encoding="utf-8") == '[{"image_id": 7, "caption": "a “red” boat"}]\n'


def test_java_scores_say_what_is_missing(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="none of METEOR, SPICE"):
        captioning.missing_for("BLEU")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install" in captioning.missing_for("METEOR")
    (tmp_path / "pycocoevalcap").mkdir()
    found = type("Spec", (), {"submodule_search_locations": [str(tmp_path / "pycocoevalcap")]})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "Java runtime" in captioning.missing_for("METEOR")
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/java")
    assert captioning.missing_for("METEOR") is None
    with pytest.raises(ValueError, match="stanford-corenlp-3.6.0.jar"):
        captioning.java_scores(["a"], [["a"]], ["SPICE"])


# ------------------------------------------------------------------------------------------------------- pycocoevalcap


@pytest.fixture
def original(monkeypatch):
    """pycocoevalcap on the path; skips the test where it is not."""
    if folder := os.environ.get("PYCOCOEVALCAP"):
        monkeypatch.syspath_prepend(str(Path(folder).parent))
    if importlib.util.find_spec("pycocoevalcap") is None:
        pytest.skip("pycocoevalcap is not installed, and PYCOCOEVALCAP does not name its folder")
    yield
    for name in [name for name in sys.modules if name.startswith("pycocoevalcap")]:
        monkeypatch.delitem(sys.modules, name)


def test_equal_to_pycocoevalcap(original):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    rng = random.Random(0)
    words = "a red blue boat dog on the sea and two 5\xa01/2 x y z".split(" ")

    def text(lengths=(0, 1, 2, 3, 5, 9, 15)):
        return " ".join(rng.choice(words) for _ in range(rng.choice(lengths)))

    for _ in range(100):
        count = rng.choice([1, 2, 3, 10, 40])
        captions = [text() for _ in range(count)]
        # one reference is not empty: without any n-gram, the original's CIDEr raises an error
        references = [[text((1, 4)), *(text() for _ in range(rng.randrange(5)))] for _ in range(count)]
        truth, found = dict(enumerate(references)), {i: [caption] for i, caption in enumerate(captions)}
        corpus, images = Bleu(4).compute_score(truth, found, verbose=0)
        expected = [*zip(corpus, images, strict=True)]
        expected += [scorer.compute_score(truth, found) for scorer in (Rouge(), Cider())]
        ours = [*bleu(captions, references), rouge_l(captions, references), cider_d(captions, references)]
        for score, (of_corpus, of_images) in zip(ours, expected, strict=True):
            assert score.corpus == pytest.approx(of_corpus, abs=1e-9)
            assert score.images == pytest.approx(list(of_images), abs=1e-9)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # METEOR's table of paraphrases takes long to read where other programs have the processor
def test_meteor_of_equal_texts_is_one(original):
    if reason := captioning.missing_for("METEOR"):
        pytest.skip(reason)
    scores = captioning.java_scores(
        ["A red boat on the sea.", "a cat"], [["a red boat on the sea"], ["dogs"]], ["METEOR"]
    )
    assert scores["METEOR"].images == pytest.approx([1, 0], abs=1e-6)
