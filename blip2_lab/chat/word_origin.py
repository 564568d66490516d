"""What the app shows of the inside of an answer: where a word came from, what each query read, what each matched.

Notes:

* The method is the one that pointed best among those that can be trusted and are quick
  (`grounding.json` beside the model's weights, as `blip2-lab evaluate grounding` writes it).
* The rows of a map are queries, a resampler's latents, or, with gated cross-attention, the tokens of the text. A linear
  projector has one map and no rows (`interpret/targets.py`).
* It runs beside the chat in its own thread; a recording sees only its own thread's passes.

Paper: section 3.1. Notebook: 09.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from blip2_lab.chat.conversation import Conversation, EncodedImage, Turn
from blip2_lab.checkpoints.names import model_path
from blip2_lab.common.files import read_object
from blip2_lab.interpret.attribution import METHODS, OF_ATTENTION, defined_methods
from blip2_lab.interpret.targets import ItcScore, ItmScore, WordScore, answer_words, reader_of
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.plots.attention import overlay

QUICK = "gradient"  #: the method where none was measured
QUICK_WITHOUT_ATTENTION = "layer"  #: the same for a linear projector
SIZE = 384
SMALL = 128


@dataclass(frozen=True)
class Origin:
    """Where a word came from: the picture with the place lit, its probability, and small pictures of what each row of
    the map read, most first: a query, a latent or a token of the text. A linear projector has no rows."""

    word: str
    probability: float
    picture: Image.Image
    rows: tuple[tuple[Image.Image, str], ...]


def quick_method(model: Stage2Model) -> str:
    """The method for a model where none was measured."""
    return QUICK if reader_of(model.bridge) is not None else QUICK_WITHOUT_ATTENTION


def method_of(model: Stage2Model, name: str) -> str:
    """The measured choice for a model by its name or folder, else `quick_method`."""
    path = model_path(name) / "grounding.json"
    if not path.is_file():
        return quick_method(model)
    chosen = read_object(path, remedy="remove this file").get("recommended")
    return chosen if chosen in defined_methods(reader_of(model.bridge)) else quick_method(model)


def last_prompt(model: Stage2Model, encoded: EncodedImage, turns: list[Turn]) -> str:
    """What the language model was given for the last answer."""
    return Conversation(model, encoded, list(turns[:-1])).prompt(turns[-1].question)


def words_of(model: Stage2Model, encoded: EncodedImage, turns: list[Turn]) -> list[str]:
    """The words of the last answer; none before there is one, and none where the page spoke in the model's place."""
    if not turns or not turns[-1].by_model or not turns[-1].answer.strip():
        return []
    found = answer_words(model.language_model, last_prompt(model, encoded, turns), turns[-1].answer)
    return [word for word, _ in found]


def origin(
    model: Stage2Model,
    encoded: EncodedImage,
    image: Image.Image,
    turns: list[Turn],
    word: int,
    method: str | None = None,
) -> Origin:
    """Where word number `word` of the last answer came from. Raises ValueError when there is no such word."""
    if not turns:
        raise ValueError("There is no answer yet: ask something about the picture first.")
    score = WordScore(model, last_prompt(model, encoded, turns), turns[-1].answer, word)
    pixels = model.image_encoder.preprocess([image])
    method = method or quick_method(model)
    explanation = METHODS[method](score, pixels)
    rows = None if score.reader is None else explanation.map
    if rows is not None and method not in OF_ATTENTION:  # this method has one map: rows come from the quick one
        rows = METHODS[QUICK](score, pixels).map
    with torch.no_grad():
        probability = score.probability(score.of_features(encoded.image_features)).item()
    found = () if rows is None else _gallery(image, rows, score.row_names())
    return Origin(score.word, probability, overlay(image, explanation.total, size=SIZE), found)


def _gallery(image: Image.Image, rows: Tensor, names: list[str]) -> tuple[tuple[Image.Image, str], ...]:
    """rows [Q, h, w] and their names -> small pictures, the row with the largest share first."""
    shares = rows.clamp(min=0).sum(dim=(1, 2))
    shares = shares / shares.sum().clamp(min=1e-12)
    order = shares.argsort(descending=True).tolist()
    return tuple((overlay(image, rows[i], size=SMALL), f"{names[i]}: {shares[i]:.0%}") for i in order)


def matches(model: Stage2Model, encoded: EncodedImage, text: str) -> tuple[Tensor, Tensor]:
    """What each query says of a text: ITC's cosines [Q], of which the best counts, and ITM's verdicts [Q], averaged."""
    with torch.no_grad():
        features = encoded.image_features
        itc, itm = ItcScore(model.stage1, text), ItmScore(model.stage1, text)
        return itc.by_query(features)[0], itm.by_query(features)[0]
