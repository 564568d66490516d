"""Self-checks of a model: its files, its weights, what it computes.

`diagnose_model` runs every check; `model_report` prints the findings.

    blip2-lab doctor micro
    blip2-lab doctor Salesforce/blip2-flan-t5-xxl --device cuda --quantize int8
    blip2-lab doctor Salesforce/blip2-itm-vit-g
    blip2-lab doctor blip2_pretrained.pth

Notes:

* A model with wrong weights still generates fluent text, so no check judges answers. Outputs are compared with the
  files (doctor/layers.py), with a float32 reference, with other batch sizes and with other kernels.
* A Stage2Model is compared by the logits of its answers, a Stage1Model (retrieval) by its embeddings and ITM logits.
* The reference is stored with the shipped model (`--remember` writes it). For any other model, each layer runs once
  more in float32 on its recorded input, with its weights from the files, which measures the error of quantization by
  layer.
* A red line names the faulty part and what to do; a yellow line names what could not be checked, and why.

Paper: sections 3.1 to 3.4. Notebook: 12.
"""

from __future__ import annotations

import math
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
from blip2_lab.common.files import make_readable
from blip2_lab.doctor.finding import Finding
from blip2_lab.doctor.layers import (
    TOLERANCE,
    Model,
    bad,
    files_are_whole,
    good,
    judge_distance,
    layer_by_layer,
    loaded_as_written,
    models_by_prefix,
    relative_distance,
    tensors_of,
    tolerance,
    unchecked,
)
from blip2_lab.doctor.own_images import what_it_learned
from blip2_lab.models.attention_kernels import kernels_text, recorded_kernels
from blip2_lab.models.bridges import DualEncoder, GatedCrossAttention, QFormerBridge
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
EXTRA_PADDING = 4  #: columns of padding after a text, which must not change the result
#: Errors of a forward pass of a model with a missing or misplaced module.
RUN_ERRORS = (AttributeError, RuntimeError, IndexError, TypeError, ValueError)


def open_model(name: str | Path, *, device: str, quantize: str | None, dtype: str | None) -> tuple[Model, Path]:
    """Load a model of any layout -> the model and its path. Raises ValueError."""
    options = dict(device=load.check_device(device), quantize=check_method(quantize), dtype=load.check_dtype(dtype))
    path = load.find_model(name, **options)
    model = load.load(path, **options)
    if isinstance(model, DualEncoder):
        raise ValueError(
            f"{name} is a dual encoder: the doctor checks the folder of its training run, but not the model itself."
        )
    return model, path


@torch.no_grad()
def diagnose_model(model: Model, path: Path | None = None) -> list[Finding]:
    """Run every check, in order. `path`: the folder or LAVIS file from which the model was loaded."""
    pixels = fixed_pixels(model)
    findings = [versions(), precision(model), finite_weights(model), layer_norms(model), *bridge_is_alive(model)]
    if path is not None:
        findings.insert(2, files_are_whole(model, path))
        findings += what_it_learned(path)
    try:
        findings.append(finite_activations(model, pixels))
    except RUN_ERRORS as error:
        findings.append(bad("activations", _does_not_run(error)))
        return [
            *findings,
            *against_files(model, path, None),
            *(unchecked(about, "the model does not run.") for about in FORWARD_CHECKS),
        ]
    if isinstance(model, Stage1Model) and model.tokenizer is None:
        findings.append(unchecked("tokenizer", "there is none in the files, so fixed numbers stand for the captions."))
    return [
        *findings,
        *against_files(model, path, pixels),
        *(check(model, pixels) for check in FORWARD_CHECKS.values()),
    ]


def against_files(model: Model, path: Path | None, pixels: Tensor | None) -> list[Finding]:
    """Compare weights and outputs with the files; `pixels` is None if the model does not run."""
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
    stage1 = getattr(model, "stage1", None)
    own = {name.removeprefix("stage1."): t for name, t in named.items() if name.startswith(("stage1.", *FROZEN))}
    if stage1 is None:
        return findings
    computed = "stage 1, layer by layer"
    try:
        return [*findings, layer_by_layer(computed, stage1, own, lambda: run(stage1, pixels))]
    except RUN_ERRORS as error:
        return [*findings, bad(computed, _does_not_run(error))]


