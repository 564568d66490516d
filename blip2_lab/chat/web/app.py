"""The chat: show BLIP-2 a picture, ask in words, and see how sure it is of each word.

    python app.py                                                       the micro model: ready in seconds, no download
    python app.py --model Salesforce/blip2-flan-t5-xxl --quantize int8  real weights, photographs, a large machine

Only the chat's page is here; start.py has the options of the command line. What is said to the model and how it answers
is in chat/conversation.py; what the page is made of, in components.py; its search, in search_tab.py; the same for
programs, in api.py.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from random import Random

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported: it reads them once
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# gradio (6.31) makes a table of the last events in pandas after each of them, for a page that is closed here
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")

import gradio as gr
from PIL import Image

import blip2_lab
from blip2_lab.chat import out_of_distribution, word_origin
from blip2_lab.chat.batching import AT_ONCE, Batcher
from blip2_lab.chat.conversation import INSTRUCTIONS, WHICH_SCORE, Conversation, ImageCache, Reply, Turn
from blip2_lab.chat.untaught import Untaught
from blip2_lab.chat.vocabulary import UnknownWords, knows_whole_words_only
from blip2_lab.chat.web.api import Api, build_api
from blip2_lab.chat.web.beside import build_beside
from blip2_lab.chat.web.components import (
    GALLERY,
    LOST,
    LOST_PICTURE,
    MODEL_EVENT,
    UNSEEN,
    Missing,
    as_text,
    chosen,
    confidence_html,
    decoding_controls,
    decoding_from_controls,
    frame,
    free_port,
    match_html,
    only_text,
    opened,
    origin_frame_html,
    origin_html,
    outside_html,
    queries_html,
    scaled,
    sentence,
    serve,
    started,
    uploaded_file,
    warn,
)
from blip2_lab.chat.web.line import AT_ONCE as VISITORS
from blip2_lab.chat.web.search_tab import Search, build_search, search_tab
from blip2_lab.evaluation import calibration
from blip2_lab.evaluation.calibration import Calibration
from blip2_lab.interpret.targets import reader_of
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import COLORS, KINDS, PLACES, POSITIONS, SIZES, TIMES, Scene, Thing
from blip2_lab.picturebook.words import full_caption

NOTHING = "(nothing)"
MENUS = (  # what the menus show at first: kind, color, size, position
    ("boat", "red", "large", "left"),
    ("cat", "blue", "small", "top right"),
    (NOTHING, "yellow", "large", "bottom"),
    (NOTHING, "green", "small", "bottom right"),
)
PICTURES = dict(height="auto", allow_preview=False, show_label=False, interactive=False, buttons=[])  #: in a gallery
SHOWN = 512  #: pixels on the longer side of the picture that is sent back to the browser
NOT_API = dict(api_visibility="private", api_name="page")  #: an event of the page; api.py has the programs' own names
NO_WORDS = "<p class='quiet'>After an answer, its words appear here: click one.</p>"
NO_STAGE1 = (
    "This model has no stage 1, which compares pictures with sentences: so there is no match meter and no search."
)
ORIGIN_NOTE = "<p class='quiet'>Click a word: the part of the picture that made the model say it lights up.</p>"


# -------------------------------------------------------------------------------------------------- small pure pieces


def scene_from_menus(place: str, time: str, *menus: str) -> Scene:
    """The scene of the menus: kind, color, size, position for each thing. Raises ValueError when it cannot be drawn."""
    things, taken = [], set()
    for kind, color, size, position in zip(*[iter(menus)] * 4, strict=True):
        if kind == NOTHING:
            continue
        if position in taken:
            raise ValueError(f'Two things stand at "{position}": give each a place of its own.')
        taken.add(position)
        row, column = divmod(POSITIONS.index(position), 3)
        things.append(Thing(kind, color, size, (column + 0.5) / 3, (row + 0.5) / 3))
    if not things:
        raise ValueError("There is nothing to draw: choose at least one thing.")
    return Scene(tuple(things), place, time)


def waiting(reply: Reply) -> str:
    """What stands where the answer will: how far beam search is, which has nothing to show before its end."""
    if reply.done:
        return ""
    return f"… beam search: {reply.searched} tokens tried" if reply.searched else "…"


UNSURE = "I am not sure."  #: under an answer that is more often wrong than right


def bubbles(turns: list[Turn]) -> list[dict]:
    """The chat's messages: what was asked and what was answered, as text."""
    said = [message for turn in turns for message in (("user", turn.question), ("assistant", _answer(turn)))]
    return [{"role": role, "content": as_text(text)} for role, text in said]


