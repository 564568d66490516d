"""Stage 2: which parameters train, how a caption is split, how images and prompts are paired, questions in the
Q-Former."""

import copy
import io
import math
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from blip2_lab.checkpoints.load import load, save
from blip2_lab.models.masks import bidirectional_mask
from blip2_lab.models.other_names import STAGE1_ATTRIBUTES, STAGE2_ATTRIBUTES
from blip2_lab.models.qformer import QFormer
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.stage2 import Stage2Model, question_of, split_caption, with_text
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene
from tests.tiny import build_tiny_model, loud

PICTURES = [draw(sample_scene(0, i), 48) for i in range(3)]
CAPTIONS = ["a red boat on the beach .", "two trees and a house at night .", "a blue fish ."]


@pytest.fixture(scope="module", params=["t5", "opt"])
def calm_model(request):
    return build_tiny_model(request.param)


@pytest.fixture(scope="module")
def model(calm_model):
    """The same, with answers that depend on the image."""
    model = copy.deepcopy(calm_model)
    loud(model)
    with torch.no_grad():
        model.language_projection.weight.mul_(5)
    return model


def features(model: Stage2Model) -> torch.Tensor:
    return model.image_encoder(model.image_encoder.preprocess(PICTURES))


def test_every_cut_is_equally_likely_and_loses_no_word():
    generator = torch.Generator().manual_seed(0)
    cuts = Counter(split_caption("a red boat", generator) for _ in range(3000))
    assert set(cuts) == {("", "a red boat"), ("a", "red boat"), ("a red", "boat")}
    assert all(900 < count < 1100 for count in cuts.values())
    assert split_caption("boat") == ("", "boat")
    with pytest.raises(ValueError, match="caption is empty"):
        split_caption("  ")


def test_cuts_repeat_with_their_generator():
    draws = [[split_caption(CAPTIONS[1], torch.Generator().manual_seed(seed)) for seed in range(9)] for _ in range(2)]
    assert draws[0] == draws[1] and len(set(draws[0])) > 3


def test_loss_is_prefix_language_modeling_or_language_modeling(model):
    loss = model.loss(image_features=features(model), captions=CAPTIONS, generator=torch.Generator().manual_seed(3))
    if model.language_model.model.config.is_encoder_decoder:
        generator = torch.Generator().manual_seed(3)
        prefixes, suffixes = zip(*(split_caption(caption, generator) for caption in CAPTIONS), strict=True)
        assert any(prefixes)
    else:
        prefixes, suffixes = [""] * 3, CAPTIONS
    expected = model.language_model.loss(model.visual_prompt(features(model)), prefixes, suffixes)
    torch.testing.assert_close(loss, expected)


def test_prompt_tokens_have_no_loss(model):
    loss = model.loss(image_features=features(model), captions=["red"] * 3, prompts=["what color is the boat?"] * 3)
    visual_prompt = model.visual_prompt(features(model))
    torch.testing.assert_close(
        loss, model.language_model.loss(visual_prompt, ["what color is the boat?"] * 3, ["red"] * 3)
    )


def test_pixels_and_features_give_the_same_loss(model):
    pixels = model.image_encoder.preprocess(PICTURES)
    losses = [
        model.loss(**{name: value}, captions=CAPTIONS, generator=torch.Generator().manual_seed(0))
        for name, value in (("pixels", pixels), ("image_features", features(model)))
    ]
    torch.testing.assert_close(*losses)
    with pytest.raises(ValueError, match="images once"):
        model.loss(captions=CAPTIONS)


def test_only_qformer_and_projection_train(calm_model):
    """After training steps: frozen models byte for byte the same, Q-Former and projection changed, loss lower."""
    model = copy.deepcopy(calm_model)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in trainable} == {"qformer", "language_projection"}
    before = {name: p.clone() for name, p in model.state_dict().items()}
    image_features = features(model)

    def loss() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return model.loss(image_features=image_features, captions=CAPTIONS, generator=generator)

    torch.manual_seed(0)  # the Q-Former's dropout
    at_first = loss().item()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    model.train()
    assert not any(m.training for part in (model.image_encoder, model.language_model) for m in part.modules())
    for _ in range(15):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    model.eval()
    assert loss().item() < at_first
    for name, parameter in model.state_dict().items():
        frozen = name.startswith(("image_encoder.", "language_model."))
        assert torch.equal(parameter, before[name]) == frozen, name


