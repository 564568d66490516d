"""One model of a comparison of bridges, measured: raw results, from which the comparison computes its table.

`Exam` is what every model is asked, `measure` is where to begin: it returns a dictionary for JSON, with one bit for
each question, so that models can be compared question by question.

Notes:

* Conditions: "picture", "blind" (no image) and "shuffled" (another scene's image). What a bridge adds is the
  difference from the last two.
* Questions are answered freely (exact match), and by ranking all answers of the question's type. A dual encoder writes
  no text, so it only ranks.
* Retrieval needs a text encoder beside the image: stage 1 has one, a dual encoder has one, no other model has.
* FLOPs are those of matrix products, by torch's counter, of a whole answer: image encoder, bridge and language model.
* Memory is the largest sum of all tensors at one time, weights included (`TensorBytes`); it does not depend on what
  else the process holds, or on what the allocator keeps. What a kernel needs inside is not in it.

Paper: section 4. Notebook: none.
"""

from __future__ import annotations

import math
import statistics
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from random import Random

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

from blip2_lab.evaluation import metrics, natural
from blip2_lab.evaluation.scenes import (
    CAPTION_PROMPT,
    CAPTIONS,
    SHORTLIST,
    Asked,
    image_features,
    question_hits,
    questions,
)
from blip2_lab.models import retrieval
from blip2_lab.models.bridges import DualEncoder
from blip2_lab.models.decoding import PAPER_DECODING, Decoding
from blip2_lab.models.language_model import DecoderLanguageModel, LanguageModel
from blip2_lab.models.losses import itc_similarity
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.picturebook import corpus, words
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import (
    COLORS,
    HELD_OUT_BOOK,
    KINDS,
    PLACES,
    POSITIONS,
    SIZES,
    TIMES,
    Scene,
    sample_scene,
)

CONDITIONS = ("picture", "blind", "shuffled")
REFERENCES = 5  #: captions of a scene that a generated one is compared with
#: The answers that a question of a type is ranked among.
CANDIDATES: dict[str, tuple[str, ...]] = {
    "color": COLORS,
    "what": KINDS,
    "size": SIZES,
    "position": POSITIONS,
    "count": words.NUMBERS,
    "existence": ("yes", "no"),
    "relation": KINDS,
    "place": PLACES,
    "time": TIMES,
    "category": KINDS,
}


