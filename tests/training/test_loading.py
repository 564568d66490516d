"""Models found by name: EVA-CLIP's file, and 16 bits for frozen models on a GPU."""

import pytest
import torch

from blip2_lab.checkpoints.catalog import EVA_FILE
from blip2_lab.models.vision_encoder import ImageEncoder
from blip2_lab.training import builders, frozen_features, loading


def encoder(layers: int = 2) -> ImageEncoder:
    from transformers import Blip2VisionConfig

    torch.manual_seed(0)
    sizes = dict(hidden_size=128, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=64)
    encoder = ImageEncoder.from_config(Blip2VisionConfig(**sizes, image_size=48, patch_size=16, initializer_range=0.02))
    for layer in encoder.model.encoder.layers:
        layer.self_attn.qkv.bias.data.normal_()
        layer.self_attn.qkv.bias.data[128:256] = 0  # EVA has no key bias
    return encoder.eval()


def eva_state(encoder: ImageEncoder) -> dict[str, torch.Tensor]:
    """The encoder under EVA-CLIP's names, written down once more."""
    state = encoder.model.state_dict()
    eva = {
        "cls_token": state["embeddings.class_embedding"],
        "pos_embed": state["embeddings.position_embedding"],
        "patch_embed.proj.weight": state["embeddings.patch_embedding.weight"],
        "patch_embed.proj.bias": state["embeddings.patch_embedding.bias"],
        "head.weight": torch.ones(3, 128),  # dropped
        "blocks.39.norm1.weight": torch.ones(128),  # dropped: the paper takes the second-to-last layer
    }
    names = {"layer_norm1": "norm1", "layer_norm2": "norm2", "self_attn.qkv": "attn.qkv", "mlp.fc1": "mlp.fc1"}
    names |= {"self_attn.projection": "attn.proj", "mlp.fc2": "mlp.fc2"}
    for k in range(len(encoder.model.encoder.layers)):
        for ours, theirs in names.items():
            eva[f"blocks.{k}.{theirs}.weight"] = state[f"encoder.layers.{k}.{ours}.weight"]
            if theirs != "attn.qkv":
                eva[f"blocks.{k}.{theirs}.bias"] = state[f"encoder.layers.{k}.{ours}.bias"]
        query, _, value = state[f"encoder.layers.{k}.self_attn.qkv.bias"].chunk(3)
        eva |= {f"blocks.{k}.attn.q_bias": query, f"blocks.{k}.attn.v_bias": value}
    return {name: tensor.clone() for name, tensor in eva.items()}


@pytest.fixture
def torch_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def test_eva_clip_by_its_name_is_lavis_file(torch_cache, tmp_path):
    torch.save(eva_state(encoder()), torch_cache / EVA_FILE)
    pixels = torch.randn(2, 3, 48, 48)
    for name in ("eva-clip-vit-g-14", str(torch_cache / EVA_FILE)):
        loaded = loading.load_image_encoder(name, tmp_path)
        assert torch.equal(loaded(pixels), encoder()(pixels))
        assert not any(p.requires_grad for p in loaded.parameters())


def test_eva_clip_is_downloaded_or_the_error_says_how(torch_cache, tmp_path, monkeypatch):
    def offline(url, file):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(ValueError, match=r"no network.*curl -C - -o .*eva_vit_g.pth https.*model.image_encoder="):
        loading.load_image_encoder("eva-clip-vit-g-14", tmp_path)
    with pytest.raises(ValueError, match="there is no image encoder in"):
        loading.load_image_encoder(str(tmp_path / "eva.pth"), tmp_path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, file: torch.save(eva_state(encoder()), file))
    assert loading.load_image_encoder("eva-clip-vit-g-14", tmp_path).width == 128


