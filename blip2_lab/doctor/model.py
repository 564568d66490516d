"""Self-checks of a model, before an answer of it is trusted.

What is unusual about it:

* Wrong weights still talk. So nothing is judged by how an answer sounds: numbers are compared with the files they came
  from (doctor/layers.py), with a float32 reference, with themselves in another batch and with another kernel.
* Both kinds of models are examined, each by what it gives: a Stage2Model by the logits of its answers, a Stage1Model
  (retrieval) by its embeddings and its verdicts on pairs.
* The reference is stored with the shipped model (`--remember` writes it). For any other, every layer runs once more in
  float32 on the very input it had, with its weights read from the files: what quantization costs, layer by layer.
* A red line says which part is wrong and what to do, in one sentence; a yellow one what could not be checked, and why.

    blip2-lab doctor micro
    blip2-lab doctor Salesforce/blip2-flan-t5-xxl --device cuda --quantize int8
    blip2-lab doctor Salesforce/blip2-itm-vit-g
    blip2-lab doctor blip2_pretrained.pth

Paper: sections 3.1 to 3.4. Notebook: 12.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blip2_lab.checkpoints import files, load
from blip2_lab.checkpoints.key_maps import FROZEN
from blip2_lab.doctor.finding import Finding
from blip2_lab.doctor.layers import (
    TOLERANCE,
    Model,
    apart,
    bad,
    files_are_whole,
    good,
    judged,
    layer_by_layer,
    loaded_as_written,
    parts,
    tensors_of,
    tolerance,
    unchecked,
)
from blip2_lab.models.decoding import Decoding
from blip2_lab.models.language_model import pad
from blip2_lab.models.quantize import check_method, is_quantized_layer
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene

REFERENCE = "doctor.safetensors"
QUESTIONS = ("what color is the boat?", "is it day?", "how many things are there in the picture?")
CAPTIONS = ("a red boat.", "a picture of two houses at night.", "a cat.")
LIBRARIES = (("torch", (2, 11), (3,)), ("transformers", (5, 17), (6,)), ("bitsandbytes", (0, 49), (1,)))
GREEDY = Decoding(num_beams=1, max_new_tokens=8, min_new_tokens=0)
MORE_PADDING = 4  #: columns put behind a text that must change nothing
#: What a model with a missing or misplaced part raises when it runs.
BROKEN = (AttributeError, RuntimeError, IndexError, TypeError, ValueError)


def open_model(name: str | Path, *, device: str, quantize: str | None, dtype: str | None) -> tuple[Model, Path]:
    """Load a model of any layout, and say where it lies. Raises ValueError."""
    options = dict(device=load.check_device(device), quantize=check_method(quantize), dtype=load.check_dtype(dtype))
    path = load.find_model(name, **options)
    return load.load(path, **options), path


@torch.no_grad()
def diagnose_model(model: Model, path: Path | None = None) -> list[Finding]:
    """Every check, in order. `path`: the folder or LAVIS file that the model was loaded from, to compare with."""
    pixels = fixed_pixels(model)
    still = [versions(), precision(model), finite_weights(model), layer_norms(model), query_tokens(model)]
    if path is not None:
        still.insert(2, files_are_whole(model, path))
    try:
        still.append(finite_activations(model, pixels))
    except BROKEN as error:
        still.append(bad("activations", _does_not_run(error)))
        return [
            *still,
            *against_files(model, path, None),
            *(unchecked(about, "the model does not run.") for about in RUNNING),
        ]
    if isinstance(model, Stage1Model) and model.tokenizer is None:
        still.append(unchecked("tokenizer", "there is none in the files, so fixed numbers stand for the captions."))
    return [*still, *against_files(model, path, pixels), *(check(model, pixels) for check in RUNNING.values())]


def against_files(model: Model, path: Path | None, pixels: Tensor | None) -> list[Finding]:
    """The weights, and what they compute (`pixels` None: it computes nothing)."""
    written, computed = "weights as in the files", "float32, layer by layer"
    if path is None:
        return [unchecked(about, "the model's files were not given.") for about in (written, computed)]
    try:
        named = tensors_of(model, path)
    except ValueError as error:
        return [unchecked(about, str(error)) for about in (written, computed)]
    findings = [loaded_as_written(model, named)]
    if pixels is None:
        return [*findings, unchecked(computed, "the model does not run.")]
    if (path / REFERENCE).is_file():
        return [*findings, reference(model, path / REFERENCE)]
    findings.append(layer_by_layer(computed, model, named, lambda: run(model, pixels)))
    guest = getattr(model, "stage1", None)
    own = {name.removeprefix("stage1."): t for name, t in named.items() if name.startswith(("stage1.", *FROZEN))}
    if guest is None:
        return findings
    computed = "stage 1, layer by layer"
    try:
        return [*findings, layer_by_layer(computed, guest, own, lambda: run(guest, pixels))]
    except BROKEN as error:
        return [*findings, bad(computed, _does_not_run(error))]


# --- The same input for every model ---------------------------------------------------------------------------------


def fixed_pixels(model: Model) -> Tensor:
    """Three drawn scenes, pixels [3,3,H,W]."""
    encoder = model.image_encoder
    scenes = [draw(sample_scene(0, i), encoder.image_size) for i in range(3)]
    return encoder.preprocess(scenes).to(next(encoder.parameters()).dtype)


def fixed_prompts(model: Stage2Model) -> list[str]:
    return [model.language_model.question_prompt.format(question) for question in QUESTIONS]


def fixed_texts(model: Stage1Model) -> tuple[Tensor, Tensor]:
    """The captions as input_ids and attention_mask, long[3,T]; without a tokenizer, fixed numbers of such lengths."""
    if model.tokenizer is not None:
        return model.tokenize(list(CAPTIONS))
    vocab_size, generator = model.qformer.config.vocab_size, torch.Generator().manual_seed(0)
    rows = [torch.randint(1, vocab_size, (length,), generator=generator).tolist() for length in (5, 9, 4)]
    text = pad(rows, model.qformer.config.pad_token_id, device=model.device)
    return text.ids, text.mask.long()


def run(model: Model, pixels: Tensor) -> dict[str, Tensor]:
    """One pass through every part, for the fixed input: the logits of an answer, or what a Stage1Model gives."""
    features = model.image_encoder(pixels)
    if isinstance(model, Stage1Model):
        return match(model, features, *fixed_texts(model))
    texts = model.language_model.pair_texts(fixed_prompts(model), list(CAPTIONS))
    return {"answer_logits": model.language_model.answer_logits(model.visual_prompt(features), *texts).float()}


def match(stage1: Stage1Model, features: Tensor, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """image_features [B,N,Dv] and texts [B,T] -> image_embeds [B,Q,E], text_embeds [B,E] and itm_logits [B,2]."""
    return {
        "image_embeds": stage1.embed_image(features),
        "text_embeds": stage1.embed_text(ids, mask),
        "itm_logits": stage1.itm_logits(stage1.qformer.read_image(features), ids, mask),
    }


def _first_logits(model: Stage2Model, visual_prompt: Tensor, prompts: list[str]) -> Tensor:
    """[B,V]: what the first word of each answer is chosen from."""
    return model.language_model.first_logits(visual_prompt, model.language_model.prompt_texts(prompts))[0].float()


def _farthest(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    return max(apart(ours[name], theirs[name]) for name in theirs)


def _does_not_run(error: Exception) -> str:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"the model does not run ({reason}), so a part of it is broken."


# --- What stands still ----------------------------------------------------------------------------------------------


def versions() -> Finding:
    found, wrong = [f"Python {platform.python_version()}"], []
    for name, least, below in LIBRARIES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = "none"
        found.append(f"{name} {version}")
        numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
        if name != "bitsandbytes" and not least <= numbers < below:
            wrong.append(f"{name} {version} is outside what was tested ({'.'.join(map(str, least))} or newer)")
    return bad("versions", "; ".join(wrong) + ".") if wrong else good("versions", ", ".join(found))


def precision(model: Model) -> Finding:
    """The type of every part; FlanT5's wo in float16 is the one that breaks answers."""
    found = []
    for name, part in model.named_children():
        kinds = {str(p.dtype).removeprefix("torch.") for p in part.parameters() if p.is_floating_point()}
        kinds |= {type(m).__name__ for m in part.modules() if is_quantized_layer(m)}
        if kinds:
            found.append(f"{name} {'/'.join(sorted(kinds))}")
    half = [n for n, p in model.named_parameters() if ".wo." in n and p.dtype == torch.float16]
    if half:
        return bad(
            "precision",
            f"{len(half)} wo of FlanT5 are float16, too narrow for what they give: load with --dtype bfloat16.",
        )
    return good("precision", ", ".join(found))


