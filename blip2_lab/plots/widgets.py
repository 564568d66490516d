"""Interactive explorers for notebooks: thin wrappers over tables and figures.

`explorer` redraws a view when a control changes; the other functions call it.

Notes:

* The mask table is plain HTML with a sentence for every cell. It needs no kernel and no JavaScript, so it works in a
  stored notebook.
* The view is displayed by itself and updated by the controls below it. Without widgets it stays as a static figure.

Paper: sections 3.2 and 3.3, Figures 2 and 3. Notebooks: 03, 04, 05, 07, 09, 10, 12.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

from blip2_lab.models import masks
from blip2_lab.models.decoding import nucleus
from blip2_lab.plots import decoding, drawings, figures

#: objective -> its mask, and its full name
OBJECTIVES: dict[str, tuple[Callable[[int, Tensor], Tensor], str]] = {
    "ITC": (masks.unimodal_mask, "image-text contrast"),
    "ITG": (masks.multimodal_causal_mask, "image-grounded text generation"),
    "ITM": (masks.bidirectional_mask, "image-text matching"),
}


def cell_sentence(objective: str, row: str, column: str, allowed: bool) -> str:
    """The sentence of a cell: "query 3 may read word 2 (boat): image-text matching"."""
    return f"{row} {'may' if allowed else 'may not'} read {column} ({objective}: {OBJECTIVES[objective][1]})"


def row_names(words: Sequence[str], num_queries: int, padding: int) -> tuple[list[str], list[str]]:
    """Short names of the rows for the margins, long ones for the sentences."""
    tokens = ["[CLS]", *words, "[SEP]", *["[PAD]"] * padding]
    long = [f"query {i}" for i in range(num_queries)]
    long += [f"word {i - 1} ({t})" if 0 < i <= len(words) else t for i, t in enumerate(tokens)]
    return [f"q{i}" for i in range(num_queries)] + tokens, long


def mask_table(objective: str, caption: str, num_queries: int = 4, padding: int = 1) -> str:
    """The mask of an objective as an HTML table; the tooltip of a cell says which row may read which column.

    Raises ValueError for an unknown objective.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"{objective!r} is unknown; choose one of {', '.join(OBJECTIVES)}.")
    words = caption.split()
    short, long = row_names(words, num_queries, padding)
    text_mask = torch.tensor([[True] * (len(words) + 2) + [False] * padding])
    mask = OBJECTIVES[objective][0](num_queries, text_mask)[0, 0]
    cell = "width:30px;height:24px;text-align:center;border:1px solid #999;"
    head = "".join(f"<th style='font-weight:normal;padding:0 4px'>{html.escape(name)}</th>" for name in short)
    lines = [f"<tr><th>{objective}</th>{head}</tr>"]
    for i, name in enumerate(short):
        cells = []
        for j in range(len(short)):
            allowed = bool(mask[i, j])
            colors = "background:#0072B2;color:white" if allowed else "background:#f2f2f2;color:#777"
            sentence = html.escape(cell_sentence(objective, long[i], long[j], allowed), quote=True)
            cells.append(f"<td title='{sentence}' style='{cell}{colors}'>{'1' if allowed else '·'}</td>")
        lines.append(
            f"<tr><th style='font-weight:normal;text-align:right'>{html.escape(name)}</th>{''.join(cells)}</tr>"
        )
    return f"<table style='border-collapse:collapse;font-size:13px'>{''.join(lines)}</table>"


def mask_explorer(caption: str = "a red boat", num_queries: int = 4, padding: int = 1):
    """Controls for objective, caption, queries and padding. Without ipywidgets: the three tables."""
    from IPython.display import HTML

    try:
        import ipywidgets
    except ImportError:
        return HTML("<br>".join(mask_table(name, caption, num_queries, padding) for name in OBJECTIVES))
    return explorer(
        lambda **values: HTML(mask_table(**values)),
        objective=ipywidgets.ToggleButtons(options=list(OBJECTIVES), value="ITG"),
        caption=ipywidgets.Text(value=caption, continuous_update=False),
        num_queries=ipywidgets.IntSlider(value=num_queries, min=1, max=8),
        padding=ipywidgets.IntSlider(value=padding, min=0, max=4),
    )


def query_explorer(image: Image.Image, maps: Tensor, boxes: Sequence[tuple] = ()):
    """The attention maps of a query in all layers: maps [layers, Q, n, n]. A control chooses the query.

    boxes: as in `figures.attention_on_image`. Without ipywidgets: query 0.
    """

    def view(query: int):
        titles = [f"query {query}, look {i + 1} of {len(maps)}" for i in range(len(maps))]
        return figures.attention_on_image(image, maps[:, query], titles, boxes=boxes)

    try:
        import ipywidgets
    except ImportError:
        return explorer(view, query=0)
    return explorer(view, query=ipywidgets.IntSlider(value=0, min=0, max=maps.shape[1] - 1))


