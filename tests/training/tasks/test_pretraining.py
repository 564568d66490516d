"""The tasks that make the frozen parts: what a patch shows, what is masked, what is ignored, what is saved."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from operator import eq
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blip2_lab.models.masks import IGNORE_INDEX
from blip2_lab.models.micro import new_opt, new_t5
from blip2_lab.models.vision_encoder import ImageEncoder
from blip2_lab.picturebook import asking, corpus, words
from blip2_lab.picturebook.draw import masks
from blip2_lab.picturebook.scene import (
    CATEGORIES,
    COLORS,
    KINDS,
    PLACES,
    SIZES,
    TIMES,
    VALIDATION_BOOK,
    Scene,
    Thing,
    sample_scene,
)
from blip2_lab.picturebook.tokenizer import build_tokenizer
from blip2_lab.training.optim import parameter_groups
from blip2_lab.training.recipes import registry, schema
from blip2_lab.training.tasks import pretraining
from blip2_lab.training.tasks.pretraining import (
    BertTask,
    OptTask,
    T5Task,
    VitTask,
    build_task,
    patch_labels,
    text_question_accuracy,
    text_questions,
)


@pytest.fixture(scope="module")
def t5_tokenizer():
    return build_tokenizer("t5")


@pytest.fixture(scope="module")
def opt_tokenizer():
    return build_tokenizer("opt")


@pytest.fixture(scope="module")
def bert_tokenizer():
    return build_tokenizer("bert")


def tiny_encoder() -> ImageEncoder:
    """Three layers of width 64 over 4 x 4 patches."""
    from transformers import Blip2VisionConfig

    torch.manual_seed(0)
    sizes = dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=2, intermediate_size=128)
    return ImageEncoder.from_config(Blip2VisionConfig(**sizes, image_size=48, patch_size=12, initializer_range=0.02))


def tiny_t5(vocab_size: int) -> nn.Module:
    from transformers import T5Config

    torch.manual_seed(0)
    sizes = dict(d_model=32, d_kv=16, d_ff=64, num_layers=1, num_decoder_layers=1, num_heads=6)
    ids = dict(pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    return new_t5(T5Config(vocab_size=vocab_size, **sizes, **ids, feed_forward_proj="gated-gelu"))


def tiny_opt(vocab_size: int) -> nn.Module:
    from transformers import OPTConfig

    sizes = dict(hidden_size=32, ffn_dim=64, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=32)
    return new_opt(OPTConfig(vocab_size=vocab_size, **sizes, pad_token_id=1, bos_token_id=2, eos_token_id=2))


def read(t, ids: Tensor) -> list[str]:
    """The texts of rows of ids; ignored labels count as padding."""
    return t.batch_decode(ids.masked_fill(ids == IGNORE_INDEX, t.pad_token_id), skip_special_tokens=True)


# -------------------------------------------------------------------------------------------------- what patches show


def as_grid(labels: dict[str, Tensor], grid: int) -> dict[str, np.ndarray]:
    return {name: label.reshape(grid, grid).numpy() for name, label in labels.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_patch_at_a_things_centre_shows_it_and_the_other_corners_nothing(kind):
    thing = Thing(kind, "blue", "large", 1 / 6, 1 / 6)
    labels = as_grid(patch_labels(Scene((thing,)), 8), 8)
    shown = (KINDS.index(kind) + 1, COLORS.index("blue") + 1, SIZES.index("large") + 1)
    assert tuple(labels[name][1, 1] for name in ("kind", "color", "size")) == shown
    for name in labels:
        assert not labels[name][3:].any() and not labels[name][:, 3:].any(), "nothing stands there"
    small = Thing(kind, "gray", "small", 0.8, 0.45)
    labels = as_grid(patch_labels(Scene((thing, small)), 8), 8)
    assert (labels["kind"][2:5, 5:8] == KINDS.index(kind) + 1).any(), "a small thing must be seen too"
    assert {*labels["color"].ravel()} == {0, COLORS.index("blue") + 1, COLORS.index("gray") + 1}


def test_patch_labels_agree_with_the_picture():
    """Against the visible pixels of the drawing, counted patch by patch at the resolution of the micro ViT."""
    size, grid = 96, 8
    side = size // grid
    for i in range(60):
        scene = sample_scene(3, i)
        labels = as_grid(patch_labels(scene, grid), grid)
        visible = masks(scene, size)
        things = [(KINDS.index(t.kind) + 1, COLORS.index(t.color) + 1, SIZES.index(t.size) + 1) for t in scene.things]
        seen = set()
        for row in range(grid):
            for column in range(grid):
                patch = visible[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
                covered = patch.mean(axis=(1, 2))
                shown = tuple(int(labels[name][row, column]) for name in ("kind", "color", "size"))
                seen.add(shown)
                if shown == (0, 0, 0):
                    assert covered.max() < 0.35, f"a patch full of {scene.things[covered.argmax()]} is called empty"
                else:
                    share = max(covered[i] for i, thing in enumerate(things) if thing == shown)
                    assert share > 0.05, f"{shown} is not at {row}, {column}"
                    assert share > covered.max() - 0.1, "the thing that covers most gives the label"
        assert seen - {(0, 0, 0)} == set(things), "every thing is shown by a patch, and nothing else is"


def test_heads_have_room_for_every_label():
    scenes = [sample_scene(0, i) for i in range(150)]
    highest = {name: max(int(patch_labels(s, 4)[name].max()) for s in scenes) for name in ("kind", "color", "size")}
    assert highest == {"kind": len(KINDS), "color": len(COLORS), "size": len(SIZES)}
    logits = pretraining.LabelHeads(64, 4)(torch.randn(2, 17, 64))
    assert {name: tuple(x.shape) for name, x in logits.items()} == {
        "kind": (2, 16, len(KINDS) + 1),
        "color": (2, 16, len(COLORS) + 1),
        "size": (2, 16, len(SIZES) + 1),
        "row": (2, 16, 4),
        "column": (2, 16, 4),
        "place": (2, len(PLACES)),
        "time": (2, len(TIMES)),
    }


def test_heads_read_patches_from_patches_and_the_setting_from_cls():
    heads, features = pretraining.LabelHeads(64, 4), torch.randn(1, 17, 64)
    before = heads(features)
    changed = features.clone()
    changed[:, 0] += torch.randn(64)
    after = heads(changed)
    assert all(torch.equal(before[name], after[name]) for name in ("kind", "color", "size"))
    assert not any(torch.equal(before[name], after[name]) for name in ("place", "time"))
    changed = features.clone()
    changed[:, 5] += torch.randn(64)  # [CLS] is token 0, so token 5 is patch 4
    moved = (heads(changed)["kind"] != before["kind"]).any(-1)
    assert moved.nonzero().tolist() == [[0, 4]]


# ------------------------------------------------------------------------------------------------------------ the ViT


def test_vit_batches_are_numbered_scenes_and_the_same_twice():
    task = VitTask(tiny_encoder(), 4, seed=9)
    batch, again = task.batch(3), task.batch(3)
    assert batch.keys() == again.keys() and all(torch.equal(batch[name], again[name]) for name in batch)
    assert tuple(batch["pixels"].shape) == (4, 3, 48, 48) and tuple(batch["kind"].shape) == (4, 16)
    scenes = [sample_scene(9, i) for i in (12, 13, 14, 15)]
    assert batch["place"].tolist() == [PLACES.index(s.place) for s in scenes]
    assert batch["time"].tolist() == [TIMES.index(s.time) for s in scenes]
    for row, scene in zip(batch["color"], scenes, strict=True):
        shown = set(row.tolist())  # patches are large here: a small thing on an edge may cover too little of each
        assert shown <= {0, *(COLORS.index(t.color) + 1 for t in scene.things)}
    assert (batch["color"] > 0).any()
    assert not torch.equal(batch["pixels"], task.batch(4)["pixels"])
    assert not torch.equal(batch["place"], task.batch(3, "in", seed=1)["place"])


def test_vit_losses_fall_on_one_batch():
    task = VitTask(tiny_encoder(), 8, seed=0)
    batch = task.batch(0)
    optimizer = torch.optim.Adam(task.model.parameters(), lr=3e-3)
    totals = []
    for _ in range(25):
        losses = task.compute_losses(batch)
        assert set(losses) == {"kind", "color", "size", "row", "column", "place", "time", "total"}
        assert all(torch.isfinite(loss) for loss in losses.values())
        assert losses["total"].item() == pytest.approx(sum(losses[n].item() for n in losses if n != "total"), rel=1e-5)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        totals.append(losses["total"].item())
    untrained = math.log(27) + math.log(9) + math.log(3) + 0.2 * (2 * math.log(4) + math.log(5) + math.log(2))
    assert totals[0] == pytest.approx(untrained, rel=0.25), "a fresh encoder knows nothing"
    assert totals[-1] < 0.6 * totals[0]
    still = [n for n, p in task.model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not still, f"no gradient reaches {still}"


class FixedHeads(nn.Module):
    """Says the same, whatever it is shown; nothing of where a patch is."""

    def __init__(self, logits: dict[str, Tensor], patches: int = 16) -> None:
        super().__init__()
        batch = len(logits["place"])
        self.logits = logits | {name: torch.zeros(batch, patches, 4) for name in ("row", "column")}

    def forward(self, image_features: Tensor) -> dict[str, Tensor]:
        return self.logits


def test_patches_with_and_without_things_weigh_alike_however_many_there_are():
    task = VitTask(tiny_encoder(), 1, seed=0)
    kind = torch.zeros(1, 16, dtype=torch.long)
    kind[0, 3] = 7  # one patch of sixteen shows something
    batch = {"pixels": torch.zeros(1, 3, 48, 48), "place": torch.tensor([1]), "time": torch.tensor([0])}
    batch |= {"kind": kind, "color": kind.clamp(max=8), "size": kind.clamp(max=2)}
    classes = {"kind": 27, "color": 9, "size": 3}
    logits = {name: torch.zeros(1, 16, n) for name, n in classes.items()}
    for x in logits.values():
        x[..., 0] = 20.0  # "nothing here", everywhere
    task.model["heads"] = FixedHeads(logits | {"place": torch.zeros(1, 5), "time": torch.zeros(1, 2)})
    losses = task.compute_losses(batch)
    for name in classes:  # nothing to pay for fifteen patches, 20 for one, of which three quarters count
        assert losses[name].item() == pytest.approx(15.0, abs=1e-3)
    assert losses["place"].item() == pytest.approx(0.2 * math.log(5))
    assert losses["row"].item() == losses["column"].item() == pytest.approx(0.2 * math.log(4))


def test_a_patch_is_asked_for_its_own_row_and_column():
    task = VitTask(tiny_encoder(), 1, seed=0)
    batch = task.batch(0)
    logits = {name: torch.zeros(1, 16, n) for name, n in {"kind": 27, "color": 9, "size": 3}.items()}
    patch = torch.arange(16)
    heads = FixedHeads(logits | {"place": torch.zeros(1, 5), "time": torch.zeros(1, 2)})
    heads.logits |= {"row": 50.0 * torch.eye(4)[None, patch // 4], "column": 50.0 * torch.eye(4)[None, patch % 4]}
    task.model["heads"] = heads
    losses = task.compute_losses(batch)
    assert losses["row"].item() == losses["column"].item() == pytest.approx(0.0, abs=1e-6)
    heads.logits["row"] = heads.logits["column"]  # right on the diagonal, wrong by 50 in three of four patches
    assert task.compute_losses(batch)["row"].item() == pytest.approx(0.2 * 50 * 3 / 4)


def test_the_labels_are_read_from_the_layer_that_ships_and_the_one_above():
    task = VitTask(tiny_encoder(), 2, seed=0)
    batch = task.batch(0)
    above, ships = (task.layer_losses(logits, batch) for logits in task.logits(batch["pixels"]))
    assert above["kind"].item() != ships["kind"].item()
    assert task.compute_losses(batch)["kind"].item() == pytest.approx((above["kind"] + ships["kind"]).item() / 2)
    task.model["heads"] = nn.Identity()
    last, shipped = task.logits(batch["pixels"])
    torch.testing.assert_close(last, task.encoder(batch["pixels"]))
    torch.testing.assert_close(task.encoder.model.encoder.layers[-1](shipped), last)


def test_vit_evaluation_counts_patches_that_show_a_thing(monkeypatch):
    task = VitTask(tiny_encoder(), 128, seed=0)
    kind = torch.tensor([[0, 0, 0, 5], [0, 0, 2, 5]])
    batch = {"pixels": torch.zeros(2, 3, 48, 48), "place": torch.tensor([1, 2]), "time": torch.tensor([0, 1])}
    batch |= {"kind": kind, "color": kind, "size": kind.clamp(max=2)}
    asked = []
    monkeypatch.setattr(task, "batch", lambda *arguments: asked.append(arguments) or batch)
    logits = {name: nn.functional.one_hot(batch[name], 27).float() for name in ("kind", "color", "size")}
    logits["color"] = nn.functional.one_hot(torch.zeros_like(kind), 27).float()  # "nothing", never right
    logits["kind"][1, 2] = nn.functional.one_hot(torch.tensor(9), 27)  # one of three shown patches is wrong
    logits |= {"place": torch.eye(5)[[1, 2]], "time": torch.eye(2)[[0, 0]]}
    task.model["heads"] = FixedHeads(logits, patches=4)
    accuracy = task.evaluate(0)
    assert accuracy == {"kind": pytest.approx(2 / 3), "color": 0.0, "size": 1.0, "place": 1.0, "time": 0.5}
    assert asked == [(0, "in", VALIDATION_BOOK), (1, "in", VALIDATION_BOOK)]


def test_the_saved_vit_is_the_encoder_without_its_last_layer(tmp_path):
    from transformers import Blip2VisionModel

    task = VitTask(tiny_encoder(), 2, seed=0)
    task.encoder.eval()
    pixels = task.batch(0)["pixels"]
    seen = {}
    layers = task.encoder.model.encoder.layers
    hook = layers[2].register_forward_pre_hook(lambda _, inputs: seen.update(features=inputs[0]))
    with torch.no_grad():
        last = task.encoder(pixels)
        hook.remove()
        task.save(tmp_path)
        saved = ImageEncoder(Blip2VisionModel.from_pretrained(tmp_path)).eval()
        features = saved(pixels)
    assert saved.model.config.num_hidden_layers == len(saved.model.encoder.layers) == 2
    torch.testing.assert_close(features, seen["features"])
    assert not torch.allclose(features, last, atol=1e-3)
    task.save(tmp_path / "again")  # saving leaves the encoder as it was: training may go on
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


# ----------------------------------------------------------------------------------------------------------- the texts


def test_batches_of_text_share_no_example_and_leave_none_out(t5_tokenizer):
    task = OptTask(None, t5_tokenizer, 5, seed=0)
    assert [number for index in range(4) for number in task.numbers(index)] == list(range(20))


def test_t5_learns_in_lessons_then_from_piles_and_then_from_sentences_too(t5_tokenizer):
    task = T5Task(None, t5_tokenizer, 8, seed=4, lessons_until=2, sentences_from=3)
    for index in range(2):
        assert [task.example(n, index) for n in task.numbers(index)] == [
            corpus.lesson(4, n) for n in task.numbers(index)
        ]
    for number in range(16, 24):
        assert task.example(number, 2) == corpus.instruction(4, number, summed=True)
    summed = [task.example(n, 3) == corpus.instruction(4, n, summed=True) for n in range(400)]
    assert 0.55 < sum(summed) / 400 < 0.75
    short = [corpus.instruction(4, n, most=2) for n in range(400) if not summed[n]]
    assert [task.example(n, 3) for n in range(400) if not summed[n]] == short, "sentences of two things at first"
    later = 3 + pretraining.SHORT_SENTENCES
    full = [corpus.instruction(4, n) for n in range(400) if not summed[n]]
    assert [task.example(n, later) for n in range(400) if not summed[n]] == full


def test_lessons_come_again_in_the_mixture(t5_tokenizer):
    task = T5Task(None, t5_tokenizer, 8, seed=4, review_from=5)
    again = [task.example(n, 5) == corpus.lesson(4, n) for n in range(800)]
    assert 0.3 < sum(again) / 800 < 0.4
    assert not any(task.example(n, 4) == corpus.lesson(4, n) for n in range(800))


def test_most_examples_are_visitors_questions_at_last(t5_tokenizer):
    task = T5Task(None, t5_tokenizer, 8, seed=4, review_from=5, questions_from=7)
    before, after = ([task.example(n, index) for n in range(800)] for index in (6, 7))
    questions, lessons = ([made(4, n) for n in range(800)] for made in (corpus.visitors_question, corpus.lesson))
    assert not any(map(eq, before, questions)) and 0.55 < sum(map(eq, after, questions)) / 800 < 0.65
    assert 0.1 < sum(map(eq, after, lessons)) / 800 < 0.2
    hard = T5Task(None, t5_tokenizer, 8, seed=4, questions_from=7, hard_from=8)
    questions = [corpus.visitors_question(4, n, asking.HARD) for n in range(800)]
    assert 0.55 < sum(map(eq, [hard.example(n, 8) for n in range(800)], questions)) / 800 < 0.65
    assert [hard.example(n, 7) for n in range(800)] == after
    later = T5Task(None, t5_tokenizer, 8, seed=4, questions_from=7, hard_from=8, choices_from=9)
    assert [later.example(n, 8) for n in range(800)] == [hard.example(n, 8) for n in range(800)]
    said = {target for _, target in (later.example(n, 9) for n in range(4000))}
    before = {target for _, target in (later.example(n, 8) for n in range(4000))}
    assert set(CATEGORIES) & said and not set(CATEGORIES) & before, "a category is the answer to a choice of two"
    assert not set(CATEGORIES) & {target for _, target in (later.example(n, 8) for n in range(2000))}


def test_word_sums_repeat_from_the_chosen_batch_on(t5_tokenizer):
    task = T5Task(tiny_t5(len(t5_tokenizer)).eval(), t5_tokenizer, 32, seed=4, questions_from=0, repeats_from=5)

    def repeating(index):
        told = [source.split(" ") for source, _ in (task.example(n, index) for n in range(400))]
        sums = [[chunk for chunk in chunks if "+" in chunk and chunk != "+"] for chunks in told]
        return sum(len(set(row)) < len(row) for row in sums)

    assert repeating(4) == 0 and repeating(5) > 100
    assert {part["longest"] for part in task.batch(4)} == {1.0}
    assert {part["longest"] for part in task.batch(5)} == {pretraining.LONGEST}


def test_the_same_batch_has_the_same_noise_and_another_batch_another(t5_tokenizer):
    task = T5Task(tiny_t5(len(t5_tokenizer)).eval(), t5_tokenizer, 32, seed=4)
    parts = task.batch(2)
    assert any(part["sums"] for part in parts)
    loss, again = task.compute_losses(parts)["total"], task.compute_losses(task.batch(2))["total"]
    assert torch.equal(loss, again) and loss.isfinite()
    for part in parts:
        part["seed"] += 1
    assert not torch.equal(task.compute_losses(parts)["total"], loss)


def test_noise_grows_after_the_lessons(t5_tokenizer):
    task = T5Task(tiny_t5(len(t5_tokenizer)).eval(), t5_tokenizer, 32, seed=4, lessons_until=2)
    least, half, end = pretraining.SCALE_IN_LESSONS, 2 + pretraining.NOISE_GROWS // 2, 2 + pretraining.NOISE_GROWS
    noise_scale = [part["noise_scale"] for index in (0, 2, half, end, end + 500) for part in task.batch(index)[:1]]
    assert noise_scale == pytest.approx([least, least, (1 + least) / 2, 1.0, 1.0])
    parts = task.batch(end)
    loss = task.compute_losses(parts)["total"]
    for part in parts:
        part["noise_scale"] = 0.0
    assert not torch.equal(task.compute_losses(parts)["total"], loss), "the task must hand it on"


def test_a_word_sum_takes_one_place_of_a_batch(t5_tokenizer):
    """Examples are sorted by places, not words, first the short answers; a part's are rounded, for few shapes."""
    task = T5Task(None, t5_tokenizer, 64, seed=4)
    for index in range(6):
        masks = [part["sums"].mask if part["sums"] else part["attention_mask"] for part in task.batch(index)]
        assert all(mask.shape[1] % 8 == 0 for mask in masks)
        lengths = torch.cat([mask.sum(dim=1) for mask in masks])
        marks = 12  # "?", ":", ",": places of their own, which a count of words leaves out
        assert (lengths.diff() < -marks).sum() == 1, "from the longest of the short answers to the first of the others"


