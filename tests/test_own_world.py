"""A world of one's own, through the command line: from a folder of drawn things with nonsense names to an answer, a
search hit and a report."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from blip2_lab import own_world
from blip2_lab.models import micro
from blip2_lab.training.recipes.own import EPOCHS, OWN_WORLD, scaled
from blip2_lab.training.recipes.registry import get
from tests.test_cli import complaint, run

COLORS = {"rell": "red", "grue": "blue"}
SHAPES = {"zorp": "ellipse", "blick": "rectangle"}
TINY = {
    "image encoder": dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64),
    "BERT": dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=64),
    "T5": dict(d_model=64, d_kv=64, d_ff=64, num_layers=1, num_decoder_layers=1, num_heads=4),
    "OPT": dict(hidden_size=64, ffn_dim=64, num_hidden_layers=1, num_attention_heads=1, word_embed_proj_dim=64),
}


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "my things"
    folder.mkdir()
    rows = ["file,caption,question,answer"]
    kinds = [(color, shape) for color in COLORS for shape in SHAPES]
    for number in range(20):
        color, shape = kinds[number % 4]
        image = Image.new("RGB", (96, 96), "white")
        box = (2 + number, 4, 70 + number, 72)
        getattr(ImageDraw.Draw(image), SHAPES[shape])(box, fill=COLORS[color])
        image.save(folder / f"{number}.png")
        rows.append(f"{number}.png,a {color} {shape}.,what is it?,{shape}")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def train(capsys, pictures, tmp_path, monkeypatch):
    """Trains the tiniest world; returns exit code, stdout, stderr."""
    monkeypatch.setattr(micro, "SIZES", {part: {"S": sizes} for part, sizes in TINY.items()})
    tiny = ("model.image_encoder=own-vit", "optim.batch_size=4", "data.cached_views=1", "eval_every=2", "save_every=2")
    tiny += ("own-vit/data.cached_views=0", "optim.steps=4", "optim.warmup_steps=1")

    def start(*settings: str):
        chosen = {setting.partition("=")[0]: setting for setting in (*tiny, *settings)}
        sets = [word for setting in chosen.values() for word in ("--set", setting)]
        return run(
            capsys, "train", "own", "--on", str(pictures), "--runs", str(tmp_path / "runs"), "--jobs", "1", *sets
        )

    return start


def test_from_a_folder_to_an_answer_and_a_search_hit(train, capsys, pictures, tmp_path, monkeypatch):
    text_file = tmp_path / "more.txt"
    text_file.write_text("the snarp sleeps under the zorp.\n\n" + "long " * 60 + "\n")
    code, out, _ = train(f"data.text_file={text_file}")
    world = tmp_path / "runs" / "own-my-things"
    assert code == 0 and f"model is in {world / 'model'}" in out.replace("'", "")
    assert "own-vit: " in out and "own-opt" not in out
    report = (world / "report.md").read_text()
    assert report in out and "16 pictures, 4 others held out" in report and "| R@1 chance |" in report
    assert "read 16 captions, 16 questions with their answers and captions, 3 passages of" in report
    numbers = json.loads((world / "report.json").read_text())
    assert all(one["says"] in report for one in numbers["conclusions"]) and len(numbers["conclusions"]) == 3
    assert all(one["uses_pictures"] is None and "too few pictures" in one["says"] for one in numbers["conclusions"])
    assert "do not trust what it says" not in out and "or: blip2-lab ask" in out and "or: blip2-lab index" in out
    assert numbers["retrieval"]["pictures"] == numbers["pictures"] == 4
    assert numbers["questions"]["questions"] == 4 and 0 <= numbers["questions"]["picture"]["accuracy"] <= 1

    model = str(world / "model")
    code, answer, err = run(capsys, "ask", str(pictures / "3.png"), "a picture of", "--model", model)
    assert code == 0 and not err  # no warning that a picture of this world were foreign
    known = set(re.findall(r"\w+", (pictures / "captions.csv").read_text() + text_file.read_text()))
    assert set(re.findall(r"\w+", answer)) <= known | set("a picture of question short answer".split())
    code, _, err = run(capsys, "ask", str(pictures / "3.png"), "a boat", "--model", model)
    assert code == 2 and 'I do not know the word "boat".' in err  # nothing else says what is asked

    monkeypatch.chdir(tmp_path)  # the world by its name, its stage 1 by its path: both are trained parts
    assert run(capsys, "ask", str(pictures / "3.png"), "a picture of", "--model", "own-my-things")[:2] == (0, answer)
    assert run(capsys, "index", str(pictures), "--model", str(world / "own-stage1"))[0] == 0
    assert run(capsys, "index", str(pictures), "--model", model)[0] == 0
    code, hits, _ = run(capsys, "search", "a grue zorp.", "--folder", str(pictures), "--model", model, "--top", "3")
    assert code == 0 and len(re.findall(r"\d+\.png", hits)) == 3
    code, _, err = run(capsys, "search", "a boat", "--folder", str(pictures), "--model", model)
    assert code == 2 and 'do not know the word "boat"' in err


def test_the_parts_that_use_the_pictures_decide_what_is_proposed():
    def of(captions: bool | None, retrieval: bool | None) -> frozenset[str] | None:
        parts = {"captions": captions, "retrieval": retrieval}
        return own_world.parts_that_use_pictures([{"part": p, "uses_pictures": uses} for p, uses in parts.items()])

    assert own_world.parts_that_use_pictures([]) is None is of(None, None)
    assert of(False, None) == of(False, False) == frozenset()  # "do not trust what it says"
    assert of(True, None) == {"captions"} and of(None, True) == {"retrieval"}


@pytest.mark.slow
def test_a_stopped_world_resumes_each_part_and_ends_in_the_same_weights(train, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    from blip2_lab.training.tasks.stage1 import Stage1Task

    world = tmp_path / "runs" / "own-my-things"
    losses, calls = Stage1Task.compute_joint_losses, []

    def stop_once(task, batches):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return losses(task, batches)

    monkeypatch.setattr(Stage1Task, "compute_losses", lambda task, batch: stop_once(task, [batch]))
    code, _, err = train("eval_every=0", "own-retrieval/optim.steps=2")
    assert code == 130 and "resumes from the last checkpoint" in err and not (world / "model").exists()
    code, out, _ = train("eval_every=0", "own-retrieval/optim.steps=2")
    assert code == 0 and out.count("nothing was trained") == 3  # vit, bert, t5
    assert f"resuming {world / 'own-stage1'} at step 2 of 4" in out
    resumed = load_file(world / "model" / "model.safetensors")
    world.rename(tmp_path / "resumed")
    assert train("eval_every=0", "own-retrieval/optim.steps=2")[0] == 0
    whole = load_file(world / "model" / "model.safetensors")
    assert resumed.keys() == whole.keys() and all(resumed[name].equal(whole[name]) for name in whole)


def test_a_decoder_and_a_folder_in_place_of_an_image_encoder(pictures):
    def names(*changes: str) -> list[str]:
        return [recipe.name for recipe in own_world.recipes_for(str(pictures), changes)]

    usual = ["own-bert", "own-t5", "own-stage1", "own-stage2", "own-retrieval"]
    assert names() == usual
    assert names("model.image_encoder=some/folder") == usual
    assert names("model.image_encoder=own-vit") == ["own-vit", *usual]
    assert names("model.language_model=own-opt") == [n.replace("t5", "opt") for n in usual]
    assert names("model.bert=google-bert/bert-base-uncased") == usual[1:]
    assert names("model.language_model=google/flan-t5-small") == [n for n in usual if n != "own-t5"]


def test_a_part_is_found_by_the_name_of_a_run_beside_the_world(pictures, tmp_path):
    for name in ("my-eyes", "micro-t5"):
        (tmp_path / "runs" / name / "model").mkdir(parents=True)
    changes = ["model.image_encoder=my-eyes", "model.language_model=micro-t5", "own-stage1/model.bert=elsewhere"]
    recipes = {r.name: r.model for r in own_world.recipes_for(str(pictures), changes, tmp_path / "runs")}
    assert recipes["own-stage1"].image_encoder == str(tmp_path / "runs" / "my-eyes")
    assert recipes["own-stage2"].language_model == str(tmp_path / "runs" / "micro-t5")
    assert recipes["own-stage1"].bert == "elsewhere"  # nothing is there: a name of the hub
    assert recipes["own-stage2"].stage1 == recipes["own-retrieval"].start == "own-stage1"
    assert "own-t5" not in recipes and "own-bert" not in recipes


def test_a_world_of_cut_outs_is_trained_on_scenes_made_from_them(capsys, tmp_path, monkeypatch):
    from blip2_lab.training import pipeline

    things = tmp_path / "things"
    things.mkdir()
    for name, color in (("zorp", "red"), ("blick", "blue")):
        image = Image.new("RGBA", (20, 20))
        image.paste(color, (2, 2, 18, 18))
        image.save(things / f"{name}.png")
        (things / f"{name}.txt").write_text(f"A {name}.")
    started = []

    def stop(recipes, runs, **_):
        started.append((runs, {recipe.data.path for recipe in recipes}, recipes[0].optim.steps))
        raise ValueError("enough")

    monkeypatch.setattr(pipeline, "run", stop)
    words = ("train", "own", "--on", str(things), "--runs", str(tmp_path / "runs"), "--composites")
    for says in ("placing 2 cut-outs in 12 scenes\n", ""):  # the second time, the scenes are there
        assert run(capsys, *words, "12") == (2, "", f"{says}blip2-lab: enough\n")
    runs = tmp_path / "runs" / "own-things-composites"
    assert started[0] == started[1] and started[0][:2] == (runs, {str(runs / "composites")})
    table = (runs / "composites" / "captions.csv").read_text()
    assert "zorp" in table and "how many" in table and len(list((runs / "composites").glob("*.png"))) == 12
    assert "other cut-outs or of another number" in complaint(capsys, *words, "13")


def test_steps_scale_with_the_pictures_and_can_be_set(pictures):
    for recipe in OWN_WORLD[:-1]:
        epochs, least, most = EPOCHS[recipe.name]
        assert (
            scaled(recipe, 1).optim.steps == least == recipe.optim.steps and scaled(recipe, 10**6).optim.steps == most
        )
        between = scaled(recipe, 1000).optim
        assert between.steps == min(max(round(epochs * 1000 / 32), least), most)
        assert between.warmup_steps == between.steps // 10
    steps = {r.name: r.optim.steps for r in own_world.recipes_for(str(pictures), ["own-t5/optim.steps=7"])}
    assert steps["own-t5"] == 7 and steps["own-bert"] == EPOCHS["own-bert"][1]


def test_mistakes_of_a_world_of_ones_own_are_one_sentence(capsys, pictures, tmp_path):
    runs = ("--runs", str(tmp_path / "runs"))
    assert "train own --on FOLDER" in complaint(capsys, "train", "own")
    for number in range(12):
        (pictures / f"{number}.png").unlink()
    lines = (pictures / "captions.csv").read_text().splitlines()
    (pictures / "captions.csv").write_text("\n".join([lines[0], *lines[13:]]) + "\n")
    assert "has 8 pictures; a world needs at least 10" in complaint(
        capsys, "train", "own", "--on", str(pictures), *runs
    )
    assert "is a stream" in complaint(capsys, "train", "own", "--on", "https://x.y/{000..009}.tar", *runs)
    wrong = complaint(capsys, "train", "micro-all", "--on", str(pictures), *runs)
    assert "blip2-lab train own --on" in wrong
    assert not (tmp_path / "runs").exists()


def test_a_missing_or_empty_text_file_is_named(capsys, pictures, tmp_path):
    command = (
        "train",
        "own",
        "--on",
        str(pictures),
        "--runs",
        str(tmp_path / "runs"),
        "--jobs",
        "1",
        "--quiet",
        "--set",
    )
    assert "there is no file nowhere.txt" in complaint(capsys, *command, "data.text_file=nowhere.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    assert "has no words" in complaint(capsys, *command, f"data.text_file={tmp_path / 'empty.txt'}")


def test_what_the_language_model_of_captions_alone_is_not_promised(pictures, tmp_path):
    table = pictures / "captions.csv"
    table.write_text("\n".join(",".join(line.split(",")[:2]) for line in table.read_text().splitlines()) + "\n")
    recipes = own_world.recipes_for(str(pictures), [])
    of_texts, of_pictures = (next(r for r in recipes if r.name == name) for name in ("own-t5", "own-stage2"))
    said = own_world._what_was_read(of_texts, of_pictures, tmp_path)
    assert said.startswith("the language model has read 16 captions, and nothing else; ")
    assert "never read a question" in said
    from_hub = replace(of_pictures, model=replace(of_pictures.model, language_model="google/flan-t5-small"))
    assert "is google/flan-t5-small" in own_world._what_was_read(of_texts, from_hub, tmp_path)


def test_held_out_captions_are_read_by_the_tokenizer_and_not_trained_on(pictures, tmp_path):
    from blip2_lab.training.batches import open_batches
    from blip2_lab.training.tasks.own_parts import read_texts

    table = pictures / "captions.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *(f"{n}.png,a w{n}x.,," for n in range(20))]) + "\n")
    recipe = next(r for r in own_world.recipes_for(str(pictures), []) if r.name == "own-t5")
    texts = read_texts(open_batches(recipe, tmp_path))
    held_out = [caption for picture in texts.held_out for caption in picture.captions]
    assert len(texts.captions) == 16 and len(held_out) == 4 and not set(texts.captions) & set(held_out)
    assert set(texts.all()) == {f"a w{n}x." for n in range(20)}


def test_the_t5_reads_all_captions_of_a_picture_as_phrases_or_as_words(monkeypatch):
    """What it reads is enough to answer from, and stands before the prompt as a visual prompt does."""
    from blip2_lab.data.examples import Record
    from blip2_lab.picturebook.words import Question
    from blip2_lab.training.own_tokenizer import train_tokenizer
    from blip2_lab.training.tasks.own_parts import OwnT5Task, OwnTexts
    from blip2_lab.training.tasks.pretraining import new_text_model

    monkeypatch.setattr(micro, "SIZES", {part: {"S": sizes} for part, sizes in TINY.items()})
    captions, phrases = ("a zorp at the top, and a blick below.", "two things."), ["a blick below", "a zorp at the top"]
    record = Record(Path("x"), captions, (Question("what", "what is below?", "blick"),))
    texts = OwnTexts([record], [record], [])
    tokenizer = train_tokenizer("t5", texts.all(), 4000)
    task = OwnT5Task(new_text_model("t5", len(tokenizer), "S"), tokenizer, 4, 0, texts)
    examples = [task.example(number) for number in range(400)]
    asked = [one for one in examples if one.answer == "blick"]
    assert 150 < len(asked) < 250 and 80 < sum(not one.summed for one in examples) < 160
    for one in asked:
        assert one.prompt == "Question: what is below? Short answer:"
        words = sorted(" ".join(captions).split())
        assert sorted(one.told) == ([*phrases, "two things"] if one.summed else words)
    for one in examples:
        if one.answer != "blick":
            assert one.answer in captions or f"{one.prompt} {one.answer}" in captions
    assert len({tuple(one.told) for one in asked}) > 6  # in any order
    summed = next(one for one in asked if one.summed)
    part = task.read([summed, next(one for one in asked if not one.summed)], seed=0, noise_scale=0.0)
    place, told = (
        part["sums"].place[0],
        [tokenizer.decode(part["input_ids"][0][part["sums"].place[0] == n]) for n in range(3)],
    )
    assert told == summed.told and part["sums"].summed.sum(1).tolist() == [3, 0]
    prompt = tokenizer(summed.prompt).input_ids
    assert part["input_ids"][0][(place >= 3) & (place < 3 + len(prompt))].tolist() == prompt
    assert part["sums"].mask[0].sum() == 3 + len(prompt)
    assert task.compute_losses([part])["total"].item() > 0 and task.evaluate(0)["held_out"] > 0


def test_scenes_of_cutouts_are_neither_cropped_nor_flipped(pictures):
    """A crop moves things to other positions than the captions say."""
    from blip2_lab.data.composites import ABOUT

    cropped = own_world.recipes_for(str(pictures), [])
    (pictures / ABOUT).write_text("{}")
    for before, recipe in zip(cropped, own_world.recipes_for(str(pictures), []), strict=True):
        assert before.data.crop_scale == (0.5, 1.0) and recipe.data.crop_scale == (1.0, 1.0) and not recipe.data.flip
    changed = own_world.recipes_for(str(pictures), ["data.cached_views=3"])
    assert {recipe.data.cached_views for recipe in changed} == {3}


def test_a_plan_says_that_the_cost_depends_on_the_pictures(capsys):
    assert "depends on your pictures" in complaint(capsys, "plan", "own-t5")
    assert get("own").sequence[0] == "own-vit"