def test_one_or_many(model, tmp_path):
    prompt = "question: what is this? short answer:"
    one = model.generate(PICTURES[0], prompt)
    assert isinstance(one, str)
    many = model.generate(PICTURES, prompt)
    assert many[0] == one and len(many) == 3 and len(set(many)) > 1
    assert model.generate(PICTURES[0], [prompt, "a"])[0] == one
    assert model.generate([PICTURES[0], PICTURES[2]], [prompt, prompt]) == [many[0], many[2]]
    assert model.generate([PICTURES[0]], prompt) == [one]
    pixels = model.image_encoder.preprocess(PICTURES)
    assert model.generate(pixels, prompt) == many and model.generate(pixels[0], prompt) == one
    PICTURES[0].save(tmp_path / "scene.png")
    assert model.generate(tmp_path / "scene.png", prompt) == model.generate(str(tmp_path / "scene.png"), prompt) == one


def test_anything_that_holds_a_picture_is_one(model):
    prompt, frame, file = "question: what is this? short answer:", np.array(PICTURES[0]), io.BytesIO()
    PICTURES[0].save(file, "PNG")
    one = model.generate(PICTURES[0], prompt)
    for source in (frame, file.getvalue(), bytearray(file.getvalue()), file, file):  # an open file, twice
        assert model.generate(source, prompt) == one
    frames = np.stack([np.array(picture) for picture in PICTURES])
    assert model.generate(frames, prompt) == model.generate(PICTURES, prompt)
    assert [c.text for c in model.rank(frame, prompt, ["red", "blue"])] == [
        c.text for c in model.rank(PICTURES[0], prompt, ["red", "blue"])
    ]
    assert torch.equal(model.image_encoder.preprocess(frame), model.image_encoder.preprocess([PICTURES[0]]))


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (5, "of type int"),
        ({"image": "a.png"}, "of type dict"),
        ([], "list of images is empty"),
        ([None], "of type NoneType"),
        ("", "the path of the picture is empty"),
        (np.zeros((8, 8, 3)), "float64 .*uint8, values 0 to 255"),
        (np.zeros((3, 8, 8), np.uint8), "colors first"),
        (np.zeros((2, 2, 8, 8, 3), np.uint8), "several pictures"),
    ],
)
def test_what_is_no_picture_is_refused_in_a_sentence(model, image, says):
    with pytest.raises(ValueError, match=says):
        model.generate(image, "a")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: v[0], r"has the shape \[\d+, \d+\]: `encode_image` makes one"),
        (lambda v: v[..., :5], r"has the shape \[1, \d+, 5\]"),
        (lambda v: v[:0], r"has the shape \[0, "),
        (lambda v: v * float("nan"), "not finite"),
        (lambda v: v.long(), "tensor of floats, and this is torch.int64"),
        (lambda v: v.numpy(), "tensor of floats, and this is ndarray"),
    ],
)
def test_a_visual_prompt_of_another_form_is_refused_in_a_sentence(model, change, says):
    with pytest.raises(ValueError, match=says):
        model.generate(visual_prompt=change(model.encode_image(PICTURES[0])), prompt="a")


def test_pixels_of_several_pictures_have_one_shape_and_may_have_another_dtype(model):
    pixels = model.image_encoder.preprocess(PICTURES[:2])
    expected = model.generate(pixels, "a")
    assert model.generate([pixels[0].double(), pixels[1]], "a") == expected
    with pytest.raises(ValueError, match="have one shape; these have"):
        model.generate([pixels[0], pixels[1, :, :16]], "a")
    for other in (pixels.to_sparse(), pixels.to("meta")):
        with pytest.raises(ValueError, match="dense tensor with values"):
            model.generate(other, "a")


def test_prompts_may_come_from_a_generator(model):
    assert model.generate(PICTURES[0], (text for text in "ab")) == model.generate(PICTURES[0], ["a", "b"])


@pytest.mark.parametrize("prompt", [5, b"what?", ["a", None], [["a"]], float("nan")])
def test_a_prompt_is_text(model, prompt):
    with pytest.raises(ValueError, match="is text"):
        model.generate(PICTURES[0], prompt)


def test_one_text_for_a_list_is_not_read_letter_by_letter(model):
    with pytest.raises(ValueError, match="put it in a list"):
        model.rank(PICTURES[0], "a", "red")
    with pytest.raises(ValueError, match="put it in a list"):
        model.loss(image_features=features(model), captions="abc")


