"""Both stages and fine-tuning, end to end on tiny models: cached features, fresh captions, frozen weights."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import blip2_lab
from blip2_lab import export
from blip2_lab.checkpoints.huggingface import MissingHead
from blip2_lab.checkpoints.load import save
from blip2_lab.data.examples import image_ids
from blip2_lab.data.scenes import PictureBook
from blip2_lab.doctor import model as model_doctor
from blip2_lab.training import builders, loading
from blip2_lab.training import run as run_module
from blip2_lab.training.frozen_features import fingerprint
from blip2_lab.training.loading import load_image_encoder, load_language_model
from blip2_lab.training.optim import parameter_groups
from blip2_lab.training.recipes.registry import continued, get, needs
from blip2_lab.training.recipes.schema import ImageTextData, override
from blip2_lab.training.run_folder import read_log
from blip2_lab.training.scene_batches import scene_features
from blip2_lab.training.trainer import train
from tests.tiny import build_tiny_model

SMALL = ("data.scenes=12", "data.held_out=4", "optim.batch_size=4", "optim.steps=3", "optim.warmup_steps=1")
LAST = ("eval_every=3", "save_every=2")


def recipe(name: str, *changes: str):
    chosen = get(name)
    for change in (*SMALL, *LAST, *changes):
        chosen = override(chosen, change)
    return chosen


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    """Run folders with random micro-vit, micro-bert, micro-t5 and micro-opt, as their recipes would leave them."""
    from transformers import BertConfig, BertForMaskedLM, Blip2VisionConfig, OPTConfig, T5Config

    from blip2_lab.models.micro import new_opt, new_t5, padded_vocab_size
    from blip2_lab.models.vision_encoder import ImageEncoder
    from blip2_lab.picturebook.tokenizer import build_tokenizer

    runs = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    sizes = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64)
    vision = Blip2VisionConfig(**sizes, image_size=48, patch_size=16, initializer_range=0.02)
    ImageEncoder.from_config(vision).model.save_pretrained(runs / "micro-vit" / "model")
    for family in ("bert", "t5", "opt"):
        folder, tokenizer = runs / f"micro-{family}" / "model", build_tokenizer(family)
        rows = padded_vocab_size(len(tokenizer))
        if family == "bert":
            model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes, max_position_embeddings=64))
        elif family == "t5":
            ids = dict(pad_token_id=0, eos_token_id=1, bos_token_id=0, decoder_start_token_id=0)
            widths = dict(d_model=64, d_kv=64, d_ff=64)
            model = new_t5(T5Config(vocab_size=rows, num_layers=1, num_heads=1, **widths, **ids))
        else:
            ids = dict(pad_token_id=1, bos_token_id=2, eos_token_id=2)
            widths = dict(hidden_size=64, ffn_dim=64, word_embed_proj_dim=64)
            config = OPTConfig(vocab_size=rows, num_hidden_layers=1, num_attention_heads=1, **widths, **ids)
            model = new_opt(config)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    shutil.copytree(runs / "micro-t5", runs / "micro-flan-t5")
    return runs


@pytest.fixture(scope="module")
def trained(parts) -> Path:
    """The same folders after stage 1 and stage 2."""
    run_module.run(recipe("micro-stage1"), parts, progress=False)
    run_module.run(recipe("micro-stage2"), parts, progress=False)
    return parts


def test_stage1_starts_from_bert_and_takes_its_sizes(parts):
    task = builders.build_task(recipe("micro-stage1", "model.num_query_tokens=5"), parts)
    config = task.model.qformer.config
    assert (config.width, config.num_layers, config.image_width, config.num_query_tokens) == (64, 1, 64, 5)
    from transformers import AutoTokenizer, BertForMaskedLM

    bert = BertForMaskedLM.from_pretrained(parts / "micro-bert" / "model").state_dict()
    assert torch.equal(task.model.qformer.word_embeddings.weight, bert["bert.embeddings.word_embeddings.weight"])
    layer = task.model.qformer.layers[0]
    assert torch.equal(layer.query_ffn.expand.weight, bert["bert.encoder.layer.0.intermediate.dense.weight"])
    assert torch.equal(task.model.lm_head.bias, bert["cls.predictions.bias"])
    tokenizer = AutoTokenizer.from_pretrained(parts / "micro-bert" / "model")
    assert task.model.config.decode_token_id == tokenizer.convert_tokens_to_ids("[DEC]")


def test_batches_are_functions_of_their_index_with_fresh_captions(parts):
    task, again = (builders.build_task(recipe("micro-stage1"), parts) for _ in range(2))
    a, b = task.batch(7), again.batch(7)
    assert a.captions == b.captions and torch.equal(a.image_features, b.image_features)
    epochs = [{c for index in range(start, start + 3) for c in task.batch(index).captions} for start in (0, 3)]
    assert epochs[0] != epochs[1]  # the same twelve pictures, other words


def test_features_are_the_encoders_and_computed_once(parts, capsys):
    encoder = load_image_encoder("micro-vit", parts)
    data = recipe("micro-stage1").data
    _, features = scene_features(encoder, data, parts)
    capsys.readouterr()
    book, again = scene_features(encoder, data, parts)
    assert "computing" not in capsys.readouterr().out and torch.equal(features[range(12)], again[range(12)])
    with torch.no_grad():
        direct = encoder(encoder.preprocess([book.image(5)]))[0]
    torch.testing.assert_close(features[5].float(), direct, atol=0.05, rtol=0.05)
    assert book.image(5).tobytes() == PictureBook(data.seed, image_size=48).image(5).tobytes()


def test_another_encoder_has_another_fingerprint():
    one = torch.nn.Linear(2, 2)
    same = torch.nn.Linear(2, 2)
    same.load_state_dict(one.state_dict())
    assert fingerprint(one) == fingerprint(same)
    with torch.no_grad():
        same.bias[0] += 1e-6
    assert fingerprint(one) != fingerprint(same)


def test_both_stages_write_log_checkpoints_and_model(trained):
    stage1, stage2 = (read_log(trained / name) for name in ("micro-stage1", "micro-stage2"))
    assert {"total", "itc", "itm", "itg"} <= stage1[0].keys()
    total = sum(stage1[0][name] for name in ("itc", "itm", "itg"))
    assert stage1[0]["total"] == pytest.approx(total, rel=1e-2)
    assert {"image_to_text_r1", "text_to_image_r1", "itm_accuracy"} == stage1[-1]["evaluation"].keys()
    assert {"accuracy", "shuffled", "color", "use"} <= stage2[-1]["evaluation"].keys()
    assert len(list((trained / "features").glob("*/cache.json"))) == 1  # both stages read the same cache
    assert json.loads((trained / "micro-stage2" / "recipe.json").read_text())["optim"]["steps"] == 3


def test_frozen_parts_are_the_same_after_training(trained):
    before = {name: fingerprint(load) for name, load in frozen_parts(trained).items()}
    task = builders.build_task(recipe("micro-stage2"), trained)
    train(task, recipe("micro-stage2").optim, run_dir=trained / "again", progress=False)
    model = task.model
    assert fingerprint(model.image_encoder) == before["encoder"]
    assert fingerprint(model.language_model) == before["language"]
    frozen = [*model.image_encoder.parameters(), *model.language_model.parameters()]
    assert all(not p.requires_grad and p.grad is None for p in frozen)
    assert not any(m.training for part in (model.image_encoder, model.language_model) for m in part.modules())


def frozen_parts(runs):
    encoder = load_image_encoder("micro-vit", runs)
    return {"encoder": encoder, "language": load_language_model("micro-t5", runs)}


def test_the_exported_model_is_what_was_trained(trained, tmp_path):
    folder = export.export(trained, tmp_path / "micro", scenes=8)
    model = blip2_lab.load(str(folder))
    stored = load_file(trained / "micro-stage2" / "checkpoints" / "step-3" / "model.safetensors")
    loaded = model.state_dict()
    for name, tensor in stored.items():
        torch.testing.assert_close(loaded[name].float(), tensor, atol=1e-6, rtol=1e-3, msg=name)  # kept in 16 bits
    assert model.stage1 is not None and isinstance(model.generate(PictureBook(0).image(0), "what?"), str)
    assert (folder / "drawn_world.safetensors").is_file()
    assert model_doctor.reference(model, folder / model_doctor.REFERENCE).state == "good"
    assert len((folder / "curves" / "micro-stage1.jsonl").read_text().splitlines()) > 0


def test_stage2_without_stage1_starts_from_bert(trained):
    pretrained = builders.build_task(recipe("micro-stage2"), trained).model.qformer
    alone = builders.build_task(recipe("micro-stage2", "model.pretrained=false"), trained).model.qformer
    assert not torch.equal(pretrained.query_tokens, alone.query_tokens)
    from transformers import BertForMaskedLM

    bert = BertForMaskedLM.from_pretrained(trained / "micro-bert" / "model").state_dict()
    key = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(alone.layers[0].self_attention.query.weight, bert[key])


def test_stage2_with_a_decoder(trained):
    task = builders.build_task(recipe("micro-stage2-opt"), trained)
    first = task.compute_losses(task.batch(0))["total"]
    first.backward()
    assert first.isfinite() and task.model.language_projection.weight.grad.abs().sum() > 0
    assert 0 <= task.evaluate(0)["accuracy"] <= 1


@pytest.mark.parametrize(("name", "beams"), [("micro-stage2", 1), ("micro-stage2-opt", 5)])
def test_the_decoding_of_evaluation_by_kind_of_language_model(trained, monkeypatch, name, beams):
    """A decoder writes another question behind its answer, greedily: the paper's beams and length penalty end it."""
    task = builders.build_task(recipe(name), trained)
    language, asked = task.model.language_model, []
    answers = {language.question_prompt.format(question.text): question.answer for _, question in task.questions}

    def generate(visual_prompts, prompts, decoding):
        asked.append(decoding)
        return [f"{answers[prompt]}." for prompt in prompts]

    monkeypatch.setattr(language, "generate", generate)
    assert task.evaluate(0)["accuracy"] > 0.5  # not 1: one question can stand for several pictures
    assert {(decoding.num_beams, decoding.length_penalty) for decoding in asked} == {(beams, -1)}


