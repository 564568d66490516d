"""Attribution: which regions of an image a score depends on, by attention, gradients and perturbation.

`METHODS` lists the methods; each maps a `Score` (targets.py) and pixels to an `Explanation`.

Notes:

* Attribution explains a score, one number. Attention alone does not depend on a score; here the rows of an attention
  map are weighted by `Score.query_weights`.
* An `Explanation` is a map [queries or tokens, height, width] over the patches of one image; negative values are
  evidence against. The sum over rows is one map (`.total`).
* Methods with a completeness axiom (the map sums to the change of the score from a blank image) return `delta`, the
  difference from it; a large `delta` means that the map is not reliable.
* What attends to the patches is `Score.reader`: the Q-Former, or a resampler, or the text's tokens by gated
  cross-attention. A linear projector has none, so only the methods without attention are defined (`defined_methods`).
* [CLS] has no position: attention to it is in no map (`query_probes.attention_statistics` measures it).
* captum implements the general methods; the code here is what is specific to the Q-Former, such as how self- and
  cross-attention are combined over layers.

Paper: section 3.1 (the role of the queries). Notebook: 09.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blip2_lab.interpret.attention_maps import AttentionMap, AttentionMaps, record_attention
from blip2_lab.interpret.targets import Score, WordScore


@dataclass(frozen=True)
class Explanation:
    """`map` [K, h, w]: one row for each query, or a single one. `delta`: the completeness error, or None."""

    map: Tensor
    delta: float | None = None

    @property
    def total(self) -> Tensor:
        """[h, w]: the sum over rows."""
        return self.map.sum(dim=0)


def to_grid(rows: Tensor) -> Tensor:
    """rows [..., N] over the encoder's tokens, [CLS] first -> [..., h, w] over the patches of a square image."""
    side = math.isqrt(rows.shape[-1] - 1)
    if side * side + 1 != rows.shape[-1]:
        raise ValueError(f"{rows.shape[-1]} image tokens are not [CLS] and a square of patches.")
    return rows[..., 1:].unflatten(-1, (side, side))


def blank(pixels: Tensor) -> Tensor:
    """The blank image: the mean color of each image of pixels [B,3,S,S], everywhere."""
    return pixels.mean(dim=(2, 3), keepdim=True).expand_as(pixels).contiguous()


# --- Attention: functions of tensors, then of recorded maps ---------------------------------------------------------


def roll_out(weights: Tensor) -> Tensor:
    """Self-attention [layers, H, N, N] -> [N, N]: the share of each column in each row after all layers; rows sum to 1.

    Abnar and Zuidema, 2020 (arXiv 2005.00928): mean over heads; half of each layer is the residual connection; the
    matrices of the layers are multiplied.
    """
    rolled = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    for layer in weights.mean(dim=1):
        rolled = (layer @ rolled + rolled) / 2
    return rolled


def gradient_weighted(weights: Tensor, gradient: Tensor) -> Tensor:
    """Attention and the score's gradient on it, [H, L, M] each -> [L, M]: positive contributions, mean over heads.

    The positive part is taken before the mean, so that contributions of different heads do not cancel (Chefer et al.,
    2021, arXiv 2103.15679, equation 5).
    """
    return (weights * gradient).clamp(min=0).mean(dim=0)


def raw_attention(maps: AttentionMaps, part: str = "qformer") -> Tensor:
    """Cross-attention of the last pass, averaged over layers and heads -> [Q, h, w].

    The usual figure of a Q-Former. It depends neither on the text nor on how the values read are used.
    """
    return to_grid(_to_patches(maps.stack(part, "cross")[:, 0].mean(dim=(0, 1)), part))


def rollout(maps: AttentionMaps, part: str = "qformer") -> Tensor:
    """Attention rollout through all layers (Abnar and Zuidema, 2020, arXiv 2005.00928) -> [Q, h, w].

    Half of every layer is the residual connection. The image encoder mixes information between the tokens of patches;
    if "image_encoder" is recorded too, the rollout continues through it to the patches.
    """
    image = _rollout_encoder(maps)
    reads: Tensor | None = None  # [L, N]: the share of each patch in each row
    rows = 0
    for found in _steps(maps, part):
        mixed = _mean(found)
        if found.kind == "self":  # [rows, L]
            rows = len(mixed)
            reads = None if reads is None else (mixed @ reads + reads[:rows]) / 2
            continue
        read_now = _to_patches(mixed, part)
        read_now = read_now if image is None else read_now @ image
        queries = len(read_now)
        if reads is None:
            reads = read_now.new_zeros(max(rows, queries), read_now.shape[1])
        read_now = read_now + _to_latents(mixed, part) @ reads[:queries]
        reads = torch.cat([(reads[:queries] + read_now) / 2, reads[queries:]])
    return to_grid(reads[: maps.select(part, "cross")[0].weights.shape[-2]])


