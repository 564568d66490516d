"""FLOPs of one example, forward and backward, and the memory of its activations.

`work_by_part` is where to begin; `encoder_work`, `qformer_work` and `language_work` compute one model each.

Notes:

* The frozen models' FLOPs are formulas, with a line for each term. For the Q-Former and its heads, this package's own
  code runs at a quarter and at half of the width; torch's FLOP counter and autograd's saved tensors are extrapolated,
  so the plan follows the code.
* A frozen image encoder costs one forward. A frozen language model costs a forward and the gradient of its inputs, two
  thirds of training it. Tests compare each formula with torch's counter.

Paper: sections 3.2 to 3.4. Notebooks: 08, 17.
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
#: a language model's texts are padded. Assumptions; for the picture book the tokens are counted.
CAPTION_TOKENS, LONGEST_CAPTION = 14, 24
SHORT_ANSWER = 5  #: tokens of a VQA answer, an assumption too


@dataclass(frozen=True)
class Work:
    """Of one example: FLOPs forward and backward, and the bytes that autograd saves in between."""

    flops: float
    activation_bytes: float = 0.0


@dataclass(frozen=True)
class CaptionLengths:
    """Tokens of an example's caption: on average, and padded to the longest in the batch."""

    mean: int = CAPTION_TOKENS
    longest: int = LONGEST_CAPTION


LOGIT_BYTES = 4  #: saved of a logit: its log-probability, in 32 bits
LLAMA_ROW_BYTES = 24  #: saved of a row of a LLaMA's layer, beside its FFN, for each unit of width
COUNTED_VOCABULARY = 1000  #: of a vocabulary; the rest is a formula


def _linear(rows: float, weights: float, times: int) -> float:
    """FLOPs of `rows` times matrices of `weights` weights. `times`: 1 for the forward, 2 with the gradient of the
    inputs (frozen weights), 3 with the gradient of the weights, too."""
    return 2 * rows * weights * times


def encoder_work(encoder: ImageEncoder, trained: bool) -> Work:
    """One image. Frozen: forward only, no saved activations. Trained: without gradient checkpointing."""
    c, n = encoder.model.config, encoder.num_features
    width, ffn, times = c.hidden_size, c.intermediate_size, 3 if trained else 1
    layer = _linear(n, 4 * width**2 + 2 * width * ffn, times) + _linear(n, 2 * n * width, times)
    flops = c.num_hidden_layers * layer + _linear(
        n - 1, 3 * c.patch_size**2 * width, min(times, 2)
    )  # no gradient of the pixels
    # of each row: inputs of the projections, queries, keys, values, context (16 bits), inputs of the LayerNorms (32)
    kept = c.num_hidden_layers * n * (24 * width + 4 * ffn) if trained else 0
    return Work(flops, kept)


def language_work(model: nn.Module, num_query_tokens: int, prompt: int, answer: int, trained: bool = False) -> Work:
    """One example, forward through the frozen language model and back to the visual prompt. `prompt`, `answer`:
    tokens. `trained`: a decoder's weights get gradients, too."""
    c = model.config
    times = 3 if trained else 2
    rows, head = num_query_tokens + prompt, _linear(answer, c.hidden_size * c.vocab_size, times)
    kept = LOGIT_BYTES * answer * c.vocab_size
    if c.model_type == "llama":
        rows, width, ffn = rows + answer, c.hidden_size, c.intermediate_size
        layer = _linear(rows, 4 * width**2 + 3 * width * ffn, times) + _linear(rows, 2 * rows * width, 3)
        # of each row: inputs of the projections, queries, keys, values, context; two RMSNorms; three of the FFN's width
        kept += c.num_hidden_layers * rows * (LLAMA_ROW_BYTES * width + 6 * ffn)
        return Work(c.num_hidden_layers * layer + head, kept)
    if not c.is_encoder_decoder:
        rows, width = rows + answer, c.hidden_size
        layer = _linear(rows, 4 * width**2 + 2 * width * c.ffn_dim, times) + _linear(rows, 2 * rows * width, 3)
        of_width = 16 if trained else 12  # trained: also the inputs of two projections, in 16 bits
        return Work(
            c.num_hidden_layers * layer + head, kept + c.num_hidden_layers * rows * (of_width * width + 2 * c.ffn_dim)
        )
    if trained:
        raise ValueError(f"the work of training a {c.model_type} language model is not planned; a decoder's is")
    inner = c.num_heads * c.d_kv
    block = 4 * c.d_model * inner + 3 * c.d_model * c.d_ff
    encoder = _linear(rows, block, 2) + _linear(rows, 2 * rows * inner, 3)
    decoder = _linear(answer, block + 2 * c.d_model * inner, 2) + _linear(answer, 2 * (answer + rows) * inner, 3)
    decoder += _linear(rows, 2 * c.d_model * inner, 2)  # the cross-attention's keys and values
    # FlanT5's unfused GELU saves six tensors of the FFN's width, each RMSNorm one in 16 bits and one in 32
    kept += c.num_layers * rows * (12 * c.d_model + 12 * c.d_ff + 8 * inner)
    kept += c.num_decoder_layers * (answer * (18 * c.d_model + 12 * c.d_ff + 12 * inner) + 4 * rows * inner)
    return Work(c.num_layers * encoder + c.num_decoder_layers * decoder + head, kept)


