"""The shipped micro model: its files, its card, and that it looks at the picture."""

import json
from dataclasses import MISSING, asdict, fields
from random import Random

import pytest
import torch

import blip2_lab
from benchmarks import card as tables_of_card
from blip2_lab.chat import out_of_distribution
from blip2_lab.checkpoints.load import MICRO
from blip2_lab.evaluation import scenes
from blip2_lab.models.decoding import Decoding
from blip2_lab.picturebook import words
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import HELD_OUT_BOOK, VALIDATION_BOOK, sample_scene
from blip2_lab.training.recipes.registry import get
from blip2_lab.training.run_folder import SHIPPED_RUNS

pytestmark = pytest.mark.skipif(not (MICRO / "config.json").is_file(), reason="this checkout has no micro model")

BOOK = [sample_scene(77, index, "in") for index in range(40)]
WAYS = ("image_to_text", "text_to_image")


@pytest.fixture(scope="module")
def micro():
    return blip2_lab.load("micro")


def test_everything_fits_in_sixty_megabytes():
    assert sum(file.stat().st_size for file in MICRO.rglob("*") if file.is_file()) <= 60_000_000
    assert not list(MICRO.rglob("*.bin")) and not list(MICRO.rglob("*.pth"))


def test_the_whole_time_of_parts_is_that_of_their_longest_way():
    """Stage 1 needs the ViT and the BERT, the T5 nothing: two at a time, the BERT starts when the T5 ends."""
    minutes = {"micro-vit": 3, "micro-t5": 2, "micro-bert": 4, "micro-stage1": 5}
    parts = [get(name) for name in minutes]
    assert tables_of_card.whole_time(parts, lambda part: minutes[part.name], 1) == 14
    assert tables_of_card.whole_time(parts, lambda part: minutes[part.name], 2) == 2 + 4 + 5


def test_the_card_and_the_readme_say_what_was_measured():
    """Their tables are those that `benchmarks.card` makes of the measured files."""
    card = (MICRO / "README.md").read_text()
    reports = {split: json.loads((MICRO / name).read_text()) for split, name in tables_of_card.SPLITS.items()}
    looked_at = {get("micro-vit").data.seed, HELD_OUT_BOOK, VALIDATION_BOOK}
    for split, report in reports.items():
        assert report["scenes"] >= 1000 and report["split"] == split and report["seed"] not in looked_at
    written = tables_of_card.tables()
    for file in tables_of_card.FILES:
        assert tables_of_card.with_tables(file.read_text(), written) == file.read_text(), "python -m benchmarks.card"
    of_readme = {"summary", "sentences"}
    for text, names in ((card, written.keys() - of_readme), (tables_of_card.FILES[1].read_text(), of_readme)):
        assert {name for name in written if f"<!-- table: {name} -->\n" in text} == names
    decoder = json.loads((MICRO / "evaluation-opt.json").read_text())["questions"]
    for kind in ("total", "knowledge"):
        shown = (decoder[pictures][kind] for pictures in ("picture", "no_picture", "shuffled_picture"))
        assert " | ".join(f"{share:.3f}" for share in shown) in card
    measured = json.loads((MICRO / "novelty.json").read_text())
    for rate in (measured["photographs_called_drawn"], *measured["drawn_called_strange"].values()):
        assert f"{rate:.1%}" in card


def test_the_weights_are_what_the_recipe_makes():
    """Recipe and log of every part are there, whole, and the recipe is that of today."""
    for name in get("shipped").sequence:
        ran = json.loads((MICRO / "curves" / f"{name}.json").read_text())
        recipe = json.loads(json.dumps(asdict(get(name))))
        for part in ("model", "data"):  # settings newer than the run have their defaults
            known = fields(getattr(get(name), part))
            ran[part] = {field.name: field.default for field in known if field.default is not MISSING} | ran[part]
        assert ran | {"cost": recipe["cost"]} == recipe  # what it costs was known afterwards
        records = [json.loads(line) for line in (MICRO / "curves" / f"{name}.jsonl").read_text().splitlines()]
        losses = {record["step"]: record["total"] for record in records if "total" in record}
        assert min(losses) <= 50 and max(losses) == recipe["optim"]["steps"]
        start = recipe["model"].get("start")  # trained on: it begins low, and a T5's word sums get noisier
        assert losses[max(losses)] < (1.2 if start else 0.6) * losses[min(losses)], name


