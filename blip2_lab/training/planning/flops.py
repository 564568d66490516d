"""The work of one example: FLOPs forward and backward, and what autograd keeps between the two.

What is unusual about it:

* The frozen models' FLOPs are formulas, one line for each term. What surrounds the Q-Former is not: this package's own
  code runs at a quarter and at half of the width, and torch's counter and autograd's saved tensors are extrapolated. So
  the plan cannot fall behind the code.
* A frozen image encoder costs one forward; a frozen language model a forward and the gradient for its inputs, two
  thirds of training it. The tests hold each formula against torch's counter.

Paper: sections 3.2 to 3.4. Notebook: 08.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from blip2_lab.models.qformer import QFormer, QFormerConfig
from blip2_lab.models.stage1 import Stage1Config, Stage1Model
from blip2_lab.models.vision_encoder import ImageEncoder
from blip2_lab.training.planning.parameters import Blueprint, count_parameters
from blip2_lab.training.recipes.schema import Recipe, SceneData

#: Tokens of a caption: on average, with [CLS] and [SEP] (COCO's have 10 words), and of the longest in a batch, to which
#: a language model's texts are padded. Assumptions; for the picture book they are counted.
CAPTION_TOKENS, LONGEST_CAPTION = 14, 24
SHORT_ANSWER = 5  #: tokens of a VQA answer, likewise


@dataclass(frozen=True)
class Work:
    """Of one example: FLOPs forward and backward, and the bytes that autograd keeps from one to the other."""

    flops: float
    activation_bytes: float = 0.0


@dataclass(frozen=True)
class CaptionLengths:
    """Tokens of an example's caption: on average, and padded to the longest in the batch."""

    mean: int = CAPTION_TOKENS
    longest: int = LONGEST_CAPTION


LOGIT_BYTES = 4  #: kept of a logit: its logarithm, in 32 bits
COUNTED_WORDS = 1000  #: of a vocabulary; what the others cost is a formula


def _linear(rows: float, weights: float, times: int) -> float:
    """FLOPs of `rows` through matrices of that many weights, `times` over: 1 forward, 2 with the gradient for the
    inputs alone (frozen), 3 with the weights' as well."""
    return 2 * rows * weights * times


def encoder_work(encoder: ImageEncoder, trained: bool) -> Work:
    """One image. Frozen: forward alone, and nothing is kept. Trained: without activation checkpointing."""
    c, n = encoder.model.config, encoder.num_features
    width, ffn, times = c.hidden_size, c.intermediate_size, 3 if trained else 1
    layer = _linear(n, 4 * width**2 + 2 * width * ffn, times) + _linear(n, 2 * n * width, times)
    flops = c.num_hidden_layers * layer + _linear(
        n - 1, 3 * c.patch_size**2 * width, min(times, 2)
    )  # pixels learn nothing
    # for each row: inputs of the projections, queries, keys, values, context (16 bits), inputs of the LayerNorms (32)
    kept = c.num_hidden_layers * n * (24 * width + 4 * ffn) if trained else 0
    return Work(flops, kept)


def language_work(model: nn.Module, num_query_tokens: int, prompt: int, answer: int) -> Work:
    """One example through the frozen language model and back to the visual prompt. `prompt` and `answer`: tokens."""
    c = model.config
    rows, head = num_query_tokens + prompt, _linear(answer, c.hidden_size * c.vocab_size, 2)
    kept = LOGIT_BYTES * answer * c.vocab_size
    if not c.is_encoder_decoder:
        rows, width = rows + answer, c.hidden_size
        layer = _linear(rows, 4 * width**2 + 2 * width * c.ffn_dim, 2) + _linear(rows, 2 * rows * width, 3)
        return Work(
            c.num_hidden_layers * layer + head, kept + c.num_hidden_layers * rows * (12 * width + 2 * c.ffn_dim)
        )
    inner = c.num_heads * c.d_kv
    block = 4 * c.d_model * inner + 3 * c.d_model * c.d_ff
    encoder = _linear(rows, block, 2) + _linear(rows, 2 * rows * inner, 3)
    decoder = _linear(answer, block + 2 * c.d_model * inner, 2) + _linear(answer, 2 * (answer + rows) * inner, 3)
    decoder += _linear(rows, 2 * c.d_model * inner, 2)  # the cross-attention's keys and values
    # the written-out GELU of FlanT5 keeps six tensors of the FFN's width, each RMSNorm one in 16 bits and one in 32
    kept += c.num_layers * rows * (12 * c.d_model + 12 * c.d_ff + 8 * inner)
    kept += c.num_decoder_layers * (answer * (18 * c.d_model + 12 * c.d_ff + 12 * inner) + 4 * rows * inner)
    return Work(c.num_layers * encoder + c.num_decoder_layers * decoder + head, kept)


