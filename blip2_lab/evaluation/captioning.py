"""Caption scores: BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D, in Python; METEOR and SPICE through pycocoevalcap and Java.

`caption_scores` is where to begin: captions and their references as people write them. `bleu`, `rouge_l` and `cider_d`
take texts that `ptb_tokenizer.tokenize` has split, with spaces between the tokens.

    scores = caption_scores(["a red boat"], [["a red boat on the sea.", "A boat."]])
    scores["CIDEr"].corpus, scores["CIDEr"].images

Notes:

* Equal to pycocoevalcap 1.2, its quirks included. Each is a test.
* BLEU is of the whole corpus: counts and lengths are added up first. It is not the mean of the images' values.
* CIDEr weighs a word by the share of *evaluated* images whose references have it. Values of different sets of images
  cannot be compared, and one image alone scores 0.
* METEOR and SPICE need Java. They are left to the original (`java_scores`).

Sources: BLEU, Papineni et al. 2002; ROUGE-L, Lin 2004; CIDEr-D, Vedantam et al. 2015 (arXiv 1411.5726), section 5.
Paper: section 4.2, Table 3. Notebook: none.
"""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from blip2_lab.common.files import write_atomically
from blip2_lab.evaluation.ptb_tokenizer import tokenize

LONGEST = 4  #: words of an n-gram
BETA = 1.2  #: of ROUGE-L: recall counts more than precision
SIGMA = 6.0  #: of CIDEr-D's penalty for another length
JAVA_SCORES = ("METEOR", "SPICE")

Ngram = tuple[str, ...]


@dataclass(frozen=True)
class Scores:
    """A score of all images, and of each by itself."""

    corpus: float
    images: list[float]


def caption_scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Scores]:
    """One caption of each image, and the image's references -> BLEU-1 … BLEU-4, ROUGE-L, CIDEr.

    Raises ValueError where there is no image, or an image without a reference.
    """
    counts = _check(captions, references)
    flat = iter(tokenize([reference for texts in references for reference in texts]))
    split = [[next(flat) for _ in range(count)] for count in counts]
    found = tokenize(captions)
    names = [f"BLEU-{n}" for n in range(1, LONGEST + 1)]
    scores = dict(zip(names, bleu(found, split), strict=True))
    return scores | {"ROUGE-L": rouge_l(found, split), "CIDEr": cider_d(found, split)}


