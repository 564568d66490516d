"""The miniature's recipes for each bridge: a handful of steps, saved, loaded, and asked."""

from dataclasses import replace

import pytest
import torch

import blip2_lab
from blip2_lab.data.scenes import PictureBook
from blip2_lab.models.bridges import DualEncoder
from blip2_lab.models.retrieval import require_stage1
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.picturebook.words import Question
from blip2_lab.training import builders, loading, run
from blip2_lab.training.frozen_features import fingerprint
from blip2_lab.training.recipes.bridges import MICRO_BRIDGES, STAGE1, STAGE2
from blip2_lab.training.recipes.registry import get, needs
from blip2_lab.training.recipes.relatives import GATED_ADAMW
from blip2_lab.training.recipes.schema import BridgeParts, DialogueData, override
from blip2_lab.training.run_folder import read_log
from blip2_lab.training.scene_batches import DialogueBatches
from blip2_lab.training.tasks.instruction import dialogue_prompt
from tests.training.tasks.test_stages import LAST, SMALL, parts, recipe  # noqa: F401  `parts` is a fixture

TWO_PHASES = ("micro-gated-phase1", "micro-gated-instruct")
DUAL = ("micro-dual-encoder", "micro-dual-encoder-codes")
ON_EQUAL_TERMS = [r for r in MICRO_BRIDGES if r.name not in (*TWO_PHASES, *DUAL)]
BRIDGES = [r.name for r in ON_EQUAL_TERMS if isinstance(r.model, BridgeParts)]
#: The tiny image encoder of the fixture has 9 patches.
SIZES = {
    "micro-linear-pooled": ("model.num_visual_tokens=3",),
    "micro-wide-qformer": ("model.width=64", "model.num_layers=1", "model.image_size=96", "model.num_visual_tokens=3"),
    "micro-gated": ("model.ffn_width=64",),
    "micro-gated-resampler": ("model.ffn_width=64", "model.num_visual_tokens=3"),
}


def test_they_differ_from_stage_2_in_nothing_but_the_bridge():
    assert len(ON_EQUAL_TERMS) == 6
    for each in ON_EQUAL_TERMS:
        assert (each.optim, each.data, each.seed) == (STAGE2.optim, STAGE2.data, STAGE2.seed)
        assert each.model.language_model == STAGE2.model.language_model
        assert each.model.max_text_tokens == STAGE2.model.max_text_tokens and each.model.match_embeddings
    assert needs(get("micro-linear")) == ("micro-vit", "micro-flan-t5")


@pytest.mark.parametrize("name", BRIDGES)
@pytest.mark.slow
def test_a_handful_of_steps(parts, name):  # noqa: F811
    for language in ("micro-t5", "micro-opt"):
        chosen = recipe(name, f"model.language_model={language}", *SIZES.get(name, ()))
        run.run(chosen, parts, resume=False, progress=False)
        log = read_log(parts / name)
        assert log[-1]["step"] == 3 and {"accuracy", "shuffled"} <= log[-1]["evaluation"].keys()
        model = blip2_lab.load(parts / name / "model")
        assert isinstance(model, Stage2Model)
        fresh = builders.build_task(chosen, parts).model
        assert model.image_encoder.image_size == (96 if "wide" in name else 48)
        weights, before = model.bridge.state_dict(), fresh.bridge.state_dict()
        assert all(torch.isfinite(tensor).all() for tensor in weights.values())
        assert any(not torch.equal(tensor, before[key]) for key, tensor in weights.items())
        frozen = fresh.language_model.state_dict()
        assert all(torch.equal(tensor, frozen[key]) for key, tensor in model.language_model.state_dict().items())


def test_a_bridge_that_does_not_exist_is_said(parts):  # noqa: F811
    with pytest.raises(ValueError, match="no bridge 'linaer'; did you mean 'linear'"):
        builders.build_task(recipe("micro-linear", "model.bridge=linaer"), parts)
    with pytest.raises(ValueError, match="50 pixels are no whole number of patches of 16: take 48 or 64"):
        builders.build_task(recipe("micro-linear", "model.image_size=50"), parts)