def finite_weights(model: Model) -> Finding:
    named = ((prefix + name, p) for prefix, part in parts(model).items() for name, p in part.named_parameters())
    wrong = [name for name, p in named if p.is_floating_point() and not torch.isfinite(p).all()]
    if wrong:
        return bad("weights", f"{len(wrong)} hold NaN or infinity, first {wrong[0]}: fetch or train the model again.")
    return good("weights", "all finite")


def layer_norms(model: Model) -> Finding:
    """Every norm's name stands for a norm, but for the one that the Q-Former took over (`image_layer_norm`)."""
    names = [(prefix + name, m) for prefix, part in parts(model).items() for name, m in part.named_modules()]
    named = [(n, m) for n, m in names if n.rpartition(".")[2].endswith(("layer_norm", "layernorm", "norm1", "norm2"))]
    named = [(n, m) for n, m in named if not n.endswith("image_encoder.model.post_layernorm")]
    wrong = [name for name, module in named if getattr(module, "weight", None) is None]
    if wrong:
        what = f"{wrong[0]} is missing" if len(wrong) == 1 else f"{len(wrong)} are missing, first {wrong[0]}"
        return bad("LayerNorms", f"{what}: something put nothing in its place, so what follows sees the wrong scale.")
    return good("LayerNorms", f"{len(named)} in place")


