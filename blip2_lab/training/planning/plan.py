"""A plan: parameters, memory, FLOPs and hours of a recipe, computed before any download.

`plan(recipe)` is where to begin; `blip2-lab plan RECIPE` prints its `plan_table`.

Notes:

* Parameters are counted on the real classes without weights (parameters.py), FLOPs and activations with torch's
  counters where possible (training/planning/flops.py).
* Times are FLOPs / (peak * utilization). The utilization is an assumption. If a run of the recipe has been measured,
  the plan shows prediction, measurement, their ratio, and the utilization of that run.
* Frozen weights are counted in 16 bits (section 3.4), trained ones in 32 bits with AdamW's two moments.

Paper: section 3.4. Notebooks: 08, 17.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from blip2_lab.checkpoints.catalog import frozen_model
from blip2_lab.common.distributed import layer_stacks
from blip2_lab.common.files import read_object
from blip2_lab.data.feature_cache import cache_bytes
from blip2_lab.data.text_files import is_number
from blip2_lab.training.lora import lora_parameters
from blip2_lab.training.planning.bridges import bridge_blueprint, bridge_works
from blip2_lab.training.planning.claims import Claim, claims_of
from blip2_lab.training.planning.flops import (
    CAPTION_TOKENS,
    LONGEST_CAPTION,
    caption_lengths,
    pretraining_work,
    work_by_part,
)
from blip2_lab.training.planning.parameters import Blueprint, blueprint, count_parameters
from blip2_lab.training.recipes import registry, schema
from blip2_lab.training.recipes.own import EPOCHS
from blip2_lab.training.recipes.relatives import DESCRIPTIONS
from blip2_lab.training.recipes.schema import (
    BridgeParts,
    DialogueData,
    ImageTextData,
    MicroPart,
    Recipe,
    SceneData,
    Stage2Parts,
)
from blip2_lab.training.run_folder import SHIPPED_RUNS, read_log, reference_log

GIB = 2**30
CARDS = (16, 24, 40, 80)  #: memory of the GPUs that a plan is compared with, GiB
RESERVE = 1 * GIB  #: for CUDA itself and for fragmentation; an assumption


@dataclass(frozen=True)
class Machine:
    """`peak`: dense 16-bit FLOP/s, by the data sheet or measured. `utilization`: the share that training reaches."""

    name: str
    peak: float
    utilization: float


A100 = Machine("A100", 312e12, 0.4)  # NVIDIA's data sheet; 0.4 is an assumption
H100 = Machine("H100", 989e12, 0.4)  # the same, SXM
#: bf16 products of large matrices on a core with matrix units reached half of 1345 GFLOP/s on two.
CPU_CORE = Machine("CPU core with bf16 matrix units", 670e9, 0.15)

# ------------------------------------------------------------------------------------------------------------- the plan


@dataclass(frozen=True)
class Measured:
    """A timed run of this recipe: its log and its utilization."""

    log: str
    samples_per_second: float
    hours: float
    ratio: float  #: measured time of a sample / predicted
    utilization: float


@dataclass(frozen=True)
class Plan:
    """Sizes in bytes, times in seconds unless the name says otherwise. Memory is that of one GPU."""

    recipe: str
    parameters: dict[str, int]
    trained: tuple[str, ...]
    steps: int
    batch_size: int
    gpus: int
    examples_per_pass: int
    flops_per_example: dict[str, float]
    machine: Machine
    step_seconds: float
    hours: float
    memory: dict[str, float]
    memory_limit: float
    fits: dict[int, int]  #: GiB of a GPU -> the most examples of a pass that fit; 0: none
    download: dict[str, float]
    assumptions: tuple[str, ...]
    published: str
    measured: Measured | None
    claims: tuple[Claim, ...] = ()  #: what the recipe's text claims, beside what is computed
    remarks: tuple[str, ...] = ()  #: what cannot be as the text says, with the arithmetic

    @property
    def trained_share(self) -> float:
        return sum(self.parameters[name] for name in self.trained) / sum(self.parameters.values())

    @property
    def flops_per_step(self) -> float:
        return sum(self.flops_per_example.values()) * self.batch_size


def plan(
    recipe: Recipe,
    *,
    gpus: int | None = None,
    memory: float = 80,
    utilization: float | None = None,
    peak: float | None = None,
    runs_dir: str | Path = "runs",
) -> Plan:
    """The plan of one recipe.

    gpus         None: as the text of a described recipe (recipes/relatives.py) says, else 1
    memory       of a GPU, GiB
    utilization  the share of the peak that training reaches; None: an assumption for an A100 or a CPU core
    peak         dense 16-bit FLOP/s of one GPU; None: that of an A100 (of a CPU core, for the picture book)
    """
    if recipe.optim is None:
        raise ValueError(f"{recipe.name} is made of other recipes: plan {', '.join(recipe.sequence)}")
    if recipe.name in EPOCHS:
        raise ValueError(f"what {recipe.name} costs depends on your pictures: its progress lines say the time left")
    described = DESCRIPTIONS.get(recipe.name)
    gpus = (described.plan_gpus if described else 1) if gpus is None else gpus
    share, speed = (1.0 if one is None else one for one in (utilization, peak))
    if gpus < 1 or not (0 < memory < math.inf and 0 < share <= 1 and 0 < speed < math.inf):
        raise ValueError("a plan needs at least one GPU, memory and a peak above 0, and a utilization of 0 to 1")
    pretraining = registry.pretraining_recipe(recipe)  # a fine-tuned miniature is planned for a laptop, too
    local = not isinstance(pretraining.data, ImageTextData)
    machine = CPU_CORE if local else H100 if described and described.gpu == "H100" else A100
    machine = replace(machine, peak=peak or machine.peak, utilization=utilization or machine.utilization)
    if isinstance(recipe.model, MicroPart):
        parameters, work = pretraining_work(recipe)
        trained, works, model = tuple(parameters), {recipe.task: work}, None
    elif isinstance(recipe.model, BridgeParts):
        model = bridge_blueprint(recipe)
        works = bridge_works(recipe, model, caption_lengths(recipe))
        parameters, trained = model.parameters(), model.trained
    else:
        model = blueprint(recipe)
        parameters, trained, works = model.parameters(), model.trained, work_by_part(recipe, model)
    if recipe.lora is not None and recipe.lora.rank:
        parameters, trained = with_lora(recipe, model, parameters, trained)
    if recipe.optim.checkpoint_layers:
        works = {
            name: replace(
                w, flops=w.flops * (4 / 3 if w.activation_bytes else 1), activation_bytes=w.activation_bytes / 10
            )
            for name, w in works.items()
        }
    total = sum(work.flops for work in works.values())
    step = total * recipe.optim.batch_size / (gpus * machine.peak * machine.utilization)
    examples_per_pass = -(-recipe.optim.pass_size // gpus)
    needs = memory_of(parameters, trained, frozen_bytes=4 if local else 2)
    if recipe.optim.shard and model is not None:
        needs = sharded_memory(parameters, trained, gpus, largest_layer(model))
    hours = step * recipe.optim.steps / 3600
    claims, remarks = (), ()
    if described:
        claims, remarks = claims_of(recipe, described, model, works, hours, gpus, machine.peak * machine.utilization)
    each = sum(work.activation_bytes for work in works.values())
    limit = memory * GIB
    return Plan(
        recipe=recipe.name,
        parameters=parameters,
        trained=trained,
        steps=recipe.optim.steps,
        batch_size=recipe.optim.batch_size,
        gpus=gpus,
        examples_per_pass=examples_per_pass,
        flops_per_example={name: work.flops for name, work in works.items()},
        machine=machine,
        step_seconds=step,
        hours=hours,
        memory=needs | {"activations": each * examples_per_pass},
        memory_limit=limit,
        fits={card: _fitting(card * GIB, needs, each) for card in sorted({*CARDS, round(memory)})},
        download={} if model is None else download_of(recipe, model),
        assumptions=assumptions_of(recipe, machine) + cache_of(recipe, model),
        published=recipe.cost,
        measured=measured_of(recipe, machine, total, Path(runs_dir)),
        claims=claims,
        remarks=remarks,
    )


def with_lora(
    recipe: Recipe, model: Blueprint, parameters: Mapping[str, int], trained: tuple[str, ...]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Parameters and trained parts where LoRA stands for what its targets would train."""
    targets = {"language model": "language_model", "Q-Former": "qformer"}
    adapted = [part for part in model.parts if recipe.lora.targets in ("all", targets.get(part)) and part in targets]
    added = sum(lora_parameters(model.parts[part], recipe.lora) for part in adapted)
    return dict(parameters) | {"LoRA": added}, (*(part for part in trained if part not in adapted), "LoRA")