@pytest.mark.xfail(
    strict=True, reason="its logs are older than micro-flan-t5 and the corpus of today; the card says so"
)
def test_the_parts_of_micro_all_were_run_with_the_recipes_as_they_are():
    """Its logs are whole, and the card has what came of it, beside the shipped model's."""
    card = (MICRO / "README.md").read_text()
    for name in get("micro-all").sequence:
        recipe = json.loads(json.dumps(asdict(get(name))))
        ran = json.loads((SHIPPED_RUNS / f"{name}.json").read_text())
        # auto is bf16 on the machine where they ran
        assert ran["optim"].pop("precision") == "bf16" and recipe["optim"].pop("precision") == "auto"
        newer = {key: recipe[key] for key in ("lora", "log_with") if key not in ran}  # settings newer than the run
        assert newer.get("log_with", "auto") == "auto" and (newer.get("lora") or {"rank": 0})["rank"] == 0
        if "text_from" in recipe["model"]:
            ran["model"] = {"text_from": ""} | ran["model"]
        assert newer | ran | {"cost": recipe["cost"]} == recipe  # what it costs was known afterwards
        last = json.loads((SHIPPED_RUNS / f"{name}.jsonl").read_text().splitlines()[-1])
        assert last["step"] == recipe["optim"]["steps"]
    reports = [json.loads((folder / "evaluation.json").read_text()) for folder in (MICRO, SHIPPED_RUNS)]
    assert len({report["scenes"] for report in reports}) == 1
    for group, kind in (("questions", "total"), ("questions", "knowledge"), ("captions", "kinds_f1")):
        shipped, again = (report[group]["picture"][kind] for report in reports)
        assert f"| {shipped:.3f} | {again:.3f} |" in card


def test_the_card_says_what_came_of_micro_all_on_a_book_that_nothing_had_looked_at():
    card = " ".join((MICRO / "README.md").read_text().split())
    report = json.loads((SHIPPED_RUNS / "evaluation-book-3.json").read_text())
    looked_at = {get("micro-vit").data.seed, HELD_OUT_BOOK, VALIDATION_BOOK}
    assert report["scenes"] == 1000 and report["seed"] not in looked_at
    asked, found = report["questions"], report["retrieval"]
    told, seen, knows = asked["description"]["total"], asked["picture"]["total"], asked["picture"]["knowledge"]
    assert f"words {told:.3f}, zero-shot {seen:.3f}, knowledge {knows:.3f}" in card
    assert f"F1 of the kinds {report['captions']['picture']['kinds_f1']:.3f}" in card
    for text, name in (("R@1 by ITC", "itc"), ("re-ranked", "both")):
        assert "{} {:.3f} and {:.3f}".format(text, *(found[f"{name}_{way}_r1"] for way in WAYS)) in card
    assert f"ITM on mined negatives {found['itm_accuracy_mined']:.3f}" in card


def test_it_answers_from_the_picture(micro):
    """Zero-shot, far better than with another scene's picture, and not far from what the card says."""
    asked = scenes.questions(BOOK, seed=77)
    features = scenes.image_features(micro, BOOK, 40)
    with torch.no_grad():
        prompts = micro.visual_prompt(features)
    scores = scenes.question_accuracy(micro, prompts, asked, Decoding(num_beams=1), 128)
    shuffled = scenes.question_accuracy(micro, prompts.roll(1, 0), asked, Decoding(num_beams=1), 128)
    report = json.loads((MICRO / "evaluation.json").read_text())["questions"]["picture"]
    assert scores["total"] > shuffled["total"] + 0.1
    assert scores["total"] == pytest.approx(report["total"], abs=0.08)


def test_it_finds_the_caption_of_a_picture(micro):
    scores = scenes.retrieval_scores(micro.stage1, scenes.image_features(micro, BOOK, 40), BOOK, 77, 40)
    assert scores["itc_image_to_text_r1"] > 0.8 and scores["itc_text_to_image_r1"] > 0.8
    assert scores["itm_accuracy_true"] > 0.8
    shuffled = [scores[f"{name}_{way}_shuffled_r1"] for name in ("itc", "itm", "both") for way in WAYS]
    assert max(shuffled) < 0.2 and scores["itm_accuracy_true_shuffled"] < 0.2


def test_photographs_are_strange_and_scenes_are_not(micro):
    world = out_of_distribution.load("micro")
    drawn = out_of_distribution.distances_of(world, micro.image_encoder, (draw(scene, 96) for scene in BOOK))
    assert (drawn <= world.limit).float().mean() > 0.9
    pictures = [parts[0] for parts in out_of_distribution.photographs(crops=1).values()]
    if pictures:  # they come with the development tools
        photographs = out_of_distribution.distances_of(world, micro.image_encoder, pictures)
        assert (photographs > world.limit).float().mean() > 0.6


def test_transformers_own_class_says_the_same(micro):
    from transformers import AutoProcessor, Blip2ForConditionalGeneration

    theirs = Blip2ForConditionalGeneration.from_pretrained(MICRO, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(MICRO)
    said = set()
    for number, scene in enumerate(BOOK[:10]):
        image = draw(scene, 96)
        asked = words.questions(scene, Random(number))
        question = asked[number % len(asked)]
        prompt = f"Question: {question.text} Short answer:"
        inputs = processor(images=image, text=prompt, return_tensors="pt")
        ids = theirs.generate(**inputs, num_beams=5, length_penalty=-1.0, max_new_tokens=10)
        answer = processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
        assert micro.generate(image, prompt) == answer
        said.add(answer)
        labels = processor.tokenizer(question.answer, return_tensors="pt").input_ids
        with torch.no_grad():
            logits = theirs(**inputs, labels=labels).logits
            texts = micro.language_model.pair_texts([prompt], [question.answer])
            ours = micro.language_model.answer_logits(micro.encode_image([image]), *texts)
        torch.testing.assert_close(ours, logits, atol=2e-4, rtol=1e-4)
    assert len(said) > 5, "ten answers, not ten times the same"
