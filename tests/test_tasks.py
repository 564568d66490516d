"""The stages as tasks, end to end on tiny parts: features once, captions fresh, frozen is frozen."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import blip2_lab
from blip2_lab import tasks
from blip2_lab.data import PictureBook
from blip2_lab.recipes import get, override
from blip2_lab.run_folder import read_log

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

    from blip2_lab.language import new_opt, new_t5, room_for_image_token
    from blip2_lab.picturebook.tokenizer import build_tokenizer
    from blip2_lab.vision import ImageEncoder

    runs = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    sizes = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64)
    vision = Blip2VisionConfig(**sizes, image_size=48, patch_size=16, initializer_range=0.02)
    ImageEncoder.from_config(vision).model.save_pretrained(runs / "micro-vit" / "model")
    for family in ("bert", "t5", "opt"):
        folder, tokenizer = runs / f"micro-{family}" / "model", build_tokenizer(family)
        rows = room_for_image_token(len(tokenizer))
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
    return runs


@pytest.fixture(scope="module")
def trained(parts) -> Path:
    """The same folders after stage 1 and stage 2."""
    tasks.run(recipe("micro-stage1"), parts, progress=False)
    tasks.run(recipe("micro-stage2"), parts, progress=False)
    return parts


def test_stage1_starts_from_bert_and_takes_its_sizes(parts):
    task = tasks.build_task(recipe("micro-stage1", "model.num_query_tokens=5"), parts)
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


def test_batches_are_functions_of_their_number_with_fresh_captions(parts):
    task, again = (tasks.build_task(recipe("micro-stage1"), parts) for _ in range(2))
    a, b = task.batch(7), again.batch(7)
    assert a.captions == b.captions and torch.equal(a.image_features, b.image_features)
    epochs = [{c for index in range(start, start + 3) for c in task.batch(index).captions} for start in (0, 3)]
    assert epochs[0] != epochs[1]  # the same twelve pictures, other words


def test_features_are_the_encoders_and_computed_once(parts, capsys):
    encoder = tasks.load_image_encoder("micro-vit", parts)
    data = recipe("micro-stage1").data
    _, features = tasks.scene_features(encoder, data, parts)
    capsys.readouterr()
    book, again = tasks.scene_features(encoder, data, parts)
    assert "computing" not in capsys.readouterr().out and torch.equal(features, again)
    with torch.no_grad():
        direct = encoder(encoder.preprocess([book.image(5)]))[0]
    torch.testing.assert_close(features[5].float(), direct, atol=0.05, rtol=0.05)
    assert book.image(5).tobytes() == PictureBook(data.seed, image_size=48).image(5).tobytes()


def test_another_encoder_has_another_name():
    one = torch.nn.Linear(2, 2)
    same = torch.nn.Linear(2, 2)
    same.load_state_dict(one.state_dict())
    assert tasks.fingerprint(one) == tasks.fingerprint(same)
    with torch.no_grad():
        same.bias[0] += 1e-6
    assert tasks.fingerprint(one) != tasks.fingerprint(same)


def test_both_stages_leave_what_they_promise(trained):
    stage1, stage2 = (read_log(trained / name) for name in ("micro-stage1", "micro-stage2"))
    assert {"total", "itc", "itm", "itg"} <= stage1[0].keys()
    total = sum(stage1[0][name] for name in ("itc", "itm", "itg"))
    assert stage1[0]["total"] == pytest.approx(total, rel=1e-2)
    assert {"image_to_text_r1", "text_to_image_r1", "itm_accuracy"} == stage1[-1]["evaluation"].keys()
    assert {"accuracy", "shuffled", "color", "use"} <= stage2[-1]["evaluation"].keys()
    assert len(list((trained / "features").glob("*.bf16"))) == 1  # both stages read the same file
    assert json.loads((trained / "micro-stage2" / "recipe.json").read_text())["optim"]["steps"] == 3


def test_frozen_parts_are_the_same_after_training(trained):
    before = {name: tasks.fingerprint(load) for name, load in frozen_parts(trained).items()}
    task = tasks.build_task(recipe("micro-stage2"), trained)
    tasks.train(task, recipe("micro-stage2").optim, run_dir=trained / "again", progress=False)
    model = task.model
    assert tasks.fingerprint(model.image_encoder) == before["encoder"]
    assert tasks.fingerprint(model.language_model) == before["language"]
    frozen = [*model.image_encoder.parameters(), *model.language_model.parameters()]
    assert all(not p.requires_grad and p.grad is None for p in frozen)
    assert not any(m.training for part in (model.image_encoder, model.language_model) for m in part.modules())


def frozen_parts(runs):
    encoder = tasks.load_image_encoder("micro-vit", runs)
    return {"encoder": encoder, "language": tasks.load_language_model("micro-t5", runs)}


def test_the_exported_model_is_what_was_trained(trained, tmp_path):
    folder = tasks.export(trained, tmp_path / "micro", scenes=8)
    model = blip2_lab.load(str(folder))
    from safetensors.torch import load_file

    stored = load_file(trained / "micro-stage2" / "checkpoints" / "step-3" / "model.safetensors")
    loaded = model.state_dict()
    for name, tensor in stored.items():
        torch.testing.assert_close(loaded[name].float(), tensor, atol=1e-6, rtol=1e-3, msg=name)  # kept in 16 bits
    assert model.stage1 is not None and isinstance(model.generate(PictureBook(0).image(0), "what?"), str)
    assert (folder / "drawn_world.safetensors").is_file()
    assert len((folder / "curves" / "micro-stage1.jsonl").read_text().splitlines()) > 0


def test_stage2_without_stage1_starts_from_bert(trained):
    pretrained = tasks.build_task(recipe("micro-stage2"), trained).model.qformer
    alone = tasks.build_task(recipe("micro-stage2", "model.pretrained=false"), trained).model.qformer
    assert not torch.equal(pretrained.query_tokens, alone.query_tokens)
    from transformers import BertForMaskedLM

    bert = BertForMaskedLM.from_pretrained(trained / "micro-bert" / "model").state_dict()
    key = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(alone.layers[0].self_attention.query.weight, bert[key])


def test_stage2_with_a_decoder(trained):
    task = tasks.build_task(recipe("micro-stage2-opt"), trained)
    first = task.losses(task.batch(0))["total"]
    first.backward()
    assert first.isfinite() and task.model.language_projection.weight.grad.abs().sum() > 0
    assert 0 <= task.evaluate(0)["accuracy"] <= 1


def test_an_interrupted_stage_goes_on_to_the_same_weights(trained, tmp_path):
    shutil.copytree(trained / "micro-stage1", tmp_path / "cut" / "micro-stage1")
    for name in ("micro-vit", "micro-bert", "features"):
        shutil.copytree(trained / name, tmp_path / "cut" / name)
    shutil.rmtree(tmp_path / "cut" / "micro-stage1" / "checkpoints" / "step-3")  # as if killed after step 2
    tasks.run(recipe("micro-stage1"), tmp_path / "cut", progress=False)
    from safetensors.torch import load_file

    a, b = (load_file(r / "micro-stage1" / "model" / "model.safetensors") for r in (trained, tmp_path / "cut"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_mistakes(parts, tmp_path):
    with pytest.raises(ValueError, match="needs micro-vit and micro-bert .* blip2-lab train micro-vit"):
        tasks.run(recipe("micro-stage1"), tmp_path)
    with pytest.raises(ValueError, match="no finished model"):
        tasks.export(tmp_path)
    paper = override(get("paper-stage1-vit-g"), "model.image_encoder=micro-vit")
    with pytest.raises(ValueError, match="trains on the picture book only, not on 129M pairs"):
        tasks.build_task(override(paper, "model.bert=micro-bert"), parts)
