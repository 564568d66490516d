"""Publishing: what is uploaded, what is not, and a card that says what the run has measured. No network."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from blip2_lab import cli, publish
from blip2_lab.checkpoints.load import save
from blip2_lab.models.stage2 import with_text
from blip2_lab.training.recipes.registry import get
from blip2_lab.training.recipes.schema import override
from tests.tiny import build_tiny_model

SECRETS = ("zorp", "private-pictures", "yorn")  #: words and places of the data


class Hub:
    """A stand-in for HfApi that keeps what it is given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.repos, self.files, self.error = [], {}, error

    def create_repo(self, repo_id, *, private, exist_ok):
        if self.error:
            raise self.error
        self.repos.append((repo_id, private, exist_ok))
        return f"https://hub/{repo_id}"

    def create_commit(self, repo_id, operations, *, commit_message):
        for operation in operations:
            with operation.as_file() as file:
                self.files[operation.path_in_repo] = file.read()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a finished run on somebody's own pictures, as training leaves it, with private things in it."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    model = build_tiny_model()
    save(with_text(model, model.stage1), folder / "model")
    recipe = get("micro-vqa")
    recipe = override(replace(recipe, data=replace(recipe.data, path="/home/me/private-pictures")), "lora.rank=4")
    evaluations = [
        {"step": 50, "evaluation": {"held_out": 1.25, "shuffled": 2.5}},
        {"step": 100, "evaluation": {"held_out": 1.75, "shuffled": 1.8}},
    ]
    files = {
        "recipe.json": asdict(recipe),
        "run.json": {"seed": 0, "steps": 100},
        "finished.json": {"step": 100},
        "examples.json": {"path": "/home/me/private-pictures", "examples": 321},
        "words.json": {
            "the language model": {"words": 1000, "share": 0.02, "cut": 0.5, "most_frequent": [["zorp", 20]]}
        },
        "model/training.json": {"words": {"x": ["zorp"]}},
        "checkpoints/best/best.json": {"step": 50, "held_out": 1.25},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in evaluations))
    (folder / "skipped.jsonl").write_text('{"sample": "private-pictures/zorp.png"}\n')
    (folder / "model" / "zorp.png").write_bytes(b"a picture")
    (folder / "model" / "captions.csv").write_text("file,caption\nzorp.png,a yorn zorp\n")
    (folder / "model" / "stage1" / "captions.json").write_text('["a yorn zorp"]')
    return folder


def test_a_run_is_uploaded_with_its_card_and_without_its_data(finished):
    hub, said = Hub(), []
    assert publish.push(finished, "me/zoo", api=hub, say=said.append) == "https://hub/me/zoo"
    assert hub.repos == [("me/zoo", True, True)]
    expected = {"README.md", "config.json", "model.safetensors", "processor_config.json"}
    expected |= {"tokenizer.json", "tokenizer_config.json", "stage1/config.json", "stage1/model.safetensors"}
    expected |= {
        f"{folder}/tokenizer{end}.json" for folder in ("stage1", "qformer_tokenizer") for end in ("", "_config")
    }
    assert hub.files.keys() == expected
    assert hub.files["model.safetensors"] == (finished / "model" / "model.safetensors").read_bytes()
    for name, content in hub.files.items():
        assert not any(secret.encode() in content for secret in SECRETS), name
    assert said[0].startswith(f"uploading {len(expected) - 1} files (")
    publish.push(finished, "me/zoo", api=hub, public=True, say=said.append)
    assert hub.repos[-1] == ("me/zoo", False, True)


