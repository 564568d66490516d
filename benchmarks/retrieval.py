"""Text-to-image search against LAVIS's way: ITC's shortlist, then ITM for each of its pictures.

    python -m benchmarks.retrieval                  the micro model: time, and equal scores
    python -m benchmarks.retrieval --real-size      random weights at real size: time
    python -m benchmarks.retrieval --counts         real size: floating-point operations, nothing computed

LAVIS re-ranks a text's k pictures with k copies of their image features: the Q-Former reads each picture again for
every text that lists it, on texts padded to 35 tokens (`compute_sim_matrix`). Ours has read each picture once.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

import blip2_lab
from benchmarks.measure import flops, heading, own_clock, ratio, spread, take_turns
from blip2_lab.chat import image_search
from blip2_lab.evaluation.scenes import image_features
from blip2_lab.models.losses import itc_similarity
from blip2_lab.models.qformer import ImageMemory, QFormerConfig
from blip2_lab.models.retrieval import NOT_RERANKED, Gallery, read_gallery, search
from blip2_lab.models.stage1 import Stage1Model, trim
from blip2_lab.picturebook import words
from blip2_lab.picturebook.scene import sample_scene

TEXT_LENGTH = 35  #: LAVIS pads every caption to it


@torch.no_grad()
def plain_search(stage1: Stage1Model, features: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, k: int):
    """LAVIS's `compute_sim_matrix`, text to image: features [I,N,Dv], ids and mask [M,T] -> scores [M,I]."""
    embeds = stage1.embed_image(features)
    itc = itc_similarity(embeds, stage1.embed_text(ids, mask)).T
    scores = torch.full_like(itc, NOT_RERANKED)
    for text in range(len(ids)):
        listed = itc[text].topk(min(k, len(features))).indices
        memory = stage1.qformer.read_image(features[listed])  # again, for each text
        many = len(listed)
        logits = stage1.itm_logits(memory, ids[text].expand(many, -1), mask[text].expand(many, -1))
        scores[text, listed] = logits[:, 1] + itc[text, listed]
    return scores


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference of the re-ranked scores, NaN if one is NaN; infinite if other pairs were re-ranked, or
    none. The pairs that were not hold -inf on both sides, whose difference is NaN and would hide the others'."""
    reranked = theirs != NOT_RERANKED
    if not reranked.any() or not torch.equal(reranked, ours != NOT_RERANKED):
        return float("inf")
    return (ours - theirs)[reranked].abs().max().item()


