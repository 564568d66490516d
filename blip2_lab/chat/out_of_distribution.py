"""Out-of-distribution detection: how far a picture's features are from those of the drawn world.

Notes:

* It costs almost nothing: it reads the image features that were computed anyway.
* A picture is summed up by the mean and the spread of its patches' features; its distance is Mahalanobis', to the cloud
  of drawn scenes, per dimension: about 1 for a drawn scene.
* Nothing is learned from photographs. The limit is a quantile of the distances of drawn scenes, so the share of
  photographs that is caught (`measure`) is a fair number: no photograph was used to set the limit.

Not in the paper. Notebook: 12.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from PIL import Image
from torch import Tensor

from blip2_lab.checkpoints.names import model_path
from blip2_lab.common.files import make_readable
from blip2_lab.common.images import open_image
from blip2_lab.models.vision_encoder import ImageEncoder
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import pick, sample_scene

FILE = "drawn_world.safetensors"
FIT_SEED, LIMIT_SEED, MEASURE_SEED = 9_001, 9_002, 9_003  #: books that no training reads
SIDES = (96, 96, 128, 192, 256, 384, 512)  #: a scene may come at any size; it is squashed to the encoder's

#: Ordinary photographs that come with scikit-image, scikit-learn, matplotlib and gradio: package -> files.
PHOTOGRAPHS = {
    "skimage": tuple(
        "data/" + name
        for name in (
            *("astronaut.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png"),
            *("brick.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png"),
            *("motorcycle_left.png", "motorcycle_right.png", "retina.jpg", "rocket.jpg"),
        )
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
    "gradio": tuple(f"media_assets/images/{name}.jpg" for name in ("cheetah", "cheetah1", "tower")),
}


@dataclass(frozen=True)
class DrawnWorld:
    """What drawn scenes look like to one image encoder. `limit`: pictures farther away are from outside."""

    mean: Tensor  # [2*Dv]
    precision: Tensor  # [2*Dv, 2*Dv], the inverse covariance
    limit: float

    def distance(self, image_features: Tensor) -> Tensor:
        """image_features [B,N,Dv] -> distances [B]: about 1 for drawn scenes, larger for what is not."""
        away = summary(image_features) - self.mean
        squared = torch.einsum("bi,ij,bj->b", away, self.precision, away)
        return (squared.clamp(min=0) / len(self.mean)).sqrt()

    def save(self, folder: str | Path) -> Path:
        """Write `drawn_world.safetensors` into a model's folder."""
        from safetensors.torch import save_file

        path = Path(folder) / FILE
        tensors = {"mean": self.mean, "precision": self.precision, "limit": torch.tensor(self.limit)}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        make_readable(path)
        return path


def summary(image_features: Tensor) -> Tensor:
    """image_features [B,N,Dv] -> [B,2*Dv]: mean and standard deviation over the patches, without [CLS]."""
    patches = image_features[:, 1:].detach().float().cpu()
    return torch.cat([patches.mean(dim=1), patches.std(dim=1)], dim=1)


def load(name_or_path: str | Path) -> DrawnWorld | None:
    """The drawn world of a model's folder ("micro": the shipped one), or None: real weights know more than drawings."""
    path = model_path(name_or_path) / FILE
    if not path.is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        saved = load_file(path)
        return DrawnWorld(saved["mean"], saved["precision"], saved["limit"].item())
    except (SafetensorError, KeyError, RuntimeError) as error:  # RuntimeError: a limit that is several numbers
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}): copy it again, or remove it, and no picture is called strange"
        ) from None


# -------------------------------------------------------------------------------------------------------------- fitting


