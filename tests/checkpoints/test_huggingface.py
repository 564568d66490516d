"""transformers' layout: golden numbers of models we load, and models we save loaded by transformers' classes."""

import copy
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import blip2_lab
from blip2_lab.checkpoints.huggingface import from_transformers, to_transformers
from blip2_lab.checkpoints.key_maps import LAVIS_STAGE2, from_eva, from_lavis_stage2, rename_keys, reverse
from blip2_lab.checkpoints.load import find_model, load, save
from blip2_lab.models.decoding import Decoding
from blip2_lab.models.language_model import Text, language_model
from blip2_lab.models.masks import bidirectional_mask, unimodal_mask
from blip2_lab.models.micro import micro_opt_config, new_opt
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.models.vision_encoder import ImageEncoder
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene
from tests.tiny import build_tiny_model, loud

GOLDEN = Path(__file__).parents[1] / "golden"
Q = 8  # queries of the golden models
CLOSE = dict(atol=2e-5, rtol=0)
PICTURES = [draw(sample_scene(0, i), 48) for i in range(3)]
PROMPTS = ["question: what color is the boat? short answer:", "a tree", "the house is red. question: where?"]


@pytest.fixture(scope="module", params=["opt", "t5"])
def golden(request, tmp_path_factory):
    """A golden model as a folder in transformers' layout, loaded by us; its inputs and outputs; its json."""
    kind = request.param
    folder = golden_folder(kind, tmp_path_factory.mktemp(kind))
    notes = json.loads((GOLDEN / f"hf_{kind}_tiny.json").read_text())
    model = load(folder)
    model.language_model.end_token_id = notes["gen"]["eos_token_id_used"]
    return model, load_file(GOLDEN / f"hf_{kind}_tiny_io.safetensors"), notes


def golden_folder(kind: str, folder: Path) -> Path:
    notes = json.loads((GOLDEN / f"hf_{kind}_tiny.json").read_text())
    (folder / "config.json").write_text(json.dumps(notes["config"]))
    shutil.copy(GOLDEN / f"hf_{kind}_tiny_weights.safetensors", folder / "model.safetensors")
    return folder


def text(io: dict, name: str) -> Text:
    """Golden ids without the image placeholders in front."""
    return Text(io[f"in.{name}input_ids"][:, Q:], io[f"in.{name}attention_mask"][:, Q:].bool())


# --- golden numbers -------------------------------------------------------------------------------------------------


def test_golden_hidden_states(golden):
    model, io, _ = golden
    features = model.image_encoder(io["in.pixel_values"])
    normalized = model.qformer.image_layer_norm(features)
    torch.testing.assert_close(normalized, io["out.vision_last_hidden_state"], **CLOSE)
    queries = model.qformer(image=model.qformer.read_image(features)).query_output
    torch.testing.assert_close(queries, io["out.qformer_last_hidden_state"], **CLOSE)
    torch.testing.assert_close(model.encode_image(io["in.pixel_values"]), io["out.language_projection"], **CLOSE)


def test_golden_logits_and_loss(golden):
    model, io, notes = golden
    visual_prompt = model.encode_image(io["in.pixel_values"])
    if model.language_model.model.config.is_encoder_decoder:
        prompt = text(io, "")
        answer = Text(io["in.labels"].clamp(min=0), io["in.labels"] >= 0)
        expected = io["out.train_logits"]
    else:  # no prompt: all of the text is answer, and each row predicts the token after it
        answer = text(io, "train_")
        prompt = Text(answer.ids[:, :0], answer.mask[:, :0])
        expected = io["out.train_logits"][:, Q - 1 : -1]
    logits = model.language_model.answer_logits(visual_prompt, prompt, answer)
    torch.testing.assert_close(logits[answer.mask], expected[answer.mask], **CLOSE)
    loss = model.language_model.answer_loss(visual_prompt, prompt, answer)
    assert loss.item() == pytest.approx(notes["train_loss"], rel=1e-5)