def memory_of(parameters: Mapping[str, int], trained: tuple[str, ...], frozen_bytes: int = 2) -> dict[str, float]:
    """Bytes on each GPU that do not depend on the batch: trained weights in 32 bits, and autocast's copies in 16."""
    training = sum(parameters[name] for name in trained)
    return {
        "frozen weights": float(frozen_bytes * (sum(parameters.values()) - training)),
        "trained weights": 6.0 * training,
        "gradients": 4.0 * training,
        "optimizer": 8.0 * training,  # AdamW's two moments in 32 bits
        "reserve": float(RESERVE),
    }


def sharded_memory(parameters: Mapping[str, int], trained: tuple[str, ...], gpus: int, layer: int) -> dict[str, float]:
    """Bytes on each of `gpus` GPUs under FSDP: shares of everything, and two gathered layers of `layer` parameters in
    16 bits (the one that runs and the next)."""
    training = sum(parameters[name] for name in trained)
    return {
        "frozen weights": 2.0 * (sum(parameters.values()) - training) / gpus,
        "trained weights": 4.0 * training / gpus,
        "gathered layers": 2 * 2.0 * layer,
        "gradients": 4.0 * training / gpus,
        "optimizer": 8.0 * training / gpus,
        "reserve": float(RESERVE),
    }


