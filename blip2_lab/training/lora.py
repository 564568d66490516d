"""Low-rank adaptation (LoRA) of the language model and of the Q-Former, by peft.

`add_lora` puts trainable low-rank matrices beside frozen ones; `merge_lora` adds their products to the frozen ones, so
that what is saved is a plain model.

Notes:

* W x becomes W x + (alpha / rank) B A x. B starts at zero, so training starts at the model as it was.
* The target keeps its frozen parameters bit by bit until it is merged, and stays in eval mode: `lora.dropout` is its
  only dropout.
* A and B have 32 bits beside frozen matrices of 16 bits; small updates would be rounded away in 16. Merging rounds the
  sum to the precision of the frozen matrix.
* A checkpoint of a run holds A and B, not the frozen matrices.
* differs from LAVIS, which trains no part of the language model.

Paper: LoRA, arXiv 2106.09685, section 4.1. Notebook: none.
"""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from blip2_lab.models.bridges.qformer import QFormerBridge
from blip2_lab.models.qformer import QFormer
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.models.vision_encoder import freeze
from blip2_lab.training.recipes.schema import LoraConfig

if TYPE_CHECKING:
    from peft.tuners.lora import LoraModel

#: The last parts of the names of matrices, by `LoraConfig.layers`: of our Q-Former, of T5, of OPT, of LLaMA.
QUERY_VALUE = ("query", "value", "q", "v", "q_proj", "v_proj")
ATTENTION = (*QUERY_VALUE, "key", "output", "k", "o", "k_proj", "out_proj", "o_proj")
LINEAR = (
    *ATTENTION,
    "expand",
    "contract",
    "wi",
    "wi_0",
    "wi_1",
    "wo",
    "fc1",
    "fc2",
    "gate_proj",
    "up_proj",
    "down_proj",
)
NAMES = {"query_value": QUERY_VALUE, "attention": ATTENTION, "linear": LINEAR}


def require_peft() -> None:
    """Raises ValueError, in one sentence, if peft is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise ValueError(
            "lora.rank needs peft, which is not installed: pip install 'blip2-lab[lora]', or train without LoRA "
            "(lora.rank=0)"
        )


def lora_targets(model: Stage1Model | Stage2Model, config: LoraConfig) -> dict[str, nn.Module]:
    """The modules that get LoRA, by the names in `LoraConfig.targets`. Raises ValueError for one that is missing."""
    found: dict[str, nn.Module] = {}
    if isinstance(model, Stage2Model):
        found["language_model"] = model.language_model
    if isinstance(model, Stage1Model) or isinstance(model.bridge, QFormerBridge):
        found["qformer"] = model.qformer
    if config.targets == "all":
        return found
    if config.targets not in found:
        raise ValueError(f"there is no {config.targets} to give LoRA: choose lora.targets={' or '.join(found)}")
    return {config.targets: found[config.targets]}


def target_matrices(target: nn.Module, config: LoraConfig) -> dict[str, nn.Linear]:
    """The matrices of a target that get LoRA, by name."""
    names = NAMES[config.layers]
    return {
        name: module
        for name, module in target.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in names
    }


def lora_parameters(target: nn.Module, config: LoraConfig) -> int:
    """The number of parameters that `add_lora` adds to a target."""
    return sum(config.rank * (m.in_features + m.out_features) for m in target_matrices(target, config).values())


def add_lora(model: Stage1Model | Stage2Model, config: LoraConfig) -> None:
    """Freeze the targets and give them LoRA, in place. With rank 0 nothing changes. Raises ValueError."""
    if not config.rank:
        return
    require_peft()
    import peft

    for target in lora_targets(model, config).values():
        matrices = target_matrices(target, config)
        settings = peft.LoraConfig(
            r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=list(matrices)
        )
        freeze(target)
        tuner = peft.tuners.lora.LoraModel(target, settings, "default")  # changes the target in place
        nn.Module.train(target, False)  # what peft has put in
        for parameter in target.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        object.__setattr__(target, "_lora", tuner)  # no submodule: the target is one of its own
        target.train = partial(_train_dropout, target)


def _train_dropout(target: nn.Module, mode: bool = True) -> nn.Module:
    """`train` of a target: its frozen modules stay in eval mode."""
    for name, module in target.named_modules():
        if name.endswith("lora_dropout"):
            module.train(mode)
    return target


def merge_lora(model: nn.Module) -> None:
    """Add the products of the low-rank matrices to the frozen ones, in place, and remove them. The model computes the
    same and is a plain one. A model without LoRA is left as it is."""
    for target in list(model.modules()):
        tuner: LoraModel | None = vars(target).pop("_lora", None)
        if tuner is not None:
            tuner.merge_and_unload(safe_merge=True)
            vars(target).pop("peft_config", None)
            freeze(target)


def without_unused_text(qformer: QFormer) -> None:
    """Freeze the text FFN of the last layer, whose output nothing reads when queries alone go to the language model:
    a parameter without a gradient stops training in several processes."""
    if qformer.config.has_text:
        qformer.layers[-1].text_ffn.requires_grad_(False)