# ------------------------------------------------------------------------------------------------------- dual encoder


@pytest.mark.parametrize("name", DUAL)
def test_a_dual_encoder_is_trained_as_stage_1_saved_and_loaded(parts, name, tmp_path):  # noqa: F811
    assert (get(name).optim, get(name).data) == (STAGE1.optim, STAGE1.data) and needs(get(name))[1] == "micro-opt"
    codes = ("model.num_codes=5",) if name.endswith("codes") else ()
    chosen = recipe(name, "model.ffn_width=64", *codes)
    fresh = builders.build_task(chosen, parts)
    run.run(chosen, parts, resume=False, progress=False)
    log = read_log(parts / name)
    evaluation = log[-1]["evaluation"]
    assert {"itc", "itm"} <= log[0].keys() and {"image_to_text_r1", "itm_accuracy"} <= evaluation.keys()
    assert ("lost_by_codes" in evaluation) == bool(codes) and {"matched", "shuffled"} <= log[-1].keys()
    model = blip2_lab.load(parts / name / "model")
    assert isinstance(model, DualEncoder) and model.config == fresh.model.config
    for part in ("image_encoder", "language_model"):
        assert fingerprint(getattr(model, part)) == fingerprint(getattr(fresh.model, part))
    own, before = model.blocks.state_dict(), fresh.model.blocks.state_dict()
    assert any(not torch.equal(tensor, before[key]) for key, tensor in own.items())
    if codes:  # fitted before training, equal in each start, and stored
        assert torch.equal(model.codebook, fresh.model.codebook) and len(model.codebook.unique(dim=0)) == 5
    blip2_lab.save(model, tmp_path / "again")
    features, captions = torch.randn(2, 10, 64, generator=torch.Generator().manual_seed(0)), ["a boat.", "a cat."]
    again = blip2_lab.load(tmp_path / "again")
    assert torch.equal(again.match(features, captions), model.match(features, captions))
    with pytest.raises(ValueError, match="generates no text"):
        again.generate("scene.png", "a picture of")
    with pytest.raises(ValueError, match="no stage 1, which compares"):
        require_stage1(again)


def test_the_passes_of_a_dual_encoders_step_are_one_batch(parts):  # noqa: F811
    """ITC compares all pairs of a step, however it is split."""
    whole = builders.build_task(recipe("micro-dual-encoder", "model.ffn_width=64"), parts)
    split = builders.build_task(recipe("micro-dual-encoder", "model.ffn_width=64", "optim.accumulate=2"), parts)
    assert whole.chance() == split.chance()
    losses = []
    for task, numbers in ((whole, [0]), (split, [0, 1])):
        task.generator.manual_seed(3)
        losses.append(task.compute_joint_losses([task.batch(number) for number in numbers]))
    torch.testing.assert_close(losses[0], losses[1])


def test_captions_of_one_picture_are_no_negatives_of_a_dual_encoder(parts):  # noqa: F811
    task = builders.build_task(recipe("micro-dual-encoder", "model.ffn_width=64"), parts)
    batch = task.batch(0)
    assert task._matches([batch]) is None
    named = [replace(batch, ids=["a", "b", "a", "c"])]
    assert task._matches(named).int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("micro-dual-encoder", "model.train_language_model=true", "with both encoders frozen"),
        ("micro-dual-encoder", "model.bridge=linear", "linear is trained by generating text: start from micro-linear"),
        ("micro-linear", "model.bridge=dual_encoder", "trained by ITC and ITM: start from micro-dual-encoder"),
        ("micro-linear", "model.train_vision_layers=1", "cannot be cached: train on pixels"),
        ("micro-gated-instruct", "model.train_vision_layers=9", "train_vision_layers is 9; this image encoder has 1"),
        ("micro-gated-instruct", "model.start=micro-stage3", "no recipe, run or model 'micro-stage3'; did you mean"),
    ],
)
def test_what_cannot_be_trained_is_said(parts, name, change, sentence):  # noqa: F811
    chosen = phase(name, "model.start=none", change) if name in TWO_PHASES else recipe(name, change)
    with pytest.raises(ValueError, match=sentence):
        builders.build_task(chosen, parts)