def gradient_attention(maps: AttentionMaps, part: str = "qformer") -> Tensor:
    """Cross-attention times the score's gradient, positive part, mean over heads, sum over layers -> [Q, h, w].

    Grad-CAM, as ALBEF applies it to cross-attention (arXiv 2107.07651). Call `maps.differentiate(score)` first. A row
    is large only if the score depends on its query, so rows are added without weights.
    """
    return to_grid(sum(_to_patches(_weighted(found), part) for found in maps.select(part, "cross", call=-1)))


def relevance(maps: AttentionMaps, part: str = "qformer") -> Tensor:
    """Gradient-weighted attention through all layers (Chefer et al., 2021, arXiv 2103.15679) -> [Q, h, w].

    Like `rollout`, but each map is weighted with its gradient, and added to the residual instead of averaged.
    """
    image = _relevance_encoder(maps)
    among: Tensor | None = None  # [L, L]: relevance between rows
    reads: Tensor | None = None  # [L, N]
    for found in _steps(maps, part):
        mixed = _weighted(found)
        rows, length = mixed.shape
        if found.kind == "self":
            if among is None:
                among = torch.eye(length, device=mixed.device)
            reads = None if reads is None else reads[:rows] + mixed @ reads
            among = among[:rows] + mixed @ among
            continue
        if among is None:
            among = torch.eye(rows, device=mixed.device)
        read_now = _to_patches(mixed, part)
        read_now = read_now if image is None else read_now @ _normalized(image)
        if reads is None:
            reads = read_now.new_zeros(len(among), read_now.shape[1])
        latents = _to_latents(mixed, part)
        read_now = _normalized(among[:rows, :rows]).T @ read_now + latents @ reads[:rows]
        reads = torch.cat([reads[:rows] + read_now, reads[rows:]])
        among = torch.cat([among[:rows] + latents @ among[:rows], among[rows:]])
    return to_grid(reads[: maps.select(part, "cross")[0].weights.shape[-2]])


def _steps(maps: AttentionMaps, part: str) -> list[AttentionMap]:
    """The maps of the last pass in the order of computation: cross-attention to the patches, and the self-attention
    between its rows.

    A gated block stands before its layer of the language model, whose tokens are the rows. A resampler has no
    self-attention: its latents attend to patches and latents at once.
    """
    cross = maps.select(part, "cross", call=-1)
    if part == "resampler":
        mixing = []
    else:
        mixing = maps.select("language_decoder" if part == "bridge" else part, "self", call=-1)
    if not cross or not (mixing or part == "resampler"):
        raise ValueError(f"No pass of {part} over a picture was recorded.")
    if part == "bridge":
        chosen = {id(found) for found in (*cross, *mixing)}
        return [found for found in maps if id(found) in chosen]
    return sorted([*mixing, *cross], key=lambda found: (found.layer, found.kind == "cross"))


def _to_patches(weights: Tensor, part: str) -> Tensor:
    """weights [..., L, M] -> the columns of the image's tokens [..., L, N]: all but the latents of a resampler."""
    return weights[..., : weights.shape[-1] - weights.shape[-2]] if part == "resampler" else weights


def _to_latents(weights: Tensor, part: str) -> Tensor:
    """weights [L, M] -> attention of the rows to each other in the same step [L, L]: a resampler's; else zeros."""
    rows = len(weights)
    return weights[:, -rows:] if part == "resampler" else weights.new_zeros(rows, rows)


def _mean(found: AttentionMap) -> Tensor:
    """Mean over heads, for the first image: [L, M]."""
    return found.weights[0].detach().float().mean(dim=0)


def _weighted(found: AttentionMap) -> Tensor:
    """Attention times gradient, positive part, mean over heads, for the first image: [L, M]."""
    if found.gradient is None:
        raise ValueError("These maps have no gradients: call maps.differentiate(score) first.")
    return gradient_weighted(found.weights[0].detach().float(), found.gradient[0].float())


def _rollout_encoder(maps: AttentionMaps) -> Tensor | None:
    """[N, N]: the share of each patch in each output token of the image encoder; None if it was not recorded."""
    recorded = maps.select("image_encoder", "self", call=-1)
    return roll_out(torch.stack([found.weights[0].detach().float() for found in recorded])) if recorded else None


def _relevance_encoder(maps: AttentionMaps) -> Tensor | None:
    image = None
    for found in maps.select("image_encoder", "self", call=-1):
        mixed = _weighted(found)
        image = torch.eye(len(mixed), device=mixed.device) if image is None else image
        image = image + mixed @ image
    return image


