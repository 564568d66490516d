"""Attention maps at real size: every map of an answer and of an image-text match, from folders in the released layouts.

    python -m benchmarks.attention_maps

Writes two checkpoints of random weights (`benchmarks.full_size`): FlanT5-XL BLIP-2 with the whole ViT-g and Q-Former
and 2 layers of the language model each way, and the whole retrieval model. Loads each with `blip2_lab.load`, records
one streamed answer, one caption's loss and one ITM score with gradients, and compares: the outputs with and without
the recording, and after it bit for bit.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

import blip2_lab
from benchmarks.full_size import PROMPT, write_checkpoint
from benchmarks.measure import heading, largest, ratio, spread
from blip2_lab.checkpoints import catalog
from blip2_lab.interpret.attention_maps import AttentionMaps, record_attention
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene

CAPTION = "a red boat at night."


def describe(maps: AttentionMaps) -> None:
    """One line for each part and kind: layers, calls, shape, and how far the rows are from adding up to 1."""
    for part, kind in sorted({(m.part, m.kind) for m in maps}):
        some = maps.select(part, kind)
        layers, calls = {m.layer for m in some}, {m.call for m in some}
        off = largest((m.weights.float().sum(dim=-1) - 1).abs().max().item() for m in some)
        shape = "x".join(map(str, some[0].weights.shape))
        counted = f"{len(layers):3} layers {len(calls):3} calls"
        print(f"  {part:17}{kind:6} {counted}   first {shape:17} rows off 1 by {off:.0e}")
    size = sum(m.weights.numel() * m.weights.element_size() for m in maps)
    print(f"  {len(maps)} maps, {size / 2**20:,.0f} MiB")


def with_gradients(model, score, rounds: int) -> None:
    """Record `score(model)` with gradients; say what it costs and whether the numbers stay."""
    plain, recorded = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        with torch.no_grad():
            before = score(model)
        plain.append(time.perf_counter() - began)
        began = time.perf_counter()
        with record_attention(model, gradients=True) as maps:
            inside = score(model)
            maps.differentiate(inside)
        recorded.append(time.perf_counter() - began)
    with torch.no_grad():
        after = score(model)
    describe(maps)
    finite = all(torch.isfinite(m.gradient).all() for m in maps)
    hanging = sum(bool(m.gradient.any()) for m in maps)
    apart = ((inside - before) / before).abs().item()
    print(f"  gradients finite: {finite}; of {hanging} maps not zero; inside {apart:.0e} apart (relative)")
    print(f"  after it the same bits: {torch.equal(before, after)}")
    times = f"{spread(plain, '.1f', ' s')} plain, {spread(recorded, '.1f', ' s')} with gradients"
    print(f"  {times}: {ratio(recorded, plain)} times")


def chat(folder: Path, rounds: int) -> None:
    """The maps of an answer, and of a caption's loss."""
    model = blip2_lab.load(folder, dtype="float32")
    picture = draw(sample_scene(7, 3), model.image_encoder.image_size)
    settings = dict(max_new_tokens=5, min_new_tokens=5)
    before = [token.text for token in model.stream(picture, PROMPT, **settings)]
    with record_attention(model) as maps:
        inside = [token.text for token in model.stream(picture, PROMPT, **settings)]
    describe(maps)
    after = [token.text for token in model.stream(picture, PROMPT, **settings)]
    print(f"  the same answer inside: {inside == before}, after: {after == before}")
    pixels = model.image_encoder.preprocess([picture])
    print("  a caption's loss:")
    with_gradients(model, lambda m: m.loss(pixels=pixels, captions=[CAPTION], prompts=[""]), rounds)


def retrieval(folder: Path, rounds: int) -> None:
    """The maps of an image-text match."""
    model = blip2_lab.load(folder)
    picture = draw(sample_scene(7, 3), model.image_encoder.image_size)
    pixels = model.image_encoder.preprocess([picture])
    ids, mask = model.tokenize([CAPTION])

    def score(m) -> torch.Tensor:
        return m.itm_logits(m.qformer.read_image(m.image_encoder(pixels)), ids, mask)[0, 1]

    with_gradients(model, score, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of what is timed; medians are told, with their range")
    args = parser.parse_args()
    for name, title, look in (
        ("Salesforce/blip2-flan-t5-xl", "FlanT5-XL, 2 of its 24 layers each way, all else whole", chat),
        ("Salesforce/blip2-itm-vit-g", "the retrieval model, whole", retrieval),
    ):
        config = catalog.blip2_config(catalog.released(name))
        if look is chat:
            config.text_config.num_layers = config.text_config.num_decoder_layers = 2
            config.architectures = ["Blip2ForConditionalGeneration"]
        else:
            config.architectures = ["Blip2ForImageTextRetrieval"]
        with tempfile.TemporaryDirectory() as folder, heading(title):
            print(f"  written: {write_checkpoint(Path(folder), config) / 1e9:.2f} GB of float32", flush=True)
            look(Path(folder), args.rounds)


if __name__ == "__main__":
    main()
