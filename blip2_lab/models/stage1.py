"""Stage 1, vision-language representation learning: one Q-Former trained with ITC, ITM and ITG.

Read teaching/plain_stage1.py first: it computes the same losses in the order of the paper, one pass for each objective.
`Stage1Model.losses` is where this module begins; the losses themselves are functions in losses.py.

Notes:

* ITC takes the *maximum* over the queries of their similarity to the text; ITM *averages* its two logits over the
  queries; ITG predicts the caption, with the image reaching the text only through the queries. The mask
  (models/masks.py) determines which rows see which.
* The cross-attention keys and values of an image are computed once (and once more where it is a negative of another
  rank or piece). They serve ITC, ITG and the three kinds of ITM pairs. The query pass of ITC is the cached prefix of
  ITG, whose mask hides the text from the queries.
* Negatives for ITM are sampled by ITC similarity: the more similar a wrong pair, the likelier it is drawn.
* Not computed: padding, rows of the last layer that no head reads, vocabulary logits without a target.
* Losses, gradients and negatives are the same for any number of processes (distributed.py) and of pieces (`passes`).
* Tested: the losses equal those of teaching/plain_stage1.py and of LAVIS.

Paper: section 3.2, Figure 2. Notebooks: 05 to 07.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from blip2_lab.common.distributed import gather_across_ranks, rank_and_world
from blip2_lab.models.beam_search import beam_search
from blip2_lab.models.decoding import UnknownOption
from blip2_lab.models.losses import Stage1Losses, itc_loss, itc_similarity, itg_loss, itm_loss, sample_negatives
from blip2_lab.models.masks import bidirectional_mask, multimodal_causal_mask, unimodal_mask
from blip2_lab.models.other_names import STAGE1_ATTRIBUTES, TellsOtherNames, check_arguments
from blip2_lab.models.qformer import ImageMemory, LanguageModelingHead, QFormer, QFormerConfig, init_from_bert
from blip2_lab.models.texts import check_captions, is_cut, unknown_words, warn_of_cut, warn_of_unknown
from blip2_lab.models.vision_encoder import check_pixels, freeze


@dataclass
class Stage1Config:
    """The settings of stage 1 beside the Q-Former's. Token ids are those of bert-base-uncased with [DEC] appended."""

    embed_width: int = 256
    max_text_tokens: int = 32
    temperature: float = 0.07  # initial value; it is learned. (CLIP's logit_scale is log(1 / temperature).)
    # differs from the paper: it mentions no label smoothing (0.0); LAVIS has 0.1 in ITC and in ITG
    label_smoothing: float = 0.1
    # differs from LAVIS: it gathers without gradient, so image-to-text trains only the image side, text-to-image only
    # the text side; and it averages ITG over each rank's tokens, then over ranks, so tokens of a rank with short
    # captions weigh more. True: many ranks equal one large batch. False is LAVIS's behavior, also in a single process.
    gather_with_grad: bool = True
    sep_token_id: int = 102
    decode_token_id: int = 30522  # [DEC], which replaces [CLS] in ITG


LOSS_ARGUMENTS = (
    *("pixels", "image_features", "captions", "input_ids", "attention_mask"),
    *("negatives", "image_id", "matches", "generator", "passes"),
)


# --- Text -----------------------------------------------------------------------------------------------------------


MOST_WORDS = 50  #: of a text for the Q-Former, as in LAVIS


def clean_caption(caption: str, max_words: int = MOST_WORDS) -> str:
    """LAVIS's `blip_caption`: lower case, punctuation to spaces, at most 50 words."""
    return " ".join(re.sub(r"[.!\"()*#:;~]", " ", caption.lower()).split()[:max_words])


def clean_captions(captions: Sequence[str]) -> list[str]:
    """`clean_caption` of each, with a warning where one has more words than are read."""
    texts = [clean_caption(caption) for caption in captions]
    full = [caption for caption, text in zip(captions, texts, strict=True) if text.count(" ") == MOST_WORDS - 1]
    if any(clean_caption(caption) != clean_caption(caption, max_words=len(caption)) for caption in full):
        warn_of_cut(f"texts of more than {MOST_WORDS} words")
    return texts


