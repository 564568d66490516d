"""How fast an answer comes, against transformers' `Blip2ForConditionalGeneration.generate` with the same weights.

    python -m benchmarks.chat                                                the micro model on the CPU
    python -m benchmarks.chat --model FOLDER --device cuda --quantize int8   a checkpoint of `benchmarks.full_size`, say

Both answer greedily, with the same number of tokens, and must give the same ids (the quantized kernels differ on a CPU:
there the rival runs unquantized, and the ids are not compared). Asked: a first question about a picture, a second one
about the same picture, and eight at once; these also with a static cache, against ours that grows. Beside the words a
second stands what reading the decoder's weights once a token allows (bandwidth measured by copying): no program is
faster at one answer at a time.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import torch

import blip2_lab
from benchmarks.measure import heading, ratio, take_turns
from blip2_lab.chat.conversation import ImageCache
from blip2_lab.checkpoints.load import find_model
from blip2_lab.models.decoding import Decoding
from blip2_lab.models.language_model import Text
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene

QUESTIONS = ("Question: what is in the picture? Short answer:", "Question: what place is this? Short answer:")


class FirstToken:
    """A streamer for transformers: when did the first new token come?"""

    def __init__(self, encoder_decoder: bool) -> None:
        self.began, self.seconds = time.perf_counter(), None
        self.skip = 1  # the prompt, or the decoder's start token, is put first

    def put(self, _: torch.Tensor) -> None:
        if self.skip:
            self.skip -= 1
        elif self.seconds is None:
            self.seconds = time.perf_counter() - self.began

    def end(self) -> None:
        pass


class Rival:
    """transformers' own model and ids: it reads the picture for each question."""

    def __init__(self, folder: Path, device: str, dtype: torch.dtype, quantize: str | None) -> None:
        from transformers import BitsAndBytesConfig, Blip2ForConditionalGeneration
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        bits = {"int8": dict(load_in_8bit=True), "nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4")}
        config = BitsAndBytesConfig(**bits[quantize]) if quantize else None
        where = {"": device} if device != "cpu" else None
        self.model = Blip2ForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, quantization_config=config, device_map=where
        ).eval()
        self.device = device

    @torch.no_grad()
    def ask(self, pixels: torch.Tensor, text: Text, tokens: int, streamer: FirstToken | None = None) -> list[list[int]]:
        config = self.model.config
        images = torch.full((len(text.ids), config.num_query_tokens), config.image_token_index, device=self.device)
        ids = self.model.generate(
            pixel_values=pixels,
            input_ids=torch.cat([images, text.ids], dim=1),
            attention_mask=torch.cat([torch.ones_like(images), text.mask.long()], dim=1),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            num_beams=1,
            do_sample=False,
            streamer=streamer,
        )
        return ids[:, -tokens:].tolist()


def bandwidth(device: str) -> float:
    """Bytes a second that this device reads from its memory, by copying 256 MB."""
    block = torch.empty(256 << 20, dtype=torch.uint8, device=device)
    seconds = take_turns({"copy": block.clone}, 5, lambda: synchronize(device))["copy"]
    return 2 * block.numel() / median(seconds)


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def decoder_bytes(model: Stage2Model) -> int:
    """What one token reads: the decoder's weights and lm_head, not the embeddings it picks one row of."""
    language = model.language_model.model
    parts = [language.get_decoder()] + ([] if language.config.model_type == "opt" else [language.lm_head])
    tensors = {id(t): t for part in parts for t in [*part.parameters(), *part.buffers()]}
    embeddings = id(language.get_input_embeddings().weight) if language.config.model_type != "opt" else None
    return sum(t.numel() * t.element_size() for key, t in tensors.items() if key != embeddings)


