"""A folder of pictures, searched by a sentence or by another picture.

Notes:

* The folder is read once and kept in one file beside the pictures: ITC's vectors, and the frozen image features that
  ITM needs. A second `index` reads only what is new or has changed.
* A sentence is compared with all vectors (one matrix product); of the best 128 the Q-Former reads each picture once,
  and ITM decides. `Readings` keeps them for the next sentence; LAVIS reads the shortlisted pictures again for each.
* BLIP-2 has no score for two pictures. The search by picture compares what the same query found in both, on average
  over the queries. It was not trained for this; it finds what the Q-Former encodes alike.
* An index made with other weights is refused: its vectors would mean nothing.

Paper: section 4.4. Notebook: 06.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from blip2_lab.chat.vocabulary import check, for_stage1
from blip2_lab.common.files import make_readable
from blip2_lab.common.images import open_image, pictures_in
from blip2_lab.models.losses import itc_similarity
from blip2_lab.models.qformer import ImageMemory, QFormer
from blip2_lab.models.retrieval import pair_scores, require_stage1
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.stage2 import Stage2Model

FILE = "blip2-index.safetensors"
SHORTLIST = 128  #: the paper's k
BATCH = 16  #: pictures read at a time

Say = Callable[[str], None]


@dataclass(frozen=True)
class Hit:
    """A picture that was found: its file, ITC's cosine, ITM's probability of a match (None where ITM was not asked)."""

    file: str
    itc: float
    itm: float | None = None


@dataclass(frozen=True)
class Stamp:
    """By what a file is known to be unchanged."""

    file: str
    bytes: int
    changed: int


@dataclass(frozen=True)
class PictureIndex:
    """I pictures as a model has seen them. `features` is empty, [0], where the index was made without re-ranking."""

    stamps: tuple[Stamp, ...]
    image_embeds: Tensor  # float16 [I, Q, E]
    features: Tensor  # float16 [I, N, Dv]
    model: str  # fingerprint of the Q-Former
    encoder: tuple[float, ...] = ()  # of the image encoder; empty in an index of an older version

    def __len__(self) -> int:
        return len(self.stamps)


def fingerprint(model: Stage1Model) -> str:
    """Tells one set of weights from another."""
    digest = hashlib.sha256()
    for tensor in (model.qformer.query_tokens, model.vision_projection.weight, model.itm_head.weight):
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def encoder_fingerprint(model: Stage1Model) -> tuple[float, ...]:
    """Tells one image encoder from another: the mean size of each of its biases and norms, which are never quantized.

    Compared with a tolerance (`same_encoder`), because an encoder may be loaded in 16 bits.
    """
    parameters = (p for p in model.image_encoder.parameters() if p.ndim == 1)
    return tuple(round(p.detach().float().abs().mean().item(), 6) for p in parameters)


def same_encoder(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two fingerprints are of one image encoder, or one of them is not known."""
    if not one or not other:
        return True
    return len(one) == len(other) and all(
        math.isclose(a, b, rel_tol=5e-3, abs_tol=1e-4) for a, b in zip(one, other, strict=True)
    )


# --- Making ---------------------------------------------------------------------------------------------------------


def build(
    model: Stage2Model | Stage1Model,
    folder: str | Path,
    *,
    previous: PictureIndex | None = None,
    rerank: bool = True,
    say: Say = lambda _: None,
) -> PictureIndex:
    """Read a folder's pictures; those that `previous` knows unchanged are taken from it. Broken ones are named and left
    out.

    rerank  keep the image features too, for ITM (0.7 MB a picture at real size, and 16 KB without)
    """
    stage1, folder = require_stage1(model), Path(folder)
    own, encoder = fingerprint(stage1), encoder_fingerprint(stage1)
    usable = (
        previous is not None
        and previous.model == own
        and same_encoder(previous.encoder, encoder)
        and (len(previous.features) > 0 or not rerank)
    )
    known = {stamp: row for row, stamp in enumerate(previous.stamps)} if usable else {}
    stamps, images, rows = [], [], []  # rows: a number in `previous`, or None for the next of the new pictures
    for path in pictures_in(folder, lambda sentence: say(f"left out: {sentence}")):
        stat = path.stat()
        stamp = Stamp(path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns)
        if stamp not in known:
            try:
                open_image(path)
            except ValueError as error:
                say(f"left out: {error}")
                continue
            images.append(path)
        stamps.append(stamp)
        rows.append(known.get(stamp))
    if not stamps:
        raise ValueError(f"{folder} holds no picture that can be opened.")
    say(f"reading {len(images)} pictures" + (f", {len(stamps) - len(images)} are known" if known else ""))
    embeds, features = read_pictures(stage1, images, rerank=rerank, say=say)
    fresh = iter(range(len(images)))
    order = [next(fresh) + len(known) if row is None else row for row in rows]

    def merged(new: Tensor, old: Tensor | None) -> Tensor:
        return (torch.cat([old, new]) if known else new)[order]

    kept = merged(features, previous.features if known else None) if rerank else features
    return PictureIndex(tuple(stamps), merged(embeds, previous.image_embeds if known else None), kept, own, encoder)