def test_golden_generated_ids(golden):
    model, io, _ = golden
    language, visual_prompt = model.language_model, model.encode_image(io["in.pixel_values"])
    decoder_only = not language.model.config.is_encoder_decoder
    prompt = text(io, "gen_" if decoder_only else "")
    start = 13 if decoder_only else 1  # transformers repeats OPT's prompt; T5's rows begin with the start token

    def expected(name: str) -> list[list[int]]:
        rows, end = io[f"gen.{name}_ids"][:, start:].tolist(), language.end_token_id
        return [row[: row.index(end)] if end in row else row for row in rows]

    greedy = Decoding(num_beams=1, max_new_tokens=8)
    assert language.generate_ids(visual_prompt, prompt, greedy) == expected("greedy")
    for length_penalty in (-1.0, 0.0, 1.0):
        beams = Decoding(num_beams=5, max_new_tokens=8, length_penalty=length_penalty)
        assert language.generate_ids(visual_prompt, prompt, beams) == expected(f"beam5_lp{length_penalty}")
    for row, ids in enumerate(expected("greedy")):  # and token by token
        one = Text(prompt.ids[row : row + 1], prompt.mask[row : row + 1])
        assert [i for i, _ in language.stream_ids(visual_prompt[row : row + 1], one, greedy)] == ids
    end, language.end_token_id = language.end_token_id, -1
    try:
        never_ending = language.generate_ids(visual_prompt, prompt, greedy)
    finally:
        language.end_token_id = end
    assert never_ending == io["gen.greedy_noeos_ids"][:, start:].tolist()


def test_golden_first_logits(golden):
    model, io, _ = golden
    if "out.gen_first_logits" in io:
        logits, _ = model.language_model.first_logits(model.encode_image(io["in.pixel_values"]), text(io, "gen_"))
        torch.testing.assert_close(logits, io["out.gen_first_logits"], **CLOSE)
    else:
        inputs = model.language_model.prepend(model.encode_image(io["in.pixel_values"]), text(io, ""))
        encoded = model.language_model.model.get_encoder()(inputs_embeds=inputs[0], attention_mask=inputs[1])
        torch.testing.assert_close(encoded.last_hidden_state, io["out.encoder_last_hidden_state"], **CLOSE)


@pytest.fixture(scope="module")
def golden_retrieval(tmp_path_factory):
    model = from_transformers(golden_folder("itm", tmp_path_factory.mktemp("itm")))
    return model, load_file(GOLDEN / "hf_itm_tiny_io.safetensors")


def test_golden_retrieval(golden_retrieval):
    model, io = golden_retrieval
    assert isinstance(model, Stage1Model)
    ids, mask = io["in.input_ids"], io["in.attention_mask"]
    features = model.image_features(io["in.pixel_values"])
    torch.testing.assert_close(model.qformer.image_layer_norm(features), io["vision_last_hidden_state"], **CLOSE)
    memory = model.qformer.read_image(features)
    torch.testing.assert_close(model.itm_logits(memory, ids, mask), io["itm.logits_per_image"], **CLOSE)
    joint = model.qformer(image=memory, input_ids=ids, mask=bidirectional_mask(8, mask))
    alone = model.qformer(queries=False, input_ids=ids, mask=unimodal_mask(0, mask))
    expected, written = io["itm.last_hidden_state"], mask.bool()
    torch.testing.assert_close(joint.query_output, expected[:, :8], **CLOSE)
    torch.testing.assert_close(joint.text_output[written], expected[:, 8:][written], **CLOSE)
    torch.testing.assert_close(alone.text_output[written], io["itc.text_last_hidden_state"][written], **CLOSE)
    image_embeds, text_embeds = model.embed_image(features), model.embed_text(ids, mask)
    torch.testing.assert_close(image_embeds, io["itc.image_embeds"], **CLOSE)
    torch.testing.assert_close(text_embeds, io["itc.text_embeds"], **CLOSE)
    cosines = torch.einsum("bqe,me->bqm", image_embeds, text_embeds).amax(dim=1)
    torch.testing.assert_close(cosines, io["itc.logits_per_image"], **CLOSE)


