"""Publish a finished run on the Hugging Face hub: its model with a model card, and nothing of its data.

`push` is where to begin; `model_card` writes the card from what the run has recorded, `files_of` lists the files.

Notes:

* The files are listed one by one: weights, configurations and tokenizers of the finished model. Pictures, captions,
  logs, checkpoints, lists of words and of broken files stay here. A tokenizer that was made from your own texts has
  their words; the card says so.
* Every number of the card was measured by the run, or by `blip2-lab evaluate --on`, and stands beside its baseline:
  shuffled pictures, or chance. A part that this run did not train is named.
* No path and no name of a file is in the card.
* huggingface_hub does the upload. A repository is made private unless you say otherwise.

Paper: none. Notebook: none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from blip2_lab.checkpoints.catalog import released
from blip2_lab.checkpoints.files import MODEL_FILES, QFORMER_TOKENIZER, STAGE1, network_errors
from blip2_lab.common.files import read_object, size_text
from blip2_lab.doctor.own_images import outcome
from blip2_lab.evaluation.own_pictures import own_table
from blip2_lab.own_world import NUMBERS
from blip2_lab.training.run_folder import TRAINING_FILE, WORDS_FILE, RunFolder, read_log

CARD = "README.md"
PRIVATE = frozenset((TRAINING_FILE,))  #: among a model's files: it has words of the captions
TASKS = {
    "stage1": ("stage 1, representation learning (section 3.2)", "image-text-to-text"),
    "stage2": ("stage 2, generative learning (section 3.3)", "image-to-text"),
    "caption": ("fine-tuning for captions (section 4.2)", "image-to-text"),
    "vqa": ("fine-tuning for visual question answering (section 4.3)", "visual-question-answering"),
    "retrieval": ("fine-tuning for retrieval (section 4.4)", "image-text-to-text"),
}
CHANCE_OF_ITM = 0.5
STAGE2_OF_A_WORLD = "own-stage2"  #: in the folder of a world of your own


@dataclass(frozen=True)
class Run:
    """What a finished run has recorded: its folder, its recipe, its examples and the words of its texts, where it has
    any. Of a world of your own the run is that of its stage 2, `model` the world's, and `report` what was measured."""

    folder: Path
    recipe: dict[str, Any]
    examples: dict[str, Any]
    words: dict[str, Any]
    model: Path
    report: dict[str, Any] | None = None


def open_run(folder: Path) -> Run:
    """The run in a folder, or the world of your own. Raises ValueError for a folder that is no finished run of a model
    that reads pictures."""
    model, report = folder / "model", None
    if (folder / STAGE2_OF_A_WORLD / "recipe.json").is_file():
        report, folder = _json(folder / NUMBERS) or None, folder / STAGE2_OF_A_WORLD
    if not (folder / "recipe.json").is_file():
        raise ValueError(
            f"{folder} is no run: give the folder of a training run, for example runs/micro-captions-my-pictures"
        )
    recipe = read_object(folder / "recipe.json", "task")
    if recipe["task"] not in TASKS:
        raise ValueError(f"{folder} trained a part (task {recipe['task']}); what is published is a whole model")
    if not (model / "config.json").is_file():
        raise ValueError(f"{model.parent} has no finished model: train it to its end first, with the same command")
    read_object(model / "config.json", "model_type", remedy="train it to its end again, with the same command")
    return Run(folder, recipe, _json(folder / "examples.json"), _json(folder / WORDS_FILE), model, report)


