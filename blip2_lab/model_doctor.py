"""Self-checks of a model, before an answer of it is trusted.

What is unusual about it:

* Wrong weights still talk. So nothing is judged by how an answer sounds: numbers are compared with the files they came
  from, with a float32 reference, with themselves in another batch and with another kernel.
* The reference is stored with the shipped model (`--remember` writes it). For any other, every layer runs once more in
  float32 on the very input it had, with its weights read from the files: what quantization costs, layer by layer.
* A red line says which part is wrong and what to do, in one sentence. Where a parameter holds what the file calls
  something else (swapped feed-forward towers), both names are given.

    blip2-lab doctor micro
    blip2-lab doctor Salesforce/blip2-flan-t5-xxl --device cuda --quantize int8

Paper: sections 3.1 to 3.4. Notebook: 12.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor, nn

from blip2_lab import weights
from blip2_lab.assemble import pour, skeleton
from blip2_lab.checkpoints import TRANSFORMERS_STAGE2, transformers_names
from blip2_lab.decoding import Decoding
from blip2_lab.doctor import Finding
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene
from blip2_lab.pretrained import read_config
from blip2_lab.quantize import is_quantized, is_quantized_layer
from blip2_lab.stage2 import Stage2Model

REFERENCE = "doctor.safetensors"
QUESTIONS = ("what color is the boat?", "is it day?", "how many things are there in the picture?")
CAPTIONS = ("a red boat.", "a picture of two houses at night.", "a cat.")
LIBRARIES = (("torch", (2, 11), (3,)), ("transformers", (5, 17), (6,)), ("bitsandbytes", (0, 49), (1,)))
#: How far numbers may be apart (relative, Euclidean): by the coarsest precision at work.
TOLERANCE = {torch.float32: 5e-3, torch.float16: 3e-2, torch.bfloat16: 0.1}
TOLERANCE_QUANTIZED = 0.3
GREEDY = Decoding(num_beams=1, max_new_tokens=8, min_new_tokens=0)


@torch.no_grad()
def diagnose_model(model: Stage2Model, folder: Path | None = None) -> list[Finding]:
    """Every check, in order. `folder`: where the model was loaded from, to compare with its files."""
    pixels, prompts = fixed_input(model)
    findings = [
        versions(),
        precision(model),
        *([files(folder)] if folder else []),
        finite_weights(model),
        layer_norms(model),
        query_tokens(model),
        finite_activations(model, pixels, prompts),
    ]
    if folder is not None:
        findings.append(loaded_as_written(model, folder))
        stored = folder / REFERENCE
        findings.append(
            reference(model, stored) if stored.is_file() else layer_by_layer(model, folder, pixels, prompts)
        )
    return [
        *findings,
        padding_side(model),
        batch_is_single(model, pixels, prompts),
        kernels_agree(model, pixels, prompts),
        repeatable(model, pixels, prompts),
    ]


def fixed_input(model: Stage2Model) -> tuple[Tensor, list[str]]:
    """The same three scenes and questions for every model: pixels [3,3,H,W] and prompts."""
    encoder = model.image_encoder
    scenes = [draw(sample_scene(0, i), encoder.image_size) for i in range(3)]
    pixels = encoder.preprocess(scenes).to(next(encoder.parameters()).dtype)
    return pixels, [model.language_model.question_prompt.format(question) for question in QUESTIONS]


def tolerance(model: Stage2Model) -> float:
    if is_quantized(model):
        return TOLERANCE_QUANTIZED
    return max(TOLERANCE.get(p.dtype, 0.0) for p in model.parameters())


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Relative distance; infinity where a number is none."""
    distance = (ours.float() - theirs.float()).norm() / theirs.float().norm().clamp(min=1e-12)
    return distance.item() if torch.isfinite(distance) else float("inf")


def _good(about: str, says: str) -> Finding:
    return Finding(about, "good", says)


def _bad(about: str, says: str) -> Finding:
    return Finding(about, "bad", says)


def _judged(about: str, distance: float, most: float, wrong: str) -> Finding:
    return _good(about, f"{distance:.1e} apart") if distance <= most else _bad(about, f"{distance:.1e} apart: {wrong}")


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
    return _bad("versions", "; ".join(wrong) + ".") if wrong else _good("versions", ", ".join(found))


def precision(model: Stage2Model) -> Finding:
    """The type of every part; FlanT5's wo in float16 is the one that breaks answers."""
    parts = []
    for name in ("image_encoder", "qformer", "language_projection", "language_model"):
        part = model.get_submodule(name)
        kinds = {str(p.dtype).removeprefix("torch.") for p in part.parameters() if p.is_floating_point()}
        kinds |= {type(m).__name__ for m in part.modules() if is_quantized_layer(m)}
        parts.append(f"{name} {'/'.join(sorted(kinds))}")
    half = [n for n, p in model.language_model.named_parameters() if ".wo." in n and p.dtype == torch.float16]
    if half:
        return _bad(
            "precision",
            f"{len(half)} wo of FlanT5 are float16, too narrow for what they give: load with --dtype bfloat16.",
        )
    return _good("precision", ", ".join(parts))


