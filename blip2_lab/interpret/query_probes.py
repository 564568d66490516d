"""What each query encodes, what is lost without it, and how many queries are needed.

`evaluate_queries` is where to begin.

    blip2-lab evaluate grounding --scenes 300 --out docs/what-queries-see

Notes:

* Three different measurements. *Probing*: is a property in the query's output? *Dropping*: does the language model need
  the query? *Attention*: does the query read that region?
* A probe is one ridge regression for each query, in closed form, from its output to all properties of the scene. Its
  score is the area under the ROC curve on held-out scenes (0.5 by chance), so that properties can be compared.
* A dropped query is removed from the visual prompt, and the questions are asked again without retraining. The result
  holds for this model, not for one trained with fewer queries.

Paper: section 3.1 (32 queries). Notebook: 09.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from blip2_lab.evaluation.scenes import image_features, question_accuracy, questions
from blip2_lab.interpret.attention_maps import record_attention
from blip2_lab.models.bridges import QFormerBridge
from blip2_lab.models.decoding import Decoding
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.picturebook.scene import COLORS, HELD_OUT_BOOK, KINDS, PLACES, POSITIONS, TIMES, Scene, sample_scene

#: What is probed, in groups of labels; each label is present in a scene or not.
LABELS: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "color": COLORS,
    "position": POSITIONS,
    "place": PLACES,
    "time": TIMES,
}
NAMES = tuple(label for labels in LABELS.values() for label in labels)

NO_QUERIES = "The bridge of this model is no Q-Former, so it has no queries to probe or to leave out."

Say = Callable[[str], None]


def scene_labels(scene: Scene) -> Tensor:
    """bool[labels]: which of `NAMES` the scene shows; a position counts if a thing is there."""
    shown = {value for t in scene.things for value in (t.kind, t.color, t.position)} | {scene.place, scene.time}
    return torch.tensor([name in shown for name in NAMES])


def roc_auc(scores: Tensor, labels: Tensor) -> float:
    """scores [M], labels bool[M] -> the share of pairs in which the scene with the label scores above the one without
    (ties: half)."""
    with_it, without = scores[labels].double(), scores[~labels].double()
    if not len(with_it) or not len(without):
        return 0.5
    above = (with_it[:, None] > without).double() + (with_it[:, None] == without).double() / 2
    return above.mean().item()


def probe(outputs: Tensor, labels: Tensor, *, held_out: float = 0.3, ridge: float = 10.0) -> Tensor:
    """outputs [M,Q,D], labels bool[M,K] -> area under the ROC curve [Q,K] on the last `held_out` of the M scenes."""
    count = round(len(outputs) * (1 - held_out))
    if not 1 < count < len(outputs):
        raise ValueError(f"{len(outputs)} scenes cannot be split into training and test scenes.")
    scores = torch.empty(outputs.shape[1], labels.shape[1])
    wanted = labels[:count].double()
    for query in range(outputs.shape[1]):
        x = outputs[:, query].double().cpu()
        x = (x - x[:count].mean(dim=0)) / x[:count].std(dim=0).clamp(min=1e-6)
        known = x[:count]
        weights = torch.linalg.solve(
            known.T @ known + ridge * torch.eye(x.shape[1], dtype=x.dtype), known.T @ (wanted - wanted.mean(dim=0))
        )
        read = x[count:] @ weights
        for label in range(labels.shape[1]):
            scores[query, label] = roc_auc(read[:, label], labels[count:, label])
    return scores


def response_similarity(outputs: Tensor) -> Tensor:
    """outputs [M,Q,D] -> cosine between the queries' centered outputs, mean over images, [Q,Q].

    Each query's mean over images is subtracted first, because it does not depend on the image.
    """
    varies = F.normalize((outputs - outputs.mean(dim=0)).float(), dim=-1)
    return torch.einsum("mqd,mpd->qp", varies, varies) / len(outputs)


@torch.no_grad()
def outputs_and_attention(model: Stage2Model, features: Tensor, batch_size: int = 64) -> tuple[Tensor, Tensor]:
    """image_features [M,N,Dv] -> query outputs [M,Q,Dq] and raw attention, mean over layers and heads, [M,Q,N]."""
    outputs, attention = [], []
    for chunk in features.split(batch_size):
        with record_attention(model, parts=["qformer"]) as maps:
            outputs.append(model.qformer(image=model.qformer.read_image(chunk)).query_output)
        attention.append(maps.stack("qformer", "cross").mean(dim=(0, 2)))
    return torch.cat(outputs), torch.cat(attention)


def attention_statistics(attention: Tensor) -> dict[str, float]:
    """Raw attention [M,Q,N] of M images -> statistics from 0 to 1 that show why its maps look like noise.

    cls        share of attention to [CLS], which has no position
    even       entropy over the patches, as a share of the entropy of uniform attention
    fixed      correlation of a query's maps of two images: independent of the image
    same       correlation of two queries' maps of one image: independent of the query
    """
    patches = attention[..., 1:].double()
    shares = patches / patches.sum(dim=-1, keepdim=True)
    entropy = -(shares * shares.clamp(min=1e-12).log()).sum(dim=-1).mean()
    unit = F.normalize(shares - shares.mean(dim=-1, keepdim=True), dim=-1)
    queries = unit.shape[1]
    among = torch.einsum("mqn,mpn->mqp", unit, unit)
    same = (among.sum() - among.diagonal(dim1=1, dim2=2).sum()) / (len(unit) * queries * max(queries - 1, 1))
    return {
        "cls": attention[..., 0].double().mean().item(),
        "even": (entropy / torch.tensor(float(shares.shape[-1])).log()).item(),
        "fixed": (unit * unit.roll(1, dims=0)).sum(dim=-1).mean().item(),
        "same": same.item(),
    }


def accuracy_without_each(visual_prompts: Tensor, ask: Callable[[Tensor], dict], say: Say) -> list[dict]:
    """For each query: the accuracies of the questions with this query removed from visual_prompts [M,Q,Dl]."""
    queries = visual_prompts.shape[1]
    found = []
    for query in range(queries):
        say(f"asking without query {query + 1} of {queries}")
        found.append(ask(torch.cat([visual_prompts[:, :query], visual_prompts[:, query + 1 :]], dim=1)))
    return found


def accuracy_with_fewer(
    visual_prompts: Tensor, ask: Callable[[Tensor], dict], say: Say, *, draws: int = 3
) -> dict[int, list[float]]:
    """Number of kept queries -> accuracy of the visual questions, for `draws` random subsets."""
    queries = visual_prompts.shape[1]
    counts = sorted({0, queries, *(2**k for k in range(queries.bit_length()) if 2**k < queries), 3 * queries // 4})
    generator, found = torch.Generator().manual_seed(0), {}
    for count in counts:
        say(f"asking with {count} of {queries} queries")
        orders = [torch.randperm(queries, generator=generator)[:count].sort().values for _ in range(draws)]
        if count in (0, queries):
            orders = orders[:1]
        found[count] = [ask(visual_prompts[:, order])["total"] for order in orders]
    return found


@torch.no_grad()
def evaluate_queries(
    model: Stage2Model,
    *,
    scenes: int = 1000,
    asked_scenes: int = 150,
    split: str = "in",
    seed: int = HELD_OUT_BOOK,
    batch_size: int = 128,
    say: Say = lambda _: None,
) -> dict:
    """All measurements of this module, ready for JSON. `asked_scenes`: number of scenes whose questions are asked.

    Raises ValueError for a model whose bridge is no Q-Former.
    """
    if not isinstance(model.bridge, QFormerBridge):
        raise ValueError(NO_QUERIES)
    if model.reads_questions:
        raise ValueError("The queries of this model depend on the question: probe the model that it was trained from.")
    if scenes < 10 or asked_scenes < 1:
        raise ValueError(f"scenes is {scenes} and asked_scenes {asked_scenes}; at least 10 and 1 are needed.")
    book = [sample_scene(seed, index, split) for index in range(scenes)]
    say(f"looking at {scenes} pictures")
    features = image_features(model, book, batch_size)
    outputs, attention = outputs_and_attention(model, features)
    labels = torch.stack([scene_labels(scene) for scene in book])
    say("probing each query")
    read = probe(outputs, labels)
    few = book[:asked_scenes]
    asked, visual_prompts = questions(few, seed), model.language_projection(outputs[: len(few)])

    def ask(prompts: Tensor) -> dict:
        return question_accuracy(model, prompts, asked, Decoding(num_beams=1), batch_size)

    say("asking with all queries")
    return {
        "scenes": scenes,
        "asked_scenes": len(few),
        "questions": len(asked),
        "probe": read.tolist(),
        "alike": response_similarity(outputs).tolist(),
        "attention": attention_statistics(attention),
        "attention_mean": attention.mean(dim=0).tolist(),
        "with_all": ask(visual_prompts),
        "without": accuracy_without_each(visual_prompts, ask, say),
        "fewer": accuracy_with_fewer(visual_prompts, ask, say),
    }


def group_means(read: Sequence[Sequence[float]] | Tensor) -> dict[str, Tensor]:
    """A probe's result [Q, labels] -> group of `LABELS` -> mean over its labels, [Q]."""
    values, start, found = torch.as_tensor(read), 0, {}
    for name, labels in LABELS.items():
        found[name] = values[:, start : start + len(labels)].mean(dim=1)
        start += len(labels)
    return found
