"""Stage 2: the Q-Former's output becomes a soft prompt for a frozen language model.

What is unusual about it:

* Between two frozen giants only the Q-Former and one linear layer train. The language model's weights never change, but
  the gradient passes through all of it on its way to the visual prompt.
* A decoder language model (OPT) writes the caption after the picture. An encoder-decoder (FlanT5) learns prefix
  language modeling: the caption is cut before a random word, the encoder reads picture and prefix, the decoder writes
  the suffix. (differs from LAVIS: its release cuts nowhere, the data set brings input and output.)
* The Q-Former sees the picture alone: of stage 1 it keeps the queries' side and drops text embeddings and text FFNs.
* A picture is encoded once (`encode_image`) and asked about as often as you like (`visual_prompt=`).

Paper: section 3.3, Figure 3. Notebook: 10.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from blip2_lab.common.images import open_image
from blip2_lab.models.decoding import Decoding, Token
from blip2_lab.models.language_model import EncoderDecoderLanguageModel, LanguageModel
from blip2_lab.models.qformer import QFormer
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.vision_encoder import ImageEncoder, freeze

ImageSource = Image.Image | str | Path  #: a picture in memory, or the path of one


@dataclass(frozen=True)
class Candidate:
    """An answer to choose: its log-probability (of all its tokens and its end), and its share among the candidates."""

    text: str
    log_likelihood: float
    probability: float


class Stage2Model(nn.Module):
    """Image encoder (frozen) -> Q-Former -> language projection -> language model (frozen).

    `stage1` is the model of the first stage where one was loaded with it (match meter, retrieval): a guest, no part of
    this model, so neither its parameters nor its weights are listed here.
    """

    def __init__(self, image_encoder: ImageEncoder, qformer: QFormer, language_model: LanguageModel) -> None:
        super().__init__()
        if qformer.config.image_width != image_encoder.width:
            raise ValueError(
                f"The Q-Former reads image features of width {qformer.config.image_width}, "
                f"and this image encoder makes them {image_encoder.width} wide."
            )
        self.image_encoder = freeze(image_encoder)
        self.qformer = qformer
        self.language_projection = nn.Linear(qformer.config.width, language_model.width)
        self.language_model = language_model
        self.attach_stage1(None)

    @classmethod
    def from_stage1(
        cls, stage1: Stage1Model, image_encoder: ImageEncoder, language_model: LanguageModel
    ) -> Stage2Model:
        """Begin stage 2 where stage 1 ended: a copy of its Q-Former without the text side, a new projection."""
        return cls(image_encoder, without_text(stage1.qformer), language_model)

    @torch.no_grad()
    def match_embeddings(self) -> float:
        """Scale the new projection so that a visual prompt is as long as a word embedding; returns the factor.

        differs from the paper and LAVIS: a language model whose embeddings are much shorter than a fresh projection's
        outputs can hardly write into a prompt's residual stream, and so binds nothing that is in it. Let the projection
        learn at a rate smaller by the same factor, or it grows back.
        """
        word = self.language_model.model.get_input_embeddings().weight.norm(dim=1).mean()
        # the Q-Former ends in a LayerNorm: its output's entries have variance 1
        factor = (word / self.language_projection.weight.norm()).item()
        self.language_projection.weight.mul_(factor)
        self.language_projection.bias.zero_()
        return factor

    def attach_stage1(self, stage1: Stage1Model | None) -> None:
        """Keep a stage-1 model beside this one, outside its parameters and its state dict."""
        object.__setattr__(self, "stage1", stage1)

    # -- training --------------------------------------------------------------------------------------------------

    def visual_prompt(self, image_features: Tensor) -> Tensor:
        """image_features [B,N,Dv] -> visual_prompt [B,Q,Dl]: what the language model sees of the picture."""
        memory = self.qformer.read_image(image_features)
        return self.language_projection(self.qformer(image=memory).query_output)

    def loss(
        self,
        *,
        image_features: Tensor | None = None,
        pixels: Tensor | None = None,
        captions: Sequence[str],
        prompts: Sequence[str] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Language modeling loss of B captions -> scalar. Give image_features [B,N,Dv] or pixels [B,3,H,W].

        Without `prompts` this is the paper's pre-training (an encoder-decoder's cut is drawn with `generator`).
        With `prompts` it is fine-tuning: picture and prompt are given, the whole caption (or answer) is learned.
        """
        seen = dict(image_features=image_features, pixels=pixels)
        return self.loss_and_count(**seen, captions=captions, prompts=prompts, generator=generator)[0]

    def loss_and_count(
        self,
        *,
        image_features: Tensor | None = None,
        pixels: Tensor | None = None,
        captions: Sequence[str],
        prompts: Sequence[str] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`loss`, and of how many tokens it is the mean: by that it weighs beside another batch's."""
        if (image_features is None) == (pixels is None):
            raise ValueError("Give the pictures once: as image_features or as pixels.")
        if image_features is None:
            image_features = self.image_encoder(pixels)
        if prompts is None and isinstance(self.language_model, EncoderDecoderLanguageModel):
            prompts, captions = zip(*(split_caption(caption, generator) for caption in captions), strict=True)
        elif prompts is None:
            prompts = [""] * len(captions)
        return self.language_model.loss_and_count(self.visual_prompt(image_features), prompts, captions)

    # -- asking ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_image(self, image: ImageSource | Sequence[ImageSource] | Tensor) -> Tensor:
        """A picture, a path, several of them, or pixels [3,H,W] or [B,3,H,W] -> visual_prompt [B,Q,Dl]."""
        return self.visual_prompt(self.image_encoder(self._pixels(image)))

    def generate(
        self,
        image: ImageSource | Sequence[ImageSource] | Tensor | None = None,
        prompt: str | Sequence[str] = "",
        *,
        visual_prompt: Tensor | None = None,
        **decoding: float,
    ) -> str | list[str]:
        """Answer a prompt about a picture; several pictures, several prompts, or both give a list.

        image          what `encode_image` takes; or give `visual_prompt` [B,Q,Dl], which it returned
        prompt         one for all pictures, or one for each; one picture may have many
        decoding       the fields of `language.Decoding`: num_beams, max_new_tokens, length_penalty, ...
        """
        settings = Decoding(**decoding)
        visual_prompt, single = self._one_visual_prompt(image, visual_prompt)
        prompts = [prompt] * len(visual_prompt) if isinstance(prompt, str) else list(prompt)
        if len(visual_prompt) == 1:
            visual_prompt = visual_prompt.expand(len(prompts), -1, -1)
        if len(prompts) != len(visual_prompt):
            raise ValueError(f"There are {len(visual_prompt)} pictures and {len(prompts)} prompts; give one for each.")
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
        """Answer one prompt about one picture, token by token; the texts joined are the answer.

        Options as in `generate`. Close the iterator to stop the model: it computes a token only when asked for one.
        Greedy unless `num_beams` or `do_sample` says otherwise: beam search has nothing to show before its end.
        """
        settings = Decoding(**{"num_beams": 1, **decoding})
        visual_prompt, _ = self._one_visual_prompt(image, visual_prompt)
        if len(visual_prompt) != 1:
            raise ValueError(f"Streaming answers about one picture at a time; {len(visual_prompt)} were given.")
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
        """Which of these answers is the likeliest? Best first; the picture is read once for all of them.

        per_token  compare the mean over an answer's tokens instead of the sum (LAVIS: the sum). The sum is the answer's
                   true probability and prefers short ones; take the mean where candidates differ much in length
        """
        candidates = list(candidates)
        if not candidates or not all(text.strip() for text in candidates):
            raise ValueError("Give at least one candidate to rank, and none that is empty.")
        visual_prompt, _ = self._one_visual_prompt(image, visual_prompt)
        if len(visual_prompt) != 1:
            raise ValueError(f"Candidates are ranked for one picture at a time; {len(visual_prompt)} were given.")
        visual_prompts = visual_prompt.expand(len(candidates), -1, -1)
        scores, lengths = self.language_model.log_likelihood(visual_prompts, [prompt] * len(candidates), candidates)
        shares = (scores / lengths if per_token else scores).softmax(dim=0)
        ranked = zip(candidates, scores.tolist(), shares.tolist(), strict=True)
        return sorted((Candidate(*one) for one in ranked), key=lambda candidate: -candidate.probability)

    def _one_visual_prompt(
        self, image: ImageSource | Sequence[ImageSource] | Tensor | None, visual_prompt: Tensor | None
    ) -> tuple[Tensor, bool]:
        """-> visual_prompt [B,Q,Dl], and whether it stands for a single picture rather than a list of them."""
        if (image is None) == (visual_prompt is None):
            raise ValueError("Give the picture once: as image or as visual_prompt.")
        if visual_prompt is not None:
            return visual_prompt, len(visual_prompt) == 1
        single = isinstance(image, Image.Image | str | Path) or (isinstance(image, Tensor) and image.ndim == 3)
        return self.encode_image(image), single

    def _pixels(self, image: ImageSource | Sequence[ImageSource] | Tensor) -> Tensor:
        """-> pixels [B,3,H,W] on the image encoder's device."""
        if isinstance(image, Tensor):
            pixels = image[None] if image.ndim == 3 else image
            if pixels.ndim != 4 or pixels.shape[1] != 3:
                raise ValueError(f"Pixels have the shape [B, 3, height, width]; these have {list(image.shape)}.")
            return pixels.to(next(self.image_encoder.parameters()).device)
        pictures = [image] if isinstance(image, Image.Image | str | Path) else list(image)
        if not pictures:
            raise ValueError("There is no picture in the list; give at least one.")
        return self.image_encoder.preprocess([open_image(picture) for picture in pictures])


def split_caption(caption: str, generator: torch.Generator | None = None) -> tuple[str, str]:
    """Cut a caption before a random word: (prefix, suffix). The suffix has at least one word, the prefix may be empty.

    "a red boat" -> ("", "a red boat"), ("a", "red boat") or ("a red", "boat"), each as likely.
    """
    words = caption.split()
    if not words:
        raise ValueError("A caption is empty: there is no word to learn.")
    cut = int(torch.randint(len(words), (), generator=generator))
    return " ".join(words[:cut]), " ".join(words[cut:])


def without_text(qformer: QFormer) -> QFormer:
    """A copy of the Q-Former's query side: stage 2 reads no text with it."""
    copy = QFormer(replace(qformer.config, has_text=False))
    kept = copy.state_dict().keys()
    copy.load_state_dict({name: tensor for name, tensor in qformer.state_dict().items() if name in kept})
    return copy.to(qformer.query_tokens.device)
