"""A laboratory for BLIP-2 (arXiv 2301.12597): load a model and ask it, open it, train it, measure it.

    model = blip2_lab.load("micro")
    model.generate("boat.png", "Question: what color is the boat? Short answer:")
    blip2_lab.save(model, "my-model")

Folder -> section of the paper -> notebook, from the ground up (docs/architecture.md has the table and three walks):

    common                                    opening pictures, writing files, console, many processes
    picturebook   3.4               00        the drawn world
    models        3.1 to 3.3, 4.4   01 to 07  attention, masks, Q-Former, frozen models, both stages, retrieval
    data          3.4               00, 08    pictures with their texts
    checkpoints   3.4               07, 13    what was released; weights found, read, written
    training      3.4, Tables 1, 7  08, 11    recipes, tasks, the loop, planning
    evaluation    4                 09, 11    scores, and a model on held-out examples
    plots         Figures 1, 2      all       figures and explorers
    interpret     3.1               09        attention maps, attribution, grounding
    chat          4.1, 4.4          06, 12    conversation, search, the page in the browser
    doctor        3.2 to 3.4        08, 12    checks of a run, and of a model
    teaching      3.2, 5            all       plain twins to read; the exercises' checks
    own_world     3.4               14        a world of your own: its recipes, its report
    compare       Figure 5          16        bridges on equal terms
    export, publish, cli            00        the shipped folder; a run on the hub; the commands

Importing this package imports nothing heavy: `load` brings torch and transformers when it is called.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from blip2_lab.common.threads import wait_passively

__version__ = "0.1.0"
__all__ = ["load", "save"]

if TYPE_CHECKING:
    import torch

    from blip2_lab.models.bridges.dual_encoder import DualEncoder
    from blip2_lab.models.stage1 import Stage1Model
    from blip2_lab.models.stage2 import Stage2Model


def load(
    name_or_path: str,
    *,
    device: str = "cpu",
    quantize: str | None = None,
    dtype: str | None = None,
    compile: bool = False,
    **other: object,
) -> Stage2Model:
    """A BLIP-2 ready to be asked: `model.generate(picture, prompt)`.

    name_or_path  "micro" (shipped with the package), a folder in transformers' layout, a LAVIS file, or a hub name such
                  as "Salesforce/blip2-flan-t5-xxl" (`blip2-lab models` lists them)
    quantize      "int8", "int8-all" or "nf4": the frozen parts in 8 or 4 bits; None: as they are
    dtype         "float32", "bfloat16" or "float16": of the frozen parts; None: what suits the device
    compile       the decoder, for faster answers: takes a minute and, on a CPU, a C++ compiler (see models/compile.py)
    other         options of other libraries, such as load_in_8bit: an error that names the one that is meant
    """
    from blip2_lab.checkpoints.hub import check_available
    from blip2_lab.checkpoints.names import check_no_option

    check_no_option(other)
    wait_passively()
    if isinstance(name_or_path, str | Path):  # `find_model` refuses what is neither
        check_available(name_or_path)
    with _collector_at_rest():  # 0.4 of the 3.5 seconds that a first call spends on these imports
        import transformers.modeling_utils  # noqa: F401  what every model of transformers imports

        from blip2_lab.checkpoints.load import load

    model = load(name_or_path, device=device, quantize=quantize, dtype=dtype)
    if compile:
        from blip2_lab.models.compile import compile_decoder

        if getattr(model, "language_model", None) is None:
            raise ValueError(f"{name_or_path} has no language model, so there is no decoder to compile.")
        compile_decoder(model.language_model)
    return model


def save(
    model: Stage2Model | Stage1Model | DualEncoder, folder: str | Path, *, dtype: str | torch.dtype | None = None
) -> None:
    """Write a model so that `load(folder)` gives it back, and transformers can read it; `dtype`: of the file's tensors.

    A stage-1 model without image encoder (which is frozen, and kept elsewhere) is written alone; transformers has no
    layout for it.
    """
    from blip2_lab.checkpoints.load import save

    save(model, folder, dtype=dtype)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Disable garbage collection during imports: there is no garbage in thousands of imported modules."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