# --------------------------------------------------------------------------------------------------------- two phases


def phase(name: str, *changes: str):
    """One of the two phases, with batches that can be split into few passes only."""
    chosen = get(name)
    for change in ("optim.accumulate=2", *SMALL, *LAST, "model.ffn_width=64", *changes):
        chosen = override(chosen, change)
    return chosen


def test_two_phases_have_the_optimizer_of_the_text():
    for name in TWO_PHASES:
        optim = get(name).optim
        for setting in ("betas", "weight_decay", "grad_clip", "accumulate"):
            assert getattr(optim, setting) == GATED_ADAMW[setting]
        assert optim.min_lr / optim.lr == pytest.approx(GATED_ADAMW["min_lr"] / GATED_ADAMW["lr"])
    assert needs(get(TWO_PHASES[0])) == ("micro-vit", "micro-opt")
    assert needs(get(TWO_PHASES[1])) == TWO_PHASES[:1] and needs(get("gated-65b-instruct")) == ("gated-65b",)


def test_the_second_phase_goes_on_from_the_first_and_trains_what_it_says(parts):  # noqa: F811
    first, second = phase(TWO_PHASES[0]), phase(TWO_PHASES[1], "model.train_vision_layers=1")
    run.run(first, parts, resume=False, progress=False)
    run.run(second, parts, resume=False, progress=False)
    log = read_log(parts / TWO_PHASES[1])
    assert log[-1]["step"] == 3 and {"accuracy", "shuffled"} <= log[-1]["evaluation"].keys()
    one, two = (blip2_lab.load(parts / name / "model") for name in TWO_PHASES)
    start = builders.build_task(second, parts).model
    assert fingerprint(start.bridge) == fingerprint(one.bridge) != fingerprint(two.bridge)
    assert fingerprint(one.language_model) != fingerprint(two.language_model)
    before, after = (model.image_encoder.state_dict() for model in (one, two))
    changed = {name.split(".")[1] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"encoder"}  # its layers, not the embeddings of the patches
    assert isinstance(two.generate(torch.zeros(3, 48, 48), "Question: what is it? Answer:", max_new_tokens=3), str)
    with pytest.raises(ValueError, match="ffn_width=64.*ffn_width=32.*go on with the same bridge"):
        builders.build_task(phase(TWO_PHASES[1], "model.train_vision_layers=1", "model.ffn_width=32"), parts)


def test_dialogues_are_functions_of_their_index_and_of_the_step():
    book, data = PictureBook(0, image_size=48), DialogueData(scenes=8, turns=3)
    whole, split = DialogueBatches(book, data, 4, 0), DialogueBatches(book, data, 2, 0, parts=2)
    batch, again, next_epoch = whole.batch(1), whole.batch(1), whole.batch(3)
    assert batch.turns == again.turns and torch.equal(batch.pixels, again.pixels) and batch.turns != next_epoch.turns
    assert batch.turns == split.batch(2).turns + split.batch(3).turns
    lengths = {len(turns) for index in range(12) for turns in whole.batch(index).turns}
    assert lengths == {1, 2, 3}
    assert all(turns[-1].answer == answer for turns, answer in zip(batch.turns, batch.captions, strict=True))


def test_a_dialogue_is_read_as_the_chat_writes_it(parts):  # noqa: F811
    language = loading.load_language_model("micro-t5", parts)
    turns = [Question("what", "what is the red thing?", "boat"), Question("color", "what color is it?", "red")]
    assert dialogue_prompt(language, turns) == (
        "Question: what is the red thing? Short answer: boat. Question: what color is it? Short answer:"
    )
    assert dialogue_prompt(language, turns[:1]) == "Question: what is the red thing? Short answer:"