def fit(
    image_encoder: ImageEncoder, *, scenes: int = 2000, quantile: float = 0.995, shrink: float = 0.001
) -> DrawnWorld:
    """Learn what drawn scenes look like to this encoder: mean and covariance from one book, the limit from another.

    quantile  of the second book's distances: 0.995 means that about 1 drawn scene in 200 is called strange
    shrink    mixes so much of the average variance into the covariance, so that its inverse is well behaved; more of it
              blurs the directions in which drawn scenes never differ, which tell a photograph best
    """
    summaries = torch.cat([summary(f) for f in encode(image_encoder, drawn_scenes(FIT_SEED, scenes))]).double()
    covariance = torch.cov(summaries.T)
    average = covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)
    precision = torch.linalg.inv((1 - shrink) * covariance + shrink * average)
    world = DrawnWorld(summaries.mean(dim=0).float(), precision.float(), limit=0.0)
    distances = distances_of(world, image_encoder, drawn_scenes(LIMIT_SEED, scenes // 2))
    return DrawnWorld(world.mean, world.precision, torch.quantile(distances, quantile).item())


def encode(image_encoder: ImageEncoder, images: Iterable[Image.Image], at_once: int = 64) -> Iterator[Tensor]:
    """Pictures -> image_features [<=at_once,N,Dv], batch after batch."""
    batch: list[Image.Image] = []
    for image in images:
        batch.append(image)
        if len(batch) == at_once:
            yield _encode(image_encoder, batch)
            batch = []
    if batch:
        yield _encode(image_encoder, batch)


@torch.no_grad()
def _encode(image_encoder: ImageEncoder, images: Sequence[Image.Image]) -> Tensor:
    return image_encoder(image_encoder.preprocess(images))


def distances_of(world: DrawnWorld, image_encoder: ImageEncoder, images: Iterable[Image.Image]) -> Tensor:
    """The distance of every picture, [M]."""
    return torch.cat([world.distance(features) for features in encode(image_encoder, images)])


def drawn_scenes(seed: int, count: int, split: str = "train") -> Iterator[Image.Image]:
    """Scenes as they might be uploaded: in several sizes, some of them saved as JPEG before."""
    for index in range(count):
        rng = Random(f"upload {seed} {index}")
        image = draw(sample_scene(seed, index, split), pick(rng, SIDES))
        if rng.random() < 0.3:
            file = io.BytesIO()
            image.save(file, "JPEG", quality=60 + int(36 * rng.random()))
            image = Image.open(file).convert("RGB")
        yield image


# ------------------------------------------------------------------------------------------------------------ measuring


def photographs(crops: int = 12) -> dict[str, list[Image.Image]]:
    """The sample photographs of whichever packages are installed: each as a whole, and `crops` - 1 parts of it."""
    found = {}
    for package, files in PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        for file in files:
            path = Path(spec.origin).parent / file if spec and spec.origin else None
            if path is not None and path.is_file():
                found[path.name] = parts(open_image(path), crops, Random(path.name))
    return found


def parts(image: Image.Image, count: int, rng: Random) -> list[Image.Image]:
    """The picture itself and count - 1 random crops, each side between 0.3 and 0.9 of the whole."""
    found = [image]
    while len(found) < count:
        width, height = (max(1, int(side * (0.3 + 0.6 * rng.random()))) for side in image.size)
        left, top = int((image.width - width) * rng.random()), int((image.height - height) * rng.random())
        found.append(image.crop((left, top, left + width, top + height)))
    return found


def measure(image_encoder: ImageEncoder, world: DrawnWorld, *, scenes: int = 1000, crops: int = 12) -> dict:
    """How often the limit is wrong: drawn scenes called strange (by split), photographs taken for drawn ones.

    `scenes` of each split; "out" is the drawing style (chalk) that no training has shown. Needs scikit-image,
    scikit-learn and matplotlib for their photographs; raises ValueError when there is none.
    """
    pictures = photographs(crops)
    if not pictures:
        raise ValueError("There are no sample photographs here: pip install scikit-image scikit-learn matplotlib")

    def outside(images: Iterable[Image.Image]) -> Tensor:
        return (distances_of(world, image_encoder, images) > world.limit).float()

    caught = {name: outside(images) for name, images in pictures.items()}
    everything = torch.cat(list(caught.values()))
    return {
        "limit": round(world.limit, 3),
        "scenes_of_each_split": scenes,
        "drawn_called_strange": {
            split: round(outside(drawn_scenes(MEASURE_SEED, scenes, split)).mean().item(), 4)
            for split in ("in", "near", "out")
        },
        "photographs": len(pictures),
        "photographs_with_crops": len(everything),
        "photographs_called_drawn": round(1 - everything.mean().item(), 4),
        "whole_photographs_called_drawn": round(1 - torch.stack([c[0] for c in caught.values()]).mean().item(), 4),
        "missed_most_often": {name: round(1 - c.mean().item(), 3) for name, c in caught.items() if c.mean() < 1},
    }


def outside_sentence(distance: float, limit: float) -> str:
    """What to say of a picture that is farther from the drawn world than its `limit`."""
    return (
        f"this picture is outside the drawn world that I know (distance {distance:.1f}; drawn scenes stay below "
        f"{limit:.1f}), so my answer is a guess; for photographs load real weights, see `blip2-lab models`"
    )
