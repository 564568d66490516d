"""Models found by name: EVA-CLIP's file, and 16 bits for frozen models on a GPU."""

import pytest
import torch

from blip2_lab.checkpoints.catalog import EVA_FILE
from blip2_lab.models.vision_encoder import ImageEncoder
from blip2_lab.training import batches, builders
from blip2_lab.training.recipes.registry import get
from blip2_lab.training.recipes.schema import override


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
        loaded = builders.load_image_encoder(name, tmp_path)
        assert torch.equal(loaded(pixels), encoder()(pixels))
        assert not any(p.requires_grad for p in loaded.parameters())


def test_eva_clip_is_downloaded_or_the_error_says_how(torch_cache, tmp_path, monkeypatch):
    def offline(url, file):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(ValueError, match=r"no network.*curl -C - -o .*eva_vit_g.pth https.*model.image_encoder="):
        builders.load_image_encoder("eva-clip-vit-g-14", tmp_path)
    with pytest.raises(ValueError, match="there is no image encoder in"):
        builders.load_image_encoder(str(tmp_path / "eva.pth"), tmp_path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, file: torch.save(eva_state(encoder()), file))
    assert builders.load_image_encoder("eva-clip-vit-g-14", tmp_path).width == 128


def test_frozen_models_have_16_bits_on_a_gpu(tmp_path, monkeypatch):
    encoder().model.save_pretrained(tmp_path / "vit")
    assert builders.load_image_encoder(str(tmp_path / "vit"), tmp_path).model.dtype == torch.float32
    features = batches.encode_frozen(encoder(), torch.ones(1, 3, 48, 48))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    half = builders.load_image_encoder(str(tmp_path / "vit"), tmp_path)
    assert half.model.dtype == torch.bfloat16
    torch.testing.assert_close(batches.encode_frozen(half, torch.ones(1, 3, 48, 48)), features, atol=0.05, rtol=0.05)
    assert builders.frozen_dtype("facebook/opt-2.7b", is_encoder_decoder=False) == torch.float16
    assert builders.frozen_dtype("google/flan-t5-xl", is_encoder_decoder=True) == torch.bfloat16
    assert builders.frozen_dtype("micro-t5", is_encoder_decoder=True) == torch.float32  # made here, and small


def test_a_t5_goes_on_from_a_trained_one(tmp_path):
    recipe = get("micro-flan-t5")
    started = builders.build_task(override(recipe, "model.start="), tmp_path)
    with torch.no_grad():
        started.model.shared.weight.mul_(2)
    started.save(tmp_path / "micro-t5" / "model")
    task = builders.build_task(recipe, tmp_path)
    assert all(torch.equal(*pair) for pair in zip(task.model.parameters(), started.model.parameters(), strict=True))
    with pytest.raises(ValueError, match="another size or vocabulary"):
        builders.build_task(override(recipe, "model.size=M"), tmp_path)
    with pytest.raises(ValueError, match="is for a T5"):
        builders.build_task(override(get("micro-bert"), "model.start=micro-t5"), tmp_path)