def test_a_retrieval_model_raises_when_it_should_generate(golden_retrieval):
    model, io = golden_retrieval
    with pytest.raises(ValueError, match="no language modeling head"):
        model.generate_ids(model.image_features(io["in.pixel_values"]))


# --- what we save ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["t5", "opt"])
def saved(request, tmp_path_factory):
    """A random model, loud enough to say different things, and the folder it was saved in."""
    model = build_tiny_model(request.param)
    loud(model, model.stage1)
    model.qformer.config.image_layer_norm_eps = model.qformer.image_layer_norm.eps = 1e-6  # transformers' own
    folder = tmp_path_factory.mktemp(request.param) / "model"
    save(model, folder)
    return model, folder


def test_a_saved_model_loads_with_the_same_tensors(saved):
    model, folder = saved
    again = blip2_lab.load(folder)
    assert again.qformer.config == model.qformer.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    answers = model.generate(PICTURES, PROMPTS)
    assert again.generate(PICTURES, PROMPTS) == answers and len(set(answers)) > 1
    assert again.stage1.image_encoder is again.image_encoder
    for name, tensor in model.stage1.qformer.state_dict().items():
        assert torch.equal(tensor, again.stage1.qformer.state_dict()[name]), name
    assert not again.training and not again.stage1.training


def test_transformers_loads_a_saved_model(saved):
    from transformers import AutoProcessor, Blip2ForConditionalGeneration

    model, folder = saved
    theirs, report = Blip2ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(images=PICTURES, text=PROMPTS, padding=True, return_tensors="pt")
    pixels = model.image_encoder.preprocess(PICTURES)
    torch.testing.assert_close(inputs.pixel_values, pixels)

    prompt = model.language_model.prompt_texts(PROMPTS)
    assert inputs.input_ids[:, :8].unique().tolist() == [theirs.config.image_token_index]
    assert inputs.input_ids[:, 8:].tolist() == prompt.ids.tolist()
    assert inputs.attention_mask[:, 8:].bool().tolist() == prompt.mask.tolist()

    visual_prompt = model.encode_image(pixels)
    with torch.no_grad():
        if theirs.config.is_encoder_decoder:
            answer = model.language_model.training_texts(PROMPTS, PROMPTS)[1]
            labels = answer.ids.masked_fill(~answer.mask, -100)
            their_logits = theirs(**inputs, labels=labels).logits[answer.mask]
            our_logits = model.language_model.answer_logits(visual_prompt, prompt, answer)[answer.mask]
        else:
            their_logits = theirs(**inputs).logits[:, -1]
            our_logits = model.language_model.first_logits(visual_prompt, prompt)[0]
    # these weights are loud, and ours fold the image's LayerNorm into the matrices behind it, which rounds differently
    torch.testing.assert_close(our_logits, their_logits, rtol=1e-3, atol=5e-4)

    for num_beams in (1, 5):
        settings = dict(num_beams=num_beams, max_new_tokens=10, min_new_tokens=1)
        penalty = dict(length_penalty=-1.0) if num_beams > 1 else {}
        ids = theirs.generate(**inputs, **settings, **penalty)
        if not theirs.config.is_encoder_decoder:
            ids = ids[:, inputs.input_ids.shape[1] :]
        texts = [answer.strip() for answer in processor.batch_decode(ids, skip_special_tokens=True)]
        assert texts == model.generate(PICTURES, PROMPTS, **settings)
        decoding = Decoding(**settings)
        for row, expected in zip(
            ids.tolist(), model.language_model.generate_ids(visual_prompt, prompt, decoding), strict=True
        ):
            start = 1 if theirs.config.is_encoder_decoder else 0
            assert row[start : start + len(expected)] == expected