def test_pixels_of_another_scale_are_refused(model):
    pixels = model.image_encoder.preprocess(PICTURES[0])
    raw = torch.tensor(np.array(PICTURES[0])).permute(2, 0, 1)
    model.encode_image(pixels)
    for wrong, says in {
        "uint8": (raw, "torch.uint8"),
        "0..255": (raw.float(), "not normalized"),
        "0..1": (raw / 255, "0 to 1"),
        "-1..1": (raw / raw.max() * 2 - 1, "-1 to 1"),
        "one of two": (torch.stack([pixels[0], raw / 255]), "Picture 1"),
        "nan": (pixels * torch.nan, "not finite"),
        "empty": (pixels[:0], "no pixels"),
        "colors last": (pixels[0].permute(1, 2, 0), "colors are last here: pixels.movedim"),
    }.values():
        with pytest.raises(ValueError, match=says):
            model.generate(wrong, "a")
        batch = wrong if wrong.ndim == 4 else wrong[None]
        with pytest.raises(ValueError, match=says):
            model.loss(pixels=batch, captions=["a boat"] * len(batch))


def test_the_loss_is_the_mean_of_the_losses_of_each(model):
    texts = dict(captions=["a boat", "a big red boat", "a"], prompts=["a", "a picture of", ""])
    given = dict(image_features=features(model)) | texts
    loss, count = model.loss_and_count(**given)
    sums, tokens = model.losses_of_each(**given)
    torch.testing.assert_close(sums.sum() / tokens.sum(), loss)
    assert tokens.sum() == count and sums.shape == (3,)


def test_captions_may_come_in_any_sequence_and_an_empty_one_is_refused(model):
    seen, texts = features(model), ["a boat", "a cat", "a dog"]
    expected = model.loss(image_features=seen, captions=texts, prompts=["a"] * 3)
    for given in (tuple(texts), np.array(texts), (text for text in texts)):
        assert model.loss(image_features=seen, captions=given, prompts=["a"] * 3) == expected
    with pytest.raises(ValueError, match="Caption 1 is empty"):
        model.loss(image_features=seen, captions=["a boat", " ", "a dog"], prompts=["a"] * 3)


def test_an_image_is_encoded_once(model):
    seen = []
    hook = model.image_encoder.register_forward_hook(lambda *_: seen.append(1))
    try:
        visual_prompt = model.encode_image(PICTURES[0])
        assert visual_prompt.shape == (1, 8, model.language_model.width) and not visual_prompt.requires_grad
        answers = [model.generate(visual_prompt=visual_prompt, prompt=prompt) for prompt in ("a", "the", "is it red?")]
        streamed = "".join(token.text for token in model.stream(visual_prompt=visual_prompt, prompt="a", num_beams=5))
        assert len(seen) == 1
    finally:
        hook.remove()
    assert streamed == answers[0] == model.generate(PICTURES[0], "a")


