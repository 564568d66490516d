"""A laboratory for BLIP-2. In reading order: module -> section of the paper (arXiv 2301.12597) -> notebook.

    parts       attention, masks           3.1, Figure 2   02, 04   multi-head attention; the three masks
                qformer                    3.1             03       queries and text in one transformer
                vision                     3.4             01       frozen image encoders
                language, decoding         3.3, 4.1        10, 12   frozen language models; how an answer is chosen
    the paper   stage1, beam_search        3.2             05-07    ITC, ITM, ITG
                stage2                     3.3             10       the Q-Former as a soft prompt
                checkpoints, assemble      3.4             07       other people's names; a shape, then its weights
                quantize, model_zoo        3.4             12       8 and 4 bits; every released model and its room
                int8                       Figure 4        12       eight bits in the open: absmax, outliers
                weights, lavis_files       3.4             07       files fetched, checked, read; LAVIS's
                pretrained                 3.4             07       whole models, loaded and saved
                retrieval                  4.4             06       ITC shortlist, ITM re-ranking
    data        picturebook, data          3.4             00, 08   a drawn world; pictures with their texts
                annotations, shards        3.4, 4          08       the benchmarks' own files; WebDataset and the hub
                sources, augment           3.4             08       all of them mixed by weights; crop and flip
                features                   3.4             08       what a frozen encoder says, once
    running     micro, piles, pretraining  3.4             01, 10   the frozen micro parts, and how they were made
                train, optim, watch        3.4             08       the loop; its schedule; is it still going down?
                run_folder                 3.4             08       what a run leaves on disk
                prefetch                   3.4             08       batches made ahead, on one core
                parallel                   3.2             05       many processes that train as one
                paper, settings, recipes   3.4             08       the numbers
                blueprint, workload,
                planner                    3.4             08       what a recipe needs, before it starts
                doctor                     3.2, 3.3        08       what a run's log says
                parts, feeding, tasks      3.4, 4          08, 11   what is trained, on which batches
                sequence                   3.4             08       parts of a miniature, side by side
                metrics, evaluate          4               09, 11   scores; a model on held-out scenes
                natural_words, natural_phrases,
                natural_questions          4.1             11       questions in a visitor's own words
                natural_reading,
                natural_judge, natural     4.1             11       is the answer true? how many are
    looking     observe, scores            3.1             09       every attention map; the number that is explained
                attribution                3.1             09       which part of the picture said so?
                grounding, queries         3.1             09       maps scored against the true places; each query
                findings, viz_attention,
                inside                     3.1             09       the page about it; its figures; the app's panel
                viz, widgets, checks       Figures 1, 2    all      figures; explorers; the exercises' checks
                viz_decoding               4.1             12       a step of sampling; a beam search as a tree
    talking     chat, novelty              4.1, Figure 4   12       conversation; is it a drawn scene?
                cli, shell                                 00       the commands; their mistakes, in one line
                picture_index              4.4             06       a folder of pictures, searched
                compiled                   4.1             12       an answer's next token, compiled
                page, search_page          4.1, 4.4        06, 12   what the app's pages are made of; its search
                doctor_files, model_doctor 3.4             12       is it what its files say? may it be trusted?

    model = blip2_lab.load("micro")
    model.generate("boat.png", "Question: what color is the boat? Short answer:")

Importing this package imports nothing else: `load` brings torch and transformers when it is called.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["load"]

if TYPE_CHECKING:
    from blip2_lab.stage2 import Stage2Model


def load(
    name_or_path: str,
    *,
    device: str = "cpu",
    quantize: str | None = None,
    dtype: str | None = None,
    compile: bool = False,
) -> Stage2Model:
    """A BLIP-2 ready to be asked: `model.generate(picture, prompt)`.

    name_or_path  "micro" (shipped with the package), a folder in transformers' layout, a LAVIS file, or a hub name such
                  as "Salesforce/blip2-flan-t5-xxl" (`blip2-lab models` lists them)
    quantize      "int8", "int8-all" or "nf4": the frozen parts in 8 or 4 bits; None: as they are
    dtype         "float32", "bfloat16" or "float16": of the frozen parts; None: what suits the device
    compile       the decoder, for faster answers: takes a minute and, on a CPU, a C++ compiler (see compiled.py)
    """
    with _collector_at_rest():  # 0.4 of the 3.5 seconds that a first call spends on these imports
        import transformers.modeling_utils  # noqa: F401  what every model of transformers imports

        from blip2_lab.pretrained import load

    model = load(name_or_path, device=device, quantize=quantize, dtype=dtype)
    if compile:
        from blip2_lab.compiled import compile_decoder

        if getattr(model, "language_model", None) is None:
            raise ValueError(f"{name_or_path} has no language model, so there is no decoder to compile.")
        compile_decoder(model.language_model)
    return model


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Nobody looks for garbage meanwhile: there is none in thousands of imported modules."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
