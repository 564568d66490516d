import json
import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from blip2_lab.checkpoints.key_maps import from_lavis
from blip2_lab.checkpoints.load import read_stage1, save_stage1
from blip2_lab.common import distributed
from blip2_lab.models import losses as losses_module
from blip2_lab.models import stage1 as stage1_module
from blip2_lab.models.attention import MultiHeadAttention
from blip2_lab.models.losses import (
    Stage1Losses,
    itc_loss,
    itc_similarity,
    itg_loss,
    itm_loss,
    negative_weights,
    sample_negatives,
)
from blip2_lab.models.masks import IGNORE_INDEX, bidirectional_mask
from blip2_lab.models.qformer import QFormerConfig
from blip2_lab.models.stage1 import Stage1Config, Stage1Model, clean_caption, gather_across_ranks, trim
from blip2_lab.teaching.plain_stage1 import plain_losses
from tests.lavis_golden import assert_close, assert_norms, batch, gradients, model, numbers, tensors, weights
from tests.tiny import build_tiny_model


@pytest.fixture(scope="module")
def lavis():
    return model()


@pytest.fixture(scope="module")
def tokenizer():
    """BERT's tokenizer with the toy vocabulary of the golden numbers: word "w{i}" is 9 + i, [DEC] 199."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = {0: "[PAD]", 5: "[UNK]", 6: "[CLS]", 7: "[SEP]", 8: "[MASK]", 199: "[DEC]"}
    words = {special.get(i, f"w{i - 9}" if i >= 9 else f"[unused{i}]"): i for i in range(200)}
    tokens = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 6), ("[SEP]", 7)])
    names = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", bos_token="[DEC]")
    return PreTrainedTokenizerFast(tokenizer_object=tokens, **names)


def tiny(**changes) -> Stage1Model:
    sizes = dict(vocab_size=50, width=16, num_layers=2, num_heads=2, ffn_width=32, image_width=12, num_query_tokens=3)
    torch.manual_seed(0)
    qformer = QFormerConfig(**sizes, max_positions=40, dropout=0.0)
    return Stage1Model(qformer, Stage1Config(embed_width=8, sep_token_id=3, decode_token_id=49, **changes))


# --- LAVIS's numbers


def test_losses_equal_lavis(lavis):
    losses = lavis.losses(**batch())
    assert isinstance(losses, Stage1Losses)
    expected = numbers()["loss"]
    for loss, name in ((losses.itc, "loss_itc"), (losses.itm, "loss_itm"), (losses.itg, "loss_lm")):
        assert loss.item() == pytest.approx(expected[name], abs=2e-5)
    assert losses.total.item() == pytest.approx(expected["loss"], abs=4e-5)


def test_embeddings_and_similarities_equal_lavis(lavis):
    io = tensors()
    image_embeds = lavis.embed_image(io["in.image_features"])
    text_embeds = lavis.embed_text(io["in.input_ids"], io["in.attention_mask"])
    assert_close(image_embeds, io["out.image_feats"])
    assert_close(text_embeds, io["out.text_feat"])
    similarity = itc_similarity(image_embeds, text_embeds) / lavis.temperature
    assert_close(similarity, io["out.sim_i2t"])
    assert_close(similarity.T, io["out.sim_t2i"])


def test_itc_loss_equals_lavis_in_each_direction():
    io = tensors()
    positives = io["out.itc_targets"][:, None] == torch.arange(6)
    i2t, t2i = io["out.sim_i2t"], io["out.sim_t2i"]
    assert itc_loss(i2t, i2t, positives).item() == pytest.approx(numbers()["loss_i2t"], abs=2e-5)
    assert itc_loss(t2i, t2i, positives).item() == pytest.approx(numbers()["loss_t2i"], abs=2e-5)
    assert itc_loss(i2t, t2i, positives).item() == pytest.approx(numbers()["loss"]["loss_itc"], abs=2e-5)


def test_negative_weights_equal_lavis():
    io = tensors()
    for image_id, prefix in ((torch.arange(6), ""), (io["imgid.in.image_id"], "imgid.")):
        positives = image_id[:, None] == image_id
        assert_close(negative_weights(io["out.sim_t2i"], positives), io[f"{prefix}out.neg_weights_t2i"])
        assert_close(negative_weights(io["out.sim_i2t"], positives), io[f"{prefix}out.neg_weights_i2t"])


def test_itm_logits_equal_lavis(lavis):
    io, own = tensors(), torch.arange(6)
    memory = lavis.qformer.read_image(io["in.image_features"])
    images = memory.select(torch.cat([own, io["in.neg_image_index"], own]))
    texts = torch.cat([own, own, io["in.neg_text_index"]])
    ids, mask = io["in.input_ids"][texts], io["in.attention_mask"][texts]
    per_query = lavis.itm_head(
        lavis.qformer(image=images, input_ids=ids, mask=bidirectional_mask(8, mask)).query_output
    )
    assert_close(per_query, io["out.itm_head_per_query"])
    logits = lavis.itm_logits(images, ids, mask)
    assert_close(logits, io["out.itm_logits"])
    assert itm_loss(logits, torch.ones(6, dtype=torch.bool)).item() == pytest.approx(
        F.cross_entropy(logits, io["out.itm_labels"]).item()
    )


def test_itg_logits_and_losses_equal_lavis(lavis):
    io = tensors()
    logits = lavis.itg_logits(io["out.itg_last_hidden_state"])
    assert_close(logits, io["out.itg_logits"])
    labels = io["out.itg_shifted_labels"]
    assert itg_loss(logits[:, :-1], labels).item() == pytest.approx(numbers()["loss"]["loss_lm"], abs=2e-5)
    per_token = itg_loss(logits[:, :-1], labels, reduction="none")
    torch.testing.assert_close(per_token.view(6, 11).sum(1), io["out.itg_loss_per_sample_sum"], atol=1e-4, rtol=0)


def test_gradients_equal_lavis_without_gradient_through_the_gather():
    lavis = model(gather_with_grad=False)
    losses = lavis.losses(**batch())
    parts = {"loss_itc": losses.itc, "loss_itm": losses.itm, "loss_lm": losses.itg}
    for name, part in parts.items():
        lavis.zero_grad()
        part.backward(retain_graph=True)
        assert_norms(gradients(lavis), numbers()[f"grad_norms_{name}"])
        if name == "loss_itc":
            compare_gradients(lavis, "grad.itc.", 4)
    lavis.zero_grad()
    losses.total.backward()
    assert_norms(gradients(lavis), numbers()["grad_norms_total"])
    compare_gradients(lavis, "grad.total.", 13)


def compare_gradients(lavis, prefix, how_many):
    grads = gradients(lavis)
    names = [name.removeprefix(prefix) for name in tensors() if name.startswith(prefix)]
    assert len(names) == how_many
    for name in names:
        torch.testing.assert_close(grads[name], tensors()[prefix + name], atol=2e-5, rtol=1e-4)


def test_gradients_equal_the_variant_with_gradient_through_the_gather():
    lavis = model(gather_with_grad=True)
    losses = lavis.losses(**batch())
    losses.itc.backward(retain_graph=True)
    variant = numbers()["variant_gather_with_grad"]
    assert_norms(gradients(lavis), variant["grad_norms_loss_itc"])
    lavis.zero_grad()
    losses.total.backward()
    assert_norms(gradients(lavis), variant["grad_norms_total"])


def test_images_with_several_captions_equal_lavis(lavis):
    losses = lavis.losses(**batch(), image_id=tensors()["imgid.in.image_id"])
    expected = numbers()["imgid_loss"]
    assert losses.itc.item() == pytest.approx(expected["loss_itc"], abs=2e-5)
    assert losses.total.item() == pytest.approx(expected["loss"], abs=4e-5)


@pytest.mark.parametrize(("num_beams", "golden"), [(1, "gen.greedy_ids"), (3, "gen.beam3_ids")])
def test_generated_ids_equal_lavis(lavis, num_beams, golden):
    ids = lavis.generate_ids(tensors()["in.image_features"], num_beams=num_beams, max_length=10, min_length=3)
    assert torch.equal(ids, tensors()[golden])


# --- The image is read once


def test_plain_losses_equal_lavis():
    """`plain_losses` is the reference of the tests below and of the benchmark."""
    lavis = model()
    losses, expected = plain_losses(lavis, **batch()), numbers()["loss"]
    for loss, name in ((losses.itc, "loss_itc"), (losses.itm, "loss_itm"), (losses.itg, "loss_lm")):
        assert loss.item() == pytest.approx(expected[name], abs=2e-5)
    losses.total.backward()
    assert_norms(gradients(lavis), numbers()["variant_gather_with_grad"]["grad_norms_total"])


def test_shared_passes_have_the_losses_and_gradients_of_plain_losses():
    data = batch()
    data["input_ids"] = F.pad(data["input_ids"], (0, 5))  # columns that are padding everywhere
    data["attention_mask"] = F.pad(data["attention_mask"], (0, 5))
    shared, plain = model(), model()
    ours, expected = shared.losses(**data), plain_losses(plain, **data)
    for name in ("itc", "itm", "itg"):
        torch.testing.assert_close(getattr(ours, name), getattr(expected, name), atol=1e-5, rtol=0)
    ours.total.backward()
    expected.total.backward()
    assert_same_gradients(shared, plain)


def assert_same_gradients(one, other):
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_plain_losses_draw_the_same_negatives():
    data = batch()
    del data["negatives"]
    ours, plain = (
        losses(**data, generator=torch.Generator().manual_seed(3)).itm.item()
        for losses in (model().losses, partial(plain_losses, model()))
    )
    assert ours == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("passes", [2, 4, 6])  # of 6 pairs: even, uneven, one by one
def test_losses_do_not_depend_on_the_number_of_passes(passes):
    whole, pieces, data = model(), model(), batch()
    del data["negatives"]
    results = []
    for stage1, options in ((whole, {}), (pieces, {"passes": passes})):
        losses = stage1.losses(**data, generator=torch.Generator().manual_seed(0), **options)
        losses.total.backward()
        results.append([losses.itc.item(), losses.itm.item(), losses.itg.item()])
    assert results[0] == pytest.approx(results[1], abs=1e-5)
    assert_same_gradients(pieces, whole)
    with pytest.raises(ValueError, match="6 pairs cannot be computed in 7"):
        whole.losses(**data, passes=7)


def test_more_passes_keep_fewer_activations(monkeypatch):
    def kept(passes):
        sizes, data = {}, batch()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: sizes.update({x.untyped_storage().data_ptr(): x.numel()}) or x, lambda x: x
        ):
            total = model().losses(**data, passes=passes).total
        return sum(sizes.values()), total

    assert kept(6)[0] < 0.5 * kept(1)[0]


def test_recomputation_repeats_the_dropout_mask():
    """A piece is recomputed in the backward pass with the same dropout mask; another mask would be another loss."""
    stage1, data = tiny(), dict(image_features=torch.randn(4, 5, 12), input_ids=torch.randint(4, 40, (4, 6)))
    for module in stage1.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    data["negatives"] = torch.tensor([1, 2, 3, 0]), torch.tensor([2, 3, 0, 1])
    direction = {name: torch.randn_like(p) for name, p in stage1.named_parameters()}

    def total():
        torch.manual_seed(5)
        return stage1.losses(**data, passes=2).total

    total().backward()
    slope = sum((p.grad * direction[name]).sum() for name, p in stage1.named_parameters()).item()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for name, p in stage1.named_parameters():
                p.add_(direction[name], alpha=sign * 1e-4 * (1 if sign == 1 else 2))
        values.append(total().item())
    assert (values[0] - values[1]) / 2e-4 == pytest.approx(slope, rel=0.02)


def test_each_image_is_read_once(monkeypatch):
    lavis, rows = model(), []
    crosses = [layer.cross_attention for layer in lavis.qformer.layers if layer.cross_attention is not None]
    keys_values = MultiHeadAttention.keys_values

    def counting(self, memory, *folded):
        if any(self is cross for cross in crosses):
            rows.append(len(memory))
        return keys_values(self, memory, *folded)

    monkeypatch.setattr(MultiHeadAttention, "keys_values", counting)
    lavis.losses(**batch())
    assert rows == [6, 6]  # two layers cross-attend; plain: 12 and 30 images each more


def test_only_targets_reach_the_vocabulary(monkeypatch):
    lavis, seen = model(), []
    lavis.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    lavis.losses(**batch())
    targets = int((tensors()["out.itg_shifted_labels"] != IGNORE_INDEX).sum())
    assert seen == [(targets, 200)]


def test_padding_of_the_batch_changes_nothing(lavis):
    data = batch()
    wide = data | {key: F.pad(data[key], (0, 9)) for key in ("input_ids", "attention_mask")}
    one, other = lavis.losses(**data), lavis.losses(**wide)
    for name in ("itc", "itm", "itg"):
        assert_close(getattr(one, name), getattr(other, name))
    without_mask = data | {"attention_mask": None}
    assert_close(lavis.losses(**without_mask).total, one.total)


# --- Toys


def test_itc_takes_the_best_query():
    image_embeds = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]])
    text_embeds = torch.tensor([[0.0, 1.0], [0.6, 0.8]])
    torch.testing.assert_close(itc_similarity(image_embeds, text_embeds), torch.tensor([[1.0, 0.8], [0.0, 0.6]]))


def test_itc_loss_by_hand():
    positives = torch.eye(2, dtype=torch.bool)
    zeros = torch.zeros(2, 2)
    assert itc_loss(zeros, zeros, positives).item() == pytest.approx(0.693147, abs=1e-5)  # log 2: no opinion
    certain = 100 * torch.eye(2)
    assert itc_loss(certain, certain, positives, label_smoothing=0.0).item() == pytest.approx(0.0)
    assert itc_loss(certain, certain, positives).item() == pytest.approx(5.0)  # 0.1 / 2 of the mass lies 100 away
    assert itc_loss(certain, zeros, positives, label_smoothing=0.0).item() == pytest.approx(0.693147 / 2, abs=1e-5)


def test_captions_of_one_image_share_the_target():
    positives = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    sim = torch.tensor([[5.0, 5.0, -95.0], [5.0, 5.0, -95.0], [-95.0, -95.0, 5.0]])
    assert itc_loss(sim, sim, positives, label_smoothing=0.0).item() == pytest.approx(2 / 3 * 0.693147, abs=1e-5)


def test_negatives_are_never_positives_and_prefer_the_similar():
    similarity = torch.tensor([[9.0, 2.0, 0.0, 9.0]]).expand(3000, 4)
    positives = torch.tensor([[True, False, False, True]]).expand(3000, 4)
    drawn = sample_negatives(similarity, positives, torch.Generator().manual_seed(0)).bincount(minlength=4)
    assert drawn[0] == drawn[3] == 0
    expected = torch.tensor([2.0, 0.0]).softmax(0)[0].item()  # 0.88
    assert drawn[1].item() / 3000 == pytest.approx(expected, abs=0.02)


def test_sampling_leaves_its_input_and_the_graph_alone():
    similarity = torch.zeros(2, 2, requires_grad=True)
    weights = negative_weights(similarity, torch.eye(2, dtype=torch.bool))
    assert not weights.requires_grad
    assert similarity.abs().max() == 0


def test_negatives_do_not_depend_on_the_number_of_ranks(monkeypatch):
    similarity, positives = torch.randn(6, 6), torch.eye(6, dtype=torch.bool)
    together = sample_negatives(similarity, positives, torch.Generator().manual_seed(0))
    apart = []
    for rank in range(3):
        monkeypatch.setattr(losses_module, "rank_and_world", lambda rank=rank: (rank, 3))
        own = slice(2 * rank, 2 * rank + 2)
        apart.append(sample_negatives(similarity[own], positives[own], torch.Generator().manual_seed(0)))
    assert torch.equal(torch.cat(apart), together)


def test_all_rows_at_once_draw_what_row_by_row_draws():
    """LAVIS samples in a Python loop: first all images, then all texts."""
    weights = torch.rand(6, 6, generator=torch.Generator().manual_seed(1))
    nothing = torch.zeros(6, 6, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    ours = [sample_negatives(weights.log(), nothing, generator), sample_negatives(weights.T.log(), nothing, generator)]
    generator = torch.Generator().manual_seed(0)
    loop = [
        torch.stack([torch.multinomial(row, 1, generator=generator)[0] for row in negative_weights(w.log(), nothing)])
        for w in (weights, weights.T)
    ]
    assert torch.equal(torch.stack(ours), torch.stack(loop))


def test_negatives_are_drawn_images_first(lavis, monkeypatch):
    data = batch()
    del data["negatives"]
    drawn = []

    def record(similarity, positives, generator):
        drawn.append(similarity)
        return sample_negatives(similarity, positives, generator)

    monkeypatch.setattr(stage1_module, "sample_negatives", record)
    first = lavis.losses(**data, generator=torch.Generator().manual_seed(0))
    assert_close(drawn[0], tensors()["out.sim_t2i"])
    assert_close(drawn[1], tensors()["out.sim_i2t"])
    assert first.itm == lavis.losses(**data, generator=torch.Generator().manual_seed(0)).itm
    others = {lavis.losses(**data, generator=torch.Generator().manual_seed(seed)).itm.item() for seed in range(8)}
    assert len(others) > 1


def test_itm_averages_the_logits_over_the_queries():
    stage1 = tiny()
    memory = stage1.qformer.read_image(torch.randn(2, 5, 12))
    ids = torch.randint(4, 40, (2, 6))
    mask = torch.ones_like(ids)
    joint = stage1.qformer(image=memory, input_ids=ids, mask=bidirectional_mask(3, mask)).query_output
    expected = torch.stack([stage1.itm_head(joint[:, query]) for query in range(3)]).mean(0)
    torch.testing.assert_close(stage1.itm_logits(memory, ids, mask), expected)


def test_itm_loss_by_hand():
    logits = torch.tensor([[0.0, 0.0], [20.0, 0.0], [20.0, 0.0]])  # undecided about the match, sure of the rest
    assert itm_loss(logits, torch.tensor([True])).item() == pytest.approx(0.693147 / 3, abs=1e-5)
    assert itm_loss(logits, torch.tensor([False])).item() == pytest.approx(0.693147, abs=1e-5)


def test_itg_ignores_padding():
    logits = torch.zeros(1, 3, 10)
    labels = torch.tensor([[1, 2, IGNORE_INDEX]])
    logits[0, 2, 0] = 1000.0
    assert itg_loss(logits, labels).item() == pytest.approx(2.302585, abs=1e-5)


def test_a_batch_of_one_has_itc_itm_and_itg():
    """LAVIS fails here: it squeezes the batch dimension away."""
    data = batch(slice(0, 1))
    del data["negatives"]
    stage1 = model()
    losses = stage1.losses(**data)
    losses.total.backward()
    assert losses.itc.item() == pytest.approx(0.0)  # nothing to confuse it with
    memory = stage1.qformer.read_image(data["image_features"])
    positive = F.cross_entropy(stage1.itm_logits(memory, data["input_ids"], data["attention_mask"]), torch.tensor([1]))
    assert losses.itm.item() == pytest.approx(positive.item(), abs=1e-5)  # only the true pair counts
    assert all(p.grad is None or p.grad.isfinite().all() for p in stage1.parameters())


def test_label_smoothing_is_an_option():
    data = batch()
    smooth, sharp = model(), model(label_smoothing=0.0)
    itc, itg = smooth.losses(**data).itc, smooth.losses(**data).itg
    without = sharp.losses(**data)
    assert without.itm == smooth.losses(**data).itm
    assert abs(itc - without.itc) > 1e-3 and abs(itg - without.itg) > 1e-3


def test_every_parameter_learns():
    stage1 = tiny()
    ids = torch.randint(4, 40, (4, 6))
    stage1.losses(image_features=torch.randn(4, 5, 12), input_ids=ids).total.backward()
    assert [name for name, p in stage1.named_parameters() if p.grad is None] == []
    assert stage1.temperature.item() == pytest.approx(0.07)


def test_the_gather_is_the_identity_without_a_process_group():
    x = torch.ones(2, 3, requires_grad=True)
    assert gather_across_ranks(x) is x
    assert torch.equal(gather_across_ranks(x, with_grad=False), x)
    assert not gather_across_ranks(x, with_grad=False).requires_grad


def test_gather_puts_ranks_one_after_the_other(monkeypatch):
    def all_gather(parts, x):
        for rank, part in enumerate(parts):
            part.copy_(x + 10 * rank)

    monkeypatch.setattr(distributed, "rank_and_world", lambda: (0, 3))
    monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(distributed.dist, "all_gather", all_gather)
    gathered = gather_across_ranks(torch.tensor([[1.0], [2.0]]))
    assert gathered.flatten().tolist() == [1, 2, 11, 12, 21, 22]


def test_half_precision_stays_close():
    stage1, data = model(), batch()
    with torch.autocast("cpu", torch.bfloat16):
        losses = stage1.losses(**data)
    losses.total.backward()
    assert losses.itc.dtype == losses.itm.dtype == losses.itg.dtype == torch.float32
    assert losses.total.item() == pytest.approx(numbers()["loss"]["loss"], rel=0.03)


def test_a_few_steps_learn_a_tiny_batch():
    stage1 = tiny()
    optimizer = torch.optim.AdamW(stage1.parameters(), lr=3e-3)
    features, ids = torch.randn(8, 5, 12), torch.randint(4, 40, (8, 5))
    generator = torch.Generator().manual_seed(0)
    totals = []
    for _ in range(25):
        losses = stage1.losses(image_features=features, input_ids=ids, generator=generator)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        totals.append(losses.total.item())
    assert totals[-1] < 0.8 * totals[0]


# --- Text


def test_clean_caption():
    assert clean_caption('  A "Red" boat:  sails (fast)!\n') == "a red boat sails fast"
    assert clean_caption("it's a well-known cat, isn't it?") == "it's a well-known cat, isn't it?"
    assert clean_caption(" ".join(["word"] * 60)).count("word") == 50


def test_tokenize_equals_lavis(lavis, tokenizer):
    lavis = model(max_text_tokens=12)
    lavis.tokenizer = tokenizer
    ids, mask = lavis.tokenize([text.upper() + "." for text in numbers()["texts"]])
    assert torch.equal(ids, tensors()["in.input_ids"])
    assert torch.equal(mask, tensors()["in.attention_mask"])
    losses = lavis.losses(
        image_features=tensors()["in.image_features"], captions=numbers()["texts"], negatives=batch()["negatives"]
    )
    assert losses.total.item() == pytest.approx(numbers()["loss"]["loss"], abs=4e-5)


def test_trim():
    ids = torch.tensor([[6, 9, 7, 0, 0], [6, 9, 9, 7, 0]])
    trimmed, mask = trim(ids, ids != 0)
    assert torch.equal(trimmed, ids[:, :4]) and mask.dtype == torch.bool
    assert trim(ids, torch.ones_like(ids))[0].shape == (2, 5)


def test_generated_text(tokenizer):
    lavis = model()
    lavis.tokenizer = tokenizer
    texts = lavis.generate(image_features=tensors()["in.image_features"], num_beams=1, max_length=10, min_length=3)
    assert len(texts) == 6
    expected = [f"w{i - 9}" for i in tensors()["gen.greedy_ids"][0].tolist() if i >= 9 and i != 199]
    assert texts[0].split() == expected


# --- Pixels, keeping, mistakes


class Flatten(torch.nn.Module):
    """An image encoder for tests: patches of a 2 x 2 grid, [B, 3, 4, 4] -> [B, 4, 12]."""

    width, image_size = 12, 4

    def forward(self, pixels):
        return pixels.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


class Encoder(Flatten):
    """The same, with weights, to test that they stay frozen."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(12, 12)

    def forward(self, pixels):
        return self.linear(super().forward(pixels))