def test_transformers_loads_our_stage1_for_retrieval(saved, tmp_path):
    from transformers import Blip2ForImageTextRetrieval

    stage1 = saved[0].stage1
    stage1.qformer.config.image_layer_norm_eps = stage1.qformer.image_layer_norm.eps = 1e-6
    save(stage1, tmp_path)
    theirs, report = Blip2ForImageTextRetrieval.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    pixels = stage1.image_encoder.preprocess(PICTURES)
    ids, mask = stage1.tokenize(PROMPTS)
    inputs = dict(pixel_values=pixels, input_ids=ids, attention_mask=mask)
    features = stage1.image_features(pixels)
    with torch.no_grad():
        match = theirs(**inputs, use_image_text_matching_head=True).logits_per_image
        contrast = theirs(**inputs).text_embeds
    torch.testing.assert_close(stage1.itm_logits(stage1.qformer.read_image(features), ids, mask), match, **CLOSE)
    torch.testing.assert_close(stage1.embed_text(ids, mask), contrast, **CLOSE)
    again = load(tmp_path)
    torch.testing.assert_close(again.embed_text(*again.tokenize(PROMPTS)), stage1.embed_text(ids, mask))


def test_a_saved_model_has_no_path_of_its_parts(saved, tmp_path):
    """A model assembled from folders, as the micro models are, names none of them in its config.json."""
    model, _ = saved
    for part in (model.image_encoder.model, model.language_model.model):
        part.config._name_or_path = "/home/somebody/runs/part"
    save(model, tmp_path)
    assert "somebody" not in (tmp_path / "config.json").read_text()


