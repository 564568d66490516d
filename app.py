"""The chat: show BLIP-2 a picture, ask in words, and see how sure it is of each word.

    python app.py                                                       the micro model: ready in seconds, no download
    python app.py --model Salesforce/blip2-flan-t5-xxl --quantize int8  real weights, photographs, a large machine

Only the user interface is here: what is said to the model and how it answers is in blip2_lab/chat.py.
"""

from __future__ import annotations

import argparse
import html
import os
import socket
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported: it reads them once
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
from PIL import Image

import blip2_lab
from blip2_lab import inside, novelty, picture_index
from blip2_lab.chat import INSTRUCTIONS, WHICH_SCORE, Conversation, Eyes, Reply, Turn
from blip2_lab.data import open_image
from blip2_lab.decoding import Decoding, Token
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import COLORS, KINDS, PLACES, POSITIONS, SIZES, TIMES, Scene, Thing, sample_scene
from blip2_lab.stage1 import Stage1Model
from blip2_lab.stage2 import Stage2Model

REAL_WEIGHTS = "python app.py --model Salesforce/blip2-flan-t5-xxl --quantize int8"
GALLERY = [sample_scene(7, index, "in") for index in (2, 0, 33, 8, 16, 23, 28, 17, 30, 21, 43, 49)]
NOTHING = "(nothing)"
MENUS = (  # what the menus show at first: kind, color, size, position
    ("boat", "red", "large", "left"),
    ("cat", "blue", "small", "top right"),
    (NOTHING, "yellow", "large", "bottom"),
    (NOTHING, "green", "small", "bottom right"),
)
SHOWN = 512  #: pixels on the longer side of the picture that is sent back to the browser
KEPT = 1024  #: and of the one that is kept for each visitor: no image encoder here reads more than 364
METHODS = ("greedy", "beam search", "nucleus sampling")
THEME = gr.themes.Soft(
    primary_hue="teal",
    secondary_hue="teal",
    neutral_hue="slate",
    radius_size="lg",
    font=["system-ui", "sans-serif"],  # no fonts from the network
    font_mono=["ui-monospace", "monospace"],
)
NO_WORDS = "<p class='quiet'>After an answer, its words appear here: click one.</p>"
ORIGIN_NOTE = "<p class='quiet'>Click a word: the part of the picture that made the model say it lights up.</p>"
CSS = Path(blip2_lab.__file__).parent / "assets" / "app.css"


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


def forget() -> tuple[list, list, str]:
    """-> an empty chat, no turns, no confidence."""
    return [], [], confidence_html(())


def confidence_html(words: tuple[Token, ...]) -> str:
    """Each word on a ground from red (unsure) to green (sure), its probability when the mouse is over it."""
    if not words:
        return "<p class='quiet'>The model's own probability of each word appears here.</p>"
    spans = (
        f'<span style="background: hsl({120 * word.probability:.0f} 70% 82%)" '
        f'title="probability {word.probability:.3f}">{html.escape(word.text.strip())}</span>'
        for word in words
        if word.text.strip()
    )
    least = min(words, key=lambda word: word.probability)
    return (
        f"<div class='words'>{' '.join(spans)}</div><p class='quiet'>Green: sure; red: unsure. "
        f"Least sure of “{html.escape(least.text.strip())}” ({least.probability:.0%}).</p>"
    )


def match_html(itc: float, itm: float) -> str:
    """Two bars: the cosine of ITC, and the probability of ITM."""
    rows = [("ITC: cosine of the best query", max(itc, 0.0), f"{itc:.2f}"), ("ITM: do they match?", itm, f"{itm:.0%}")]
    return "".join(
        f"<div class='bar'><span class='quiet'>{name}</span><div><i style='width: {100 * width:.0f}%'></i></div>"
        f"<b>{value}</b></div>"
        for name, width, value in rows
    )


def queries_html(cosines: list[float], verdicts: list[float]) -> str:
    """A bar for each query under the match meter: who won in ITC, who says what in ITM."""
    won = max(range(len(cosines)), key=cosines.__getitem__)
    rows = []
    for name, values in ((f"ITC, query by query: {won} is best", cosines), ("ITM, query by query: the mean", verdicts)):
        top = max(max(map(abs, values)), 1e-6)
        bars = "".join(
            f"<i style='flex: 1; height: {max(100 * abs(v) / top, 4):.0f}%; "
            f"background: {'#94a3b8' if v < 0 else '#0d9488'}' title='query {i}: {v:.2f}'></i>"
            for i, v in enumerate(values)
        )
        box = "display: flex; align-items: flex-end; gap: 2px; height: 2.4rem"
        rows.append(f"<p class='quiet'>{name} (gray: against)</p><div style='{box}'>{bars}</div>")
    return "".join(rows)