def test_pixels_pass_through_the_image_encoder():
    stage1 = tiny()
    stage1.image_encoder = Flatten()
    pixels, ids = torch.randn(3, 3, 4, 4), torch.randint(4, 40, (3, 6))
    negatives = torch.tensor([1, 2, 0]), torch.tensor([2, 0, 1])
    by_pixels = stage1.losses(pixels=pixels, input_ids=ids, negatives=negatives)
    by_features = stage1.losses(image_features=Flatten()(pixels), input_ids=ids, negatives=negatives)
    assert by_pixels.total == by_features.total
    with pytest.raises(ValueError, match="not finite"):
        stage1.losses(pixels=pixels * torch.nan, input_ids=ids, negatives=negatives)


def test_saving_and_loading_keeps_every_tensor(tmp_path, tokenizer):
    lavis = model()
    lavis.tokenizer = tokenizer
    lavis.image_encoder = torch.nn.Linear(2, 2)
    save_stage1(lavis, tmp_path / "stage1")
    loaded = read_stage1(tmp_path / "stage1")
    assert loaded.qformer.config == lavis.qformer.config and loaded.config == lavis.config
    assert loaded.image_encoder is None and not loaded.training
    assert torch.equal(loaded.losses(**batch()).total, lavis.losses(**batch()).total)
    assert torch.equal(loaded.tokenize(["w3 w17"])[0], lavis.tokenize(["w3 w17"])[0])


