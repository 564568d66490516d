"""Checks of notebook 10, first half: from query outputs to the input of a language model.

The library's versions are methods; the reader's are functions with the same arguments, so that one can replace the
other: `my_prepend(language_model, visual_prompt, text)`. The models are those of stand_ins.py.

Paper: section 3.3, Figure 3. Notebook: 10.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from blip2_lab.models import language_model, stage2
from blip2_lab.models.bridges.qformer import QFormerBridge
from blip2_lab.models.language_model import LanguageModel, Text
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.comparison import equal
from blip2_lab.teaching.checks.exercise import Case, learning, parameters_of
from blip2_lab.teaching.checks.in_words import describe
from blip2_lab.teaching.checks.seeds import SEEDED, set_seeds, was_seeded
from blip2_lab.teaching.checks.stand_ins import PAD, WIDTH, TinyBridge, TinyLanguageModel, random, text_of

# --- The projection -------------------------------------------------------------------------------------------------


def _bridge_cases() -> list[Case]:
    made = []
    whole = TinyBridge()
    for b in (1, 2):
        bridge = copy.deepcopy(whole)
        learns = {"the query tokens": bridge.qformer.query_tokens, **parameters_of(bridge, "the bridge")}
        made.append(Case(f"{b} picture(s) of 5 features", (bridge, random(b, 5, 6, seed=b)), learns))
    return made


def _query_output(model: TinyBridge, image_features: Tensor) -> Tensor:
    return model.qformer(image=model.qformer.read_image(image_features)).query_output


visual_prompt = Check(
    "visual_prompt",
    QFormerBridge.forward,
    _bridge_cases,
    "Every query's output, projected one by one to the language model's width, and a gradient for the bridge.",
    {
        "The projection is missing: these are as wide as the Q-Former, not as the language model's words.": (
            _query_output
        ),
        "The queries never look at the picture: project the Q-Former's output, not its learned queries.": (
            lambda model, x: model.language_projection(model.qformer.query_tokens.expand(len(x), -1, -1))
        ),
        "The queries are averaged. The language model reads all Q of them, as if they were Q words.": (
            lambda model, x: model.language_projection(_query_output(model, x)).mean(dim=1, keepdim=True)
        ),
        "You normalized to length 1, as ITC does for its cosines. A soft prompt keeps its length, as word embeddings "
        "do.": lambda model, x: F.normalize(QFormerBridge.forward(model, x), dim=-1),
        "The projection is applied twice.": (
            lambda model, x: F.linear(
                QFormerBridge.forward(model, x),
                model.language_projection.weight[:, :WIDTH],
                model.language_projection.bias,
            )
        ),
        "Only the first query is projected: the language model reads all Q of them.": (
            lambda model, x: QFormerBridge.forward(model, x)[:, :1]
        ),
        "Only the first query is projected, and its dimension is lost: [B, Q, Dl].": (
            lambda model, x: QFormerBridge.forward(model, x)[:, 0]
        ),
        "The queries are laid into one long vector: keep [B, Q, Dl].": (
            lambda model, x: QFormerBridge.forward(model, x).flatten(1)
        ),
        "Only the first picture is left: keep the batch.": lambda model, x: QFormerBridge.forward(model, x[:1]),
        "A batch of one has lost its dimension: keep [B, Q, Dl].": (
            lambda model, x: QFormerBridge.forward(model, x).squeeze(0)
        ),
        "The projection's bias is left out: call the projection.": (
            lambda model, x: _query_output(model, x) @ model.language_projection.weight.T
        ),
        "A LayerNorm after the projection is no part of the bridge.": (
            lambda model, x: F.layer_norm(QFormerBridge.forward(model, x), (WIDTH,))
        ),
        "A nonlinearity (ReLU) after the projection: the bridge is linear.": (
            lambda model, x: QFormerBridge.forward(model, x).relu()
        ),
        "A nonlinearity (GELU) after the projection: the bridge is linear.": (
            lambda model, x: F.gelu(QFormerBridge.forward(model, x))
        ),
        "A nonlinearity (tanh) after the projection: the bridge is linear.": (
            lambda model, x: QFormerBridge.forward(model, x).tanh()
        ),
        "A nonlinearity (ReLU) before the projection: the bridge is linear.": (
            lambda model, x: model.language_projection(_query_output(model, x).relu())
        ),
        "The query outputs go through a LayerNorm in front of the projection: project them as they are.": (
            lambda model, x: model.language_projection(F.layer_norm(_query_output(model, x), (8,)))
        ),
        "The projection is missing, and the first numbers are cut out of the Q-Former's output.": (
            lambda model, x: _query_output(model, x)[..., :WIDTH]
        ),
        "The query outputs are normalized in front of the projection: project them as they are.": (
            lambda model, x: model.language_projection(F.normalize(_query_output(model, x), dim=-1))
        ),
        "The learned queries are added to the output once more: project query_output alone.": (
            lambda model, x: model.language_projection(_query_output(model, x) + model.qformer.query_tokens)
        ),
        "A softmax makes shares; the language model reads vectors.": (
            lambda model, x: QFormerBridge.forward(model, x).softmax(-1)
        ),
        "The queries stand in the reverse order.": lambda model, x: QFormerBridge.forward(model, x).flip(1),
        "Queries and width are exchanged: [B, Q, Dl].": lambda model, x: QFormerBridge.forward(model, x).mT,
        "All pictures get the prompt of the first one.": (
            lambda model, x: QFormerBridge.forward(model, x[:1]).expand(len(x), -1, -1)
        ),
    },
)


# --- The soft prompt ------------------------------------------------------------------------------------------------


def _prepend_cases() -> list[Case]:
    made = []
    for i, (rows, left, pad_token_id) in enumerate((
        (((3, 4),), False, PAD),
        (((3, 4, 5), (6,)), False, PAD),
        (((3,), (4, 5)), True, PAD),
        (((1, 4, 0), (6, 1)), False, 1),
    )):  # fmt: skip
        ids, mask = text_of(*rows, left=left, pad_token_id=pad_token_id)
        leaf, prompt = learning(random(len(ids), 2 + i, WIDTH, seed=3))
        words = f"{2 + i} soft words, token ids {ids.tolist()}, real: {mask.int().tolist()}, pad id {pad_token_id}"
        args = (TinyLanguageModel(pad_token_id=pad_token_id), prompt, ids, mask)
        made.append(Case(words, args, {"the visual prompt": leaf}))
    return made


def _on_text(function: Callable, args: tuple) -> Any:
    """Embeddings, and the mask as whole numbers: True and 1.0 say the same as 1."""
    model, prompt, ids, mask = args
    found = function(model, prompt, Text(ids, mask))
    if not isinstance(found, tuple | list) or len(found) != 2 or not isinstance(found[1], Tensor):
        return found
    attention = found[1]
    if attention.is_floating_point() and bool(((attention != 0) & (attention != 1)).any()):
        return found
    return found[0], attention.long()


def _prepend_rules(case: Case, got: Any, expected: tuple) -> str | None:
    """Which of the two differs, and where."""
    if not isinstance(got, tuple | list) or len(got) != 2 or not isinstance(got[1], Tensor):
        return None
    if equal(got[0], expected[0]) and got[1].is_floating_point():
        return "The embeddings are right. The mask holds other numbers than 0 and 1: 1 = may attend, 0 = padding."
    if equal(got[0], expected[0]) and got[1].shape == expected[1].shape:
        row = int((got[1] != expected[1]).any(1).int().argmax())
        ours, theirs = got[1][row].tolist(), expected[1][row].tolist()
        return f"The embeddings are right. The mask's row {row} is {ours}, not {theirs}."
    if equal(got[1], expected[1]) and isinstance(got[0], Tensor) and got[0].shape == expected[0].shape:
        return "The mask is right. The embeddings differ: the visual prompt as it is, then the embeddings of the words."
    return None


def _prepend_but(change: Callable[[Tensor, Tensor, Tensor], tuple]) -> Callable:
    """A wrong prepend, from soft words, embedded words and the text's mask (both as the right one has them)."""

    def wrong(model: TinyLanguageModel, prompt: Tensor, text: Text) -> tuple:
        return change(prompt, model.model.get_input_embeddings()(text.ids), text.mask.long())

    return wrong


