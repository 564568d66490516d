import pytest
import torch

from blip2_lab.models.masks import bidirectional_mask, multimodal_causal_mask, unimodal_mask
from blip2_lab.models.qformer import ImageMemory, PackedRows, QFormer, QFormerConfig, init_from_bert
from blip2_lab.models.stage1 import Stage1Model
from tests.lavis_golden import assert_close, model, tensors

TINY = dict(vocab_size=50, width=16, num_layers=4, num_heads=2, ffn_width=32, image_width=12, num_query_tokens=3)


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def qformer():
    return model().qformer


@pytest.fixture(scope="module")
def image(qformer):
    return qformer.read_image(tensors()["in.image_features"])


@pytest.fixture(scope="module")
def text():
    return tensors()["in.input_ids"], tensors()["in.attention_mask"]


# --- The size


def test_parameters_at_real_size():
    with torch.device("meta"):
        stage1 = Stage1Model(QFormerConfig())
        stage2 = QFormer(QFormerConfig(has_text=False))
    queries, image_layer_norm = 32 * 768, 2 * 1408
    bert = count(stage1.qformer) - queries - image_layer_norm
    assert bert == 185_660_160
    assert bert + count(stage1.lm_head) == 186_282_811  # the closest to the paper's 188 M is what follows
    heads = count(stage1.vision_projection) + count(stage1.text_projection) + count(stage1.itm_head)
    temperature = 1
    assert bert + count(stage1.lm_head) + queries + image_layer_norm + heads + temperature == count(stage1)
    assert count(stage1) == 186_705_470
    assert abs(count(stage1) / 188e6 - 1) < 0.008
    assert count(stage2) - queries - image_layer_norm == 105_137_664


def test_layout():
    config = QFormerConfig(**TINY)
    qformer = QFormer(config)
    assert [layer.cross_attention is not None for layer in qformer.layers] == [True, False, True, False]
    assert qformer.query_tokens.shape == (1, 3, 16)
    assert QFormer(QFormerConfig(**TINY, has_text=False)).layers[0].text_ffn is None
    with pytest.raises(TypeError, match="query_length"):
        QFormerConfig(query_length=32)


def test_initialization():
    torch.manual_seed(0)
    qformer = QFormer(QFormerConfig(**TINY | dict(width=64, num_query_tokens=32)))
    assert abs(qformer.query_tokens.std().item() - 0.02) < 0.002
    assert not torch.equal(qformer.query_tokens[0, 0], qformer.query_tokens[0, 1])
    assert abs(qformer.layers[0].query_ffn.expand.weight.std().item() - 0.02) < 0.002
    assert qformer.layers[0].query_ffn.expand.bias.abs().max() == 0
    assert (qformer.layers[0].query_ffn.layer_norm.weight == 1).all()


# --- LAVIS's numbers


def test_query_pass_and_its_cache_equal_lavis(qformer, image):
    output = qformer(image=image, use_cache=True)
    assert output.text_output is None
    assert_close(output.query_output, tensors()["out.query_last_hidden_state"])
    assert len(output.past) == 4
    for i in (0, 3):
        assert_close(output.past[i][0], tensors()[f"out.query_past_key.{i}"])
        assert_close(output.past[i][1], tensors()[f"out.query_past_value.{i}"])


def test_image_layer_norm_equals_lavis(qformer):
    assert_close(qformer.image_layer_norm(tensors()["in.image_features"]), tensors()["out.image_embeds"])


def test_text_pass_equals_lavis_padded_rows_included(qformer, text):
    ids, mask = text
    output = qformer(queries=False, input_ids=ids, mask=unimodal_mask(0, mask))
    assert output.query_output is None
    assert_close(output.text_output, tensors()["out.text_last_hidden_state"])


def test_joint_pass_equals_lavis(qformer, image, text):
    ids, mask = text
    io = tensors()
    own = torch.arange(6)
    images = image.select(torch.cat([own, io["in.neg_image_index"], own]))
    texts = torch.cat([own, own, io["in.neg_text_index"]])
    output = qformer(image=images, input_ids=ids[texts], mask=bidirectional_mask(8, mask[texts]))
    both = torch.cat([output.query_output, output.text_output], dim=1)
    assert_close(both, io["out.itm_last_hidden_state"])