def test_an_unknown_configuration_key_is_refused(tmp_path):
    stage1 = tiny()
    save_stage1(stage1, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["stage1"]["momentum"] = 0.9
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="config.json does not describe a Stage1Model: .*momentum"):
        read_stage1(tmp_path)
    with pytest.raises(ValueError, match="no config.json"):
        read_stage1(tmp_path / "nowhere")


def test_a_damaged_folder_raises_one_sentence(tmp_path):
    stage1 = tiny()
    for name, damage, message in (
        ("config.json", lambda file: file.write_text("{"), "config.json does not describe a Stage1Model"),
        ("model.safetensors", lambda file: file.write_bytes(file.read_bytes()[:-100]), "is cut off or damaged"),
        ("model.safetensors", lambda file: file.unlink(), "holds no weights"),
    ):
        save_stage1(stage1, tmp_path)
        damage(tmp_path / name)
        with pytest.raises(ValueError, match=message) as caught:
            read_stage1(tmp_path)
        assert "\n" not in str(caught.value)
    save_stage1(stage1, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["itm_head.weights"] = state.pop("itm_head.weight")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="missing: itm_head.weight; unknown: itm_head.weights"):
        read_stage1(tmp_path)


def test_an_image_encoder_is_frozen_whichever_way_it_is_attached(tmp_path):
    """A training step from pixels does not change its bytes, and `train()` leaves it in eval mode."""
    save_stage1(tiny(), tmp_path)
    encoders = [Encoder() for _ in range(3)]
    attached = tiny()
    attached.attach_image_encoder(encoders[1])
    loaded = read_stage1(tmp_path, image_encoder=encoders[2])
    models = Stage1Model(attached.qformer.config, attached.config, image_encoder=encoders[0]), attached, loaded
    for stage1, encoder in zip(models, encoders, strict=True):
        before = [x.clone() for x in encoder.parameters()]
        stage1.train()
        assert not encoder.training and not any(x.requires_grad for x in encoder.parameters())
        optimizer = torch.optim.AdamW(stage1.parameters(), lr=0.1, weight_decay=0.1)
        ids = torch.randint(4, 40, (3, 6))
        stage1.losses(pixels=torch.randn(3, 3, 4, 4), input_ids=ids).total.backward()
        optimizer.step()
        assert all(torch.equal(x, y) for x, y in zip(encoder.parameters(), before, strict=True))
    lavis = from_lavis(weights(), num_attention_heads=4, image_encoder=Encoder())
    assert not any(x.requires_grad for x in lavis.image_encoder.parameters())


