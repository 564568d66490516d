"""Recipes of the miniature: every part from nothing, the two stages, and what follows them, on the picture book.

`MICRO` lists them in the order in which they are trained; `LAPTOP` is the same one size up, `OWN` is what
`blip2-lab train --on FOLDER` trains. Each says what it is, what it costs and what it needs.

    blip2-lab train micro-all                            everything, and the finished model exported
    blip2-lab train micro-stage1 --set optim.lr=5e-4     one of them, one value changed

Paper: section 3, in miniature. Notebooks: 08, 11.
"""

from __future__ import annotations

from dataclasses import fields, replace

from blip2_lab.training.recipes.schema import (
    SEE_PLAN,
    FineTuneParts,
    ImageTextData,
    MaePart,
    MicroPart,
    OptimConfig,
    Recipe,
    SceneData,
    Stage1Parts,
    Stage2Parts,
    SyntheticTextData,
)

# -------------------------------------------------------------------------------------------------------- micro models
# Costs were read off the logs in assets/micro-all: one core each with bf16 matrix units, another part on the other.
# Without such units matrix products are about 8 times slower.

MICRO = (
    Recipe(
        "micro-vit",
        "image encoder from pictures alone: what each patch shows",
        "15 min on one core",
        "vit",
        OptimConfig(lr=1e-3, warmup_steps=150, steps=1600, batch_size=64),
        MicroPart("S"),
        SyntheticTextData(),
    ),
    Recipe(
        "micro-bert",
        "masked words in captions: what the Q-Former starts from",
        "5 min on one core",
        "bert",
        OptimConfig(lr=1e-3, warmup_steps=100, steps=800, batch_size=64, weight_decay=0.01),
        MicroPart("S"),
        SyntheticTextData(),
    ),
    Recipe(
        "micro-t5",
        "encoder-decoder language model from text alone: the T5",
        "55 min on one core",
        "t5",
        OptimConfig(lr=1e-3, min_lr=1e-4, warmup_steps=100, steps=2600, batch_size=64, weight_decay=0.01),
        MicroPart("S"),
        SyntheticTextData(lessons_until=1000, review_from=1800, sentences_from=1500, questions_from=2200),
        eval_every=500,
    ),
    Recipe(
        "micro-flan-t5",
        "the T5, trained on with instructions in a visitor's words: the FlanT5",
        SEE_PLAN,
        "t5",
        OptimConfig(lr=6e-4, min_lr=5e-5, warmup_steps=50, steps=1400, batch_size=64, weight_decay=0.01),
        MicroPart("S", start="micro-t5"),
        SyntheticTextData(seed=1, questions_from=0, hard_from=0, choices_from=700),
        eval_every=500,
    ),
    Recipe(
        "micro-stage1",
        "Q-Former, representation learning: ITC + ITM + ITG (section 3.2)",
        "47 min on one core",
        "stage1",
        OptimConfig(lr=5e-4, warmup_steps=150, steps=1700, batch_size=64),
        Stage1Parts(num_query_tokens=16, embed_width=128, dropout=0.0, max_text_tokens=64),
        SceneData(hard_batches_from=400),
        eval_every=250,
    ),
    Recipe(
        "micro-stage2",
        "Q-Former, generative learning with the frozen micro T5 (section 3.3)",
        "15 min on one core",
        "stage2",
        OptimConfig(lr=1e-3, min_lr=5e-5, warmup_steps=100, steps=1000, batch_size=64),
        Stage2Parts(max_text_tokens=64, match_embeddings=True),
        SceneData(caption="ordered", held_out=40),
        eval_every=250,
    ),
    Recipe(
        "micro-retrieval",
        "stage 1's Q-Former, fine-tuned for retrieval by the same losses (section 4.4), the image encoder frozen",
        "17 min on one core",
        "retrieval",
        OptimConfig(lr=3e-4, warmup_steps=50, steps=600, batch_size=64),
        FineTuneParts("micro-stage1", max_text_tokens=64, train_image_encoder=False),
        SceneData(caption="full and search", hard_batches_from=0),
        eval_every=250,
    ),
    Recipe(
        "micro-opt",
        "decoder language model from plain text alone: the OPT",
        "10 min on one core",
        "opt",
        OptimConfig(lr=1e-3, warmup_steps=100, steps=900, batch_size=96, weight_decay=0.01),
        MicroPart("S"),
        SyntheticTextData(),
    ),
    Recipe(
        "micro-stage2-opt",
        "Q-Former, generative learning with the frozen micro OPT (section 3.3)",
        "5 min on one core",
        "stage2",
        OptimConfig(lr=5e-4, min_lr=5e-5, warmup_steps=100, steps=500, batch_size=64),
        Stage2Parts(language_model="micro-opt", max_text_tokens=64, match_embeddings=True),
        SceneData(held_out=40),
        eval_every=250,
    ),
)


