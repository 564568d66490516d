"""Checks of notebook 10, first half: from query outputs to the input of a language model.

The library's versions are methods; the reader's are functions with the same arguments, so that one can replace the
other: `my_prepend(language_model, visual_prompt, text)`. The language models here have a few lines, and their logits
depend on every token they may attend to, in order.

Paper: section 3.3, Figure 3. Notebook: 10.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blip2_lab.models import language_model, stage2
from blip2_lab.models.language_model import LanguageModel, Text
from blip2_lab.models.qformer import QFormer, QFormerConfig
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.teaching.checks.check import Case, Check

PAD, START, VOCAB, WIDTH = 0, 1, 7, 4


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def text_of(*rows: tuple[int, ...], left: bool = False) -> tuple[Tensor, Tensor]:
    """Ids and mask of rows of token ids."""
    text = language_model.pad(rows, PAD, left=left)
    return text.ids, text.mask


# --- Tiny models ----------------------------------------------------------------------------------------------------


class TinyBridge(nn.Module):
    """The parts of a Stage2Model that `Stage2Model.visual_prompt` uses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        sizes = dict(width=8, num_layers=2, num_heads=2, ffn_width=16, image_width=6, num_query_tokens=3)
        self.qformer = QFormer(QFormerConfig(**sizes, vocab_size=5, max_positions=8, dropout=0.0, has_text=False))
        self.language_projection = nn.Linear(8, WIDTH)


class TinyTransformer(nn.Module):
    """transformers' model inside a LanguageModel: embeddings, and logits from a running sum over unmasked tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(random(VOCAB, WIDTH, seed=1))
        self.head = random(WIDTH, VOCAB, seed=2)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def forward(
        self,
        *,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> SimpleNamespace:
        x = inputs_embeds * attention_mask[..., None]
        if decoder_input_ids is not None:
            mask = torch.ones_like(decoder_input_ids) if decoder_attention_mask is None else decoder_attention_mask
            written = self.embedding(decoder_input_ids) * mask[..., None]
            x = 0.5 * x.sum(dim=1, keepdim=True) + written
        return SimpleNamespace(logits=(x.cumsum(dim=1) @ self.head)[:, -logits_to_keep:])


class TinyLanguageModel(nn.Module):
    """The interface of a LanguageModel: `model`, `prepend` and, where given, fixed `answer_logits`."""

    prepend = LanguageModel.prepend

    def __init__(self, logits: Tensor | None = None) -> None:
        super().__init__()
        self.model = TinyTransformer()
        self.model.config = SimpleNamespace(decoder_start_token_id=START)
        self.pad_token_id = PAD
        self.logits = logits

    def answer_logits(self, visual_prompt: Tensor, prompt: Text, answer: Text) -> Tensor:
        return self.logits


# --- The projection -------------------------------------------------------------------------------------------------


def _bridge_cases() -> list[Case]:
    return [Case(f"{b} picture(s) of 5 features", (TinyBridge(), random(b, 5, 6, seed=b))) for b in (1, 2)]


def _with_gradient(function: Callable, args: tuple) -> Any:
    """The output, and whether the Q-Former and the projection get a gradient from it."""
    output = function(*args)
    return (output, bool(output.requires_grad)) if isinstance(output, Tensor) else output


def _query_output(model: TinyBridge, image_features: Tensor) -> Tensor:
    return model.qformer(image=model.qformer.read_image(image_features)).query_output


@torch.no_grad()
def _without_gradient(model: TinyBridge, image_features: Tensor) -> Tensor:
    return Stage2Model.visual_prompt(model, image_features)


visual_prompt = Check(
    "visual_prompt",
    Stage2Model.visual_prompt,
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
        "do.": lambda model, x: F.normalize(Stage2Model.visual_prompt(model, x), dim=-1),
        "There is no gradient: under no_grad or detach the bridge cannot learn. Frozen are the models at both ends.": (
            _without_gradient
        ),
    },
    run=_with_gradient,
)


# --- The soft prompt ------------------------------------------------------------------------------------------------


def _prepend_cases() -> list[Case]:
    texts = (text_of((3, 4)), text_of((3, 4, 5), (6,)), text_of((3,), (4, 5), left=True))
    return [
        Case(
            f"{2 + i} soft words, token ids {ids.tolist()}, {PAD} is padding", (TinyLanguageModel(), prompt, ids, mask)
        )
        for i, (ids, mask) in enumerate(texts)
        for prompt in [random(len(ids), 2 + i, WIDTH, seed=3)]
    ]


def _on_text(function: Callable, args: tuple) -> Any:
    model, prompt, ids, mask = args
    found = function(model, prompt, Text(ids, mask))
    return (found[0], found[1].long()) if isinstance(found, tuple | list) and len(found) == 2 else found


def _prepend_but(change: Callable[[Tensor, Tensor, Tensor], tuple]) -> Callable:
    """A wrong prepend, from soft words, embedded words and the text's mask (both as the right one has them)."""

    def wrong(model: TinyLanguageModel, prompt: Tensor, text: Text) -> tuple:
        return change(prompt, model.model.get_input_embeddings()(text.ids), text.mask.long())

    return wrong


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
        "The picture is added onto the words instead of being put in front of them.": (
            _prepend_but(lambda p, w, m: (w + p.mean(1, keepdim=True), m))
        ),
    },
    run=_on_text,
)


# --- Padding --------------------------------------------------------------------------------------------------------


def _pad_cases() -> list[Case]:
    rows = (((3, 4), (5,)), ((3,), (4, 5, 6)), ((3, PAD), (4, 5, PAD, 6)))
    return [
        Case(f"rows {[list(r) for r in texts]}, pad id {PAD}, left={left}", (texts, PAD, left))
        for texts in rows
        for left in (False, True)
    ]


def _padded(function: Callable, args: tuple) -> Any:
    rows, pad_token_id, left = args
    found = function(rows, pad_token_id, left=left)
    return (found.ids, found.mask) if isinstance(found, Text) else found


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
        "Left and right are swapped: left=True puts the *padding* on the left.": (
            lambda rows, pad_token_id, *, left=False: language_model.pad(rows, pad_token_id, left=not left)
        ),
        "The mask is made by comparing ids with the padding's. A real token may have that id (many "
        "tokenizers pad with their end token): count lengths instead.": _mask_by_id,
        "The mask is the wrong way round: True is a real token.": _swapped,
        "Rows are cut to the shortest instead of filled to the longest.": _cut,
    },
    run=_padded,
)


# --- Prefix and suffix ----------------------------------------------------------------------------------------------

DRAWS = 400


def _split_cases() -> list[Case]:
    return [Case(f"{caption!r}, cut {DRAWS} times", (caption,)) for caption in ("boat", "a red boat", "a cat by day")]


def _splits(function: Callable, args: tuple) -> Any:
    """All splits that occur, whether none is rare, and whether only the generator determines them."""
    (caption,) = args
    found = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(0)
        found.append([function(caption, generator) for _ in range(DRAWS)])
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in found[0]):
        return found[0][0]
    counts = Counter(map(tuple, found[0]))
    even = min(counts.values()) > 0.5 * DRAWS / len(counts)
    return {
        "cuts": sorted(map(str, counts)),
        "each about as often": even,
        "same seed, same cuts": found[0] == found[1],
    }


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
        "Cut between characters: half a word is a word the language model does not know. Use caption.split().": (
            _by_characters
        ),
    },
    run=_splits,
)