def _answer(turn: Turn) -> str:
    answer = f"{turn.answer} (stopped)".strip() if turn.stopped else turn.answer
    notes = [turn.note] if turn.note else []
    notes += [UNSURE] if turn.unsure and not turn.stopped else []
    return f"{answer}\n({' '.join(notes)})" if notes else answer


def forget() -> tuple[list, list, str]:
    """-> an empty chat, no turns, no confidence."""
    return [], [], confidence_html(())


# ------------------------------------------------------------------------------------------------------- the handlers


class App:
    """What happens when something is clicked. One model for all visitors; what is a visitor's own is in gr.State."""

    def __init__(
        self,
        model: Stage2Model,
        familiar: out_of_distribution.DrawnWorld | None = None,
        method: str | None = None,
        calibration: Calibration | None = None,
        at_once: int = AT_ONCE,
    ) -> None:
        self.model = model
        self.batcher = Batcher(model.language_model, at_once)
        self.method = method or word_origin.quick_method(model)  # shows where a word came from
        self.image_cache = ImageCache(model, capacity=2 * VISITORS)  # a question does not encode its picture again
        self.familiar = familiar
        self.calibration = calibration

    def look(self, file: str | bytes | None = None):
        """A picture came (or went): -> picture to show, note, image, turns, chat, confidence."""
        image = opened(file)
        return (None, "", None, *forget()) if image is None else self._show(image)

    def replace(self, file: bytes | None = None):
        """Another picture came. A file that is none leaves the one before where it is."""
        image = opened(file)
        return tuple(gr.skip() for _ in range(6)) if image is None else self._show(image)

    def gone(self, _: None, there: bool):
        """The picture on the page changed: -> what `look` gives, less the picture, when there is none any more."""
        return tuple(gr.skip() for _ in range(5)) if there else self.look()[1:]

    def pick(self, event: gr.SelectData):
        """A picture of the gallery was clicked."""
        return self._show(draw(GALLERY[event.index], 384))

    def draw(self, place: str, time: str, *menus: str):
        """A scene was put together from the menus."""
        try:
            return self._show(draw(scene_from_menus(place, time, *menus), 384))
        except ValueError as error:
            warn(str(error))
            return tuple(gr.skip() for _ in range(6))

    def _show(self, image: Image.Image):
        encoded, note = self.image_cache.encode(image), ""
        if self.familiar is not None:
            distance = self.familiar.distance(encoded.image_features).item()
            if distance > self.familiar.limit:
                note = outside_html(distance, self.familiar.limit)
        return scaled(image, SHOWN), note, image, *forget()

    def ask(self, text: str, image: Image.Image | Missing | None, turns: list[Turn], seed: float, *controls):
        """A question -> (box, chat, turns, confidence), again and again while the answer grows."""
        try:
            encoded = self.image_cache.encode(chosen(image))
            answering = dict(calibration=self.calibration, streaming=self.batcher.stream)
            talk = Conversation(self.model, encoded, list(turns), **answering)
            for reply in talk.ask(text, decoding_from_controls(*controls), seed=int(seed or 0)):
                growing = replace(talk.turns[-1], answer=talk.turns[-1].answer or waiting(reply), stopped=False)
                sure = confidence_html(reply.words) if growing.by_model else gr.skip()
                yield "", bubbles([*talk.turns[:-1], growing]), list(talk.turns), sure
        except (UnknownWords, Untaught) as error:  # the question stays in the box, to be mended
            refused = [*turns, Turn(text.strip(), sentence(str(error)), by_model=False)]
            yield text, bubbles(refused), refused, gr.skip()
        except ValueError as error:
            warn(str(error))
            yield text, bubbles(turns), turns, gr.skip()

    def stopped(self, turns: list[Turn]) -> list[dict]:
        """The answer was stopped: -> the chat, which says so."""
        return bubbles(turns)

    def again(self, image: Image.Image | Missing | None, turns: list[Turn], seed: float, *controls):
        """The last question once more. Greedy and beam search would answer the same, so this one is sampled."""
        if not turns:
            warn(LOST_PICTURE if image is LOST else "There is no question to answer again yet.")
            yield gr.skip(), bubbles(turns), turns, gr.skip(), seed
            return
        controls, fresh = ("nucleus sampling", *controls[1:]), int(seed or 0) + 1
        for refused, *answered in self.ask(turns[-1].question, image, turns[:-1], fresh, *controls):
            if refused:  # the question came back, without its answer from before: that one stays
                yield gr.skip(), bubbles(turns), turns, gr.skip(), seed
            else:
                yield gr.skip(), *answered, fresh

    def match(self, text: str, image: Image.Image | Missing | None) -> str:
        """How well a sentence fits the picture."""
        try:
            encoded = self.image_cache.encode(chosen(image, "There is no picture yet to compare the text with."))
            score = Conversation(self.model, encoded).match(text)
            by_query = word_origin.matches(self.model, encoded, text)
        except ValueError as error:
            warn(str(error))
            return ""
        return match_html(score.itc, score.itm) + queries_html(*(values.tolist() for values in by_query))

    def offer(self, image: Image.Image | Missing | None, turns: list[Turn]):
        """The words of the last answer, to be clicked: -> menu of words, what stands below it."""
        words = (
            word_origin.words_of(self.model, self.image_cache.encode(image), turns)
            if isinstance(image, Image.Image)
            else []
        )
        menu = gr.Radio([(word, i) for i, word in enumerate(words)], value=None, visible=bool(words))
        return menu, ORIGIN_NOTE if words else NO_WORDS

    def origin(self, word: int | None, image: Image.Image | Missing | None, turns: list[Turn]) -> str:
        """A word was clicked: -> where it came from."""
        if word is None or image is None:
            return NO_WORDS
        try:
            found = word_origin.origin(
                self.model, self.image_cache.encode(chosen(image)), image, turns, int(word), self.method
            )
        except ValueError as error:
            warn(str(error))
            return NO_WORDS
        reader = reader_of(self.model.bridge)
        return origin_html(found.word, found.probability, self.method, found.picture, found.rows, reader)