def test_word_sums_can_be_asked_about_too(t5_tokenizer):
    asked = pretraining.text_questions(3, summed=True)
    assert [question for question, _ in asked] == [question for question, _ in pretraining.text_questions(3)]
    assert all("+" in prompt.split("Question:")[0] for _, prompt in asked)
    shares = pretraining.text_question_accuracy(tiny_t5(len(t5_tokenizer)).eval(), t5_tokenizer, asked)
    assert 0 <= shares["accuracy"] <= 1


def test_t5_labels_are_the_target_and_its_end_and_ignore_padding(t5_tokenizer):
    parts = T5Task(None, t5_tokenizer, 32, seed=4).batch(0)
    ignored = padded = 0
    for part in parts:
        for row in part["labels"].tolist():
            length = row.index(t5_tokenizer.eos_token_id) + 1
            assert set(row[length:]) <= {IGNORE_INDEX} and IGNORE_INDEX not in row[:length]
            assert t5_tokenizer.pad_token_id not in row
            ignored += len(row) - length
        padding = part["input_ids"] == t5_tokenizer.pad_token_id
        assert torch.equal(padding, part["attention_mask"] == 0)
        padded += int(padding.sum())
    assert ignored and padded, "texts of one length would test nothing"


def test_t5_batches_in_parts_have_the_loss_of_the_whole_and_less_padding(t5_tokenizer, monkeypatch):
    monkeypatch.setattr(pretraining, "SENTENCES", 1.0)  # word sums have noise of their own in each part
    task = T5Task(tiny_t5(len(t5_tokenizer)).eval(), t5_tokenizer, 32, seed=4)
    parts, again = task.batch(1), task.batch(1)
    tensors = ("input_ids", "attention_mask", "labels")
    assert all(torch.equal(a[name], b[name]) for a, b in zip(parts, again, strict=True) for name in tensors)
    whole = task.part([task.example(number, 1) for number in task.numbers(1)], seed=0) | {"noise_scale": 1.0}
    with torch.no_grad():
        total, loss = task.compute_losses(parts)["total"].item(), task.compute_losses([whole])["total"].item()
    assert total == pytest.approx(loss, rel=1e-4), "a target token must weigh the same in every part"
    assert sum(part["input_ids"].numel() for part in parts) < 0.9 * whole["input_ids"].numel()


