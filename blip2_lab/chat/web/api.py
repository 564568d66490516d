"""The app for programs: named parameters, plain values, and for every refusal an error with its sentence.

`build_api` is where to begin; docs/api.md shows how it is used.

Notes:

* A session keeps its picture and its conversation, as a visitor's page does. `/look` and `/draw` begin anew.
* Gradio derives an API from events of components, so each function here is the event of an invisible button.
* The functions raise ValueError; `Errors` makes of it what gradio sends to a client.

Paper: section 4.1. Notebook: 12.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from PIL import Image

from blip2_lab.chat.batching import Batcher
from blip2_lab.chat.conversation import Conversation, ImageCache, Turn
from blip2_lab.chat.out_of_distribution import DrawnWorld, outside_sentence
from blip2_lab.chat.vocabulary import check
from blip2_lab.chat.web.components import (
    KEPT,
    LOST,
    MODEL_EVENT,
    Missing,
    decoding_from_controls,
    only_text,
    picture_input,
    scaled,
    sentence,
)
from blip2_lab.common.images import WEB_FORMATS, open_image
from blip2_lab.models.decoding import Token
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import COLORS, KINDS, PLACES, POSITIONS, SIZES, TIMES, Scene, Thing

NO_PICTURE = "There is no picture in this session: send one with /look, or have one drawn with /draw."
THING = "A thing is [kind, color, size, position]"

Kept = Image.Image | Missing | None  #: what gr.State holds in place of a picture


def errors(function: Callable) -> Callable:
    """The same function; its ValueError becomes an error that gradio sends to the client, without a traceback."""

    @functools.wraps(function)
    def told(*arguments: Any) -> Iterator[Any]:
        try:
            yield from function(*arguments)
        except ValueError as error:
            raise gr.Error(sentence(str(error)), print_exception=False) from None

    told.__name__ = f"api_{function.__name__}"
    return told


def words_and_probabilities(tokens: tuple[Token, ...]) -> list[dict[str, str | float]]:
    """The words of an answer, each with the model's own probability of it."""
    return [{"word": t.text.strip(), "probability": round(t.probability, 4)} for t in tokens if t.text.strip()]


def scene_of(place: str, time: str, things: Any) -> Scene:
    """The scene that a program described. Raises ValueError when it cannot be drawn."""
    if place not in PLACES or time not in TIMES:
        raise ValueError(f"A place is one of {', '.join(PLACES)}; a time is {' or '.join(TIMES)}.")
    if not isinstance(things, list) or not 1 <= len(things) <= 4:
        raise ValueError(f"Give a list of one to four things. {THING}.")
    drawn, known = [], (KINDS, COLORS, SIZES, POSITIONS)
    for thing in things:
        if not isinstance(thing, list) or len(thing) != 4 or any(not isinstance(word, str) for word in thing):
            raise ValueError(f"{THING}.")
        for word, choices in zip(thing, known, strict=True):
            if word not in choices:
                raise ValueError(f"{word[:30]!r} is none of {', '.join(choices)}.")
        row, column = divmod(POSITIONS.index(thing[3]), 3)
        drawn.append(Thing(*thing[:3], (column + 0.5) / 3, (row + 0.5) / 3))
    if len({thing[3] for thing in things}) < len(things):
        raise ValueError("Two things stand in one position: give each a position of its own.")
    return Scene(tuple(drawn), place, time)


class Api:
    """What a program can ask of the app. Each method yields what its endpoint gives."""

    def __init__(
        self, model: Stage2Model, image_cache: ImageCache, batcher: Batcher, familiar: DrawnWorld | None = None
    ) -> None:
        self.model, self.image_cache, self.batcher, self.familiar = model, image_cache, batcher, familiar

    def look(self, picture):
        """A picture to talk about -> "" or, where it is like none the model has seen, a sentence that says so."""
        if picture is None:
            raise ValueError("There is no picture: give a PNG, JPEG, WebP or GIF file.")
        image = open_image(picture, WEB_FORMATS)
        image, note = scaled(image, min(KEPT, max(image.size))), ""
        if self.familiar is not None:
            distance = self.familiar.distance(self.image_cache.encode(image).image_features).item()
            note = outside_sentence(distance, self.familiar.limit) if distance > self.familiar.limit else ""
        yield note, image, []

    def draw(self, things, place, time):
        """A scene of the picture book to talk about -> the picture."""
        image = draw(scene_of(place, time, things), 384)
        yield image, image, []

    def ask(
        self,
        question,
        image: Kept,
        turns: list[Turn],
        method,
        beams,
        top_p,
        temperature,
        max_tokens,
        length_penalty,
        repetition_penalty,
        seed,
    ):
        """A question about the picture -> the answer, its words with their probabilities, and "" or, where words of
        the question were read otherwise or not at all, sentences that name them."""
        check(question)
        if not isinstance(image, Image.Image):
            raise ValueError(NO_PICTURE)
        decoding = decoding_from_controls(
            method, beams, top_p, temperature, max_tokens, length_penalty, repetition_penalty
        )
        encoded = self.image_cache.encode(image)
        talk = Conversation(self.model, encoded, list(turns), streaming=self.batcher.stream)
        for reply in talk.ask(question, decoding, seed=int(seed or 0)):  # a client that goes away stops the model
            if not talk.turns[-1].by_model:  # a greeting or a bare name: what the page says to it is no answer
                raise ValueError(reply.text)
            yield reply.text, words_and_probabilities(reply.words), reply.note, list(talk.turns)

    def match(self, sentence, image: Kept):
        """How well a sentence fits the picture -> ITC's cosine, ITM's probability of a match."""
        check(sentence, "sentence", "a red boat on the beach.")
        if not isinstance(image, Image.Image):
            raise ValueError(NO_PICTURE)
        score = Conversation(self.model, self.image_cache.encode(image)).match(sentence)
        yield round(score.itc, 4), round(score.itm, 4)


def endpoint(function: Callable, name: str, inputs: list, outputs: list) -> None:
    """Let programs call a function, which waits for the model like a visitor's question."""
    button = gr.Button(visible=False)
    button.click(errors(function), inputs, outputs, api_name=name, api_description=function.__doc__, **MODEL_EVENT)


def text_input(label: str) -> gr.Textbox:
    """A text that a program sends. None, and everything else that is no text, becomes None."""
    text = gr.Textbox(label=label, visible=False)
    text.preprocess = only_text
    return text


def build_api(api: Api, controls: list, seed: gr.Number) -> None:
    """The endpoints, inside a page. `controls` and `seed` are the page's: their values are the defaults.

    The picture and the conversation of a program's session are its own: a page's events do not touch them.
    """
    image, turns = gr.State(LOST), gr.State([])
    endpoint(api.look, "look", [picture_input()], [gr.Textbox(label="note", visible=False), image, turns])
    scene = [
        gr.JSON(label="things", visible=False),
        gr.Dropdown(PLACES, value="meadow", label="place", visible=False),
        gr.Dropdown(TIMES, value="day", label="time", visible=False),
    ]
    endpoint(api.draw, "draw", scene, [gr.Image(label="picture", visible=False), image, turns])
    answer = [gr.Textbox(label="answer", visible=False), gr.JSON(label="words", visible=False)]
    note = gr.Textbox(label="note", visible=False)
    endpoint(api.ask, "ask", [text_input("question"), image, turns, *controls, seed], [*answer, note, turns])
    if api.model.stage1 is not None:
        scores = [gr.Number(label="itc", visible=False), gr.Number(label="itm", visible=False)]
        endpoint(api.match, "match", [text_input("sentence"), image], scores)