# ----------------------------------------------------------------------------------------------------------- the page


def build(
    model: Stage2Model,
    *,
    name: str = "micro",
    familiar: out_of_distribution.DrawnWorld | None = None,
    calibration: Calibration | None = None,
    folder: Path | None = None,
    at_once: int = AT_ONCE,
) -> gr.Blocks:
    """The page around a model.

    at_once      questions that are answered in one batch
    familiar     knows what the model has seen; None: never say that a picture is strange
    calibration  knows which answers are unsure; None: never say so
    """
    app = App(model, familiar, word_origin.method_of(model, name), calibration, at_once)
    miniature = knows_whole_words_only(model.language_model.tokenizer)  # the shipped one, or one you trained
    start = draw(GALLERY[0], 384) if miniature else None  # something to talk about from the first second
    with frame() as page:
        image, turns = gr.State(LOST), gr.State([])
        # not as the default, which comes back when the session is lost
        page.load(lambda image: started(image, start), image, image, **UNSEEN)
        gr.Markdown(_title(name, miniature, familiar), elem_id="title")
        # three groups in the order of a phone: picture, talk, other pictures; app.css puts the third under the first
        with gr.Row(equal_height=False, elem_id="groups"):
            with gr.Column(min_width=0, elem_id="picture-group"):
                picture = gr.Image(
                    scaled(start, SHOWN) if start else None,
                    label="Picture",
                    show_label=False,
                    placeholder="Drop a picture here, or click\nPNG, JPEG, WebP or GIF",
                    sources=["upload"],
                    height=340,
                    buttons=["fullscreen"],
                    elem_id="picture",
                )
                # gr.Image's own icons for this (6.31) take the picture away before another one has come
                upload = gr.UploadButton(
                    "Upload, drop or paste a picture", file_types=["image"], size="sm", elem_id="upload"
                )
                picture.preprocess = upload.preprocess = uploaded_file
                there = gr.Checkbox(visible=False)
                note = gr.HTML(elem_id="note", padding=False)
            with gr.Column(min_width=0, elem_id="talk-group"):
                chat = gr.Chatbot(
                    label="Chat",
                    show_label=False,
                    height=380,
                    render_markdown=False,
                    buttons=[],
                    placeholder="Ask about the picture, or choose another one.",
                    elem_id="chat",
                )
                with gr.Row(elem_id="asking"):
                    hint = "Ask about the picture …"
                    box = gr.Textbox(
                        label="Your question",
                        placeholder=hint,
                        show_label=False,
                        min_width=0,
                        max_lines=5,
                        elem_id="box",
                    )
                    ask = gr.Button("Ask", variant="primary", min_width=0, elem_id="ask")
                    box.preprocess = only_text
                    stop = gr.Button("Stop", variant="stop", min_width=0, elem_id="stop")
                with gr.Row(elem_classes="chips"):
                    texts = INSTRUCTIONS["micro" if miniature else "real"]
                    chips = [gr.Button(text, size="sm", min_width=60) for text in texts]
                with gr.Row():
                    again = gr.Button("Another answer", size="sm", min_width=0)
                    clear = gr.Button("Clear the chat", size="sm", min_width=0)
                with gr.Accordion("How sure is it of each word?", open=True):
                    confidence = gr.HTML(confidence_html(()), elem_id="confidence")
                with gr.Accordion("Where did a word come from?", open=True):
                    panel = _word_panel()
                with gr.Accordion("How the answer is chosen", open=False):
                    controls, seed = decoding_controls()
            with gr.Column(min_width=0, elem_id="book-group"):
                with gr.Tab("Picture book"):
                    # the captions are for screen readers only; to all others they would tell the answers
                    scenes = [(draw(scene, 192), full_caption(scene, Random(1))) for scene in GALLERY]
                    gallery = gr.Gallery(
                        scenes, label="Picture book", columns=4, object_fit="cover", **PICTURES, elem_id="gallery"
                    )
                with gr.Tab("Draw a scene"):
                    draw_button, menus = _menus()
                if model.stage1 is not None:
                    with gr.Tab("Match meter"):
                        _match_tab(app, image, full_caption(GALLERY[0], Random(1)) if miniature else None)
                    with gr.Tab("Search"):
                        search_tab(Search(model, folder), image)
                else:
                    gr.HTML(f"<p class='quiet'>{NO_STAGE1}</p>", elem_id="no-stage1")

        build_api(Api(model, app.image_cache, app.batcher, familiar), controls, seed)
        private = NOT_API
        shown = [picture, note, image, turns, chat, confidence]
        answered = [box, chat, turns, confidence]
        asking = [image, turns, seed, *controls]
        asked = []  # (what starts it, the event)
        # The browser runs what a click starts one by one, each to its end; only what comes `then` runs beside the next.
        # So an answer comes `then`, after nothing: what cancels, next in line, does not wait for its end.
        now = dict(fn=None, queue=False, **private)
        for triggers, given in [([ask.click, box.submit], box), *(([chip.click], chip) for chip in chips)]:
            event = gr.on(triggers, **now).then(app.ask, [given, *asking], answered, **private, **MODEL_EVENT)
            asked.append((triggers, event))
        event = again.click(**now).then(app.again, asking, [*answered, seed], **private, **MODEL_EVENT)
        asked.append(([again.click], event))
        # in a line of their own: the chat never waits for them
        look_inside = dict(concurrency_id="inside", concurrency_limit=1, show_progress="hidden", **private)
        offer = dict(fn=app.offer, inputs=[image, turns], outputs=panel, **look_inside)
        for _, event in asked:
            event.then(**offer)
        word, origin = panel
        rows = {"bridge": 4, None: 0}.get(reader_of(model.bridge), model.num_visual_tokens)  # of a word's map
        frame_of_origin = json.dumps(origin_frame_html(rows))
        word.input(outputs=origin, js=f"() => {frame_of_origin}", **now)  # its room, before it is computed
        word.input(app.origin, [word, image, turns], origin, **look_inside)
        events = [event for _, event in asked]
        for triggers, event in asked:  # a new question ends the answer to the one before
            gr.on(triggers, cancels=[e for e in events if e is not event], **now)
        stop.click(cancels=events, **now).then(app.stopped, turns, chat, **UNSEEN).then(**offer)

        # A file that is too large takes the picture from the page, and of all events only `change` tells (gradio 6.31).
        # The page says whether there is a picture, and does not send it: mostly it is none that was uploaded.
        # It waits in line: on a busy machine it would otherwise come after the next picture, and take that one away.
        tell = dict(js="picture => [null, picture !== null]", trigger_mode="multiple", **MODEL_EVENT)
        picture.change(app.gone, [picture, there], shown[1:], **private, **tell)
        changes = [
            ([picture.upload], dict(fn=app.look, inputs=picture, outputs=shown, **private)),
            ([upload.upload], dict(fn=app.replace, inputs=upload, outputs=shown, **private)),
            # a removed picture has left the page already; to send "none" once more could take away the next one
            ([picture.clear], dict(fn=lambda: app.look()[1:], outputs=shown[1:], **private)),
            ([gallery.select], dict(fn=app.pick, outputs=shown, **private)),
            ([draw_button.click], dict(fn=app.draw, inputs=menus, outputs=shown, **private)),
            ([clear.click, chat.clear], dict(fn=forget, outputs=[turns, chat, confidence], **private)),
        ]
        for triggers, change in changes:
            gr.on(triggers, cancels=events, **now)
            # waits for the model like a question: nothing of a cancelled answer comes after it, and the last one stays
            gr.on(triggers, **change, trigger_mode="multiple", **MODEL_EVENT).then(**offer)
    return page