def itg_cached(qformer, image, ids, mask):
    past = qformer(image=image, use_cache=True).past
    text_mask = multimodal_causal_mask(8, mask)[:, :, 8:]
    return qformer(queries=False, input_ids=ids, mask=text_mask, past=past).text_output


def test_cached_itg_pass_equals_lavis(qformer, image, text):
    ids = tensors()["out.itg_decoder_input_ids"]
    assert_close(itg_cached(qformer, image, ids, text[1]), tensors()["out.itg_last_hidden_state"])


# --- Properties


def test_itg_in_one_pass_equals_itg_with_cached_queries(qformer, image, text):
    ids, mask = text
    joint = qformer(image=image, input_ids=ids, mask=multimodal_causal_mask(8, mask))
    assert_close(joint.query_output, qformer(image=image).query_output)
    assert_close(joint.text_output, itg_cached(qformer, image, ids, mask))


def test_one_pass_under_the_unimodal_mask_equals_two_passes(qformer, image, text):
    ids, mask = text
    joint = qformer(image=image, input_ids=ids, mask=unimodal_mask(8, mask))
    assert_close(joint.query_output, qformer(image=image).query_output)
    assert_close(joint.text_output, qformer(queries=False, input_ids=ids, mask=unimodal_mask(0, mask)).text_output)


def test_future_text_cannot_change_past_outputs(qformer, image, text):
    ids, _ = text
    mask = torch.ones_like(ids)
    changed = ids.clone()
    changed[:, 5:] = torch.randint(9, 190, changed[:, 5:].shape, generator=torch.Generator().manual_seed(0))
    before, after = (itg_cached(qformer, image, x, mask) for x in (ids, changed))
    assert_close(before[:, :5], after[:, :5])
    assert (before[:, 5:] - after[:, 5:]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("mask", "may_change"), [(unimodal_mask, False), (multimodal_causal_mask, False), (bidirectional_mask, True)]
)
def test_text_changes_queries_under_the_bidirectional_mask_only(qformer, image, text, mask, may_change):
    ids, text_mask = text
    before, after = (
        qformer(image=image, input_ids=x, mask=mask(8, text_mask)).query_output for x in (ids, ids.roll(1, dims=0))
    )
    assert ((before - after).abs().max() > 0.1) == may_change


@pytest.mark.parametrize("mask", [unimodal_mask, multimodal_causal_mask, bidirectional_mask])
def test_padding_changes_no_query_output(qformer, image, text, mask):
    ids, text_mask = text
    row, length = 1, int(text_mask[1].sum())
    one = image.select(torch.tensor([row]))
    outputs = []
    for columns, filler in ((length, 0), (12, 0), (12, 77)):
        x, visible = ids[row : row + 1, :columns], text_mask[row : row + 1, :columns]
        output = qformer(image=one, input_ids=x.masked_fill(visible == 0, filler), mask=mask(8, visible))
        outputs.append(torch.cat([output.query_output, output.text_output[:, :length]], dim=1))
    assert_close(outputs[0], outputs[1])
    assert_close(outputs[0], outputs[2])


def test_token_by_token_equals_at_once(qformer, image, text):
    ids, _ = text
    past = qformer(image=image, use_cache=True).past
    pieces = []
    for t in range(ids.shape[1]):
        output = qformer(queries=False, input_ids=ids[:, t : t + 1], past=past, use_cache=True)
        past = output.past
        pieces.append(output.text_output)
    assert_close(torch.cat(pieces, dim=1), itg_cached(qformer, image, ids, torch.ones_like(ids)))


def test_unread_rows_of_the_last_layer_can_be_left_out(qformer, image, text):
    ids, mask = text
    joint = bidirectional_mask(8, mask)
    whole = qformer(image=image, input_ids=ids, mask=joint)
    part = qformer(image=image, input_ids=ids, mask=joint, rows=8)
    assert_close(part.query_output, whole.query_output)
    assert part.text_output.shape[1] == 0
    whole = qformer(queries=False, input_ids=ids, mask=unimodal_mask(0, mask))
    part = qformer(queries=False, input_ids=ids, mask=unimodal_mask(0, mask), rows=1)
    assert_close(part.text_output, whole.text_output[:, :1])


