"""The distance from the drawn world: by hand, on an encoder of random weights, and measured for the shipped one."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from blip2_lab.chat import out_of_distribution
from blip2_lab.chat.out_of_distribution import DrawnWorld
from blip2_lab.checkpoints.load import MICRO


def test_the_distance_by_hand():
    # one dimension, three patches after [CLS]: features 1, 3, 5 have mean 3 and standard deviation 2
    features = torch.tensor([[[99.0], [1.0], [3.0], [5.0]]])
    torch.testing.assert_close(out_of_distribution.summary(features), torch.tensor([[3.0, 2.0]]))
    world = DrawnWorld(mean=torch.tensor([0.0, 2.0]), precision=torch.diag(torch.tensor([2.0, 7.0])), limit=1.0)
    # away by (3, 0): squared distance 2 * 9 = 18, over two dimensions 9, its root 3
    torch.testing.assert_close(world.distance(features), torch.tensor([3.0]))


def test_the_patches_may_change_places_and_cls_does_not_count():
    torch.manual_seed(0)
    features = torch.randn(2, 10, 4)
    changed = features[:, [0, *range(9, 0, -1)]].clone()
    changed[:, 0] = 7.0
    torch.testing.assert_close(out_of_distribution.summary(changed), out_of_distribution.summary(features))


def test_save_and_load(tmp_path):
    world = DrawnWorld(torch.randn(6), torch.eye(6), limit=1.25)
    assert world.save(tmp_path).name == out_of_distribution.FILE
    again = out_of_distribution.load(tmp_path)
    assert torch.equal(again.mean, world.mean) and torch.equal(again.precision, world.precision) and again.limit == 1.25
    assert out_of_distribution.load(tmp_path / "elsewhere") is None, "real weights have no drawn world"
    (tmp_path / out_of_distribution.FILE).write_bytes(b"cut off")
    with pytest.raises(ValueError, match="drawn_world.safetensors is damaged .*copy it again, or remove it"):
        out_of_distribution.load(tmp_path)


def test_drawn_scenes_come_in_many_sizes_and_are_the_same_every_time():
    first, second = (list(out_of_distribution.drawn_scenes(5, 12)) for _ in range(2))
    assert all(a.tobytes() == b.tobytes() and a.mode == "RGB" for a, b in zip(first, second, strict=True))
    assert len({image.size for image in first}) > 3


def test_parts_of_a_picture_start_with_the_whole_and_stay_inside():
    image = Image.new("RGB", (200, 100))
    whole, *crops = out_of_distribution.parts(image, 8, Random(0))
    assert whole is image and len(crops) == 7
    assert all(60 <= c.width <= 180 and 30 <= c.height <= 90 for c in crops)


class PatchColors:
    """An image encoder that can be understood: a patch's feature is its average color."""

    def preprocess(self, images):
        return torch.stack([torch.tensor(np.asarray(i.resize((32, 32)))).permute(2, 0, 1) / 255 for i in images])

    def __call__(self, pixels):
        patches = F.avg_pool2d(pixels, 8).flatten(2).transpose(1, 2)  # [B,16,3]
        return F.pad(patches, (0, 0, 1, 0))  # [CLS] in front


def test_fitting_keeps_drawn_scenes_inside_and_strange_pictures_outside(tmp_path):
    world = out_of_distribution.fit(PatchColors(), scenes=160, quantile=0.99)
    drawn = out_of_distribution.distances_of(world, PatchColors(), out_of_distribution.drawn_scenes(77, 60))
    assert drawn.median() == pytest.approx(1, abs=0.4)
    assert (drawn <= world.limit).float().mean() >= 0.9
    strange = [Image.new("RGB", (96, 96), color) for color in ("magenta", "yellow", "red")]
    assert (out_of_distribution.distances_of(world, PatchColors(), strange) > world.limit).all()
    world.save(tmp_path)
    assert out_of_distribution.load(tmp_path).limit == pytest.approx(world.limit)


def test_there_are_photographs_to_measure_with():
    pytest.importorskip("skimage", reason="the sample photographs come with the extra 'evaluate'")
    found = out_of_distribution.photographs(crops=2)
    assert len(found) >= 15 and "astronaut.png" in found
    assert all(len(images) == 2 and images[0].mode == "RGB" for images in found.values())


@pytest.mark.slow
def test_the_shipped_drawn_world_tells_drawings_from_photographs():
    pytest.importorskip("skimage", reason="the sample photographs come with the extra 'evaluate'")
    world = out_of_distribution.load("micro")
    if world is None:
        pytest.skip(f"the micro model's {out_of_distribution.FILE} is not in this checkout")
    from blip2_lab.checkpoints.load import load

    numbers = out_of_distribution.measure(load(MICRO).image_encoder, world, scenes=100, crops=3)
    assert numbers["drawn_called_strange"]["in"] <= 0.03 and numbers["drawn_called_strange"]["near"] <= 0.05
    assert numbers["photographs_called_drawn"] <= 0.05
    assert numbers["whole_photographs_called_drawn"] <= 0.05, "one of 23 may pass"