def of_images(model: Stage2Model | Stage1Model, images: dict[str, Image.Image]) -> PictureIndex:
    """An index of pictures in memory, by their names."""
    stage1 = require_stage1(model)
    embeds, features = read_pictures(stage1, list(images.values()))
    stamps = tuple(Stamp(name, 0, 0) for name in images)
    return PictureIndex(stamps, embeds, features, fingerprint(stage1), encoder_fingerprint(stage1))


def open_folder(model: Stage2Model | Stage1Model, folder: Path, say: Say = lambda _: None) -> PictureIndex:
    """The folder's index, read anew where pictures came or changed, and kept beside them."""
    file = folder / FILE
    index = build(model, folder, previous=load(file) if file.is_file() else None, say=say)
    try:
        save(index, file)
    except OSError as error:  # a folder that others share may be read-only
        say(f"the index cannot be kept, so the folder is read again next time: {error}")
    return index


@torch.no_grad()
def read_pictures(
    stage1: Stage1Model, images: list[Path] | list[Image.Image], *, rerank: bool = True, say: Say = lambda _: None
) -> tuple[Tensor, Tensor]:
    """-> image_embeds [I,Q,E], image features [I,N,Dv] (or [0] without `rerank`), float16 on the CPU."""
    embeds, features = [], []
    for start in range(0, len(images), BATCH):
        batch = [open_image(image) for image in images[start : start + BATCH]]
        seen = stage1.image_encoder(stage1.image_encoder.preprocess(batch))
        embeds.append(stage1.embed_image(seen).half().cpu())
        if rerank:
            features.append(seen.half().cpu())
        if start and start % (64 * BATCH) == 0:
            say(f"{start} of {len(images)}")
    qformer, encoder = stage1.qformer.config, stage1.image_encoder
    no_embeds = torch.empty(0, qformer.num_query_tokens, stage1.config.embed_width, dtype=torch.float16)
    no_features = torch.empty(0, encoder.num_features, encoder.width, dtype=torch.float16)
    return torch.cat([no_embeds, *embeds]), torch.cat([no_features, *features]) if rerank else torch.empty(0)


# --- Keeping --------------------------------------------------------------------------------------------------------


