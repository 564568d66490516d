"""Two models side by side: the same picture and the same question, and how sure each is of each word of its answer.

`build_beside` is where to begin.

    python app.py --model runs/micro-linear --beside runs/micro-qformer

Notes:

* Each model goes on with its own conversation: a question that refers to an answer refers to its own.
* What one of them refuses (a word that it does not know) stands in its column; the other answers.
* Both columns grow together: a token of one, a token of the other.

Paper: section 4.1. Notebook: 12.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

import gradio as gr
from PIL import Image

from blip2_lab.chat.batching import AT_ONCE, Batcher
from blip2_lab.chat.conversation import INSTRUCTIONS, Conversation, ImageCache, Reply, Turn
from blip2_lab.chat.vocabulary import check, knows_whole_words_only
from blip2_lab.chat.web import line
from blip2_lab.chat.web.api import Api, Kept, endpoint, text_input, words_and_probabilities
from blip2_lab.chat.web.components import (
    GALLERY,
    LOST,
    MODEL_EVENT,
    UNSEEN,
    chosen,
    decoding_controls,
    decoding_from_controls,
    frame,
    only_text,
    opened,
    picture_input,
    scaled,
    sentence,
    started,
    uploaded_file,
    warn,
    words_html,
)
from blip2_lab.models.decoding import Decoding
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.words import full_caption

SHOWN = 512  #: pixels on the longer side of the picture that is sent to the browser
NOTHING_ASKED = (
    "<p class='quiet'>Ask something: both answers appear here, each word from green (sure) to red (unsure).</p>"
)
PRIVATE = dict(api_visibility="private", api_name="page")


@dataclass(frozen=True)
class Answer:
    """What one model said to a question: its reply so far, or the sentence with which it refused."""

    reply: Reply | None = None
    refused: str = ""


@dataclass(frozen=True)
class Exchange:
    """A question and the answers of both."""

    question: str
    answers: tuple[Answer, Answer]


@dataclass(frozen=True)
class Talk:
    """A visitor's conversation: the turns of each model, and what has been asked."""

    turns: tuple[tuple[Turn, ...], tuple[Turn, ...]] = ((), ())
    exchanges: tuple[Exchange, ...] = ()