def test_t5_biases_learn_faster_and_do_not_decay(t5_tokenizer):
    model = tiny_t5(64)
    task = T5Task(model, t5_tokenizer, 2, seed=0)
    groups = parameter_groups(model, 1e-3, 0.1, lr_scales=task.lr_scales(), no_decay=task.no_decay)
    settings = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert set(settings) == {id(p) for p in model.parameters()}

    def settings_of(part: str) -> set[tuple[float, float]]:
        return {settings[id(p)] for name, p in model.named_parameters() if part in name}

    assert settings_of("relative_attention_bias") == {(30 * 1e-3, 0.0)}
    assert settings_of(".q.") == {(1e-3 * pretraining.T5_LR_SCALES[".q."], 0.1)}
    assert settings_of(".k.") == settings_of(".wo.") == {(1e-3, 0.1)} and settings_of("layer_norm") == {(1e-3, 0.0)}


def test_opt_labels_ignore_padding_and_nothing_else(opt_tokenizer):
    task = OptTask(None, opt_tokenizer, 16, seed=4)
    batch, again = task.batch(2), task.batch(2)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    real = batch["attention_mask"] == 1
    assert torch.equal(batch["labels"][real], batch["input_ids"][real]) and real.any() and not real.all()
    assert (batch["labels"][~real] == IGNORE_INDEX).all()
    assert read(opt_tokenizer, batch["input_ids"]) == [corpus.plain_text(4, n).lower() for n in range(32, 48)]
    end = opt_tokenizer.eos_token_id
    for row, length in zip(batch["labels"].tolist(), real.sum(1).tolist(), strict=True):
        assert [i for i, label in enumerate(row) if label == end] == [0, length - 1], "one start and one learned end"