def save(index: PictureIndex, file: str | Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    stamps = [[stamp.file, stamp.bytes, stamp.changed] for stamp in index.stamps]
    metadata = {"model": index.model, "pictures": json.dumps(stamps), "encoder": json.dumps(index.encoder)}
    file = Path(file)
    fresh = file.with_suffix(".part")  # so that a stopped `index` leaves the old one whole
    fresh.open("ab").close()  # where this is not allowed, the error names the file
    try:
        save_file(
            {"image_embeds": index.image_embeds, "features": index.features.contiguous()}, fresh, metadata=metadata
        )
    except SafetensorError as error:  # a full disk
        fresh.unlink(missing_ok=True)
        raise OSError(f"{file} cannot be written ({error})") from None
    make_readable(fresh)
    fresh.replace(file)


def load(file: str | Path) -> PictureIndex:
    """What `save` wrote. Raises ValueError for anything else."""
    from safetensors import SafetensorError, safe_open

    file = Path(file)
    if not file.is_file():
        raise ValueError(f"There is no index {file}; make it with `blip2-lab index {file.parent}`.")
    file.open("rb").close()  # safetensors says "no such file" of one that may not be read
    try:
        with safe_open(file, framework="pt") as content:
            metadata = content.metadata() or {}
            stamps = tuple(Stamp(*entry) for entry in json.loads(metadata["pictures"]))
            encoder = tuple(json.loads(metadata.get("encoder", "[]")))
            tensors = content.get_tensor("image_embeds"), content.get_tensor("features")
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is no index of pictures ({type(error).__name__}); make it anew.") from None
    return PictureIndex(stamps, *tensors, metadata["model"], encoder)


# --- Searching ------------------------------------------------------------------------------------------------------


def _check_counts(**counts: int) -> None:
    """Raises ValueError for a number of pictures below 1."""
    for name, count in counts.items():
        if not isinstance(count, Integral) or count < 1:
            raise ValueError(f"{name} is {count!r}; it must be a whole number, 1 or more.")


def _check_model(index: PictureIndex, stage1: Stage1Model) -> None:
    if index.model != fingerprint(stage1) or not same_encoder(index.encoder, encoder_fingerprint(stage1)):
        raise ValueError("This index was made with another model; make it anew with `blip2-lab index` and this one.")


class Readings:
    """What ITM needs of pictures, read when asked for; the `most` used last are kept for the next sentence.

    features  of an index, [I, N, Dv]
    most      9.5 MB a picture at real size in float32; as many as a shortlist at least, or nothing is found again
    """

    def __init__(self, qformer: QFormer, features: Tensor, most: int = 2 * SHORTLIST) -> None:
        self.qformer, self.features, self.most = qformer, features, most
        self._kept: dict[int, ImageMemory] = {}  # the one used last is last

    def __call__(self, rows: Sequence[int]) -> ImageMemory:
        """The pictures of these rows, those not kept read together."""
        found = {row: memory for row in rows if (memory := self._kept.get(row)) is not None}
        new = [row for row in rows if row not in found]
        if new:
            read = self.qformer.read_image(self.features[new].to(self.qformer.query_tokens.device).float())
            found |= {row: read.select(torch.tensor([i], device=read.device)) for i, row in enumerate(new)}
        for row in rows:
            self._kept.pop(row, None)
            self._kept[row] = found[row]
        for row in list(self._kept)[: -self.most]:
            self._kept.pop(row, None)
        return ImageMemory.cat([found[row] for row in rows])


@torch.no_grad()
def search(
    model: Stage2Model | Stage1Model,
    index: PictureIndex,
    text: str,
    *,
    shortlist: int = SHORTLIST,
    top: int = 10,
    readings: Readings | None = None,
) -> list[Hit]:
    """The pictures a sentence fits best, best first: ITC's shortlist, ordered by ITM's log-odds plus ITC's logit.

    ITM alone orders worse what a few words ask for: the shipped model's card has both.

    readings  from one sentence to the next: pictures that come again are not read again
    """
    stage1 = require_stage1(model)
    _check_counts(top=top, shortlist=shortlist)
    _check_model(index, stage1)
    text = for_stage1(stage1.tokenizer, check(text, "sentence", "a red boat on the beach."))
    ids, mask = stage1.tokenize([text])
    itc = itc_similarity(index.image_embeds.to(stage1.device).float(), stage1.embed_text(ids, mask))[:, 0].cpu()
    listed = itc.topk(min(shortlist if len(index.features) else top, len(index))).indices
    if not len(index.features):
        return [Hit(index.stamps[row].file, itc[row].item()) for row in listed.tolist()]
    readings = readings or Readings(stage1.qformer, index.features)
    logits = torch.cat([_match(stage1, readings(rows.tolist()), ids, mask) for rows in listed.split(BATCH)])
    order = pair_scores(logits, itc[listed], stage1.temperature, rank_by="both").argsort(descending=True)[:top]
    itm = logits.softmax(dim=1)[:, 1]
    return [Hit(index.stamps[listed[i]].file, itc[listed[i]].item(), itm[i].item()) for i in order.tolist()]


def _match(stage1: Stage1Model, memory: ImageMemory, ids: Tensor, mask: Tensor) -> Tensor:
    """ITM's logits [B,2] of one text with B pictures."""
    size = memory.batch_size
    return stage1.itm_logits(memory, ids.expand(size, -1), mask.expand(size, -1)).float().cpu()


@torch.no_grad()
def search_like(
    model: Stage2Model | Stage1Model, index: PictureIndex, image: str | Path | Image.Image, *, top: int = 10
) -> list[Hit]:
    """The pictures most like this one: the mean, over queries, of the cosine of what both pictures gave the query."""
    stage1 = require_stage1(model)
    _check_counts(top=top)
    _check_model(index, stage1)
    embeds, _ = read_pictures(stage1, [open_image(image)], rerank=False)
    cosines = torch.einsum("iqe,qe->iq", index.image_embeds.float(), embeds[0].float()).mean(dim=1)
    best = cosines.topk(min(top, len(index)))
    return [Hit(index.stamps[row].file, value) for value, row in zip(*map(Tensor.tolist, best), strict=True)]


def lines(hits: list[Hit]) -> Iterator[str]:
    """For people: one line a picture."""
    for hit in hits:
        score = f"ITC {hit.itc:.3f}" + ("" if hit.itm is None else f"   ITM {hit.itm:6.1%}")
        yield f"{score}   {hit.file}"