def outside_html(distance: float, limit: float) -> str:
    """What the micro model should say about a photograph."""
    return (
        "<div class='note'><b>This picture is outside my drawn world</b> "
        f"(distance {distance:.1f}; drawn scenes stay below {limit:.1f}). I have only ever seen picture-book scenes: "
        f"whatever I say about it is a guess. For photographs, load real weights: <code>{REAL_WEIGHTS}</code></div>"
    )


def uploaded_file(payload: gr.components.image.ImageData | None) -> str | None:
    """Stands in for gr.Image's own decoding: `open_image` does that, safely and with clear sentences."""
    return payload.path if payload else None


def scaled(image: Image.Image, longer_side: int) -> Image.Image:
    """The picture with its longer side so many pixels long: a drawn scene grows, a photograph shrinks."""
    width, height = (max(1, round(side * longer_side / max(image.size))) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def decoding_from_controls(
    method: str,
    beams: float,
    top_p: float,
    temperature: float,
    max_tokens: float,
    length_penalty: float,
    repetition_penalty: float,
) -> Decoding:
    return Decoding(
        num_beams=int(beams) if method == "beam search" else 1,
        do_sample=method == "nucleus sampling",
        top_p=top_p,
        temperature=temperature,
        max_new_tokens=int(max_tokens),
        length_penalty=length_penalty,
        repetition_penalty=repetition_penalty,
    )


# ------------------------------------------------------------------------------------------------------- the handlers


class App:
    """What happens when something is clicked. One model for all visitors; what is a visitor's own is in gr.State."""

    def __init__(
        self, model: Stage2Model, familiar: novelty.DrawnWorld | None = None, method: str = inside.QUICK
    ) -> None:
        self.model = model
        self.method = method  # shows where a word came from
        self.eyes = Eyes(model)
        self.familiar = familiar

    def look(self, path: str | None = None):
        """A picture came (or went): -> picture to show, note, image, turns, chat, confidence."""
        try:
            if path is not None:
                return self._show(open_image(path))
        except ValueError as error:
            gr.Warning(_sentence(str(error).replace(repr(path), "this file")))
        return None, "", None, *forget()

    def pick(self, event: gr.SelectData):
        """A picture of the gallery was clicked."""
        return self._show(draw(GALLERY[event.index], 384))

    def draw(self, place: str, time: str, *menus: str):
        """A scene was put together from the menus."""
        try:
            return self._show(draw(scene_from_menus(place, time, *menus), 384))
        except ValueError as error:
            gr.Warning(str(error))
            return tuple(gr.skip() for _ in range(6))

    def _show(self, image: Image.Image):
        if max(image.size) > KEPT:
            image = scaled(image, KEPT)
        seen, note = self.eyes.see(image), ""
        if self.familiar is not None:
            distance = self.familiar.distance(seen.image_features).item()
            if distance > self.familiar.limit:
                note = outside_html(distance, self.familiar.limit)
        return scaled(image, SHOWN), note, image, *forget()

    def ask(self, text: str, image: Image.Image | None, turns: list[Turn], chat: list[dict], seed: float, *controls):
        """A question -> (box, chat, turns, confidence), again and again while the answer grows."""
        try:
            if image is None:
                raise ValueError("There is no picture yet: upload one, pick one from the gallery, or draw a scene.")
            talk = Conversation(self.model, self.eyes.see(image), list(turns))
            replies = talk.ask(text, decoding_from_controls(*controls), seed=int(seed or 0))
            question = {"role": "user", "content": _as_text(text.strip())}
            for reply in replies:
                answer = {"role": "assistant", "content": _as_text(reply.text or waiting(reply))}
                yield "", [*chat, question, answer], list(talk.turns), confidence_html(reply.words)
        except ValueError as error:
            gr.Warning(_sentence(str(error)))
            yield text, chat, turns, confidence_html(())

    def again(self, image: Image.Image | None, turns: list[Turn], chat: list[dict], seed: float, *controls):
        """The last question once more. Greedy and beam search would answer the same, so this one is sampled."""
        if not turns:
            gr.Warning("There is no question to answer again yet.")
            yield gr.skip(), chat, turns, confidence_html(()), seed
            return
        controls = ("nucleus sampling", *controls[1:])
        seed = int(seed or 0) + 1
        for _, *rest in self.ask(turns[-1].question, image, turns[:-1], chat[:-2], seed, *controls):
            yield gr.skip(), *rest, seed

    def match(self, text: str, image: Image.Image | None) -> str:
        """How well a sentence fits the picture."""
        try:
            if image is None:
                raise ValueError("There is no picture yet to compare the text with.")
            seen = self.eyes.see(image)
            score = Conversation(self.model, seen).match(text)
            by_query = inside.matches(self.model, seen, text)
        except ValueError as error:
            gr.Warning(_sentence(str(error)))
            return ""
        return match_html(score.itc, score.itm) + queries_html(*(values.tolist() for values in by_query))

    def offer(self, image: Image.Image | None, turns: list[Turn]):
        """The words of the last answer, to be clicked: -> menu of words, picture, note, queries."""
        words = inside.words_of(self.model, self.eyes.see(image), turns) if image is not None else []
        menu = gr.Radio([(word, i) for i, word in enumerate(words)], value=None, visible=bool(words))
        return menu, None, ORIGIN_NOTE if words else NO_WORDS, []

    def origin(self, word: int | None, image: Image.Image | None, turns: list[Turn]):
        """A word was clicked: -> where it came from, a sentence about it, the queries that brought it."""
        if word is None or image is None:
            return None, NO_WORDS, []
        try:
            found = inside.origin(self.model, self.eyes.see(image), image, turns, int(word), self.method)
        except ValueError as error:
            gr.Warning(_sentence(str(error)))
            return None, NO_WORDS, []
        note = (
            f"<p class='quiet'>“{html.escape(found.word)}” ({found.probability:.0%}), by the method "
            f"<i>{html.escape(self.method)}</i>. Below, where each query looked for it, the most important first.</p>"
        )
        return found.picture, note, list(found.queries)


class Search:
    """A folder of pictures, or the picture book's gallery, that a sentence or a picture is looked for in."""

    def __init__(self, model: Stage2Model | Stage1Model, folder: Path | None = None) -> None:
        self.model, self.folder = model, folder
        say = partial(print, flush=True)
        self.drawn = {} if folder else {f"page {i + 1}": draw(scene, 384) for i, scene in enumerate(GALLERY)}
        self.index = picture_index.open_folder(model, folder, say) if folder else None  # the drawn ones: when asked

    def find(self, wanted: str | Image.Image | None) -> list[tuple[Image.Image, str]]:
        """-> the best pictures, each with its score. A sentence is matched, a picture compared."""
        try:
            if wanted is None:
                raise ValueError("There is no picture yet to look for others like it.")
            if self.index is None:
                self.index = picture_index.of_images(self.model, self.drawn)
            search = picture_index.search if isinstance(wanted, str) else picture_index.search_like
            hits = search(self.model, self.index, wanted, top=8)
            scores = [f"ITC {hit.itc:.2f}" if hit.itm is None else f"ITM {hit.itm:.0%}" for hit in hits]
            return [(self._picture(hit.file), score) for hit, score in zip(hits, scores, strict=True)]
        except ValueError as error:
            gr.Warning(_sentence(str(error)))
            return []

    def _picture(self, name: str) -> Image.Image:
        return scaled(self.drawn[name] if self.folder is None else open_image(self.folder / name), 256)


def _sentence(text: str) -> str:
    """First letter large, full stop at the end, and no markup: a warning is shown as HTML."""
    return html.escape(text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else "."), quote=False)