def test_bert_masks_only_words_and_gives_the_same_batch_twice(bert_tokenizer):
    task = BertTask(None, bert_tokenizer, 64, seed=4)
    batch, again, other = task.batch(1), task.batch(1), task.batch(2)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    masked = batch["labels"] != IGNORE_INDEX
    assert torch.equal(masked, batch["input_ids"] == bert_tokenizer.mask_token_id)
    special = torch.tensor(bert_tokenizer.all_special_ids)
    assert masked.any() and not torch.isin(batch["labels"][masked], special).any()
    original = torch.where(masked, batch["labels"], batch["input_ids"])
    expected = []
    for number in range(64, 128):
        rng = Random(f"captions 4 {number}")
        caption = words.caption(corpus.corpus_scene(rng), rng)
        expected.append(" ".join(re.sub("[.:]", " ", caption).split()[:50]))  # as stage 1 will write them
    assert read(bert_tokenizer, original) == expected
    assert (original[:, 0] == bert_tokenizer.cls_token_id).all()
    ordinary = ~torch.isin(original, special)
    assert 0.12 < masked.sum() / ordinary.sum() < 0.18
    width = int(min(ordinary[0].sum(), other["attention_mask"][0].sum() - 2))  # one seed would mask the same places
    assert not torch.equal(masked[0, 1 : width + 1], (other["labels"] != IGNORE_INDEX)[0, 1 : width + 1])


