"""Image encoders: which layer the features are from, what frozen means, how images are preprocessed."""

import copy
import sys

import pytest
import torch
from PIL import Image
from torch import nn

from blip2_lab.models.micro import micro_vit_config
from blip2_lab.models.vision_encoder import (
    ImageEncoder,
    check_pixels,
    drop_last_layer,
    eva_vit_g_config,
    freeze,
    preprocess,
)


@pytest.fixture
def micro() -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder.from_config(micro_vit_config())


def test_features_have_a_row_for_each_patch_and_cls(micro):
    features = micro(torch.randn(2, 3, 96, 96))
    assert features.shape == (2, 65, 192)  # 8 x 8 patches of 12 pixels, and [CLS]
    assert (micro.width, micro.image_size, micro.num_features) == (192, 96, 65)
    assert features.std() > 0.1  # transformers' own initialization gives 1e-6


def test_features_come_before_the_last_layer_norm():
    from transformers import Blip2VisionModel

    torch.manual_seed(0)
    theirs = Blip2VisionModel(micro_vit_config()).eval()
    nn.init.normal_(theirs.post_layernorm.weight)
    layer_norm, pixels = copy.deepcopy(theirs.post_layernorm), torch.randn(2, 3, 96, 96)
    expected = theirs(pixels).last_hidden_state
    features = ImageEncoder(theirs)(pixels)
    assert not torch.allclose(features, expected, atol=1e-2)
    torch.testing.assert_close(layer_norm(features), expected)


def test_clip_gives_its_second_to_last_layer():
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    sizes = dict(hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2)
    clip = CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=28, patch_size=14)).eval()
    pixels = torch.randn(2, 3, 28, 28)
    layers = clip(pixels, output_hidden_states=True).hidden_states  # embeddings, layer 1, layer 2, layer 3
    features = ImageEncoder(drop_last_layer(clip))(pixels)
    assert features.shape == (2, 5, 64)
    torch.testing.assert_close(features, layers[-2])


def test_vit_g_has_the_reference_size():
    with torch.device("meta"):
        encoder = ImageEncoder.from_config(eva_vit_g_config())
    width, ffn = 1408, 6144
    block = 4 * width * width + 2 * width * ffn + (4 + 1 + 4) * width + ffn  # attention, FFN; their biases and norms
    patches = 3 * 14 * 14 * width + width + 257 * width + width
    assert sum(p.numel() for p in encoder.parameters()) == 39 * block + patches == 985_949_440
    assert (encoder.width, encoder.num_features) == (1408, 257)


def test_unknown_size_says_which_exist():
    with pytest.raises(ValueError, match="S, M"):
        micro_vit_config("XXL")


def test_frozen_stays_in_eval_without_gradients(micro):
    outside = nn.ModuleDict({"encoder": freeze(micro), "head": nn.Linear(192, 1)})
    outside.train()
    assert outside["head"].training
    assert not any(module.training for module in micro.modules())
    assert not any(p.requires_grad for p in micro.parameters())
    pixels = torch.randn(1, 3, 96, 96, requires_grad=True)
    outside["head"](micro(pixels)).sum().backward()
    assert pixels.grad.abs().sum() > 0  # gradients pass through, they do not stay
    assert all(p.grad is None for p in micro.parameters())


def test_a_copy_of_a_frozen_module_is_frozen_by_itself(micro):
    twin = copy.deepcopy(freeze(micro))
    assert twin.train() is twin
    assert not twin.training


def test_white_becomes_clips_white():
    pixels = preprocess([Image.new("RGB", (30, 50), "white")], 24)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    assert pixels.shape == (1, 3, 24, 24)
    torch.testing.assert_close(pixels[0].amax((1, 2)), (1 - mean) / std)
    torch.testing.assert_close(pixels[0].amin((1, 2)), (1 - mean) / std)


def test_images_are_resized_to_a_square_and_not_cropped():
    wide = Image.new("RGB", (200, 50), "black")
    wide.paste("white", (0, 0, 100, 50))
    pixels = preprocess([wide], 40)[0, 0]
    assert (pixels[:, :18] > 1).all() and (pixels[:, 22:] < -1).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(micro, mode):
    assert micro.preprocess([Image.new(mode, (7, 9))]).shape == (1, 3, 96, 96)