def _sequence(name: str, summary: str, cost: str, parts: tuple[Recipe, ...]) -> Recipe:
    return Recipe(name, summary, cost, "sequence", sequence=tuple(recipe.name for recipe in parts))


MICRO_MODEL = "everything above, from nothing, and the finished model exported"
MICRO += (_sequence("micro-all", MICRO_MODEL, "89 min on two cores", MICRO),)

#: The same parts with more steps: the weights in the package are what `blip2-lab train shipped` makes.
SHIPPED_STEPS = {
    "micro-vit": 2500,
    "micro-bert": 1000,
    "micro-t5": 4000,
    "micro-flan-t5": 5000,
    "micro-stage1": 2000,
    "micro-stage2": 2400,
    "micro-retrieval": 1500,
}


def _renamed(recipe: Recipe, prefix: str) -> Recipe:
    """The recipe under another first word, built from parts of that name: micro-stage2 -> shipped-stage2."""
    named = {
        field.name: value.replace("micro-", f"{prefix}-")
        for field in fields(recipe.model)
        if isinstance(value := getattr(recipe.model, field.name), str)
    }
    return replace(recipe, name=recipe.name.replace("micro-", f"{prefix}-"), model=replace(recipe.model, **named))


def _shipped(recipe: Recipe) -> Recipe:
    steps = replace(recipe.optim, steps=SHIPPED_STEPS[recipe.name])
    # as in micro-flan-t5, after about half of the steps
    data = replace(recipe.data, choices_from=2400) if recipe.name == "micro-flan-t5" else recipe.data
    return replace(_renamed(recipe, "shipped"), cost=SEE_PLAN, optim=steps, data=data)