def test_every_word_is_masked_now_and_then(bert_tokenizer):
    task = BertTask(None, bert_tokenizer, 128, seed=0)
    labels = torch.cat([task.batch(i)["labels"].flatten() for i in range(6)]).unique()
    learned = set(bert_tokenizer.convert_ids_to_tokens(labels[labels >= 0].tolist()))
    assert learned >= {f"▁{word}" for word in (*KINDS, *COLORS, *SIZES, *PLACES, "left", "above", "a", "and")}


def test_text_losses_are_the_models_own_and_the_saved_folder_loads(tmp_path, opt_tokenizer):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    task = OptTask(tiny_opt(len(opt_tokenizer)), opt_tokenizer, 4, seed=0)
    task.model.eval()
    batch = task.batch(0)
    loss = task.compute_losses(batch)["total"]
    assert loss.item() == pytest.approx(math.log(len(opt_tokenizer)), rel=0.1), "a fresh model knows nothing"
    other = {**batch, "input_ids": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, 7)}
    assert task.compute_losses(other)["total"].item() == pytest.approx(loss.item(), rel=1e-5), (
        "what stands in padding matters"
    )
    task.save(tmp_path)
    model, saved = AutoModelForCausalLM.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)
    assert model(**batch).loss.item() == pytest.approx(loss.item(), rel=1e-5)
    assert saved("a red boat.").input_ids == opt_tokenizer("a red boat.").input_ids