def explorer(view: Callable[..., object], **controls):
    """Display `view(**values)` (a figure or HTML) and update it when a control changes.

    controls: ipywidgets, or plain values if there is nothing to choose. The view is displayed outside the widgets, so
    it remains where widgets do not run. Returns the controls, to be displayed below it, or None if there are none.
    """
    from IPython.display import display

    def values() -> dict[str, object]:
        return {name: getattr(control, "value", control) for name, control in controls.items()}

    shown = display(view(**values()), display_id=True)
    live = {name: control for name, control in controls.items() if hasattr(control, "observe")}
    if not live:
        return None
    import ipywidgets

    for name, control in live.items():
        control.description = name.replace("_", " ")
        control.style.description_width = "initial"  # the whole name, however long
        control.observe(lambda change: shown.update(view(**values())), names="value")
    return ipywidgets.VBox(list(live.values()))


def sequence_explorer(prompts: Sequence[Sequence[str]], answers: Sequence[Sequence[str]], *, decoder: bool = True):
    """A stepper through `[picture][prompt][answer]`: rows, padding, shift, loss. Without ipywidgets, and at the start:
    all steps.

    decoder: as a decoder reads it (OPT), or an encoder-decoder (FlanT5)
    """
    draw = drawings.decoder_sequence if decoder else drawings.encoder_decoder_sequence
    steps = drawings.DECODER_STEPS if decoder else drawings.ENCODER_DECODER_STEPS

    def view(step: str):
        return draw(prompts, answers, step=step)

    try:
        import ipywidgets
    except ImportError:
        return view("all")
    return explorer(view, step=ipywidgets.SelectionSlider(options=["all", *steps], continuous_update=False))


def cache_explorer(tokens: Sequence[str], num_queries: int = 4):
    """A stepper through writing with a KV cache and without. Without ipywidgets, and at the start: all steps."""

    def view(step: int):
        return drawings.cache_steps(tokens, num_queries, step)

    try:
        import ipywidgets
    except ImportError:
        return view(len(tokens))
    return explorer(view, step=ipywidgets.IntSlider(value=len(tokens), min=1, max=len(tokens)))


def temperature_explorer(similarity: Tensor, rows: Sequence[str], columns: Sequence[str], learned: float):
    """A slider for the temperature that divides similarity [B, B], beside temperature 1 and the one that training
    starts from. Without ipywidgets, and at the start: the `learned` one."""

    def view(temperature: float):
        fixed = {"no temperature": 1.0, "at the start of training": 0.07}
        name = "learned" if abs(temperature - learned) < 1e-4 else "yours"
        return figures.temperature_matrices(similarity, fixed | {name: temperature}, rows, columns)

    try:
        import ipywidgets
    except ImportError:
        return view(learned)
    slider = ipywidgets.FloatLogSlider(
        value=learned, base=10, min=-2.5, max=0.5, step=0.05, readout_format=".3f", continuous_update=False
    )
    return explorer(view, temperature=slider)


def decoding_explorer(logits: Tensor, names: Sequence[str], top: int = 10):
    """Controls for temperature and top_p of one step: logits [V], a name for each. Without ipywidgets: four
    settings."""
    own = {"as the model says": nucleus(logits)}

    def chosen(temperature: float, top_p: float) -> dict[str, Tensor]:
        return {f"temperature {temperature:g}, top_p {top_p:g}": nucleus(logits, temperature, top_p)}

    try:
        import ipywidgets
    except ImportError:
        several = chosen(0.5, 1.0) | chosen(2.0, 1.0) | chosen(1.0, 0.9)
        return decoding.next_token(names, own | several, top=top)
    return explorer(
        lambda **values: decoding.next_token(names, own | chosen(**values), top=top),
        temperature=ipywidgets.FloatSlider(value=1.0, min=0.1, max=3.0, step=0.1, continuous_update=False),
        top_p=ipywidgets.FloatSlider(value=0.9, min=0.05, max=1.0, step=0.05, continuous_update=False),
    )


def beam_explorer(view: Callable[..., object], num_beams: int = 3, length_penalty: float = 1.0):
    """Controls for beam width and length penalty. `view(num_beams, length_penalty)` returns the figure."""
    try:
        import ipywidgets
    except ImportError:
        return view(num_beams=num_beams, length_penalty=length_penalty)
    return explorer(
        view,
        num_beams=ipywidgets.IntSlider(value=num_beams, min=1, max=6, continuous_update=False),
        length_penalty=ipywidgets.FloatSlider(
            value=length_penalty, min=-2.0, max=2.0, step=0.5, continuous_update=False
        ),
    )
