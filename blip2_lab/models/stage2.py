"""Stage 2, vision-to-language generative learning: the Q-Former's output is a soft prompt for a frozen language model.

`Stage2Model.visual_prompt` computes the soft prompt, `Stage2Model.loss` trains it, `Stage2Model.generate` answers.

Notes:

* Only the bridge trains, in the paper the Q-Former and one linear layer. The gradient passes through the frozen
  language model to the visual prompt. Other bridges (models/bridges/) can take the Q-Former's place: a linear
  projector, or gated cross-attention, whose visual prompt is what the language model's layers attend to.
* A decoder language model (OPT) is trained with the language modeling loss of the caption after the visual prompt. An
  encoder-decoder (FlanT5) is trained with prefix language modeling: the caption is split before a random word, the
  encoder reads visual prompt and prefix, the decoder predicts the suffix. (differs from LAVIS: its release splits no
  caption, the data set provides input and output.)
* The Q-Former of stage 2 reads no text: it has no text embeddings and no text FFNs.
* `encode_image` computes the visual prompt of an image once; `generate`, `stream` and `rank` accept it as
  `visual_prompt=`, for any number of questions.

Paper: section 3.3, Figure 3. Notebook: 10.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blip2_lab.common.images import ImageSource, image_list, is_one_image
from blip2_lab.models.bridges.bridge import Bridge
from blip2_lab.models.bridges.qformer import QFormerBridge
from blip2_lab.models.decoding import Decoding, Token
from blip2_lab.models.language_model import EncoderDecoderLanguageModel, LanguageModel
from blip2_lab.models.other_names import STAGE2_ATTRIBUTES, TellsOtherNames, check_arguments
from blip2_lab.models.qformer import QFormer
from blip2_lab.models.stage1 import Stage1Model, clean_captions
from blip2_lab.models.texts import (
    check_captions,
    check_marks,
    check_texts,
    is_cut,
    unknown_words,
    warn_of_cut,
    warn_of_unknown,
)
from blip2_lab.models.vision_encoder import ImageEncoder, check_pixels, freeze

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Candidate:
    """A ranked answer: its log-probability (all its tokens and the end token), and its probability among the
    candidates."""

    text: str
    log_likelihood: float
    probability: float


class Stage2Model(TellsOtherNames, nn.Module):
    """Image encoder (frozen) -> bridge -> language model (frozen). A Q-Former is given as it is, or another bridge.

    `bridge` computes the visual prompt. With a Q-Former its parts are also `qformer` and `language_projection`, the
    names under which they are saved; a model with another bridge does not have these two.

    A Q-Former with a text side reads the question, too (`reads_questions`; section 4.3, Figure 7); its tokenizer is
    `question_tokenizer`, and it reads at most `max_question_tokens` (None: as many as it has positions).

    `stage1` is the stage-1 model that was loaded with this one, or None. Optional, for image-text matching and
    retrieval; kept outside parameters() and state_dict().
    """

    other_names = STAGE2_ATTRIBUTES

    def __init__(self, image_encoder: ImageEncoder, bridge: QFormer | Bridge, language_model: LanguageModel) -> None:
        super().__init__()
        if not isinstance(language_model, LanguageModel):
            raise ValueError(
                f"The language model is a LanguageModel, and this is {type(language_model).__name__}: pass "
                "language_model(model, tokenizer) of blip2_lab.models.language_model."
            )
        if isinstance(bridge, QFormer):
            if bridge.config.image_width != image_encoder.width:
                raise ValueError(
                    f"The Q-Former reads image features of width {bridge.config.image_width}, and this image encoder "
                    f"has width {image_encoder.width}: use the image encoder that the Q-Former was trained with."
                )
            bridge = QFormerBridge(bridge, language_model.width)
        bridge.check_widths(image_encoder.width, language_model.width)
        self.image_encoder = freeze(image_encoder)
        if isinstance(bridge, QFormerBridge):
            self.qformer, self.language_projection = bridge.qformer, bridge.language_projection
            object.__setattr__(self, "bridge", bridge)  # its parameters are registered once, in the line above
        else:
            self.bridge = bridge
        self.language_model = language_model.with_deep_fusion(bridge) if bridge.deep_fusion else language_model
        self.question_tokenizer: PreTrainedTokenizerBase | None = None
        self.max_question_tokens: int | None = None
        self.attach_stage1(None)

    @classmethod
    def from_stage1(
        cls, stage1: Stage1Model, image_encoder: ImageEncoder, language_model: LanguageModel
    ) -> Stage2Model:
        """Initialize stage 2 from stage 1: a copy of its Q-Former without the text parts, and a new projection."""
        return cls(image_encoder, without_text(stage1.qformer), language_model)

    @torch.no_grad()
    def match_embeddings(self) -> float:
        """Scale the new projection so that a visual prompt has the mean norm of a word embedding; returns the factor (1
        with deep fusion).

        differs from the paper and LAVIS: where word embeddings are much shorter than the outputs of a new projection,
        the updates of the language model's layers are small beside the prompt in the residual stream, and it does not
        bind the attributes in the prompt. Multiply the learning rate of the projection by the same factor; otherwise
        its norm grows back.
        """
        word = self.language_model.model.get_input_embeddings().weight.norm(dim=1).mean()
        return self.bridge.match_norm(word.item())

    def attach_stage1(self, stage1: Stage1Model | None) -> None:
        """Set `stage1`, outside parameters() and state_dict()."""
        object.__setattr__(self, "stage1", stage1)

    # -- training --------------------------------------------------------------------------------------------------

    def forward(self, *samples: object, **batch: Tensor | Sequence[str] | torch.Generator | None) -> Tensor:
        """`loss`, for DistributedDataParallel, which calls `forward`."""
        check_arguments(samples, batch, ("pixels", "image_features", "captions", "prompts", "generator"))
        return self.loss(**batch)

    @property
    def reads_questions(self) -> bool:
        """Whether the visual prompt depends on the question: the Q-Former has a text side (Figure 7)."""
        return isinstance(self.bridge, QFormerBridge) and self.bridge.config.has_text

    def visual_prompt(self, image_features: Tensor, prompts: Sequence[str] | None = None) -> Tensor:
        """image_features [B,N,Dv] -> visual_prompt [B,Q,Dl], the paper's soft visual prompt; with deep fusion the
        memory [B,M,Dv] that the language model's layers attend to.

        prompts  B texts that the language model is asked, or S*B: text i is about image i % B -> [S*B,Q,Dl]. A Q-Former
                 that reads questions reads the one in each; for other models the visual prompt does not depend on them
        """
        if prompts is None:
            return self.bridge(image_features)
        if not self.reads_questions:
            repeats = len(prompts) // len(image_features)
            return self.bridge(image_features).repeat(repeats, 1, 1)
        return self.bridge(image_features, *self.tokenize_questions(prompts))

    def tokenize_questions(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The question in each prompt (`question_of`), cleaned as in stage 1, for the Q-Former: input_ids and
        attention_mask, long[B,T]. In eval mode a question is not cut."""
        # differs from InstructBLIP, whose Q-Former reads the whole prompt: Figure 7 gives it the question
        if self.question_tokenizer is None:
            raise ValueError(
                "This Q-Former reads questions and has no tokenizer: its folder has no qformer_tokenizer, or set "
                "`model.question_tokenizer`."
            )
        texts = clean_captions([question_of(prompt) for prompt in prompts])
        most = self.max_question_tokens if self.training else None
        options = dict(padding=True, truncation=most is not None, max_length=most, return_tensors="pt")
        tokens, device = self.question_tokenizer(texts, **options), self.qformer.query_tokens.device
        if most is not None and tokens["input_ids"].shape[1] >= most and is_cut(self.question_tokenizer, texts, most):
            warn_of_cut(f"questions of more than {most} tokens", "`max_question_tokens` of the model")
        return tokens["input_ids"].to(device), tokens["attention_mask"].to(device)

    @property
    def num_visual_tokens(self) -> int:
        """Q, the tokens of an image's visual prompt."""
        return self.bridge.num_visual_tokens(self.image_encoder.num_features)

    def loss(
        self,
        *,
        image_features: Tensor | None = None,
        pixels: Tensor | None = None,
        captions: Sequence[str],
        prompts: Sequence[str] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Language modeling loss of B captions -> scalar. Pass image_features [B,N,Dv] or pixels [B,3,H,W].

        Without `prompts` this is the paper's pre-training (`generator` draws the split for an encoder-decoder).
        With `prompts` it is fine-tuning: the loss of the whole caption (or answer), given image and prompt.
        """
        captions = check_captions(captions)
        prompts = None if prompts is None else self._check_prompts(prompts)
        seen = dict(image_features=image_features, pixels=pixels)
        loss = self.loss_and_count(**seen, captions=captions, prompts=prompts, generator=generator)[0]
        # here and not in `loss_and_count`, because `blip2-lab train` counts unknown words before its first step
        if unknown_words(self.language_model.tokenizer, [*captions, *(prompts or ())]):
            warn_of_unknown("captions or prompts")
        return loss

    def loss_and_count(
        self,
        *,
        image_features: Tensor | None = None,
        pixels: Tensor | None = None,
        captions: Sequence[str],
        prompts: Sequence[str] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`loss`, and the number of tokens it is the mean of: its weight in a mean over several batches."""
        return self.language_model.loss_and_count(
            *self._seen_and_texts(image_features, pixels, captions, prompts, generator)
        )

    def losses_of_each(
        self,
        *,
        image_features: Tensor | None = None,
        pixels: Tensor | None = None,
        captions: Sequence[str],
        prompts: Sequence[str] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The sums of which `loss` is the mean: of each caption [B], and the number of its tokens [B]."""
        return self.language_model.losses_of_each(
            *self._seen_and_texts(image_features, pixels, captions, prompts, generator)
        )

    def _seen_and_texts(
        self,
        image_features: Tensor | None,
        pixels: Tensor | None,
        captions: Sequence[str],
        prompts: Sequence[str] | None,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Sequence[str], Sequence[str]]:
        """The checked input of `loss` -> visual_prompt [B,Q,Dl], prompts, and what is learned after them."""
        if (image_features is None) == (pixels is None):
            raise ValueError("Pass the images once: as image_features or as pixels.")
        captions = check_captions(captions)
        check_marks(captions, "caption", self.language_model.tokenizer)
        prompts = None if prompts is None else self._check_prompts(prompts)
        if image_features is None:
            image_features = self.image_encoder(check_pixels(pixels))
        elif image_features.ndim != 3 or not image_features.is_floating_point():
            kind = f"{image_features.dtype} {list(image_features.shape)}"
            raise ValueError(f"image_features are floats [B, N, Dv], what `image_encoder` gives; these are {kind}.")
        given = {"images": image_features, "captions": captions, "prompts": prompts}
        counts = {name: len(each) for name, each in given.items() if each is not None}
        if not captions or len(set(counts.values())) > 1:
            listed = ", ".join(f"{count} {name}" for name, count in counts.items())
            raise ValueError(f"There are {listed}: give one caption for each image, and one prompt or none.")
        if prompts is None and isinstance(self.language_model, EncoderDecoderLanguageModel):
            prompts, captions = zip(*(split_caption(caption, generator) for caption in captions), strict=True)
        elif prompts is None:
            prompts = [""] * len(captions)
        seen = self.visual_prompt(image_features, prompts if self.reads_questions else None)
        return seen, prompts, captions

    # -- generating ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_image(
        self, image: ImageSource | Sequence[ImageSource] | Tensor, prompts: Sequence[str] | None = None
    ) -> Tensor:
        """An image, or several (`images.ImageSource`: a path, PIL, an array, bytes, an open file), or normalized pixels
        [3,H,W] or [B,3,H,W] -> visual_prompt [B,Q,Dl]. `prompts`: as for `visual_prompt`."""
        return self.visual_prompt(self.image_encoder(self._pixels(image)), prompts)

    def generate(
        self,
        image: ImageSource | Sequence[ImageSource] | Tensor | None = None,
        prompt: str | Sequence[str] = "",
        *,
        visual_prompt: Tensor | None = None,
        **decoding: float,
    ) -> str | list[str]:
        """Generate an answer to a prompt about an image; several images, several prompts, or both give a list.

        image          as for `encode_image`; or pass `visual_prompt` [B,Q,Dl], the output of `encode_image`
        prompt         one for all images, or one for each; or several for one image
        decoding       the fields of `decoding.Decoding`: num_beams, max_new_tokens, length_penalty, ...
        """
        settings = Decoding.from_options(decoding)
        texts = self._check_prompts([prompt] if isinstance(prompt, str | bytes) else prompt)
        prompt = prompt if isinstance(prompt, str) else texts  # a generator can be read once
        visual_prompt, prompts, single = self._prompt_of(image, visual_prompt, prompt)
        if words := unknown_words(self.language_model.tokenizer, texts):
            warn_of_unknown("prompts", words)
        answers = self.language_model.generate(visual_prompt, prompts, settings)
        return answers[0] if single and isinstance(prompt, str) else answers

    def stream(
        self,
        image: ImageSource | Tensor | None = None,
        prompt: str = "",
        *,
        visual_prompt: Tensor | None = None,
        **decoding: float,
    ) -> Iterator[Token]:
        """Generate an answer about one image token by token; the texts joined are the answer.

        Options as in `generate`. Each token is computed when the iterator is advanced; closing the iterator stops the
        model. Greedy by default, because beam search yields its tokens only at its end.
        """
        settings = Decoding.from_options({"num_beams": 1, **decoding})
        self._check_prompts([prompt])
        visual_prompt, *_ = self._prompt_of(image, visual_prompt, prompt)
        if len(visual_prompt) != 1:
            raise ValueError(f"stream takes one image at a time; {len(visual_prompt)} were given.")
        return self.language_model.stream(visual_prompt, prompt, settings)

    def rank(
        self,
        image: ImageSource | Tensor | None = None,
        prompt: str = "",
        candidates: Sequence[str] = (),
        *,
        visual_prompt: Tensor | None = None,
        per_token: bool = False,
    ) -> list[Candidate]:
        """Candidate answers by their likelihood, best first. The image is encoded once for all of them.

        per_token  compare the mean log-probability of a token instead of the sum (LAVIS: the sum). The sum is the log-
                   probability of the answer and prefers short answers; take the mean where candidates differ much in
                   length
        """
        self._check_prompts([prompt])
        candidates = check_candidates(candidates)
        check_marks(candidates, "candidate", self.language_model.tokenizer)
        visual_prompt, *_ = self._prompt_of(image, visual_prompt, prompt)
        if len(visual_prompt) != 1:
            raise ValueError(f"rank takes one image at a time; {len(visual_prompt)} were given.")
        self._check_distinct(prompt, candidates)
        if words := unknown_words(self.language_model.tokenizer, [prompt, *candidates]):
            warn_of_unknown("prompt or candidates", words)
        visual_prompts = visual_prompt.expand(len(candidates), -1, -1)
        scores, lengths = self.language_model.log_likelihood(visual_prompts, [prompt] * len(candidates), candidates)
        shares = (scores / lengths if per_token else scores).softmax(dim=0)
        ranked = zip(candidates, scores.tolist(), shares.tolist(), strict=True)
        return sorted((Candidate(*one) for one in ranked), key=lambda candidate: -candidate.probability)

    def _check_prompts(self, prompts: Sequence[str]) -> list[str]:
        """The prompts as a list. Raises ValueError for what is no text, and for marks that are none."""
        prompts = check_texts(prompts, "prompt")
        check_marks(prompts, "prompt", self.language_model.tokenizer)
        return prompts

    def _check_distinct(self, prompt: str, candidates: Sequence[str]) -> None:
        """Raises ValueError for two candidates with the same tokens: they would share one probability."""
        answers = self.language_model.pair_texts([prompt] * len(candidates), candidates)[1]
        first: dict[tuple[int, ...], str] = {}
        for candidate, ids, mask in zip(candidates, answers.ids, answers.mask, strict=True):
            same = first.setdefault(tuple(ids[mask].tolist()), candidate)
            if same is not candidate:
                raise ValueError(
                    f"The candidates {same!r:.60} and {candidate!r:.60} are the same tokens to this language model "
                    "(all words that it does not know are one token): it cannot rank them."
                )

    @torch.no_grad()
    def _prompt_of(
        self,
        image: ImageSource | Sequence[ImageSource] | Tensor | None,
        visual_prompt: Tensor | None,
        prompt: str | Sequence[str],
    ) -> tuple[Tensor, list[str], bool]:
        """-> visual_prompt [B,Q,Dl], B prompts, and whether a single image was given rather than a list."""
        if image is None and visual_prompt is None:
            raise ValueError("There is no image: pass one, or what `encode_image` made of one as visual_prompt.")
        if image is not None and visual_prompt is not None:
            raise ValueError("Pass the image once: as image or as visual_prompt.")
        if image is not None:
            single = image.ndim == 3 if isinstance(image, Tensor) else is_one_image(image)
            images = self.image_encoder(self._pixels(image))
        else:
            images = visual_prompt = self._checked(visual_prompt)
            single = len(visual_prompt) == 1
        prompts = [prompt] * len(images) if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise ValueError("The list of prompts is empty; pass at least one.")
        if len(images) not in (1, len(prompts)):
            raise ValueError(f"There are {len(images)} images and {len(prompts)} prompts: pass one for each.")
        if image is not None:
            visual_prompt = self.visual_prompt(images, prompts if self.reads_questions else None)
        if len(visual_prompt) == 1:
            visual_prompt = visual_prompt.expand(len(prompts), -1, -1)
        return visual_prompt, prompts, single

    def _checked(self, visual_prompt: Tensor) -> Tensor:
        """A visual prompt that a caller gave, in the dtype of the bridge. Raises ValueError for another shape, and for
        values that are not finite."""
        width = self.bridge.image_width if self.bridge.deep_fusion else self.bridge.language_width
        made_by = f"`encode_image` makes one, [images, tokens, {width}] floats"
        if not isinstance(visual_prompt, Tensor) or not visual_prompt.is_floating_point():
            kind = visual_prompt.dtype if isinstance(visual_prompt, Tensor) else type(visual_prompt).__name__
            raise ValueError(f"A visual prompt is a tensor of floats, and this is {kind}: {made_by}.")
        if visual_prompt.ndim != 3 or not len(visual_prompt) or visual_prompt.shape[2] != width:
            raise ValueError(f"This visual prompt has the shape {list(visual_prompt.shape)}: {made_by}.")
        if not visual_prompt.isfinite().all():
            raise ValueError("The visual prompt has values that are not finite (NaN or infinity).")
        return visual_prompt.to(next(self.bridge.parameters()).dtype)

    def _pixels(self, image: ImageSource | Sequence[ImageSource] | Tensor) -> Tensor:
        """-> pixels [B,3,H,W] on the image encoder's device."""
        if isinstance(image, Tensor):
            pixels = check_pixels(image[None] if image.ndim == 3 else image)
            return pixels.to(next(self.image_encoder.parameters()))
        images = image_list(image)
        if all(isinstance(one, Tensor) and one.ndim == 3 for one in images):
            if len(sizes := {tuple(one.shape) for one in images}) > 1:
                raise ValueError(f"Pixels of several pictures have one shape; these have {sorted(sizes)}.")
            return self._pixels(torch.stack([one.to(images[0]) for one in images]))
        return self.image_encoder.preprocess(images)


def check_answers(model: object) -> None:
    """Raises ValueError for what is no model that answers: a name, or a stage 1."""
    if not hasattr(model, "visual_prompt"):
        raise ValueError(f"This needs a model that answers, as blip2_lab.load gives one, and got a {_kind(model)}.")


def _kind(thing: object) -> str:
    return f"text, {thing!r:.40}" if isinstance(thing, str) else type(thing).__name__


def question_of(prompt: str) -> str:
    """The question in a prompt of the paper's form, the last one after a conversation: "Question: what is this? Short
    answer:" -> "what is this?". Any other prompt is returned whole."""
    found = re.fullmatch(
        r"(?:.*\b)?question:(.*?)(?:\b(?:short|long)\s+)?answer:\s*", prompt, re.IGNORECASE | re.DOTALL
    )
    return (found[1] if found else prompt).strip()


def check_candidates(candidates: Sequence[str]) -> list[str]:
    """The answers to be ranked. Raises ValueError where there is none, for an empty one, and for one that comes twice:
    the two would share its probability."""
    candidates = check_texts(candidates, "candidate")
    if not candidates or not all(text.strip() for text in candidates):
        raise ValueError("Pass at least one candidate to rank, and no empty one.")
    if len(set(candidates)) < len(candidates):
        twice = next(text for text in candidates if candidates.count(text) > 1)
        raise ValueError(f"The candidate {twice!r:.60} comes twice, and would get half of its share: pass it once.")
    return candidates


def split_caption(caption: str, generator: torch.Generator | None = None) -> tuple[str, str]:
    """Split a caption before a random word: (prefix, suffix). The suffix has at least one word; the prefix may have
    none.

    "a red boat" -> ("", "a red boat"), ("a", "red boat") or ("a red", "boat"), with equal probability.
    """
    words = caption.split()
    if not words:
        raise ValueError("A caption is empty: pass captions of at least one word.")
    cut = int(torch.randint(len(words), (), generator=generator))
    return " ".join(words[:cut]), " ".join(words[cut:])


def with_text(model: Stage2Model, stage1: Stage1Model) -> Stage2Model:
    """The model with the text side of a stage 1 in its Q-Former, and its tokenizer, so that it reads questions.

    Text embeddings and text FFNs are copied; everything else of the Q-Former stays. Raises ValueError for a stage 1 of
    another shape, or without a tokenizer.
    """
    if not isinstance(model.bridge, QFormerBridge):
        raise ValueError("The bridge of this model is no Q-Former, so it has no text side to read questions with.")
    own, other = model.qformer.config, stage1.qformer.config
    if (own.width, own.num_layers, own.ffn_width) != (other.width, other.num_layers, other.ffn_width):
        raise ValueError(
            f"The Q-Former has {own.num_layers} layers of width {own.width}, and that of the stage 1 "
            f"{other.num_layers} of {other.width}: its text side does not fit."
        )
    if stage1.tokenizer is None:
        raise ValueError("The stage 1 has no tokenizer, so its text side cannot read questions.")
    config = replace(own, has_text=True, vocab_size=other.vocab_size, max_positions=other.max_positions)
    qformer = QFormer(replace(config, pad_token_id=other.pad_token_id))
    text = {
        name: tensor
        for name, tensor in stage1.qformer.state_dict().items()
        if name.startswith(("word_embeddings.", "position_embeddings.")) or ".text_ffn." in name
    }
    qformer.load_state_dict(model.qformer.state_dict() | text)
    whole = Stage2Model(model.image_encoder, qformer.to(model.qformer.query_tokens.device), model.language_model)
    whole.language_projection.load_state_dict(model.language_projection.state_dict())
    whole.to(model.qformer.query_tokens.device)
    whole.question_tokenizer = stage1.tokenizer
    whole.attach_stage1(model.stage1)
    return whole.eval()


def without_text(qformer: QFormer) -> QFormer:
    """A copy of a Q-Former without text embeddings and text FFNs, for stage 2."""
    copy = QFormer(replace(qformer.config, has_text=False))
    kept = copy.state_dict().keys()
    copy.load_state_dict({name: tensor for name, tensor in qformer.state_dict().items() if name in kept})
    return copy.to(qformer.query_tokens.device)