def test_the_card_has_the_numbers_of_the_model_that_was_kept_beside_their_baselines(finished):
    card = publish.model_card(publish.open_run(finished), "me/zoo")
    front = card.split("---\n")[1]
    assert "license: mit" in front and "pipeline_tag: visual-question-answering" in front and "- lora" in front
    assert "| loss | 1.25 | 2.5 | another picture (lower is better) |" in card and "1.75" not in card
    assert "it looks at the pictures: the loss on held-out pictures is 1.25, shuffled 2.5" in card
    assert "321 pictures of its author with questions" in card and "not published here" in card
    assert "2.0% are unknown to the language model, and 50.0% of the texts were cut at 64 tokens" in card
    assert "- trained: the Q-Former, by LoRA of rank 4, merged into it, which reads the question, too" in card
    assert "- trained: the language model, by LoRA of rank 4" in card
    assert "- not trained in this run: the image encoder" in card
    assert "- not trained in this run: the stage 1 that is saved beside it" in card
    assert "The licenses of the pictures and texts that it was trained on are not known" in card


def _with(finished: Path, folder: Path, **changes) -> publish.Run:
    run = publish.open_run(finished)
    return replace(run, folder=folder, recipe=run.recipe | changes)


def test_retrieval_stands_beside_chance_and_nothing_is_said_without_a_measurement(finished, tmp_path):
    recipe = asdict(get("micro-retrieval"))
    run = _with(finished, tmp_path, **recipe)
    card = publish.model_card(run, "me/zoo")
    assert "Nothing was held out, and nothing was measured afterwards: its quality is not known." in card
    assert "nothing was measured on held-out" in card and "- not trained in this run: the image encoder" in card
    found = {"text_to_image_r1": 0.5, "image_to_text_r1": 0.25, "itm_accuracy": 0.75, "pictures": 40.0, "held_out": 2.0}
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 9, "evaluation": found}) + "\n")
    card = publish.model_card(run, "me/zoo")
    assert "| text to picture, R@1 | 0.5 | 0.025 | chance among 40 |" in card
    assert "| ITM, true and hardest wrong pairs | 0.75 | 0.5 | chance |" in card
    assert "20000 scenes of the drawn picture book" in card and "- trained: the heads of ITC, ITM and ITG" in card


def test_measurements_of_evaluate_on_go_into_the_card_without_the_place(finished):
    one = {"accuracy": 0.5, "low": 0.4, "high": 0.6}
    gain = {"accuracy": {"value": 0.2, "low": 0.1, "high": 0.3}}
    questions = {
        "questions": 10,
        "vqa_accuracy": 0,
        "exact": 10,
        "beginnings": {},
        "gain": gain,
        "majority": one | {"answer": "yes"},
    }
    questions |= dict.fromkeys(("picture", "no_picture", "shuffled_picture"), one)
    report = {
        "place": "/home/me/private-pictures",
        "read": "10 pictures",
        "questions": questions,
        "notes": [],
        "conclusions": [],
    }
    card = publish.model_card(publish.open_run(finished), "me/zoo", evaluation=report)
    assert "0.500 (0.400–0.600)" in card and "+0.200 (+0.100 to +0.300)" in card and "private" not in card


@pytest.mark.parametrize(
    "start,license", [("Salesforce/blip2-flan-t5-xl", "mit"), ("micro", "mit"), ("Salesforce/blip2-opt-2.7b", None)]
)
def test_the_license_is_that_of_the_start_or_must_be_chosen(finished, start, license):
    run = publish.open_run(finished)
    run.recipe["model"]["start"] = start
    if license is None:
        with pytest.raises(ValueError, match="say under which license you publish, --license NAME .*research only"):
            publish.model_card(run, "me/zoo")
    card = publish.model_card(run, "me/zoo", license=None if license else "other")
    assert f"license: {license or 'other'}" in card
    assert ("base_model: " + start in card) == (start != "micro")
    run.recipe["model"]["start"] = "own-stage1"  # a world of its author
    with pytest.raises(ValueError, match="not known here"):
        publish.model_card(run, "me/zoo")
    assert "Its tokenizers were made from these texts" in publish.model_card(run, "me/zoo", license="other")
    run.recipe["model"]["start"] = "/home/me/private-pictures/model"
    with pytest.raises(ValueError, match="not known here"):
        publish.model_card(run, "me/zoo")
    assert "/home" not in publish.model_card(run, "me/zoo", license="other")