def _title(name: str, miniature: bool, familiar: out_of_distribution.DrawnWorld | None) -> str:
    if not miniature:
        return f"# Talk to a BLIP-2\n{name}. Pictures stay on this machine."
    if familiar is None:  # trained --on your own pictures: what it has seen, only you know
        return f"# Talk to a BLIP-2\n{name}: a whole BLIP-2 in miniature. It knows few words and can be wrong."
    return (
        "# Talk to a BLIP-2\nA whole BLIP-2 in miniature. It knows one drawn world and a thousand words, and it can "
        f"be wrong.\n\n<details><summary>What it has seen</summary>{len(KINDS)} kinds of things in {len(COLORS)} "
        f"colors, one to four at a time, in {len(PLACES)} places, by day and by night. It cannot see photographs, "
        "faces or letters.</details>"
    )


def _menus() -> tuple[gr.Button, list[gr.Dropdown]]:
    """The button that draws, and the menus in the order of `scene_from_menus`."""
    with gr.Row(elem_classes="menus"):
        place = gr.Dropdown(PLACES, value="meadow", label="Place", min_width=0)
        time = gr.Dropdown(TIMES, value="day", label="Time", min_width=0)
    menus = [place, time]
    choices = ((NOTHING, *KINDS), COLORS, SIZES, POSITIONS)
    for number, row in enumerate(MENUS, 1):
        labels = (f"Thing {number}", "Color", "Size", "Where")
        with gr.Row(elem_classes="menus"):
            menus += [
                gr.Dropdown(c, value=v, label=label, min_width=0)
                for c, v, label in zip(choices, row, labels, strict=True)
            ]
    button = gr.Button("Draw it", variant="primary", min_width=90)
    return button, menus


