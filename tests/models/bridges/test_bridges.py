"""Every bridge that can answer, in a Stage2Model: losses, answers, beams, the cache, and no image."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from blip2_lab.interpret.attention_maps import record_attention
from blip2_lab.models.bridges import (
    GatedCrossAttention,
    GatedCrossAttentionConfig,
    LinearBridge,
    LinearConfig,
    wide_qformer_config,
)
from blip2_lab.models.compile import compile_decoder
from blip2_lab.models.decoding import Decoding
from blip2_lab.models.language_model import decoder_layers
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene
from tests.tiny import BRIDGES, build_bridged_model, build_tiny_model, loud, new_bridge, open_gates

PICTURES = [draw(sample_scene(0, i), 48) for i in range(3)]
CAPTIONS = ["a red boat on the beach .", "two trees and a house at night .", "a blue fish ."]
QUESTION = "what is in the picture?"
WIDTH = dict(image_width=64, language_width=64)


@pytest.fixture(scope="module", params=["t5", "opt"])
def frozen(request):
    model = build_tiny_model(request.param)
    loud(model)
    return model


@pytest.fixture(params=BRIDGES)
def model(request, frozen):
    """A Stage2Model with this bridge, whose answers depend on the image."""
    return build_bridged_model(request.param, frozen)


def features(model: Stage2Model) -> torch.Tensor:
    return model.image_encoder(model.image_encoder.preprocess(PICTURES))


def test_shapes_and_tokens_in_the_language_model(model):
    prompts = model.visual_prompt(features(model))
    assert prompts.shape == (3, model.num_visual_tokens, 64)
    assert model.num_visual_tokens == model.bridge.num_visual_tokens(17)
    assert model.language_model.prefix_length(prompts) == (0 if model.bridge.deep_fusion else prompts.shape[1])


def test_only_the_bridge_trains_and_every_part_of_it_gets_a_gradient(model):
    model.loss(image_features=features(model), captions=CAPTIONS, generator=torch.Generator().manual_seed(0)).backward()
    bridge = {id(p) for p in model.bridge.parameters()}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {id(p) for p in trained.values()} == bridge
    # softmax does not depend on a key's bias, up to rounding
    silent = [n for n, p in trained.items() if not n.endswith("key.bias") and (p.grad is None or not p.grad.any())]
    assert not silent
    model.zero_grad()


def test_the_loss_depends_on_the_image(model):
    def loss(image_features):
        generator = torch.Generator().manual_seed(0)
        return model.loss(image_features=image_features, captions=CAPTIONS, generator=generator).item()

    image_features = features(model)
    assert abs(loss(image_features) - loss(image_features.roll(1, 0))) > 1e-3


def test_a_batch_answers_as_its_images_alone_also_with_beams(model):
    prompts = model.visual_prompt(features(model))
    for beams in (1, 3):
        options = dict(num_beams=beams, max_new_tokens=6, min_new_tokens=3)
        together = model.generate(visual_prompt=prompts, prompt=QUESTION, **options)
        alone = [model.generate(visual_prompt=prompts[i : i + 1], prompt=QUESTION, **options) for i in range(3)]
        assert together == alone


def test_the_cache_changes_nothing(model):
    """Greedy tokens from the cached stream are those of passes over the whole text."""
    language = model.language_model
    prompts = model.visual_prompt(features(model))[:1]
    text = language.prompt_texts([QUESTION])
    decoding = Decoding(num_beams=1, max_new_tokens=6, min_new_tokens=6)
    ids, probabilities = zip(*language.stream_ids(prompts, text, decoding), strict=True)
    expected = language.probabilities(prompts, text, list(ids))
    assert probabilities == pytest.approx(expected, rel=1e-3)
    assert model.generate(visual_prompt=prompts, prompt=QUESTION, num_beams=1, max_new_tokens=6, min_new_tokens=6) == (
        language.decode(list(ids))
    )


def test_two_streams_take_turns(model):
    prompts = model.visual_prompt(features(model))
    options = dict(prompt=QUESTION, max_new_tokens=5, min_new_tokens=5)
    expected = [list(model.stream(visual_prompt=prompts[i : i + 1], **options)) for i in range(2)]
    first, second = (model.stream(visual_prompt=prompts[i : i + 1], **options) for i in range(2))
    mixed = [(next(first), next(second)) for _ in range(5)]
    assert [list(tokens) for tokens in zip(*mixed, strict=True)] == expected


def test_the_hook_of_another_thread_does_nothing_also_while_it_is_removed(model):
    """torch calls a hook without keywords, if another thread removes it in this moment: the pass goes on."""
    if not model.bridge.deep_fusion:
        pytest.skip("this bridge needs no hooks")
    language, layers = model.language_model, decoder_layers(model.language_model.model)
    prompts, text = model.visual_prompt(features(model))[:1], language.prompt_texts([QUESTION])
    expected = language.first_logits(prompts, text)[0]
    other = model.visual_prompt(features(model).flip(0))[:1]
    with ThreadPoolExecutor(1) as thread, language.fused_with(language.image_keys_values(other)):
        hooks = [id for layer in layers for id in layer._forward_pre_hooks_with_kwargs]
        assert hooks
        for layer in layers:
            layer._forward_pre_hooks_with_kwargs.clear()
        torch.testing.assert_close(thread.submit(language.first_logits, prompts, text).result()[0], expected)


def test_the_chat_works_with_each_bridge(model):
    from blip2_lab.chat.conversation import Conversation

    talk, decoding = Conversation.about(model, PICTURES[0]), dict(num_beams=2, max_new_tokens=4, min_new_tokens=2)
    replies = list(talk.ask("what is in the picture?", Decoding(**decoding)))  # beams run in another thread
    assert replies[-1].done and replies[-1].text == model.generate(PICTURES[0], replies[-1].prompt, **decoding)


def test_candidates_are_ranked(model):
    ranked = model.rank(PICTURES[0], QUESTION, ["a boat", "a fish", "a tree"])
    assert sum(candidate.probability for candidate in ranked) == pytest.approx(1, abs=1e-5)


def test_a_copy_answers_the_same_and_is_independent(model):
    twin = copy.deepcopy(model)
    options = dict(num_beams=1, max_new_tokens=5, min_new_tokens=5)
    before = model.generate(PICTURES[0], QUESTION, **options)
    assert twin.generate(PICTURES[0], QUESTION, **options) == before
    with torch.no_grad():
        for parameter in twin.bridge.parameters():
            parameter.mul_(-3)
    changed = twin.visual_prompt(features(twin))
    assert not torch.allclose(changed, model.visual_prompt(features(model)))
    assert model.generate(PICTURES[0], QUESTION, **options) == before


def test_attention_is_recorded(model):
    with record_attention(model) as maps:
        answer = model.generate(PICTURES[0], QUESTION, num_beams=1, max_new_tokens=3, min_new_tokens=3)
    assert answer == model.generate(PICTURES[0], QUESTION, num_beams=1, max_new_tokens=3, min_new_tokens=3)
    if model.bridge.deep_fusion:
        read = maps.steps("bridge", "cross")
        assert len(read) == len(model.bridge.blocks) and read.shape[-1] == model.num_visual_tokens
        torch.testing.assert_close(read.sum(-1), torch.ones_like(read.sum(-1)))
        assert bool(maps.select("resampler")) == (model.bridge.resampler is not None)
    else:
        assert not maps.select("bridge") and maps.select("language_decoder", "self")


@pytest.mark.parametrize("name", ["gated", "gated-resampler"])
def test_gates_at_zero_give_the_text_models_logits_exactly(frozen, name):
    model = Stage2Model(frozen.image_encoder, new_bridge(name), frozen.language_model).eval()
    language, plain = model.language_model, frozen.language_model
    assert language.model is plain.model and plain.deep_fusion is None
    prompts = model.visual_prompt(features(model))
    prompt, answer = language.training_texts([QUESTION] * 3, CAPTIONS)
    if language.model.config.is_encoder_decoder:
        expected = plain.answer_logits(prompts[:, :0], prompt, answer)
    else:  # transformers alone, from ids
        text = prompt.then(answer)
        whole = plain.model(input_ids=text.ids, attention_mask=text.mask.long()).logits
        expected = whole[:, prompt.ids.shape[1] - 1 : -1]
    assert torch.equal(language.answer_logits(prompts, prompt, answer), expected)
    open_gates(model)
    assert not torch.allclose(language.answer_logits(prompts, prompt, answer), expected)
    # no image: the text model again, with open gates
    assert torch.equal(language.answer_logits(prompts[:, :0], prompt, answer), expected)
    assert not [h for layer in decoder_layers(plain.model) for h in layer._forward_pre_hooks]


def test_hooks_are_removed_after_an_error(frozen):
    model = Stage2Model(frozen.image_encoder, new_bridge("gated"), frozen.language_model)
    image = model.language_model.image_keys_values(model.visual_prompt(features(model)))
    with pytest.raises(ValueError, match="4 rows of text cannot share 3 images"):
        with model.language_model.fused_with(image):
            model.language_model.model.get_decoder()(**decoder_inputs(frozen, rows=4))
    assert not [h for layer in decoder_layers(frozen.language_model.model) for h in layer._forward_pre_hooks]


def decoder_inputs(frozen, rows: int) -> dict:
    inputs = dict(input_ids=torch.full((rows, 3), 5))
    if frozen.language_model.model.config.is_encoder_decoder:
        inputs["encoder_hidden_states"] = torch.zeros(rows, 2, 64)
    return inputs


def test_one_language_model_serves_several_bridges(frozen):
    gated, other = (
        Stage2Model(frozen.image_encoder, new_bridge(n), frozen.language_model) for n in ("gated", "gated-resampler")
    )
    open_gates(gated)
    expected = gated.loss(image_features=features(gated), captions=CAPTIONS, prompts=[""] * 3)
    open_gates(other, 3.0)
    other.loss(image_features=features(gated), captions=CAPTIONS, prompts=[""] * 3)
    assert torch.equal(gated.loss(image_features=features(gated), captions=CAPTIONS, prompts=[""] * 3), expected)
    assert frozen.language_model.deep_fusion is None


def test_gated_blocks_work_with_gradient_checkpointing(frozen):
    from blip2_lab.common.distributed import enable_gradient_checkpointing

    model = copy.deepcopy(Stage2Model(frozen.image_encoder, new_bridge("gated"), frozen.language_model))
    open_gates(model)

    def gradients():
        model.zero_grad()
        model.loss(image_features=features(model), captions=CAPTIONS, prompts=[QUESTION] * 3).backward()
        return [p.grad.clone() for p in model.bridge.parameters()]

    plain = gradients()
    enable_gradient_checkpointing(model)
    for one, other in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_new_soft_prompt_gets_the_norm_of_a_word(frozen):
    word = frozen.language_model.model.get_input_embeddings().weight.norm(dim=1).mean()
    for name in BRIDGES:
        model = Stage2Model(frozen.image_encoder, new_bridge(name), frozen.language_model)
        factor = model.match_embeddings()
        norm = model.visual_prompt(features(model)).norm(dim=-1).mean()
        assert factor == 1 if model.bridge.deep_fusion else norm.item() / word.item() == pytest.approx(1, rel=0.25)


def test_wrong_sizes_are_said(frozen):
    other = LinearBridge(LinearConfig(image_width=32, language_width=64))
    with pytest.raises(ValueError, match="width 32, and this image encoder has width 64"):
        Stage2Model(frozen.image_encoder, other, frozen.language_model)
    other = LinearBridge(LinearConfig(image_width=64, language_width=32))
    with pytest.raises(ValueError, match="language model of width 32, and this one has width 64"):
        Stage2Model(frozen.image_encoder, other, frozen.language_model)
    config = GatedCrossAttentionConfig(**WIDTH, num_layers=5, num_heads=2)
    with pytest.raises(ValueError, match="made for 5 layers, and this language model has 2"):
        Stage2Model(frozen.image_encoder, GatedCrossAttention(config), frozen.language_model)
    with pytest.raises(ValueError, match="at least 1"):
        GatedCrossAttentionConfig(**WIDTH, num_layers=5, num_heads=2, every=0)
    with pytest.raises(ValueError, match="multiple of 64"):
        wide_qformer_config(64, 100)
    with pytest.raises(ValueError, match="4 x 4 patches cannot be pooled to 32 = 4 x 8"):
        LinearBridge(LinearConfig(**WIDTH, num_visual_tokens=32))(torch.zeros(1, 17, 64))
    with pytest.raises(ValueError, match="15 patches are no square grid"):
        LinearBridge(LinearConfig(**WIDTH, num_visual_tokens=4))(torch.zeros(1, 16, 64))
    gated = Stage2Model(frozen.image_encoder, new_bridge("gated"), frozen.language_model)
    with pytest.raises(ValueError, match="cannot be compiled"):
        compile_decoder(gated.language_model)