class Beside:
    """What happens on the page of two models, name -> model."""

    def __init__(self, models: Mapping[str, Stage2Model], at_once: int = AT_ONCE) -> None:
        if len(models) != 2:
            raise ValueError("Two different models stand side by side: give a second one with --beside.")
        for name, model in models.items():
            if not isinstance(model, Stage2Model):
                raise ValueError(f"{name} has no language model: it finds pictures and cannot answer beside another.")
        self.names, self.models = tuple(models), tuple(models.values())
        self.caches = [ImageCache(model, capacity=2 * line.AT_ONCE) for model in self.models]
        self.batchers = [Batcher(model.language_model, at_once) for model in self.models]

    def answer(self, text: str, image: Image.Image, talk: Talk, decoding: Decoding, seed: int) -> Iterator[Talk]:
        """The growing answers of both. Raises ValueError for a text that no model can be asked."""
        question = check(text)
        talks, streams = [], []
        for model, cache, batcher, turns in zip(self.models, self.caches, self.batchers, talk.turns, strict=True):
            talks.append(Conversation(model, cache.encode(image), list(turns), streaming=batcher.stream))
            streams.append(self._replies(talks[-1], question, decoding, seed))
        answers = [Answer(), Answer()]
        try:
            while any(streams):
                for i, stream in enumerate(streams):
                    if stream is None:
                        continue
                    if (found := next(stream, None)) is None:
                        streams[i] = None
                    else:
                        answers[i] = found
                exchange = Exchange(question, (answers[0], answers[1]))
                turns = tuple(tuple(one.turns) for one in talks)
                yield Talk(turns, (*talk.exchanges, exchange))
        finally:
            for stream in streams:
                if stream is not None:
                    stream.close()

    @staticmethod
    def _replies(talk: Conversation, question: str, decoding: Decoding, seed: int) -> Iterator[Answer]:
        try:
            for reply in talk.ask(question, decoding, seed=seed):
                yield Answer(reply)
        except ValueError as error:
            yield Answer(refused=sentence(str(error)))

    # -- what is clicked on the page -------------------------------------------------------------------------------

    def ask_both(self, text: str, image: Kept, talk: Talk, seed: float, *controls):
        """A question -> (box, table, talk), again and again while the answers grow."""
        try:
            for grown in self.answer(text, chosen(image), talk, decoding_from_controls(*controls), int(seed or 0)):
                yield "", self.table(grown), grown
        except ValueError as error:  # the question stays in the box, to be mended
            warn(str(error))
            yield text, self.table(talk), talk

    def look(self, file: bytes | None):
        """Another picture came: -> picture to show, image, table, talk. A file that is none changes nothing."""
        image = opened(file)
        return tuple(gr.skip() for _ in range(4)) if image is None else self.show(image)

    def pick(self, event: gr.SelectData):
        """A picture of the gallery was clicked."""
        return self.show(draw(GALLERY[event.index], 384))

    def show(self, image: Image.Image):
        return scaled(image, SHOWN), image, self.table(Talk()), Talk()

    def table(self, talk: Talk) -> str:
        """All exchanges as HTML, the newest first."""
        if not talk.exchanges:
            return NOTHING_ASKED
        heads = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in self.names)
        rows = "".join(
            f"<tr><th scope='rowgroup' colspan='2'>{html.escape(exchange.question)}</th></tr>"
            f"<tr>{''.join(f'<td>{answer_html(answer)}</td>' for answer in exchange.answers)}</tr>"
            for exchange in reversed(talk.exchanges)
        )
        return f"<div class='beside'><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"

    # -- for programs ----------------------------------------------------------------------------------------------

    def both(
        self,
        question,
        image: Kept,
        talk: Talk,
        method,
        beams,
        top_p,
        temperature,
        max_tokens,
        length_penalty,
        repetition_penalty,
        seed,
    ):
        """A question to both models -> a list of their answers, each with its words, their probabilities and a note."""
        check(question)
        image = chosen(image)
        decoding = decoding_from_controls(
            method, beams, top_p, temperature, max_tokens, length_penalty, repetition_penalty
        )
        for grown in self.answer(question, image, talk, decoding, int(seed or 0)):
            found = [
                {
                    "model": name,
                    "answer": a.reply.text,
                    "words": words_and_probabilities(a.reply.words),
                    "note": a.reply.note,
                }
                if a.reply
                else {"model": name, "refused": a.refused}
                for name, a in zip(self.names, grown.exchanges[-1].answers, strict=True)
            ]
            yield found, grown


def answer_html(answer: Answer) -> str:
    """One model's answer: its words with their probabilities, or its sentence."""
    if answer.reply is None:
        return f"<p>{html.escape(answer.refused or '…')}</p>"
    reply = answer.reply
    if not reply.words:  # a greeting that the lab answers itself, or a beam search under way
        return f"<p>{html.escape(reply.text or '…')}</p>"
    least = min(reply.words, key=lambda word: word.probability)
    unsure = f"Least sure of “{html.escape(least.text.strip())}” ({least.probability:.0%})."
    note = f" {html.escape(reply.note)}" if reply.note else ""
    return f"{words_html(reply.words)}<p class='quiet'>{unsure}{note}</p>"