def trim(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Both [B, T], without the columns on the right that are padding in every row. The mask comes back as bool."""
    text_mask = attention_mask.bool()
    columns = text_mask.any(dim=0).nonzero()
    length = int(columns.max()) + 1 if len(columns) else 1
    return input_ids[:, :length], text_mask[:, :length]


def check_pairs(
    image_features: Tensor, input_ids: Tensor, attention_mask: Tensor, negatives: Sequence[Tensor], candidates: int
) -> None:
    """Raises ValueError for a batch whose shapes, masks or negatives would give wrong losses or an unclear error."""
    count, mask = len(input_ids), attention_mask.bool()
    shapes = ", ".join(str(list(x.shape)) for x in (image_features, input_ids, mask))
    if image_features.dim() != 3 or input_ids.dim() != 2 or mask.shape != input_ids.shape:
        raise ValueError(f"image_features are [B, N, Dv], input_ids and attention_mask [B, T]; these are {shapes}.")
    if len(image_features) != count:
        raise ValueError(f"{len(image_features)} images and {count} texts: give one text for each image.")
    if mask.shape[1] < 2 or not mask[:, :2].all() or (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError("A text needs at least two tokens, [CLS] and [SEP], and its padding on the right.")
    for index in negatives:
        if index.shape != (count,) or not 0 <= index.min() <= index.max() < candidates:
            raise ValueError(
                f"negatives must be two long[{count}] with numbers from 0 to {candidates - 1}; one is {index.tolist()}."
            )


def check_image_id(image_id: Tensor, count: int) -> None:
    """Raises ValueError for what is not long[count]: rows that show one picture would be wrong pairs of each other."""
    ways = "torch.tensor(numbers), or image_ids(names) of blip2_lab.data.examples"
    if not isinstance(image_id, Tensor) or image_id.is_floating_point() or image_id.shape != (count,):
        kind = f"{image_id.dtype} {list(image_id.shape)}" if isinstance(image_id, Tensor) else type(image_id).__name__
        raise ValueError(f"image_id is long[{count}], a number for each picture, and this is {kind}: pass {ways}.")


def _maybe_checkpoint(passes: int, step: Callable, *inputs):
    """`step(*inputs)`; with several passes under gradient checkpointing: recomputed in the backward pass."""
    return step(*inputs) if passes == 1 else checkpoint(step, *inputs, use_reentrant=False)


# --- The model ------------------------------------------------------------------------------------------------------


class Stage1Model(TellsOtherNames, nn.Module):
    """A Q-Former with the heads of its three objectives.

    `image_encoder` (frozen, optional) turns pixels into features; without it, pass image_features. `tokenizer` is
    BERT's, with [DEC] added; without it, pass input_ids.
    """

    other_names = STAGE1_ATTRIBUTES

    def __init__(
        self,
        qformer: QFormerConfig,
        config: Stage1Config | None = None,
        *,
        image_encoder: nn.Module | None = None,
        tokenizer=None,
    ):
        super().__init__()
        self.config = config = config or Stage1Config()
        self.qformer = QFormer(qformer)
        self.vision_projection = nn.Linear(qformer.width, config.embed_width)
        self.text_projection = nn.Linear(qformer.width, config.embed_width)
        self.itm_head = nn.Linear(qformer.width, 2)
        self.lm_head = LanguageModelingHead(qformer.width, qformer.vocab_size, qformer.layer_norm_eps)
        self.lm_head.apply(self.qformer._initialize)
        self.temperature = nn.Parameter(torch.tensor(config.temperature))
        self.attach_image_encoder(image_encoder)
        self.tokenizer = tokenizer

    def attach_image_encoder(self, image_encoder: nn.Module | None) -> None:
        """Set the image encoder that turns pixels into features, and freeze it. None removes it."""
        self.image_encoder = None if image_encoder is None else freeze(image_encoder)

    @property
    def device(self) -> torch.device:
        return self.temperature.device

    def init_from_bert(self, bert_state_dict: dict[str, Tensor]) -> None:
        """Initialize the Q-Former from BERT (section 3.1), and the ITG head from BERT's head where there is one."""
        init_from_bert(self.qformer, bert_state_dict)
        head = "cls.predictions."
        if f"{head}transform.dense.weight" in bert_state_dict:
            with torch.no_grad():
                for ours, theirs in (("dense", "transform.dense"), ("layer_norm", "transform.LayerNorm")):
                    for name, parameter in self.lm_head.get_submodule(ours).named_parameters():
                        parameter.copy_(bert_state_dict[f"{head}{theirs}.{name}"])
                bias = bert_state_dict[f"{head}bias"]
                self.lm_head.bias[: len(bias)] = bias

    # --- Reading

    def image_features(self, pixels: Tensor) -> Tensor:
        """pixels [B, 3, H, W], normalized -> image_features [B, N, Dv]. Raises ValueError for another scale."""
        if self.image_encoder is None:
            raise ValueError("This Stage1Model has no image encoder: pass image_features instead of pixels.")
        return self.image_encoder(check_pixels(pixels))

    def tokenize(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Cleaned captions as `[CLS] … [SEP]`, padded to the longest: input_ids and attention_mask, long[B, T]."""
        if self.tokenizer is None:
            raise ValueError("This Stage1Model has no tokenizer: pass input_ids instead of captions.")
        if isinstance(captions, str) or not all(isinstance(caption, str) for caption in captions):
            raise ValueError(f"Captions are a list of texts, and these are {captions!r:.60}.")
        texts = clean_captions(captions)
        # differs from LAVIS, which pads to max_text_tokens; padding does not change the losses
        length = self.config.max_text_tokens
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
        if tokens["input_ids"].shape[1] >= length and is_cut(self.tokenizer, texts, length):
            warn_of_cut(f"texts of more than {length} tokens", "`config.max_text_tokens` of stage 1")
        return tokens["input_ids"].to(self.device), tokens["attention_mask"].to(self.device)

    def embed_image(self, image_features: Tensor) -> Tensor:
        """image_features [B, N, Dv] -> image_embeds [B, Q, E], of norm 1."""
        if not isinstance(image_features, Tensor) or image_features.ndim != 3:
            raise ValueError(
                "embed_image takes image_features [B, N, Dv]: image_features(image_encoder.preprocess(pictures))."
            )
        return self.project_queries(self.qformer(image=self.qformer.read_image(image_features)).query_output)

    def project_queries(self, query_output: Tensor) -> Tensor:
        """query_output [B, Q, Dq] -> image_embeds [B, Q, E], of norm 1."""
        return F.normalize(self.vision_projection(query_output).float(), dim=-1)

    def embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """input_ids, attention_mask [B, T] -> text_embeds [B, E], of norm 1: the projected output at [CLS]."""
        if not isinstance(input_ids, Tensor):
            raise ValueError("embed_text takes token ids and their mask: embed_text(*tokenize(texts)).")
        mask = unimodal_mask(0, attention_mask)
        cls = self.qformer(
            queries=False, input_ids=input_ids, mask=mask, text_mask=attention_mask.bool(), rows=1
        ).text_output[:, 0]
        return F.normalize(self.text_projection(cls).float(), dim=-1)

    def itm_logits(self, memory: ImageMemory, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Pairs (image b, text b) -> logits [B, 2], averaged over the queries; class 1 is a match.

        With S times as many texts as images, text i is compared with image i % B.
        """
        if not isinstance(memory, ImageMemory):
            raise ValueError("itm_logits takes the memory of images: qformer.read_image(image_features).")
        num_queries = self.qformer.config.num_query_tokens
        mask = bidirectional_mask(num_queries, attention_mask)
        joint = self.qformer(
            image=memory, input_ids=input_ids, mask=mask, text_mask=attention_mask.bool(), rows=num_queries
        )
        return self.itm_head(joint.query_output).mean(dim=1)

    def itg_logits(self, text_output: Tensor) -> Tensor:
        """text_output [..., Dq] -> logits over the vocabulary [..., V]."""
        return self.lm_head(text_output, self.qformer.word_embeddings.weight)

    # --- Training

    def forward(self, *samples: object, **batch) -> Stage1Losses:
        """`losses`, for DistributedDataParallel, which calls `forward`."""
        check_arguments(samples, batch, LOSS_ARGUMENTS)
        return self.losses(**batch)

    def losses(
        self,
        *,
        image_features: Tensor | None = None,
        pixels: Tensor | None = None,
        captions: list[str] | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        negatives: tuple[Tensor, Tensor] | None = None,
        image_id: Tensor | None = None,
        matches: Tensor | None = None,
        generator: torch.Generator | None = None,
        passes: int = 1,
    ) -> Stage1Losses:
        """The three losses of B pairs (image b, caption b).

        Images come as image_features [B, N, Dv] or as pixels [B, 3, H, W]; texts as captions or as input_ids with
        attention_mask [B, T], padded on the right.
        negatives  (image_index, text_index), long[B] each, over all ranks' samples: the wrong image for text b, the
                   wrong text for image b. Drawn when not given: first all images, then all texts, by `generator`.
        image_id   long[B]: rows of equal id show the same image and are no negatives of each other (COCO retrieval).
        matches    bool[B, B]: is text m true of image b? For texts that tell a part and are true of several images:
                   all of these are positives (differs from the paper, where a text belongs to one image). One process.
        passes     compute the batch in so many pieces, one after the other: the same losses and gradients with the
                   memory of one piece, for a third more work. ITC needs all embeddings before anything can flow back,
                   so a piece keeps its results only, and is computed once more when its gradient is there.
        """
        if (image_features is None) == (pixels is None) or (captions is None) == (input_ids is None):
            raise ValueError("Pass the images as image_features or pixels, and the texts as captions or input_ids.")
        if pixels is not None:
            check_pixels(pixels)
            features = [_maybe_checkpoint(passes, self.image_features, piece) for piece in pixels.tensor_split(passes)]
            image_features = torch.cat(features)
        if captions is not None:
            captions = check_captions(captions)
            input_ids, attention_mask = self.tokenize(captions)
            if unknown_words(self.tokenizer, [clean_caption(caption) for caption in captions]):
                warn_of_unknown("captions")
        elif attention_mask is None:
            attention_mask = input_ids != self.qformer.config.pad_token_id
        with_grad, (_, world_size) = self.config.gather_with_grad, rank_and_world()
        check_pairs(image_features, input_ids, attention_mask, negatives or (), len(input_ids) * world_size)
        if image_id is not None:
            check_image_id(image_id, len(input_ids))
        if not 1 <= passes <= len(input_ids):
            raise ValueError(
                f"{len(input_ids)} pairs cannot be computed in {passes} passes: take 1 to {len(input_ids)}."
            )
        texts = trim(input_ids, attention_mask)
        if world_size > 1:  # ranks differ in their longest text, and gathered tensors must have one shape
            texts = self._pad_to_max_positions(*texts)
        # One piece: keys and values are computed here, once. Several: each step of each piece computes its own.
        images = [self.qformer.read_image(image_features)] if passes == 1 else image_features.tensor_split(passes)
        ids, masks = (x.tensor_split(passes) for x in texts)

        outputs = [
            _maybe_checkpoint(passes, self._itc_itg_step, *piece) for piece in zip(images, ids, masks, strict=True)
        ]
        image_embeds, text_embeds, itg_sums = (list(parts) for parts in zip(*outputs, strict=True))
        image_embeds, text_embeds = torch.cat(image_embeds), torch.cat(text_embeds)

        image_to_text = itc_similarity(image_embeds, gather_across_ranks(text_embeds, with_grad)) / self.temperature
        text_to_image = itc_similarity(gather_across_ranks(image_embeds, with_grad), text_embeds).T / self.temperature
        if matches is not None and (world_size > 1 or matches.shape != (len(input_ids), len(input_ids))):
            raise ValueError(f"matches are bool[B, B] of one process's B pairs; these are {list(matches.shape)}.")
        positives = self._positives(input_ids, image_id) if matches is None else matches
        text_positives = positives if matches is None else matches.T
        itc = itc_loss(image_to_text, text_to_image, positives, self.config.label_smoothing, text_positives)

        if negatives is None:
            image_index = sample_negatives(text_to_image, text_positives, generator)
            negatives = image_index, sample_negatives(image_to_text, positives, generator)
        image_index, text_index = negatives
        if passes == world_size == 1:
            wrong_images = [images[0].select(image_index)]
        else:
            wrong_images = gather_across_ranks(image_features)[image_index].tensor_split(passes)
        wrong_ids, wrong_masks = (gather_across_ranks(x)[text_index].tensor_split(passes) for x in texts)
        pieces = zip(images, wrong_images, ids, masks, wrong_ids, wrong_masks, strict=True)
        verdicts = [_maybe_checkpoint(passes, self._itm_step, *piece) for piece in pieces]
        verdicts = torch.cat(verdicts, dim=1)  # [3, B, 2]
        itm = itm_loss(verdicts.flatten(0, 1), ~positives.all(dim=1), ~text_positives.all(dim=1))

        targets = self._itg_targets(*texts).sum().float()
        if with_grad:
            targets = gather_across_ranks(targets[None]).mean()
        return Stage1Losses(itc=itc, itm=itm, itg=sum(itg_sums) / targets)

    def _itc_itg_step(
        self, image: ImageMemory | Tensor, input_ids: Tensor, text_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """ITC's unimodal passes, then ITG's pass over the text after the cached queries: image_embeds [B, Q, E],
        text_embeds [B, E], and the sum of ITG over the target tokens."""
        input_ids, text_mask = trim(input_ids, text_mask)
        query_pass = self.qformer(image=self._image_memory(image), use_cache=True)
        image_embeds = self.project_queries(query_pass.query_output)
        text_embeds = self.embed_text(input_ids, text_mask)
        return image_embeds, text_embeds, self._itg(query_pass.past, input_ids, text_mask)

    def _itm_step(
        self,
        image: ImageMemory | Tensor,
        wrong_image: ImageMemory | Tensor,
        input_ids: Tensor,
        text_mask: Tensor,
        wrong_ids: Tensor,
        wrong_mask: Tensor,
    ) -> Tensor:
        """ITM's logits of the true pairs, of those with a wrong image and of those with a wrong text: [3, B, 2].

        The true and the wrong text of an image are matched in one pass.
        """
        both = trim(torch.cat([input_ids, wrong_ids]), torch.cat([text_mask, wrong_mask]))
        true, wrong_text = self.itm_logits(self._image_memory(image), *both).chunk(2)
        return torch.stack(
            [true, self.itm_logits(self._image_memory(wrong_image), *trim(input_ids, text_mask)), wrong_text]
        )

    def _image_memory(self, image: ImageMemory | Tensor) -> ImageMemory:
        return image if isinstance(image, ImageMemory) else self.qformer.read_image(image)

    def _positives(self, input_ids: Tensor, image_id: Tensor | None) -> Tensor:
        """bool[B, W*B]: True where a candidate (of any rank) shows the same image as the row."""
        rank, _ = rank_and_world()
        if image_id is None:
            image_id = torch.arange(len(input_ids), device=input_ids.device) + rank * len(input_ids)
        return image_id[:, None] == gather_across_ranks(image_id)[None, :]

    def _pad_to_max_positions(self, input_ids: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Both [B, T], padded to `max_positions`, the length of the longest possible text."""
        padding = (0, self.qformer.config.max_positions - input_ids.shape[1])
        return F.pad(input_ids, padding, value=self.qformer.config.pad_token_id), F.pad(text_mask, padding)

    def _itg(self, past: tuple, input_ids: Tensor, text_mask: Tensor) -> Tensor:
        """Sum of ITG over the targets: after the cached queries, [DEC] and all tokens but the last predict all tokens
        but the first."""
        num_queries = self.qformer.config.num_query_tokens
        decoder_ids = torch.cat([torch.full_like(input_ids[:, :1], self.config.decode_token_id), input_ids[:, 1:-1]], 1)
        mask = multimodal_causal_mask(num_queries, text_mask[:, :-1])[:, :, num_queries:]
        is_target = text_mask[:, 1:]
        text_output = self.qformer(
            queries=False, input_ids=decoder_ids, mask=mask, text_mask=is_target, past=past
        ).text_output
        learned = self._itg_targets(input_ids, text_mask)
        logits, labels = self.itg_logits(text_output[learned]), input_ids[:, 1:][learned]
        return itg_loss(logits, labels, self.config.label_smoothing, reduction="sum")

    def _itg_targets(self, input_ids: Tensor, text_mask: Tensor) -> Tensor:
        """bool[B, T-1]: which tokens after the first ITG learns to predict: all but padding and unknown words."""
        # differs from LAVIS: [UNK] is no target; BERT's vocabulary has none in English, a small one has
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        return text_mask[:, 1:] if unknown is None else text_mask[:, 1:] & (input_ids[:, 1:] != unknown)

    # --- Generating

    @torch.no_grad()
    def generate_ids(
        self,
        image_features: Tensor,
        *,
        num_beams: int = 3,
        max_length: int = 30,
        min_length: int = 10,
        length_penalty: float = 1.0,
    ) -> Tensor:
        """Captions by the Q-Former without a language model, long[B, <= max_length], from [DEC] to [SEP], padded.

        One beam is greedy search. `max_length` and `min_length` count [DEC]. The queries are computed once; each step
        adds the keys and values of one token. (differs from LAVIS: it recomputes everything at each step, and fails
        for more than one beam.)
        """
        past = self.qformer(image=self.qformer.read_image(image_features), use_cache=True).past

        def step(tokens: Tensor, parents: Tensor) -> Tensor:
            nonlocal past
            past = tuple((keys[parents], values[parents]) for keys, values in past)
            output = self.qformer(queries=False, input_ids=tokens[:, None], past=past, use_cache=True)
            past = output.past
            return self.itg_logits(output.text_output[:, 0]).float().log_softmax(dim=-1)

        sequences = beam_search(
            step,
            batch_size=len(image_features),
            start_id=self.config.decode_token_id,
            end_id=self.config.sep_token_id,
            num_beams=num_beams,
            max_length=max_length,
            min_length=min_length,
            length_penalty=length_penalty,
            device=self.device,
        )
        sequences = [torch.tensor(sequence, device=self.device) for sequence in sequences]
        return nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=self.qformer.config.pad_token_id)

    def generate(
        self, *, image_features: Tensor | None = None, pixels: Tensor | None = None, **decoding: float
    ) -> list[str]:
        """Captions as text; `decoding` as in `generate_ids`."""
        if self.tokenizer is None:
            raise ValueError("This Stage1Model has no tokenizer: use generate_ids, which returns token ids.")
        if (image_features is None) == (pixels is None):
            raise ValueError("Pass the images once: as image_features or as pixels.")
        known = ("num_beams", "max_length", "min_length", "length_penalty")
        if other := [name for name in decoding if name not in known]:
            raise UnknownOption(f"There is no option {other[0]!r}: the Q-Former's captions have {', '.join(known)}.")
        features = self.image_features(pixels) if image_features is None else image_features
        return self.tokenizer.batch_decode(self.generate_ids(features, **decoding), skip_special_tokens=True)
