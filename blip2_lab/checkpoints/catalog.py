"""The released BLIP-2 models and the frozen models in them: names, shapes, precisions, sizes, licenses.

`MODELS` lists the nine released models; `LANGUAGE_MODELS`, `IMAGE_ENCODERS` and `BERT` list the models they are built
from. Recipes, planning and loading read these tables; `blip2-lab models` prints `models_table`.

Notes:

* Importing this module imports neither torch nor transformers, so `blip2-lab models` and `blip2-lab recipes` are fast.
* `weights` are bytes in memory, counted by `memory.weight_bytes` on the meta device; a test counts them again.

Paper: section 3.4 and Tables 2 and 5 (the models). Notebook: 13.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import Blip2Config, OPTConfig, T5Config

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class FrozenModel:
    """A pre-trained model that BLIP-2 is built from. `hub`: its name on the hub; `sizes`: arguments of transformers'
    configuration; `stored_parameters`: the number in the hub's file, where it is larger than what BLIP-2 uses.
    """

    hub: str
    sizes: dict[str, int] = field(default_factory=dict)
    bytes_per_parameter: int
    stored_parameters: int | None = None

    def download_bytes(self, parameters: int) -> int:
        """Bytes to download, for a model of which BLIP-2 uses this number of parameters."""
        return self.bytes_per_parameter * (self.stored_parameters or parameters)


@dataclass(frozen=True, kw_only=True)
class FrozenLanguageModel(FrozenModel):
    """`family`: "opt" or "t5", the model type in transformers. `precision`: as in the paper (section 3.4)."""

    family: str
    precision: str

    @property
    def width(self) -> int:
        return self.sizes["hidden_size" if self.family == "opt" else "d_model"]


#: Section 3.4: FlanT5 runs in bfloat16, the others in float16. Vocabulary sizes and depths: see `language_config`.
LANGUAGE_MODELS = {
    "flan-t5-xl": FrozenLanguageModel(
        hub="google/flan-t5-xl",
        family="t5",
        sizes=dict(d_model=2048, d_ff=5120, num_heads=32),
        precision="bf16",
        bytes_per_parameter=4,
    ),
    "flan-t5-xxl": FrozenLanguageModel(
        hub="google/flan-t5-xxl",
        family="t5",
        sizes=dict(d_model=4096, d_ff=10240, num_heads=64),
        precision="bf16",
        bytes_per_parameter=4,
    ),
    "opt-2.7b": FrozenLanguageModel(
        hub="facebook/opt-2.7b",
        family="opt",
        sizes=dict(hidden_size=2560, ffn_dim=10240, num_attention_heads=32),
        precision="fp16",
        bytes_per_parameter=2,
    ),
    "opt-6.7b": FrozenLanguageModel(
        hub="facebook/opt-6.7b",
        family="opt",
        sizes=dict(hidden_size=4096, ffn_dim=16384, num_attention_heads=32),
        precision="fp16",
        bytes_per_parameter=2,
    ),
}

IMAGE_ENCODERS = {
    "vit-l": FrozenModel(  # CLIP ViT-L/14; the file has CLIP's text encoder too (Table 5: 428 M)
        hub="openai/clip-vit-large-patch14",
        sizes=dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16),
        bytes_per_parameter=4,
        stored_parameters=428_000_000,
    ),
    # EVA-CLIP ViT-g/14 is not on the hub: LAVIS serves EVA_FILE. Its sizes: `vision_encoder.eva_vit_g_config`
    "vit-g": FrozenModel(hub="eva-clip-vit-g-14", bytes_per_parameter=2),
}
EVA_FILE = "eva_vit_g.pth"
EVA_URL = f"https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/{EVA_FILE}"

#: Initializes the Q-Former (section 3.1); its sizes are the defaults of `QFormerConfig`.
BERT = FrozenModel(hub="google-bert/bert-base-uncased", bytes_per_parameter=4, stored_parameters=110_000_000)


def frozen_model(hub: str) -> FrozenModel | None:
    """The row of a name on the hub, or None."""
    return next((row for row in (*IMAGE_ENCODERS.values(), *LANGUAGE_MODELS.values(), BERT) if row.hub == hub), None)


# --- Whole models ---------------------------------------------------------------------------------------------------

OPT_LICENSE = "MIT; OPT: research only"


@dataclass(frozen=True, kw_only=True)
class Released:
    """A BLIP-2 on the hub. `parameters`: the number in transformers' layout, FlanT5's lm_head included."""

    name: str
    language_model: str | None  #: key of LANGUAGE_MODELS; None: retrieval
    image_size: int
    parameters: int
    weights: dict[str, int]  #: bytes in memory, by the precision of the language model (COLUMNS)
    license: str
    lavis: str  #: LAVIS's file with the same weights, without the frozen models


MODELS = (
    Released(
        name="Salesforce/blip2-flan-t5-xl",
        language_model="flan-t5-xl",
        image_size=224,
        parameters=3_942_446_592,
        weights={"half": 8_098_373_120, "int8": 4_692_659_712, "int8-all": 4_124_066_816, "nf4": 3_851_160_576},
        license="MIT",
        lavis="blip2_pretrained_flant5xl.pth",
    ),
    Released(
        name="Salesforce/blip2-flan-t5-xl-coco",
        language_model="flan-t5-xl",
        image_size=364,
        parameters=3_943_037_952,
        weights={"half": 8_099_555_840, "int8": 4_693_842_432, "int8-all": 4_125_249_536, "nf4": 3_852_343_296},
        license="MIT",
        lavis="blip2_caption_flant5xl.pth",
    ),
    Released(
        name="Salesforce/blip2-flan-t5-xxl",
        language_model="flan-t5-xxl",
        image_size=224,
        parameters=12_229_596_672,
        weights={"half": 24_675_823_104, "int8": 14_627_507_712, "int8-all": 12_483_560_448, "nf4": 8_324_262_912},
        license="MIT",
        lavis="blip2_pretrained_flant5xxl.pth",
    ),
    Released(
        name="Salesforce/blip2-opt-2.7b",
        language_model="opt-2.7b",
        image_size=224,
        parameters=3_744_679_936,
        weights={"half": 7_703_627_264, "int8": 4_208_027_648, "int8-all": 4_208_027_648, "nf4": 3_968_689_664},
        license=OPT_LICENSE,
        lavis="blip2_pretrained_opt2.7b.pth",
    ),
    Released(
        name="Salesforce/blip2-opt-2.7b-coco",
        language_model="opt-2.7b",
        image_size=364,
        parameters=3_745_271_296,
        weights={"half": 7_704_809_984, "int8": 4_209_210_368, "int8-all": 4_209_210_368, "nf4": 3_969_872_384},
        license=OPT_LICENSE,
        lavis="blip2_caption_opt2.7b.pth",
    ),
    Released(
        name="Salesforce/blip2-opt-6.7b",
        language_model="opt-6.7b",
        image_size=224,
        parameters=7_752_738_304,
        weights={"half": 15_722_106_368, "int8": 8_302_407_680, "int8-all": 8_302_407_680, "nf4": 6_160_666_112},
        license=OPT_LICENSE,
        lavis="blip2_pretrained_opt6.7b.pth",
    ),
    Released(
        name="Salesforce/blip2-opt-6.7b-coco",
        language_model="opt-6.7b",
        image_size=364,
        parameters=7_753_329_664,
        weights={"half": 15_723_289_088, "int8": 8_303_590_400, "int8-all": 8_303_590_400, "nf4": 6_161_848_832},
        license=OPT_LICENSE,
        lavis="blip2_caption_opt6.7b.pth",
    ),
    Released(
        name="Salesforce/blip2-itm-vit-g",
        language_model=None,
        image_size=224,
        parameters=1_172_032_258,
        weights={"half": 4_690_619_640},
        license="MIT",
        lavis="blip2_pretrained.pth",
    ),
    Released(
        name="Salesforce/blip2-itm-vit-g-coco",
        language_model=None,
        image_size=364,
        parameters=1_172_623_618,
        weights={"half": 4_692_985_080},
        license="MIT",
        lavis="blip2_finetune_coco.pth",
    ),
)


def released(name: str) -> Released | None:
    """The row of a hub name in MODELS, or None."""
    return next((model for model in MODELS if model.name == name), None)


# --- As transformers' configurations --------------------------------------------------------------------------------


def blip2_config(model: Released) -> Blip2Config:
    """transformers' configuration of a released model, as in its folder."""
    from transformers import Blip2Config

    vision = dict(image_size=model.image_size)
    if model.language_model is None:
        qformer = dict(use_qformer_text_input=True, vocab_size=30523)
        return Blip2Config(vision_config=vision, qformer_config=qformer)
    text = language_config(model.language_model).to_dict()
    return Blip2Config(vision_config=vision, qformer_config={}, text_config=text)