def _mask_of_ids(model: TinyLanguageModel, prompt: Tensor, text: Text) -> tuple[Tensor, Tensor]:
    embeddings, _ = LanguageModel.prepend(model, prompt, text)
    return embeddings, F.pad((text.ids != model.pad_token_id).long(), (prompt.shape[1], 0), value=1)


prepend = Check(
    "prepend",
    LanguageModel.prepend,
    _prepend_cases,
    "The picture stands in front of the words, every soft word may be attended to, and padding may not.",
    {
        "The picture comes after the words: a decoder reads from left to right, so it must come first.": (
            _prepend_but(lambda p, w, m: (torch.cat([w, p], 1), F.pad(m, (0, p.shape[1]), value=1)))
        ),
        "The mask is as long as the text: it must have a place for every soft word, too.": (
            _prepend_but(lambda p, w, m: (torch.cat([p, w], 1), m))
        ),
        "The soft words are masked out (0): the language model would never see the picture.": (
            _prepend_but(lambda p, w, m: (torch.cat([p, w], 1), F.pad(m, (p.shape[1], 0), value=0)))
        ),
        "Padding is forgotten: the mask says 1 where there is no word.": (
            _prepend_but(lambda p, w, m: (torch.cat([p, w], 1), F.pad(torch.ones_like(m), (p.shape[1], 0), value=1)))
        ),
        "The mask's ones for the picture stand behind the text's: mask and embeddings must be in the same order.": (
            _prepend_but(lambda p, w, m: (torch.cat([p, w], 1), F.pad(m, (0, p.shape[1]), value=1)))
        ),
        "The two are returned in the wrong order: embeddings first, then the mask.": (
            _prepend_but(lambda p, w, m: (F.pad(m, (p.shape[1], 0), value=1), torch.cat([p, w], 1)))
        ),
        "The mask is made by comparing ids with the padding's: a real token may have that id. Use text.mask.": (
            _mask_of_ids
        ),
        "The mask is made by comparing ids with 0: the padding's id may be another one. Use text.mask.": (
            lambda model, prompt, text: (
                LanguageModel.prepend(model, prompt, text)[0],
                F.pad((text.ids != 0).long(), (prompt.shape[1], 0), value=1),
            )
        ),
        "The mask is upside down: 1 = may attend.": (
            _prepend_but(lambda p, w, m: (torch.cat([p, w], 1), F.pad(1 - m, (p.shape[1], 0), value=0)))
        ),
        "The mask is upside down for the text: 1 = may attend.": (
            _prepend_but(lambda p, w, m: (torch.cat([p, w], 1), F.pad(1 - m, (p.shape[1], 0), value=1)))
        ),
        "The mask is additive (0 and a large negative number); here 1 = may attend and 0 = padding.": (
            _prepend_but(lambda p, w, m: (torch.cat([p, w], 1), (F.pad(m, (p.shape[1], 0), value=1) - 1) * 10000.0))
        ),
        "Only the embeddings are returned: return the mask, too.": _prepend_but(lambda p, w, m: torch.cat([p, w], 1)),
        "The words are missing: behind the picture come the text's embeddings.": (
            _prepend_but(lambda p, w, m: (p, torch.ones(p.shape[:2], dtype=torch.long)))
        ),
        "The picture is missing.": _prepend_but(lambda p, w, m: (w, m)),
        "Padding's embeddings are set to 0: leave them, the mask hides them.": (
            _prepend_but(lambda p, w, m: (torch.cat([p, w * m[..., None]], 1), F.pad(m, (p.shape[1], 0), value=1)))
        ),
        "The soft words are normalized to length 1: take them as they are.": (
            _prepend_but(
                lambda p, w, m: (torch.cat([F.normalize(p, dim=-1), w], 1), F.pad(m, (p.shape[1], 0), value=1))
            )
        ),
        "The picture goes behind the first word; it comes before all of them.": (
            _prepend_but(lambda p, w, m: (torch.cat([w[:, :1], p, w[:, 1:]], 1), F.pad(m, (p.shape[1], 0), value=1)))
        ),
        "Joined along the batch: [B, Q+T, Dl], so dim=1.": (
            _prepend_but(lambda p, w, m: (torch.cat([p[:, :1], w[:, :1]], 0), torch.cat([m[:, :1], m[:, :1]], 0)))
        ),
        "Only one place of the mask is for the picture: one for every soft word.": (
            _prepend_but(lambda p, w, m: (torch.cat([p, w], 1), F.pad(m, (1, 0), value=1)))
        ),
        "The picture is added onto the words instead of being put in front of them.": (
            _prepend_but(lambda p, w, m: (w + p.mean(1, keepdim=True), m))
        ),
    },
    rules=(_prepend_rules,),
    parts=("embeddings", "attention mask"),
    run=_on_text,
)


