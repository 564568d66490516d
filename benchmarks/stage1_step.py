"""One stage-1 step, ours against LAVIS's way of computing it (plain_stage1.py), on the same weights and batch.

    python -m benchmarks.stage1_step                     counts, agreement, seconds and peak memory at real size (CPU)
    python -m benchmarks.stage1_step --count-only        the first table alone: nothing is computed, any machine will do
    python -m benchmarks.stage1_step --size small        the whole script in seconds, to try it out
    python -m benchmarks.stage1_step --device cuda --bf16 [--compile]

A step is the three losses and their gradients, in training mode (dropout 0.1), without the optimizer, which is the
same for both. Texts are 32 tokens with the lengths of COCO captions. Real size: 12 layers of 768, 257 image features of
1408, batch 16. The two take turns, so a busy machine is unfair to neither; each one's memory is its own process's.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.measure import flops, heading, kept_bytes, largest, own_clock, peak_memory, ratio, spread, take_turns
from blip2_lab.models.losses import Stage1Losses
from blip2_lab.models.qformer import QFormerConfig
from blip2_lab.models.stage1 import Stage1Config, Stage1Model
from blip2_lab.teaching.plain_stage1 import plain_losses

#: Tokens of 16 captions, [CLS] and [SEP] included: 10.9 word pieces on average, as COCO's captions have.
LENGTHS = (9, 10, 10, 11, 11, 12, 12, 12, 13, 13, 13, 14, 14, 15, 17, 21)


@dataclass(frozen=True)
class Size:
    qformer: QFormerConfig
    num_patches: int
    batch_size: int = 16
    text_length: int = 32


REAL = Size(QFormerConfig(), num_patches=257)
SIZES = {
    "real": REAL,
    "two-layers": replace(REAL, qformer=QFormerConfig(num_layers=2)),
    "small": Size(
        QFormerConfig(vocab_size=500, width=96, num_layers=2, num_heads=3, ffn_width=384, image_width=176), 65
    ),
}


def build(size: Size, device: str = "cpu") -> Stage1Model:
    """Random weights, the same each time."""
    torch.manual_seed(0)
    with torch.device(device):
        return Stage1Model(size.qformer, Stage1Config(decode_token_id=size.qformer.vocab_size - 1))


def batch(size: Size, device: str = "cpu") -> dict[str, Tensor]:
    """image_features [B, N, Dv] on `device`, texts [B, 32] and negatives; on "meta" only the features are ghosts."""
    generator = torch.Generator().manual_seed(1)
    shape = (size.batch_size, size.num_patches, size.qformer.image_width)
    features = torch.empty(shape, device=device) if device == "meta" else torch.randn(shape, generator=generator)
    lengths = torch.tensor([LENGTHS[i % len(LENGTHS)] for i in range(size.batch_size)])
    mask = torch.arange(size.text_length) < lengths[:, None]
    ids = torch.randint(5, size.qformer.vocab_size - 1, mask.shape, generator=generator).masked_fill(~mask, 0)
    own = torch.arange(size.batch_size)
    place = "cpu" if device == "meta" else device
    return {
        "image_features": features.to(device),
        "input_ids": ids.to(place),
        "attention_mask": mask.long().to(place),
        "negatives": (own.roll(1).to(place), own.roll(-3).to(place)),
    }


def ours(model: Stage1Model, data: dict) -> Stage1Losses:
    return model.losses(**data)


def plain(model: Stage1Model, data: dict) -> Stage1Losses:
    return plain_losses(model, **data)


FORMS = {"LAVIS's way": plain, "blip2_lab": ours}


def counts(size: Size) -> dict[str, tuple[int, int]]:
    """For each form: FLOPs of a step, and bytes it keeps from forward to backward."""
    model, data = build(size, "meta"), batch(size, "meta")
    return {
        name: (
            flops(lambda form=form: form(model, data).total.backward()),
            kept_bytes(lambda form=form: form(model, data), model),
        )
        for name, form in FORMS.items()
    }


def disagreement(size: Size) -> tuple[float, float]:
    """The largest difference of the three losses, and of the gradients relative to the largest gradient; no dropout."""
    data, results = batch(size), []
    for form in FORMS.values():
        model = build(size).eval()
        losses = form(model, data)
        losses.total.backward()
        results.append(
            ([losses.itc.item(), losses.itm.item(), losses.itg.item()], [p.grad for p in model.parameters()])
        )
    (a, grads_a), (b, grads_b) = results
    scale = largest(grad.abs().max().item() for grad in grads_a)
    return (
        largest(abs(x - y) for x, y in zip(a, b, strict=True)),
        largest((x - y).abs().max().item() for x, y in zip(grads_a, grads_b, strict=True)) / scale,
    )


def step(model: Stage1Model, data: dict, name: str, half: bool) -> None:
    """One step as it is trained: negatives are drawn."""
    data = {key: value for key, value in data.items() if key != "negatives"}
    model.zero_grad(set_to_none=False)  # gradients stay where they are, as under any optimizer
    with torch.autocast(data["image_features"].device.type, torch.bfloat16, enabled=half):
        total = FORMS[name](model, data).total
    total.backward()


def one_step(size: Size, name: str) -> None:
    """What `peak_memory` runs in a process of its own: the second step is the one with everything allocated."""
    model, data = build(size), batch(size)
    for _ in range(2):
        step(model, data, name, half=False)


def cuda_peak(model: Stage1Model, data: dict, name: str, half: bool) -> int:
    torch.cuda.reset_peak_memory_stats()
    step(model, data, name, half)
    return torch.cuda.max_memory_allocated()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="real")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each, after one to warm up")
    parser.add_argument("--count-only", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args(arguments)
    size = replace(SIZES[options.size], batch_size=options.batch_size)
    slow, fast = FORMS
    tokens = sum(LENGTHS[i % len(LENGTHS)] for i in range(size.batch_size)) / size.batch_size
    print(f"stage-1 step, size {options.size}, batch {size.batch_size}, {tokens:.1f} of {size.text_length} tokens real")

    with heading("counted (meta device)"):
        counted = counts(size)
        for name, (operations, kept) in counted.items():
            print(f"  {name:12} {operations / 1e12:7.3f} TFLOP   {kept / 1e9:6.2f} GB kept from forward to backward")
        (slow_flops, slow_kept), (fast_flops, fast_kept) = counted[slow], counted[fast]
        print(f"  ratio {slow_flops / fast_flops:.2f} in FLOPs, {fast_kept / slow_kept:.2f} in kept bytes")
    if options.count_only:
        return

    with heading("agreement (float32, CPU, no dropout)"):
        losses, gradients = disagreement(size)
        print(f"  losses differ by {losses:.1e}, gradients by {gradients:.1e} of the largest")

    model, data = build(size).to(options.device).train(), batch(size, options.device)
    with heading("peak memory: " + ("the process, libraries included" if options.device == "cpu" else "the device")):
        if options.device == "cpu":
            peaks = {name: peak_memory(one_step, size, name) for name in FORMS}
        else:
            peaks = {name: cuda_peak(model, data, name, options.bf16) for name in FORMS}
        for name, peak in peaks.items():
            print(f"  {name:12} {peak / 1e9:6.2f} GB")
        print(f"  ratio {peaks[fast] / peaks[slow]:.2f}")

    with heading(f"seconds ({torch.get_num_threads()} threads)" if options.device == "cpu" else "seconds"):
        models = {name: copy.deepcopy(model) for name in FORMS}
        if options.compile:
            for one in models.values():
                one.qformer.compile(dynamic=True)
        steps = {name: lambda name=name: step(models[name], data, name, options.bf16) for name in FORMS}
        synchronize = (lambda: None) if options.device == "cpu" else torch.cuda.synchronize
        seconds = take_turns(steps, options.rounds, synchronize, own_clock(options.device))
        for name, took in seconds.items():
            rate = [counted[name][0] / one / 1e12 for one in took]
            print(f"  {name:12} {spread(took, '.3f', ' s'):30} {spread(rate, '.3f', ' TFLOP/s')}")
        print(f"  ratio {ratio(seconds[slow], seconds[fast])}")


if __name__ == "__main__":
    main()