def qformer_work(plan: Blueprint, texts: CaptionLengths) -> Work:
    """One example through the Q-Former and the heads trained with it, counted on this package's own code at a quarter
    and at half of the heads (and of every width), with two and with four layers.

    With h heads, FLOPs are a*h^2 + b*h and saved bytes are c + d*h; both are linear in the layers.
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
    """The same, counted at this size, with random weights and features, and texts of the mean length."""
    tied = plan.language is None  # ITG's logits over the vocabulary are linear in its size: a small one is counted
    words, config = config.vocab_size, replace(config, vocab_size=min(config.vocab_size, COUNTED_VOCABULARY))
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

    Parameters and their copies in 16 bits are not counted.
    """
    own = {p.untyped_storage()._cdata for p in model.parameters()}  # an address of the storage, on the meta device too
    copies = {tuple(p.shape) for p in model.parameters()}
    copies |= {shape[::-1] for shape in copies}
    saved: dict[int, Tensor] = {}  # holds references, so that no address is reused

    def keep(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage()._cdata
        if address not in own and tuple(tensor.shape) not in copies:
            saved[address] = tensor
        return tensor

    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), torch.autocast("cpu", torch.bfloat16):
            result = loss()
        result.backward()
    model.zero_grad()
    return counter.get_total_flops(), sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def pretraining_work(recipe: Recipe) -> tuple[dict[str, int], Work]:
    """Parameters and mean work of an example for a model that is pre-trained here, counted on a few real batches."""
    from blip2_lab.training.tasks import pretraining

    examples = 8
    few = replace(recipe, optim=replace(recipe.optim, batch_size=examples, accumulate=1))
    with torch.random.fork_rng(devices=[]):
        task = pretraining.build_task(few, Path())
        indices = [recipe.optim.steps * quarter // 4 for quarter in (1, 2, 3)]
        counts = [count_work(lambda i=i: task.compute_losses(task.batch(i))["total"], task.model) for i in indices]
    flops, kept = (sum(values) / len(values) / examples for values in zip(*counts, strict=True))
    return {recipe.task: count_parameters(task.model)}, Work(flops, kept)


def work_by_part(recipe: Recipe, model: Blueprint) -> dict[str, Work]:
    """Work of an example by model. The picture book's features are computed once, before the first step."""
    texts = caption_lengths(recipe)
    works = (
        {}
        if isinstance(recipe.data, SceneData)
        else {"image encoder": encoder_work(model.image_encoder, "image encoder" in model.trained)}
    )
    works["Q-Former"] = qformer_work(model, texts)
    if model.language is not None:
        answer = SHORT_ANSWER if recipe.task == "vqa" else texts.longest
        # an encoder-decoder's caption is split in two; the longest prefix and suffix add up to about its length
        prompt = texts.longest if model.language.config.is_encoder_decoder or recipe.task == "vqa" else 0
        works["language model"] = language_work(model.language, model.stage1.num_query_tokens, prompt, answer)
    return works


def caption_lengths(recipe: Recipe) -> CaptionLengths:
    if not isinstance(recipe.data, SceneData):
        return CaptionLengths()
    from blip2_lab.data.scenes import PictureBook
    from blip2_lab.picturebook.tokenizer import build_tokenizer

    book, tokenizer = PictureBook(recipe.data.seed, caption=recipe.data.caption), build_tokenizer("bert")
    lengths = [len(tokenizer(book.one_caption(i)).input_ids) for i in range(recipe.optim.pass_size)]
    return CaptionLengths(round(sum(lengths) / len(lengths)), min(max(lengths), recipe.model.max_text_tokens))