# ------------------------------------------------------------------------------------------- how well a text model does


class Oracle:
    """A text-to-text "model" that answers by a function of the prompt."""

    def __init__(self, t, answer) -> None:
        self.tokenizer, self.answer = t, answer

    def generate(self, input_ids: Tensor, attention_mask: Tensor, max_new_tokens: int, do_sample: bool) -> Tensor:
        assert not do_sample and torch.equal(attention_mask == 0, input_ids == 0)
        answers = [self.answer(prompt) for prompt in self.tokenizer.batch_decode(input_ids, skip_special_tokens=True)]
        ids = self.tokenizer(answers, padding=True, return_tensors="pt").input_ids
        assert ids.shape[1] <= max_new_tokens
        return torch.cat([torch.zeros(len(ids), 1, dtype=torch.long), ids], dim=1)  # decoders start with padding


@pytest.fixture(scope="module")
def solutions() -> dict[str, words.Question]:
    return {prompt.lower(): question for question, prompt in text_questions(20)}


def test_an_oracle_scores_one_in_every_type(t5_tokenizer, solutions):
    oracle = Oracle(t5_tokenizer, lambda prompt: solutions[prompt].answer)
    scores = text_question_accuracy(oracle, t5_tokenizer, text_questions(20), batch_size=32)
    assert scores == {name: 1.0 for name in ("accuracy", "inventory", *words.QUESTION_TYPES)}