def test_an_interrupted_stage_resumes_to_the_same_weights(trained, tmp_path):
    shutil.copytree(trained / "micro-stage1", tmp_path / "cut" / "micro-stage1")
    for name in ("micro-vit", "micro-bert", "features"):
        shutil.copytree(trained / name, tmp_path / "cut" / name)
    shutil.rmtree(tmp_path / "cut" / "micro-stage1" / "checkpoints" / "step-3")  # as if killed after step 2
    run_module.run(recipe("micro-stage1"), tmp_path / "cut", progress=False)
    a, b = (load_file(r / "micro-stage1" / "model" / "model.safetensors") for r in (trained, tmp_path / "cut"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_missing_parts_and_pictures_are_said_before_a_download(parts, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="needs micro-vit and micro-bert .* blip2-lab train micro-vit"):
        run_module.run(recipe("micro-stage1"), tmp_path)
    with pytest.raises(ValueError, match="no finished model"):
        export.export(tmp_path)
    monkeypatch.setattr(builders, "load_image_encoder", lambda *_: pytest.fail("gigabytes were fetched before"))
    for name in ("paper-stage1-vit-g", "a100-stage2", "finetune-caption-opt-2.7b"):
        with pytest.raises(ValueError, match=f"{name} trains on .*: say where they are, --on FOLDER"):
            builders.build_task(get(name), parts)


# ------------------------------------------------------------------------------------------------- pictures of your own


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A folder of sixteen drawn pictures with captions.csv; one of them is broken, one row is empty."""
    import csv

    folder, book = tmp_path_factory.mktemp("my pictures"), PictureBook(5, image_size=64)
    with (folder / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "caption", "question", "answer"])
        for number in range(16):
            example = book[number]
            example.image.save(folder / f"{number}.jpg", quality=95)
            question = example.questions[0]
            for caption in example.captions[:2]:
                writer.writerow([f"{number}.jpg", caption, question.text, question.answer])
        writer.writerow(["3.jpg", "", "", ""])
    (folder / "7.jpg").write_bytes(b"no picture")
    return folder


def on(own: Path, name: str, *changes: str):
    """The recipe on that folder, in a run of its own: four steps, of which every second is evaluated."""
    small = ("optim.steps=4", "optim.warmup_steps=1", "optim.batch_size=4", "data.held_out=3", "data.threads=2")
    chosen = replace(get(name), name=f"{name}-own", save_every=2, eval_every=2)
    if not isinstance(chosen.data, ImageTextData):
        chosen = replace(chosen, data=ImageTextData(image_size=48))
    chosen = replace(chosen, data=replace(chosen.data, path=str(own), image_size=48, max_broken=0.2, cached_views=0))
    for change in (*small, *changes):
        chosen = override(chosen, change)
    return chosen


def test_both_stages_train_on_images(trained, own, capsys):
    run_module.run(on(own, "micro-stage1"), trained)
    run_module.run(on(own, "micro-stage2"), trained)
    stage1, stage2 = (read_log(trained / f"micro-stage{n}-own") for n in (1, 2))
    assert {"total", "itc", "itm", "itg"} <= stage1[-2].keys() | stage1[-1].keys()
    assert {"image_to_text_r1", "itm_accuracy"} <= stage1[-1]["evaluation"].keys()
    assert {"held_out", "shuffled"} <= stage2[-1]["evaluation"].keys()
    assert "1 empty caption" in capsys.readouterr().out
    assert (trained / "micro-stage1-own" / "model").is_dir() and (trained / "micro-stage2-own" / "model").is_dir()


def test_a_run_can_stand_wherever_a_trained_part_is_asked_for(trained, own, tmp_path):
    """By its name, its path, its model's path; from another folder of runs, too. It has its image encoder."""
    from blip2_lab.chat import image_search

    run_module.run(on(own, "micro-stage1"), trained, progress=False)
    run, queries = trained / "micro-stage1-own", None
    for name in ("micro-stage1-own", str(run), str(run / "model")):
        stage1 = loading.load_stage1(name, tmp_path if "/" in name else trained)
        queries = stage1.qformer.query_tokens if queries is None else queries
        assert torch.equal(stage1.qformer.query_tokens, queries)
        assert fingerprint(stage1.image_encoder) == fingerprint(load_image_encoder("micro-vit", trained))
    language = f"model.language_model={trained / 'micro-t5'}"
    stage2 = builders.build_task(on(own, "micro-stage2", f"model.stage1={run}", language), trained)
    assert torch.equal(stage2.model.qformer.query_tokens, queries)
    retrieval = builders.build_task(on(own, "micro-retrieval", "model.start=micro-stage1-own"), trained)
    assert torch.equal(retrieval.model.qformer.query_tokens, queries)
    complete = trained / "micro-stage2"  # of a whole model, the part that is asked for
    language = load_language_model(str(complete), tmp_path, max_text_tokens=20)
    assert fingerprint(language) == fingerprint(load_language_model("micro-t5", trained))
    assert language.max_text_tokens == 20
    assert fingerprint(load_image_encoder(str(complete), tmp_path)) == fingerprint(stage1.image_encoder)
    scenes = loading.load_stage1(str(trained / "micro-stage1"), tmp_path)  # saved without its image encoder
    assert fingerprint(scenes.image_encoder) == fingerprint(stage1.image_encoder)
    (own / "sub").mkdir()
    shutil.copyfile(own / "0.jpg", own / "sub" / "0.jpg")
    assert len(image_search.build(blip2_lab.load(str(run)), own / "sub")) == 1
    shutil.rmtree(own / "sub")
    with pytest.raises(ValueError, match="there is no recipe, run or model 'micro-stge1'; did you mean 'micro-stage1'"):
        loading.resolve("micro-stge1", trained)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="half is a run without a finished model"):
        loading.resolve("half", tmp_path)


@pytest.mark.parametrize("name", ["micro-stage1", "micro-stage2"])
def test_training_from_the_cache_gives_the_same_losses(trained, own, name):
    """Of a square picture, a crop of all of it is the picture: then live and cached batches show the same."""
    logs = []
    for views in (0, 1):
        plain = ("data.crop_scale=1.0,1.0", "data.flip=false", "optim.precision=fp32", f"data.cached_views={views}")
        recipe = replace(on(own, name, *plain), name=f"{name}-{views}-views", eval_every=0)
        task = builders.build_task(recipe, trained)
        assert (task.batch(0).pixels is None) == bool(views)
        train(task, recipe.optim, run_dir=trained / recipe.name, log_every=1, progress=False)
        logs.append([record["total"] for record in read_log(trained / recipe.name)])
    assert len(logs[0]) == 4 and logs[0] == pytest.approx(logs[1], rel=2e-3)


def test_an_interrupted_run_on_images_resumes_to_the_same_weights(trained, own, tmp_path):
    recipe = on(own, "micro-stage2", "data.cached_views=2")
    results = []
    for name in ("whole", "cut"):
        run = replace(recipe, name=name)
        if name == "cut":  # the whole run's folder, as if it had been killed after step 2
            shutil.copytree(trained / "whole", trained / "cut")
            shutil.rmtree(trained / "cut" / "checkpoints" / "step-4")
        run_module.run(run, trained, progress=False)
        results.append(load_file(trained / name / "model" / "model.safetensors"))
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def test_a_run_does_not_resume_on_other_images(trained, own, tmp_path):
    run_module.run(on(own, "micro-stage2"), trained, progress=False)
    shutil.copytree(own, tmp_path / "more")
    run_module.run(on(tmp_path / "more", "micro-stage2"), trained, progress=False)  # the same data elsewhere
    with (tmp_path / "more" / "captions.csv").open("a") as file:
        file.write("15.jpg,a red boat on the beach,,\n")
    with pytest.raises(ValueError, match="now there are other captions or questions.*--restart.*--name"):
        run_module.run(on(tmp_path / "more", "micro-stage2"), trained, progress=False)
    shutil.copyfile(own / "0.jpg", tmp_path / "more" / "new.jpg")
    with (tmp_path / "more" / "captions.csv").open("a") as file:
        file.write("new.jpg,a new picture,,\n")
    with pytest.raises(ValueError, match="was started on other data .*17 examples instead of 16.*--restart"):
        run_module.run(on(tmp_path / "more", "micro-stage2"), trained, progress=False)
    run_module.run(on(tmp_path / "more", "micro-stage2"), trained, resume=False, progress=False)


@pytest.fixture(scope="module")
def whole(trained) -> Path:
    """A finished BLIP-2 to fine-tune: the stage-2 run's model."""
    return trained / "micro-stage2" / "model"


def test_fine_tuning_teaches_the_captions_and_leaves_the_frozen_parts(trained, own, whole, capsys):
    recipe = on(own, "micro-captions", f"model.start={whole}", "data.cached_views=2")
    task = builders.build_task(recipe, trained)
    before = fingerprint(task.model.image_encoder), fingerprint(task.model.language_model)
    queries = task.model.qformer.query_tokens.clone()
    run_module.run(recipe, trained)
    model = blip2_lab.load(str(trained / recipe.name / "model"))
    assert (fingerprint(model.image_encoder), fingerprint(model.language_model)) == before
    assert not torch.equal(model.qformer.query_tokens, queries)
    assert isinstance(model.generate(own / "0.jpg", recipe.model.prompt), str)
    assert "skipped 2 of 17 examples: 1 empty caption, 1 not a picture" in capsys.readouterr().out


def test_the_image_encoder_is_trained_if_the_recipe_says_so(trained, own, whole):
    changes = ("model.train_image_encoder=true", "model.layer_decay=0.5", f"model.start={whole}")
    task = builders.build_task(on(own, "micro-captions", *changes), trained)
    groups = parameter_groups(task.model, 1e-3, 0.05, lr_scales=task.lr_scales())
    assert {group["lr_scale"] for group in groups} == {1.0, 0.5, 0.25}  # one layer, and the embeddings below it
    before = fingerprint(task.model.image_encoder)
    train(task, recipe("micro-stage2").optim, run_dir=trained / "unfrozen", progress=False)
    assert fingerprint(task.model.image_encoder) != before
    with pytest.raises(ValueError, match="cannot be cached: --set data.cached_views=0"):
        builders.build_task(on(own, "micro-captions", *changes, "data.cached_views=2"), trained)


def test_questions_use_the_prompt_of_the_language_model(trained, own, whole, monkeypatch):
    changes = ("data.text=questions", f"model.start={whole}")
    task = builders.build_task(on(own, "micro-captions", *changes), trained)
    batch, asked = task.batch(0), []
    monkeypatch.setattr(
        type(task.model), "loss_and_count", lambda _, **given: asked.append(given) or (torch.zeros(()), torch.ones(()))
    )
    task.compute_losses(batch)
    assert asked[0]["prompts"] == [f"Question: {question} Short answer:" for question in batch.questions]
    assert asked[0]["captions"] == batch.captions


@pytest.mark.parametrize(
    ("name", "part", "way"),
    [
        ("micro-stage1", "the text encoder", "model.bert="),
        ("micro-stage2", "the language model", "model.language_model="),
        ("micro-captions", "the language model", "model.start="),
        ("micro-retrieval", "the text encoder", "model.start="),
    ],
)
def test_mostly_unknown_words_stop_every_kind_of_training_and_few_are_noted(
    trained, own, whole, tmp_path, capsys, name, part, way
):
    folder, start = (
        tmp_path / "strange",
        (f"model.start={whole}",) if name in ("micro-captions", "micro-retrieval") else (),
    )
    shutil.copytree(own, folder)
    rows = "".join(f"{n}.jpg,a zebra and a red boat on the beach at night\n" for n in range(6))
    (folder / "captions.csv").write_text("file,caption\n" + rows)
    with pytest.raises(ValueError, match=rf"{part} does not know 9 % .*zebra 6.*{way}.*--set data.unknown_words=1"):
        builders.build_task(on(folder, name, *start, "data.unknown_words=0.05"), trained)
    task = builders.build_task(on(folder, name, *start), trained)
    assert f"note: {part} does not know 9 % of the words (6 of 66" in capsys.readouterr().out
    assert task.words[part].unknown == {"zebra": 6}
    assert task.compute_losses(task.batch(0))["total"].isfinite()


def test_images_of_one_id_are_no_negatives_of_each_other():
    numbers = image_ids(["0/a", "0/b", "0/a", "1/a"])
    assert numbers.dtype == torch.long and numbers[0] == numbers[2] and len(set(numbers.tolist())) == 3


# ------------------------------------------------------------------------------------------------ stage 2, trained on


def test_stage2_is_trained_on_with_another_language_model(trained, tmp_path):
    runs = shutil.copytree(trained, tmp_path / "runs")
    # all other weights, the same sizes
    shutil.rmtree(runs / "micro-flan-t5")
    t5 = load_language_model("micro-t5", runs).model
    with torch.no_grad():
        t5.shared.weight.mul_(2)
    t5.save_pretrained(runs / "micro-flan-t5" / "model")
    shutil.copytree(runs / "micro-t5" / "model", runs / "micro-flan-t5" / "model", dirs_exist_ok=True, ignore=_weights)
    before = blip2_lab.load(str(runs / "micro-stage2" / "model"))
    task = builders.build_task(recipe("micro-stage2", "model.start=micro-stage2"), runs)
    assert torch.equal(task.model.bridge.language_projection.weight, before.bridge.language_projection.weight)
    assert torch.equal(task.model.qformer.query_tokens, before.qformer.query_tokens)
    assert torch.equal(task.model.language_model.model.shared.weight, t5.shared.weight)
    trained_parts = {name.split(".")[0] for name, p in task.model.named_parameters() if p.requires_grad}
    assert trained_parts == {"qformer", "language_projection"} and task.model.stage1 is not None
    assert needs(override(get("micro-stage2"), "model.start=micro-stage2")) == ("micro-stage2", "micro-flan-t5")


def _weights(_folder, names):
    return [name for name in names if name.endswith(".safetensors")]


def test_what_stage2_cannot_go_on_from_is_said(trained):
    with pytest.raises(ValueError, match="no language model that answers"):
        builders.build_task(recipe("micro-stage2", "model.start=micro-stage1"), trained)
    language_model = load_language_model("micro-t5", trained)
    config = language_model.model.config
    config.d_model *= 2
    type(language_model.model)(config).save_pretrained(trained / "micro-wide" / "model")
    language_model.tokenizer.save_pretrained(trained / "micro-wide" / "model")
    with pytest.raises(ValueError, match="prompts a language model of another width than micro-wide"):
        builders.build_task(
            recipe("micro-stage2", "model.start=micro-stage2", "model.language_model=micro-wide"), trained
        )


def test_a_sequence_ends_in_the_recipe_that_nobody_continues():
    assert continued("micro-stage2", get("micro-all").sequence) == "micro-stage2"
    assert continued("shipped-stage2", get("shipped").sequence) == "shipped-stage2-evenly-ordered"
    assert continued("shipped-retrieval", get("shipped").sequence) == "shipped-retrieval-phrases"


# -------------------------------------------------------------------------------------------- fine-tuning for retrieval


def test_retrieval_starts_from_stage1_and_is_exported(trained, tmp_path):
    runs = shutil.copytree(trained, tmp_path / "runs")
    run_module.run(recipe("micro-retrieval"), runs, progress=False)
    assert {"itc", "itm", "itg"} <= read_log(runs / "micro-retrieval")[0].keys()
    before = blip2_lab.load(str(export.export(trained, tmp_path / "before", scenes=8)))
    tuned = blip2_lab.load(str(runs / "micro-retrieval" / "model"))  # all heads, and the same image encoder
    assert fingerprint(tuned.image_encoder) == fingerprint(load_image_encoder("micro-vit", runs))
    assert tuned.temperature != tuned.config.temperature and tuned.generate(image_features=torch.zeros(1, 10, 64))
    shipped = blip2_lab.load(str(export.export(runs, tmp_path / "after", scenes=8)))
    weights = [model.qformer.query_tokens for model in (before.stage1, tuned, shipped.stage1)]
    assert not torch.equal(weights[0], weights[1])
    torch.testing.assert_close(weights[1], weights[2], atol=1e-6, rtol=1e-3)  # kept in 16 bits
    assert torch.equal(before.qformer.query_tokens, shipped.qformer.query_tokens)  # the one that talks is as it was
    assert (tmp_path / "after" / "curves" / "micro-retrieval.jsonl").is_file()


@pytest.mark.parametrize("start", ["micro-stage1", "whole"])
def test_retrieval_trains_the_image_encoder_on_images(trained, own, whole, start):
    start = str(whole) if start == "whole" else start
    changes = ("model.train_image_encoder=true", "model.layer_decay=0.5", f"model.start={start}")
    recipe = on(own, "micro-retrieval", *changes)
    task = builders.build_task(recipe, trained)
    groups = parameter_groups(task.model, 1e-3, 0.05, lr_scales=task.lr_scales())
    assert {group["lr_scale"] for group in groups} == {1.0, 0.5, 0.25}  # one layer, and the embeddings below it
    batch, before = task.batch(0), fingerprint(task.image_encoder)
    pieces = [
        replace(batch, **{n: getattr(batch, n)[i : i + 2] for n in ("pixels", "captions", "ids")}) for i in (0, 2)
    ]
    gradients = []
    for batches in ([batch], pieces):  # a step's passes are one batch, the image encoder's gradient included
        task.model.zero_grad()
        task.generator.manual_seed(0)
        task.compute_joint_losses(batches)["total"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in task.image_encoder.parameters() if p.grad is not None]))
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-3)
    run_module.run(recipe, trained, progress=False)
    tuned = blip2_lab.load(str(trained / recipe.name / "model"))
    assert fingerprint(tuned.image_encoder) != before
    assert "itm_accuracy" in read_log(trained / recipe.name)[-1]["evaluation"]
    shutil.rmtree(trained / recipe.name)  # the other start is another run
    with pytest.raises(ValueError, match="cannot be cached: --set data.cached_views=0"):
        builders.build_task(on(own, "micro-retrieval", *changes, "data.cached_views=2"), trained)