# --- Padding --------------------------------------------------------------------------------------------------------


def _pad_cases() -> list[Case]:
    rows = (
        (((3, 4), (5,)), 0), (((3,), (4, 5, 6)), 0), (((3, 0), (4, 5, 0, 6)), 0),
        (((3, 4), (5,)), 1), (((0, 9), (4, 1, 6), (7,)), 1), (((8, 2), (2, 5)), 2),
    )  # fmt: skip
    return [
        Case(f"rows {[list(r) for r in texts]}, pad id {pad_id}, left={left}", ([list(r) for r in texts], pad_id, left))
        for texts, pad_id in rows
        for left in (False, True)
    ]


def _padded(function: Callable, args: tuple) -> Any:
    """Ids and mask of the Text that is returned; `left` is given only where it is not the default."""
    rows, pad_token_id, left = args
    found = function(rows, pad_token_id, left=True) if left else function(rows, pad_token_id)
    return {"ids": found.ids, "mask": found.mask} if isinstance(found, Text) else found


def _pad_rules(case: Case, got: Any, expected: dict) -> str | None:
    """Which of the two differs, and how."""
    if not isinstance(got, dict):
        return f"Return a Text: Text(ids, mask); yours returns {describe(got)}."
    for name, wanted in expected.items():
        ours = got[name]
        if not isinstance(ours, Tensor):
            return f"`{name}` is to be a tensor; yours is {describe(ours)}."
        if ours.dtype != wanted.dtype:
            return f"`{name}` has the dtype {ours.dtype} and should have {wanted.dtype}."
        if ours.shape != wanted.shape:
            longer = " Rows are filled to the longest one." if ours.shape[-1] != wanted.shape[-1] else ""
            return f"`{name}` has the shape {list(ours.shape)} and should have {list(wanted.shape)}.{longer}"
    if torch.equal(got["ids"], expected["ids"]):
        wrong = (got["mask"] != expected["mask"]).nonzero()[0].tolist()
        stands = "a token" if expected["mask"][tuple(wrong)] else "padding"
        told = f"It is {bool(got['mask'][tuple(wrong)])} at place {wrong[1]} of row {wrong[0]}, where {stands} stands"
        left = ", with left=True" if case.args[2] else ", with left=False"
        return f"The ids are right; the mask is not: True exactly where a real token stands. {told}{left}."
    if torch.equal(got["mask"], expected["mask"]):
        real = expected["mask"]
        if torch.equal(got["ids"][real], expected["ids"][real]):
            return "The mask and the real tokens are right; the padding is filled with another id than pad_token_id."
        return "The mask is right; the tokens are not where they belong, or in another order."
    row = next(n for n, wanted in enumerate(expected["ids"]) if not torch.equal(got["ids"][n], wanted))
    ours, wanted = got["ids"][row].tolist(), expected["ids"][row].tolist()
    side = "left" if case.args[2] else "right"
    return f"Row {row} is {ours} and should be {wanted}: all of the padding is on the {side}, in the mask, too."