def test_another_size_interpolates_positions(micro):
    assert micro(torch.randn(1, 3, 120, 120)).shape == (1, 101, 192)
    pixels = torch.randn(1, 3, 96, 96)
    plain = micro.model(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(micro(pixels), plain)


def test_no_torchvision(micro):
    micro.preprocess([Image.new("RGB", (8, 8))])
    assert "torchvision" not in sys.modules


def test_at_its_own_size_an_interpolated_encoder_is_the_original():
    from transformers import Blip2VisionConfig

    from blip2_lab.models.vision_encoder import at_resolution

    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    encoder = freeze(
        ImageEncoder.from_config(Blip2VisionConfig(**sizes, image_size=224, patch_size=14, initializer_range=0.02))
    )
    with torch.no_grad():
        encoder.model.embeddings.position_embedding.normal_()
    assert at_resolution(encoder, 224) is encoder
    back = at_resolution(at_resolution(encoder, 448), 224)  # really interpolated, twice
    assert not torch.equal(back.model.embeddings.position_embedding, encoder.model.embeddings.position_embedding)
    for size, tokens in ((504, 1297), (518, 1370)):
        larger = at_resolution(encoder, size)
        assert larger.num_features == tokens and larger.image_size == size and not larger.training
        assert not any(p.requires_grad for p in larger.parameters())
        pixels = torch.randn(1, 3, size, size)
        features = larger(pixels)
        assert features.shape == (1, tokens, 32)
        torch.testing.assert_close(features, encoder(pixels))  # which interpolates at each image
    assert encoder.image_size == 224 and encoder.num_features == 257
    with pytest.raises(ValueError, match="512 pixels are no whole number of patches of 14: take 504 or 518"):
        at_resolution(encoder, 512)


def test_clips_positions_are_interpolated_too():
    from transformers import CLIPVisionConfig, CLIPVisionModel

    from blip2_lab.models.vision_encoder import at_resolution

    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    clip = freeze(ImageEncoder(CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=56, patch_size=14)).eval()))
    larger = at_resolution(clip, 84)
    pixels = torch.randn(1, 3, 84, 84)
    assert larger(pixels).shape == (1, 37, 32) and not any(p.requires_grad for p in larger.parameters())
    torch.testing.assert_close(larger(pixels), clip(pixels))
    assert clip.num_features == 17, "the encoder itself does not change"
    assert at_resolution(clip, 56) is clip


@pytest.mark.parametrize("shape", [(1, 3, 97, 96), (1, 3, 96, 5)])
def test_pixels_beyond_the_last_whole_patch_are_not_dropped_in_silence(micro, shape):
    """The convolution of the patches would pass over them."""
    with pytest.raises(ValueError, match="no whole number of patches of .*make them"):
        micro(torch.zeros(shape))


def test_a_plain_or_foggy_picture_has_the_scale_of_a_normalized_one():
    fog = Image.linear_gradient("L")
    pictures = [Image.new("L", (4, 4), value) for value in range(256)]
    pictures += [fog.point(lambda value: 55 + value // 2), fog.point(lambda value: 123 + value // 4)]
    for pixels in preprocess(pictures, 32)[:, None]:
        check_pixels(pixels)
        check_pixels(pixels.half())
    for scale, low, high in (("0 to 1", 0.1, 0.9), ("-1 to 1", -0.7, 0.9)):
        with pytest.raises(ValueError, match=f"looks like a scale of {scale}"):
            check_pixels(torch.rand(1, 3, 8, 8) * (high - low) + low)


@pytest.mark.parametrize("shape", [(3, 96, 96), (2, 1, 96, 96), (2, 4, 96, 96), (0, 3, 96, 96)])
def test_pixels_of_another_shape_are_refused(micro, shape):
    with pytest.raises(ValueError, match="Pixels have the shape .B, 3, height, width.; these have"):
        micro(torch.randn(shape))
