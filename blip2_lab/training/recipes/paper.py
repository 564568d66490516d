"""Recipes of the paper and of its released code: both stages, fine-tuning, and versions for one GPU.

First the numbers, each with its section, table or file; then the recipes made of them: `PAPER` (section 3.4, Table 2),
`FINE_TUNING` (Tables 7 to 9), `LAVIS` (what the released yaml files change) and `A100` (one GPU).

Notes:

* If the paper gives no number, the comment names the source of the one used.
* Costs without a measurement are marked as such; `blip2-lab plan RECIPE` computes what a recipe needs.
* Names, shapes and precisions of the frozen models are in checkpoints/catalog.py.

Paper: section 3.4, Tables 2 and 7 to 9. Notebook: 08.
"""

from __future__ import annotations

from dataclasses import replace

from blip2_lab.checkpoints.catalog import BERT, IMAGE_ENCODERS, LANGUAGE_MODELS, FrozenLanguageModel
from blip2_lab.training.recipes.schema import (
    SEE_PLAN,
    FineTuneParts,
    ImageTextData,
    OptimConfig,
    Recipe,
    Stage1Parts,
    Stage2Parts,
)

# --------------------------------------------------------------------------------------------------------- pre-training

#: Section 3.4: "The same set of pre-training hyper-parameters are used for all models."
PAPER_ADAMW = dict(
    lr=1e-4,  # section 3.4: peak learning rate
    warmup_steps=2000,  # section 3.4: linear warm-up of 2k steps
    betas=(0.9, 0.98),  # section 3.4 (LAVIS's release: 0.9, 0.999)
    weight_decay=0.05,  # section 3.4
    grad_clip=None,  # not in the paper; LAVIS does not clip
    precision="fp16",  # LAVIS's autocast; section 3.4 gives the precision of the frozen models only
)
#: Section 3.4: COCO, Visual Genome, CC3M, CC12M, SBU and 115 M of LAION400M; two captions each, chosen by CapFilt.
PAPER_DATA = ImageTextData(source="129M pairs, section 3.4", image_size=224, flip=True)

#: Section 3.4: batch sizes of stage 1, by image encoder, and of stage 2, by family of language models.
STAGE1_BATCH = {"vit-l": 2320, "vit-g": 1680}
STAGE2_BATCH = {"opt": 1920, "t5": 1520}
#: Table 2: the pairs that were trained.
PAPER_PAIRS = (
    ("vit-l", "opt-2.7b"),
    ("vit-g", "opt-2.7b"),
    ("vit-g", "opt-6.7b"),
    ("vit-l", "flant5-xl"),
    ("vit-g", "flant5-xl"),
    ("vit-g", "flant5-xxl"),
)
#: Section 3.4: "a single 16-A100(40G) machine, our largest model … less than 6 days for the first stage and less than 3
#: days for the second".
STAGE1_COST, STAGE2_COST = "under 6 days on 16 A100 (40 GB)", "under 3 days on 16 A100 (40 GB)"

# ---------------------------------------------------------------------------------------------------------- fine-tuning

#: What Tables 7 to 9 have in common. They give no schedule; this is the paper's cosine, down to 0 as in LAVIS.
FINE_TUNE_ADAMW = dict(
    warmup_steps=1000,  # Tables 7, 8, 9
    weight_decay=0.05,  # Tables 7, 8, 9
    min_lr=0.0,  # LAVIS's release; not in the tables
    grad_clip=None,  # not in the tables
)
FINE_TUNE_EPOCHS = 5  # Tables 7, 8, 9
#: Karpathy's training split: 113,287 images, 567k captions.
COCO = ImageTextData(
    "COCO captions, Karpathy's training split", image_size=364, pairs=567_000
)  # resolution: Tables 7 and 9
#: Section 4.3: the training and validation splits of VQAv2 (443,757 and 214,354 questions) and samples of Visual
#: Genome, whose number the paper does not give: an epoch is VQAv2 alone. No flip: questions name sides.
VQA = ImageTextData(
    "VQAv2 and Visual Genome", image_size=490, flip=False, pairs=658_111, text="questions"
)  # size: Table 8

# ---------------------------------------------------------------------------------------------------- what was released

#: LAVIS's train/pretrain_stage{1,2}.yaml: COCO and Visual Genome captions (567k and 821k) alone, 10 epochs.
LAVIS_DATA = ImageTextData("COCO and Visual Genome captions", pairs=1_388_000)
LAVIS_ADAMW = dict(lr=1e-4, min_lr=1e-5, betas=(0.9, 0.999), weight_decay=0.05, grad_clip=None, precision="fp16")
LAVIS_EPOCHS, LAVIS_GPUS = 10, 16

