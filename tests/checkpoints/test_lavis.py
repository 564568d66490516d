"""LAVIS's checkpoints with the frozen models beside them, and the errors where one is missing."""

import pytest
import torch
from safetensors.torch import save_file

from blip2_lab.checkpoints import catalog, lavis, load, memory
from blip2_lab.checkpoints.catalog import EVA_FILE
from blip2_lab.checkpoints.key_maps import LAVIS_STAGE2, rename_keys, reverse, to_lavis
from blip2_lab.checkpoints.lavis import drop_unused_eva_keys
from blip2_lab.checkpoints.local import is_lavis_folder
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene
from tests.tiny import build_tiny_model, loud

PICTURE = draw(sample_scene(0, 1), 48)
PROMPT = "question: what color is the boat? short answer:"


def eva(model) -> dict[str, torch.Tensor]:
    """The image encoder under EVA-CLIP's names, and what BLIP-2 drops of it."""
    table = {"embeddings.class_embedding": "cls_token", "embeddings.position_embedding": "pos_embed"}
    state = {}
    for name, tensor in model.image_encoder.model.state_dict().items():
        name = table.get(name, name.replace("embeddings.patch_embedding", "patch_embed.proj"))
        name = name.replace("encoder.layers", "blocks").replace("layer_norm", "norm")
        name = name.replace("self_attn.projection", "attn.proj").replace("self_attn", "attn")
        if name.endswith("qkv.bias"):
            query, _, value = tensor.chunk(3)
            state |= {name.replace("qkv.bias", f"{which}_bias"): part for which, part in (("q", query), ("v", value))}
        else:
            state[name] = tensor
    extra = {"norm.weight": torch.ones(64), "head.bias": torch.ones(3), "blocks.39.mlp.fc1.bias": torch.ones(128)}
    return {name: tensor.clone().contiguous() for name, tensor in (state | extra).items()}


@pytest.fixture(scope="module", params=["t5", "opt"])
def model(request):
    """Heads are 64 wide, as in every Q-Former and ViT that LAVIS has (ViT-g aside)."""
    model = build_tiny_model(request.param)
    loud(model, model.stage1)
    with torch.no_grad():
        for layer in model.image_encoder.model.encoder.layers:
            layer.self_attn.qkv.bias[64:128] = 0  # EVA has no key bias
    for part in (model.qformer, model.stage1.qformer):
        part.image_layer_norm.eps = 1e-5
        for layer in part.layers:
            layer.self_attention.num_heads = 1
            if layer.cross_attention is not None:
                layer.cross_attention.num_heads = 1
    model.image_encoder.model.config.num_attention_heads = 1
    for layer in model.image_encoder.model.encoder.layers:
        layer.self_attn.num_heads, layer.self_attn.head_dim, layer.self_attn.scale = 1, 64, 64**-0.5
    return model


@pytest.fixture
def folder(model, tmp_path, monkeypatch):
    """A LAVIS stage 2: what was trained, EVA beside it, the language model in a folder of its own."""
    kind = "t5_proj" if model.language_model.model.config.is_encoder_decoder else "opt_proj"
    table = tuple(row for row in LAVIS_STAGE2 if row[0] == kind or row[1] != "language_projection")
    state = rename_keys(model.state_dict(), reverse(table), ignore=("image_encoder.", "language_model."))
    torch.save(
        {"model": state | {"Qformer.bert.embeddings.position_ids": torch.arange(64)[None]}}, tmp_path / "blip2.pth"
    )
    torch.save(eva(model), tmp_path / EVA_FILE)
    language = tmp_path / "tiny-language-model"
    model.language_model.model.save_pretrained(language)
    model.language_model.tokenizer.save_pretrained(language)
    monkeypatch.setattr(lavis, "NEW_LINE", model.language_model.end_token_id)
    return tmp_path


@pytest.mark.parametrize("give", ["file", "folder"])
def test_stage_2_loads_with_the_same_answers(model, folder, give):
    assert is_lavis_folder(folder)
    again = load.load(folder / "blip2.pth" if give == "file" else folder)
    expected = model.visual_prompt(model.image_encoder(model.image_encoder.preprocess([PICTURE])))
    torch.testing.assert_close(again.encode_image(PICTURE), expected, atol=1e-4, rtol=1e-3)
    assert again.generate(PICTURE, PROMPT) == model.generate(PICTURE, PROMPT)
    assert not again.training and again.qformer.config.image_layer_norm_eps == 1e-5