def test_a_silly_model_scores_nothing_and_a_guesser_what_it_deserves(t5_tokenizer, solutions):
    silly = Oracle(t5_tokenizer, lambda prompt: "boat boat")
    assert set(text_question_accuracy(silly, t5_tokenizer, text_questions(20)).values()) == {0.0}
    guesser = Oracle(t5_tokenizer, lambda prompt: "yes")
    scores = text_question_accuracy(guesser, t5_tokenizer, text_questions(20))
    right = [question.answer == "yes" for question in solutions.values() if question.type == "existence"]
    assert scores.pop("existence") == pytest.approx(sum(right) / len(right)) and 0 < sum(right) < len(right)
    assert scores.pop("accuracy") == pytest.approx(sum(right) / len(solutions))
    assert set(scores.values()) == {0.0}


def test_text_questions_come_with_a_true_description(solutions):
    """The ceiling is fair only if the description tells what is asked. That it is true, `test_words.py` proves."""
    asked = text_questions(20)
    assert len(asked) > 20 * 11 and {question.type for question, _ in asked} == {"inventory", *words.QUESTION_TYPES}
    assert asked == text_questions(20) and len(solutions) == len(asked)
    for question, prompt in asked:
        assert prompt.endswith(f" Question: {question.text} Short answer:")
        if question.type in ("color", "what", "size", "position", "relation"):
            assert question.answer in prompt[: prompt.index("Question:")]