def query_tokens(model: Model) -> Finding:
    tokens = model.qformer.query_tokens.float()[0]
    spread = tokens.std(dim=0).mean() / tokens.abs().mean().clamp(min=1e-12)
    if spread < 1e-3:
        return bad(
            "query tokens",
            "all are equal, so the Q-Former asks one question of the picture and no more: they were zeroed, or never "
            "loaded (transformers starts them from zeros).",
        )
    return good("query tokens", f"{len(tokens)}, all different")


# --- Against a stored reference -------------------------------------------------------------------------------------


def reference_numbers(model: Model) -> dict[str, Tensor]:
    """What is stored and compared: outputs of every part for the fixed input, in the order of computation."""
    features = model.image_encoder(fixed_pixels(model))
    numbers = {"image_features": features}
    if isinstance(model, Stage2Model):
        visual_prompt, prompts = model.visual_prompt(features), fixed_prompts(model)
        logits = [_first_logits(model, visual_prompt[i : i + 1], prompts[i : i + 1]) for i in range(len(prompts))]
        numbers |= {"visual_prompt": visual_prompt, "first_logits": torch.cat(logits)}
    stage1 = model if isinstance(model, Stage1Model) else model.stage1
    if stage1 is not None:
        numbers |= match(stage1, features, *fixed_texts(stage1))
    return {name: tensor.float().cpu().contiguous() for name, tensor in numbers.items()}


@torch.no_grad()
def remember(model: Model, folder: Path) -> Path:
    """Store this model's numbers as the reference of its folder. Raises ValueError where that cannot be."""
    from safetensors.torch import save_file

    if tolerance(model) > TOLERANCE[torch.float32]:
        raise ValueError("A reference is made in float32: load the model without --quantize, with --dtype float32.")
    apart_from_weights = (folder / files.SINGLE_FILE).is_file() or any(folder.glob("*.index.json"))
    if not (folder / "config.json").is_file() or not apart_from_weights:
        raise ValueError(
            f"A reference lies beside {files.SINGLE_FILE} in transformers' layout, and in {folder} it would be taken "
            "for weights: write the model anew with `save_pretrained`."
        )
    save_file(reference_numbers(model), folder / REFERENCE)
    return folder / REFERENCE