#: The T5 learns that several vectors may tell the same thing, as they do in the visual prompts of shipped-stage2, and
#: more wordings; then the Q-Former learns to prompt this T5, and search is trained for longer.
REPEATS = Recipe(
    "shipped-flan-t5-continued",
    "the FlanT5, trained on with word sums that are repeated as visual prompts are",
    SEE_PLAN,
    "t5",
    OptimConfig(lr=5e-4, min_lr=3e-5, warmup_steps=50, steps=4000, batch_size=64, weight_decay=0.01),
    MicroPart("S", start="shipped-flan-t5"),
    SyntheticTextData(seed=2, questions_from=0, hard_from=0, choices_from=0, repeats_from=0),
    eval_every=500,
)
STAGE2_ON = Recipe(
    "shipped-stage2-continued",
    "shipped-stage2, trained on with the FlanT5 that was trained on",
    SEE_PLAN,
    "stage2",
    OptimConfig(lr=5e-4, min_lr=2e-5, warmup_steps=100, steps=1200, batch_size=64),
    Stage2Parts("shipped-stage1", "shipped-flan-t5-wordings", max_text_tokens=64, start="shipped-stage2"),
    SceneData(caption="ordered and count", held_out=40),
    eval_every=250,
)
RETRIEVAL_ON = Recipe(
    "shipped-retrieval-continued",
    "shipped-retrieval, trained on",
    SEE_PLAN,
    "retrieval",
    OptimConfig(lr=3e-4, warmup_steps=50, steps=2000, batch_size=64),
    FineTuneParts("shipped-retrieval", max_text_tokens=64, train_image_encoder=False),
    SceneData(caption="full and search", hard_batches_from=0),
    eval_every=250,
)
CONTINUED = (
    REPEATS,
    replace(
        REPEATS,
        name="shipped-flan-t5-wordings",
        summary="the same, trained on after the wordings of the questions had become twice as many",
        optim=replace(REPEATS.optim, lr=3e-4, min_lr=2e-5, steps=1000),
        model=replace(REPEATS.model, start=REPEATS.name),
        data=replace(REPEATS.data, seed=3),
    ),
    replace(
        REPEATS,
        name="shipped-flan-t5-choices",
        summary="the same, trained on with sizes compared, with earlier turns and with what no picture answers",
        optim=replace(REPEATS.optim, lr=4e-4, min_lr=2e-5, steps=2600),
        model=replace(REPEATS.model, start="shipped-flan-t5-wordings"),
        data=replace(REPEATS.data, seed=4),
        eval_every=650,
    ),
    replace(
        REPEATS,
        name="shipped-flan-t5-all",
        summary="the same, trained on with every kind of question as often",
        optim=replace(REPEATS.optim, lr=3e-4, min_lr=2e-5, steps=700),
        model=replace(REPEATS.model, start="shipped-flan-t5-choices"),
        data=replace(REPEATS.data, seed=5, hard_from=None),
        eval_every=350,
    ),
    replace(
        REPEATS,
        name="shipped-flan-t5-questions",
        summary="the same, trained on with nine more kinds of questions",
        optim=replace(REPEATS.optim, lr=4e-4, min_lr=1e-5, steps=2200),
        model=replace(REPEATS.model, start="shipped-flan-t5-all"),
        data=replace(REPEATS.data, seed=6, hard_from=None),
        eval_every=1100,
    ),
    replace(
        REPEATS,
        name="shipped-flan-t5-longer",
        summary="the same, trained on with what it had learned least well",
        optim=replace(REPEATS.optim, lr=4e-4, min_lr=1e-5, steps=2400),
        model=replace(REPEATS.model, start="shipped-flan-t5-questions"),
        data=replace(REPEATS.data, seed=7, hard_from=None),
        eval_every=1200,
    ),
    replace(
        REPEATS,
        name="shipped-flan-t5-kinds",
        summary="the same, trained on with eleven more kinds of questions",
        optim=replace(REPEATS.optim, lr=5e-4, min_lr=1e-5, steps=2800),
        model=replace(REPEATS.model, start="shipped-flan-t5-longer"),
        data=replace(REPEATS.data, seed=8, hard_from=None),
        eval_every=1400,
    ),
    replace(
        REPEATS,
        name="shipped-flan-t5-groups",
        summary="the same, trained on with mostly what it had learned least well: groups and two things compared",
        optim=replace(REPEATS.optim, lr=4e-4, min_lr=1e-5, steps=2400),
        model=replace(REPEATS.model, start="shipped-flan-t5-kinds"),
        data=replace(REPEATS.data, seed=9, hard_from=None, often_share=0.8),
        eval_every=1200,
    ),
    replace(
        REPEATS,
        name="shipped-flan-t5-related",
        summary="the same, trained on with eight more kinds of questions, and mostly what it had learned least well",
        optim=replace(REPEATS.optim, lr=5e-4, min_lr=1e-5, steps=3000),
        model=replace(REPEATS.model, start="shipped-flan-t5-groups"),
        data=replace(REPEATS.data, seed=10, hard_from=None, often_share=0.75),
        eval_every=1500,
    ),
    replace(
        REPEATS,
        name="shipped-flan-t5-scenery",
        summary="the same, trained on with the water of a beach, the grass of a meadow and what else it answered "
        "wrongly",
        optim=replace(REPEATS.optim, lr=4e-4, min_lr=1e-5, steps=1000),
        model=replace(REPEATS.model, start="shipped-flan-t5-related"),
        data=replace(REPEATS.data, seed=11, hard_from=None, often_share=0.8),
        eval_every=1000,
    ),
    replace(
        REPEATS,
        name="shipped-flan-t5-evenly",
        summary="the same, trained on with all kinds of questions again: it had begun to forget parts and what is "
        "not there",
        optim=replace(REPEATS.optim, lr=4e-4, min_lr=1e-5, steps=1100),
        model=replace(REPEATS.model, start="shipped-flan-t5-scenery"),
        data=replace(REPEATS.data, seed=12, hard_from=None, often_share=0.5),
        eval_every=1100,
    ),
    STAGE2_ON,
    replace(
        STAGE2_ON,
        name="shipped-stage2-choices",
        summary="the same, trained on with the FlanT5 that compares",
        optim=replace(STAGE2_ON.optim, min_lr=1e-5, steps=1500),
        model=replace(STAGE2_ON.model, language_model="shipped-flan-t5-choices", start=STAGE2_ON.name),
        data=replace(STAGE2_ON.data, seed=1),
        eval_every=500,
    ),
    replace(
        STAGE2_ON,
        name="shipped-stage2-all",
        summary="the same, trained on with the last FlanT5",
        optim=replace(STAGE2_ON.optim, lr=2e-4, min_lr=1e-5, warmup_steps=30, steps=250),
        model=replace(STAGE2_ON.model, language_model="shipped-flan-t5-all", start="shipped-stage2-choices"),
        data=replace(STAGE2_ON.data, seed=1),
    ),
    replace(
        STAGE2_ON,
        name="shipped-stage2-questions",
        summary="the same, trained on with the FlanT5 that knows more kinds of questions",
        optim=replace(STAGE2_ON.optim, lr=4e-4, min_lr=1e-5, warmup_steps=30, steps=800),
        model=replace(STAGE2_ON.model, language_model="shipped-flan-t5-questions", start="shipped-stage2-all"),
        data=replace(STAGE2_ON.data, seed=2, alike_from=0),
        eval_every=400,
    ),
    replace(
        STAGE2_ON,
        name="shipped-stage2-longer",
        summary="the same, trained on with the last FlanT5",
        optim=replace(STAGE2_ON.optim, lr=4e-4, min_lr=1e-5, warmup_steps=30, steps=1400),
        model=replace(STAGE2_ON.model, language_model="shipped-flan-t5-longer", start="shipped-stage2-questions"),
        data=replace(STAGE2_ON.data, seed=3, alike_from=0),
        eval_every=700,
    ),
    replace(
        STAGE2_ON,
        name="shipped-stage2-ordered",
        summary="the same, trained on with captions that name things in order: those with counts named one thing twice",
        optim=replace(STAGE2_ON.optim, lr=1e-4, min_lr=1e-5, warmup_steps=20, steps=200),
        model=replace(STAGE2_ON.model, language_model="shipped-flan-t5-longer", start="shipped-stage2-longer"),
        data=replace(STAGE2_ON.data, seed=4, caption="ordered", alike_from=0),
        eval_every=200,
    ),
    replace(
        STAGE2_ON,
        name="shipped-stage2-kinds",
        summary="the same, trained on with the last FlanT5",
        optim=replace(STAGE2_ON.optim, lr=4e-4, min_lr=1e-5, warmup_steps=30, steps=1200),
        model=replace(STAGE2_ON.model, language_model="shipped-flan-t5-kinds", start="shipped-stage2-ordered"),
        data=replace(STAGE2_ON.data, seed=5, alike_from=0),
        eval_every=600,
    ),
    replace(
        STAGE2_ON,
        name="shipped-stage2-kinds-ordered",
        summary="the same, trained on with captions that name things in order",
        optim=replace(STAGE2_ON.optim, lr=1e-4, min_lr=1e-5, warmup_steps=20, steps=200),
        model=replace(STAGE2_ON.model, language_model="shipped-flan-t5-kinds", start="shipped-stage2-kinds"),
        data=replace(STAGE2_ON.data, seed=6, caption="ordered", alike_from=0),
        eval_every=200,
    ),
    replace(
        STAGE2_ON,
        name="shipped-stage2-groups",
        summary="the same, trained on with the last FlanT5",
        optim=replace(STAGE2_ON.optim, lr=3e-4, min_lr=1e-5, warmup_steps=30, steps=700),
        model=replace(STAGE2_ON.model, language_model="shipped-flan-t5-groups", start="shipped-stage2-kinds-ordered"),
        data=replace(STAGE2_ON.data, seed=7, alike_from=0),
        eval_every=700,
    ),
    replace(
        STAGE2_ON,
        name="shipped-stage2-groups-ordered",
        summary="the same, trained on with captions that name things in order",
        optim=replace(STAGE2_ON.optim, lr=1e-4, min_lr=1e-5, warmup_steps=20, steps=200),
        model=replace(STAGE2_ON.model, language_model="shipped-flan-t5-groups", start="shipped-stage2-groups"),
        data=replace(STAGE2_ON.data, seed=8, caption="ordered", alike_from=0),
        eval_every=200,
    ),
    replace(
        STAGE2_ON,
        name="shipped-stage2-related",
        summary="the same, trained on with the last FlanT5",
        optim=replace(STAGE2_ON.optim, lr=3e-4, min_lr=1e-5, warmup_steps=30, steps=900),
        model=replace(STAGE2_ON.model, language_model="shipped-flan-t5-related", start="shipped-stage2-groups-ordered"),
        data=replace(STAGE2_ON.data, seed=9, alike_from=0),
        eval_every=900,
    ),
    replace(
        STAGE2_ON,
        name="shipped-stage2-evenly",
        summary="the same, trained on with the last FlanT5",
        optim=replace(STAGE2_ON.optim, lr=3e-4, min_lr=1e-5, warmup_steps=30, steps=750),
        model=replace(STAGE2_ON.model, language_model="shipped-flan-t5-evenly", start="shipped-stage2-related"),
        data=replace(STAGE2_ON.data, seed=10, alike_from=0),
        eval_every=750,
    ),
    replace(
        STAGE2_ON,
        name="shipped-stage2-evenly-ordered",
        summary="the same, trained on with captions that name things in order",
        optim=replace(STAGE2_ON.optim, lr=1e-4, min_lr=1e-5, warmup_steps=20, steps=200),
        model=replace(STAGE2_ON.model, language_model="shipped-flan-t5-evenly", start="shipped-stage2-evenly"),
        data=replace(STAGE2_ON.data, seed=11, caption="ordered", alike_from=0),
        eval_every=200,
    ),
    RETRIEVAL_ON,
    replace(
        RETRIEVAL_ON,
        name="shipped-retrieval-phrases",
        summary="the same, trained on with two phrases for each full caption",
        optim=replace(RETRIEVAL_ON.optim, lr=4e-4, steps=2400),
        model=replace(RETRIEVAL_ON.model, start=RETRIEVAL_ON.name),
        data=replace(RETRIEVAL_ON.data, seed=1, caption="full and more search"),
    ),
)