def _check(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[int]:
    """-> the number of references of each image."""
    if isinstance(captions, Mapping | str) or isinstance(references, Mapping | str):  # pycocoevalcap has dicts
        raise ValueError("captions are a list with one text an image, references a list with a list of texts an image.")
    if wrong := [caption for caption in captions if not isinstance(caption, str)]:
        raise ValueError(f"A caption is one text an image, and this is {wrong[0]!r:.60}.")
    if len(captions) != len(references):
        raise ValueError(
            f"There are {len(captions)} captions and references of {len(references)} images: pass one each."
        )
    counts = [len(texts) for texts in references]
    if not counts:
        raise ValueError("There is no caption to score: pass at least one.")
    if isinstance(references[0], str) or 0 in counts:
        raise ValueError("Each image needs a list of at least one reference caption.")
    return counts


def ngrams(text: str) -> Counter[Ngram]:
    """Tokens with spaces between them -> how often each n-gram of 1 to `LONGEST` tokens occurs."""
    words = text.split()
    lengths = range(1, LONGEST + 1)
    return Counter(tuple(words[i : i + n]) for n in lengths for i in range(len(words) - n + 1))


# ---------------------------------------------------------------------------------------------------------------- BLEU


def bleu(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[Scores]:
    """Tokenized texts -> BLEU-1 to BLEU-4: the geometric mean of n-gram precisions times the brevity penalty.

    A caption is compared with the reference whose length is closest, the shorter of two. An n-gram counts at most as
    often as it occurs in one reference.
    """
    _check(captions, references)
    images = [_overlap(caption, texts) for caption, texts in zip(captions, references, strict=True)]
    total = [sum(column) for column in zip(*images, strict=True)]
    corpus, single = _bleu_values(total), [_bleu_values(image) for image in images]
    return [Scores(corpus[n], [values[n] for values in single]) for n in range(LONGEST)]


def _overlap(caption: str, references: Sequence[str]) -> list[int]:
    """-> length, length of the closest reference, then for each n the n-grams of the caption, and those found."""
    found = ngrams(caption)
    allowed: Counter[Ngram] = Counter()
    for reference in references:
        allowed |= ngrams(reference)
    length = len(caption.split())
    closest = min((abs(len(reference.split()) - length), len(reference.split())) for reference in references)[1]
    matches = found & allowed
    right = [sum(count for ngram, count in matches.items() if len(ngram) == n) for n in range(1, LONGEST + 1)]
    return [length, closest, *(max(0, length - n) for n in range(LONGEST)), *right]


def _bleu_values(overlap: Sequence[int]) -> list[float]:
    tiny, small = 1e-15, 1e-9  # as pycocoevalcap: no match gives a very small number instead of 0
    length, closest, guesses, right = overlap[0], overlap[1], overlap[2 : 2 + LONGEST], overlap[2 + LONGEST :]
    ratio = (length + tiny) / (closest + small)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    values, product = [], 1.0
    for n in range(LONGEST):
        product *= (right[n] + tiny) / (guesses[n] + small)
        values.append(product ** (1 / (n + 1)) * penalty)
    return values


# ------------------------------------------------------------------------------------------------------------- ROUGE-L


def rouge_l(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """Tokenized texts -> the F-measure of the longest common subsequence, the mean over images.

    Precision and recall are each the best over the references, which need not be the same one. Tokens are separated by
    single spaces, so that "5 1/2" with a no-break space is one, and an empty text is one empty token.
    """
    _check(captions, references)
    images = []
    for caption, texts in zip(captions, references, strict=True):
        words = caption.split(" ")
        common = [(common_length(words, text.split(" ")), len(text.split(" "))) for text in texts]
        precision = max(length for length, _ in common) / len(words)
        recall = max(length / of for length, of in common)
        both = recall + BETA**2 * precision
        images.append((1 + BETA**2) * precision * recall / both if both else 0.0)
    return Scores(sum(images) / len(images), images)


def common_length(left: Sequence[str], right: Sequence[str]) -> int:
    """The length of the longest common subsequence of two lists of tokens."""
    row = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for place, other in enumerate(right, 1):
            diagonal, row[place] = row[place], diagonal + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]


# ------------------------------------------------------------------------------------------------------------- CIDEr-D


def cider_d(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """Tokenized texts -> CIDEr-D: ten times the cosine of TF-IDF vectors of n-grams, over n = 1 to 4 and references.

    A weight of the caption counts at most as much as the reference's. A Gaussian penalizes another length, which is
    counted in pairs of neighbouring words, as in pycocoevalcap.
    """
    _check(captions, references)
    vectors = [[ngrams(text) for text in texts] for texts in references]
    images_with: Counter[Ngram] = Counter()
    for counts in vectors:
        images_with.update(set().union(*counts))
    images = []
    for caption, counts in zip(captions, vectors, strict=True):
        weighted = _weighted(ngrams(caption), images_with, len(captions))
        values = [_similarity(weighted, _weighted(one, images_with, len(captions))) for one in counts]
        images.append(10 * sum(values) / len(values))
    return Scores(sum(images) / len(images), images)


@dataclass(frozen=True)
class _Weighted:
    weights: dict[Ngram, float]
    norms: list[float]  # of the n-grams of each length
    length: int


def _weighted(counts: Counter[Ngram], images_with: Mapping[Ngram, int], images: int) -> _Weighted:
    weights, squares, length = {}, [0.0] * LONGEST, 0
    for ngram, count in counts.items():
        weight = count * (math.log(images) - math.log(max(1, images_with[ngram])))
        weights[ngram] = weight
        squares[len(ngram) - 1] += weight * weight
        length += count if len(ngram) == 2 else 0
    return _Weighted(weights, [math.sqrt(square) for square in squares], length)


def _similarity(caption: _Weighted, reference: _Weighted) -> float:
    """The mean over n of the clipped cosine, times the penalty for the length."""
    products = [0.0] * LONGEST
    for ngram, weight in caption.weights.items():
        if other := reference.weights.get(ngram):
            products[len(ngram) - 1] += min(weight, other) * other
    norms = [one * other for one, other in zip(caption.norms, reference.norms, strict=True)]
    cosines = [product / norm if norm else product for product, norm in zip(products, norms, strict=True)]
    difference = caption.length - reference.length
    return math.exp(-(difference**2) / (2 * SIGMA**2)) * sum(cosines) / LONGEST


# ---------------------------------------------------------------------------------------------------- METEOR and SPICE


def java_scores(
    captions: Sequence[str], references: Sequence[Sequence[str]], names: Sequence[str] = JAVA_SCORES
) -> dict[str, Scores]:
    """METEOR and SPICE of texts as people write them, computed by pycocoevalcap and Java.

    Raises ValueError with what is missing (`missing_for` says it before).
    """
    counts = _check(captions, references)
    for name in names:
        if sentence := missing_for(name):
            raise ValueError(sentence)
    flat = iter(tokenize([reference for texts in references for reference in texts]))
    truth = {image: [next(flat) for _ in range(count)] for image, count in enumerate(counts)}
    found = {image: [caption] for image, caption in enumerate(tokenize(captions))}
    return {name: _java_score(name, truth, found) for name in names}


def _java_score(name: str, truth: dict[int, list[str]], found: dict[int, list[str]]) -> Scores:
    if name == "METEOR":
        from pycocoevalcap.meteor.meteor import Meteor

        corpus, images = Meteor().compute_score(truth, found)
        return Scores(float(corpus), [float(image) for image in images])
    from pycocoevalcap.spice.spice import Spice

    corpus, images = Spice().compute_score(truth, found)
    return Scores(float(corpus), [float(image["All"]["f"]) for image in images])


def missing_for(name: str) -> str | None:
    """One sentence about what METEOR or SPICE lacks on this machine, or None. Raises ValueError for another name."""
    if name not in JAVA_SCORES:
        raise ValueError(f"{name!r} is none of {', '.join(JAVA_SCORES)}, which are computed by Java.")
    package = importlib.util.find_spec("pycocoevalcap")
    if package is None:
        return f'{name} is computed by pycocoevalcap, which is not installed: pip install "blip2-lab[java-scores]".'
    if shutil.which("java") is None:
        return f"{name} is computed by a Java program, and there is no java on the path: install a Java runtime."
    models = "stanford-corenlp-3.6.0.jar"
    if name == "SPICE" and not (Path(package.submodule_search_locations[0]) / "spice" / "lib" / models).exists():
        return (
            f"SPICE needs {models} and its models, which pycocoevalcap does not contain: "
            "run `python -m pycocoevalcap.spice.get_stanford_models` on a machine with a network."
        )
    return None


# --------------------------------------------------------------------------------------------------------------- files


def write_results(path: Path, captions: Mapping[int, str]) -> None:
    """Write image number -> caption as COCO and NoCaps take them: a list of {"image_id": int, "caption": str}."""
    entries = [{"image_id": int(image), "caption": caption} for image, caption in captions.items()]
    write_atomically(path, json.dumps(entries, ensure_ascii=False) + "\n")