def test_many_small_files_are_one_model(saved, tmp_path):
    model, _ = saved
    save(model, tmp_path, max_shard_size="300KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1 and (tmp_path / "model.safetensors.index.json").is_file()
    assert load(tmp_path).generate(PICTURES[0], PROMPTS[0]) == model.generate(PICTURES[0], PROMPTS[0])


def test_half_precision_files_come_back_in_float32(saved, tmp_path):
    model, _ = saved
    save(model, tmp_path, dtype=torch.bfloat16)
    stored = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    again = load(tmp_path)
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    torch.testing.assert_close(again.qformer.query_tokens, model.qformer.query_tokens, atol=0.02, rtol=0.01)


@pytest.mark.parametrize(
    ("what", "where", "options", "says"),
    [
        (None, "a", {}, "not a NoneType"),
        (torch.nn.Linear(2, 2), "a", {}, "not a Linear.$"),
        (torch.nn.DataParallel(torch.nn.Linear(2, 2)), "a", {}, "not a DataParallel: save model.module"),
        (torch.compile(torch.nn.Linear(2, 2)), "a", {}, "not a OptimizedModule: save model._orig_mod"),
        (..., None, {}, "None is no name of one"),
        (..., "", {}, "'' is no name of one"),
        (..., "a\0b", {}, "no name of one"),
        (..., "a", {"dtype": torch.int8}, "dtype=torch.int8 is unknown"),
        (..., "a", {"dtype": "half"}, "dtype='half' is unknown"),
        (..., "file", {}, "file is a file, and a model is saved in a folder"),
    ],
)
def test_what_cannot_be_saved_is_one_sentence(saved, tmp_path, monkeypatch, what, where, options, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=says):
        save(saved[0] if what is ... else what, where, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_part_with_adapters_or_compiled_is_not_saved(saved, tmp_path):
    """Its tensors would be written under names that nothing reads, and the folder would be lost."""
    peft = pytest.importorskip("peft", reason="no peft: pip install 'blip2-lab[lora]'")
    model = saved[0]
    plain = model.language_model.model
    try:
        matrices = peft.LoraConfig(r=2, target_modules=["q", "q_proj"])
        model.language_model.model = peft.get_peft_model(copy.deepcopy(plain), matrices)
        with pytest.raises(ValueError, match="language_model.model has adapters .*merge_and_unload"):
            save(model, tmp_path / "a")
        model.language_model.model = model.language_model.model.merge_and_unload()
        save(model, tmp_path / "a")
    finally:
        model.language_model.model = plain
    qformer = model.qformer
    try:
        model.qformer = torch.compile(qformer)
        with pytest.raises(ValueError, match="qformer is compiled by torch: put its `_orig_mod`"):
            save(model, tmp_path / "b")
    finally:
        model.qformer = qformer


def test_files_of_a_models_folder_and_tensors_alone_are_told(saved, tmp_path):
    save(saved[0], tmp_path / "a")
    for name in ("model.safetensors", "config.json"):
        with pytest.raises(ValueError, match=f"{name} is one of the files of a model: give its folder, {tmp_path}/a"):
            load(tmp_path / "a" / name)
    torch.save(saved[0].state_dict(), tmp_path / "mine.pt")
    with pytest.raises(ValueError, match="has the tensors of a model of this package, .* `load_state_dict`"):
        load(tmp_path / "mine.pt")


def test_options_of_other_libraries_are_told():
    for option, says in {
        "load_in_8bit": "use quantize='int8'",
        "torch_dtype": "use dtype",
        "device_map": "use device",
        "quantise": "did you mean 'quantize'",
    }.items():
        with pytest.raises(TypeError, match=f"no option '{option}': .*{says}"):
            blip2_lab.load("micro", **{option: True})


def test_a_saved_opt_has_what_vllm_reads(saved):
    """docs/serving.md: the architecture, one `<image>` token, and keys in the groups that vLLM's blip2.py loads."""
    from transformers import AutoTokenizer

    model, folder = saved
    if model.language_model.model.config.is_encoder_decoder:
        pytest.skip("vLLM serves BLIP-2 with OPT only")
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Blip2ForConditionalGeneration"] and config["num_query_tokens"] == 8
    assert config["text_config"]["model_type"] == "opt" and config["vision_config"]["image_size"] == 48
    assert AutoTokenizer.from_pretrained(folder).get_vocab()["<image>"] == config["image_token_index"]
    groups = ("vision_model.", "query_tokens", "qformer.", "language_projection.", "language_model.model.decoder.")
    keys = load_file(folder / "model.safetensors").keys()
    assert all(key.startswith(groups) for key in keys)
    assert all(any(key.startswith(group) for key in keys) for group in groups)


def test_tied_tensors_are_stored_once(saved):
    model, _ = saved
    names = to_transformers(model)
    assert ("language_model.lm_head.weight" in names) == model.language_model.model.config.is_encoder_decoder
    assert "language_model.encoder.embed_tokens.weight" not in names


def test_loading_logs_nothing(saved, caplog, capfd):
    with caplog.at_level(logging.WARNING):
        load(saved[1])
    captured = capfd.readouterr()
    assert not caplog.records and not captured.out and not captured.err


# --- what does not fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("qformer.layernorm.bias"), "missing: qformer.layernorm.bias"),
        (lambda state: state.update(surplus=torch.zeros(1)), "unexpected: surplus"),
        (lambda state: state.pop("vision_model.encoder.layers.0.mlp.fc1.weight"), "missing: vision_model.encoder"),
    ],
)
def test_a_key_without_a_counterpart_is_named(saved, tmp_path, change, message):
    folder = tmp_path / "broken"
    shutil.copytree(saved[1], folder, ignore=shutil.ignore_patterns("stage1"))
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_a_retrieval_key_without_a_counterpart_is_named(tmp_path):
    folder = golden_folder("itm", tmp_path)
    state = load_file(folder / "model.safetensors")
    state["itm_tail.weight"] = state.pop("itm_head.weight")
    (folder / "model.safetensors").unlink()
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match="itm_tail.weight"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/folder", "no folder or file 'no/such/folder'"),
        ("./nowhere", "no folder or file './nowhere'"),
        ("nowhere", "no folder or file 'nowhere'"),
    ],
)
def test_a_model_folder_that_is_not_there(name, message):
    with pytest.raises(ValueError, match=message):
        load(name)


