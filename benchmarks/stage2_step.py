"""One stage-2 step, ours against transformers' Blip2ForConditionalGeneration, on the same weights, pictures and texts.

    python -m benchmarks.stage2_step                      OPT, real Q-Former and features, a small language model (CPU)
    python -m benchmarks.stage2_step --language t5
    python -m benchmarks.stage2_step --size small         the whole script in seconds, to try it out
    python -m benchmarks.stage2_step --device cuda --bf16

A step is the loss and the gradients of what trains: Q-Former, queries, projection, the LayerNorm on the features. Image
encoder and language model are frozen, in eval mode, and part of the step in both. Real size: Q-Former of 12 layers of
768, 257 features of 1408, of the image encoder 2 layers of 39; language models as large as OPT-125M and FlanT5-base.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.measure import heading, largest, own_clock, peak_memory, ratio, spread, take_turns
from blip2_lab.checkpoints.huggingface import from_transformers
from blip2_lab.models.language_model import IGNORE_INDEX, Text
from blip2_lab.models.stage2 import Stage2Model

LENGTHS = (8, 9, 9, 10, 10, 11, 11, 11, 12, 12, 12, 13, 13, 14, 16, 20)  # tokens of 16 captions and their end
IMAGE, PAD, END = 4, 1, 2  # token ids


@dataclass(frozen=True)
class Size:
    vision: dict
    qformer: dict
    text: dict
    language: str = "opt"
    batch_size: int = 16


SIZES = {
    "real": Size(
        vision=dict(num_hidden_layers=2),
        qformer=dict(),
        text=dict(
            opt=dict(hidden_size=768, ffn_dim=3072, num_hidden_layers=12, num_attention_heads=12, vocab_size=50272),
            t5=dict(d_model=768, d_kv=64, d_ff=2048, num_layers=12, num_heads=12, vocab_size=32128),
        ),
    ),
    "small": Size(
        vision=dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=56),
        qformer=dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128),
        text=dict(
            opt=dict(hidden_size=64, ffn_dim=128, num_hidden_layers=2, num_attention_heads=2, vocab_size=320),
            t5=dict(d_model=64, d_kv=32, d_ff=128, num_layers=2, num_heads=2, vocab_size=320),
        ),
        batch_size=4,
    ),
}


def theirs(size: Size) -> nn.Module:
    """A random Blip2ForConditionalGeneration without dropout, its frozen parts frozen."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    text = dict(
        size.text[size.language], model_type=size.language, pad_token_id=PAD, eos_token_id=END, bos_token_id=END
    )
    if size.language == "opt":
        text |= dict(dropout=0.0, word_embed_proj_dim=text["hidden_size"], max_position_embeddings=512)
    else:
        text |= dict(dropout_rate=0.0, feed_forward_proj="gated-gelu", decoder_start_token_id=PAD)
    qformer = dict(size.qformer, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    vision = dict(size.vision, initializer_range=0.02)
    config = Blip2Config(
        vision_config=vision, qformer_config=qformer, text_config=text, num_query_tokens=32, image_token_index=IMAGE
    )
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(config)
    nn.init.normal_(model.query_tokens, std=0.02)
    for part in (model.vision_model.embeddings, model.vision_model.encoder, model.language_model):
        part.requires_grad_(False)
    return model


def both(size: Size) -> dict[str, nn.Module]:
    """transformers' model, and ours with the same weights."""
    model = theirs(size)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        ours = from_transformers(folder)
    return {"transformers": model.train(), "blip2_lab": ready(ours.train())}


def ready(model: Stage2Model, device: str = "cpu") -> Stage2Model:
    """As training/run.py trains it: on CPU the fused kernel's backward is slow."""
    if device == "cpu":
        model.language_model.model.set_attn_implementation("eager")
    return model


def batch(size: Size, device: str = "cpu") -> dict[str, Tensor]:
    """pixels [B, 3, H, W] and texts [B, T] of random ids, padded on the right."""
    generator = torch.Generator().manual_seed(1)
    side = size.vision.get("image_size", 224)
    pixels = torch.randn(size.batch_size, 3, side, side, generator=generator)
    lengths = torch.tensor([LENGTHS[i % len(LENGTHS)] for i in range(size.batch_size)])
    mask = torch.arange(max(LENGTHS)) < lengths[:, None]
    vocabulary = size.text[size.language]["vocab_size"]
    ids = torch.randint(5, vocabulary, mask.shape, generator=generator)
    ids = ids.where(torch.arange(max(LENGTHS)) < lengths[:, None] - 1, END).masked_fill(~mask, PAD)
    return {name: tensor.to(device) for name, tensor in dict(pixels=pixels, ids=ids, mask=mask).items()}


def their_loss(model: nn.Module, data: dict[str, Tensor]) -> Tensor:
    ids, mask = data["ids"], data["mask"]
    images = ids.new_full((len(ids), 32), IMAGE)
    seen = mask.new_ones(len(ids), 32)
    labels = ids.masked_fill(~mask, IGNORE_INDEX)
    if model.config.text_config.is_encoder_decoder:  # all of the text is the decoder's
        output = model(pixel_values=data["pixels"], input_ids=images, attention_mask=seen.long(), labels=labels)
    else:
        output = model(
            pixel_values=data["pixels"],
            input_ids=torch.cat([images, ids], dim=1),
            attention_mask=torch.cat([seen, mask], dim=1).long(),
            labels=torch.cat([torch.full_like(images, IGNORE_INDEX), labels], dim=1),
        )
    return output.loss


def our_loss(model: Stage2Model, data: dict[str, Tensor]) -> Tensor:
    answer = Text(data["ids"], data["mask"])
    prompt = Text(answer.ids[:, :0], answer.mask[:, :0])
    visual_prompt = model.visual_prompt(model.image_encoder(data["pixels"]))
    return model.language_model.answer_loss(visual_prompt, prompt, answer)


LOSSES = {"transformers": their_loss, "blip2_lab": our_loss}


def step(model: nn.Module, data: dict[str, Tensor], name: str, half: bool = False) -> Tensor:
    model.zero_grad(set_to_none=False)
    with torch.autocast(data["pixels"].device.type, torch.bfloat16, enabled=half):
        loss = LOSSES[name](model, data)
    loss.backward()
    return loss.detach()


def one_step(size: Size, name: str) -> None:
    """What `peak_memory` runs in a process of its own."""
    if name == "transformers":
        model = theirs(size).train()
    else:
        model = ready(ours_alone(size))
    for _ in range(2):
        step(model, batch(size), name)


def ours_alone(size: Size) -> Stage2Model:
    """Our model without transformers' beside it."""
    from transformers import Blip2Config

    from blip2_lab.checkpoints.meta_model import empty_model

    with torch.device("meta"):
        config = Blip2Config(**theirs(size).config.to_dict())
    model = empty_model(config).to_empty(device="cpu")
    model.language_model.model.tie_weights()  # `to_empty` gives each name a tensor of its own
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter.data, std=0.02)
    return model.train()


