"""What a vocabulary of patches costs: codes in the place of continuous image features, for the shipped image encoder.

    python -m benchmarks.codebook [--scenes 400] [--held-out 200] [--codes 16 64 256 1024]

The codebook is k-means over the normalized features of patches (`dual_encoder.k_means`). On scenes that were not used
for it, the script prints the share of the features' variance that codes lose, and how often a reader is right about
what a patch shows, of patches that show a thing: a linear reader of the continuous features (ridge regression), and the
best reader of an id, a table of the most frequent answer for each code. The baseline is the most frequent answer.
"""

from __future__ import annotations

import argparse
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from blip2_lab.checkpoints.load import load
from blip2_lab.models.bridges.dual_encoder import k_means, nearest_codes
from blip2_lab.models.vision_encoder import ImageEncoder
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import HELD_OUT_BOOK, VALIDATION_BOOK, sample_scene
from blip2_lab.training.tasks.pretraining import PATCH_ATTRIBUTES, patch_labels

RIDGE = 1e-2  #: of the linear reader, per patch


@torch.no_grad()
def patches(encoder: ImageEncoder, book: int, scenes: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Normalized features [P,Dv] of all patches, and what each shows: long[P] by attribute, 0 for no thing."""
    drawn = [sample_scene(book, number, "in") for number in range(scenes)]
    grid = encoder.image_size // encoder.model.config.patch_size
    labels = [patch_labels(scene, grid) for scene in drawn]
    images = [draw(scene, encoder.image_size) for scene in drawn]
    features = torch.cat([encoder(encoder.preprocess(images[i : i + 50]))[:, 1:] for i in range(0, scenes, 50)])
    normalized = F.layer_norm(features, features.shape[-1:]).flatten(0, 1)
    return normalized, {name: torch.cat([each[name] for each in labels]) for name in PATCH_ATTRIBUTES}


def read_linearly(features: Tensor, labels: Tensor, asked: Tensor) -> Tensor:
    """Ridge regression to one-hot labels: features [P,D] with labels long[P] -> the answers for asked [Q,D]."""
    x = torch.cat([features, torch.ones(len(features), 1)], dim=1).double()
    targets = F.one_hot(labels).double()
    weights = torch.linalg.solve(x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype), x.T @ targets)
    return (torch.cat([asked, torch.ones(len(asked), 1)], dim=1).double() @ weights).argmax(dim=1)


def read_codes(codes: Tensor, labels: Tensor, asked: Tensor, count: int) -> Tensor:
    """The most frequent label of each code -> the answers for asked long[Q]; unseen codes: the most frequent of all."""
    table = torch.zeros(count, int(labels.max()) + 1).index_put_((codes, labels), torch.ones(()), accumulate=True)
    best = table.argmax(dim=1)
    best[table.sum(dim=1) == 0] = table.sum(dim=0).argmax()
    return best[asked]


def lost_variance(features: Tensor, codebook: Tensor) -> float:
    """The share of the variance that codes lose, as `DualEncoder.quantization_error`."""
    near = codebook[nearest_codes(features, codebook)]
    return ((features - near).square().sum() / (features - features.mean(dim=0)).square().sum()).item()


def measure(encoder: ImageEncoder, scenes: int, held_out: int, counts: list[int]) -> list[dict]:
    """A row for the continuous features and one for each number of codes."""
    (features, labels), (asked, truth) = (
        patches(encoder, VALIDATION_BOOK, scenes),
        patches(encoder, HELD_OUT_BOOK, held_out),
    )

    def accuracy(answers) -> dict[str, float]:
        return {
            name: (answers(labels[name][shown], shown)[there] == truth[name][there]).float().mean().item()
            for name in PATCH_ATTRIBUTES
            for shown, there in [(labels[name] > 0, truth[name] > 0)]
        }

    most = accuracy(lambda known, shown: known.mode().values.expand(len(asked)))
    rows = [{"what": "the most frequent answer", "bits": 0.0, "lost": 1.0, **most}]
    for count in counts:
        codebook = k_means(features, count)
        codes, wanted = nearest_codes(features, codebook), nearest_codes(asked, codebook)
        found = accuracy(lambda known, shown, c=codes, w=wanted, n=count: read_codes(c[shown], known, w, n))
        lost = lost_variance(asked, codebook)
        rows.append({"what": f"{count} codes", "bits": math.log2(count), "lost": lost, **found})
    continuous = accuracy(lambda known, shown: read_linearly(features[shown], known, asked))
    return [*rows, {"what": "continuous features", "bits": 32.0 * features.shape[1], "lost": 0.0, **continuous}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--codes", type=int, nargs="+", default=[16, 64, 256, 1024])
    args = parser.parse_args()
    rows = measure(load("micro").image_encoder, args.scenes, args.held_out, args.codes)
    print(f"codebooks from {args.scenes} scenes of book {VALIDATION_BOOK}, read on {args.held_out} of {HELD_OUT_BOOK}")
    print(f"{'a patch as':<26}{'bits':>7}{'variance lost':>15}" + "".join(f"{name:>8}" for name in PATCH_ATTRIBUTES))
    for row in rows:
        shares = "".join(f"{row[name]:>8.3f}" for name in PATCH_ATTRIBUTES)
        print(f"{row['what']:<26}{row['bits']:>7.0f}{row['lost']:>15.3f}{shares}")


if __name__ == "__main__":
    main()