def padded(ids: torch.Tensor, mask: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    room = (0, max(0, length - ids.shape[1]))
    return torch.nn.functional.pad(ids, room), torch.nn.functional.pad(mask, room)


@dataclass(frozen=True)
class Costs:
    """Floating-point operations at real size, frozen image features given."""

    reading: int  #: a picture, once, and its ITC vectors
    again: int  #: a picture, its keys and values alone
    plain_pair: int  #: ITM of a picture that was read and a text padded to 35 tokens
    our_pair: int  #: the same with a text of its own length


def costs(words_each: int, together: int = 128) -> Costs:
    """Of each of so many pictures `together`: what is computed once for all of them is shared."""
    with torch.device("meta"):
        stage1 = Stage1Model(QFormerConfig()).eval()
        features = torch.empty(together, 257, 1408)
    long, short = (torch.ones(together, length, dtype=torch.long) for length in (TEXT_LENGTH, words_each))

    def read() -> ImageMemory:
        return stage1.qformer.read_image(features)

    memory = read()
    return Costs(
        reading=flops(lambda: stage1.qformer(image=read())) // together,
        again=flops(read) // together,
        plain_pair=flops(lambda: stage1.itm_logits(memory, long, long)) // together,
        our_pair=flops(lambda: stage1.itm_logits(memory, short, short)) // together,
    )


def counts(pictures: int, texts: int, k: int, words_each: int) -> dict[str, int]:
    """Of a whole test set: every picture is shortlisted for many texts."""
    cost, pairs = costs(words_each), texts * min(k, pictures)
    return {
        "LAVIS's way": pictures * cost.reading + pairs * (cost.again + cost.plain_pair),
        "ours": pictures * cost.reading + pairs * cost.our_pair,
    }


def counts_of_one(k: int, words_each: int, new: int) -> dict[str, int]:
    """Of one sentence in a folder's index, which keeps features on disk: keys and values would be ten times as large.
    So both read the k pictures, ours the `new` ones only (`image_search.Readings`: all for the first sentence)."""
    cost = costs(words_each)
    return {"LAVIS's way": k * (cost.again + cost.plain_pair), "ours": new * cost.again + k * cost.our_pair}


def compare(pictures: int, k: int, rounds: int) -> None:
    """Time at micro size, and that the scores are the same."""
    model = blip2_lab.load("micro")
    stage1 = model.stage1
    book = [sample_scene(1, index, "in") for index in range(pictures)]
    features = image_features(model, book, 64)
    from random import Random

    captions = [words.full_caption(scene, Random(index)) for index, scene in enumerate(book)]
    ids, mask = stage1.tokenize(captions)
    long_ids, long_mask = padded(ids, mask, TEXT_LENGTH)

    def ours() -> torch.Tensor:
        gallery: Gallery = read_gallery(stage1, features.split(64))
        return search(stage1, gallery, *trim(ids, mask), shortlist=k, rank_by="lavis")

    def theirs() -> torch.Tensor:
        return plain_search(stage1, features, long_ids, long_mask, k)

    difference = apart(ours(), theirs())
    if not difference <= 1e-3:  # NaN neither
        raise SystemExit(f"the scores differ by {difference:.1e}")
    seconds = take_turns({"ours": ours, "theirs": theirs}, rounds, lambda: None, own_clock())
    pairs = pictures * min(k, pictures)
    print(f"  scores at most {difference:.0e} apart; {pairs} pairs re-ranked")
    for name, took in (("LAVIS's way", seconds["theirs"]), ("ours", seconds["ours"])):
        print(f"  {name:12}{spread([pairs / one for one in took], '.0f', ' pairs/s')}")
    print(f"  ratio {ratio(seconds['theirs'], seconds['ours'])}")


@torch.no_grad()
def compare_real(pictures: int, texts: int, rounds: int) -> None:
    """Time at real size, random weights in float32: `pictures` with `texts` of 16 tokens, all re-ranked, and one
    sentence of 8 tokens, the first and one whose pictures were read before."""
    torch.manual_seed(0)
    stage1 = Stage1Model(QFormerConfig()).eval()
    features = torch.randn(pictures, 257, 1408)
    ids = torch.randint(1000, 30000, (texts, 16))
    mask = torch.ones_like(ids)
    long = padded(ids, mask, TEXT_LENGTH)
    every = torch.arange(pictures)

    def ours() -> torch.Tensor:
        return search(stage1, read_gallery(stage1, [features]), ids, mask, shortlist=pictures, rank_by="lavis")

    def match(memory: ImageMemory, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return stage1.itm_logits(memory, ids[:1].expand(pictures, -1), mask[:1].expand(pictures, -1))

    readings = image_search.Readings(stage1.qformer, features)
    sentence, long_sentence = (ids[:, :8], mask[:, :8]), padded(ids[:, :8], mask[:, :8], TEXT_LENGTH)
    steps = {
        "set, plain": lambda: plain_search(stage1, features, *long, pictures),
        "set, ours": ours,
        "sentence, plain": lambda: match(stage1.qformer.read_image(features[every]), *long_sentence),
        "sentence, first": lambda: match(image_search.Readings(stage1.qformer, features)(every.tolist()), *sentence),
        "sentence, next": lambda: match(readings(every.tolist()), *sentence),
    }
    for plain, *own in (("set, plain", "set, ours"), ("sentence, plain", "sentence, first", "sentence, next")):
        for name in own:
            difference = apart(steps[name](), steps[plain]())
            if not difference <= 1e-3:
                raise SystemExit(f"the scores of {name} differ by {difference:.1e}")
    seconds = take_turns(steps, rounds, lambda: None, own_clock())
    for name, took in seconds.items():
        plain = seconds[f"{name.split(',')[0]}, plain"]
        print(f"  {name:16}{spread(took, '.2f', ' s'):28} ratio {ratio(plain, took)}")


def show(counted: dict[str, int]) -> None:
    for name, number in counted.items():
        print(f"  {name:12}{number / 1e12:10.1f} TFLOP")
    plain, ours = counted.values()
    print(f"  ratio {plain / ours:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", action="store_true", help="count operations at real size instead")
    parser.add_argument("--real-size", action="store_true", help="time random weights at real size instead")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--shortlist", type=int, default=16)
    parser.add_argument("--texts", type=int, default=64, help="at real size; each picture of Flickr30k is in 640 lists")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.counts:
        with heading("Flickr30k's test set at real size: 1,000 pictures, 5,000 captions of 16 tokens, 128 re-ranked"):
            show(counts(1000, 5000, 128, 16))
        with heading("One sentence of 8 tokens in a folder's index, 128 re-ranked"):
            show(counts_of_one(128, 8, 128))
        with heading("The next sentence, its 128 pictures read already"):
            show(counts_of_one(128, 8, 0))
    elif args.real_size:
        with heading(f"real size, {args.shortlist} pictures, {args.texts} texts"):
            compare_real(args.shortlist, args.texts, args.rounds)
    else:
        with heading(f"micro, {args.pictures} pictures and captions, {args.shortlist} re-ranked"):
            compare(args.pictures, args.shortlist, args.rounds)


if __name__ == "__main__":
    main()