def test_folders_of_another_kind_raise(tmp_path):
    with pytest.raises(ValueError, match="no config.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "opt"}')
    with pytest.raises(ValueError, match="type 'opt'"):
        load(tmp_path)


def test_a_hub_name_without_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="owner/nothing is not a folder here and could not be fetched") as caught:
        find_model("owner/nothing")
    assert "\n" not in str(caught.value)


def test_a_missing_micro_model_says_how_to_make_it(monkeypatch, tmp_path):
    monkeypatch.setattr("blip2_lab.checkpoints.load.MICRO", tmp_path)
    with pytest.raises(ValueError, match="blip2-lab train micro-all"):
        load("micro")


def test_unknown_quantization(saved):
    with pytest.raises(ValueError, match="'int4' is unknown; choose 'int8', 'int8-all', 'nf4' or None"):
        load(saved[1], quantize="int4")


@pytest.fixture(scope="module", params=["t5", "opt"])
def calm(request, tmp_path_factory):
    """A model with small random weights, whose numbers forgive rounding, and its folder."""
    model, folder = build_tiny_model(request.param), tmp_path_factory.mktemp("calm")
    save(model, folder)
    return model, folder


@torch.no_grad()
def logits_of(model: Stage2Model) -> torch.Tensor:
    texts = model.language_model.training_texts(PROMPTS, PROMPTS)
    return model.language_model.answer_logits(model.encode_image(PICTURES), *texts).float()


@pytest.mark.parametrize("quantize", ["int8", "nf4"])
def test_only_frozen_parts_are_quantized(calm, tmp_path, quantize):
    pytest.importorskip("bitsandbytes")
    full, folder = calm
    model = load(folder, quantize=quantize)
    kinds = {type(m).__name__ for m in model.language_model.modules()}
    assert {"int8": "Int8Linear", "nf4": "Linear4bit"}[quantize] in kinds
    for part in (model.qformer, model.language_projection):
        assert {type(m) for m in part.modules() if isinstance(m, torch.nn.Linear)} == {torch.nn.Linear}
        assert {p.dtype for p in part.parameters()} == {torch.bfloat16}
    expected, logits = logits_of(full), logits_of(model)
    error = (logits - expected).norm() / expected.norm()
    assert 0 < error < {"int8": 0.05, "nf4": 0.25}[quantize]
    if quantize == "int8":  # the bridge can learn through it (on the CPU, bitsandbytes' NF4 has no gradient)
        model.loss(pixels=model.image_encoder.preprocess(PICTURES), captions=PROMPTS).backward()
        assert model.language_projection.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="quantized language model cannot be saved"):
        save(model, tmp_path)


def test_frozen_parts_in_half_precision(calm):
    full, folder = calm
    model = load(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in model.language_model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.image_encoder.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.qformer.parameters()} == {torch.float32}
    expected = logits_of(full)
    assert (logits_of(model) - expected).norm() / expected.norm() < 0.05
    assert isinstance(model.generate(PICTURES[0], PROMPTS[0]), str)


def test_a_language_model_without_room_for_the_image_token(saved, tmp_path):
    model, _ = saved
    tokenizer = model.language_model.tokenizer
    config = micro_opt_config(10)
    config.vocab_size = len(tokenizer)
    full = Stage2Model(model.image_encoder, model.qformer, language_model(new_opt(config), tokenizer))
    with pytest.raises(ValueError, match="needs a token <image>"):
        save(full, tmp_path)