def test_rows_are_queries_then_tokens():
    rectangle = torch.arange(1.0, 11).view(2, 5, 1)  # 2 queries and 3 tokens; the last token of the first is padding
    rows = PackedRows(2, 2, 3, tokens=torch.tensor([0, 1, 3, 4, 5]))
    collected = rows.pack(rectangle)
    assert collected.flatten().tolist() == [1, 2, 6, 7, 3, 4, 8, 9, 10]
    assert rows.queries(collected).flatten().tolist() == [1, 2, 6, 7]
    assert rows.unpack(collected).flatten().tolist() == [1, 2, 3, 4, 0, 6, 7, 8, 9, 10]
    assert PackedRows(2, 2, 3).pack(rectangle).flatten().tolist() == [1, 2, 6, 7, 3, 4, 5, 8, 9, 10]
    assert (rows.first(2).num_queries, rows.first(2).text_length) == (2, 0)
    assert (PackedRows(2, 0, 3).first(1).num_queries, PackedRows(2, 0, 3).first(1).text_length) == (0, 1)


@pytest.mark.parametrize("with_queries", [True, False])
def test_padding_can_be_left_out(qformer, image, text, with_queries):
    ids, mask = text
    seen, handle = [], qformer.layers[0].text_ffn.register_forward_hook(lambda m, inputs, out: seen.append(len(out)))
    inputs = dict(queries=with_queries, image=image if with_queries else None, input_ids=ids)
    inputs["mask"] = bidirectional_mask(8, mask) if with_queries else unimodal_mask(0, mask)
    whole, packed = qformer(**inputs), qformer(**inputs, text_mask=mask.bool())
    handle.remove()
    assert seen == [mask.numel(), int(mask.sum())]
    if with_queries:
        assert_close(packed.query_output, whole.query_output)
    assert_close(packed.text_output, whole.text_output * mask[:, :, None])


def test_several_texts_look_at_one_image_without_a_copy(qformer, image, text):
    ids, mask = text
    few = image.select(torch.tensor([4, 0]))
    joint = bidirectional_mask(8, mask)
    shared = qformer(image=few, input_ids=ids, mask=joint).query_output
    copied = qformer(image=few.select(torch.tensor([0, 1] * 3)), input_ids=ids, mask=joint).query_output
    assert_close(shared, copied)
    with pytest.raises(ValueError, match="2 images and 5 texts"):
        qformer(image=few, input_ids=ids[:5])


def test_no_gradient_runs_back_over_the_patches(monkeypatch):
    """A frozen encoder's features: their LayerNorm learns, and yet no row of [B, N, Dv] is in the graph."""
    qformer, reached = QFormer(QFormerConfig(**TINY)), []
    linear = torch.nn.functional.linear

    def watching(x, weight, bias=None):
        if x.shape[-1] == 12 and x.ndim == 3:
            reached.append(x.requires_grad)
        return linear(x, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", watching)
    qformer(image=qformer.read_image(torch.randn(2, 5, 12))).query_output.sin().sum().backward()
    assert reached == [False] * 4  # keys and values of two layers
    assert qformer.image_layer_norm.weight.grad.abs().sum() > 0 and qformer.image_layer_norm.bias.grad.abs().sum() > 0


def test_patches_have_no_order_for_the_queries(qformer):
    features = tensors()["in.image_features"]
    one, other = (qformer(image=qformer.read_image(x)).query_output for x in (features, features.flip(1)))
    assert_close(one, other)


def test_memory_is_selected_and_joined_without_reading_again(qformer, image):
    features = tensors()["in.image_features"]
    index = torch.tensor([4, 0, 4])
    selected, read = image.select(index), qformer.read_image(features[index])
    joined = ImageMemory.cat([image.select(index[:1]), image.select(index[1:])])
    assert selected.batch_size == joined.batch_size == 3
    for layer in range(4):
        if read.keys_values[layer] is None:
            assert selected.keys_values[layer] is joined.keys_values[layer] is None
            continue
        for a, b, c in zip(*(m.keys_values[layer] for m in (selected, joined, read)), strict=True):
            assert_close(a, c)
            assert_close(b, c)


def test_half_precision_features_are_cast_in_one_place(qformer):
    features = tensors()["in.image_features"].half()
    output = qformer(image=qformer.read_image(features)).query_output
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, tensors()["out.query_last_hidden_state"], atol=2e-2, rtol=0)