def _cut(rows, pad_token_id: int, *, left: bool = False) -> Text:
    length = min(map(len, rows))
    return language_model.pad([row[:length] for row in rows], pad_token_id, left=left)


def _mask_by_id(rows, pad_token_id: int, *, left: bool = False) -> Text:
    ids = language_model.pad(rows, pad_token_id, left=left).ids
    return Text(ids, ids != pad_token_id)


def _swapped(rows, pad_token_id: int, *, left: bool = False) -> Text:
    text = language_model.pad(rows, pad_token_id, left=left)
    return Text(text.ids, ~text.mask)


pad = Check(
    "pad",
    language_model.pad,
    _pad_cases,
    "Rows keep their order and tokens, padding stands on the side asked for, and a real token counts as real even "
    "where its id is the padding's.",
    {
        "`left` is ignored: a decoder that generates wants the words at the right end, next to what it writes.": (
            lambda rows, pad_token_id, *, left=False: language_model.pad(rows, pad_token_id)
        ),
        "`left` is ignored: padding is always on the left. Without it, it is on the right.": (
            lambda rows, pad_token_id, *, left=False: language_model.pad(rows, pad_token_id, left=True)
        ),
        "Left and right are swapped: left=True puts the *padding* on the left.": (
            lambda rows, pad_token_id, *, left=False: language_model.pad(rows, pad_token_id, left=not left)
        ),
        "The mask is made by comparing ids with the padding's. A real token may have that id (many "
        "tokenizers pad with their end token): count lengths instead.": _mask_by_id,
        "The mask is the wrong way round: True is a real token.": _swapped,
        "Rows are cut to the shortest instead of filled to the longest.": _cut,
        "The padding is always 0: fill with pad_token_id.": (
            lambda rows, pad_token_id, *, left=False: Text(
                language_model.pad(rows, 0, left=left).ids, language_model.pad(rows, 0, left=left).mask
            )
        ),
        "The mask is made by comparing ids with 0: count lengths instead.": (
            lambda rows, pad_token_id, *, left=False: (lambda text: Text(text.ids, text.ids != 0))(
                language_model.pad(rows, pad_token_id, left=left)
            )
        ),
        "The ids are floats: torch.zeros makes float32. Give dtype=torch.long.": (
            lambda rows, pad_token_id, *, left=False: (lambda text: Text(text.ids.float(), text.mask))(
                language_model.pad(rows, pad_token_id, left=left)
            )
        ),
        "The ids are floats, and the padding is always 0.": (
            lambda rows, pad_token_id, *, left=False: (lambda text: Text(text.ids.float(), text.mask))(
                language_model.pad(rows, 0, left=left)
            )
        ),
        "The mask holds numbers (0 and 1): it is bool.": (
            lambda rows, pad_token_id, *, left=False: (lambda text: Text(text.ids, text.mask.long()))(
                language_model.pad(rows, pad_token_id, left=left)
            )
        ),
        "The mask holds floats (0 and 1): it is bool.": (
            lambda rows, pad_token_id, *, left=False: (lambda text: Text(text.ids, text.mask.float()))(
                language_model.pad(rows, pad_token_id, left=left)
            )
        ),
        "With left=True the tokens move to the right end, and the mask does not: fill both in the same slice.": (
            lambda rows, pad_token_id, *, left=False: Text(
                language_model.pad(rows, pad_token_id, left=left).ids, language_model.pad(rows, pad_token_id).mask
            )
        ),
        "Everything is called real: padding is False.": (
            lambda rows, pad_token_id, *, left=False: (lambda text: Text(text.ids, torch.ones_like(text.mask)))(
                language_model.pad(rows, pad_token_id, left=left)
            )
        ),
        "With left=True the tokens of a row stand in the reverse order.": (
            lambda rows, pad_token_id, *, left=False: (
                (language_model.pad([row[::-1] for row in rows], pad_token_id).ids.flip(1), language_model.pad(rows, 0))
                and Text(
                    language_model.pad(rows, pad_token_id).ids.flip(1)
                    if left
                    else language_model.pad(rows, pad_token_id).ids,
                    language_model.pad(rows, pad_token_id, left=left).mask,
                )
            )
        ),
        "Rows are sorted by length: keep their order.": (
            lambda rows, pad_token_id, *, left=False: language_model.pad(
                sorted(rows, key=len, reverse=True), pad_token_id, left=left
            )
        ),
        "One column too many.": (
            lambda rows, pad_token_id, *, left=False: (
                lambda text: Text(F.pad(text.ids, (0, 1), value=pad_token_id), F.pad(text.mask, (0, 1), value=False))
            )(language_model.pad(rows, pad_token_id, left=left))
        ),
    },
    rules=(_pad_rules,),
    run=_padded,
)