# --- A fixed input for every model ----------------------------------------------------------------------------------


def fixed_pixels(model: Model) -> Tensor:
    """Three drawn scenes, pixels [3,3,H,W]."""
    encoder = model.image_encoder
    scenes = [draw(sample_scene(0, i), encoder.image_size) for i in range(3)]
    return encoder.preprocess(scenes).to(next(encoder.parameters()).dtype)


def fixed_prompts(model: Stage2Model) -> list[str]:
    return [model.language_model.question_prompt.format(question) for question in QUESTIONS]


def fixed_texts(model: Stage1Model) -> tuple[Tensor, Tensor]:
    """The captions as input_ids and attention_mask, long[3,T]; without a tokenizer, fixed ids of similar lengths."""
    if model.tokenizer is not None:
        return model.tokenize(list(CAPTIONS))
    vocab_size, generator = model.qformer.config.vocab_size, torch.Generator().manual_seed(0)
    rows = [torch.randint(1, vocab_size, (length,), generator=generator).tolist() for length in (5, 9, 4)]
    text = pad(rows, model.qformer.config.pad_token_id, device=model.device)
    return text.ids, text.mask.long()


def run(model: Model, pixels: Tensor) -> dict[str, Tensor]:
    """A forward pass of the fixed input through all parts: logits of an answer, or the outputs of a Stage1Model."""
    features = model.image_encoder(pixels)
    if isinstance(model, Stage1Model):
        return stage1_outputs(model, features, *fixed_texts(model))
    texts = model.language_model.pair_texts(fixed_prompts(model), list(CAPTIONS))
    return {"answer_logits": model.language_model.answer_logits(model.visual_prompt(features), *texts).float()}