def files(folder: Path) -> Finding:
    """Files of the hub's cache are named by their SHA-256."""
    try:
        found = weights.weight_files(folder)
        weights.check_whole(found)
    except ValueError as error:
        return _bad("files", str(error))
    if wrong := weights.altered(found):
        return _bad("files", f"{', '.join(wrong)} changed since the download: delete them and fetch the model again.")
    return _good("files", f"{len(found)} whole")


def finite_weights(model: Stage2Model) -> Finding:
    parts = {"": model, "stage1.": model.stage1 or nn.Module()}
    named = ((prefix + name, p) for prefix, part in parts.items() for name, p in part.named_parameters())
    wrong = [name for name, p in named if p.is_floating_point() and not torch.isfinite(p).all()]
    if wrong:
        return _bad("weights", f"{len(wrong)} hold NaN or infinity, first {wrong[0]}: fetch or train the model again.")
    return _good("weights", "all finite")


def layer_norms(model: Stage2Model) -> Finding:
    """Every norm's name stands for a norm, but for the one that the Q-Former took over (`image_layer_norm`)."""
    parts = {"": model, "stage1.": model.stage1 or nn.Module()}
    names = [(prefix + name, m) for prefix, part in parts.items() for name, m in part.named_modules()]
    named = [(n, m) for n, m in names if n.rpartition(".")[2].endswith(("layer_norm", "layernorm", "norm1", "norm2"))]
    named = [(n, m) for n, m in named if not n.endswith("image_encoder.model.post_layernorm")]
    wrong = [name for name, module in named if getattr(module, "weight", None) is None]
    if wrong:
        what = f"{wrong[0]} is missing" if len(wrong) == 1 else f"{len(wrong)} are missing, first {wrong[0]}"
        return _bad("LayerNorms", f"{what}: something put nothing in its place, so what follows sees the wrong scale.")
    return _good("LayerNorms", f"{len(named)} in place")


def query_tokens(model: Stage2Model) -> Finding:
    tokens = model.qformer.query_tokens.float()[0]
    spread = tokens.std(dim=0).mean() / tokens.abs().mean().clamp(min=1e-12)
    if spread < 1e-3:
        return _bad(
            "query tokens",
            "all are equal, so the Q-Former asks one question of the picture and no more: they were zeroed, or never "
            "loaded (transformers starts them from zeros).",
        )
    return _good("query tokens", f"{len(tokens)}, all different")


# --- Against the files ----------------------------------------------------------------------------------------------


def loaded_as_written(model: Stage2Model, folder: Path) -> Finding:
    """Every unquantized parameter is what its file says, in this model's precision."""
    about = "weights as in the files"
    to_ours, _ = transformers_names(TRANSFORMERS_STAGE2)
    stage1 = folder / "stage1" / "model.safetensors"
    wrong: list[str] = []
    compared = _compare(model, weights.read_tensors(weights.weight_files(folder)), to_ours, wrong)
    if model.stage1 is not None and stage1.is_file():
        compared += _compare(model.stage1, weights.read_tensors([stage1]), lambda name: name, wrong, "stage1.")
    if wrong:
        more = f" ({len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return _bad(about, f"{wrong[0]}{more}: load the model anew, or look at what changed it.")
    return _good(about, f"{compared} compared")


def _compare(
    model: nn.Module,
    tensors: Iterator[tuple[str, Tensor]],
    to_ours: Callable[[str], str | None],
    wrong: list[str],
    prefix: str = "",
) -> int:
    """-> how many were compared; `wrong` grows by a half sentence for each that differs."""
    own = dict(model.named_parameters(remove_duplicate=False))
    differing, sums = {}, {}
    compared = 0
    for theirs, tensor in tensors:
        name = to_ours(theirs)
        if name in own and own[name].is_floating_point() and own[name].shape == tensor.shape:
            compared += 1
            here, there = own[name].cpu(), tensor.to(own[name].dtype)
            sums.setdefault((there.shape, there.float().sum().item()), name)
            if not torch.equal(here, there):
                differing[name] = here
    for name, here in differing.items():
        other = sums.get((here.shape, here.float().sum().item()))
        swapped = f" but what they have as {prefix}{other}" if other not in (None, name) else ""
        wrong.append(f"{prefix}{name} is not what the files have under its name{swapped}")
    return compared