def _as_text(text: str) -> str:
    """What is said is text: gradio's chat would obey its markup, even with `render_markdown=False`."""
    return html.escape(text, quote=False)


# ----------------------------------------------------------------------------------------------------------- the page


def search_tab(search: Search, image: gr.State | gr.Image, **event) -> None:
    """The inside of a tab: a sentence, or the picture that is shown, and what is found. `image` is that picture."""
    where = f"in {search.folder}" if search.folder else "among the picture book's pages"
    gr.HTML(f"<p class='quiet'>Looks {html.escape(where)}: ITC makes a shortlist, ITM puts it in order.</p>")
    with gr.Row():
        words = gr.Textbox(placeholder="a red boat", show_label=False, scale=4, elem_id="wanted")
        by_words = gr.Button("Search", min_width=90)
        by_picture = gr.Button("Like this picture", min_width=90)
    found = gr.Gallery(
        columns=4, height="auto", object_fit="cover", show_label=False, interactive=False, elem_id="found"
    )
    gr.on([by_words.click, words.submit], search.find, words, found, api_name="search", **event)
    by_picture.click(search.find, image, found, api_visibility="private", **event)


def build_search(search: Search, *, name: str) -> gr.Blocks:
    """The page of a retrieval model, which finds and cannot talk."""
    event = dict(concurrency_id="model", concurrency_limit=1, show_progress="hidden")
    with gr.Blocks(title="blip2_lab", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as page:
        gr.Markdown(f"# Search pictures with a BLIP-2\n{name}. It has no language model: it finds, and cannot answer.")
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                shown = gr.Image(label="Picture", type="filepath", sources=["upload", "clipboard"], height=340)
                shown.preprocess = uploaded_file
            with gr.Column(scale=2, min_width=360):
                image = gr.State(None)
                search_tab(search, image, **event)
        shown.change(opened, shown, image, api_visibility="private", **event)
    return page.queue(max_size=32)


def opened(path: str | None) -> Image.Image | None:
    """An uploaded file as a picture; a warning and None for what is none."""
    try:
        return scaled_down(open_image(path)) if path else None
    except ValueError as error:
        gr.Warning(_sentence(str(error).replace(repr(path), "this file")))
        return None


def scaled_down(image: Image.Image) -> Image.Image:
    return scaled(image, KEPT) if max(image.size) > KEPT else image


def build(
    model: Stage2Model,
    *,
    name: str = "micro",
    familiar: novelty.DrawnWorld | None = None,
    folder: Path | None = None,
) -> gr.Blocks:
    """The page around a model. `familiar` knows what the model has seen; None: never say that a picture is strange."""
    app, miniature = App(model, familiar, inside.method_of(name)), name == "micro"
    start = draw(GALLERY[0], 384) if miniature else None  # something to talk about from the first second
    model_event = dict(concurrency_id="model", concurrency_limit=1, show_progress="hidden")
    with gr.Blocks(title="blip2_lab", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as page:
        image, turns = gr.State(start), gr.State([])
        gr.Markdown(_title(name, miniature), elem_id="title")
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=320):
                picture = gr.Image(
                    scaled(start, SHOWN) if start else None,
                    label="Picture",
                    show_label=False,
                    placeholder="Drop a picture here, or click\nPNG, JPEG, WebP or GIF",
                    sources=["upload", "clipboard"],
                    height=340,
                    buttons=["fullscreen"],
                    elem_id="picture",
                )
                picture.preprocess = uploaded_file
                note = gr.HTML(elem_id="note", padding=False)
                with gr.Tab("Picture book"):
                    gallery = gr.Gallery(
                        [draw(scene, 192) for scene in GALLERY],
                        columns=4,
                        height="auto",
                        object_fit="cover",
                        allow_preview=False,
                        show_label=False,
                        interactive=False,
                        buttons=[],
                        elem_id="gallery",
                    )
                with gr.Tab("Draw a scene"):
                    with gr.Row():
                        place = gr.Dropdown(PLACES, value="meadow", label="Place", container=False, min_width=90)
                        time = gr.Dropdown(TIMES, value="day", label="Time", container=False, min_width=90)
                        draw_button = gr.Button("Draw it", variant="primary", min_width=90)
                    menus = []
                    labels, choices = ("Thing", "Color", "Size", "Where"), ((NOTHING, *KINDS), COLORS, SIZES, POSITIONS)
                    gr.HTML(f"<div class='heads quiet'>{''.join(f'<span>{label}</span>' for label in labels)}</div>")
                    for row in MENUS:
                        with gr.Row():
                            menus += [
                                gr.Dropdown(c, value=v, label=label, container=False, min_width=90)
                                for c, v, label in zip(choices, row, labels, strict=True)
                            ]
                if model.stage1 is not None:
                    with gr.Tab("Match meter"):
                        gr.HTML(f"<p class='quiet'>How well does a sentence fit? {WHICH_SCORE}</p>")
                        with gr.Row():
                            sentence = gr.Textbox(
                                placeholder="a red boat on the beach.", show_label=False, scale=4, elem_id="sentence"
                            )
                            measure = gr.Button("Measure", min_width=90)
                        meter = gr.HTML(elem_id="meter")
                    with gr.Tab("Search"):
                        search_tab(Search(model, folder), image, **model_event)
            with gr.Column(scale=1, min_width=360):
                chat = gr.Chatbot(
                    label="Chat",
                    height=400,
                    render_markdown=False,
                    buttons=[],
                    placeholder="Ask about the picture, or choose another one on the left.",
                    elem_id="chat",
                )
                with gr.Row():
                    hint = "Ask about the picture …"
                    box = gr.Textbox(placeholder=hint, show_label=False, scale=6, autofocus=True, elem_id="box")
                    ask = gr.Button("Ask", variant="primary", min_width=80, elem_id="ask")
                    stop = gr.Button("Stop", variant="stop", min_width=80, elem_id="stop")
                with gr.Row(elem_classes="chips"):
                    chips = [
                        gr.Button(text, size="sm", min_width=60)
                        for text in INSTRUCTIONS["micro" if miniature else "real"]
                    ]
                with gr.Row():
                    again = gr.Button("Another answer", size="sm")
                    clear = gr.Button("Clear the chat", size="sm")
                with gr.Accordion("How sure is it of each word?", open=True):
                    confidence = gr.HTML(confidence_html(()), elem_id="confidence")
                with gr.Accordion("Where did a word come from?", open=True):
                    word = gr.Radio([], show_label=False, container=False, visible=False, elem_id="word")
                    origin_note = gr.HTML(NO_WORDS, elem_id="origin-note")
                    origin = gr.Image(
                        show_label=False, interactive=False, height=300, buttons=["fullscreen"], elem_id="origin"
                    )
                    brought = gr.Gallery(
                        columns=6,
                        height="auto",
                        allow_preview=False,
                        show_label=False,
                        interactive=False,
                        buttons=[],
                        elem_id="queries",
                    )
                with gr.Accordion("How the answer is chosen", open=False):
                    controls, seed = _controls()

        shown = [picture, note, image, turns, chat, confidence]
        answered = [box, chat, turns, confidence]
        asking = [image, turns, chat, seed, *controls]
        asked = []  # (what starts it, the event)
        for triggers, given in [([ask.click, box.submit], box), *(([chip.click], chip) for chip in chips)]:
            name = dict(api_name="ask") if given is box else dict(api_visibility="private")
            asked.append((triggers, gr.on(triggers, app.ask, [given, *asking], answered, **name, **model_event)))
        event = again.click(app.again, asking, [*answered, seed], api_visibility="private", **model_event)
        asked.append(([again.click], event))
        # in a line of their own: the chat never waits for them
        look_inside = dict(
            concurrency_id="inside", concurrency_limit=1, show_progress="hidden", api_visibility="private"
        )
        panel = [word, origin, origin_note, brought]
        offer = dict(fn=app.offer, inputs=[image, turns], outputs=panel, **look_inside)
        for _, event in asked:
            event.then(**offer)
        word.input(app.origin, [word, image, turns], panel[1:], **look_inside)
        events = [event for _, event in asked]
        for triggers, event in asked:  # a new question ends the answer to the one before
            gr.on(triggers, None, cancels=[e for e in events if e is not event], api_visibility="private", queue=False)
        stopped = stop.click(None, cancels=events, api_visibility="private", queue=False)
        stopped.then(**offer)

        # these wait for the model like a question, so that nothing of a cancelled answer can come after them
        change = dict(cancels=events, **model_event)
        changes = [
            picture.upload(app.look, picture, shown, api_name="look", **change),
            # a removed picture has left the page already; to send "none" once more could take away the next one
            picture.clear(lambda: app.look()[1:], None, shown[1:], api_visibility="private", **change),
            gallery.select(app.pick, None, shown, api_visibility="private", **change),
            draw_button.click(app.draw, [place, time, *menus], shown, api_name="draw", **change),
            gr.on(
                [clear.click, chat.clear], forget, None, [turns, chat, confidence], api_visibility="private", **change
            ),
        ]
        for event in changes:
            event.then(**offer)
        if model.stage1 is not None:
            said = [measure.click, sentence.submit]
            gr.on(said, app.match, [sentence, image], meter, api_name="match", **model_event)
    return page.queue(max_size=32)


def _title(name: str, miniature: bool) -> str:
    if not miniature:
        return f"# Talk to a BLIP-2\n{name}. Pictures stay on this machine."
    return (
        "# Talk to a BLIP-2\nA whole BLIP-2 in miniature. It has seen one drawn world and nothing else: "
        f"{len(KINDS)} kinds of things in {len(COLORS)} colors, one to four at a time, in {len(PLACES)} places, by day "
        "and by night. It cannot see photographs, faces or letters, and it knows a few hundred words."
    )


def _controls() -> tuple[list[gr.components.Component], gr.Number]:
    """The decoding controls in the order of `decoding_from_controls`, and the seed."""
    with gr.Row():
        method = gr.Radio(METHODS, value="greedy", label="Method", info="Beam search (the paper's) shows only its end.")
        seed = gr.Number(0, label="Seed", precision=0, info="Sampling with the same seed repeats itself.")
    with gr.Row():
        beams = gr.Slider(1, 8, 5, step=1, label="Beams", info="Beam search: how many answers race.")
        length_penalty = gr.Slider(-2, 2, -1, step=0.25, label="Length penalty", info="Beam search: below 0: short.")
    with gr.Row():
        top_p = gr.Slider(0.05, 1, 0.9, step=0.05, label="Nucleus (top p)", info="Sampling: probability kept.")
        temperature = gr.Slider(0.1, 2, 1, step=0.1, label="Temperature", info="Sampling: higher is bolder.")
    with gr.Row():
        max_tokens = gr.Slider(1, 120, 60, step=1, label="Longest answer", info="In tokens.")
        repetition_penalty = gr.Slider(1, 2, 1, step=0.05, label="Repetition penalty", info="1 is none.")
    return [method, beams, top_p, temperature, max_tokens, length_penalty, repetition_penalty], seed


# --------------------------------------------------------------------------------------------------------- the server


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="app.py", description="A chat about a picture with BLIP-2, in the browser.")
    parser.add_argument("--model", default="micro", help='"micro" (shipped), a folder, or a hub name (default: micro)')
    parser.add_argument("--quantize", choices=["none", "int8", "int8-all", "nf4"], help="8 or 4 bits (default none)")
    parser.add_argument("--gallery", type=Path, metavar="FOLDER", help="pictures to search in (default: drawn ones)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="of the frozen parts")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, … (default: cpu)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, default=0, help="default 0: a free one")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask visitors for these; a must with any other --host")
    args = parser.parse_args(arguments)
    if not is_loopback(args.host) and not args.auth:
        parser.error(f"--host {args.host} lets others in: say who may come with --auth USER:PASSWORD")
    if args.auth and not all(args.auth.partition(":")):
        parser.error("--auth wants USER:PASSWORD, with a colon between them")
    return args