# --- Prefix and suffix ----------------------------------------------------------------------------------------------

DRAWS, FEW = 800, 50


def _split_cases() -> list[Case]:
    # the last one has a word twice: looked for in the caption, it is found at its first place
    return [Case(f"{caption!r}, cut {DRAWS} times", (caption,)) for caption in ("boat", "a red boat", "a cat a car")]


def _splits(function: Callable, args: tuple) -> Any:
    """All splits that occur, whether none is rare, and whether only the generator determines them."""
    (caption,) = args
    set_seeds(0)
    function(caption, torch.Generator().manual_seed(0))
    reseeds = was_seeded(0)
    draws = FEW if reseeds else DRAWS  # a global seed takes a thousand times longer to set than a cut
    found = []
    for seed, other_seed, count in ((0, 0, draws), (0, 1, FEW), (1, 0, FEW)):
        set_seeds(other_seed)
        generator = torch.Generator().manual_seed(seed)
        found.append([function(caption, generator) for _ in range(count)])
        reseeds = reseeds or was_seeded(other_seed)
    without = [function(caption) for _ in range(FEW)]
    wrong = next((pair for pair in found[0] if not _is_pair_of_strings(pair)), None)
    if wrong is not None or not all(_is_pair_of_strings(pair) for pairs in found for pair in pairs):
        return {"returned": wrong}
    counts = Counter(map(tuple, found[0]))
    return {
        "cuts": sorted(map(str, counts)),
        "each about as often": min(counts.values()) > 0.7 * draws / len(counts),
        "same generator, same cuts": found[0][:FEW] == found[1],
        "another generator, other cuts": len(counts) == 1 or found[0][:FEW] != found[2],
        "seeds everything anew": reseeds,
        "other cuts without a generator": len(caption.split()) == 1 or any(pair != without[0] for pair in without),
    }