SHIPPED = tuple(_shipped(recipe) for recipe in MICRO if recipe.name in SHIPPED_STEPS) + CONTINUED
SHIPPED_MODEL = "the model in the package, from nothing, and exported"
SHIPPED += (_sequence("shipped", SHIPPED_MODEL, SEE_PLAN, SHIPPED),)

#: The image encoder from pictures without labels: in place of micro-vit, --set model.image_encoder=micro-mae.
MAE = Recipe(
    "micro-mae",
    "image encoder from masked pictures alone, as a masked autoencoder: no labels",
    "not measured",
    "mae",
    OptimConfig(lr=1e-3, warmup_steps=150, steps=1600, batch_size=64, betas=(0.9, 0.95)),
    MaePart("S"),
    SyntheticTextData(),
)

#: What `blip2-lab train --on FOLDER` trains.
OWN = Recipe(
    "micro-captions",
    "the shipped miniature, fine-tuned on the captions of your own pictures: train --on FOLDER",
    "not measured",
    "caption",
    OptimConfig(lr=1e-4, warmup_steps=20, steps=300, batch_size=32, weight_decay=0.05),
    # not "a photo of": the miniature's vocabulary has no photos
    FineTuneParts("micro", prompt="a picture of", max_text_tokens=64, train_image_encoder=False),
    ImageTextData("your own pictures", image_size=96, held_out=40, cached_views=8),
    save_every=100,
    eval_every=100,
)

