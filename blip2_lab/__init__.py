"""A laboratory for BLIP-2. In reading order: module -> section of the paper (arXiv 2301.12597) -> notebook.

    parts       attention, masks           3.1, Figure 2   02, 03   multi-head attention; the three masks
                qformer                    3.1             02       queries and text in one transformer
                vision                     3.4             01       frozen image encoders
                language, decoding         3.3, 4.1        07       frozen language models; how an answer is chosen
    the paper   stage1, beam_search        3.2             03-06    ITC, ITM, ITG
                stage2                     3.3             08       the Q-Former as a soft prompt
                checkpoints, pretrained    3.4             07       other people's names; whole models in folders
                retrieval                  4.4             06       ITC shortlist, ITM re-ranking
    data        picturebook, data          3.4             00       a drawn world; pictures with their texts
    running     pretraining                3.4             01       how the frozen micro parts were made
                train, run_folder          3.4             00       the loop, and what it leaves on disk
                recipes, tasks             3.4             00       the numbers, and what they are applied to
                metrics, evaluate          4               00       scores; a model on held-out scenes
    talking     chat, novelty, cli         4.1, Figure 4   12       conversation; is it a drawn scene?; the shell

    model = blip2_lab.load("micro")
    model.generate("boat.png", "Question: what color is the boat? Short answer:")

Importing this package imports nothing else: `load` brings torch and transformers when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["load"]

if TYPE_CHECKING:
    from blip2_lab.stage2 import Stage2Model


def load(name_or_path: str, *, device: str = "cpu", quantize: str | None = None) -> Stage2Model:
    """A BLIP-2 ready to be asked: `model.generate(picture, prompt)`.

    name_or_path  "micro" (shipped with the package), a folder in transformers' layout, or a hub name such as
                  "Salesforce/blip2-flan-t5-xxl"
    quantize      "int8" or "nf4": the language model in 8 or 4 bits; None: as it is
    """
    from blip2_lab.pretrained import load

    return load(name_or_path, device=device, quantize=quantize)