def test_clip_cannot_be_saved_in_transformers_layout(saved, tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    model, _ = saved
    sizes = dict(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    clip = ImageEncoder(CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=28, patch_size=14)))
    with pytest.raises(ValueError, match="CLIP ViT-L"):
        save(Stage2Model(clip, model.qformer, model.language_model), tmp_path)


# --- LAVIS ----------------------------------------------------------------------------------------------------------


def test_lavis_stage2(saved):
    """LAVIS's names for the same tensors, frozen parts left out as its training checkpoints do, or given."""
    model, _ = saved
    kind = "t5_proj" if model.language_model.model.config.is_encoder_decoder else "opt_proj"
    table = tuple(row for row in LAVIS_STAGE2 if row[0] in (kind,) or row[1] != "language_projection")
    state = rename_keys(model.state_dict(), reverse(table), ignore=("image_encoder.", "language_model."))
    state["Qformer.bert.embeddings.position_ids"] = torch.arange(64)[None]
    parts = dict(image_encoder=model.image_encoder, language_model=model.language_model, num_attention_heads=2)
    again = from_lavis_stage2({"model": state, "epoch": 3}, **parts)
    assert again.qformer.config.image_layer_norm_eps == 1e-5  # LAVIS's
    again.qformer.image_layer_norm.eps = 1e-6
    assert again.generate(PICTURES, PROMPTS) == model.generate(PICTURES, PROMPTS)
    with pytest.raises(ValueError, match="surplus"):
        from_lavis_stage2({**state, "surplus": torch.zeros(1)}, **parts)
    with pytest.raises(ValueError, match="missing.*language_projection"):
        from_lavis_stage2({name: t for name, t in state.items() if "_proj" not in name}, **parts)


def test_eva_clip_becomes_transformers_vision_model(saved):
    """LAVIS's `visual_encoder` has no key bias, and its query and value biases apart."""
    encoder = saved[0].image_encoder
    ours, width = encoder.model.state_dict(), encoder.width
    eva = {}
    names = {"embeddings.class_embedding": "cls_token", "embeddings.position_embedding": "pos_embed"}
    for name, tensor in ours.items():
        name = names.get(name, name.replace("embeddings.patch_embedding", "patch_embed.proj"))
        name = name.replace("encoder.layers", "blocks").replace("layer_norm", "norm").replace("self_attn", "attn")
        name = name.replace("attn.projection", "attn.proj")
        if name.endswith("qkv.bias"):
            eva[name.replace("qkv.bias", "q_bias")] = tensor[:width]
            eva[name.replace("qkv.bias", "v_bias")] = tensor[2 * width :]
        else:
            eva[name] = tensor
    back = from_eva(eva)
    assert back.keys() == ours.keys()
    for name, tensor in ours.items():
        expected = tensor.clone()
        if name.endswith("qkv.bias"):
            expected[width : 2 * width] = 0
        assert torch.equal(back[name], expected), name
    with pytest.raises(ValueError, match="head.weight"):
        from_eva({**eva, "head.weight": torch.zeros(1)})


@pytest.mark.parametrize("scaled", [True, False])
def test_an_exported_t5_says_whether_its_output_matrix_is_tied(tmp_path, scaled):
    """T5Config says "tied" of every T5. In a file, "not tied" also turns off the scaling of the decoder's output."""
    model = build_tiny_model()
    model.language_model.model.config.scale_decoder_outputs = scaled
    save(model, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())["text_config"]
    assert written["tie_word_embeddings"] is scaled and written["scale_decoder_outputs"] is scaled
    again, prompt = load(tmp_path), torch.zeros(1, 8, 64)
    expected = model.language_model.log_likelihood(prompt, ["what is it?"], ["a red boat."])[0]
    assert torch.allclose(again.language_model.log_likelihood(prompt, ["what is it?"], ["a red boat."])[0], expected)
    language = again.language_model.model
    assert language.get_output_embeddings().weight is not language.get_input_embeddings().weight