def test_bert_initializes_the_language_modeling_head_too():
    from transformers import BertConfig, BertForMaskedLM

    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    bert = BertForMaskedLM(BertConfig(vocab_size=49, max_position_embeddings=40, **sizes)).eval()
    with torch.no_grad():
        bert.bert.embeddings.token_type_embeddings.weight.zero_()
        torch.nn.init.normal_(bert.cls.predictions.bias)
    stage1 = tiny().eval()
    stage1.init_from_bert(bert.state_dict())
    ids = torch.randint(0, 49, (2, 6))
    with torch.no_grad():
        logits = stage1.itg_logits(stage1.qformer(queries=False, input_ids=ids).text_output)
        torch.testing.assert_close(logits[..., :49], bert(input_ids=ids).logits, atol=1e-5, rtol=0)
        assert torch.isfinite(logits[..., 49]).all()


def test_wrong_arguments_of_stage1_raise_one_sentence():
    stage1, features, ids = tiny(), torch.randn(2, 5, 12), torch.ones(2, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="image_features or pixels"):
        stage1.losses(input_ids=ids)
    with pytest.raises(ValueError, match="captions or input_ids"):
        stage1.losses(image_features=features)
    with pytest.raises(ValueError, match="2 images and 1 texts"):
        stage1.losses(image_features=features, input_ids=ids[:1])
    whole = dict(image_features=torch.randn(2, 4, 12), input_ids=ids, attention_mask=torch.ones(2, 4))
    wrong = {
        r"\[B, N, Dv\]": dict(image_features=torch.randn(2, 12)),
        r"these are .*\[2, 3\]": dict(attention_mask=torch.ones(2, 3)),
        "padding on the right": dict(attention_mask=torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])),
        "at least two tokens": dict(input_ids=ids[:, :1], attention_mask=torch.ones(2, 1)),
        "CLS": dict(attention_mask=torch.zeros(2, 4)),
        r"numbers from 0 to 1; one is \[1\]": dict(negatives=(torch.tensor([1]), torch.tensor([1, 0]))),
        r"numbers from 0 to 1; one is \[1, 2\]": dict(negatives=(torch.tensor([1, 0]), torch.tensor([1, 2]))),
        r"one is \[-1, 0\]": dict(negatives=(torch.tensor([-1, 0]), torch.tensor([1, 0]))),
    }
    for given in (["a", "b"], torch.rand(2), torch.tensor([1]), torch.tensor([[1], [2]])):
        wrong[rf"image_id is long\[2\].*{type(given).__name__ if isinstance(given, list) else given.dtype}"] = dict(
            image_id=given
        )
    for message, change in wrong.items():
        with pytest.raises(ValueError, match=message):
            stage1.losses(**whole | change)
    with pytest.raises(ValueError, match="no tokenizer"):
        stage1.losses(image_features=features, captions=["a", "b"])
    with pytest.raises(ValueError, match="no image encoder"):
        stage1.losses(pixels=torch.zeros(2, 3, 4, 4), input_ids=ids)
    with pytest.raises(ValueError, match="generate_ids"):
        stage1.generate(image_features=features)
    with pytest.raises(ValueError, match="multiple of the number"):
        Stage1Model(replace(stage1.qformer.config, num_heads=3))


