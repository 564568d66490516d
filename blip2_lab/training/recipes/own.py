"""Recipes of a world of your own: every part from a folder of pictures with captions, as `blip2-lab train own --on
FOLDER` trains them.

`OWN_WORLD` lists them in their order; `own` is their sequence. `scaled` gives a recipe as many steps as a number of
pictures asks for.

Notes:

* The image encoder is the shipped one. `--set model.image_encoder=own-vit` or `own-mae` makes one from masked
  patches of the pictures; a folder or a hub name can stand there, too.
* The language model is a T5; `--set model.language_model=own-opt` makes an OPT instead.
* What no other part starts from is not trained (`registry.with_settings`).

Paper: section 3, in miniature. Notebook: none.
"""

from __future__ import annotations

from dataclasses import replace

from blip2_lab.training.recipes.schema import (
    FineTuneParts,
    ImageTextData,
    MaePart,
    OptimConfig,
    OwnPart,
    OwnTextData,
    Recipe,
    Stage1Parts,
    Stage2Parts,
)

DEPENDS = "depends on the pictures"  #: the cost
CAPTION_PROMPT = "a picture of"  #: before which captions are written
PICTURES = ImageTextData("your own pictures", image_size=96, held_out=40, cached_views=8)
TEXTS = OwnTextData("the captions of your own pictures", held_out=40)

#: Epochs of the pictures, and the smallest and largest number of steps. A text encoder or a language model counts
#: pictures, too: more captions of each are more variety, not more steps.
EPOCHS = {
    "own-vit": (60, 400, 4000),
    "own-mae": (60, 400, 4000),
    "own-bert": (40, 300, 2000),
    "own-t5": (80, 600, 4000),
    "own-opt": (60, 400, 3000),
    "own-stage1": (40, 400, 3000),
    "own-stage2": (40, 300, 2000),
    "own-retrieval": (10, 100, 600),
}


def _part(
    name: str, summary: str, model: OwnPart | Stage1Parts | Stage2Parts | FineTuneParts, data: ImageTextData, **optim
) -> Recipe:
    """A part with its smallest number of steps. Its task is its name without `own-`."""
    steps = EPOCHS[name][1]
    settings = OptimConfig(warmup_steps=steps // 10, steps=steps, batch_size=32, **optim)
    return Recipe(name, summary, DEPENDS, name.removeprefix("own-"), settings, model, data, eval_every=50)


OWN_WORLD = (
    _part(
        "own-vit",
        "image encoder from your pictures alone: what is in a masked patch",
        OwnPart(),
        replace(PICTURES, cached_views=0),
        lr=1e-3,
    ),
    _part(
        "own-mae",
        "image encoder from your pictures alone: a masked autoencoder",
        MaePart(),
        replace(PICTURES, cached_views=0),
        lr=1e-3,
        betas=(0.9, 0.95),
    ),
    _part(
        "own-bert",
        "masked words in your captions: what the Q-Former starts from, with a tokenizer of your words",
        OwnPart(),
        TEXTS,
        lr=1e-3,
        weight_decay=0.01,
    ),
    _part(
        "own-t5",
        "encoder-decoder language model from your captions and texts",
        OwnPart(),
        TEXTS,
        lr=1e-3,
        min_lr=1e-4,
        weight_decay=0.01,
    ),
    _part(
        "own-opt",
        "decoder language model from your captions and texts",
        OwnPart(),
        TEXTS,
        lr=1e-3,
        weight_decay=0.01,
    ),
    _part(
        "own-stage1",
        "Q-Former, representation learning on your pictures: ITC + ITM + ITG (section 3.2)",
        Stage1Parts("micro", "own-bert", num_query_tokens=16, embed_width=128, max_text_tokens=64),
        PICTURES,
        lr=5e-4,
    ),
    _part(
        "own-stage2",
        "Q-Former, generative learning on your pictures with the frozen language model (section 3.3)",
        Stage2Parts("own-stage1", "own-t5", max_text_tokens=64, match_embeddings=True),
        PICTURES,
        lr=1e-3,
        min_lr=5e-5,
    ),
    _part(
        "own-retrieval",
        "stage 1's Q-Former, fine-tuned for search on your pictures (section 4.4)",
        FineTuneParts("own-stage1", max_text_tokens=64, train_image_encoder=False),
        PICTURES,
        lr=1e-4,
    ),
)
OWN_WORLD += (
    Recipe(
        "own",
        "a whole miniature from a folder of your pictures with captions, exported and measured: train own --on FOLDER",
        DEPENDS,
        "sequence",
        sequence=tuple(recipe.name for recipe in OWN_WORLD),
    ),
)


def scaled(recipe: Recipe, pictures: int) -> Recipe:
    """The recipe with the number of steps for so many pictures, and a tenth of them as warm-up."""
    epochs, least, most = EPOCHS[recipe.name]
    steps = min(max(round(epochs * pictures / recipe.optim.batch_size), least), most)
    return replace(recipe, optim=replace(recipe.optim, steps=steps, warmup_steps=steps // 10))