def _is_pair_of_strings(pair: Any) -> bool:
    return isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)


def _split_rules(case: Case, got: dict, expected: dict) -> str | None:
    """The first promise that is not kept."""
    if "returned" in got:
        return "Return two strings, prefix and suffix (" + '" ".join(words)' + f"); yours returns {got['returned']!r}."
    ours, theirs = set(got["cuts"]), set(expected["cuts"])
    if got["seeds everything anew"]:
        return SEEDED
    if not ours <= theirs:
        pair = sorted(ours - theirs)[0]
        if pair.endswith(", '')"):
            return f"The suffix is empty in {pair}: it has at least one word, the prefix may have none."
        return f"{pair} is no cut of {case.args[0]!r}: prefix and suffix, put together with a space, are the caption."
    if ours != theirs:
        return f"{sorted(theirs - ours)[0]} never occurs: each of the {len(theirs)} cuts must be possible."
    if not got["same generator, same cuts"]:
        return "The generator is not used: give it to torch.randint, or a resumed training sees other cuts."
    if not got["another generator, other cuts"]:
        return "Another generator gives the same cuts: use the one that is given, and do not seed it anew."
    if not got["each about as often"]:
        return "Every cut occurs, but not equally often: draw the place evenly."
    if not got["other cuts without a generator"]:
        return "Without a generator (None) every call cuts at the same place: then torch's own is to decide."
    return None


def _split_but(cut: Callable[[list[str], torch.Generator], int]) -> Callable:
    """A split at a wrong position."""

    def wrong(caption: str, generator: torch.Generator | None = None) -> tuple[str, str]:
        words = caption.split()
        place = cut(words, generator)
        return " ".join(words[:place]), " ".join(words[place:])

    return wrong


def _draw(low: int, high: int, generator: torch.Generator | None) -> int:
    return int(torch.randint(low, high, (), generator=generator))