def test_retrieval_refuses_models_it_cannot_start_from_or_save(trained, own, tmp_path):
    tuned = blip2_lab.load(str(trained / "micro-stage2" / "model")).stage1
    tuned.lm_head = MissingHead()
    save(tuned, tmp_path / "released")  # as the hub has it: without the heads that stage 1 trains
    with pytest.raises(ValueError, match="no language modeling head, which ITG trains: start from LAVIS"):
        builders.build_task(on(own, "micro-retrieval", f"model.start={tmp_path / 'released'}"), trained)
    with pytest.raises(ValueError, match="features of an image encoder that trains cannot be cached"):
        builders.build_task(recipe("micro-retrieval", "model.train_image_encoder=true"), trained)
    other = shutil.copytree(trained, tmp_path / "runs")
    run_module.run(recipe("micro-retrieval"), other, progress=False)
    file = other / "micro-retrieval" / "model" / "model.safetensors"
    state = load_file(file)
    state["vision_model.embeddings.patch_embedding.weight"] += 1
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="micro-retrieval and micro-stage2 have different image encoders"):
        export.export(other, scenes=8)


# ----------------------------------------------------------------------------------------- the question in the Q-Former


@pytest.fixture
def asked_pictures(tmp_path) -> Path:
    """Scenes with questions and answers in a table."""
    folder, rows = tmp_path / "asked", ["file,question,answer"]
    folder.mkdir()
    book = PictureBook(5, "in", 48)
    for number in range(10):
        book[number].image.save(folder / f"{number}.png")
        rows += [f'{number}.png,"{q.text}","{q.answer}"' for q in book[number].questions[:3]]
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder


