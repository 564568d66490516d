"""Compare a loaded model with its files: the weights, and what each layer computes with them.

`loaded_as_written` compares weights, `layer_by_layer` compares outputs; doctor/model.py calls both.

Notes:

* Tensors of three layouts (transformers, LAVIS, EVA-CLIP) are renamed to this package's names, so that a message names
  our module, and swapped feed-forward networks are detected by their values.
* Each layer runs once more in float32, on each recorded input, with its weights from the files. Only one layer at a
  time is in memory; no second model is built, and files are memory-mapped.
* What cannot be compared is reported in the same table, in yellow: a missing file, a parameter that no file contains.

Paper: section 3.4. Notebook: 12.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from blip2_lab.checkpoints.bridged import is_bridged_folder, our_name
from blip2_lab.checkpoints.catalog import EVA_FILE
from blip2_lab.checkpoints.files import check_complete, corrupted_files, read_tensors, weight_files
from blip2_lab.checkpoints.key_maps import (
    LAVIS_IGNORED,
    LAVIS_STAGE1,
    LAVIS_STAGE2,
    LAVIS_TIED,
    from_eva,
    renamer,
    table_of,
    transformers_names,
)
from blip2_lab.checkpoints.lavis import drop_unused_eva_keys, language_model_key
from blip2_lab.checkpoints.meta_model import empty_language_model, load_tensors
from blip2_lab.doctor.finding import Finding
from blip2_lab.models.bridges import QFormerBridge
from blip2_lab.models.language_model import language_model
from blip2_lab.models.qformer import QFormer
from blip2_lab.models.quantize import is_quantized, is_quantized_layer
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.models.vision_encoder import ImageEncoder

Model = Stage2Model | Stage1Model

#: Largest relative Euclidean distance, by the coarsest precision in the model.
TOLERANCE = {torch.float32: 5e-3, torch.float16: 3e-2, torch.bfloat16: 0.1}
TOLERANCE_QUANTIZED = 0.3
#: The same in float32 where both outputs are computed here: a stored one may come from other kernels.
TOLERANCE_HERE = 1e-3
#: Prefixes in a LAVIS checkpoint of the frozen models, and the tensors that it contains twice.
VISION, LANGUAGE = ("visual_encoder.",), ("t5_model.", "opt_model.")
COPIES = (*LAVIS_IGNORED, *(name for name, _ in LAVIS_TIED))
#: Modules that are run again in addition to layers and linear heads.
ALSO_REPLAYED = ("image_encoder.model.embeddings", "qformer.embedding_layer_norm")


def tolerance(model: Model, both_here: bool = False) -> float:
    if is_quantized(model):
        return TOLERANCE_QUANTIZED
    largest = max(TOLERANCE.get(p.dtype, 0.0) for p in model.parameters())
    return TOLERANCE_HERE if both_here and largest == TOLERANCE[torch.float32] else largest


def relative_distance(ours: Tensor, theirs: Tensor) -> float:
    """Relative Euclidean distance; infinity if a number is not finite."""
    distance = (ours.float() - theirs.float()).norm() / theirs.float().norm().clamp(min=1e-12)
    return distance.item() if torch.isfinite(distance) else float("inf")


def good(about: str, says: str) -> Finding:
    return Finding(about, "good", says)


def bad(about: str, says: str) -> Finding:
    return Finding(about, "bad", says)


def unchecked(about: str, why: str) -> Finding:
    """A yellow finding with its reason."""
    return Finding(about, "wait", f"not checked: {why}")


def judge_distance(about: str, distance: float, most: float, wrong: str) -> Finding:
    return good(about, f"{distance:.1e} apart") if distance <= most else bad(about, f"{distance:.1e} apart: {wrong}")


def models_by_prefix(model: Model) -> dict[str, nn.Module]:
    """The model and its attached stage-1 model, if any, by the prefix of their parameter names."""
    return {"": model, "stage1.": getattr(model, "stage1", None) or nn.Module()}


# --- The files ------------------------------------------------------------------------------------------------------


def files_of(model: Model, path: Path) -> dict[str, list[Path]]:
    """The files of a model: "" for the checkpoint, and by part those stored apart from it (LAVIS's frozen models, our
    stage 1). Raises ValueError for a missing or truncated file."""
    if (path / "config.json").is_file():
        stage1 = path / "stage1" / "model.safetensors"
        files = {"": weight_files(path)} | ({"stage1": [stage1]} if stage1.is_file() else {})
    else:
        files = _files_of_lavis(model, path)
    for found in files.values():
        check_complete(found)
    return files


def _files_of_lavis(model: Model, path: Path) -> dict[str, list[Path]]:
    if path.is_dir():
        found = (file for suffix in ("pth", "safetensors") for file in path.glob(f"*.{suffix}"))
        path = next((file for file in found if file.stem != Path(EVA_FILE).stem), path)
    if not path.is_file():
        raise ValueError(f"{path}, from which the model was loaded, does not exist any more.")
    check_complete([path])
    names, files = [name for name, _ in read_tensors([path])], {"": [path]}
    if not any(name.startswith(VISION) for name in names):
        eva = [path.with_name(EVA_FILE).with_suffix(suffix) for suffix in (".pth", ".safetensors")]
        files["image_encoder"] = [file for file in eva if file.is_file()][:1]
        if not files["image_encoder"]:
            raise ValueError(f"{eva[0]}, from which the image encoder was loaded, does not exist any more.")
    if isinstance(model, Stage2Model) and not any(name.startswith(LANGUAGE) for name in names):
        files["language_model"] = weight_files(Path(model.language_model.model.config.name_or_path))
    return files


def tensors_of(model: Model, path: Path) -> dict[str, Tensor]:
    """All tensors of this model in the files, under our names, memory-mapped."""
    files = {part: dict(read_tensors(paths)) for part, paths in files_of(model, path).items()}
    is_stage1 = isinstance(model, Stage1Model)
    if (path / "config.json").is_file():
        to_ours = our_name if is_bridged_folder(path) else transformers_names(table_of(model))[0]
        named = {to_ours(name) or name: tensor for name, tensor in files[""].items()}
        prefix = "" if is_stage1 else "stage1."  # heads of stage 1 that transformers' layout does not contain
        return named | {prefix + name: tensor for name, tensor in files.get("stage1", {}).items()}
    to_ours, state = renamer(LAVIS_STAGE1 if is_stage1 else LAVIS_STAGE2), files[""]
    eva = drop_unused_eva_keys(files["image_encoder"]) if "image_encoder" in files else _with_prefix(state, VISION)
    language = files.get("language_model") or _with_prefix(state, LANGUAGE)
    own = {name: tensor for name, tensor in state.items() if not name.startswith((*VISION, *LANGUAGE, *COPIES))}
    return {
        **{to_ours(name) or name: tensor for name, tensor in own.items()},
        **{f"image_encoder.model.{name}": tensor for name, tensor in from_eva(eva).items()},
        **{
            f"language_model.model.{language_model_key(name, model.language_model.model)}": tensor
            for name, tensor in language.items()
        },
    }


def _with_prefix(state: dict[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    return {name.partition(".")[2]: tensor for name, tensor in state.items() if name.startswith(prefixes)}


def files_are_whole(model: Model, path: Path) -> Finding:
    """No file is missing or truncated. Files of the hub's cache are named by their SHA-256 and are hashed."""
    try:
        found = [file for part in files_of(model, path).values() for file in part]
    except ValueError as error:
        return bad("files", str(error))
    if changed := corrupted_files(found):
        return bad(
            "files", f"{', '.join(changed)} changed since the download: delete them and download the model again."
        )
    return good("files", f"{len(found)} whole")