def test_frozen_models_have_16_bits_on_a_gpu(tmp_path, monkeypatch):
    encoder().model.save_pretrained(tmp_path / "vit")
    assert loading.load_image_encoder(str(tmp_path / "vit"), tmp_path).model.dtype == torch.float32
    features = frozen_features.encode_frozen(encoder(), torch.ones(1, 3, 48, 48))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    half = loading.load_image_encoder(str(tmp_path / "vit"), tmp_path)
    assert half.model.dtype == torch.bfloat16
    torch.testing.assert_close(
        frozen_features.encode_frozen(half, torch.ones(1, 3, 48, 48)), features, atol=0.05, rtol=0.05
    )
    assert loading.frozen_dtype("facebook/opt-2.7b", is_encoder_decoder=False) == torch.float16
    assert loading.frozen_dtype("google/flan-t5-xl", is_encoder_decoder=True) == torch.bfloat16
    assert loading.frozen_dtype("micro-t5", is_encoder_decoder=True) == torch.float32  # made here, and small


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs beside one another: a whole model, its stage 1, an image encoder, a BERT and a T5."""
    import json

    from transformers import BertConfig, BertForMaskedLM

    from blip2_lab.checkpoints.load import save, save_stage1
    from tests.tiny import build_tiny_model

    folder, whole = tmp_path_factory.mktemp("place") / "runs", build_tiny_model()
    save(whole, folder / "world" / "model")
    save_stage1(whole.stage1, folder / "first" / "model")
    parts = {"image_encoder": "eyes", "bert": "words"}
    (folder / "first" / "recipe.json").write_text(json.dumps({"name": "first", "model": parts}))
    whole.image_encoder.model.save_pretrained(folder / "eyes" / "model")
    whole.language_model.model.save_pretrained(folder / "speech" / "model")
    whole.language_model.tokenizer.save_pretrained(folder / "speech" / "model")
    sizes = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)
    bert = BertForMaskedLM(BertConfig(vocab_size=len(whole.stage1.tokenizer), **sizes, max_position_embeddings=64))
    bert.save_pretrained(folder / "words" / "model")
    whole.stage1.tokenizer.save_pretrained(folder / "words" / "model")
    for run in folder.iterdir():
        (run / "run.json").write_text("{}")
    return folder


def ways(runs, run: str) -> list[str]:
    """A run's name in its folder of runs, its path, and the path of its model."""
    return [run, str(runs / run), str(runs / run / "model")]


def test_a_name_a_run_and_a_folder_stand_for_every_trained_part(runs):
    from blip2_lab.checkpoints.load import load
    from blip2_lab.training.recipes.schema import Stage1Parts

    whole = load(runs / "world")
    eyes, speech = whole.image_encoder.model.state_dict(), whole.language_model.model.state_dict()
    for run in ("eyes", "world", "first"):  # an encoder alone, a whole model's, and that of a stage 1
        for name in ways(runs, run):
            found = loading.load_image_encoder(name, runs).model.state_dict()
            assert all(torch.equal(found[key], value) for key, value in eyes.items()), name
    for run in ("speech", "world"):
        for name in ways(runs, run):
            found = loading.load_language_model(name, runs).model.state_dict()
            assert all(torch.equal(found[key], value) for key, value in speech.items()), name
    for run in ("first", "world"):
        for name in ways(runs, run):
            found = loading.load_stage1(name, runs)
            assert torch.equal(found.qformer.query_tokens, whole.stage1.qformer.query_tokens)
            assert torch.equal(
                *(state["encoder.layers.0.mlp.fc1.bias"] for state in (found.image_encoder.model.state_dict(), eyes))
            )
    for name in ways(runs, "words"):
        assert builders.new_stage1(Stage1Parts(bert=name), 64, runs).qformer.config.width == 64


def test_a_part_of_another_kind_is_one_sentence(runs):
    from blip2_lab.training.recipes.schema import Stage1Parts

    for run, kind in (("words", "bert"), ("speech", "t5")):
        with pytest.raises(ValueError, match=rf"{run} is no image encoder: its type is '{kind}'"):
            loading.load_image_encoder(run, runs)
    for run, kind in (("words", "bert"), ("first", "stage 1"), ("eyes", "blip_2_vision_model")):
        with pytest.raises(ValueError, match=rf"{run} is no language model: its type is '{kind}'"):
            loading.load_language_model(run, runs)
    for run in ("first", "world", "speech"):
        with pytest.raises(ValueError, match=f"{run} is no text encoder"):
            builders.new_stage1(Stage1Parts(bert=run), 64, runs)


def test_a_model_is_found_by_the_name_of_its_run(runs, monkeypatch):
    """In `runs`, for everything that takes `--model`; a folder of that name comes first."""
    from blip2_lab.checkpoints.load import find_model
    from blip2_lab.checkpoints.names import check_name, model_path

    monkeypatch.chdir(runs.parent)
    for name in ("world", "runs/world", "runs/world/model", str(runs / "world")):
        check_name(name)
        assert find_model(name).resolve() == runs / "world" / "model", name
    with pytest.raises(ValueError, match="There is no folder or file 'elsewhere"):
        check_name("elsewhere")
    (runs.parent / "eyes" / "model").mkdir(parents=True)
    assert model_path("eyes").resolve() == runs.parent / "eyes"


def test_a_plan_counts_the_parameters_of_a_model_that_is_here(runs):
    from blip2_lab.checkpoints.load import load
    from blip2_lab.training.planning.parameters import build_image_encoder, build_language_model, qformer_config
    from blip2_lab.training.recipes.schema import Stage1Parts

    def count(module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    whole = load(runs / "world")
    for run in ("eyes", "world"):
        assert count(build_image_encoder(str(runs / run))) == count(whole.image_encoder)
    for run in ("speech", "world"):
        assert count(build_language_model(str(runs / run))) == count(whole.language_model.model)
    assert qformer_config(Stage1Parts(bert=str(runs / "words")), 64).width == 64
    with pytest.raises(ValueError, match="are not known without a download"):
        build_image_encoder(str(runs / "speech"))