def _normalized(relevance: Tensor) -> Tensor:
    """Normalize the rows of the matrix without its identity to 1 (Chefer et al., equations 8 and 9)."""
    eye = torch.eye(*relevance.shape, device=relevance.device)
    added = relevance - eye
    return added / added.sum(dim=-1, keepdim=True).clamp(min=1e-12) + eye


# --- Explanations of a score: one function each ---------------------------------------------------------------------


def record_score(
    score: Score, pixels: Tensor, *, gradients: bool = False, parts: Sequence[str] | None = None
) -> tuple[AttentionMaps, Tensor]:
    """Compute the score of one image [1,3,S,S] and record it -> its maps, and image_features [1,N,Dv].

    parts  to record, by default the score's; without "image_encoder", gradients end at the image features
    """
    if len(pixels) != 1:
        raise ValueError(f"Maps are made for one picture at a time; {len(pixels)} were given.")
    parts = score.parts if parts is None else parts
    with (
        torch.set_grad_enabled(gradients),
        record_attention(score.model, parts=parts, gradients=gradients) as maps,
    ):
        with torch.set_grad_enabled(gradients and "image_encoder" in parts):
            features = score.model.image_encoder(pixels)
        value = score.of_features(features)
        if gradients:
            maps.differentiate(value.sum())
    return maps, features.detach()


def explain_raw(score: Score, pixels: Tensor) -> Explanation:
    """Raw cross-attention, its rows weighted by how much each query counts in the score -> [Q, h, w]."""
    part = _reader(score)
    maps, features = record_score(score, pixels)
    return Explanation(_weigh(raw_attention(maps, part), score.query_weights(features, maps)))


def explain_rollout(score: Score, pixels: Tensor) -> Explanation:
    """Attention rollout through Q-Former and image encoder, rows weighted as in `explain_raw` -> [Q, h, w]."""
    part = _reader(score)
    maps, features = record_score(score, pixels)
    return Explanation(_weigh(rollout(maps, part), score.query_weights(features, maps)))


def explain_gradient(score: Score, pixels: Tensor) -> Explanation:
    """Gradient-weighted cross-attention -> [Q, h, w]."""
    part = _reader(score)
    maps, _ = record_score(score, pixels, gradients=True, parts=[part])
    return Explanation(gradient_attention(maps, part))


def explain_relevance(score: Score, pixels: Tensor) -> Explanation:
    """Gradient-weighted attention through Q-Former and image encoder, weighted as in `explain_raw` -> [Q, h, w]."""
    part = _reader(score)
    maps, features = record_score(score, pixels, gradients=True)
    return Explanation(_weigh(relevance(maps, part), score.query_weights(features, maps)))


def explain_integrated_gradients(score: Score, pixels: Tensor, *, steps: int = 32) -> Explanation:
    """Integrated gradients (arXiv 1703.01365) from the blank image, summed over each patch's pixels -> [1, h, w]."""
    from captum.attr import IntegratedGradients

    with torch.enable_grad():
        pixelwise, delta = IntegratedGradients(score).attribute(
            pixels, baselines=blank(pixels), n_steps=steps, return_convergence_delta=True
        )
    return Explanation(_pool(pixelwise.detach().sum(dim=1), score), delta.item())


def explain_layer(score: Score, pixels: Tensor, *, steps: int = 32) -> Explanation:
    """Integrated gradients on the image features, from the blank image's features -> [1, h, w].

    Cheaper than on pixels, because the image encoder runs only twice. But the feature vector of a patch depends on
    other patches, too.
    """
    from captum.attr import IntegratedGradients

    with torch.no_grad():
        features = score.model.image_encoder(pixels)
        baseline = score.model.image_encoder(blank(pixels))
    with torch.enable_grad():
        vectors, delta = IntegratedGradients(score.of_features).attribute(
            features, baselines=baseline, n_steps=steps, return_convergence_delta=True
        )
    return Explanation(to_grid(vectors.detach().sum(dim=-1)), delta.item())


def explain_occlusion(score: Score, pixels: Tensor, *, batch_size: int = 32) -> Explanation:
    """The decrease of the score when one patch is blanked, patch by patch (captum's FeatureAblation) -> [1, h, w].

    Not complete: redundant patches each have a small value. `delta` is the completeness error.
    """
    from captum.attr import FeatureAblation

    baseline = blank(pixels)
    blocks = patch_numbers(score, pixels, 1)
    with torch.no_grad():
        lost = FeatureAblation(score).attribute(
            pixels, baselines=baseline, feature_mask=blocks, perturbations_per_eval=batch_size
        )
        return _perturbed(score, pixels, baseline, lost, blocks)