def test_stage_2_in_8_bits(model, folder):
    again = load.load(folder, quantize="int8")
    for part in (again.language_model, again.image_encoder):
        assert "Int8Linear" in {type(module).__name__ for module in part.modules()}
    assert not [module for module in again.qformer.modules() if type(module).__name__ == "Int8Linear"]
    assert isinstance(again.generate(PICTURE, PROMPT), str)


def test_stage_1_with_its_image_encoder(model, tmp_path):
    stage1 = model.stage1
    whole = to_lavis(stage1) | {
        f"visual_encoder.{name}": tensor for name, tensor in drop_unused_eva_keys(eva(model)).items()
    }
    save_file({name: tensor.clone().contiguous() for name, tensor in whole.items()}, tmp_path / "stage1.safetensors")
    stage1.tokenizer.save_pretrained(tmp_path / "bert-base-uncased")
    again = load.load(tmp_path / "stage1.safetensors")
    pixels = again.image_encoder.preprocess([PICTURE])
    ids, mask = again.tokenize(["a red boat."])
    expected = stage1.itm_logits(stage1.qformer.read_image(stage1.image_features(pixels)), ids, mask)
    features = again.image_features(pixels)
    torch.testing.assert_close(
        again.itm_logits(again.qformer.read_image(features), ids, mask), expected, atol=1e-3, rtol=1e-3
    )


def test_a_missing_part_raises_with_the_download_command(model, folder, monkeypatch):
    (folder / EVA_FILE).rename(folder / "elsewhere.bin")
    with pytest.raises(ValueError, match=r"`curl -C - -o .*eva_vit_g.pth https://storage.googleapis.com"):
        load.load(folder / "blip2.pth")
    (folder / "elsewhere.bin").rename(folder / EVA_FILE)
    (folder / "tiny-language-model").rename(folder.parent / "away")
    try:
        with pytest.raises(ValueError, match="none of LAVIS's: put its folder beside it"):
            load.load(folder / "blip2.pth")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        is_t5 = model.language_model.model.config.is_encoder_decoder
        row = catalog.FrozenLanguageModel(
            hub="google/flan-t5-tiny",
            family="t5" if is_t5 else "opt",
            sizes=dict(d_model=64) if is_t5 else dict(hidden_size=64, num_attention_heads=2),
            precision="bf16",
            bytes_per_parameter=4,
        )
        monkeypatch.setitem(catalog.LANGUAGE_MODELS, "flan-t5-tiny", row)
        with pytest.raises(ValueError, match="`hf download google/flan-t5-tiny"):
            load.load(folder / "blip2.pth")
    finally:
        (folder.parent / "away").rename(folder / "tiny-language-model")


def test_files_of_another_kind_raise(tmp_path):
    torch.save({"model": {"weight": torch.zeros(2)}}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="no query_tokens"):
        load.load(tmp_path / "x.pth")
    torch.save({"query_tokens": torch.zeros(1, 8, 64)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="none of vision_proj, t5_proj and opt_proj"):
        load.load(tmp_path / "x.pth")
    (tmp_path / "y.pth").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="y.pth is cut off"):
        load.load(tmp_path / "y.pth")
    (tmp_path / "z.txt").write_text("words")
    with pytest.raises(ValueError, match="should end in .pth or .safetensors"):
        load.load(tmp_path / "z.txt")
    with pytest.raises(ValueError, match="no folder .*nowhere.pth"):
        load.load(tmp_path / "nowhere.pth")


def test_memory_is_checked_before_the_language_model_is_fetched(monkeypatch, tmp_path):
    """The checkpoint alone is small; what it needs from the hub is not."""
    torch.save({"query_tokens": torch.zeros(1, 8, 64), "t5_proj.weight": torch.zeros(4096, 64)}, tmp_path / "xxl.pth")
    monkeypatch.setattr(lavis, "fetch", lambda name: pytest.fail("fetched"))
    monkeypatch.setattr(lavis, "cached_folder", lambda name: None)
    monkeypatch.setattr(lavis, "bytes_to_fetch", lambda name: None)
    monkeypatch.setattr(memory, "free_memory", lambda device: 15 * memory.GIB)
    with pytest.raises(ValueError, match=r"xxl.pth in float32 needs 45.* What fits: .*xxl.pth .*--quantize int8\."):
        load.load(tmp_path / "xxl.pth")
    monkeypatch.setattr(memory, "free_disk", lambda folder: 20_000_000_000)
    with pytest.raises(ValueError, match=r"google/flan-t5-xxl is 4\d\.\d GB to fetch, and the disk of"):
        load.load(tmp_path / "xxl.pth", quantize="int8")