def reference(model: Model, file: Path) -> Finding:
    from safetensors.torch import load_file

    about = "float32 reference"
    stored = load_file(file)
    try:
        numbers = reference_numbers(model)
    except BROKEN as error:
        return bad(about, _does_not_run(error))
    if {n: t.shape for n, t in stored.items()} != {n: t.shape for n, t in numbers.items()}:
        return bad(about, f"{file.name} was made with a model of another shape: make it anew with --remember.")
    distances = {name: apart(numbers[name], stored[name]) for name in numbers}
    first = next((name for name, distance in distances.items() if distance > tolerance(model)), None)
    if first is not None:
        return bad(
            about,
            f"{first.replace('_', ' ')} are {distances[first]:.1e} apart, all before them is right: a weight or rule "
            "of that part has changed.",
        )
    return good(about, f"at most {max(distances.values()):.1e} apart")


# --- What runs ------------------------------------------------------------------------------------------------------


def finite_activations(model: Model, pixels: Tensor) -> Finding:
    """The first module whose output is not finite, in the order of computation. Raises what a broken model raises."""
    about, first = "activations", []

    def look(name: str) -> Callable:
        def hook(_, __, output) -> None:
            value = output[0] if isinstance(output, tuple) and output else output
            if (
                not first
                and isinstance(value, Tensor)
                and value.is_floating_point()
                and not torch.isfinite(value).all()
            ):
                first.append((name, value.dtype))

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    hooks = [module.register_forward_hook(look(name)) for name, module in leaves]
    try:
        run(model, pixels)
    finally:
        for hook in hooks:
            hook.remove()
    if not first:
        return good(about, "all finite")
    name, dtype = first[0]
    kind = str(dtype).removeprefix("torch.")
    advice = "load with --dtype bfloat16" if dtype == torch.float16 else "its input or its weights are broken"
    return bad(about, f"{name} gives NaN or infinity in {kind}: {advice}.")


def padding(model: Model, pixels: Tensor) -> Finding:
    """Encoders pad on the right, decoders on the left: an answer goes on where its prompt ends. Retrieval's texts: what
    stands behind them is read by nobody."""
    if isinstance(model, Stage1Model):
        return _text_padding(model, pixels)
    language = model.language_model
    mask = language.prompt_texts([QUESTIONS[1], QUESTIONS[2]]).mask[0]
    right = bool(mask[0]) and not bool(mask[-1])
    encodes = language.model.config.is_encoder_decoder
    kind, side = ("an encoder-decoder", "right") if encodes else ("a decoder", "left")
    if right != encodes:
        return bad("padding", f"{kind} pads its prompts on the {side}, and this one does not: batches go wrong.")
    return good("padding", f"on the {side}, as {kind} needs it")


def _text_padding(model: Stage1Model, pixels: Tensor) -> Finding:
    """Each text alone, against the same beside longer ones with still more padding behind."""
    features, (ids, mask) = model.image_encoder(pixels), fixed_texts(model)
    more = F.pad(ids, (0, MORE_PADDING), value=model.qformer.config.pad_token_id), F.pad(mask, (0, MORE_PADDING))
    rows = []
    for i, caption in enumerate(CAPTIONS):
        length = int(mask[i].sum())
        alone = model.tokenize([caption]) if model.tokenizer else (ids[i : i + 1, :length], mask[i : i + 1, :length])
        rows.append(match(model, features[i : i + 1], *alone))
    alone = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    wrong = "a text's scores depend on its padding, which belongs behind it with zeros in the attention mask."
    return judged("padding", _farthest(match(model, features, *more), alone), tolerance(model), wrong)