def vqa(start: Path, place: Path, *changes: str, name: str = "mine"):
    chosen = get("micro-vqa")
    chosen = replace(chosen, name=name, save_every=2, eval_every=2, data=replace(chosen.data, path=str(place)))
    small = ("optim.steps=4", "optim.warmup_steps=1", "optim.batch_size=4", "optim.lr=1e-2", "data.held_out=2")
    small += ("data.image_size=48", "data.cached_views=0", "data.threads=1")
    for change in (*small, f"model.start={start}", *changes):
        chosen = override(chosen, change)
    return chosen


@pytest.mark.parametrize("changes", [(), ("lora.rank=2", "lora.layers=linear", "optim.checkpoint_layers=true")])
def test_vqa_trains_the_text_side_of_the_qformer_and_saves_it(tmp_path, asked_pictures, changes, capsys):
    start, runs = tmp_path / "start", tmp_path / "runs"
    save(build_tiny_model(), start)
    run_module.run(vqa(start, asked_pictures, *changes), runs)
    assert "the text encoder" in (runs / "mine" / "words.json").read_text()
    model, before = blip2_lab.load(runs / "mine"), blip2_lab.load(start)
    assert model.reads_questions and not before.reads_questions
    now, text = model.qformer.state_dict(), before.stage1.qformer.state_dict()
    first, last = "layers.0.text_ffn.expand.weight", "layers.1.text_ffn.expand.weight"
    assert not torch.equal(now[first], text[first]) and torch.equal(now[last], text[last])  # nothing reads the last
    words = "word_embeddings.weight"
    assert torch.equal(now[words], text[words]) == bool(changes)  # LoRA adapts matrices between layers alone
    question = "Question: what color is the boat? Short answer:"
    image = PictureBook(5, "in", 48)[0].image
    others = (model.encode_image(image, [asked]) for asked in (question, "Question: is it day? Short answer:"))
    assert not torch.allclose(*others, atol=1e-5) and isinstance(model.generate(image, question), str)
    log = [record["evaluation"] for record in read_log(runs / "mine") if "evaluation" in record]
    assert all({"held_out", "shuffled", "compared", "p"} == record.keys() for record in log) and len(log) == 2
    again = vqa(runs / "mine", asked_pictures, *changes, name="again")  # goes on from a model that reads questions
    run_module.run(again, runs, progress=False)
    assert blip2_lab.load(runs / "again").reads_questions


