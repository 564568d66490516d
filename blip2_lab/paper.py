"""The numbers of the paper and of its released code, each with its section, table or file.

What is unusual about it:

* Nothing here trains: recipes.py makes recipes of these numbers.
* Where the paper names none, the line says whose number stands there instead.

Paper: section 3.4, Tables 2 and 7 to 9. Notebook: 08.
"""

from __future__ import annotations

from blip2_lab.training.recipes.schema import WebData

# --------------------------------------------------------------------------------------------------------- pre-training

#: Section 3.4: "The same set of pre-training hyper-parameters are used for all models."
PAPER_ADAMW = dict(
    lr=1e-4,  # section 3.4: peak learning rate
    warmup_steps=2000,  # section 3.4: linear warm-up of 2k steps
    betas=(0.9, 0.98),  # section 3.4 (LAVIS's release: 0.9, 0.999)
    weight_decay=0.05,  # section 3.4
    grad_clip=None,  # the paper names none, and LAVIS has none
    precision="fp16",  # LAVIS's autocast; section 3.4 speaks of the frozen parts only
)
#: Section 3.4: COCO, Visual Genome, CC3M, CC12M, SBU and 115 M of LAION400M; two captions each, chosen by CapFilt.
PAPER_DATA = WebData(source="129M pairs, section 3.4", image_size=224, flip=True)
BERT_BASE = "google-bert/bert-base-uncased"  # section 3.1

#: Section 3.4: name, image encoder, batch size of stage 1.
IMAGE_ENCODERS = {
    "vit-l": ("openai/clip-vit-large-patch14", 2320),  # CLIP ViT-L/14
    "vit-g": ("eva-clip-vit-g-14", 1680),  # EVA-CLIP ViT-g/14
}
#: Section 3.4: language model, batch size of stage 2 (OPT 1920, FlanT5 1520), precision (FlanT5 in bfloat16).
LANGUAGE_MODELS = {
    "opt-2.7b": ("facebook/opt-2.7b", 1920, "fp16"),
    "opt-6.7b": ("facebook/opt-6.7b", 1920, "fp16"),
    "flant5-xl": ("google/flan-t5-xl", 1520, "bf16"),
    "flant5-xxl": ("google/flan-t5-xxl", 1520, "bf16"),
}
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

#: What Tables 7 to 9 have in common. They name no schedule: here it is the paper's cosine, down to 0 as in LAVIS.
FINE_TUNE_ADAMW = dict(
    warmup_steps=1000,  # Tables 7, 8, 9
    weight_decay=0.05,  # Tables 7, 8, 9
    min_lr=0.0,  # LAVIS's release; not in the tables
    grad_clip=None,  # none is named
)
FINE_TUNE_EPOCHS = 5  # Tables 7, 8, 9
#: Karpathy's training split: 113,287 images, 567k captions.
COCO = WebData("COCO captions, Karpathy's training split", image_size=364, pairs=567_000)  # resolution: Tables 7 and 9
#: Section 4.3: the training and validation splits of VQAv2 (443,757 and 214,354 questions) and samples of Visual
#: Genome, whose number the paper does not give: an epoch is VQAv2 alone. No flip: questions name sides.
VQA = WebData("VQAv2 and Visual Genome", image_size=490, flip=False, pairs=658_111, text="questions")  # size: Table 8

# ---------------------------------------------------------------------------------------------------- what was released

#: LAVIS's train/pretrain_stage{1,2}.yaml: COCO and Visual Genome captions (567k and 821k) alone, 10 epochs.
LAVIS_DATA = WebData("COCO and Visual Genome captions", pairs=1_388_000)
LAVIS_ADAMW = dict(lr=1e-4, min_lr=1e-5, betas=(0.9, 0.999), weight_decay=0.05, grad_clip=None, precision="fp16")
LAVIS_EPOCHS, LAVIS_GPUS = 10, 16

#: For one GPU: what of the paper's data is small enough to store, about 5 M pairs.
A100_DATA = WebData("COCO, Visual Genome, CC3M and SBU captions", pairs=5_000_000)


def steps_of(epochs: int, data: WebData, batch_size: int) -> int:
    """Updates in that many passes over the data, incomplete batches left out."""
    return epochs * (data.pairs // batch_size)
