"""What the pages of the app are made of: the frame, uploads, warnings, pieces of HTML, and the server.

Notes:

* Nothing comes from the network: no fonts, no analytics, no share link; doors a chat does not need are closed, and
  guard.py stands before the others.
* A picture is opened by `images.open_image`, not by gradio: a file that is none or too large gets one clear sentence.
* A visitor's picture is in a gr.State whose default is `LOST`: gradio goes back to the default without a word when it
  drops a session, and an answer about a picture that the visitor did not choose would be silently wrong.
* What a model or a visitor says is text, never markup: all of it is escaped.
* It imports gradio, so only app.py and search_tab.py import it.

Paper: section 4.1. Notebook: 12.
"""

from __future__ import annotations

import atexit
import base64
import html
import io
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.image import ImageData
from gradio.utils import get_upload_folder
from PIL import Image

from blip2_lab.chat.web import guard, line
from blip2_lab.chat.web.uploads import MAX_FILE, read_upload
from blip2_lab.chat.web.visitors import is_loopback
from blip2_lab.common.images import WEB_FORMATS, open_image
from blip2_lab.models.decoding import Decoding, Token
from blip2_lab.picturebook.scene import sample_scene

REAL_WEIGHTS = "python app.py --model Salesforce/blip2-flan-t5-xxl --quantize int8"
#: Scenes of the 200 first of book 7 of which the shipped model answers every question of the page's buttons rightly;
#: how often it does on all of them is in its card (`python -m benchmarks.buttons`).
GALLERY = [sample_scene(7, index, "in") for index in (17, 5, 8, 196, 121, 39, 36, 137, 28, 61, 109, 106)]
KEPT = 1024  #: pixels on the longer side of a visitor's picture: no image encoder here reads more than 364
SESSIONS = 200  #: visitors whose pictures are kept; who comes back later than 200 others has to choose again
NO_PICTURE = "There is no picture yet: upload one, pick one from the gallery, or draw a scene."
LOST_PICTURE = (
    "Your picture is not here any more (it is dropped after an hour away, or when many others came): "
    "choose a picture again, then ask."
)
#: waits for the model in one line (line.py): questions are answered together, all else happens one at a time
MODEL_EVENT = dict(concurrency_id=line.MODEL, concurrency_limit=line.AT_ONCE, show_progress="hidden")
METHODS = ("greedy", "beam search", "nucleus sampling")
ASSETS = Path(__file__).parents[2] / "assets"
UNSEEN = dict(queue=False, show_progress="hidden", api_visibility="private")  #: an event without a visible result
THEME = gr.themes.Soft(
    primary_hue="teal",
    secondary_hue="teal",
    neutral_hue="slate",
    radius_size="lg",
    font=["system-ui", "sans-serif"],  # no fonts from the network
    font_mono=["ui-monospace", "monospace"],
).set(  # gradio's own colors have a contrast of 2.2 to 2.5; WCAG AA wants 4.5
    background_fill_primary="*neutral_50",  # as Soft has it: a second `set` (6.31) forgets this one
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_400",
    color_accent="*primary_700",
    link_text_color="*primary_700",
    link_text_color_dark="*primary_300",
    block_label_text_color="*primary_800",
    block_label_background_fill_dark="*primary_800",
    block_title_text_color="*neutral_700",
    block_title_text_color_dark="*neutral_200",
    block_title_text_weight="500",
    block_title_background_fill="transparent",
    block_title_background_fill_dark="transparent",
    block_title_padding="0",
    block_label_margin="*spacing_xs",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
    button_secondary_background_fill_hover_dark="*primary_700",
    checkbox_label_background_fill_selected="*primary_700",
    checkbox_label_background_fill_selected_dark="*primary_700",
    slider_color="*primary_700",
)


Rows = Sequence[tuple[Image.Image, str]]  #: small pictures, each with its caption
#: What the small pictures below a word's map are, by `interpret.targets.reader_of`.
WHAT_ROWS_ARE = {
    "qformer": "Below: what each query (q) read, the most important first.",
    "resampler": "Below: what each latent of the resampler read, the most important first.",
    "bridge": "Below: what the text read of the picture before each of its words, the most important first.",
    None: "This bridge is a linear projector: it has no queries and no attention to the picture that could be shown.",
}


class Missing(Enum):
    """In place of a picture: this session has none because gradio dropped it, or because none ever came."""

    LOST = "lost"  # a member of an Enum stays itself when gradio copies it for a session


LOST = Missing.LOST


# ------------------------------------------------------------------------------------------ the frame and the server


@contextmanager
def frame() -> Iterator[gr.Blocks]:
    """An empty page to be filled; visitors wait for the model in a line."""
    use_private_folder()
    # what the page shows (each answer's pictures) is deleted after two hours; uploads are deleted by guard.py
    with gr.Blocks(title="blip2_lab", analytics_enabled=False, delete_cache=(600, 2 * 3600)) as page:
        yield page
        # of everybody who has this name, only this browser is logged out
        leave = gr.Button("Log out", link="logout?all_session=false", size="sm", visible=False, elem_id="logout")
        page.load(logout_button, outputs=leave, **UNSEEN)
    page.queue(max_size=line.WAITING, api_open=False)  # closed: else `/run/…` reaches the model past the queue
    page._queue.get_events = partial(line.next_events, page._queue)  # gradio (6.31) knows no order within a session