def test_questions_whose_prompt_is_cut_are_counted_and_said(tmp_path, asked_pictures, capsys):
    start = tmp_path / "start"
    save(build_tiny_model(), start)
    with pytest.warns(UserWarning, match="prompts of more than 9 tokens are cut, and their ends are lost"):
        run_module.run(vqa(start, asked_pictures, "model.max_text_tokens=9"), tmp_path / "runs")
    said = capsys.readouterr().out
    found = re.search(r"note: (\d+) of (\d+) questions with their form .*--set model.max_text_tokens=(\d+) keeps", said)
    count, of, longest = map(int, found.groups())
    assert 0 < count <= of and longest > 9
    language_model = blip2_lab.load(start).language_model
    assert language_model.count_cut(["Question: is it day? Short answer:"], longest)[0] == 0
    builders.build_task(vqa(start, asked_pictures, f"model.max_text_tokens={longest}"), tmp_path / "runs")
    assert "questions with their form" not in capsys.readouterr().out


def test_a_run_on_questions_resumes_exactly(tmp_path, asked_pictures):
    start, runs = tmp_path / "start", tmp_path / "runs"
    save(build_tiny_model(), start)
    for name in ("whole", "cut"):
        run_module.run(vqa(start, asked_pictures, name=name), runs, progress=False)
    shutil.rmtree(runs / "cut" / "checkpoints" / "step-4")
    shutil.rmtree(runs / "cut" / "model")
    run_module.run(vqa(start, asked_pictures, name="cut"), runs, progress=False)
    whole, cut = (load_file(runs / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[key], cut[key]) for key in whole)


def test_a_text_side_comes_from_another_stage_1_or_is_asked_for(tmp_path, asked_pictures):
    start, runs, model = tmp_path / "start", tmp_path / "runs", build_tiny_model()
    stage1 = model.stage1
    model.attach_stage1(None)
    save(model, start)
    save(stage1, tmp_path / "stage1")
    with pytest.raises(ValueError, match="has no stage 1 beside it.*--set model.text_from="):
        builders.build_task(vqa(start, asked_pictures), runs)
    task = builders.build_task(vqa(start, asked_pictures, f"model.text_from={tmp_path / 'stage1'}"), runs)
    assert torch.equal(task.model.qformer.word_embeddings.weight, stage1.qformer.word_embeddings.weight)
    frozen = {name for name, p in task.model.qformer.named_parameters() if not p.requires_grad}
    assert frozen and all(name.startswith("layers.1.text_ffn") for name in frozen)
    with pytest.raises(ValueError, match="learns no answers, so the Q-Former has no question to read"):
        builders.check_recipe(override(get("micro-captions"), "model.question_in_qformer=true"))