def reference_numbers(model: Stage2Model) -> dict[str, Tensor]:
    """What is stored and compared: outputs of every part for the fixed input."""
    pixels, prompts = fixed_input(model)
    features = model.image_encoder(pixels)
    visual_prompt = model.visual_prompt(features)
    logits = torch.cat([_first_logits(model, visual_prompt[i : i + 1], prompts[i : i + 1]) for i in range(3)])
    numbers = {"image_features": features, "visual_prompt": visual_prompt, "first_logits": logits}
    if model.stage1 is not None:
        ids, mask = model.stage1.tokenize(list(CAPTIONS))
        numbers["image_embeds"] = model.stage1.embed_image(features)
        numbers["text_embeds"] = model.stage1.embed_text(ids, mask)
        numbers["itm_logits"] = model.stage1.itm_logits(model.stage1.qformer.read_image(features), ids, mask)
    return {name: tensor.float().cpu().contiguous() for name, tensor in numbers.items()}


@torch.no_grad()
def remember(model: Stage2Model, folder: Path) -> Path:
    """Store this model's numbers as the reference of its folder. Raises ValueError unless it is float32."""
    from safetensors.torch import save_file

    if tolerance(model) > TOLERANCE[torch.float32]:
        raise ValueError("A reference is made in float32: load the model without --quantize, with --dtype float32.")
    save_file(reference_numbers(model), folder / REFERENCE)
    return folder / REFERENCE


def reference(model: Stage2Model, file: Path) -> Finding:
    from safetensors.torch import load_file

    about = "float32 reference"
    stored = load_file(file)
    try:
        numbers = reference_numbers(model)
    except (AttributeError, RuntimeError, IndexError) as error:
        return _bad(about, f"the model does not run ({type(error).__name__}: {error}), so a part of it is broken.")
    if {n: t.shape for n, t in stored.items()} != {n: t.shape for n, t in numbers.items()}:
        return _bad(about, f"{file.name} was made with a model of another shape: make it anew with --remember.")
    distances = {name: apart(numbers[name], stored[name]) for name in numbers}
    first = next((name for name, distance in distances.items() if distance > tolerance(model)), None)
    if first is not None:
        return _bad(
            about,
            f"{first.replace('_', ' ')} are {distances[first]:.1e} apart, all before them is right: a weight or rule "
            "of that part has changed.",
        )
    return _good(about, f"at most {max(distances.values()):.1e} apart")


def layer_by_layer(model: Stage2Model, folder: Path, pixels: Tensor, prompts: list[str]) -> Finding:
    """Each layer again in float32, on the input it had, with its weights from the files."""
    about = "float32, layer by layer"
    layers = [name for name, m in model.named_modules() if isinstance(m, nn.ModuleList) for name in _children(name, m)]
    with _watching(model, layers) as seen:
        _answer_logits(model, pixels, prompts)
    config, tensors = read_config(folder), weights.weight_files(folder)
    to_ours, to_theirs = transformers_names(TRANSFORMERS_STAGE2)
    shapes, worst, where = skeleton(config), 0.0, ""
    for name, (args, kwargs, output) in seen.items():
        layer = shapes.get_submodule(name)
        wanted = {to_theirs(f"{name}.{own}") for own, _ in layer.named_parameters()}
        device = next(model.parameters()).device
        found = ((to_ours(key)[len(name) + 1 :], tensor) for key, tensor in weights.tensors_named(tensors, wanted))
        pour(layer, found, device=device, dtype=torch.float32, layout=f"The weights of {name}")
        again = layer(*_float32(args), **_float32(kwargs))
        distance = apart(_tensor(output), _tensor(again))
        layer.to("meta")
        if distance >= worst:
            worst, where = distance, name
    return _judged(about, worst, tolerance(model), f"{where} does not compute what its weights say.")


def _children(name: str, layers: nn.ModuleList) -> list[str]:
    return [f"{name}.{i}" for i in range(len(layers))] if name.count(".layer") + name.count(".block") == 1 else []


@contextmanager
def _watching(model: nn.Module, names: list[str]) -> Iterator[dict]:
    """While inside, remembers what each named module was given and gave."""
    seen: dict[str, tuple] = {}

    def watch(name: str) -> Callable:
        return lambda _, args, kwargs, output: seen.__setitem__(name, (args, kwargs, output))

    hooks = [model.get_submodule(name).register_forward_hook(watch(name), with_kwargs=True) for name in names]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _float32(value):
    """The same arguments in float32, however nested."""
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if type(value) in (tuple, list):
        return type(value)(_float32(one) for one in value)
    return {key: _float32(one) for key, one in value.items()} if type(value) is dict else value


def _tensor(output) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


# --- What runs ------------------------------------------------------------------------------------------------------