def logout_button(request: gr.Request) -> gr.Button:
    """Is seen by those who logged in."""
    return gr.Button(visible=request.username is not None)


def use_private_folder() -> None:
    """Let gradio keep files in a folder of this process alone, which goes with it.

    Its own default (6.31) is one folder in the temporary directory for all users and all apps of the machine.
    """
    if not os.environ.get("GRADIO_TEMP_DIR"):
        folder = os.environ["GRADIO_TEMP_DIR"] = os.path.realpath(tempfile.mkdtemp(prefix="blip2-lab-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def free_port(host: str) -> int:
    """A free port: 7860, gradio's own, if it is free."""
    for port in (7860, 0):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            try:
                probe.bind((host, port))
                return probe.getsockname()[1]
            except OSError:
                continue
    raise ValueError(f"no port can be opened at {host}")


def serve(
    page: gr.Blocks,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    auth: str | None = None,
    names: Iterable[str] = (),
    block: bool = True,
):
    """Start the page with every door closed that a chat does not need -> (app, address, share address).

    auth   "USER:PASSWORD" that visitors have to give; None: no password
    names  the names under which a proxy in front serves this page
    """
    served = page.launch(
        server_name=host,
        server_port=port or free_port(host),
        auth=tuple(auth.split(":", 1)) if auth else None,
        share=False,
        ssr_mode=False,
        max_file_size=MAX_FILE,
        strict_cors=True,
        enable_monitoring=False,
        max_threads=2 * line.AT_ONCE,  # a visitor's thread waits for his next token
        show_error=True,  # a bug of ours, or a full GPU, is told in a message: without it nothing would be
        state_session_capacity=SESSIONS,
        footer_links=["api"],
        quiet=True,
        prevent_thread_lock=True,
        theme=THEME,
        css_paths=ASSETS / "app.css",
        js=(ASSETS / "app.js").read_text(encoding="utf-8"),
        app_kwargs={"lifespan": guard.lifespan(local=is_loopback(host), names=names)},
    )
    if not isinstance(served[0].middleware_stack, guard.Guard):  # another gradio: no page rather than an open one
        page.close(verbose=False)
        raise RuntimeError("this version of gradio starts without the guard; install the one in constraints.txt")
    if block:
        page.block_thread()
    return served


# ------------------------------------------------------------------------------------------------------------ controls


def decoding_from_controls(
    method: str,
    beams: float,
    top_p: float,
    temperature: float,
    max_tokens: float,
    length_penalty: float,
    repetition_penalty: float,
) -> Decoding:
    """How to choose tokens, from the controls as the page lists them."""
    return Decoding(
        num_beams=int(beams) if method == "beam search" else 1,
        do_sample=method == "nucleus sampling",
        top_p=top_p,
        temperature=temperature,
        max_new_tokens=int(max_tokens),
        length_penalty=length_penalty,
        repetition_penalty=repetition_penalty,
    )


def decoding_controls() -> tuple[list[gr.components.Component], gr.Number]:
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
    for control in (beams, top_p, temperature, max_tokens, length_penalty, repetition_penalty, seed):
        control.preprocess = partial(only_number, control.label, control.preprocess)
    return [method, beams, top_p, temperature, max_tokens, length_penalty, repetition_penalty], seed


def only_number(label: str, preprocess: Callable[[float | None], float | None], value: object) -> float | None:
    """Stands before a control's own decoding, which (6.31) tells a program of gradio's components, and no number.

    None is what the seed's field sends when it is empty.
    """
    if not isinstance(value, int | float) and not (value is None and label == "Seed"):
        raise gr.Error(f"“{label}” is a number, and this is none.", print_exception=False)
    return preprocess(value)


# ------------------------------------------------------------------------------------------------------------ pictures


def uploaded_file(payload: ImageData | None) -> bytes | None:
    """Stands in for gr.Image's own decoding: `open_image` does that, safely and with clear sentences.

    Raises gr.Error for everything that is not a regular file in gradio's upload folder. Whose upload it is, was looked
    at before (`guard.Guard.event`); a server that is not started by `serve` has only this.
    """
    if payload is None:
        return None
    try:
        return read_upload(getattr(payload, "path", None), get_upload_folder())
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from None


class SentPicture(ImageData):
    """What a program sends for a picture; gradio (6.31) tells of pydantic's classes where it is none."""

    model_config = {"title": "ImageData"}

    @classmethod
    def model_validate(cls, value: Any, **options: Any) -> SentPicture:
        try:
            return super().model_validate(value, **options)
        except ValueError:  # pydantic's is one
            raise gr.Error("A picture is a file: send it with handle_file(…).", print_exception=False) from None


def picture_input() -> gr.Image:
    """A picture that a program sends."""
    picture = gr.Image(label="picture", visible=False)
    picture.preprocess, picture.data_model = uploaded_file, SentPicture
    return picture


def opened(file: str | bytes | None) -> Image.Image | None:
    """An uploaded file as a picture of at most `KEPT` pixels a side; a warning and None for what is none."""
    if file is None:
        return None
    try:
        image = open_image(file, WEB_FORMATS)
    except ValueError as error:
        warn(str(error).replace(repr(file) if isinstance(file, str) else "the picture", "this file"))
        return None
    return scaled(image, min(KEPT, max(image.size)))


def started(image: Image.Image | Missing | None, first: Image.Image | None = None) -> Image.Image | None:
    """The picture of a gr.State when its page has opened: `first`, unless the visitor was faster and chose another."""
    return first if image is LOST else image


def chosen(image: Image.Image | Missing | None, otherwise: str = NO_PICTURE) -> Image.Image:
    """The picture of a gr.State. Raises ValueError with `otherwise` when there is none yet, or with LOST_PICTURE."""
    if image is None or image is LOST:
        raise ValueError(otherwise if image is None else LOST_PICTURE)
    return image


def scaled(image: Image.Image, longer_side: int) -> Image.Image:
    """The picture with its longer side so many pixels long: a drawn scene grows, a photograph shrinks."""
    width, height = (max(1, round(side * longer_side / max(image.size))) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


# ---------------------------------------------------------------------------------------------------------------- text


def only_text(value: object) -> str | None:
    """Stands in for gr.Textbox's own decoding, which (6.31) makes a text of a file, with the server's path in it."""
    return value if isinstance(value, str) else None


def sentence(text: str) -> str:
    """First letter large, full stop at the end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!", "”", '"')) else ".")


def warn(text: str) -> None:
    """Say what went wrong, in a sentence without markup, for it is shown as HTML."""
    gr.Warning(as_text(sentence(text)))


def as_text(text: str) -> str:
    """What is said is text: gradio would obey its markup, in the chat even with `render_markdown=False`."""
    return html.escape(text, quote=False)


def confidence_html(words: tuple[Token, ...]) -> str:
    """Each word on a ground from red (unsure) to green (sure), its probability when the mouse is over it."""
    if not words:
        return "<p class='quiet'>The model's own probability of each word appears here.</p>"
    least = min(words, key=lambda word: word.probability)
    return (
        f"{words_html(words)}<p class='quiet'>Green: sure; red: unsure. "
        f"Least sure of “{html.escape(least.text.strip())}” ({least.probability:.0%}).</p>"
    )


def words_html(words: tuple[Token, ...]) -> str:
    """The words alone, on their grounds."""
    spans = (
        f'<span style="background: hsl({120 * word.probability:.0f} 70% 82%)" '
        f'title="probability {word.probability:.3f}">{html.escape(word.text.strip())}</span>'
        for word in words
        if word.text.strip()
    )
    return f"<div class='words'>{' '.join(spans)}</div>"


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


def image_address(image: Image.Image) -> str:
    """The picture itself as an address, for HTML."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def origin_html(
    word: str, probability: float, method: str, picture: Image.Image, rows: Rows, reader: str | None = "qformer"
) -> str:
    """Where a word came from: a sentence, the picture with the place lit, and below it what each row of the map is."""
    said = html.escape(word)
    shown = "".join(
        f"<figure><img src='{image_address(image)}' alt=''><figcaption>{html.escape(caption)}</figcaption></figure>"
        for image, caption in rows
    )
    return (
        f"<div class='origin'><p class='quiet'>“{said}” ({probability:.0%}), found by the method "
        f"<i>{html.escape(method)}</i>. {WHAT_ROWS_ARE[reader]}</p>"
        f"<img class='map' src='{image_address(picture)}' alt='The part of the picture that “{said}” came from, lit'>"
        + (f"<div class='queries'>{shown}</div></div>" if rows else "</div>")
    )


def origin_frame_html(queries: int) -> str:
    """The same without pictures, of the same size: it stands there while they are computed, so that nothing jumps."""
    shown = "<figure><span></span><figcaption>…</figcaption></figure>" * queries
    return (
        "<div class='origin' aria-busy='true'><p class='quiet'>Looking for the part of the picture …</p>"
        "<span class='map'></span>" + (f"<div class='queries'>{shown}</div></div>" if queries else "</div>")
    )


def outside_html(distance: float, limit: float) -> str:
    """What the micro model should say about a photograph."""
    return (
        "<div class='note'><b>This picture is outside my drawn world</b> "
        f"(distance {distance:.1f}; drawn scenes stay below {limit:.1f}). I have only ever seen picture-book scenes: "
        f"whatever I say about it is a guess. For photographs, load real weights: <code>{REAL_WEIGHTS}</code></div>"
    )