def explain_shapley(
    score: Score, pixels: Tensor, *, block: int = 2, samples: int = 4, batch_size: int = 32, seed: int = 0
) -> Explanation:
    """Shapley values of blocks of `block` x `block` patches, from `samples` orders (captum's sampling) -> [1, h, w].

    The average contribution of a block over orders in which blocks are added. Exactly complete, but noisy with few
    samples. A block's value is spread evenly over its patches.
    """
    from captum.attr import ShapleyValueSampling

    baseline = blank(pixels)
    blocks = patch_numbers(score, pixels, block)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # captum draws the orders from the global generator
        values = ShapleyValueSampling(score).attribute(
            pixels, baselines=baseline, feature_mask=blocks, n_samples=samples, perturbations_per_eval=batch_size
        )
        return _perturbed(score, pixels, baseline, values, blocks)


def query_shapley(
    score: WordScore, visual_prompt: Tensor, baseline: Tensor | None = None, *, samples: int = 25, seed: int = 0
) -> tuple[Tensor, float]:
    """Shapley values of the queries for a word [Q], and the completeness error.

    visual_prompt  [1, Q, Dl]
    baseline       [1, Q, Dl], replaces an absent query: best the mean over many images; default zeros
    """
    from captum.attr import ShapleyValueSampling

    baseline = torch.zeros_like(visual_prompt) if baseline is None else baseline
    queries = visual_prompt.shape[1]
    players = torch.arange(queries, device=visual_prompt.device)[None, :, None].expand_as(visual_prompt).contiguous()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        values = ShapleyValueSampling(score.of_visual_prompt).attribute(
            visual_prompt, baselines=baseline, feature_mask=players, n_samples=samples, perturbations_per_eval=queries
        )[0, :, 0]
        change = score.of_visual_prompt(visual_prompt) - score.of_visual_prompt(baseline)
    return values, (values.sum() - change).item()


#: Name of a method in tables and on the command line -> method. Sources are in the docstrings.
METHODS: dict[str, Callable[[Score, Tensor], Explanation]] = {
    "raw": explain_raw,
    "rollout": explain_rollout,
    "gradient": explain_gradient,
    "relevance": explain_relevance,
    "integrated-gradients": explain_integrated_gradients,
    "layer": explain_layer,
    "occlusion": explain_occlusion,
    "shapley": explain_shapley,
}
#: The methods that need cross-attention to the patches.
OF_ATTENTION = ("raw", "rollout", "gradient", "relevance")


def defined_methods(reader: str | None) -> list[str]:
    """The methods of `METHODS` for a score with this `reader`: without attention to the patches, the last four."""
    return [name for name in METHODS if reader is not None or name not in OF_ATTENTION]


def _reader(score: Score) -> str:
    """The part that attends to the patches. Raises ValueError where none does."""
    if score.reader is None:
        raise ValueError(
            "This bridge has no attention to the patches, so there is no attention map of it: a linear projector makes "
            f"one token of each patch. Take {', '.join(defined_methods(None))}."
        )
    return score.reader


def patch_numbers(score: Score, pixels: Tensor, block: int) -> Tensor:
    """The number of each pixel's block of patches, long[1, 1, S, S], as captum's `feature_mask`."""
    patch = score.model.image_encoder.model.config.patch_size
    side = pixels.shape[-1] // patch
    across = -(-side // block)
    line = (torch.arange(pixels.shape[-1], device=pixels.device) // (patch * block)).clamp(max=across - 1)
    return (line[:, None] * across + line)[None, None].contiguous()


def _weigh(rows: Tensor, weights: Tensor) -> Tensor:
    """rows [Q, h, w], weights [Q]."""
    return rows * weights.to(rows)[:, None, None]


def _pool(pixelwise: Tensor, score: Score) -> Tensor:
    """[1, S, S] over pixels -> sums over patches [1, h, w]."""
    patch = score.model.image_encoder.model.config.patch_size
    side = (
        pixelwise.shape[-1] // patch * patch
    )  # pixels at the border that fill no patch are left out, as in the encoder
    return pixelwise[..., :side, :side].unfold(1, patch, patch).unfold(2, patch, patch).sum(dim=(-1, -2))


def _perturbed(score: Score, pixels: Tensor, baseline: Tensor, values: Tensor, blocks: Tensor) -> Explanation:
    """From captum's values, which repeat a feature's value on all of its pixels [1,3 or 1,S,S], to a map."""
    sizes = blocks.flatten().bincount()[blocks]  # [1, 1, S, S]
    spread = _pool((values[:, :1] / sizes)[:, 0], score)
    change = score(pixels) - score(baseline)
    return Explanation(spread, (spread.sum() - change).item())