# --- Mistakes


def test_wrong_arguments_of_the_qformer_raise_one_sentence():
    qformer = QFormer(QFormerConfig(**TINY, max_positions=4))
    ids = torch.ones(1, 5, dtype=torch.long)
    with pytest.raises(ValueError, match="Queries need an image"):
        qformer(input_ids=ids)
    with pytest.raises(ValueError, match="queries, input_ids or both"):
        qformer(queries=False)
    with pytest.raises(ValueError, match="features are 7 wide.*width 12"):
        qformer.read_image(torch.zeros(1, 2, 7))
    with pytest.raises(ValueError, match="5 tokens.*4 positions"):
        qformer(queries=False, input_ids=ids)
    with pytest.raises(ValueError, match="no text parts"):
        QFormer(QFormerConfig(**TINY, has_text=False))(queries=False, input_ids=ids)


# --- BERT


@pytest.fixture(scope="module")
def bert():
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=49,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=20,
    )
    return BertForMaskedLM(config).eval()


def test_bert_initialization_makes_the_text_side_that_bert(bert):
    torch.manual_seed(1)
    qformer = QFormer(QFormerConfig(**TINY, max_positions=20)).eval()
    cross_before = qformer.layers[0].cross_attention.key.weight.clone()
    init_from_bert(qformer, bert.state_dict())
    ids = torch.randint(0, 49, (2, 7))
    with torch.no_grad():
        types = bert.bert.embeddings.token_type_embeddings.weight
        types.zero_()  # the Q-Former has no token types
        expected = bert.bert(input_ids=ids).last_hidden_state
        torch.testing.assert_close(qformer(queries=False, input_ids=ids).text_output, expected, atol=1e-5, rtol=0)
    for layer in qformer.layers:
        for ours, theirs in zip(layer.query_ffn.parameters(), layer.text_ffn.parameters(), strict=True):
            assert torch.equal(ours, theirs) and ours is not theirs
    assert torch.equal(qformer.layers[0].cross_attention.key.weight, cross_before)


def test_bert_initialization_leaves_new_words_and_new_text_alone(bert):
    torch.manual_seed(1)
    qformer = QFormer(QFormerConfig(**TINY, max_positions=20))
    decode = qformer.word_embeddings.weight[49].clone()
    init_from_bert(qformer, bert.state_dict())
    assert torch.equal(qformer.word_embeddings.weight[:49], bert.bert.embeddings.word_embeddings.weight)
    assert torch.equal(qformer.word_embeddings.weight[49], decode)
    stage2 = QFormer(QFormerConfig(**TINY, has_text=False))
    init_from_bert(stage2, bert.bert.state_dict())  # the bare BertModel's names will do
    assert torch.equal(stage2.layers[3].query_ffn.expand.weight, qformer.layers[3].query_ffn.expand.weight)


def test_bert_initialization_of_another_size_is_refused(bert):
    with pytest.raises(ValueError, match="encoder.layer.4"):
        init_from_bert(QFormer(QFormerConfig(**TINY | dict(num_layers=5), max_positions=20)), bert.state_dict())
    with pytest.raises(ValueError, match="shape"):
        init_from_bert(QFormer(QFormerConfig(**TINY | dict(width=32), max_positions=20)), bert.state_dict())
    with pytest.raises(ValueError, match="shape"):
        init_from_bert(QFormer(QFormerConfig(**TINY | dict(vocab_size=40), max_positions=20)), bert.state_dict())