# --- The model against its files ------------------------------------------------------------------------------------


def loaded_as_written(model: Model, named: dict[str, Tensor]) -> Finding:
    """Every unquantized parameter is equal to its file's tensor, in this model's precision; no tensor is left over."""
    about = "weights as in the files"
    own = {
        prefix + name: parameter
        for prefix, part in models_by_prefix(model).items()
        for name, parameter in part.named_parameters(remove_duplicate=False)
    }
    quantized = {
        f"{name.removesuffix('.inner')}.weight" for name, module in model.named_modules() if is_quantized_layer(module)
    }
    compared = {name for name in named.keys() - quantized if name in own and own[name].shape == named[name].shape}
    differing = [name for name in named if name in compared and not _same(own[name], named[name])]
    wrong = [f"{name} is not what the files have under its name" for name in differing]
    if differing:
        wrong[0] += _swapped_with(own[differing[0]], differing[0], named)
    wrong += [f"{n} is in the files, and the model has no place for it" for n in named if n not in compared | quantized]
    if wrong:
        more = f" ({len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return bad(about, f"{wrong[0]}{more}: load the model again, or find the code that changed it.")
    if not compared | quantized:
        return bad(about, "the files hold no weights, so nothing was compared.")
    seen = {id(own[name]) for name in compared}
    not_in_files = [
        name for name, p in own.items() if p.is_floating_point() and id(p) not in seen and name not in quantized
    ]
    notes = [f"{len(compared)} compared"]
    notes += [f"{len(quantized)} quantized, for the next check"] if quantized else []
    notes += (
        [f"not in them: {not_in_files[0]}" + (f" and {len(not_in_files) - 1} more" if not_in_files[1:] else "")]
        if not_in_files
        else []
    )
    return good(about, "; ".join(notes))