def _match_tab(app: App, image: gr.State, example: str | None) -> None:
    """The inside of a tab: a sentence, and how well it fits the picture that is shown.

    example  a caption of the miniature's first picture; None: the model is no miniature
    """
    hint = " Name every thing of the picture: the captions it learned from did." if example else ""
    gr.HTML(f"<p class='quiet'>How well does a sentence fit?{hint} {WHICH_SCORE}</p>")
    with gr.Row(elem_classes="line"):
        example = example or "a dog on the beach."
        text = gr.Textbox(label="Sentence", placeholder=example, show_label=False, scale=4, elem_id="sentence")
        text.preprocess = only_text
        measure = gr.Button("Measure", min_width=90)
    meter = gr.HTML(elem_id="meter")
    gr.on([measure.click, text.submit], app.match, [text, image], meter, **NOT_API, **MODEL_EVENT)


def _word_panel() -> list[gr.components.Component]:
    """The words of an answer, and where the one that was clicked came from."""
    word = gr.Radio([], label="Words of the answer", show_label=False, container=False, visible=False, elem_id="word")
    return [word, gr.HTML(NO_WORDS, elem_id="origin")]


# ------------------------------------------------------------------------------------------------------- from start.py


def run(args: argparse.Namespace) -> None:
    """Load the model, then serve its page: the chat, two models side by side, or the search where there is no language
    model."""
    options = {name: getattr(args, name) for name in ("device", "quantize", "dtype", "compile")}
    if args.beside is not None:
        models = {name: blip2_lab.load(name, **options) for name in (args.model, args.beside)}
        page = build_beside(models, at_once=args.at_once)
    elif isinstance(model := blip2_lab.load(args.model, **options), Stage1Model):
        page = build_search(Search(model, args.gallery), name=args.model)
    elif not isinstance(model, Stage2Model):
        raise ValueError(f"{args.model} is a dual encoder, which writes no answers: open a model with another bridge")
    else:
        page = build(
            model,
            name=args.model,
            familiar=out_of_distribution.load(args.model),
            calibration=calibration.load(args.model),
            folder=args.gallery,
            at_once=args.at_once,
        )
    port = args.port or free_port(args.host)
    serve(page, host=args.host, port=port, auth=args.auth, names=args.public_name, block=False)
    host = f"[{args.host}]" if ":" in args.host else args.host
    print(f"Open http://{host}:{port} in your browser. Stop with Ctrl+C.", flush=True)
    page.block_thread()