def test_streaming_is_greedy_unless_told_otherwise(model):
    greedy = model.generate(PICTURES[1], "a", num_beams=1)
    assert "".join(token.text for token in model.stream(PICTURES[1], "a")) == greedy
    beams = model.generate(PICTURES[1], "a", num_beams=5, length_penalty=1.0)
    streamed = model.stream(PICTURES[1], "a", num_beams=5, length_penalty=1.0)
    assert "".join(token.text for token in streamed) == beams


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(prompt="a"), "There is no image: pass one"),
        (dict(image=PICTURES[0], visual_prompt=torch.zeros(1, 8, 64), prompt="a"), "image once"),
        (dict(image=PICTURES[:2], prompt=["a", "b", "c"]), "2 images and 3 prompts"),
        (dict(image=[], prompt="a"), "list of images is empty"),
        (dict(image=torch.zeros(2, 96, 96), prompt="a"), "Pixels have the shape"),
        (dict(image=torch.zeros(3, 96, 96), prompt=[]), "list of prompts is empty"),
        (dict(image="nowhere.png", prompt="a"), "there is no file"),
    ],
)
def test_wrong_arguments_are_one_sentence(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model.generate(**arguments)


def test_unknown_decoding_option_raises(model):
    for kind in (ValueError, TypeError):
        with pytest.raises(kind, match="'beams': use num_beams"):
            model.generate(PICTURES[0], "a", beams=3)
    with pytest.raises(ValueError, match="one image at a time"):
        model.stream(PICTURES, "a")


def test_calling_the_model_is_its_loss_and_names_of_other_libraries_are_told(model):
    """DistributedDataParallel and accelerate call `forward`; LAVIS passes a dict, transformers pixel_values."""
    batch = dict(image_features=features(model), captions=CAPTIONS, prompts=["a"] * 3)
    assert model(**batch) == model.loss(**batch)
    assert torch.nn.DataParallel(model)(**batch) == model.loss(**batch)
    for call, says in {
        lambda: model({"image": 1}): "arguments by name, and gives its loss",
        lambda: model(pixel_values=1): "no argument 'pixel_values': pass pixels=image_encoder.preprocess",
        lambda: model(pixels=1, labels=2): "'labels': pass captions",
        lambda: model(caption=1): "did you mean 'captions'",
    }.items():
        with pytest.raises(ValueError, match=says):
            call()


def test_image_features_of_another_form_are_refused(model):
    for wrong in (features(model)[:, 0], features(model).long()):
        with pytest.raises(ValueError, match=r"image_features are floats \[B, N, Dv\]"):
            model.loss(image_features=wrong, captions=CAPTIONS)


def test_marks_in_texts_are_refused(model):
    """transformers' prompts have `<image>`: here it would be one more word, and no answer would show it."""
    seen, end = features(model)[:1], model.language_model.tokenizer.eos_token
    for call in (
        lambda text: model.generate(PICTURES[0], text),
        lambda text: model.stream(PICTURES[0], text),
        lambda text: model.rank(PICTURES[0], text, ["red"]),
        lambda text: model.rank(PICTURES[0], "a", ["red", text]),
        lambda text: model.loss(image_features=seen, captions=[text]),
        lambda text: model.loss(image_features=seen, captions=["red"], prompts=[text]),
    ):
        for text in ("<image>what is it?", f"a {end} b"):
            with pytest.raises(ValueError, match="leave it out"):
                call(text)


def test_attributes_of_other_libraries_are_told(model):
    for name, says in {
        "save_pretrained": r"use blip2_lab.save\(model, folder\)",
        "predict_answers": "use model.generate",
        "gradient_checkpointing_enable": "enable_gradient_checkpointing",
        "visual_encoder": "use image_encoder",
        "nothing": "no attribute 'nothing'",
    }.items():
        assert not hasattr(model, name)
        with pytest.raises(AttributeError, match=says):
            getattr(model, name)
    for each, known in ((model, STAGE2_ATTRIBUTES), (model.stage1, STAGE1_ATTRIBUTES)):
        assert not [name for name in known if hasattr(each, name)], "what is there needs no other name"
    with pytest.raises(AttributeError, match="use embed_image and embed_text"):
        _ = model.stage1.extract_features


def test_a_language_model_of_transformers_is_to_be_wrapped(model):
    with pytest.raises(ValueError, match=r"pass language_model\(model, tokenizer\)"):
        Stage2Model(model.image_encoder, model.qformer, model.language_model.model)


def test_from_stage1_keeps_the_queries_and_drops_the_text():
    model = build_tiny_model("opt")
    stage1 = model.stage1
    names = set(model.qformer.state_dict())
    assert not any("text" in name or "word_embeddings" in name or "position" in name for name in names)
    image_features = features(model)
    ours = model.qformer(image=model.qformer.read_image(image_features)).query_output
    theirs = stage1.qformer(image=stage1.qformer.read_image(image_features)).query_output
    torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        model.qformer.query_tokens.zero_()  # a copy: stage 1 does not change with it
    assert stage1.qformer.query_tokens.abs().sum() > 0


def test_stage1_is_outside_parameters_and_state_dict(model):
    assert model.stage1 is not None
    assert not any(name.startswith("stage1") for name in model.state_dict())
    assert not any(p is q for p in model.parameters() for q in model.stage1.qformer.parameters())


def test_widths_must_fit(model):
    other = QFormer(replace(model.qformer.config, image_width=96))
    with pytest.raises(ValueError, match="width 96"):
        Stage2Model(model.image_encoder, other, model.language_model)


def test_images_of_any_mode_and_size(model):
    for mode, size in (("L", (5, 500)), ("RGBA", (300, 2)), ("P", (48, 48))):
        assert isinstance(model.generate(Image.new(mode, size), "a", max_new_tokens=2), str)


def test_scaled_visual_prompts_have_the_norm_of_word_embeddings(calm_model):
    model = copy.deepcopy(calm_model)
    before = model.language_projection.weight.clone()
    factor = model.match_embeddings()
    torch.testing.assert_close(model.language_projection.weight, before * factor)
    output = torch.nn.functional.layer_norm(torch.randn(400, before.shape[1]), before.shape[1:])
    length = model.language_projection(output).norm(dim=1).pow(2).mean().sqrt()
    words = model.language_model.model.get_input_embeddings().weight.norm(dim=1).mean()
    assert length.item() == pytest.approx(words.item(), rel=0.1)
    assert model.match_embeddings() == pytest.approx(1.0)


# --- ranking --------------------------------------------------------------------------------------------------------


def test_candidates_are_ranked_by_their_whole_likelihood(model):
    """Compared with the log-probabilities token by token, the end token included."""
    prompt, candidates = "question: what color is the boat? short answer:", ["red", "two trees", "a blue boat"]
    language, seen = model.language_model, model.encode_image(PICTURES[0])
    expected = {}
    for text in candidates:
        prompt_text, answer = language.pair_texts([prompt], [text])
        ids = answer.ids[0].tolist()
        assert ids[-1] == language.end_token_id
        expected[text] = sum(map(math.log, language.probabilities(seen, prompt_text, ids)))
    ranked = model.rank(PICTURES[0], prompt, candidates)
    assert [one.text for one in ranked] == sorted(candidates, key=expected.get, reverse=True)
    for one in ranked:
        assert one.log_likelihood == pytest.approx(expected[one.text], rel=1e-3)
    assert sum(one.probability for one in ranked) == pytest.approx(1)
    assert model.rank(visual_prompt=seen, prompt=prompt, candidates=candidates[:1])[0].probability == 1


def test_ranking_per_token_divides_by_the_length(model):
    candidates = ["red", "a red boat and a blue boat and a green boat"]
    total = {one.text: one for one in model.rank(PICTURES[0], "", candidates)}
    mean = {one.text: one for one in model.rank(PICTURES[0], "", candidates, per_token=True)}
    assert mean[candidates[1]].probability > total[candidates[1]].probability
    assert mean[candidates[1]].log_likelihood == total[candidates[1]].log_likelihood


def test_ranking_encodes_the_image_once(model, monkeypatch):
    reads, forward = [], model.image_encoder.forward
    monkeypatch.setattr(model.image_encoder, "forward", lambda pixels: (reads.append(len(pixels)), forward(pixels))[1])
    model.rank(PICTURES[0], "a", ["red", "blue", "green"])
    assert reads == [1]


@pytest.mark.parametrize(
    ("candidates", "says"),
    [
        ([], "at least one candidate"),
        (["red", " "], "no empty one"),
        (["red", "blue", "red"], "'red' comes twice, and would get half of its share: pass it once"),
        (["red", "xqzv", "vzqx"], "'xqzv' and 'vzqx' are the same tokens"),
        (["red", "red  "], "'red' and 'red  ' are the same tokens"),
    ],
)
def test_what_cannot_be_ranked_is_one_sentence(model, candidates, says):
    with pytest.raises(ValueError, match=says):
        model.rank(PICTURES[0], "a", candidates)
    with pytest.raises(ValueError, match="one image at a time; 3 were given"):
        model.rank(PICTURES, "a", ["red"])


# ------------------------------------------------------------------------------ the question in the Q-Former (Figure 7)

ASKED = ("Question: what color is the boat? Short answer:", "Question: is it day? Short answer:")


@pytest.fixture(scope="module", params=["t5", "opt"])
def asked_model(request):
    """A loud tiny model whose Q-Former reads questions, and the one that it was made from."""
    plain = build_tiny_model(request.param)
    loud(plain, plain.stage1)
    return with_text(plain, plain.stage1), plain


def image_rows(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 17, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "prompt,question",
    [
        ("Question: what color is the boat? Short answer:", "what color is the boat?"),
        ("Question: which city is this? Answer:", "which city is this?"),
        ("Question: a? Short answer: b. Question: c? Short answer:", "c?"),
        ("question: what is the answer: 4 or 5? long answer: ", "what is the answer: 4 or 5?"),
        ("a picture of", "a picture of"),
        ("Question: unfinished", "Question: unfinished"),
        ("", ""),
    ],
)
def test_the_question_in_a_prompt(prompt, question):
    assert question_of(prompt) == question


def test_the_visual_prompt_depends_on_the_question_and_not_on_the_others_of_the_batch(asked_model):
    model, plain = asked_model
    rows = image_rows()
    assert model.reads_questions and not plain.reads_questions
    assert torch.equal(model.visual_prompt(rows), plain.visual_prompt(rows))  # without a question: stage 2's
    both, other = model.visual_prompt(rows, ASKED), model.visual_prompt(rows, [ASKED[1], ASKED[1]])
    assert (both[0] - other[0]).abs().max() > 0.1 and torch.allclose(both[1], other[1], atol=1e-4)
    alone = torch.cat([model.visual_prompt(rows[i : i + 1], ASKED[i : i + 1]) for i in range(2)])
    assert torch.allclose(both, alone, atol=1e-4)  # the shorter one's padding is not read
    several = model.visual_prompt(rows[:1], ASKED)  # two questions about one image
    assert torch.allclose(several[0], both[0], atol=1e-4) and (several[1] - both[1]).abs().max() > 0.1
    assert torch.equal(plain.visual_prompt(rows, ASKED), plain.visual_prompt(rows))


def test_question_and_queries_share_self_attention_as_in_itm(asked_model):
    """The same numbers from the stage 1 whose text side it has: its Q-Former with ITM's mask."""
    model, plain = asked_model
    stage1 = plain.stage1.qformer
    state = stage1.state_dict() | plain.qformer.state_dict()  # stage 2's queries, layers and cross-attention
    twin = copy.deepcopy(stage1)
    twin.load_state_dict(state)
    ids, mask = model.tokenize_questions(ASKED)
    assert ids.tolist() == plain.stage1.tokenize(["what color is the boat?", "is it day?"])[0].tolist()
    joint = twin(
        image=twin.read_image(image_rows()),
        input_ids=ids,
        mask=bidirectional_mask(twin.config.num_query_tokens, mask),
        text_mask=mask.bool(),
    )
    expected = model.language_projection(joint.query_output)
    assert torch.allclose(model.visual_prompt(image_rows(), ASKED), expected, atol=1e-4)


def test_the_answer_loss_reaches_the_text_side(asked_model):
    model = copy.deepcopy(asked_model[0])
    model.qformer.requires_grad_(True)
    model.loss(image_features=image_rows(), captions=["red", "yes"], prompts=ASKED).backward()
    text = {name: p for name, p in model.qformer.named_parameters() if "text_ffn" in name or "_embeddings" in name}
    without = {name for name, p in text.items() if p.grad is None or not p.grad.any()}
    assert len(text) == 14 and without == {name for name in text if name.startswith("layers.1.text_ffn")}
    words = model.question_tokenizer("boat", add_special_tokens=False).input_ids
    read = model.qformer.word_embeddings.weight.grad.abs().sum(dim=1)
    assert read[words].min() > 0 and read[model.question_tokenizer.pad_token_id] == 0


def test_answering_gives_the_question_to_the_qformer(asked_model):
    model, plain = asked_model
    pixels = torch.randn(3, 48, 48, generator=torch.Generator().manual_seed(2))
    for prompt in ASKED:
        seen = model.encode_image(pixels, [prompt])
        tokens = list(model.stream(pixels, prompt, max_new_tokens=6))
        assert [t.probability for t in tokens] == pytest.approx(
            [t.probability for t in model.stream(visual_prompt=seen, prompt=prompt, max_new_tokens=6)], rel=1e-3
        )
        assert model.rank(pixels, prompt, ["red", "yes"]) == model.rank(
            visual_prompt=seen, prompt=prompt, candidates=["red", "yes"]
        )
        without = model.encode_image(pixels)
        ranked = []
        for visual_prompt in (seen, without):
            found = model.rank(visual_prompt=visual_prompt, prompt=prompt, candidates=["red", "yes"])
            ranked.append({candidate.text: candidate.log_likelihood for candidate in found})
        assert abs(ranked[0]["red"] - ranked[1]["red"]) > 1e-3
    together = model.generate(pixels, list(ASKED), num_beams=1)
    assert together == [model.generate(pixels, prompt, num_beams=1) for prompt in ASKED]


def test_a_question_is_cut_in_training_alone(asked_model):
    model = copy.deepcopy(asked_model[0])
    model.max_question_tokens = 5
    long = "Question: is the red boat left of the big blue house? Short answer:"
    whole = model.tokenize_questions([long])[0]
    model.train()
    assert model.tokenize_questions([long])[0].shape[1] == 5 < whole.shape[1]
    model.question_tokenizer = None
    with pytest.raises(ValueError, match="reads questions and has no tokenizer"):
        model.tokenize_questions([long])


def test_another_text_side_replaces_the_one_that_a_model_has(asked_model):
    model, plain = asked_model
    other = loud(copy.deepcopy(plain.stage1), seed=9)
    again = with_text(model, other).qformer.state_dict()
    first = "layers.0.text_ffn.expand.weight"
    assert torch.equal(again[first], other.qformer.state_dict()[first])
    assert not torch.equal(again[first], model.qformer.state_dict()[first])
    assert torch.equal(again["query_tokens"], model.qformer.query_tokens)


def test_a_text_side_that_does_not_fit_is_refused(asked_model):
    plain = asked_model[1]
    other = Stage1Model(replace(plain.stage1.qformer.config, num_layers=4), plain.stage1.config)
    with pytest.raises(ValueError, match="has 2 layers of width 64, and that of the stage 1 4 of 64"):
        with_text(plain, other)
    other = Stage1Model(plain.stage1.qformer.config, plain.stage1.config)
    with pytest.raises(ValueError, match="The stage 1 has no tokenizer"):
        with_text(plain, other)


def test_saved_as_instructblip_it_loads_here_and_in_transformers(asked_model, tmp_path):
    from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

    model, plain = asked_model
    save(plain, tmp_path)  # an older model in the same folder
    save(model, tmp_path)
    save(model, tmp_path)
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    expected = model.encode_image(pixels, ASKED)
    again = load(tmp_path)
    assert again.reads_questions and again.stage1 is not None
    assert torch.allclose(again.encode_image(pixels, ASKED), expected, atol=1e-4)
    assert again.generate(pixels, list(ASKED)) == model.generate(pixels, list(ASKED))
    theirs = InstructBlipForConditionalGeneration.from_pretrained(tmp_path).eval()
    processor = InstructBlipProcessor.from_pretrained(tmp_path)
    ids = processor.qformer_tokenizer([question_of(prompt) for prompt in ASKED], padding=True, return_tensors="pt")
    assert ids["input_ids"].tolist() == model.tokenize_questions(ASKED)[0].tolist()
    with torch.no_grad():
        seen = theirs.get_image_features(pixels, ids["input_ids"], ids["attention_mask"]).pooler_output
    assert torch.allclose(seen, expected, atol=1e-4)
    save(plain, tmp_path)  # and back: nothing of the text side is left
    assert not load(tmp_path).reads_questions and not (tmp_path / "qformer_tokenizer").exists()


def test_unknown_words_are_told_by_whatever_reads_them(calm_model):
    picture, seen = PICTURES[0], dict(image_features=features(calm_model)[:1])
    with pytest.warns(UserWarning, match="prompts have words that the tokenizer does not know, .*: 'rotes'"):
        calm_model.generate(picture, "a rotes boat", max_new_tokens=1)
    with pytest.warns(UserWarning, match="candidates have words .*: 'rouge'"):
        calm_model.rank(picture, "a", ["rouge", "red"])
    for texts in ({"captions": ["a rotes boat"]}, {"captions": ["red"], "prompts": ["welche Farbe?"]}):
        with pytest.warns(UserWarning, match="captions or prompts have words that the tokenizer does not know"):
            calm_model.loss(**seen, **texts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calm_model.generate(picture, "a red boat", max_new_tokens=1)
        calm_model.rank(picture, "a", ["blue", "red"])
        calm_model.loss(**seen, captions=CAPTIONS[:1], prompts=["a"])
        calm_model.loss_and_count(**seen, captions=["a rotes boat"])  # `train` has counted them


def test_stage1_tells_of_unknown_words_in_captions(calm_model):
    seen = dict(image_features=features(calm_model)[:2])
    with pytest.warns(UserWarning, match="captions have words that the tokenizer does not know"):
        calm_model.stage1.losses(**seen, captions=["a rotes boat", "a bird"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calm_model.stage1.losses(**seen, captions=["a red boat", "a bird"])