def _same(parameter: Tensor, tensor: Tensor) -> bool:
    return torch.equal(parameter.cpu(), tensor.to(parameter.dtype))


def _swapped_with(parameter: Tensor, name: str, named: dict[str, Tensor]) -> str:
    """The end of a sentence if the parameter is equal to another name's tensor in the files, else ""."""
    same_shape = (other for other, tensor in named.items() if tensor.shape == parameter.shape and other != name)
    other = next((other for other in same_shape if _same(parameter, named[other])), None)
    return f" but what they have as {other}" if other else ""


def layer_by_layer(about: str, model: Model, named: dict[str, Tensor], run: Callable[[], object]) -> Finding:
    """Run each layer again in float32, on each of its inputs in `run`, with its weights from the files."""
    with _recorded_calls(model, _modules_to_replay(model)) as calls:
        run()
    if not calls:
        return bad(about, "none of its layers was run, so nothing was compared.")
    shapes, device = _shapes_of(model), next(model.parameters()).device
    worst, where = 0.0, ""
    for name, recorded in calls.items():
        layer = shapes.get_submodule(name)
        found = ((key[len(name) + 1 :], tensor) for key, tensor in named.items() if key.startswith(f"{name}."))
        load_tensors(layer, found, device=device, dtype=torch.float32, layout=f"The weights of {name}")
        for args, kwargs, output in recorded:
            distance = relative_distance(_tensor(output), _tensor(layer(*_float32(args), **_float32(kwargs))))
            if distance >= worst:
                worst, where = distance, name
        layer.to("meta")
    finding = judge_distance(about, worst, tolerance(model), f"{where} does not compute what its weights say.")
    return good(about, f"{len(calls)} parts, at most {finding.says}") if finding.state == "good" else finding


def _modules_to_replay(model: Model) -> list[str]:
    """Names of the layers (without layers inside of layers), the linear heads, `ALSO_REPLAYED`, and of another bridge
    its projections and norms."""
    modules = dict(model.named_modules())
    stacks = [name for name, module in modules.items() if isinstance(module, nn.ModuleList)]
    outer = [name for name in stacks if name.count(".layer") + name.count(".block") == 1]
    layers = [f"{name}.{i}" for name in outer for i in range(len(modules[name]))]
    heads = [name for name, module in model.named_children() if isinstance(module, nn.Linear)]
    # keys and values of the image are computed outside of their block, once for all tokens
    own = re.compile(r"bridge\.(\w+|blocks\.\d+\.cross_attention\.(key|value))")
    bridge = [n for n, m in modules.items() if own.fullmatch(n) and isinstance(m, nn.Linear | nn.LayerNorm)]
    return [*(name for name in ALSO_REPLAYED if name in modules), *layers, *heads, *bridge]


def _shapes_of(model: Model) -> Model:
    """The same model, unquantized and on the meta device."""
    with torch.device("meta"):
        encoder = ImageEncoder.from_config(copy.deepcopy(model.image_encoder.model.config))
        if isinstance(model, Stage1Model):
            return Stage1Model(model.qformer.config, model.config, image_encoder=encoder).eval()
        language = language_model(empty_language_model(copy.deepcopy(model.language_model.model.config)))
        bridge = QFormer if isinstance(model.bridge, QFormerBridge) else type(model.bridge)
        return Stage2Model(encoder, bridge(copy.deepcopy(model.bridge.config)), language).eval()


@contextmanager
def _recorded_calls(model: nn.Module, names: list[str]) -> Iterator[dict[str, list[tuple]]]:
    """Record the inputs and outputs of the named modules, call by call."""
    calls: dict[str, list[tuple]] = {}

    def hook_of(name: str) -> Callable:
        return lambda _, args, kwargs, output: calls.setdefault(name, []).append((args, kwargs, output))

    hooks = [model.get_submodule(name).register_forward_hook(hook_of(name), with_kwargs=True) for name in names]
    try:
        yield calls
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