def build_beside(models: Mapping[str, Stage2Model], *, at_once: int = AT_ONCE) -> gr.Blocks:
    """The page of two models. Raises ValueError where one of them cannot answer."""
    beside = Beside(models, at_once)
    miniature = all(knows_whole_words_only(model.language_model.tokenizer) for model in beside.models)
    first = draw(GALLERY[0], 384) if miniature else None
    with frame() as page:
        image, talk = gr.State(LOST), gr.State(Talk())
        page.load(lambda image: started(image, first), image, image, **UNSEEN)
        gr.Markdown("# Two models, one question\nThe same picture and the same words to both.", elem_id="title")
        with gr.Row(equal_height=False, elem_id="groups"):
            with gr.Column(min_width=0, elem_id="picture-group"):
                picture = gr.Image(
                    scaled(first, SHOWN) if first else None,
                    label="Picture",
                    show_label=False,
                    interactive=False,
                    height=300,
                    buttons=["fullscreen"],
                    elem_id="picture",
                )
                upload = gr.UploadButton(
                    "Upload, drop or paste a picture", file_types=["image"], size="sm", elem_id="upload"
                )
                upload.preprocess = uploaded_file
            with gr.Column(min_width=0, elem_id="talk-group"):
                with gr.Row(elem_id="asking"):
                    box = gr.Textbox(
                        label="Your question",
                        placeholder="Ask both about the picture …",
                        show_label=False,
                        min_width=0,
                        max_lines=5,
                        elem_id="box",
                    )
                    box.preprocess = only_text
                    ask = gr.Button("Ask", variant="primary", min_width=0, elem_id="ask")
                    stop = gr.Button("Stop", variant="stop", min_width=0, elem_id="stop")
                table = gr.HTML(NOTHING_ASKED, elem_id="answers", padding=False)
                with gr.Row(elem_classes="chips"):
                    texts = INSTRUCTIONS["micro" if miniature else "real"]
                    chips = [gr.Button(text, size="sm", min_width=60) for text in texts]
                clear = gr.Button("Clear", size="sm", min_width=0)
                with gr.Accordion("How the answers are chosen", open=False):
                    controls, seed = decoding_controls()
            with gr.Column(min_width=0, elem_id="book-group"):
                # the captions are for screen readers only: app.css hides them
                gallery = gr.Gallery(
                    [(draw(scene, 192), full_caption(scene, Random(1))) for scene in GALLERY],
                    label="Picture book",
                    columns=4,
                    object_fit="cover",
                    height="auto",
                    allow_preview=False,
                    show_label=False,
                    interactive=False,
                    buttons=[],
                    elem_id="gallery",
                )
        now = dict(fn=None, queue=False, **PRIVATE)
        answered, asking = [box, table, talk], [image, talk, seed, *controls]
        asked = []
        for triggers, given in [([ask.click, box.submit], box), *(([chip.click], chip) for chip in chips)]:
            event = gr.on(triggers, **now).then(beside.ask_both, [given, *asking], answered, **PRIVATE, **MODEL_EVENT)
            asked.append((triggers, event))
        events = [event for _, event in asked]
        for triggers, event in asked:  # a new question ends the answers to the one before
            gr.on(triggers, cancels=[e for e in events if e is not event], **now)
        stop.click(cancels=events, **now)
        shown = [picture, image, table, talk]
        changes = [
            (upload.upload, dict(fn=beside.look, inputs=upload, outputs=shown)),
            (gallery.select, dict(fn=beside.pick, outputs=shown)),
            (clear.click, dict(fn=lambda: (beside.table(Talk()), Talk()), outputs=[table, talk])),
        ]
        for trigger, change in changes:
            gr.on([trigger], cancels=events, **now)
            gr.on([trigger], **change, trigger_mode="multiple", **PRIVATE, **MODEL_EVENT)
        _for_programs(beside, seed, controls)
    return page


def _for_programs(beside: Beside, seed: gr.Number, controls: list) -> None:
    """The endpoints `/look`, `/draw` and `/ask`, with a picture and a talk of their own."""
    image, talk = gr.State(LOST), gr.State(Talk())
    api = Api(beside.models[0], beside.caches[0], beside.batchers[0])

    def look(picture):
        for note, kept, _ in api.look(picture):
            yield note, kept, Talk()

    def draw_scene(things, place, time):
        for drawn, kept, _ in api.draw(things, place, time):
            yield drawn, kept, Talk()

    look.__doc__, draw_scene.__doc__ = api.look.__doc__, api.draw.__doc__
    endpoint(look, "look", [picture_input()], [gr.Textbox(label="note", visible=False), image, talk])
    scene = [
        gr.JSON(label="things", visible=False),
        gr.Textbox("meadow", label="place", visible=False),
        gr.Textbox("day", label="time", visible=False),
    ]
    endpoint(draw_scene, "draw", scene, [gr.Image(label="picture", visible=False), image, talk])
    answers = gr.JSON(label="answers", visible=False)
    endpoint(beside.both, "ask", [text_input("question"), image, talk, *controls, seed], [answers, talk])
