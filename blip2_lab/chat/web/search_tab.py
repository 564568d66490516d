"""Pictures found by a sentence, or by another picture, in the browser: a tab of the chat, or a page of its own.

Notes:

* A retrieval model (stage 1 alone) has no language model: it gets a page that searches and does not chat.
* Without a folder the picture book's gallery is searched. It is read when somebody asks, so the page opens at once.

Paper: section 4.4. Notebook: 06.
"""

from __future__ import annotations

import html
from functools import partial
from pathlib import Path

import gradio as gr
from PIL import Image

from blip2_lab.chat import image_search
from blip2_lab.chat.vocabulary import check
from blip2_lab.chat.web.api import endpoint, text_input
from blip2_lab.chat.web.components import (
    GALLERY,
    LOST,
    MODEL_EVENT,
    UNSEEN,
    Missing,
    chosen,
    frame,
    opened,
    scaled,
    started,
    uploaded_file,
    warn,
)
from blip2_lab.common.images import open_image
from blip2_lab.models import retrieval
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.picturebook.draw import draw


class Search:
    """A folder of pictures, or the picture book's gallery, that a sentence or a picture is looked for in."""

    def __init__(self, model: Stage2Model | Stage1Model, folder: Path | None = None) -> None:
        self.model, self.folder = model, folder
        say = partial(print, flush=True)
        self.drawn = {} if folder else {f"page {i + 1}": draw(scene, 384) for i, scene in enumerate(GALLERY)}
        self.index = image_search.open_folder(model, folder, say) if folder else None  # the drawn ones: when asked
        self.readings: image_search.Readings | None = None

    def hits(self, wanted: str | Image.Image, top: int = 8) -> list[image_search.Hit]:
        """The best pictures, best first. A sentence is matched, a picture compared."""
        if self.index is None:
            self.index = image_search.of_images(self.model, self.drawn)
        if self.readings is None:
            self.readings = image_search.Readings(retrieval.require_stage1(self.model).qformer, self.index.features)
        if isinstance(wanted, str):
            return image_search.search(self.model, self.index, wanted, top=top, readings=self.readings)
        return image_search.search_like(self.model, self.index, wanted, top=top)

    def by_sentence(self, sentence):
        """The pictures that a sentence fits best -> a list of names and scores, best first."""
        check(sentence, "sentence", "a red boat on the beach.")
        found = self.hits(sentence)
        yield [{"name": h.file, "itc": round(h.itc, 4), "itm": h.itm and round(h.itm, 4)} for h in found]

    def find(self, wanted: str | Image.Image | Missing | None) -> list[tuple[Image.Image, str]]:
        """-> the best pictures, each with its score, for the page."""
        try:
            if not isinstance(wanted, str):
                wanted = chosen(wanted, "There is no picture yet to look for others like it.")
            hits = self.hits(wanted)
            scores = [f"ITC {hit.itc:.2f}" if hit.itm is None else f"ITM {hit.itm:.0%}" for hit in hits]
            return [(self._picture(hit.file), score) for hit, score in zip(hits, scores, strict=True)]
        except ValueError as error:
            warn(str(error))
            return []

    def _picture(self, name: str) -> Image.Image:
        return scaled(self.drawn[name] if self.folder is None else open_image(self.folder / name), 256)


def search_tab(search: Search, image: gr.State) -> None:
    """The inside of a tab: a sentence, or the picture that is shown, and what is found. `image` is that picture."""
    where, hint, example = f"in {search.folder}", "", "a red boat"
    if search.folder is None:
        where, example = "among the picture book's pages", "a purple cake, an orange drum and a red hammer"
        hint = " Name every thing of the picture you mean: the captions it learned from did."
    gr.HTML(f"<p class='quiet'>Looks {html.escape(where)}: ITC makes a shortlist, ITM puts it in order.{hint}</p>")
    with gr.Row(elem_classes="line"):
        words = gr.Textbox(label="What you look for", placeholder=example, show_label=False, scale=4, elem_id="wanted")
        by_words = gr.Button("Search", min_width=90)
        by_picture = gr.Button("Like this picture", min_width=90)
    found = gr.Gallery(
        label="Found pictures", columns=4, height="auto", object_fit="cover", show_label=False, interactive=False,
        elem_id="found",
    )  # fmt: skip
    gr.on([by_words.click, words.submit], search.find, words, found, api_visibility="private", **MODEL_EVENT)
    by_picture.click(search.find, image, found, api_visibility="private", **MODEL_EVENT)
    endpoint(search.by_sentence, "search", [text_input("sentence")], [gr.JSON(label="found", visible=False)])


def build_search(search: Search, *, name: str) -> gr.Blocks:
    """The page of a retrieval model, which finds and cannot talk."""
    with frame() as page:
        gr.Markdown(f"# Search pictures with a BLIP-2\n{name}. It has no language model: it finds, and cannot answer.")
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                shown = gr.Image(label="Picture", type="filepath", sources=["upload", "clipboard"], height=340)
                shown.preprocess = uploaded_file
            with gr.Column(scale=2, min_width=360):
                image = gr.State(LOST)
                search_tab(search, image)
        page.load(started, image, image, **UNSEEN)
        shown.change(opened, shown, image, api_visibility="private", **MODEL_EVENT)
    return page