@dataclass(frozen=True)
class Exam:
    """What every model of a comparison is asked.

    scenes   of the held-out book
    ranked   questions about so many of them are also answered by ranking
    costed   answers whose cost is measured
    texts    plain texts whose perplexity is computed
    asker    how a visitor's question reaches a model; None: natural questions are left out
    """

    scenes: int = 200
    ranked: int = 50
    costed: int = 8
    texts: int = 200
    seed: int = HELD_OUT_BOOK
    batch_size: int = 128
    asker: natural.Asker | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name, least in (("scenes", 2), ("ranked", 2), ("costed", 1), ("texts", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; a comparison needs at least {least}.")

    @cached_property
    def book(self) -> list[Scene]:
        return [sample_scene(self.seed, index, "in") for index in range(self.scenes)]

    @cached_property
    def asked(self) -> list[Asked]:
        """One question of every visual type that a scene allows: answered in captions, hence zero-shot."""
        return [one for one in questions(self.book, self.seed) if one[1].type in words.VISUAL_QUESTIONS]

    @cached_property
    def natural(self) -> list[natural.NaturalQuestion]:
        return [] if self.asker is None else natural.natural_questions(self.book, self.seed)

    @cached_property
    def captions(self) -> list[str]:
        """A full caption of each scene, for retrieval."""
        return [words.full_caption(scene, Random(f"gallery {self.seed} {i}")) for i, scene in enumerate(self.book)]

    @cached_property
    def references(self) -> list[list[str]]:
        """Full captions of each scene in several wordings, for caption scores."""
        return [
            [words.full_caption(scene, Random(f"reference {self.seed} {i} {k}"), k == 0) for k in range(REFERENCES)]
            for i, scene in enumerate(self.book)
        ]

    @cached_property
    def plain_texts(self) -> list[tuple[str, str]]:
        """Plain texts that no model was trained on, each as its first half and its second, by words."""
        halves = []
        for index in range(self.texts):
            split = corpus.plain_text(self.seed, index).split()
            halves.append((" ".join(split[: len(split) // 2]), " ".join(split[len(split) // 2 :])))
        return halves


def measure(model: Stage2Model | DualEncoder, exam: Exam, say: Callable[[str], None] = lambda _: None) -> dict:
    """All raw results of a model, ready for JSON. Bits are texts of 0 and 1, in the order of the exam's questions."""
    say(f"encoding {exam.scenes} pictures")
    features = image_features(model, exam.book, exam.batch_size)
    found = _measure_dual(model, exam, features, say) if isinstance(model, DualEncoder) else None
    found = found or _measure_stage2(model, exam, features, say)
    say(f"reading {exam.texts} plain texts")
    found["perplexity"] = text_perplexity(model.language_model, exam)
    return found


def bits(hits: Sequence[bool] | Tensor) -> str:
    """[True, False] -> "10"."""
    return "".join("1" if hit else "0" for hit in hits)


# ------------------------------------------------------------------------------------------ a model that writes text


def _measure_stage2(model: Stage2Model, exam: Exam, features: Tensor, say: Callable[[str], None]) -> dict:
    with torch.no_grad():
        prompts = torch.cat([model.visual_prompt(chunk) for chunk in features.split(exam.batch_size)])
    conditions = dict(zip(CONDITIONS, (prompts, prompts[:, :0], prompts.roll(1, dims=0)), strict=True))
    found: dict = {"questions": {}, "ranked": {}, "natural": {}, "captions": None, "retrieval": None}
    # a decoder continues after its answer ("snow. Question: what …"); the paper's beams and length penalty stop it
    is_decoder = isinstance(model.language_model, DecoderLanguageModel)
    decoding = PAPER_DECODING if is_decoder else Decoding(num_beams=1)
    for name, visual in conditions.items():
        say(f"asking {len(exam.asked)} questions: {name}")
        found["questions"][name] = bits(question_hits(model, visual, exam.asked, decoding, exam.batch_size))
        found["ranked"][name] = bits(_ranked(exam, _likelihoods(model.language_model, visual, exam.batch_size)))
        if exam.asker is not None:
            say(f"asking {len(exam.natural)} questions as a visitor does: {name}")
            options = dict(visual_prompts=visual, batch_size=exam.batch_size)
            answers = natural.ask_all(model, exam.book, exam.natural, exam.asker, **options)
            found["natural"][name] = bits(natural.verdicts(answers, exam.natural, exam.book))
    say(f"writing {exam.scenes} captions")
    found["captions"] = []
    for chunk in prompts.split(exam.batch_size):
        found["captions"] += model.language_model.generate(chunk, [CAPTION_PROMPT] * len(chunk), CAPTIONS)
    if model.stage1 is not None:
        say(f"searching among {exam.scenes} pictures and captions")
        found["retrieval"] = _stage1_retrieval(model.stage1, exam, features)
    found["tokens"] = 0 if model.bridge.deep_fusion else model.num_visual_tokens
    form = model.language_model.question_prompt

    def answer(pixels: Tensor, question: words.Question) -> None:
        visual = model.visual_prompt(model.image_encoder(pixels))
        model.language_model.generate(visual, [form.format(question.text)], decoding)

    return found | {"answer": answer_cost(model, exam, answer)}


Score = Callable[[Sequence[int], Sequence[str], Sequence[str]], Tensor]  #: scenes, questions, candidates -> [P]


def _likelihoods(language_model: LanguageModel, visual_prompts: Tensor, batch_size: int) -> Score:
    def score(scenes: Sequence[int], asked: Sequence[str], candidates: Sequence[str]) -> Tensor:
        prompts = [language_model.question_prompt.format(text) for text in asked]
        parts = []
        for start in range(0, len(scenes), batch_size):
            rows = slice(start, start + batch_size)
            visual = visual_prompts[list(scenes[rows])]
            parts.append(language_model.log_likelihood(visual, prompts[rows], candidates[rows])[0])
        return torch.cat(parts)

    return score


@torch.no_grad()
def _ranked(exam: Exam, score: Score) -> list[bool]:
    """Whether the true answer has the highest score among all answers of its type, for each question about the first
    `exam.ranked` scenes. A tie is no hit."""
    asked = [(number, question) for number, question, _ in exam.asked if number < exam.ranked]
    pairs = [(number, question, answer) for number, question in asked for answer in CANDIDATES[question.type]]
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][1].text))  # little padding
    scores = torch.empty(len(pairs))
    scenes, texts, answers = zip(*(pairs[i] for i in order), strict=True)
    scores[order] = score(scenes, [question.text for question in texts], answers).float().cpu()
    hits, start = [], 0
    for _, question in asked:
        candidates = CANDIDATES[question.type]
        own = scores[start : start + len(candidates)]
        true = candidates.index(question.answer)
        hits.append(bool((own >= own[true]).sum() == 1))
        start += len(candidates)
    return hits


# ------------------------------------------------------------------------------------------------------ a dual encoder


@torch.no_grad()
def _measure_dual(model: DualEncoder, exam: Exam, features: Tensor, say: Callable[[str], None]) -> dict:
    tokens = torch.cat([model.image_tokens(chunk) for chunk in features.split(exam.batch_size)])
    conditions = dict(zip(CONDITIONS, (tokens, tokens[:, :0], tokens.roll(1, dims=0)), strict=True))
    form = model.language_model.question_prompt
    found: dict = {"questions": {}, "ranked": {}, "natural": {}, "captions": None, "tokens": 0}
    for name, images in conditions.items():
        say(f"ranking answers: {name}")
        found["ranked"][name] = bits(_ranked(exam, _matches(model, images, exam.batch_size)))
    try:
        model.generate(None, CAPTION_PROMPT)
    except ValueError as refusal:
        found["no_captions"] = str(refusal)
    say(f"searching among {exam.scenes} pictures and captions")
    found["retrieval"] = _dual_retrieval(model, exam, features, tokens)

    def answer(pixels: Tensor, question: words.Question) -> None:
        model.rank(model.image_encoder(pixels), form.format(question.text), CANDIDATES[question.type])

    return found | {"answer": answer_cost(model, exam, answer)}


def _matches(model: DualEncoder, image_tokens: Tensor, batch_size: int) -> Score:
    def score(scenes: Sequence[int], asked: Sequence[str], candidates: Sequence[str]) -> Tensor:
        form, parts = model.language_model.question_prompt, []
        texts = [f"{form.format(text)} {answer}" for text, answer in zip(asked, candidates, strict=True)]
        for start in range(0, len(scenes), batch_size):
            rows = slice(start, start + batch_size)
            logits = model.match_logits(image_tokens[list(scenes[rows])], *model.text_states(texts[rows]))
            parts.append(logits[:, 1] - logits[:, 0])
        return torch.cat(parts)

    return score


# ----------------------------------------------------------------------------------------------------------- retrieval


@torch.no_grad()
def _stage1_retrieval(stage1: Stage1Model, exam: Exam, features: Tensor) -> dict:
    ids, mask = stage1.tokenize(exam.captions)
    gallery = retrieval.read_gallery(stage1, features.split(exam.batch_size))
    itc = itc_similarity(gallery.image_embeds, retrieval.embed_texts(stage1, ids, mask))

    def match(pairs: Tensor) -> Tensor:
        return retrieval.match_pairs(stage1, gallery, pairs, ids, mask, batch_size=exam.batch_size)

    return retrieval_bits(itc, match, stage1.temperature)


@torch.no_grad()
def _dual_retrieval(model: DualEncoder, exam: Exam, features: Tensor, tokens: Tensor) -> dict:
    states, mask = model.text_states(exam.captions)
    itc = model.embed_images(features) @ model.embed_texts(states).T

    def match(pairs: Tensor) -> Tensor:
        chunks = pairs.split(exam.batch_size)
        return torch.cat([model.match_logits(tokens[i], states[t], mask[t]) for i, t in (chunk.T for chunk in chunks)])

    return retrieval_bits(itc, match, model.temperature)


def retrieval_bits(itc: Tensor, match: Callable[[Tensor], Tensor], temperature: Tensor) -> dict[str, str]:
    """Recall at 1 of each image and of each text, by ITC's cosines itc [M,M] and after ITM re-ranks each row's
    `SHORTLIST` ("itm": its log-odds plus ITC's logit); and ITM's verdicts on true pairs and on the wrong text that ITC
    finds most similar.

    match  long[P,2] of (image, text) -> logits [P,2]: no match, match
    """
    own = torch.eye(len(itc), dtype=torch.bool, device=itc.device)
    listed_texts, listed_images = _shortlist(itc), _shortlist(itc.T).T
    pairs = (listed_texts | listed_images).nonzero()
    scores = torch.full_like(itc, retrieval.NOT_RERANKED)
    scores[pairs[:, 0], pairs[:, 1]] = retrieval.pair_scores(
        match(pairs), itc[pairs[:, 0], pairs[:, 1]], temperature, "both"
    ).to(itc.dtype)
    numbers = torch.arange(len(itc), device=itc.device)
    wrong = itc.masked_fill(own, -torch.inf).argmax(dim=1)
    verdicts = {
        name: match(torch.stack([numbers, texts], dim=1)).argmax(dim=1)
        for name, texts in (("true", numbers), ("wrong", wrong))
    }
    return {
        "itc_image_to_text": bits(metrics.hits_at(itc, own, 1)),
        "itc_text_to_image": bits(metrics.hits_at(itc.T, own, 1)),
        "itm_image_to_text": bits(metrics.hits_at(scores.masked_fill(~listed_texts, -torch.inf), own, 1)),
        "itm_text_to_image": bits(metrics.hits_at(scores.masked_fill(~listed_images, -torch.inf).T, own, 1)),
        "matched_true": bits(verdicts["true"] == 1),
        "matched_wrong": bits(verdicts["wrong"] == 0),
    }


def _shortlist(similarity: Tensor) -> Tensor:
    best = similarity.topk(min(SHORTLIST, similarity.shape[1]), dim=1).indices
    return torch.zeros_like(similarity, dtype=torch.bool).scatter_(1, best, True)


# --------------------------------------------------------------------------------------------------- text, and its cost


@torch.no_grad()
def text_perplexity(language_model: LanguageModel, exam: Exam) -> float:
    """exp of the mean loss of a token in the second halves of plain texts, given the first halves, without an image."""
    total, count = 0.0, 0
    for start in range(0, len(exam.plain_texts), exam.batch_size):
        firsts, seconds = zip(*exam.plain_texts[start : start + exam.batch_size], strict=True)
        no_image = torch.zeros(len(firsts), 0, language_model.width, device=language_model._device)
        scores, tokens = language_model.log_likelihood(no_image, firsts, seconds)
        total, count = total + scores.double().sum().item(), count + int(tokens.sum())
    return math.exp(-total / count)


@torch.no_grad()
def answer_cost(
    model: Stage2Model | DualEncoder, exam: Exam, answer: Callable[[Tensor, words.Question], None]
) -> dict[str, float]:
    """FLOPs (mean) and milliseconds (median, `own_clock`) of an answer, and the bytes of its tensors at their peak.

    `answer` gives the first question about a scene, and its pixels [1,3,S,S], to the model.
    """
    encoder = model.image_encoder
    first = {number: question for number, question, _ in reversed(exam.asked)}
    examples = [
        (encoder.preprocess([draw(exam.book[number], encoder.image_size)]), first[number])
        for number in sorted(first)[: exam.costed]
    ]
    with _without_gradients(model), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        for example in examples:  # by plain kernels: fused ones are not counted
            answer(*example)
    seconds, clock = [], own_clock(encoder.model.device)
    for example in examples:
        began = clock()
        answer(*example)
        seconds.append(clock() - began)
    return {
        "flops": counter.get_total_flops() / len(examples),
        "milliseconds": 1000 * statistics.median(seconds),
        "bytes": peak_bytes(lambda: answer(*examples[0]), model),
    }


@contextmanager
def _without_gradients(model: nn.Module) -> Iterator[None]:
    """No parameter needs a gradient. torch's counter hooks what does, and fails for a view of a parameter, as the
    latents of a resampler are, although nothing is differentiated ("Expected gradient function to be set")."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def own_clock(device: torch.device) -> Callable[[], float]:
    """Seconds: the processor time of this process on one thread of a CPU, else the time of the clock."""
    if device.type == "cpu":
        return time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def when_computed() -> float:
        torch.accelerator.synchronize()
        return time.perf_counter()

    return when_computed


def peak_bytes(step: Callable[[], object], model: nn.Module) -> int:
    """The largest sum of the sizes of all tensors at one time while `step` runs, those of the model included."""
    counted = TensorBytes((*model.parameters(), *model.buffers()))
    with counted:
        step()
    return counted.peak


class TensorBytes(TorchDispatchMode):
    """Inside the block, `now` is the size of all storages that operations have made and that are still alive, and
    `peak` its largest value. `tensors` count from the start.

    torch's own `MemTracker` refuses modules whose parameters need no gradient, and frozen ones are what this is for.
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known = WeakIdKeyDictionary()
        for tensor in tensors:
            self._count(tensor)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self.known:
            return
        self.known[storage] = True
        size = storage.nbytes()
        weakref.finalize(storage, self._free, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _free(self, size: int) -> None:
        self.now -= size