def measure(model: Stage2Model, rival: Rival, device: str, tokens: int, rounds: int, compare: bool) -> None:
    """Print the table. Raises SystemExit when the ids differ."""
    language, encoder = model.language_model, model.image_encoder
    picture = draw(sample_scene(7, 3), encoder.image_size)
    dtype = next(encoder.parameters()).dtype
    pixels = encoder.preprocess([picture]).to(dtype)
    texts = [language.prompt_texts([question]) for question in QUESTIONS]
    eight = language.prompt_texts([QUESTIONS[i % 2] for i in range(8)])
    decoding = Decoding(num_beams=1, max_new_tokens=tokens, min_new_tokens=tokens)
    image_cache = ImageCache(model)

    def ours(text: Text, fresh: bool, first_only: bool = False) -> list[int]:
        if fresh:
            image_cache._encoded.clear()
        steps = language.stream_ids(image_cache.encode(picture).visual_prompt, text, decoding)
        return [next(steps)[0]] if first_only else [token for token, _ in steps]

    @torch.no_grad()
    def ours_eight() -> list[list[int]]:
        return language.generate_ids(model.encode_image(pixels).expand(8, -1, -1), eight, decoding)

    @torch.no_grad()
    def static_eight() -> None:
        """The same with room for every key and value from the start, which `generate_ids` does not offer."""
        embeddings, mask = language.prepend(model.encode_image(pixels).expand(8, -1, -1), eight)
        settings = dict(max_new_tokens=tokens, min_new_tokens=tokens, num_beams=1, do_sample=False)
        language.model.generate(
            inputs_embeds=embeddings, attention_mask=mask, cache_implementation="static", **settings
        )

    firsts: list[float] = []

    def theirs_first() -> None:
        streamer = FirstToken(language.model.config.is_encoder_decoder)
        rival.ask(pixels, texts[0], 1, streamer)
        firsts.append(streamer.seconds)

    with torch.no_grad():
        if compare:
            same = [ours(text, True) == rival.ask(pixels, text, tokens)[0] for text in texts]
            same.append(ours_eight() == rival.ask(pixels.expand(8, -1, -1, -1), eight, tokens))
            if not all(same):
                raise SystemExit(f"the ids differ: first, second, eight at once: {same}")
            print("  the same ids from both")
        pairs = {
            "first word, first question": (lambda: ours(texts[0], True, True), theirs_first, 1),
            "first word, second question": (lambda: ours(texts[1], False, True), theirs_first, 1),
            "answer, first question": (
                lambda: ours(texts[0], True),
                lambda: rival.ask(pixels, texts[0], tokens),
                tokens,
            ),
            "answer, second question": (
                lambda: ours(texts[1], False),
                lambda: rival.ask(pixels, texts[1], tokens),
                tokens,
            ),
            "eight answers at once": (
                ours_eight,
                lambda: rival.ask(pixels.expand(8, -1, -1, -1), eight, tokens),
                8 * tokens,
            ),
        }
        print(f"  {'':28}{'ours':>10}{'transformers':>14}{'tokens/s':>10}{'':>10}   ratio")
        for name, (our_step, their_step, made) in pairs.items():
            seconds = take_turns({"ours": our_step, "theirs": their_step}, rounds, lambda: synchronize(device))
            a, b = median(seconds["ours"]), median(seconds["theirs"])
            speed = f"{made / a:10.1f}{made / b:10.1f}" if made > 1 else f"{'':20}"
            faster = ratio(seconds["theirs"], seconds["ours"])
            print(f"  {name:28}{1000 * a:7.1f} ms{1000 * b:11.1f} ms{speed}   {faster}")
        caches = take_turns({"static": static_eight, "growing": ours_eight}, rounds, lambda: synchronize(device))
        static, growing = (1000 * median(caches[kind]) for kind in ("static", "growing"))
        print(f"  eight at once with a static cache {static:.1f} ms, with one that grows {growing:.1f} ms")
    read = decoder_bytes(model)
    bound = bandwidth(device) / read
    print(
        f"  bound: {read / 1e6:,.0f} MB of decoder weights a token, at most {bound:,.0f} tokens/s one answer at a time"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="micro")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quantize", choices=["none", "int8", "int8-all", "nf4"], default="none")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--tokens", type=int, default=20, help="of every answer (default 20)")
    parser.add_argument("--rounds", type=int, default=7, help="of each measurement (default 7)")
    parser.add_argument("--compile", action="store_true", help="our decoder, before the clock runs")
    args = parser.parse_args()
    options = {name: getattr(args, name) for name in ("device", "quantize", "dtype", "compile")}
    model = blip2_lab.load(args.model, **options)
    quantized, on_cpu = args.quantize != "none", args.device == "cpu"
    rival_bits = None if on_cpu or not quantized else args.quantize.removesuffix("-all")
    dtype = next(p.dtype for n, p in model.image_encoder.named_parameters() if p.is_floating_point() and "norm" in n)
    rival = Rival(find_model(args.model), args.device, dtype, rival_bits)
    against = f"transformers {rival_bits or str(dtype).removeprefix('torch.')}"
    compiled = ", compiled" if args.compile else ""
    title = f"{args.model}, {args.device}, quantize {args.quantize}{compiled}, {args.tokens} tokens; {against}"
    with heading(f"{title}, {torch.get_num_threads()} threads"):
        measure(model, rival, args.device, args.tokens, args.rounds, compare=not quantized)


if __name__ == "__main__":
    main()