def push(
    folder: str | Path,
    repo: str,
    *,
    license: str | None = None,
    public: bool = False,
    evaluation: dict | None = None,
    api: Any = None,
    say: Callable[[str], None] = print,
) -> str:
    """Upload the finished model of a run with its card; returns the address of the repository.

    license     the identifier of a license, as the hub knows it; None: that of the model it started from, if known
    public      False: only you can see a new repository. One that exists stays as it is
    evaluation  a report of `evaluate_on`, whose tables go into the card
    api         huggingface_hub's HfApi; None: a new one

    Raises ValueError, in one sentence: no finished run, no token, a name that cannot be, a refusal of the hub.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import validate_repo_id

    run = open_run(Path(folder))
    validate_repo_id(repo)
    card = model_card(run, repo, license=license, evaluation=evaluation)
    if api is None:
        if get_token() is None:
            raise ValueError(
                "there is no token for the Hugging Face hub: make one that may write on its page of settings, then "
                "`hf auth login`, or set HF_TOKEN"
            )
        api = HfApi()
    files = files_of(run.model)
    operations = [CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=card.encode())]
    operations += [
        CommitOperationAdd(path_in_repo=path.relative_to(run.model).as_posix(), path_or_fileobj=path) for path in files
    ]
    size = sum(path.stat().st_size for path in files)
    say(f"uploading {len(files)} files ({size_text(size)}) and a model card to {repo}")
    try:
        address = api.create_repo(repo, private=not public, exist_ok=True)
        api.create_commit(repo, operations, commit_message="A model and its card, by blip2-lab push")
    except (OSError, *network_errors()) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        answered = isinstance(error, HfHubHTTPError)
        if not answered and isinstance(error, (ConnectionError, TimeoutError, *network_errors())):
            raise ValueError(
                f"the Hugging Face hub cannot be reached ({reason}), so {repo} was not uploaded: with a network, the "
                "same command uploads it"
            ) from None
        raise ValueError(f"{repo} was not uploaded ({reason}): the same command tries again") from None
    return str(address)


def files_of(model: Path) -> list[Path]:
    """The files of a saved model that are uploaded: weights, configurations, tokenizers."""
    inner = {STAGE1, QFORMER_TOKENIZER}
    found = [path for path in model.rglob("*") if path.is_file()]
    return sorted(
        path
        for path in found
        if path.name not in PRIVATE
        and any(fnmatch(path.name, pattern) for pattern in MODEL_FILES)
        and (path.parent == model or path.parent.parent == model and path.parent.name in inner)
    )


# ---------------------------------------------------------------------------------------------------------------- card


def model_card(run: Run, repo: str, *, license: str | None = None, evaluation: dict | None = None) -> str:
    """The card as Markdown with the hub's fields in front. Raises ValueError where the license must be chosen."""
    from huggingface_hub import ModelCardData

    task, pipeline = TASKS[run.recipe["task"]]
    base = _hub_name(started_from(run.recipe))
    fields = ModelCardData(
        license=license or _license(run),
        base_model=base,
        library_name="transformers",
        pipeline_tag=pipeline,
        tags=["blip-2", "blip2-lab", *(["lora"] if _rank(run.recipe) else [])],
    )
    name, prompt = repo.rpartition("/")[2], _prompt(run.recipe)
    use = f'blip2-lab ask PICTURE "{prompt}" --model {repo}' if prompt else f"blip2-lab index FOLDER --model {repo}"
    found = outcome(run.folder)
    sections = [
        f"---\n{fields.to_yaml()}\n---",
        f"# {name}",
        f"A BLIP-2 ([arXiv 2301.12597](https://arxiv.org/abs/2301.12597)) by `blip2_lab`: {task}. What it learned: "
        f"{found.says}.",
        f"```bash\n{use}\n```",
        "## What it was trained on",
        *_data(run),
        "## What was trained",
        *_parts(run),
        "## Results",
        *_results(run, evaluation or run.report),
        "## Limits",
        "Nothing is known beyond the numbers above. It was not tested on other pictures, on other languages, or for "
        "unwanted or unfair answers. It answers also where it is wrong.",
        f"License: {license or _license(run)}. The licenses of the pictures and texts that it was trained on are not "
        "known to `blip2_lab`; ask the author.",
    ]
    return "\n\n".join(sections) + "\n"


def started_from(recipe: dict[str, Any]) -> str:
    """The name of the model that the run started from, as its recipe has it."""
    model = recipe["model"]
    return next(model[name] for name in ("start", "stage1", "bert", "image_encoder") if model.get(name))


def _hub_name(name: str) -> str | None:
    """The name, if it is one of the hub's; None for a recipe, a run, or a path."""
    return name if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists() else None


def _license(run: Run) -> str:
    """The license of the model that the run started from, as the hub writes it."""
    start = started_from(run.recipe)
    known = released(start)
    if start == "micro" or start.startswith("micro-") or (known and known.license == "MIT"):
        return "mit"
    reason = f"that of {start} is {known.license!r}" if known else "that of the model it started from is not known here"
    raise ValueError(f"say under which license you publish, --license NAME ({reason}; for example other)")


def _rank(recipe: dict[str, Any]) -> int:
    return (recipe.get("lora") or {}).get("rank", 0)


def _prompt(recipe: dict[str, Any]) -> str:
    """A prompt to ask the model with; "" for one that does not answer."""
    if recipe["task"] in ("stage1", "retrieval"):
        return ""
    if recipe["task"] == "vqa" or recipe["data"].get("text") == "questions":
        return "Question: what is in the picture? Short answer:"
    return recipe["model"].get("prompt") or "a picture of"


def _data(run: Run) -> list[str]:
    data = run.recipe["data"]
    if "scenes" in data:
        texts = [
            f"{data['scenes']} scenes of the drawn picture book of `blip2_lab`, with captions ({data['caption']})."
        ]
    else:
        count = run.examples.get("examples")
        count = f"{count} pictures" if count else "A stream of pictures"
        texts = [
            f"{count} of its author with {data['text']}, of which up to {data['held_out']} were held out. They are not "
            "published here."
        ]
    for part, known in run.words.items():
        texts.append(
            f"Of the {known['words']:,} running words of the texts, {known['share']:.1%} are unknown to {part}, and "
            f"{known.get('cut', 0):.1%} of the texts were cut at {run.recipe['model']['max_text_tokens']} tokens."
        )
    optim = run.recipe["optim"]
    texts.append(
        f"{RunFolder(run.folder).finished_step or optim['steps']} steps of {optim['batch_size']} examples with AdamW, "
        f"learning rate {optim['lr']:g}."
    )
    if started_from(run.recipe).startswith("own-"):
        texts.append("Its tokenizers were made from these texts, so they contain their words.")
    return texts