def qformer_work(plan: Blueprint, texts: CaptionLengths) -> Work:
    """One example through all that trains around the Q-Former, counted on this package's own code: at a quarter and at
    half of the heads (and of every width), with two and with four layers.

    FLOPs are a*h^2 + b*h in the number h of heads, kept bytes are c + d*h, both are linear in the layers.
    """
    config = plan.qformer.config
    period = config.cross_attention_frequency
    if config.num_heads <= 6 or config.num_heads % 4:
        return _count_qformer(plan, config, texts)

    def at(heads: int) -> Work:
        share = heads / config.num_heads
        shape = dict(
            num_heads=heads,
            width=round(config.width * share),
            ffn_width=round(config.ffn_width * share),
            image_width=round(config.image_width * share),
        )
        few, more = (_count_qformer(plan, replace(config, num_layers=n * period, **shape), texts) for n in (1, 2))
        steps = config.num_layers / period - 1
        return Work(
            few.flops + steps * (more.flops - few.flops),
            few.activation_bytes + steps * (more.activation_bytes - few.activation_bytes),
        )

    quarter, half = at(config.num_heads // 4), at(config.num_heads // 2)
    square = (half.flops - 2 * quarter.flops) / 2
    return Work(
        16 * square + 4 * (quarter.flops - square),
        quarter.activation_bytes + 3 * (half.activation_bytes - quarter.activation_bytes),
    )


def _count_qformer(plan: Blueprint, config: QFormerConfig, texts: CaptionLengths, examples: int = 2) -> Work:
    """The same for a Q-Former of this size by doing it: random weights and features, texts of the mean length."""
    tied = plan.language is None  # ITG's logits over the vocabulary: linear in its size, so they need not be large
    words, config = config.vocab_size, replace(config, vocab_size=min(config.vocab_size, COUNTED_WORDS))
    generator = torch.Generator().manual_seed(0)
    shape = (examples, plan.image_encoder.num_features, config.image_width)
    features = torch.randn(shape, generator=generator, dtype=torch.bfloat16)
    features.requires_grad_("image encoder" in plan.trained)
    ids = torch.randint(5, config.vocab_size, (examples, texts.mean), generator=generator)
    heads = Stage1Config(plan.stage1.embed_width, sep_token_id=2, decode_token_id=3)
    with torch.random.fork_rng(devices=[]):
        if plan.language is None:
            model = Stage1Model(config, heads)

            def loss() -> Tensor:
                return model.losses(image_features=features, input_ids=ids, attention_mask=torch.ones_like(ids)).total
        else:
            model = nn.ModuleList([QFormer(config), nn.Linear(config.width, plan.language.config.hidden_size)])
            question = dict(input_ids=ids) if config.has_text else {}

            def loss() -> Tensor:
                return model[1](model[0](image=model[0].read_image(features), **question).query_output).sum()

        flops, kept = count_work(loss, model)
    more = (texts.mean - 1) * (words - config.vocab_size) if tied else 0
    return Work(flops / examples + _linear(more, config.width, 3), kept / examples + LOGIT_BYTES * more)


def count_work(loss: Callable[[], Tensor], model: nn.Module) -> tuple[float, float]:
    """FLOPs of `loss()` forward and backward by torch's counter, and the bytes that autograd keeps, 16-bit autocast.

    A parameter is no trace of an example, nor are its copies in 16 bits: neither is counted.
    """
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    copies = {tuple(p.shape) for p in model.parameters()}
    copies |= {shape[::-1] for shape in copies}
    traces: dict[int, Tensor] = {}  # kept alive, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in own and tuple(tensor.shape) not in copies:
            traces[address] = tensor
        return tensor

    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), torch.autocast("cpu", torch.bfloat16):
            result = loss()
        result.backward()
    model.zero_grad()
    return counter.get_total_flops(), sum(tensor.untyped_storage().nbytes() for tensor in traces.values())


def pretraining_work(recipe: Recipe) -> tuple[dict[str, int], Work]:
    """Parameters and the mean work of an example of a part made from nothing, counted on a few real batches."""
    from blip2_lab.training.tasks import pretraining

    examples = 8
    few = replace(recipe, optim=replace(recipe.optim, batch_size=examples, accumulate=1))
    with torch.random.fork_rng(devices=[]):
        task = pretraining.build_task(few, Path())
        batches = [recipe.optim.steps * quarter // 4 for quarter in (1, 2, 3)]
        counts = [count_work(lambda i=i: task.compute_losses(task.batch(i))["total"], task.model) for i in batches]
    flops, kept = (sum(values) / len(values) / examples for values in zip(*counts, strict=True))
    return {recipe.task: count_parameters(task.model)}, Work(flops, kept)


def work_by_part(recipe: Recipe, model: Blueprint) -> dict[str, Work]:
    """Work of an example by part. The picture book's features are computed once, before the first step."""
    texts = _caption_lengths(recipe)
    works = (
        {}
        if isinstance(recipe.data, SceneData)
        else {"image encoder": encoder_work(model.image_encoder, "image encoder" in model.trained)}
    )
    works["Q-Former"] = qformer_work(model, texts)
    if model.language is not None:
        answer = SHORT_ANSWER if recipe.task == "vqa" else texts.longest
        # for an encoder-decoder a caption is cut: the longest beginning and the longest end are about as long as it
        prompt = texts.longest if model.language.config.is_encoder_decoder or recipe.task == "vqa" else 0
        works["language model"] = language_work(model.language, model.stage1.num_query_tokens, prompt, answer)
    return works


def _caption_lengths(recipe: Recipe) -> CaptionLengths:
    if not isinstance(recipe.data, SceneData):
        return CaptionLengths()
    from blip2_lab.data.scenes import PictureBook
    from blip2_lab.picturebook.tokenizer import build_tokenizer

    book, tokenizer = PictureBook(recipe.data.seed, caption=recipe.data.caption), build_tokenizer("bert")
    lengths = [len(tokenizer(book.one_caption(i)).input_ids) for i in range(recipe.optim.pass_size)]
    return CaptionLengths(round(sum(lengths) / len(lengths)), min(max(lengths), recipe.model.max_text_tokens))
