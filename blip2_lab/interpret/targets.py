"""The scores that are explained: one number about an image, as a function of its pixels.

`ItmScore`, `ItcScore` and `WordScore` (the log-probability of one word of an answer) are the three scores.

Notes:

* Attention does not depend on a score, so every explanation starts with a `Score`.
* `query_weights` is the weight of each query in a score: ITM averages over queries, ITC takes the best one, a word uses
  the queries that the language model reads. With these weights, a map of Q rows becomes one map.
* A score takes pixels or image features in batches, so that captum can perturb either.
* What attends to the patches depends on the bridge (`reader_of`). The rows of a map are the Q-Former's queries, the
  latents of a resampler, or, with gated cross-attention alone, the tokens of the text. A linear projector does not
  attend: its maps come from the methods that need no attention.

Paper: sections 3.2 and 3.3. Notebook: 09.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blip2_lab.interpret.attention_maps import AttentionMaps
from blip2_lab.models.bridges import Bridge, GatedCrossAttention, QFormerBridge
from blip2_lab.models.language_model import LanguageModel, Text
from blip2_lab.models.masks import bidirectional_mask
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.stage2 import Stage2Model


def reader_of(bridge: Bridge) -> str | None:
    """The part of `attention_maps.PARTS` whose cross-attention reads the patches; None where none does."""
    if isinstance(bridge, QFormerBridge):
        return "qformer"
    if isinstance(bridge, GatedCrossAttention):
        return "bridge" if bridge.resampler is None else "resampler"
    return None


class Score:
    """One number about an image, as a function of its pixels or of its image features.

    `model` is the model that computes the score, `parts` are those whose attention contributes to it, `reader` is the
    one of them that attends to the patches (None: no part does).
    """

    parts: tuple[str, ...] = ("image_encoder", "qformer")
    reader: str | None = "qformer"

    def __init__(self, model: Stage1Model | Stage2Model) -> None:
        if model.image_encoder is None:
            raise ValueError("This model has no image encoder: there is no picture to explain.")
        self.model = model

    def __call__(self, pixels: Tensor) -> Tensor:
        """pixels [B,3,S,S] -> [B]."""
        return self.of_features(self.model.image_encoder(pixels))

    def of_features(self, image_features: Tensor) -> Tensor:
        """image_features [B,N,Dv] -> [B]."""
        raise NotImplementedError

    def probability(self, values: Tensor) -> Tensor:
        """The score as a number from 0 to 1, for curves."""
        raise NotImplementedError

    def query_weights(self, image_features: Tensor, maps: AttentionMaps) -> Tensor:
        """The weight of each row of an attention map (a query, a latent, a token of the text) in this score: [rows],
        summing to 1."""
        raise NotImplementedError


class ItmScore(Score):
    """ITM's score of a text: logit of "match" minus logit of "no match", averaged over the queries."""

    def __init__(self, model: Stage1Model, text: str) -> None:
        super().__init__(model)
        self.text = text
        self.input_ids, self.attention_mask = model.tokenize([text])

    def of_features(self, image_features: Tensor) -> Tensor:
        return self.by_query(image_features).mean(dim=1)

    def by_query(self, image_features: Tensor) -> Tensor:
        """image_features [B,N,Dv] -> the score of each query [B,Q]; ITM is their mean."""
        qformer, size = self.model.qformer, len(image_features)
        queries = qformer.config.num_query_tokens
        ids, text_mask = self.input_ids.expand(size, -1), self.attention_mask.expand(size, -1)
        mask = bidirectional_mask(queries, text_mask)
        joint = qformer(image=qformer.read_image(image_features), input_ids=ids, mask=mask, rows=queries)
        logits = self.model.itm_head(joint.query_output).float()
        return logits[..., 1] - logits[..., 0]

    def probability(self, values: Tensor) -> Tensor:
        return values.sigmoid()

    def query_weights(self, image_features: Tensor, maps: AttentionMaps) -> Tensor:
        queries = self.model.qformer.config.num_query_tokens
        return torch.full((queries,), 1 / queries, device=image_features.device)


class ItcScore(Score):
    """ITC's similarity with a text: the cosine of the best query. Only this query has a weight."""

    def __init__(self, model: Stage1Model, text: str) -> None:
        super().__init__(model)
        self.text = text
        with torch.no_grad():
            self.text_embeds = model.embed_text(*model.tokenize([text]))  # [1, E]

    def of_features(self, image_features: Tensor) -> Tensor:
        return self.by_query(image_features).max(dim=1).values

    def by_query(self, image_features: Tensor) -> Tensor:
        """image_features [B,N,Dv] -> the cosine of each query with the text [B,Q]; ITC takes the maximum."""
        return self.model.embed_image(image_features) @ self.text_embeds[0]

    def probability(self, values: Tensor) -> Tensor:
        return values.clamp(0, 1)

    def query_weights(self, image_features: Tensor, maps: AttentionMaps) -> Tensor:
        with torch.no_grad():
            cosines = self.by_query(image_features)[0]
        return torch.nn.functional.one_hot(cosines.argmax(), len(cosines)).to(cosines.dtype)


