"""What each query does: what can be read off it, what is forgotten without it, and how many are needed.

What is unusual about it:

* Three questions that are easily confused. *Probing*: is it in the query's output? *Dropping*: does the language model
  need it from there? *Attention*: does the query look there? Each has its own number here.
* A probe is one ridge regression for each query, in closed form, from its output to everything drawn in the scene;
  its score is the area under the ROC curve on held-out scenes, 0.5 for a guess, so kinds and places can be compared.
* A dropped query is cut out of the visual prompt, and the questions are asked again. Nothing is retrained: this says
  what *this* model does with fewer queries, not what a model trained with fewer would do.

    blip2-lab evaluate grounding --scenes 300 --out docs/what-queries-see

Paper: section 3.1 (32 queries). Notebook: 09.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from blip2_lab.evaluation.scenes import image_features, question_accuracy, questions
from blip2_lab.interpret.attention_maps import record_attention
from blip2_lab.models.decoding import Decoding
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.picturebook.scene import COLORS, HELD_OUT_BOOK, KINDS, PLACES, POSITIONS, TIMES, Scene, sample_scene

#: What is read off a query, in groups: label by label, each present in a scene or not.
LABELS: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "color": COLORS,
    "position": POSITIONS,
    "place": PLACES,
    "time": TIMES,
}
NAMES = tuple(label for labels in LABELS.values() for label in labels)

Say = Callable[[str], None]


def scene_labels(scene: Scene) -> Tensor:
    """bool[labels]: which of `NAMES` the scene shows; a position, if a thing stands there."""
    shown = {value for t in scene.things for value in (t.kind, t.color, t.position)} | {scene.place, scene.time}
    return torch.tensor([name in shown for name in NAMES])


def roc_auc(scores: Tensor, labels: Tensor) -> float:
    """scores [M], labels bool[M] -> how often a scene with the label scores above one without (a tie is half)."""
    with_it, without = scores[labels].double(), scores[~labels].double()
    if not len(with_it) or not len(without):
        return 0.5
    above = (with_it[:, None] > without).double() + (with_it[:, None] == without).double() / 2
    return above.mean().item()


def probe(outputs: Tensor, labels: Tensor, *, held_out: float = 0.3, ridge: float = 10.0) -> Tensor:
    """outputs [M,Q,D], labels bool[M,K] -> area under the ROC curve [Q,K] on the last `held_out` of the M scenes."""
    count = round(len(outputs) * (1 - held_out))
    if not 1 < count < len(outputs):
        raise ValueError(f"{len(outputs)} scenes cannot be split into some to learn from and some to test on.")
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
    """outputs [M,Q,D] -> cosine of what varies from picture to picture, mean over pictures, [Q,Q].

    Each query's own mean is taken away first: it is the same for every picture and says nothing of it.
    """
    varies = F.normalize((outputs - outputs.mean(dim=0)).float(), dim=-1)
    return torch.einsum("mqd,mpd->qp", varies, varies) / len(outputs)


@torch.no_grad()
def outputs_and_attention(model: Stage2Model, features: Tensor, batch_size: int = 64) -> tuple[Tensor, Tensor]:
    """image_features [M,N,Dv] -> query outputs [M,Q,Dq] and raw attention, mean over layers and heads, [M,Q,N]."""
    outputs, attention = [], []
    for part in features.split(batch_size):
        with record_attention(model, parts=["qformer"]) as maps:
            outputs.append(model.qformer(image=model.qformer.read_image(part)).query_output)
        attention.append(maps.stack("qformer", "cross").mean(dim=(0, 2)))
    return torch.cat(outputs), torch.cat(attention)


def attention_statistics(attention: Tensor) -> dict[str, float]:
    """Raw attention [M,Q,N] of M pictures -> why it looks like noise, in numbers from 0 to 1.

    cls        share that goes to [CLS], which has no place
    even       its entropy over the patches, as a share of what an even look has
    fixed      correlation of a query's look at two pictures: what it does whatever is there
    same       correlation of two queries' looks at one picture: what all do alike
    """
    patches = attention[..., 1:].double()
    looks = patches / patches.sum(dim=-1, keepdim=True)
    entropy = -(looks * looks.clamp(min=1e-12).log()).sum(dim=-1).mean()
    unit = F.normalize(looks - looks.mean(dim=-1, keepdim=True), dim=-1)
    queries = unit.shape[1]
    among = torch.einsum("mqn,mpn->mqp", unit, unit)
    same = (among.sum() - among.diagonal(dim1=1, dim2=2).sum()) / (len(unit) * queries * max(queries - 1, 1))
    return {
        "cls": attention[..., 0].double().mean().item(),
        "even": (entropy / torch.tensor(float(looks.shape[-1])).log()).item(),
        "fixed": (unit * unit.roll(1, dims=0)).sum(dim=-1).mean().item(),
        "same": same.item(),
    }


def accuracy_without_each(visual_prompts: Tensor, ask: Callable[[Tensor], dict], say: Say) -> list[dict]:
    """For each query: the questions' accuracies when it is cut out of visual_prompts [M,Q,Dl]."""
    queries = visual_prompts.shape[1]
    found = []
    for query in range(queries):
        say(f"asking without query {query + 1} of {queries}")
        found.append(ask(torch.cat([visual_prompts[:, :query], visual_prompts[:, query + 1 :]], dim=1)))
    return found


def accuracy_with_fewer(
    visual_prompts: Tensor, ask: Callable[[Tensor], dict], say: Say, *, draws: int = 3
) -> dict[int, list[float]]:
    """How many queries are kept -> accuracy of the visual questions, for `draws` random choices of which."""
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
    """Everything above for one model, ready for JSON. `asked_scenes`: so many scenes' questions are asked again."""
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