def trained_gradients(model: nn.Module) -> list[Tensor]:
    """Gradients of what both have under a name of their own: queries, projection, the LayerNorm on the features."""
    if isinstance(model, Stage2Model):
        norm, queries = model.qformer.image_layer_norm, model.qformer.query_tokens
    else:
        norm, queries = model.vision_model.post_layernorm, model.query_tokens
    tensors = (queries, model.language_projection.weight, norm.weight, norm.bias)
    return [parameter.grad for parameter in tensors]


def disagreement(models: dict[str, nn.Module], size: Size) -> tuple[float, float]:
    """Difference of the losses, and the largest of the gradients relative to the largest gradient."""
    data = batch(size)
    a, b = (step(model, data, name).item() for name, model in models.items())
    pairs = list(zip(*(trained_gradients(model) for model in models.values()), strict=True))
    return abs(a - b), largest(((x - y).abs().max() / x.abs().max()).item() for x, y in pairs)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="real")
    parser.add_argument("--language", choices=("opt", "t5"), default="opt")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each, after one to warm up")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args(arguments)
    size = replace(SIZES[options.size], language=options.language)
    size = replace(size, batch_size=options.batch_size or size.batch_size)
    print(f"stage-2 step, size {options.size}, {size.language}, batch {size.batch_size}")
    slow, fast = LOSSES

    models = both(size)
    with heading("agreement (float32, CPU)"):
        losses, gradients = disagreement(models, size)
        print(f"  losses differ by {losses:.1e}, gradients by {gradients:.1e} of the largest")

    models, data = {name: model.to(options.device) for name, model in models.items()}, batch(size, options.device)
    with heading("peak memory"):
        if options.device == "cpu":
            peaks = {name: peak_memory(one_step, size, name) for name in LOSSES}
        else:
            peaks = {name: cuda_peak(model, data, name, options.bf16) for name, model in models.items()}
        for name, peak in peaks.items():
            print(f"  {name:12} {peak / 1e9:6.2f} GB")
        print(f"  ratio {peaks[fast] / peaks[slow]:.2f}")

    threads = f" ({torch.get_num_threads()} threads)" if options.device == "cpu" else ""
    with heading(f"seconds{threads}"):
        steps = {name: lambda name=name: step(models[name], data, name, options.bf16) for name in LOSSES}
        synchronize = (lambda: None) if options.device == "cpu" else torch.cuda.synchronize
        seconds = take_turns(steps, options.rounds, synchronize, own_clock(options.device))
        for name, took in seconds.items():
            print(f"  {name:12} {spread(took, '.3f', ' s')}")
        print(f"  ratio {ratio(seconds[slow], seconds[fast])}")


def cuda_peak(model: nn.Module, data: dict[str, Tensor], name: str, half: bool) -> int:
    """Peak bytes on the device beyond what lay there before; both models lie there."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(model, data, name, half)
    return torch.cuda.max_memory_allocated() - before


if __name__ == "__main__":
    main()