# ------------------------------------------------------------------------------------------------------- the recipes


@pytest.mark.parametrize("name", ["micro-vit", "micro-t5", "micro-opt", "micro-bert"])
def test_recipes_build_a_task_that_starts_knowing_nothing(name, tmp_path):
    torch.manual_seed(0)
    recipe = registry.get(name)
    recipe = replace(recipe, optim=replace(recipe.optim, batch_size=4))
    task = build_task(recipe, tmp_path)
    assert task.batch_size == 4 and task.seed == recipe.data.seed
    with torch.no_grad():
        total = task.compute_losses(task.batch(0))["total"].item()
    assert 3 < total < 9, f"first loss {total}: a wrong initialization, or the task is trivial"
    if name == "micro-vit":
        assert len(task.encoder.model.encoder.layers) == 7, "one more than it ships"
    else:
        assert task.model.get_input_embeddings().num_embeddings >= len(task.tokenizer)
    assert not list(tmp_path.iterdir())


def test_the_t5_starts_with_heads_that_look_at_the_neighbors_and_at_the_same_word():
    """Without them "the red boat" cannot bind red to boat, nor the boat asked about to the one described."""
    model = tiny_t5(64)
    pretraining.init_copy_heads(model)
    stacks = {name: getattr(model, name).block[0].layer[0].SelfAttention for name in ("encoder", "decoder")}
    with torch.no_grad():
        bias = {name: module.compute_bias(6, 6)[0] for name, module in stacks.items()}
    ahead = torch.arange(6) - torch.arange(6)[:, None]  # [i, j]: how many words j comes after i
    assert torch.equal(bias["encoder"][0] > 0, ahead == -1) and torch.equal(bias["encoder"][1] > 0, ahead == 1)
    assert torch.equal(bias["decoder"][0] > 0, ahead == -1) and not bias["decoder"][1:].any()
    assert torch.equal(bias["encoder"][2] < 0, ahead == 0) and torch.equal(bias["encoder"][3] < 0, ahead == 0)
    words_seen = torch.tensor([[5, 9, 7, 9, 3]])  # the word 9 twice
    for block in model.encoder.block:
        x = block.layer[0].layer_norm(model.shared(words_seen))
        attention = block.layer[0].SelfAttention
        queries, keys = (getattr(attention, name)(x).unflatten(-1, (6, -1))[0] for name in "qk")
        for head in (2, 3):
            scores = queries[:, head] @ keys[:, head].T
            assert scores[1, [0, 2, 4]].max() < scores[1, 3]
            assert scores[3, [0, 2, 4]].max() < scores[3, 1]


def test_a_recipe_for_something_else_is_refused():
    recipe = SimpleNamespace(
        name="odd",
        task="gpt",
        model=schema.MicroPart("S"),
        optim=SimpleNamespace(pass_size=2),
        data=schema.SyntheticTextData(),
    )
    with pytest.raises((ValueError, KeyError), match="gpt"):
        build_task(recipe, None)


def test_a_batch_of_few_words_has_a_masked_one(bert_tokenizer):
    """A mean over no word is NaN: batches of two captions ended a run."""
    task = BertTask(None, bert_tokenizer, 1, seed=0)
    batches = [task.batch(index) for index in range(200)]
    counts = [(batch["labels"] != IGNORE_INDEX).sum().item() for batch in batches]
    assert min(counts) == 1 and max(counts) > 3
    ordinary = len(task.tokenizer.all_special_tokens) - 1
    assert all((batch["labels"][batch["labels"] != IGNORE_INDEX] >= ordinary).all() for batch in batches)