def test_a_world_of_your_own_is_published_with_its_own_report(finished, tmp_path, capsys):
    """The model of the world, the recipe of its stage 2, the numbers of its report."""
    world = tmp_path / "own-private-pictures"
    run = world / "own-stage2"
    run.mkdir(parents=True)
    recipe = get("own-stage2")
    recipe = replace(recipe, data=replace(recipe.data, path="/home/me/private-pictures"))
    (run / "recipe.json").write_text(json.dumps(asdict(recipe)))
    (run / "examples.json").write_text(json.dumps({"path": "/home/me/private-pictures", "examples": 20}))
    (world / "report.json").write_text(json.dumps({"place": "x", "read": "20 yes", "notes": [], "conclusions": []}))
    code, _, says = command(capsys, str(world), "--repo", "me/zoo", "--license", "other")
    assert code == 2 and f"{world} has no finished model" in says
    (world / "model").symlink_to(finished / "model")
    code, out, _ = command(capsys, str(world), "--repo", "me/zoo", "--license", "other", "--dry-run")
    assert code == 0 and "\nfiles:\nconfig.json  " in out and "20 pictures of its author with captions" in out
    assert "language model and stage 1 were made before, from the same pictures" in out
    assert "measured on the held-out pictures" in out and not any(secret in out for secret in SECRETS)
    hub = Hub()
    publish.push(world, "me/zoo", license="other", api=hub, say=lambda _: None)
    assert hub.files["model.safetensors"] == (finished / "model" / "model.safetensors").read_bytes()


def command(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["push", *arguments])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_what_cannot_be_published_is_one_sentence(finished, tmp_path, capsys, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    code, _, says = command(capsys, str(finished), "--repo", "me/zoo")
    assert code == 2 and re.fullmatch(r"blip2-lab: there is no token .*hf auth login.*HF_TOKEN\n", says)
    code, _, says = command(capsys, str(tmp_path), "--repo", "me/zoo")
    assert code == 2 and "is no run: give the folder of a training run" in says and says.count("\n") == 1
    code, _, says = command(capsys, str(finished), "--repo", "me/zoo/x")
    assert code == 2 and says.count("\n") == 1
    (tmp_path / "recipe.json").write_text(json.dumps(asdict(get("micro-bert"))))
    assert "trained a part (task bert)" in command(capsys, str(tmp_path), "--repo", "me/zoo")[2]
    (tmp_path / "recipe.json").write_text(json.dumps(asdict(get("micro-vqa"))))
    assert "has no finished model" in command(capsys, str(tmp_path), "--repo", "me/zoo")[2]
    (tmp_path / "recipe.json").write_text("{}")
    assert "recipe.json is damaged, or of another version" in command(capsys, str(tmp_path), "--repo", "me/zoo")[2]
    (tmp_path / "report.json").write_text("[1]")
    code, _, says = command(capsys, str(finished), "--repo", "me/zoo", "--evaluation", str(tmp_path / "report.json"))
    assert code == 2 and "is no report of `blip2-lab evaluate --on" in says
    refusal = OSError("403 Forbidden: the token may only read\nmore")
    with pytest.raises(
        ValueError, match=r"me/zoo was not uploaded \(OSError: 403 Forbidden: the token may only read\)"
    ):
        publish.push(finished, "me/zoo", api=Hub(refusal), say=lambda _: None)


def test_without_a_network_nothing_is_uploaded_and_one_sentence_says_so(finished):
    from huggingface_hub import HfApi

    nobody = HfApi(endpoint="http://127.0.0.1:9", token="hf_x")  # a port at which nothing listens
    with pytest.raises(
        ValueError, match=r"^the Hugging Face hub cannot be reached \(\w+: [^\n]*\), so me/zoo was not "
    ):
        publish.push(finished, "me/zoo", api=nobody, say=lambda _: None)


def test_a_dry_run_shows_the_card_and_the_files(finished, capsys):
    code, out, _ = command(capsys, str(finished), "--repo", "me/zoo", "--dry-run")
    assert code == 0 and "# zoo" in out and "\nfiles:\nconfig.json  " in out and "zorp" not in out