def _whole_as_suffix(caption: str, generator: torch.Generator | None = None) -> tuple[str, str]:
    return stage2.split_caption(caption, generator)[0], caption


def _at_its_first_place(caption: str, generator: torch.Generator | None = None) -> tuple[str, str]:
    words = caption.split()
    place = caption.index(words[_draw(0, len(words), generator)])
    return caption[:place].strip(), caption[place:]


def _by_characters(caption: str, generator: torch.Generator | None = None) -> tuple[str, str]:
    place = _draw(0, len(caption), generator)
    return caption[:place], caption[place:]


split_caption = Check(
    "split_caption",
    stage2.split_caption,
    _split_cases,
    "Every cut between words occurs, each about as often; the prefix may be empty, the suffix never; the generator "
    "alone decides.",
    {
        "The suffix may be empty: then the decoder has nothing to learn from this caption. Cut before the last word at "
        "the latest.": _split_but(lambda words, generator: _draw(0, len(words) + 1, generator)),
        "The prefix is never empty: without that case the model never learns to begin a caption from the picture.": (
            _split_but(lambda words, g: _draw(1, len(words), g) if len(words) > 1 else 0)
        ),
        "The suffix is the whole caption: its first words are then copied from the prefix, not seen in the picture.": (
            _whole_as_suffix
        ),
        "Always the middle: draw the place to cut, so that every length of prefix occurs.": (
            _split_but(lambda words, generator: len(words) // 2)
        ),
        "The generator is not used: give it to torch.randint, or a resumed training sees other cuts.": (
            _split_but(lambda words, generator: _draw(0, len(words), None))
        ),
        "The two halves are exchanged: prefix first, then suffix.": (
            lambda caption, generator=None: stage2.split_caption(caption, generator)[::-1]
        ),
        'Lists of words are returned; put each together with " ".join(words).': (
            lambda caption, generator=None: tuple(half.split() for half in stage2.split_caption(caption, generator))
        ),
        "The prefix is the whole caption: it is what stands before the cut.": (
            lambda caption, generator=None: (caption, stage2.split_caption(caption, generator)[1])
        ),
        "The word at the cut is looked for in the caption, so it is found where it, or its letters, stand first.": (
            _at_its_first_place
        ),
        "The word at the cut is in both halves.": (
            lambda caption, generator=None: (lambda halves: (f"{halves[0]} {halves[1].split()[0]}".strip(), halves[1]))(
                stage2.split_caption(caption, generator)
            )
        ),
        "The word at the cut is in neither half.": (
            lambda caption, generator=None: (lambda halves: (halves[0], " ".join(halves[1].split()[1:])))(
                stage2.split_caption(caption, generator)
            )
        ),
        'The prefix ends in a space: " ".join(words) puts none at the end.': (
            lambda caption, generator=None: (lambda halves: (halves[0] + " " if halves[0] else "", halves[1]))(
                stage2.split_caption(caption, generator)
            )
        ),
        "The words are joined without spaces.": (
            lambda caption, generator=None: tuple(
                half.replace(" ", "") for half in stage2.split_caption(caption, generator)
            )
        ),
        "The prefix is always empty: the place is to be drawn.": lambda caption, generator=None: ("", caption),
        "Always before the last word: draw the place, so that every length of prefix occurs.": (
            _split_but(lambda words, generator: len(words) - 1)
        ),
        "The generator is seeded anew at every call: then every caption is cut at the same place.": (
            _split_but(lambda words, generator: _draw(0, len(words), torch.Generator().manual_seed(0)))
        ),
        "The cuts are not equally likely: early places are drawn more often.": (
            _split_but(lambda words, generator: min(_draw(0, len(words), generator), _draw(0, len(words), generator)))
        ),
        "The last cut is missing: torch.randint's upper end is not drawn, so it is len(words).": (
            _split_but(lambda words, generator: _draw(0, max(1, len(words) - 1), generator))
        ),
        "Cut between characters: half a word is a word the language model does not know. Use caption.split().": (
            _by_characters
        ),
    },
    rules=(_split_rules,),
    run=_splits,
)
