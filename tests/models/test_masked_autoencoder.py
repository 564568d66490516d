"""A masked autoencoder: its encoder's features are those of transformers, and the figure shows what was masked."""

import pytest
import torch
from transformers import Blip2VisionConfig

from blip2_lab.models.masked_autoencoder import image_encoder_of, new_mae, reconstruct
from tests.tiny import loud

TINY = Blip2VisionConfig(
    hidden_size=64, num_hidden_layers=3, num_attention_heads=2, intermediate_size=96, image_size=48, patch_size=12
)


def tiny(seed: int = 0, **options):
    torch.manual_seed(seed)
    return new_mae(TINY, decoder_width=64, decoder_layers=1, **options).eval()


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def test_the_image_encoder_computes_what_the_autoencoder_computes():
    mae = loud(tiny())
    encoder = image_encoder_of(mae)
    assert (encoder.width, encoder.num_features, encoder.image_size) == (64, 17, 48)
    mae.config.mask_ratio = 0.0  # every patch is read; they are shuffled by the noise
    noise = torch.rand(2, 16, generator=torch.Generator().manual_seed(2))
    found = mae.vit(pixel_values=images(), noise=noise)
    order = found.ids_restore[:, :, None].expand(-1, -1, 64)
    patches = found.last_hidden_state[:, 1:].gather(1, order)
    theirs = torch.cat([found.last_hidden_state[:, :1], patches], dim=1)
    torch.testing.assert_close(mae.vit.layernorm(encoder(images())), theirs, rtol=1e-4, atol=1e-4)


def test_the_encoder_is_a_copy():
    mae = tiny()
    encoder = image_encoder_of(mae)
    before = encoder(images())
    loud(mae)
    torch.testing.assert_close(encoder(images()), before)


def test_masked_patches_are_not_read():
    mae = loud(tiny())
    noise = torch.arange(16.0).flip(0)[None]  # the last 4 of 16 patches are visible: the bottom row
    changed = images(1)
    changed[:, :, :36] += 1.0
    states = [mae.vit(pixel_values=pixels, noise=noise).last_hidden_state for pixels in (images(1), changed)]
    torch.testing.assert_close(*states)
    changed[:, :, 36:] += 1.0
    assert not torch.allclose(mae.vit(pixel_values=changed, noise=noise).last_hidden_state, states[0])


@pytest.mark.parametrize("normalize", [False, True])
def test_the_figure(normalize):
    mae = loud(tiny(normalize_pixels=normalize))
    flat = torch.zeros(2, 3, 48, 48)
    found = reconstruct(mae, flat, seed=3)
    assert found.masked.shape == (2, 16) and found.masked.sum(dim=1).tolist() == [12, 12]
    for b in range(2):
        for patch in range(16):
            row, column = divmod(patch, 4)
            square = found.masked_images[b, :, 12 * row : 12 * row + 12, 12 * column : 12 * column + 12]
            assert bool((square == 0.5).all()) == bool(found.masked[b, patch])
    torch.testing.assert_close(found.images[0, :, 0, 0], torch.tensor([0.4815, 0.4578, 0.4082]), rtol=0, atol=1e-4)
    assert found.rebuilt.shape == flat.shape and 0 <= found.rebuilt.min() <= found.rebuilt.max() <= 1
    if normalize:  # a flat patch has no deviation to be predicted with: the image itself is rebuilt
        torch.testing.assert_close(found.rebuilt, found.images, rtol=0, atol=0.01)
    assert torch.equal(reconstruct(mae, flat, seed=3).masked, found.masked)
    assert not torch.equal(reconstruct(mae, flat, seed=4).masked, found.masked)


def test_what_cannot_be_built():
    with pytest.raises(ValueError, match="decoder_width 100 must be a multiple of 64"):
        new_mae(TINY, decoder_width=100)
    for ratio in (0.99, 0.0):
        with pytest.raises(ValueError, match="must leave some and mask some"):
            new_mae(TINY, mask_ratio=ratio)
