"""The bridges' parts against transformers' (same weights, same output), and pooling by hand."""

import pytest
import torch
from torch import nn

from blip2_lab.models.bridges.gated_cross_attention import GatedBlock
from blip2_lab.models.bridges.linear import LinearBridge, LinearConfig, pool_patches
from blip2_lab.models.bridges.resampler import Resampler


def zero_biases(module: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith(".bias") and "layer_norm" not in name:
                parameter.zero_()


def test_the_projector_is_llavas():
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
    from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

    vision = CLIPVisionConfig(hidden_size=24, num_attention_heads=2, num_hidden_layers=1, intermediate_size=32)
    text = LlamaConfig(hidden_size=40, num_attention_heads=2, num_hidden_layers=1, intermediate_size=32)
    theirs = LlavaMultiModalProjector(LlavaConfig(vision_config=vision, text_config=text))
    ours = LinearBridge(LinearConfig(24, 40, hidden_width=40))
    ours.hidden_projection.load_state_dict(theirs.linear_1.state_dict())
    ours.language_projection.load_state_dict(theirs.linear_2.state_dict())
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(ours(x), theirs(ours.image_layer_norm(x)))
    ours.image_layer_norm = nn.Identity()  # LLaVA has none
    ours.image_layer_norm.weight = ours.language_projection.weight
    torch.testing.assert_close(ours(x), theirs(x))


def idefics_config(**options):
    from transformers import IdeficsConfig
    from transformers.models.idefics.configuration_idefics import IdeficsPerceiverConfig, IdeficsVisionConfig

    return IdeficsConfig(
        hidden_size=48,
        num_attention_heads=4,
        intermediate_size=96,
        num_hidden_layers=1,
        vision_config=IdeficsVisionConfig(embed_dim=32),
        perceiver_config=IdeficsPerceiverConfig(),
        attn_implementation="eager",
        **options,
    )


def test_the_resampler_is_idefics():
    from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

    torch.manual_seed(0)
    theirs = IdeficsPerceiverResampler(idefics_config(), 32, 2, 4, 8, 5)
    ours = Resampler(32, 4, num_latents=5, num_layers=2)
    zero_biases(ours)
    with torch.no_grad():
        ours.latents.copy_(theirs.latents.normal_())
    for layer, (attention, mlp) in zip(ours.layers, theirs.blocks, strict=True):
        pairs = [
            (layer.feature_layer_norm, attention.context_layer_norm),
            (layer.latent_layer_norm, attention.latents_layer_norm),
            (layer.cross_attention.query, attention.q_proj),
            (layer.cross_attention.key, attention.k_proj),
            (layer.cross_attention.value, attention.v_proj),
            (layer.cross_attention.output, attention.output_proj),
            (layer.ffn_layer_norm, mlp.ln),
            (layer.expand, mlp.fc),
            (layer.contract, mlp.c_proj),
        ]
        for mine, other in pairs:
            mine.load_state_dict(other.state_dict(), strict=False)
    features = torch.randn(3, 7, 32)
    torch.testing.assert_close(ours(features), theirs(features), rtol=1e-4, atol=1e-5)
    assert ours(torch.randn(3, 90, 32)).shape == (3, 5, 32)


def test_the_gated_block_is_idefics_but_for_its_norms_and_its_network():
    from transformers.models.idefics.modeling_idefics import IdeficsGatedCrossAttentionLayer

    torch.manual_seed(0)
    theirs = IdeficsGatedCrossAttentionLayer(
        idefics_config(alpha_initializer="ones", alpha_type="float", qk_layer_norms=False, dropout=0.0), layer_idx=0
    ).eval()
    ours = GatedBlock(48, 4, 32, 96)
    zero_biases(ours)
    attention = ours.cross_attention
    for name in ("query", "key", "value"):
        getattr(attention, name).load_state_dict(
            getattr(theirs.cross_attn, f"{name[0]}_proj").state_dict(), strict=False
        )
    attention.output.load_state_dict(theirs.cross_attn.o_proj.state_dict(), strict=False)
    theirs.input_layernorm, theirs.post_attention_layernorm = ours.attention_layer_norm, ours.ffn_layer_norm
    theirs.mlp = nn.Sequential(ours.expand, nn.GELU(), ours.contract)
    with torch.no_grad():
        ours.attention_gate.fill_(0.7), theirs.alpha_cross_attn.fill_(0.7)
        ours.ffn_gate.fill_(-0.4), theirs.alpha_dense.fill_(-0.4)
        x, image = torch.randn(2, 6, 48), torch.randn(2, 9, 32)
        mine = ours(x, *attention.keys_values(image))
        other = theirs(x, image_hidden_states=image, cross_attention_gate=torch.ones(2, 6))
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mine, x)


def test_the_size_of_a_block():
    """Width 8,192 with features of 1,664: 161 M, and 537 M for a feed-forward network of four times the width."""
    with torch.device("meta"):
        without, whole = (GatedBlock(8192, 64, 1664, ffn) for ffn in (None, 4 * 8192))
    small, large = (sum(p.numel() for p in block.parameters()) for block in (without, whole))
    assert small / 1e6 == pytest.approx(161.5, abs=0.1) and (large - small) / 1e6 == pytest.approx(537, abs=0.3)


def test_pooling_by_hand():
    grid = torch.arange(16.0).view(1, 16, 1)
    features = torch.cat([torch.full((1, 1, 1), 1000.0), grid], dim=1)  # [CLS] is not averaged
    assert pool_patches(features, 4).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pool_patches(features, 1).item() == 7.5
    assert pool_patches(features, 8).flatten().tolist() == [2, 3, 4, 5, 10, 11, 12, 13]  # 2 rows of 4 columns
    assert torch.equal(pool_patches(features, 16), grid)
