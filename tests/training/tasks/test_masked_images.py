"""Masked images: reproducible batches, losses by hand, and an encoder that stands where one is asked for."""

from dataclasses import replace

import pytest
import torch

from blip2_lab.models.masked_autoencoder import image_encoder_of, new_mae
from blip2_lab.models.micro import micro_vit_config
from blip2_lab.training import builders, loading
from blip2_lab.training.recipes.registry import get
from blip2_lab.training.run import run
from blip2_lab.training.tasks.masked_images import MAE_FOLDER, MaeTask, held_out_scenes, scene_pixels


@pytest.fixture(scope="module")
def small():
    """micro-mae with one layer of the encoder left, and batches of two."""
    recipe = get("micro-mae")
    return replace(recipe, optim=replace(recipe.optim, steps=3, warmup_steps=1, batch_size=2), eval_every=2)


@pytest.fixture
def few_layers(monkeypatch):
    def config(size: str):
        found = micro_vit_config(size)
        found.num_hidden_layers = 1
        return found

    monkeypatch.setattr("blip2_lab.training.tasks.pretraining.micro_vit_config", config)


def test_batches_are_functions_of_their_number(small, few_layers, tmp_path):
    task, again = (builders.build_task(small, tmp_path) for _ in range(2))
    assert isinstance(task, MaeTask) and task.model.config.num_hidden_layers == 2
    first, second = task.batch(0), task.batch(1)
    assert first["pixels"].shape == (2, 3, 96, 96) and first["noise"].shape == (2, 64)
    assert all(torch.equal(first[name], again.batch(0)[name]) for name in first)
    assert not torch.equal(first["noise"], second["noise"]) and not torch.equal(first["pixels"], second["pixels"])
    assert not torch.equal(held_out_scenes(96, 2), first["pixels"]), "the held-out scenes are another book's"


def test_the_flat_loss_by_hand():
    config = micro_vit_config()
    config.update(dict(image_size=24, num_hidden_layers=1))  # four patches
    mae = new_mae(config, mask_ratio=0.5, decoder_width=64, decoder_layers=1)
    task = MaeTask(mae, scene_pixels(1, 0, 24), None, seed=0)
    pixels = torch.zeros(1, 3, 24, 24)
    pixels[:, :, :12, 12:] = 2.0  # patches of 0, 2, 0, 4
    pixels[:, :, 12:, 12:] = 4.0
    noise = torch.tensor([[0.1, 0.2, 0.3, 0.4]])  # the first two are visible: their mean is 1
    assert float(task.flat({"pixels": pixels, "noise": noise})) == pytest.approx(((0 - 1) ** 2 + (4 - 1) ** 2) / 2)
    found = mae(pixel_values=pixels, noise=noise)
    assert found.mask.tolist() == [[0, 0, 1, 1]], "transformers masks the patches that we count"
    mae.config.norm_pix_loss = True
    assert float(task.flat({"pixels": pixels, "noise": noise})) == 1


def test_it_learns_is_saved_and_stands_where_an_image_encoder_is_asked_for(small, few_layers, tmp_path):
    from transformers import ViTMAEForPreTraining

    numbers = run(small, tmp_path, progress=False)
    assert numbers["total"] > 0
    model = tmp_path / "micro-mae" / "model"
    encoder = loading.load_image_encoder("micro-mae", tmp_path)
    assert encoder.num_features == 65 and encoder.width == 192
    assert len(encoder.model.encoder.layers) == 1, "BLIP-2 reads the second-to-last layer"
    mae = ViTMAEForPreTraining.from_pretrained(model / MAE_FOLDER).eval()
    whole = image_encoder_of(mae)
    pixels = held_out_scenes(96, 2)
    states = whole.model(pixel_values=pixels, output_hidden_states=True).hidden_states
    torch.testing.assert_close(encoder(pixels), states[-2], rtol=1e-4, atol=1e-4)


def test_the_loss_falls(few_layers, tmp_path, small):
    task = builders.build_task(small, tmp_path)
    batch = task.batch(0)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-3)
    first = task.compute_losses(batch)["total"].item()
    for _ in range(15):
        task.compute_losses(batch)["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert task.compute_losses(batch)["total"].item() < 0.8 * first


def test_settings_out_of_range():
    from blip2_lab.training.recipes.schema import override

    with pytest.raises(ValueError, match="mask_ratio is 1.0; it must be above 0 and at most 0.98"):
        override(get("micro-mae"), "model.mask_ratio=1")