def _parts(run: Run) -> list[str]:
    """What this run trained and what it did not, as a list."""
    recipe, model, task = run.recipe, run.recipe["model"], run.recipe["task"]
    start = started_from(recipe)
    shown = _hub_name(start) or Path(start).name
    lora = recipe.get("lora") or {}
    adapted = []
    if _rank(recipe):
        adapted = ["qformer"] if task == "retrieval" else [lora["targets"]]
        adapted = ["language_model", "qformer"] if adapted == ["all"] else adapted
    bridge = model.get("bridge", "qformer")
    name = "the Q-Former" if bridge.endswith("qformer") else f"the bridge ({bridge})"
    trained, frozen = [], []
    answers = task not in ("stage1", "retrieval")
    trained.append(f"{name}, by LoRA of rank {lora['rank']}, merged into it" if "qformer" in adapted else name)
    trained.append("the projection to the language model" if answers else "the heads of ITC, ITM and ITG")
    if model.get("question_in_qformer"):
        trained[0] += ", which reads the question, too (Figure 7)"
    (trained if model.get("train_image_encoder") else frozen).append("the image encoder")
    if answers and "language_model" in adapted:
        trained.append(f"the language model, by LoRA of rank {lora['rank']}, merged into it")
    elif answers:
        frozen.append("the language model")
    if answers and (run.model / STAGE1 / "config.json").is_file():
        frozen.append("the stage 1 that is saved beside it, for matching and search")
    before = " Its text encoder, language model and stage 1 were made before, from the same pictures and texts."
    return [
        f"It started from `{shown}`.{before if run.model.parent != run.folder else ''}",
        "\n".join(
            [*(f"- trained: {part}" for part in trained), *(f"- not trained in this run: {part}" for part in frozen)]
        ),
    ]


def _results(run: Run, evaluation: dict | None) -> list[str]:
    """The numbers that the run measured on held-out pictures, and those of `evaluate --on`, beside their baselines."""
    rows, sections = _measured(run), []
    if rows:
        head = "| on held-out pictures | model | baseline | |\n|---|---|---|---|"
        lines = [f"| {what} | {value:.4g} | {baseline:.4g} | {kind} |" for what, value, baseline, kind in rows]
        sections.append("\n".join([head, *lines]))
        sections.append(
            "The weights with the lowest held-out loss were kept, so these numbers may be a little too good."
        )
    if evaluation is not None:
        where = "on the held-out pictures" if evaluation is run.report else "afterwards, by `blip2-lab evaluate --on`"
        sections.append(own_table(evaluation | {"place": f"measured {where}"}))
    return sections or ["Nothing was held out, and nothing was measured afterwards: its quality is not known."]


def _measured(run: Run) -> list[tuple[str, float, float, str]]:
    """(measure, value, baseline, kind of baseline) of the finished model's evaluation."""
    records = [record for record in read_log(run.folder) if record.get("evaluation")]
    best = RunFolder(run.folder).best.get("step")
    chosen = [record for record in records if record["step"] == best] or records[-1:]
    if not chosen:
        return []
    found, rows = chosen[0]["evaluation"], []
    if {"held_out", "shuffled"} <= found.keys():
        rows.append(("loss", found["held_out"], found["shuffled"], "another picture (lower is better)"))
    if {"accuracy", "shuffled"} <= found.keys():
        rows.append(("accuracy on questions", found["accuracy"], found["shuffled"], "another picture"))
    pictures = found.get("pictures") or run.recipe["data"].get("held_out")
    for name, what in (("text_to_image_r1", "text to picture, R@1"), ("image_to_text_r1", "picture to text, R@1")):
        if name in found and pictures:
            rows.append((what, found[name], 1 / pictures, f"chance among {pictures:.0f}"))
    if "itm_accuracy" in found:
        rows.append(("ITM, true and hardest wrong pairs", found["itm_accuracy"], CHANCE_OF_ITM, "chance"))
    return rows


def _json(file: Path) -> dict[str, Any]:
    return read_object(file) if file.is_file() else {}


def preview(folder: str | Path, repo: str, *, license: str | None = None, evaluation: dict | None = None) -> str:
    """The card and the list of files, as `push` would upload them."""
    run = open_run(Path(folder))
    listed = [
        f"{path.relative_to(run.model).as_posix()}  {size_text(path.stat().st_size)}" for path in files_of(run.model)
    ]
    return "\n".join([model_card(run, repo, license=license, evaluation=evaluation), "files:", *listed])