# ------------------------------------------------------------------------- texts that are true of several images


def test_itc_loss_with_other_positives_for_texts_by_hand():
    """Text 0 is true of both images, text 1 of its own alone."""
    matches = torch.tensor([[True, False], [True, True]])
    sure = torch.tensor([[0.0, -100.0], [0.0, 0.0]])  # image 1 shares its target between both texts
    likes_both = torch.tensor([[0.0, 0.0], [-100.0, 0.0]])
    loss = itc_loss(sure, likes_both, matches, label_smoothing=0.0, text_positives=matches.T)
    assert loss.item() == pytest.approx((0 + 0.693147) / 2 / 2 + (0.693147 + 0) / 2 / 2, abs=1e-5)


def test_itm_loss_leaves_out_texts_that_are_true_of_every_image():
    logits = torch.tensor([[0.0, 0.0], [0.0, 5.0], [0.0, 0.0]])  # true, wrong image, wrong text of one row
    assert itm_loss(logits, torch.tensor([True]), torch.tensor([False])).item() == pytest.approx(0.693147, abs=1e-5)


def test_a_true_image_is_never_drawn_as_a_wrong_one(lavis, monkeypatch):
    seen = []

    def record(similarity, positives, generator):
        seen.append(positives)
        return sample_negatives(similarity, positives, generator)

    monkeypatch.setattr("blip2_lab.models.stage1.sample_negatives", record)
    few = {name: batch()[name][:3] for name in ("image_features", "input_ids", "attention_mask")}
    matches = torch.tensor([[True, True, False], [False, True, False], [False, False, True]])
    losses = lavis.losses(**few, matches=matches, generator=torch.Generator().manual_seed(0))
    assert torch.equal(seen[0], matches.T) and torch.equal(seen[1], matches) and losses.total.isfinite()
    own = lavis.losses(**few, generator=torch.Generator().manual_seed(0))
    alike = lavis.losses(**few, matches=torch.eye(3, dtype=torch.bool), generator=torch.Generator().manual_seed(0))
    assert own.itc.item() == alike.itc.item() != losses.itc.item() and own.itm.item() == alike.itm.item()
    with pytest.raises(ValueError, match=r"bool\[B, B\]"):
        lavis.losses(**few, matches=matches[:2])