def largest_layer(model: Blueprint) -> int:
    """Parameters of the largest transformer layer, which FSDP gathers at once."""
    return max(count_parameters(layer) for stack in layer_stacks(model.model) for layer in stack)


def _fitting(limit: float, needs: Mapping[str, float], each: float) -> int:
    return max(0, int((limit - sum(needs.values())) // each)) if each else 0


def download_of(recipe: Recipe, model: Blueprint) -> dict[str, float]:
    """Bytes of the files that a recipe downloads, from the number of parameters and the hub's precision; models trained
    by other recipes are not downloaded."""
    if isinstance(recipe.model, BridgeParts):
        frozen = {recipe.model.image_encoder: model.image_encoder, recipe.model.language_model: model.language}
        known = {name: frozen_model(name) for name in frozen if name not in registry.RECIPES}
        return {  # in 16 bits, where the catalog does not know the file
            name: float(
                row.download_bytes(count_parameters(frozen[name])) if row else 2 * count_parameters(frozen[name])
            )
            for name, row in known.items()
        }
    names = {model.stage1.image_encoder: model.parts["image encoder"]}
    start = registry.pretraining_recipe(recipe)
    if isinstance(start.model, Stage2Parts):
        names[start.model.language_model] = model.language
    else:
        names[model.stage1.bert] = model.qformer
    rows = {name: frozen_model(name) for name in names}
    return {name: float(row.download_bytes(count_parameters(names[name]))) for name, row in rows.items() if row}


def assumptions_of(recipe: Recipe, machine: Machine) -> tuple[str, ...]:
    """What the plan assumes without a measurement."""
    assumptions = [
        f"{machine.name}: {machine.peak / 1e12:g} TFLOP/s, of which training reaches {machine.utilization:.0%}"
    ]
    if machine.name == CPU_CORE.name:
        assumptions.append("that share was chosen after the shipped runs of both stages, so they do not test it")
    if isinstance(recipe.data, ImageTextData):
        assumptions.append(f"a caption has {CAPTION_TOKENS} tokens, the longest in a batch {LONGEST_CAPTION}")
        assumptions.append("frozen parts in 16 bits; memory is computed, not measured on a GPU")
        assumptions.append("reading and augmenting pictures keeps up with the GPU")
    if recipe.lora is not None and recipe.lora.rank:
        assumptions.append(
            "LoRA: its products and the inputs that it keeps are not counted, a Q-Former's work as without"
        )
    if recipe.optim.shard:
        assumptions.append("FSDP gathers two layers at a time; `optim.shard` here gathers all trained parts at once")
    if recipe.optim.checkpoint_layers:
        assumptions.append("layers that are recomputed keep a tenth of their activations, for a third more work")
    if isinstance(recipe.data, SceneData):
        assumptions.append("image features are computed once, before the first step")
    return tuple(assumptions)


def cache_of(recipe: Recipe, model: Blueprint | None) -> tuple[str, ...]:
    """The size of the image features on disk, if they are or could be cached (feature_cache.py)."""
    if model is None or "image encoder" in model.trained or isinstance(recipe.data, DialogueData):
        return ()  # pixels at each step
    config = model.image_encoder.model.config
    size = recipe.data.image_size if isinstance(recipe.data, ImageTextData) else config.image_size
    each = cache_bytes(1, (size // config.patch_size) ** 2 + 1, config.hidden_size)
    if isinstance(recipe.data, SceneData):
        return (f"cached image features: {each * recipe.data.scenes / 1e9:.2f} GB on the disk",)
    views = f", {recipe.data.cached_views} here" if recipe.data.cached_views else "; none here"
    return (f"cached image features (data.cached_views{views}): {each / 1e6:.3g} MB on the disk for each view",)


def _has_batch_size(about: dict) -> bool:
    return isinstance(about.get("optim"), dict) and is_number(about["optim"].get("batch_size"))


def measured_of(recipe: Recipe, machine: Machine, flops: float, runs_dir: Path) -> Measured | None:
    """The measurement in the log of a run of this recipe: from `runs_dir`, or the shipped one."""
    own, shipped = runs_dir / recipe.name, SHIPPED_RUNS / f"{recipe.name}.json"
    places = (
        (str(own / "log.jsonl"), read_log(own), own / "recipe.json"),
        (f"shipped: {recipe.name}.jsonl", reference_log(recipe.name), shipped),
    )
    for where, records, settings in places:
        timed = [record for record in records if is_number(record.get("seconds")) and record["seconds"] > 0]
        if timed and settings.is_file():
            about = read_object(settings, fits=_has_batch_size)
            speed = timed[-1]["step"] * about["optim"]["batch_size"] / timed[-1]["seconds"]
            predicted = machine.peak * machine.utilization / flops
            return Measured(where, speed, timed[-1]["seconds"] / 3600, predicted / speed, speed * flops / machine.peak)
    return None


# ---------------------------------------------------------------------------------------------------------------- text


def to_json(plan: Plan) -> dict:
    """A plan as plain values."""
    return asdict(plan) | {"trained_share": plan.trained_share, "flops_per_step": plan.flops_per_step}


def plan_table(plan: Plan) -> str:
    """A plan for the terminal."""
    total = sum(plan.parameters.values())
    lines = [plan.recipe, "", "parameters"]
    lines += [
        f"  {name:<22}{count / 1e6:>10,.1f} M  {'trained' if name in plan.trained else 'frozen'}"
        for name, count in plan.parameters.items()
    ]
    lines += [f"  {'total':<22}{total / 1e6:>10,.1f} M  {plan.trained_share:.1%} trained", "", "work of one step"]
    lines += [
        f"  {name:<22}{flops * plan.batch_size / 1e12:>10,.2f} TFLOP" for name, flops in plan.flops_per_example.items()
    ]
    each = "" if plan.gpus == 1 else f" on {plan.gpus} GPUs"
    lines += [
        f"  {'total':<22}{plan.flops_per_step / 1e12:>10,.2f} TFLOP for {plan.batch_size} examples{each}",
        f"  {'time':<22}{plan.step_seconds:>10,.2f} s; {plan.steps:,} steps: {duration(plan.hours)}",
        "",
        f"memory of one GPU, {plan.examples_per_pass} examples a pass",
    ]
    lines += [f"  {name:<22}{size / GIB:>10,.2f} GiB" for name, size in plan.memory.items()]
    needed = sum(plan.memory.values())
    verdict = "fits" if needed <= plan.memory_limit else "does not fit"
    lines += [f"  {'total':<22}{needed / GIB:>10,.2f} GiB: {verdict} in {plan.memory_limit / GIB:g} GiB", ""]
    lines += [
        f"  {f'{card} GiB card':<22}{f'{most:,} examples a pass at most' if most else 'too small for one example'}"
        for card, most in plan.fits.items()
    ]
    lines += ["", "download"]
    lines += [f"  {name:<34}{size / 1e9:>8.2f} GB" for name, size in plan.download.items()] or ["  nothing"]
    lines += ["", *([] if plan.published == schema.SEE_PLAN else [f"said to cost: {plan.published}"])]
    if plan.measured:
        m = plan.measured
        predicted = m.samples_per_second * m.ratio
        lines += [
            f"measured ({m.log}): {m.samples_per_second:,.1f} examples/s, predicted {predicted:,.1f}: the run took "
            f"{m.ratio:.2f} times the predicted time, {m.utilization:.0%} of the peak"
        ]
    else:
        lines += ["measured: never"]
    if plan.claims:
        lines += ["", f"{'claimed and computed':<44}{'claimed':>12}{'computed':>12}{'ratio':>8}"]
        lines += [f"  {c.what:<42}{c.claimed:>12,.5g}{c.computed:>12,.5g}{c.ratio:>8.2f}" for c in plan.claims]
    if plan.remarks:
        lines += ["", "as written, and as it can be:", *(f"  - {remark}" for remark in plan.remarks), ""]
    return "\n".join([*lines, "assumed:", *(f"  {line}" for line in plan.assumptions)])


def duration(hours: float) -> str:
    """Hours in words: minutes, hours or days."""
    return f"{60 * hours:.0f} min" if hours < 1.5 else f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