def is_loopback(host: str) -> bool:
    """Is this an address that only this machine can reach?"""
    return host in ("localhost", "::1") or host.startswith("127.")


def free_port(host: str) -> int:
    """A port nobody listens at: 7860, gradio's own, if it is free."""
    for port in (7860, 0):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            try:
                probe.bind((host, port))
                return probe.getsockname()[1]
            except OSError:
                continue
    raise ValueError(f"no port can be opened at {host}")


def serve(page: gr.Blocks, *, host: str = "127.0.0.1", port: int = 0, auth: str | None = None, block: bool = True):
    """Start the page with every door closed that a chat does not need -> (app, address, share address)."""
    return page.launch(
        server_name=host,
        server_port=port or free_port(host),
        auth=tuple(auth.split(":", 1)) if auth else None,
        share=False,
        ssr_mode=False,
        max_file_size="40mb",
        strict_cors=True,
        enable_monitoring=False,
        state_session_capacity=200,
        footer_links=["api"],
        quiet=True,
        prevent_thread_lock=not block,
        theme=THEME,
        css_paths=CSS,
    )


def main() -> None:
    args = parse()
    print(f"Loading {args.model} …", flush=True)
    try:
        model = blip2_lab.load(args.model, device=args.device, quantize=args.quantize, dtype=args.dtype)
        if isinstance(model, Stage1Model):
            page = build_search(Search(model, args.gallery), name=args.model)
        else:
            page = build(model, name=args.model, familiar=novelty.load(args.model), folder=args.gallery)
        port = args.port or free_port(args.host)
        host = f"[{args.host}]" if ":" in args.host else args.host
        print(f"Open http://{host}:{port} in your browser. Stop with Ctrl+C.", flush=True)
        serve(page, host=args.host, port=port, auth=args.auth)
    except (ValueError, OSError) as error:
        sys.exit(f"app.py: {error}")


if __name__ == "__main__":
    main()