def test_an_unknown_token_is_no_target_of_itg(tokenizer):
    """With it among the targets the loss of this batch is another."""
    model = tiny().eval()
    features, captions = torch.randn(2, 5, 12), ["w1 w2 zebra w3", "w4 w5"]
    model.tokenizer = tokenizer
    ids, mask = model.tokenize(captions)
    unknown = tokenizer.unk_token_id
    assert unknown in ids.tolist()[0]
    past = model.qformer(image=model.qformer.read_image(features), use_cache=True).past
    masked = model._itg(past, ids, mask.bool())
    learned = model._itg_targets(ids, mask.bool())
    assert learned.sum() == mask[:, 1:].sum() - 1
    losses = model.losses(image_features=features, captions=captions, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(losses.itg, masked / learned.sum())
    model.tokenizer = None
    assert not torch.allclose(model._itg(past, ids, mask.bool()), masked)


def test_what_is_wanted_instead_of_texts_and_pictures_is_told():
    stage1 = tiny()
    for call, says in {
        lambda: stage1.embed_text(["a boat"], None): r"embed_text\(\*tokenize\(texts\)\)",
        lambda: stage1.embed_image("boat.png"): r"image_features\(image_encoder.preprocess\(pictures\)\)",
        lambda: stage1.itm_logits(torch.zeros(1, 2, 3), None, None): r"qformer.read_image\(image_features\)",
        lambda: stage1({"image": 1}): "arguments by name",
        lambda: stage1(text_input=["a boat"]): "'text_input': pass captions",
    }.items():
        with pytest.raises(ValueError, match=says):
            call()


def test_cut_texts_are_said():
    stage1 = build_tiny_model().stage1
    most = stage1.config.max_text_tokens
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stage1.tokenize(["boat " * (most - 2)])
    with pytest.warns(UserWarning, match=f"texts of more than {most} tokens are cut, and their ends are lost"):
        ids, _ = stage1.tokenize(["a red boat", "boat " * most])
    assert ids.shape == (2, most)
    stage1.config.max_text_tokens = 80
    with pytest.warns(UserWarning, match="texts of more than 50 words are cut, and their ends are lost: shorten them"):
        ids, _ = stage1.tokenize(["boat " * 51])
    assert ids.shape == (1, 52)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stage1.tokenize(["boat " * 50 + "."])
