"""Recording attention does not change outputs, records every map, and restores the model."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import nn

from blip2_lab.checkpoints.load import save
from blip2_lab.interpret.attention_maps import AttentionMaps, attentions, record_attention
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene
from tests.tiny import loud

PROMPT = "Question: what color is the boat? Short answer:"


@pytest.fixture(scope="module")
def picture():
    return draw(sample_scene(7, 2, "in"), 48)


@pytest.fixture(params=["t5", "opt"])
def model(request, tiny_model, tiny_decoder_model):
    return tiny_model if request.param == "t5" else tiny_decoder_model


def kernels(model: nn.Module) -> list[str]:
    return [m.config._attn_implementation for m, *_ in attentions(model) if hasattr(m, "config")]


def hooks(model: nn.Module) -> int:
    modules = [*model.modules(), *(model.stage1.modules() if getattr(model, "stage1", None) else ())]
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


def logits(model, image):
    features = model.image_encoder(model.image_encoder.preprocess([image]))
    lm = model.language_model
    return lm.answer_logits(model.visual_prompt(features), lm.prompt_texts([PROMPT]), lm.prompt_texts(["red"]))


def test_recording_does_not_change_outputs(model, picture):
    with torch.no_grad():
        plain = logits(model, picture)
        with record_attention(model) as maps:
            watched = logits(model, picture)
    torch.testing.assert_close(watched, plain, atol=2e-6, rtol=1e-5)
    assert len(maps) > 0


def test_recording_does_not_change_generation_and_each_step_is_a_call(model, picture):
    decoding = dict(num_beams=1, max_new_tokens=4, min_new_tokens=4)
    answer = model.generate(picture, PROMPT, **decoding)
    with record_attention(model) as maps:
        assert model.generate(picture, PROMPT, **decoding) == answer
    steps = maps.steps("language_decoder", "self")
    layers = model.language_model.model.config.num_hidden_layers
    prompt = model.language_model.prompt_texts([PROMPT]).ids.shape[1]
    if model.language_model.model.config.is_encoder_decoder:
        assert steps.shape == (layers, 1, 2, 4, 4)
        assert maps.steps("language_decoder", "cross").shape == (layers, 1, 2, 4, 8 + prompt)
        assert maps.stack("language_encoder", "self").shape == (layers, 1, 2, 8 + prompt, 8 + prompt)
    else:
        assert steps.shape == (layers, 1, 2, 8 + prompt + 3, 8 + prompt + 3)
        assert steps.triu(1).abs().max() == 0
    torch.testing.assert_close(steps.sum(-1), torch.ones_like(steps.sum(-1)))


def test_kernels_are_restored_and_hooks_removed_even_after_an_error(model, picture):
    before = kernels(model)
    assert set(before) == {"sdpa"}
    with pytest.raises(RuntimeError, match="planted"), record_attention(model):
        assert set(kernels(model)) == {"eager"} and hooks(model) > 0
        raise RuntimeError("planted")
    assert kernels(model) == before and hooks(model) == 0
    with record_attention(model), record_attention(model) as inner:
        logits(model, picture)
    assert kernels(model) == before and hooks(model) == 0 and len(inner) > 0


def test_another_thread_is_not_recorded_and_a_second_recording_waits(tiny_model, picture):
    seen, order = [], []

    def chat():
        seen.append(logits(tiny_model, picture))

    def watch():
        with record_attention(tiny_model) as maps:
            order.append("second")
            chat()
            seen.append(len(maps))

    with record_attention(tiny_model) as maps:
        threads = [threading.Thread(target=task) for task in (chat, watch)]
        for thread in threads:
            thread.start()
        threads[0].join()
        assert len(maps) == 0
        order.append("first")
    threads[1].join()
    assert order == ["first", "second"] and seen[-1] > 0
    assert set(kernels(tiny_model)) == {"sdpa"} and hooks(tiny_model) == 0


def test_only_recorded_parts_change_their_kernel(tiny_model, picture):
    with record_attention(tiny_model, parts=["qformer"]) as maps, torch.no_grad():
        assert set(kernels(tiny_model)) == {"sdpa"}
        logits(tiny_model, picture)
    assert {m.part for m in maps} == {"qformer"}
    with pytest.raises(ValueError, match="no part 'query'"), record_attention(tiny_model, parts=["query"]):
        pass


def test_shapes_layers_and_rows_of_every_kind(tiny_model, picture):
    with record_attention(tiny_model) as maps, torch.no_grad():
        logits(tiny_model, picture)
    assert maps.stack("image_encoder", "self").shape == (2, 1, 2, 17, 17)
    assert maps.stack("qformer", "self").shape == (2, 1, 2, 8, 8)
    assert maps.stack("qformer", "cross").shape == (1, 1, 2, 8, 17)
    assert maps.stack("language_decoder", "cross").shape[:3] == (2, 1, 2)
    assert [m.layer for m in maps.select("qformer", "cross")] == [0]
    for found in maps:
        torch.testing.assert_close(found.weights.sum(-1), torch.ones_like(found.weights.sum(-1)))
        assert not found.weights.requires_grad


def test_known_attention_is_reported_as_it_is(tiny_model, picture):
    """Keys of zero: every query must look everywhere alike."""
    cross = tiny_model.qformer.layers[0].cross_attention
    kept = cross.key.weight.detach().clone(), cross.key.bias.detach().clone()
    with torch.no_grad():
        cross.key.weight.zero_(), cross.key.bias.zero_()
    try:
        with record_attention(tiny_model) as maps, torch.no_grad():
            logits(tiny_model, picture)
    finally:
        with torch.no_grad():
            cross.key.weight.copy_(kept[0]), cross.key.bias.copy_(kept[1])
    torch.testing.assert_close(maps.stack("qformer", "cross"), torch.full((1, 1, 2, 8, 17), 1 / 17))


def test_the_passes_of_stage_1_are_calls_in_order(tiny_model, picture):
    stage1 = tiny_model.stage1
    features = tiny_model.image_encoder(tiny_model.image_encoder.preprocess([picture]))
    ids, mask = stage1.tokenize(["a red boat"])
    with record_attention(stage1) as maps, torch.no_grad():
        memory = stage1.qformer.read_image(features)
        stage1.qformer(image=memory)
        stage1.embed_text(ids, mask)
        stage1.itm_logits(memory, ids, mask)
    text = ids.shape[1]
    assert [tuple(m.weights.shape[-2:]) for m in maps.select("qformer", "self", layer=0)] == [
        (8, 8),
        (text, text),
        (8 + text, 8 + text),
    ]
    # the text pass has no picture: two calls, and only the needed rows of the last layer
    assert [m.call for m in maps.select("qformer", "cross")] == [0, 1]
    assert maps.select("qformer", "self", layer=1, call=-1)[0].weights.shape[-2:] == (8, 8 + text)


def test_itg_and_the_attached_stage1_are_recorded(tiny_model, picture):
    features = tiny_model.image_encoder(tiny_model.image_encoder.preprocess([picture]))
    with record_attention(tiny_model) as maps:
        tiny_model.stage1.generate(image_features=features, num_beams=1, min_length=3, max_length=4)
    assert {m.part for m in maps} == {"stage1"}
    assert maps.stack("stage1", "cross").shape == (1, 1, 2, 8, 17)
    assert maps.stack("stage1", "self").shape == (2, 1, 2, 1, 8 + 3)


def test_gradients_are_those_of_finite_differences(tiny_model, picture):
    stage1 = tiny_model.stage1
    features = tiny_model.image_encoder(tiny_model.image_encoder.preprocess([picture])).double()
    double = copy.deepcopy(stage1).double()
    ids, mask = stage1.tokenize(["a red boat"])

    def score(shift=None):
        softmax = double.qformer.layers[0].cross_attention.softmax
        handle = softmax.register_forward_hook(lambda *a: a[-1] + shift) if shift is not None else None
        try:
            return double.itm_logits(double.qformer.read_image(features), ids, mask)[0, 1]
        finally:
            if handle:
                handle.remove()

    with record_attention(double, parts=["qformer"], gradients=True) as maps:
        maps.differentiate(score())
    gradient = maps.select("qformer", "cross")[0].gradient
    direction = torch.randn(gradient.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        numeric = (score(1e-4 * direction) - score(-1e-4 * direction)) / 2e-4
    assert numeric.abs() > 1e-7
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-5, atol=1e-9)


def test_gradients_reach_the_frozen_image_encoder(tiny_model, picture):
    pixels = tiny_model.image_encoder.preprocess([picture])
    with record_attention(tiny_model, gradients=True) as maps:
        features = tiny_model.image_encoder(pixels)
        score = tiny_model.visual_prompt(features).square().sum()
        maps.differentiate(score)
    assert all(m.gradient.shape == m.weights.shape for m in maps)
    assert all(m.gradient.abs().sum() > 0 for m in maps.select("image_encoder"))
    assert not any(p.requires_grad for p in tiny_model.image_encoder.parameters()) and not pixels.requires_grad


def test_without_gradients_the_error_says_how_to_get_them(tiny_model, picture):
    with record_attention(tiny_model) as maps:
        score = logits(tiny_model, picture).sum()
    with pytest.raises(ValueError, match="gradients=True"):
        maps.differentiate(score)


def test_a_folder_in_transformers_layout(tiny_model, picture, tmp_path):
    import blip2_lab

    save(tiny_model, tmp_path)
    loaded = blip2_lab.load(tmp_path)
    with record_attention(loaded) as maps, torch.no_grad():
        watched = logits(loaded, picture)
    torch.testing.assert_close(watched, logits(tiny_model, picture), atol=2e-5, rtol=1e-4)
    assert maps.stack("qformer", "cross").shape == (1, 1, 2, 8, 17)


def test_transformers_own_blip2_and_ours_have_the_same_maps(tiny_model, picture, tmp_path):
    from transformers import Blip2ForConditionalGeneration

    save(tiny_model, tmp_path)
    theirs = Blip2ForConditionalGeneration.from_pretrained(tmp_path).eval()
    pixels = tiny_model.image_encoder.preprocess([picture])
    with torch.no_grad():
        with record_attention(theirs) as their_maps:
            theirs.get_image_features(pixels)
        with record_attention(tiny_model) as maps:
            tiny_model.visual_prompt(tiny_model.image_encoder(pixels))
    for part, kind in (("image_encoder", "self"), ("qformer", "self"), ("qformer", "cross")):
        torch.testing.assert_close(their_maps.stack(part, kind), maps.stack(part, kind), atol=1e-5, rtol=1e-4)


def test_real_layout_with_clip_and_a_text_side_in_every_other_layer():
    """The real layouts at a small width: CLIP as encoder, 4 layers with cross-attention in 0 and 2."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    from blip2_lab.models.qformer import QFormer, QFormerConfig
    from blip2_lab.models.vision_encoder import ImageEncoder, drop_last_layer

    clip = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    encoder = ImageEncoder(drop_last_layer(CLIPVisionModel(clip)))
    qformer = QFormer(QFormerConfig(vocab_size=9, width=32, num_layers=4, num_heads=2, ffn_width=64, image_width=32))
    both = loud(nn.ModuleDict({"image_encoder": encoder, "qformer": qformer})).eval()
    with record_attention(both) as maps, torch.no_grad():
        qformer(image=qformer.read_image(encoder(torch.randn(2, 3, 28, 28))))
    assert [m.layer for m in maps.select("qformer", "cross")] == [0, 2]
    assert maps.stack("qformer", "cross").shape == (2, 2, 2, 32, 5)
    assert maps.stack("image_encoder", "self").shape == (2, 2, 2, 5, 5)


def test_select_and_its_mistakes():
    maps = AttentionMaps()
    with pytest.raises(ValueError, match="there is nothing"):
        maps.stack("qformer", "cross")
    with pytest.raises(ValueError, match="'query' is unknown"):
        maps.select("query")
    with pytest.raises(ValueError, match="nothing to record"), record_attention(nn.Linear(2, 2)):
        pass
