"""The dual encoder: its vocabulary of patches and words, k-means by hand, what it learns and what it cannot do."""

import pytest
import torch

from blip2_lab.models.bridges.dual_encoder import DualEncoder, DualEncoderConfig, k_means, nearest_codes
from blip2_lab.models.losses import ITM_CHANCE
from tests.tiny import build_tiny_model

CAPTIONS = ["a red boat .", "two trees and a house at night .", "a blue fish .", "a dog ."]


@pytest.fixture(scope="module")
def parts():
    model = build_tiny_model("opt")
    return model.image_encoder, model.language_model


def new(parts, **options) -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(DualEncoderConfig(64, 64, 2, embed_width=16, ffn_width=128, **options), *parts)


def images(count: int = 4) -> torch.Tensor:
    """Features that differ much between images: each has a direction of its own."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, 64, generator=generator) + 0.3 * torch.randn(count, 17, 64, generator=generator)


def test_k_means_by_hand():
    points = torch.tensor([[0.0, 0], [0, 2], [10, 0], [10, 2]])
    centers = k_means(points, 2)
    assert sorted(centers.tolist()) == [[0, 1], [10, 1]]
    assert nearest_codes(points, torch.tensor([[0.0, 1], [10, 1]])).tolist() == [0, 0, 1, 1]
    # as many codes as places: nothing is lost, also where starts coincide and leave a center empty
    repeated = torch.cat([points, points])
    codes = k_means(repeated, 4)
    assert sorted(codes.tolist()) == sorted(points.tolist())
    with pytest.raises(ValueError, match="5 codes need at least as many different features; there are 4"):
        k_means(repeated, 5)


def test_patch_ids_follow_the_words(parts):
    model = new(parts, num_codes=6)
    model.fit_codebook(images())
    ids, words = model.patch_ids(images()), parts[1].model.config.vocab_size
    assert ids.shape == (4, 17) and ids.min() >= words and ids.max() < words + 6
    assert len(ids.unique()) > 2
    codes = model.codebook[ids - words]  # a new LayerNorm has weight 1 and bias 0
    torch.testing.assert_close(model.image_tokens(images()), codes)


def test_more_codes_lose_less(parts):
    errors = []
    for count in (1, 4, 68):
        model = new(parts, num_codes=count)
        model.fit_codebook(images())
        errors.append(model.quantization_error(images()))
    assert errors[0] == pytest.approx(1, abs=1e-4) and errors[0] > errors[1] > errors[2]
    assert errors[2] == pytest.approx(0, abs=1e-4)


def test_a_text_is_the_state_of_its_last_token(parts):
    model = new(parts)
    together = model.embed_texts(model.text_states(CAPTIONS)[0])
    alone = torch.cat([model.embed_texts(model.text_states([caption])[0]) for caption in CAPTIONS])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    changed = model.embed_texts(model.text_states(["a red fish ."])[0])  # a token before the last one
    assert not torch.allclose(changed, alone[:1], atol=1e-3)


def test_padding_is_not_averaged(parts):
    model = new(parts)
    together = model.match(images(), CAPTIONS)
    alone = [model.match(images()[i : i + 1], [caption]).item() for i, caption in enumerate(CAPTIONS)]
    assert together.tolist() == pytest.approx(alone, abs=1e-5) and len(set(alone)) == 4


@pytest.mark.parametrize("num_codes", [None, 12])
def test_it_starts_at_chance_and_learns(parts, num_codes):
    model = new(parts, num_codes=num_codes)
    if num_codes:
        model.fit_codebook(images())
    first = model.losses(images(), CAPTIONS, torch.Generator().manual_seed(0))
    assert first.itm.item() == pytest.approx(ITM_CHANCE, abs=0.4)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    for step in range(160):
        optimizer.zero_grad()
        model.losses(images(), CAPTIONS, torch.Generator().manual_seed(step)).total.backward()
        optimizer.step()
    last = model.losses(images(), CAPTIONS, torch.Generator().manual_seed(0))
    assert last.itm < first.itm / 2 and last.itc < first.itc
    assert not any(p.requires_grad for p in [*model.image_encoder.parameters(), *model.language_model.parameters()])
    for i, caption in enumerate(CAPTIONS):
        ranked = model.rank(images()[i : i + 1], "", CAPTIONS)
        assert ranked[0][0] == caption
    similarity = model.embed_images(images()) @ model.embed_texts(model.text_states(CAPTIONS)[0]).T
    assert similarity.argmax(dim=1).tolist() == [0, 1, 2, 3]


def test_what_it_cannot_do_is_said(parts):
    model = new(parts)
    with pytest.raises(ValueError, match="generates no text.*Rank candidate answers"):
        model.generate("scene.png", "a picture of")
    with pytest.raises(ValueError, match="no codes"):
        model.patch_ids(images())
    with pytest.raises(ValueError, match="no empty one"):
        model.rank(images()[:1], "", ["a", " "])
    with pytest.raises(ValueError, match="one image at a time; 4"):
        model.rank(images(), "", ["a"])
    with pytest.raises(ValueError, match="a T5 is not one"):
        DualEncoder(DualEncoderConfig(64, 64, 2), parts[0], build_tiny_model("t5").language_model)
    with pytest.raises(ValueError, match="widths 32 and 64, and these encoders have 64 and 64"):
        DualEncoder(DualEncoderConfig(32, 64, 2), *parts)