def _first_logits(model: Stage2Model, visual_prompt: Tensor, prompts: list[str]) -> Tensor:
    """[B,V]: what the first word of each answer is chosen from."""
    return model.language_model.first_logits(visual_prompt, model.language_model.prompt_texts(prompts))[0].float()


def _answer_logits(model: Stage2Model, pixels: Tensor, prompts: list[str]) -> Tensor:
    texts = model.language_model.pair_texts(prompts, list(CAPTIONS))
    return model.language_model.answer_logits(model.visual_prompt(model.image_encoder(pixels)), *texts).float()


def finite_activations(model: Stage2Model, pixels: Tensor, prompts: list[str]) -> Finding:
    """The first module whose output is not finite, in the order of computation."""
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
        _answer_logits(model, pixels, prompts)
    except (AttributeError, RuntimeError, IndexError) as error:
        return _bad(about, f"the model does not run ({type(error).__name__}: {error}), so a part of it is broken.")
    finally:
        for hook in hooks:
            hook.remove()
    if not first:
        return _good(about, "all finite")
    name, dtype = first[0]
    kind = str(dtype).removeprefix("torch.")
    advice = "load with --dtype bfloat16" if dtype == torch.float16 else "its input or its weights are broken"
    return _bad(about, f"{name} gives NaN or infinity in {kind}: {advice}.")


def padding_side(model: Stage2Model) -> Finding:
    """Encoders pad on the right, decoders on the left: an answer goes on where its prompt ends."""
    language = model.language_model
    mask = language.prompt_texts([QUESTIONS[1], QUESTIONS[2]]).mask[0]
    right = bool(mask[0]) and not bool(mask[-1])
    encodes = language.model.config.is_encoder_decoder
    kind, side = ("an encoder-decoder", "right") if encodes else ("a decoder", "left")
    if right != encodes:
        return _bad("padding", f"{kind} pads its prompts on the {side}, and this one does not: batches go wrong.")
    return _good("padding", f"on the {side}, as {kind} needs it")


def batch_is_single(model: Stage2Model, pixels: Tensor, prompts: list[str]) -> Finding:
    seen = model.visual_prompt(model.image_encoder(pixels))
    together = _first_logits(model, seen, prompts)
    alone = torch.cat([_first_logits(model, seen[i : i + 1], prompts[i : i + 1]) for i in range(len(prompts))])
    wrong = "the answer depends on what else is in the batch, as it does when padding is read or on the wrong side."
    return _judged("batch = single", apart(together, alone), tolerance(model), wrong)


def kernels_agree(model: Stage2Model, pixels: Tensor, prompts: list[str]) -> Finding:
    """Fused attention against softmax written out, in all three parts."""
    parts = [model.image_encoder.model, model.language_model.model]
    fused = _answer_logits(model, pixels, prompts)
    before = [part.config._attn_implementation for part in parts]
    softmaxes = [m for m in model.qformer.modules() if isinstance(m, nn.Softmax)]
    hooks = [softmax.register_forward_hook(lambda *_: None) for softmax in softmaxes]  # watched: written out
    try:
        for part in parts:
            part.set_attn_implementation("eager")
        eager = _answer_logits(model, pixels, prompts)
    finally:
        for part, implementation in zip(parts, before, strict=True):
            part.set_attn_implementation(implementation)
        for hook in hooks:
            hook.remove()
    wrong = "the fused attention of this device and version is not to be trusted; take another torch."
    return _judged("fused = written out", apart(fused, eager), tolerance(model), wrong)


def repeatable(model: Stage2Model, pixels: Tensor, prompts: list[str]) -> Finding:
    seen, language = model.visual_prompt(model.image_encoder(pixels)), model.language_model
    first, second = language.generate(seen, prompts, GREEDY), language.generate(seen, prompts, GREEDY)
    streamed = "".join(token.text for token in language.stream(seen[:1], prompts[0], GREEDY)).strip()
    alone = language.generate(seen[:1], prompts[:1], GREEDY)[0]
    if first != second:
        return _bad("greedy repeats", "the same question got two answers: a kernel here is not deterministic.")
    if streamed != alone:
        return _bad("greedy repeats", f"streamed {streamed!r} is not what generating gives, {alone!r}.")
    return _good("greedy repeats", f"{alone!r} each time, streamed too")


def table(findings: list[Finding]) -> str:
    """Green and red, one line for each check."""
    width = max(len(finding.about) for finding in findings)
    marks = {"good": "\033[32m green \033[0m", "bad": "\033[31m  red  \033[0m"}
    lines = [f"{marks[f.state]} {f.about:{width}}  {f.says}" for f in findings]
    red = sum(finding.state == "bad" for finding in findings)
    return "\n".join([*lines, "", f"{red} red: do not trust its answers yet." if red else "All green."])