def batch_is_single(model: Model, pixels: Tensor) -> Finding:
    """All three at once, against one by one from the picture on."""
    wrong = "what it says depends on what else is in the batch, as it does when padding is read or on the wrong side."
    rows = [slice(0, 3), *(slice(i, i + 1) for i in range(3))]
    if isinstance(model, Stage1Model):
        ids, mask = fixed_texts(model)
        together, *each = (match(model, model.image_encoder(pixels[r]), ids[r], mask[r]) for r in rows)
    else:
        prompts = fixed_prompts(model)
        seen = ((model.visual_prompt(model.image_encoder(pixels[r])), prompts[r]) for r in rows)
        together, *each = ({"first_logits": _first_logits(model, *one)} for one in seen)
    alone = {name: torch.cat([one[name] for one in each]) for name in together}
    return judged("batch = single", _farthest(together, alone), tolerance(model), wrong)


@contextmanager
def _written_out(model: Model) -> Iterator[None]:
    """While inside, no attention is fused: softmax is a step of its own in every part."""
    frozen = [model.image_encoder.model] + ([model.language_model.model] if isinstance(model, Stage2Model) else [])
    before = [part.config._attn_implementation for part in frozen]
    softmaxes = [m for m in model.qformer.modules() if isinstance(m, nn.Softmax)]
    hooks = [softmax.register_forward_hook(lambda *_: None) for softmax in softmaxes]  # watched: written out
    try:
        for part in frozen:
            part.set_attn_implementation("eager")
        yield
    finally:
        for part, implementation in zip(frozen, before, strict=True):
            part.set_attn_implementation(implementation)
        for hook in hooks:
            hook.remove()


def kernels_agree(model: Model, pixels: Tensor) -> Finding:
    """Fused attention against softmax written out, in all parts."""
    fused = run(model, pixels)
    with _written_out(model):
        eager = run(model, pixels)
    wrong = "the fused attention of this device and version is not to be trusted; take another torch."
    return judged("fused = written out", _farthest(fused, eager), tolerance(model), wrong)


def repeatable(model: Model, pixels: Tensor) -> Finding:
    """The same again, to the bit (retrieval) or the letter (greedy answers, streamed too)."""
    about = "repeats"
    if isinstance(model, Stage1Model):
        first, second = run(model, pixels), run(model, pixels)
        if all(torch.equal(first[name], second[name]) for name in first):
            return good(about, "the same numbers each time")
        return bad(about, "the same input got two scores: dropout is on (`model.eval()`), or a kernel is at fault.")
    seen, prompts = model.visual_prompt(model.image_encoder(pixels)), fixed_prompts(model)
    language = model.language_model
    first, second = language.generate(seen, prompts, GREEDY), language.generate(seen, prompts, GREEDY)
    streamed = "".join(token.text for token in language.stream(seen[:1], prompts[0], GREEDY)).strip()
    alone = language.generate(seen[:1], prompts[:1], GREEDY)[0]
    if first != second:
        return bad(about, "the same question got two answers: a kernel here is not deterministic.")
    if streamed != alone:
        return bad(about, f"streamed {streamed!r} is not what generating gives, {alone!r}.")
    return good(about, f"{alone!r} each time, streamed too")


RUNNING = {
    "padding": padding,
    "batch = single": batch_is_single,
    "fused = written out": kernels_agree,
    "repeats": repeatable,
}


def table(findings: list[Finding]) -> str:
    """Green, yellow (not checked) and red, one line for each check."""
    width = max(len(finding.about) for finding in findings)
    marks = {"good": "\033[32m green \033[0m", "wait": "\033[33m   ?   \033[0m", "bad": "\033[31m  red  \033[0m"}
    lines = [f"{marks[f.state]} {f.about:{width}}  {f.says}" for f in findings]
    red, waiting = (sum(finding.state == state for finding in findings) for state in ("bad", "wait"))
    verdict = f"{red} red: do not trust its answers yet." if red else "No red." if waiting else "All green."
    return "\n".join([*lines, "", verdict + (f" {waiting} could not be checked." if waiting else "")])