#: Visual question answering with the question in the Q-Former, too: `blip2-lab train micro-vqa --on FOLDER`.
OWN_VQA = replace(
    OWN,
    name="micro-vqa",
    summary="the miniature, fine-tuned on questions about your own pictures; the Q-Former reads them, too (Figure 7)",
    task="vqa",
    model=replace(OWN.model, prompt="", question_in_qformer=True),
    data=replace(OWN.data, text="questions", flip=False),  # no flip: questions name sides
)

#: The same one size up ("M"), for a night on a laptop: as many steps, with wider and deeper parts.
LARGER = ("micro-vit", "micro-t5", "micro-flan-t5", "micro-bert", "micro-stage1", "micro-stage2", "micro-retrieval")


def _larger(recipe: Recipe) -> Recipe:
    larger = _renamed(recipe, "laptop")
    if isinstance(larger.model, MicroPart):
        larger = replace(larger, model=replace(larger.model, size="M"))
    return replace(larger, summary=f"{recipe.name} with larger parts", cost=SEE_PLAN)


LAPTOP = tuple(_larger(recipe) for recipe in MICRO if recipe.name in LARGER)
LARGER_MODEL = "a larger miniature, from nothing, and the finished model exported"
LAPTOP += (_sequence("laptop", LARGER_MODEL, SEE_PLAN, LAPTOP),)