def stage1_outputs(stage1: Stage1Model, features: Tensor, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """image_features [B,N,Dv] and texts [B,T] -> image_embeds [B,Q,E], text_embeds [B,E] and itm_logits [B,2]."""
    return {
        "image_embeds": stage1.embed_image(features),
        "text_embeds": stage1.embed_text(ids, mask),
        "itm_logits": stage1.itm_logits(stage1.qformer.read_image(features), ids, mask),
    }


def _first_logits(model: Stage2Model, visual_prompt: Tensor, prompts: list[str]) -> Tensor:
    """[B,V]: the logits of the first token of each answer."""
    return model.language_model.first_logits(visual_prompt, model.language_model.prompt_texts(prompts))[0].float()


def _largest_distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    return max(relative_distance(ours[name], theirs[name]) for name in theirs)


def _does_not_run(error: Exception) -> str:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"the model does not run ({reason}), so a part of it is broken."


# --- Checks of the weights -------------------------------------------------------------------------------------------


def versions() -> Finding:
    found, wrong = [f"Python {platform.python_version()}"], []
    for name, least, below in LIBRARIES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = "none"
        found.append(f"{name} {version}")
        numbers = tuple(int(number) for number in version.split("+")[0].split(".")[:2] if number.isdigit())
        if name != "bitsandbytes" and not least <= numbers < below:
            wrong.append(f"{name} {version} is outside what was tested ({'.'.join(map(str, least))} or newer)")
    return bad("versions", "; ".join(wrong) + ".") if wrong else good("versions", ", ".join(found))


def precision(model: Model) -> Finding:
    """The dtype of every part. FlanT5's `wo` in float16 overflows."""
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
    named = (
        (prefix + name, p) for prefix, part in models_by_prefix(model).items() for name, p in part.named_parameters()
    )
    wrong = [name for name, p in named if p.is_floating_point() and not torch.isfinite(p).all()]
    if wrong:
        return bad(
            "weights", f"{len(wrong)} hold NaN or infinity, first {wrong[0]}: download or train the model again."
        )
    return good("weights", "all finite")


def layer_norms(model: Model) -> Finding:
    """Every module named as a norm has a weight, except the one that moved to the Q-Former (`image_layer_norm`)."""
    names = [(prefix + name, m) for prefix, part in models_by_prefix(model).items() for name, m in part.named_modules()]
    named = [(n, m) for n, m in names if n.rpartition(".")[2].endswith(("layer_norm", "layernorm", "norm1", "norm2"))]
    named = [(n, m) for n, m in named if not n.endswith("image_encoder.model.post_layernorm")]
    if not named:
        return bad("LayerNorms", "none is found, and every transformer has some: something took their place.")
    wrong = [name for name, module in named if getattr(module, "weight", None) is None]
    if wrong:
        what = f"{wrong[0]} is missing" if len(wrong) == 1 else f"{len(wrong)} are missing, first {wrong[0]}"
        return bad("LayerNorms", f"{what}: something put nothing in its place, so what follows sees the wrong scale.")
    return good("LayerNorms", f"{len(named)} in place")


def bridge_is_alive(model: Model) -> list[Finding]:
    """What can be seen from the bridge's weights alone: its queries or latents differ, its gates are open. A linear
    projector has none of these."""
    bridge = getattr(model, "bridge", None)
    if bridge is None or isinstance(bridge, QFormerBridge):
        return [different_vectors("query tokens", model.qformer.query_tokens[0])]
    found = []
    if getattr(bridge, "resampler", None) is not None:
        found.append(different_vectors("latents", bridge.resampler.latents))
    if bridge.deep_fusion:
        found.append(gates(bridge))
    return found


def gates(bridge: GatedCrossAttention) -> Finding:
    """A gate at 0 lets nothing of the image through; all at 0 are a model that was never trained."""
    opened = [abs(torch.tanh(block.attention_gate.float()).item()) for block in bridge.blocks]
    if not all(map(math.isfinite, opened)):
        return bad("gates", "some are not a number: train the bridge again, or load it again.")
    if not any(opened):
        return bad("gates", "all are 0, so no answer depends on the image: the bridge was not trained, or not loaded.")
    return good("gates", f"{sum(map(bool, opened))} of {len(opened)} open, tanh(gate) at most {max(opened):.2f}")


def different_vectors(about: str, vectors: Tensor) -> Finding:
    """vectors [Q,D]: learned query tokens, or a resampler's latents."""
    tokens = vectors.float()
    if not tokens.isfinite().all():
        return bad(about, "some hold NaN or infinity: train the model again, or load it again.")
    spread = tokens.std(dim=0).mean() / tokens.abs().mean().clamp(min=1e-12)
    if spread < 1e-3:
        return bad(
            about,
            "all are equal, so the image is read by one of them only: they were zeroed, or not loaded (transformers "
            "initializes query tokens with zeros).",
        )
    return good(about, f"{len(tokens)}, all different")


# --- Against a stored reference -------------------------------------------------------------------------------------


def reference_numbers(model: Model) -> dict[str, Tensor]:
    """The outputs that are stored and compared: of every part for the fixed input, in the order of computation."""
    features = model.image_encoder(fixed_pixels(model))
    numbers = {"image_features": features}
    if isinstance(model, Stage2Model):
        visual_prompt, prompts = model.visual_prompt(features), fixed_prompts(model)
        logits = [_first_logits(model, visual_prompt[i : i + 1], prompts[i : i + 1]) for i in range(len(prompts))]
        numbers |= {"visual_prompt": visual_prompt, "first_logits": torch.cat(logits)}
    stage1 = model if isinstance(model, Stage1Model) else model.stage1
    if stage1 is not None:
        numbers |= stage1_outputs(stage1, features, *fixed_texts(stage1))
    return {name: tensor.float().cpu().contiguous() for name, tensor in numbers.items()}


@torch.no_grad()
def save_reference(model: Model, folder: Path) -> Path:
    """Store this model's outputs as the reference of its folder. Raises ValueError if it is not a float32 model in a
    folder of transformers' layout."""
    from safetensors.torch import save_file

    if tolerance(model) > TOLERANCE[torch.float32]:
        raise ValueError("A reference is made in float32: load the model without --quantize, with --dtype float32.")
    weights_have_fixed_names = (folder / files.SINGLE_FILE).is_file() or any(folder.glob("*.index.json"))
    if not (folder / "config.json").is_file() or not weights_have_fixed_names:
        raise ValueError(
            f"A reference lies beside {files.SINGLE_FILE} in transformers' layout, and in {folder} it would be taken "
            "for weights: write the model again with `blip2_lab.save`."
        )
    save_file(reference_numbers(model), folder / REFERENCE)
    make_readable(folder / REFERENCE)
    return folder / REFERENCE


def reference(model: Model, file: Path) -> Finding:
    from safetensors.torch import load_file

    about = "float32 reference"
    stored = load_file(file)
    try:
        numbers = reference_numbers(model)
    except RUN_ERRORS as error:
        return bad(about, _does_not_run(error))
    if {n: t.shape for n, t in stored.items()} != {n: t.shape for n, t in numbers.items()}:
        return bad(about, f"{file.name} was made with a model of another shape: make it again with --remember.")
    distances = {name: relative_distance(numbers[name], stored[name]) for name in numbers}
    first = next((name for name, distance in distances.items() if distance > tolerance(model)), None)
    if first is not None:
        return bad(
            about,
            f"{first.replace('_', ' ')} are {distances[first]:.1e} apart, all before them is right: a weight or rule "
            "of that part has changed.",
        )
    return good(about, f"at most {max(distances.values()):.1e} apart")


# --- Checks of the forward pass ---------------------------------------------------------------------------------------


def finite_activations(model: Model, pixels: Tensor) -> Finding:
    """Find the first module whose output is not finite, in the order of computation. Raises one of `RUN_ERRORS`."""
    about, first = "activations", []

    def hook_of(name: str) -> Callable:
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
    hooks = [module.register_forward_hook(hook_of(name)) for name, module in leaves]
    try:
        run(model, pixels)
    finally:
        for hook in hooks:
            hook.remove()
    if not first:
        return good(about, "all finite")
    name, dtype = first[0]
    kind = str(dtype).removeprefix("torch.")
    advice = "load with --dtype bfloat16" if dtype == torch.float16 else "its input or its weights are faulty"
    return bad(about, f"{name} gives NaN or infinity in {kind}: {advice}.")


def padding(model: Model, pixels: Tensor) -> Finding:
    """Encoders must pad prompts on the right, decoders on the left, because an answer follows its prompt. For a
    Stage1Model: padding must not change the outputs."""
    if isinstance(model, Stage1Model):
        return _text_padding(model, pixels)
    language = model.language_model
    mask = language.prompt_texts([QUESTIONS[1], QUESTIONS[2]]).mask[0]
    right = bool(mask[0]) and not bool(mask[-1])
    is_encoder_decoder = language.model.config.is_encoder_decoder
    kind, side = ("an encoder-decoder", "right") if is_encoder_decoder else ("a decoder", "left")
    if right != is_encoder_decoder:
        return bad("padding", f"{kind} pads its prompts on the {side}, and this one does not: batches go wrong.")
    return good("padding", f"on the {side}, as {kind} needs it")


def _text_padding(model: Stage1Model, pixels: Tensor) -> Finding:
    """Each text alone, against the same text in a batch with more padding."""
    features, (ids, mask) = model.image_encoder(pixels), fixed_texts(model)
    more = F.pad(ids, (0, EXTRA_PADDING), value=model.qformer.config.pad_token_id), F.pad(mask, (0, EXTRA_PADDING))
    rows = []
    for i, caption in enumerate(CAPTIONS):
        length = int(mask[i].sum())
        alone = model.tokenize([caption]) if model.tokenizer else (ids[i : i + 1, :length], mask[i : i + 1, :length])
        rows.append(stage1_outputs(model, features[i : i + 1], *alone))
    alone = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    wrong = "a text's scores depend on its padding, which belongs behind it with zeros in the attention mask."
    return judge_distance(
        "padding", _largest_distance(stage1_outputs(model, features, *more), alone), tolerance(model), wrong
    )


def batch_is_single(model: Model, pixels: Tensor) -> Finding:
    """All three examples in one batch, against one by one."""
    wrong = "its outputs depend on the rest of the batch, as they do when padding is attended to or on the wrong side."
    rows = [slice(0, 3), *(slice(i, i + 1) for i in range(3))]
    if isinstance(model, Stage1Model):
        ids, mask = fixed_texts(model)
        together, *each = (stage1_outputs(model, model.image_encoder(pixels[r]), ids[r], mask[r]) for r in rows)
    else:
        prompts = fixed_prompts(model)
        inputs = ((model.visual_prompt(model.image_encoder(pixels[r])), prompts[r]) for r in rows)
        together, *each = ({"first_logits": _first_logits(model, *one)} for one in inputs)
    alone = {name: torch.cat([one[name] for one in each]) for name in together}
    return judge_distance("batch = single", _largest_distance(together, alone), tolerance(model, both_here=True), wrong)


@contextmanager
def _written_out(model: Model) -> Iterator[None]:
    """Inside the block, all attentions run their eager kernels, with an explicit softmax."""
    frozen = [model.image_encoder.model] + ([model.language_model.model] if isinstance(model, Stage2Model) else [])
    before = [part.config._attn_implementation for part in frozen]
    bridge = model.bridge if isinstance(model, Stage2Model) else model.qformer
    softmaxes = [m for m in bridge.modules() if isinstance(m, nn.Softmax)]
    hooks = [
        softmax.register_forward_hook(lambda *_: None) for softmax in softmaxes
    ]  # with a hook, the eager path runs
    try:
        for part in frozen:
            part.set_attn_implementation("eager")
        yield
    finally:
        for part, implementation in zip(frozen, before, strict=True):
            part.set_attn_implementation(implementation)
        for hook in hooks:
            hook.remove()


def kernels_that_ran(model: Model, pixels: Tensor) -> Finding:
    """Which attention kernel each part used on this device: FlashAttention, for example."""
    found = {}
    with recorded_kernels() as found["image encoder"]:
        features = model.image_encoder(pixels)
    if isinstance(model, Stage1Model):
        with recorded_kernels() as found["Q-Former"]:
            stage1_outputs(model, features, *fixed_texts(model))
    else:
        with recorded_kernels() as found["bridge"]:
            visual_prompt = model.visual_prompt(features)
        with recorded_kernels() as found["language model"]:
            _first_logits(model, visual_prompt, fixed_prompts(model))
    return good("attention", "; ".join(f"{part}: {kernels_text(kernels)}" for part, kernels in found.items()))


def kernels_agree(model: Model, pixels: Tensor) -> Finding:
    """Fused attention against the eager kernels, in all parts."""
    fused = run(model, pixels)
    with _written_out(model):
        eager = run(model, pixels)
    wrong = "the fused attention of this device and version is not to be trusted; take another torch."
    return judge_distance("fused = written out", _largest_distance(fused, eager), tolerance(model), wrong)


def repeatable(model: Model, pixels: Tensor) -> Finding:
    """Two runs give bitwise equal outputs (retrieval) or equal text (greedy answers, streamed ones too)."""
    about = "repeats"
    if isinstance(model, Stage1Model):
        first, second = run(model, pixels), run(model, pixels)
        if all(torch.equal(first[name], second[name]) for name in first):
            return good(about, "the same numbers each time")
        return bad(about, "the same input got two scores: dropout is on (`model.eval()`), or a kernel is at fault.")
    visual_prompt, prompts = model.visual_prompt(model.image_encoder(pixels)), fixed_prompts(model)
    language = model.language_model
    first, second = language.generate(visual_prompt, prompts, GREEDY), language.generate(visual_prompt, prompts, GREEDY)
    streamed = "".join(token.text for token in language.stream(visual_prompt[:1], prompts[0], GREEDY)).strip()
    alone = language.generate(visual_prompt[:1], prompts[:1], GREEDY)[0]
    if first != second:
        return bad(about, "the same question got two answers: a kernel here is not deterministic.")
    if streamed != alone:
        return bad(about, f"streamed {streamed!r} is not what generating gives, {alone!r}.")
    return good(about, f"{alone!r} each time, streamed too")


FORWARD_CHECKS = {
    "padding": padding,
    "batch = single": batch_is_single,
    "attention": kernels_that_ran,
    "fused = written out": kernels_agree,
    "repeats": repeatable,
}


def model_report(findings: list[Finding]) -> str:
    """Findings for the terminal: green, yellow (not checked) or red, one line for each."""
    width = max(len(finding.about) for finding in findings)
    marks = {"good": "\033[32m green \033[0m", "wait": "\033[33m   ?   \033[0m", "bad": "\033[31m  red  \033[0m"}
    lines = [f"{marks[f.state]} {f.about:{width}}  {f.says}" for f in findings]
    red, waiting = (sum(finding.state == state for finding in findings) for state in ("bad", "wait"))
    verdict = f"{red} red: do not trust its answers yet." if red else "No red." if waiting else "All green."
    return "\n".join([*lines, "", verdict + (f" {waiting} could not be checked." if waiting else "")])
