import pytest
import torch

from blip2_lab.checkpoints.key_maps import LAVIS_STAGE1, from_lavis, rename_keys, reverse, to_lavis
from blip2_lab.models.qformer import QFormerConfig
from blip2_lab.models.stage1 import Stage1Config
from tests.lavis_golden import batch, numbers, weights


def test_sizes_are_inferred_from_the_tensors():
    stage1 = from_lavis(weights(), num_attention_heads=4)
    assert stage1.qformer.config == QFormerConfig(
        vocab_size=200,
        width=64,
        num_layers=4,
        num_heads=4,
        ffn_width=128,
        cross_attention_frequency=2,
        image_width=48,
        num_query_tokens=8,
        max_positions=64,
    )
    assert stage1.config == Stage1Config(embed_width=32, decode_token_id=199)
    assert not stage1.training


def test_to_lavis_inverts_from_lavis():
    back = to_lavis(from_lavis(weights(), num_attention_heads=4))
    assert back.keys() == weights().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in weights().items())


def test_a_whole_checkpoint_with_buffers_and_image_encoder_loads():
    extra = {"Qformer.bert.embeddings.position_ids": torch.arange(64), "visual_encoder.cls_token": torch.zeros(1)}
    checkpoint = {"model": weights() | extra, "epoch": 3}
    losses = from_lavis(checkpoint, num_attention_heads=4).losses(**batch())
    assert losses.total.item() == pytest.approx(numbers()["loss"]["loss"], abs=4e-5)


def test_unknown_keys_are_listed():
    strange = {"text_decoder.weight": torch.zeros(1), "Qformer.bert.pooler.dense.bias": torch.zeros(1)}
    with pytest.raises(ValueError, match="Qformer.bert.pooler.dense.bias, text_decoder.weight"):
        from_lavis(weights() | strange, num_attention_heads=4)


@pytest.mark.parametrize(
    ("missing", "ours"),
    [
        ("itm_head.bias", "itm_head.bias"),
        ("query_tokens", "qformer.query_tokens"),
        ("vision_proj.weight", "vision_projection.weight"),
        ("Qformer.bert.encoder.layer.3.output.dense.bias", "qformer.layers.3.text_ffn.contract.bias"),
    ],
)
def test_missing_keys_are_listed(missing, ours):
    state = {name: tensor for name, tensor in weights().items() if name != missing}
    with pytest.raises(ValueError, match=f"missing.*{ours}"):
        from_lavis(state, num_attention_heads=4)


def test_other_shapes_are_listed():
    with pytest.raises(ValueError, match=r"itm_head.weight \[3, 64\] instead of \[2, 64\]"):
        from_lavis(weights() | {"itm_head.weight": torch.zeros(3, 64)}, num_attention_heads=4)


def test_copies_that_differ_are_refused():
    name = "Qformer.cls.predictions.decoder.weight"
    with pytest.raises(ValueError, match=f"{name} differs"):
        from_lavis(weights() | {name: weights()[name] + 1}, num_attention_heads=4)


def test_heads_must_fit():
    with pytest.raises(ValueError, match="number of attention heads"):
        from_lavis(weights(), num_attention_heads=7)


def test_rename_keys():
    one, two, three = (torch.full((), float(i)) for i in (1, 2, 3))
    table = (("a.{i}.b", "x.{i}.y"), ("c", "z"))
    renamed = rename_keys({"a.11.b.weight": one, "a.0.b.bias": two, "c": three, "skip.me": one}, table, ("skip.",))
    assert renamed == {"x.11.y.weight": one, "x.0.y.bias": two, "z": three}
    assert rename_keys(renamed, reverse(table)).keys() == {"a.11.b.weight", "a.0.b.bias", "c"}
    with pytest.raises(ValueError, match="a.b.weight"):
        rename_keys({"a.b.weight": one}, table)
    with pytest.raises(ValueError, match="aX0Xb"):  # a dot in the table is a dot
        rename_keys({"aX0Xb": one}, table)


def test_the_table_names_each_parameter_once():
    left, right = zip(*LAVIS_STAGE1, strict=True)
    assert len(set(left)) == len(left) and len(set(right)) == len(right)