def language_config(name: str) -> OPTConfig | T5Config:
    """transformers' configuration of a language model of LANGUAGE_MODELS, with BLIP-2's two changes."""
    from transformers import OPTConfig, T5Config

    row = LANGUAGE_MODELS[name]
    if row.family == "opt":
        # BLIP-2's captions end with a newline (token 50118), not with OPT's end-of-text token
        shared = dict(vocab_size=50272, num_hidden_layers=32, word_embed_proj_dim=row.width, eos_token_id=50118)
        return OPTConfig(**shared, **row.sizes)
    ids = dict(pad_token_id=0, eos_token_id=1, bos_token_id=1, decoder_start_token_id=0)
    layers = dict(num_layers=24, num_decoder_layers=24, d_kv=64, feed_forward_proj="gated-gelu")
    config = T5Config(vocab_size=32128, **layers, **row.sizes, **ids)
    config.dense_act_fn = "gelu"  # exact, as in LAVIS and in the released folders; FlanT5's is gelu_new
    return config


# --- The table ------------------------------------------------------------------------------------------------------

#: GiB in memory: "half" is the paper's float16 or bfloat16, the others are the methods of models/quantize.py
COLUMNS = ("half", "int8", "int8-all", "nf4")


def models_table() -> str:
    """The text that `blip2-lab models` prints."""
    head = f"{'name':33}{'parameters':>11}{'to fetch':>10}{'GiB:':>6}"
    lines = [head + "".join(f"{column:>9}" for column in COLUMNS) + "   license"]
    lines.append("-" * len(lines[0]))
    for model in MODELS:
        size = {column: count / GIB for column, count in model.weights.items()}
        line = f"{model.name:33}{model.parameters / 1e9:9.2f} B{4 * model.parameters / 1e9:7.1f} GB{'':6}"
        cells = "".join(f"{size[column]:9.1f}" if column in size else f"{'-':>9}" for column in COLUMNS)
        lines.append(f"{line}{cells}   {model.license}")
    return "\n".join([*lines, "", *TABLE_NOTES])


TABLE_NOTES = (
    "The shipped micro model needs none of this. Add 1 GiB to work in. half: what the paper took, float16 for OPT and",
    "bfloat16 for FlanT5; the Q-Former stays in float32. On a CPU the default is float32: two times half.",
    "A name, a folder in transformers' layout, or a file or folder of LAVIS's can stand here:",
    "    python app.py --model Salesforce/blip2-flan-t5-xxl --quantize int8 --device cuda",
)