#: For one GPU: the smaller data sets of the paper, about 5 M pairs.
A100_DATA = ImageTextData("COCO, Visual Genome, CC3M and SBU captions", pairs=5_000_000)


def steps_of(epochs: int, data: ImageTextData, batch_size: int) -> int:
    """Updates in `epochs` passes over the data, without incomplete batches."""
    return epochs * (data.pairs // batch_size)


# ----------------------------------------------------------------------------------------------------------- the paper


def _language_model(name: str) -> FrozenLanguageModel:
    """By its name in recipes: "flant5-xl" is "flan-t5-xl" in the catalog."""
    return LANGUAGE_MODELS[name.replace("flant5", "flan-t5")]


def _paper_stage1(encoder: str) -> Recipe:
    batch_size = STAGE1_BATCH[encoder]
    return Recipe(
        f"paper-stage1-{encoder}",
        f"the paper's stage 1 with {encoder}: 250k steps of {batch_size}",
        STAGE1_COST,
        "stage1",
        OptimConfig(
            steps=250_000,  # section 3.4
            batch_size=batch_size,
            min_lr=0.0,  # section 3.4 names a minimum for stage 2 only (LAVIS's release: 1e-5)
            **PAPER_ADAMW,
        ),
        Stage1Parts(IMAGE_ENCODERS[encoder].hub, BERT.hub, num_query_tokens=32),  # section 3.1: 32 queries of 768
        PAPER_DATA,
        save_every=1000,
        eval_every=5000,
    )


def _paper_stage2(encoder: str, language: str) -> Recipe:
    frozen = _language_model(language)
    batch_size = STAGE2_BATCH[frozen.family]
    return Recipe(
        f"paper-stage2-{encoder}-{language}",
        f"the paper's stage 2 with {encoder} and {language}: 80k steps of {batch_size}",
        STAGE2_COST,
        "stage2",
        OptimConfig(
            steps=80_000,  # section 3.4
            batch_size=batch_size,
            min_lr=5e-5,  # section 3.4 (LAVIS's release: 1e-5)
            **{**PAPER_ADAMW, "precision": frozen.precision},
        ),
        Stage2Parts(f"paper-stage1-{encoder}", frozen.hub),
        PAPER_DATA,
        save_every=1000,
        eval_every=5000,
    )


PAPER = (
    *(_paper_stage1(encoder) for encoder in IMAGE_ENCODERS),
    *(_paper_stage2(encoder, language) for encoder, language in PAPER_PAIRS),
)

# --------------------------------------------------------------------------------------------------------- fine-tuning


def _fine_tune(name: str, table: str, task: str, data: ImageTextData, batch_size: int, parts: FineTuneParts, **optim):
    optim = dict(batch_size=batch_size, steps=steps_of(FINE_TUNE_EPOCHS, data, batch_size), **FINE_TUNE_ADAMW) | optim
    return Recipe(
        f"finetune-{task}-{name}",
        f"{table}: {task} with {name}, {FINE_TUNE_EPOCHS} epochs of {data.source}",
        SEE_PLAN,
        task,
        OptimConfig(**optim),
        parts,
        data,
        save_every=1000,
        eval_every=5000,
    )


def _fine_tune_language(task: str, language: str, layer_decay: float) -> Recipe:
    """Tables 7 (captioning) and 8 (VQA), both with ViT-g."""
    start, precision = f"paper-stage2-vit-g-{language}", _language_model(language).precision
    optim = dict(lr=1e-5, betas=(0.9, 0.999), precision=precision)  # Tables 7, 8; precision: section 3.4
    if task == "caption":
        parts = FineTuneParts(start, layer_decay, prompt="a photo of")  # Table 7
        return _fine_tune(language, "Table 7", task, COCO, 256, parts, **optim)  # Table 7: batch 256
    parts = FineTuneParts(start, layer_decay, prompt="Question: {} Answer:", question_in_qformer=True)  # Table 8
    return _fine_tune(language, "Table 8", task, VQA, 128, parts, **optim)  # Table 8: batch 128


def _fine_tune_retrieval(encoder: str, lr: float, betas: tuple[float, float], layer_decay: float) -> Recipe:
    parts = FineTuneParts(f"paper-stage1-{encoder}", layer_decay)
    optim = dict(lr=lr, betas=betas, precision="fp16")
    return _fine_tune(encoder, "Table 9", "retrieval", COCO, 224, parts, **optim)  # Table 9: batch 224


FINE_TUNING = (
    _fine_tune_language("caption", "flant5-xl", 1.0),  # Table 7: layer-wise decay for ViT, 1, 1, 0.95
    _fine_tune_language("caption", "opt-2.7b", 1.0),
    _fine_tune_language("caption", "opt-6.7b", 0.95),
    _fine_tune_language("vqa", "flant5-xl", 0.95),  # Table 8: 0.95, 0.95, 0.9
    _fine_tune_language("vqa", "opt-2.7b", 0.95),
    _fine_tune_language("vqa", "opt-6.7b", 0.9),
    _fine_tune_retrieval("vit-l", 5e-6, (0.9, 0.98), 1.0),  # Table 9
    _fine_tune_retrieval("vit-g", 1e-5, (0.9, 0.999), 0.95),  # Table 9
)

# --------------------------------------------------------------------------------------- what was released, and one GPU


def _lavis(name: str, summary: str, based_on: str, **changes) -> Recipe:
    """A released yaml as its differences from the paper's recipe. LAVIS's cosine changes once an epoch, ours each
    step."""
    recipe = next(recipe for recipe in (*PAPER, *FINE_TUNING) if recipe.name == based_on)
    return replace(recipe, name=f"lavis-{name}", summary=f"LAVIS's {summary}", cost=SEE_PLAN, **changes)


def _lavis_pretraining(batch_size: int, warmup_steps: int) -> OptimConfig:
    steps = steps_of(LAVIS_EPOCHS, LAVIS_DATA, batch_size)
    return OptimConfig(steps=steps, batch_size=batch_size, warmup_steps=warmup_steps, **LAVIS_ADAMW)


LAVIS = (
    _lavis(
        "stage1",
        "pretrain_stage1.yaml: ViT-g, 10 epochs of COCO and Visual Genome",
        "paper-stage1-vit-g",
        optim=_lavis_pretraining(100 * LAVIS_GPUS, warmup_steps=5000),
        model=Stage1Parts(IMAGE_ENCODERS["vit-g"].hub, BERT.hub, gather_with_grad=False),
        data=LAVIS_DATA,
    ),
    _lavis(
        "stage2-opt-2.7b",
        "pretrain_stage2.yaml: ViT-g and OPT-2.7B, 10 epochs of COCO and Visual Genome",
        "paper-stage2-vit-g-opt-2.7b",
        optim=_lavis_pretraining(64 * LAVIS_GPUS, warmup_steps=2000),
        data=LAVIS_DATA,
    ),
    _lavis("caption-opt-2.7b", "caption_coco_ft.yaml: as Table 7", "finetune-caption-opt-2.7b"),
    _lavis(
        "retrieval",
        "retrieval_coco_ft.yaml: as Table 9, but its layer-wise decay of 0.95 is not applied",
        "finetune-retrieval-vit-g",
        model=FineTuneParts("paper-stage1-vit-g", layer_decay=1.0),
    ),
)

#: Scaled to one A100 of 80 GB: the paper's settings in bf16, with a batch that fits and a number of steps that takes
#: less than a day by `blip2-lab plan`. Never run: the expected loss is not known, except that each loss starts at its
#: chance level (`blip2-lab doctor RUN` compares).
A100 = (
    Recipe(
        "a100-stage1",
        "stage 1 with ViT-g on one A100 (80 GB): 14.3 M pairs",
        SEE_PLAN,
        "stage1",
        OptimConfig(steps=28_000, batch_size=512, **PAPER_ADAMW | {"precision": "bf16"}),
        Stage1Parts(IMAGE_ENCODERS["vit-g"].hub, BERT.hub),
        A100_DATA,
        save_every=500,
        eval_every=1000,
    ),
    Recipe(
        "a100-stage2",
        "stage 2 with ViT-g and FlanT5-XL on one A100 (80 GB): 7.7 M pairs",
        SEE_PLAN,
        "stage2",
        OptimConfig(steps=30_000, batch_size=256, accumulate=2, min_lr=5e-5, **PAPER_ADAMW | {"precision": "bf16"}),
        Stage2Parts("a100-stage1", _language_model("flant5-xl").hub),
        A100_DATA,
        save_every=500,
        eval_every=1000,
    ),
)