class WordScore(Score):
    """The log-probability of one word of an answer, given the words before it.

    word  its number in the answer, from 0; the log-probabilities of its tokens are added
    """

    def __init__(self, model: Stage2Model, prompt: str, answer: str, word: int = 0) -> None:
        super().__init__(model)
        language_model = model.language_model
        self.reader = reader_of(model.bridge)
        fused = ("bridge",) if self.reader == "resampler" else ()  # the text's tokens attend to the latents
        self.parts = tuple(filter(None, ("image_encoder", self.reader, *fused, "language_decoder")))
        found = answer_words(language_model, prompt, answer)
        if not 0 <= word < len(found):
            raise ValueError(f"The answer {answer!r} has {len(found)} words; there is no word number {word}.")
        self.word, self.places = found[word]
        self.prompt, self.prompt_text = language_model.prompt_texts([prompt]), prompt
        ids = answer_ids(language_model, prompt, answer)[: self.places[-1] + 1]
        ids = torch.tensor([ids], device=self.prompt.ids.device)
        self.answer = Text(ids, torch.ones_like(ids, dtype=torch.bool))

    def of_features(self, image_features: Tensor) -> Tensor:
        asked = [self.prompt_text] * len(image_features) if self.model.reads_questions else None
        return self.of_visual_prompt(self.model.visual_prompt(image_features, asked))

    def of_visual_prompt(self, visual_prompt: Tensor) -> Tensor:
        """visual_prompt [B,Q,Dl] -> [B]."""
        prompt, answer = (
            Text(t.ids.expand(len(visual_prompt), -1), t.mask.expand(len(visual_prompt), -1))
            for t in (self.prompt, self.answer)
        )
        logits = self.model.language_model.answer_logits(visual_prompt, prompt, answer)
        chosen = logits.float().log_softmax(dim=-1).gather(2, answer.ids[..., None])[..., 0]  # [B, T]
        return chosen[:, self.places].sum(dim=1)

    def probability(self, values: Tensor) -> Tensor:
        return values.exp()

    def query_weights(self, image_features: Tensor, maps: AttentionMaps) -> Tensor:
        """The attention to each query, or latent, at the step that predicts the word's first token. Where the tokens of
        the text read the patches themselves, that step has all the weight."""
        encoder_decoder, count = self.model.language_model.model.config.is_encoder_decoder, self.model.num_visual_tokens
        before = 0 if self.model.bridge.deep_fusion else count
        step = self.places[0] if encoder_decoder else before + self.prompt.ids.shape[1] + self.places[0] - 1
        if self.reader == "qformer":
            attends = "language_decoder", "cross" if encoder_decoder else "self"
        else:
            attends = "bridge", "cross"
        rows = maps.stack(*attends)[:, 0].mean(dim=(0, 1)).detach().float()
        if self.reader == "bridge":
            return torch.nn.functional.one_hot(torch.tensor(step), len(rows)).to(rows)
        return rows[step, :count] / rows[step, :count].sum()

    def row_names(self) -> list[str]:
        """What the rows of an attention map are: "q 0" for a query, "latent 0", or the token that a row predicts."""
        if self.reader != "bridge":
            name = "latent" if self.reader == "resampler" else "q"
            return [f"{name} {i}" for i in range(self.model.num_visual_tokens)]
        language_model, ids = self.model.language_model, self.answer.ids[0].tolist()
        if language_model.model.config.is_encoder_decoder:
            return [language_model.decode([token]) for token in ids]
        ids = [*self.prompt.ids[0, 1:].tolist(), *ids]
        return [*(language_model.decode([token]) for token in ids), "…"]  # the last row predicts what is not shown


def answer_ids(language_model: LanguageModel, prompt: str, answer: str) -> list[int]:
    """The token ids of this answer after this prompt, without an end token."""
    if language_model.model.config.is_encoder_decoder:
        return language_model.prompt_texts([answer]).ids[0, :-1].tolist()  # without the end token
    alone = language_model.prompt_texts([prompt]).ids.shape[1]
    return language_model.prompt_texts([f"{prompt.rstrip()} {answer}".strip()]).ids[0, alone:].tolist()


def answer_words(language_model: LanguageModel, prompt: str, answer: str) -> list[tuple[str, list[int]]]:
    """The words of an answer, each with the numbers of its tokens: `[("a", [0]), ("red", [1]), ("boat.", [2, 3])]`."""
    ids, shown, found = answer_ids(language_model, prompt, answer), "", []
    for place in range(len(ids)):
        text = language_model.decode(ids[: place + 1])
        piece = text[len(shown) :]
        if found and (not piece or not piece[0].isspace()):
            found[-1] = (found[-1][0] + piece, [*found[-1][1], place])
        else:
            found.append((piece.strip(), [place]))
        shown = text
    return found
