"""Answers of several visitors computed in one batch, each as it would be alone.

`Batcher.stream` is where to begin: what `conversation.stream` is for one visitor.

Notes:

* Questions that wait are answered together: the language model computes one token for all of them in one pass. A
  question that comes later joins the next batch. At most two batches take turns, token by token, so a short question
  does not wait for the end of a long story.
* A row of a batch is what the question alone would be: padding is masked, and each visitor's sampling has its own
  random generator. In float32 the answers are the same up to rounding (tested).
* A visitor who goes away is dropped at the next token. A batch that fails is computed again question by question, so
  an error reaches only the question that causes it.
* Beam search is a batch of its own (one row for each beam), so it is computed alone.

Paper: section 4.1. Notebook: 12.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

import torch
from torch import Tensor

from blip2_lab.chat import conversation
from blip2_lab.models.decoding import Decoding, Token, choose_token
from blip2_lab.models.language_model import LanguageModel

AT_ONCE = 16  #: questions in one batch
BATCHES = 2  #: that take turns
SHORT_WAIT = 0.01  #: seconds that the first question waits for others, when nothing is computed
HEARTBEAT = 0.5  #: seconds between the signs that a question still waits for its turn, so that it can be taken back


@dataclass
class _Question:
    """A question in the line: what goes into the model, and `out`, to which its tokens go.

    `out` gets (token id, probability), then None at the end or the exception that ended it.
    """

    visual_prompt: Tensor  # [1, Q, Dl]
    prompt: str
    decoding: Decoding
    seed: int | None
    out: SimpleQueue = field(default_factory=SimpleQueue)
    gone: bool = False  # its visitor has left
    sent: int = 0  # tokens, not sent again when the answer is computed again


class _Row:
    """A question while it is answered, from its first token."""

    def __init__(self, question: _Question, start: list[int], device: torch.device) -> None:
        self.question, self.seen, self.made, self.ended = question, start, 0, False
        self.generator = None
        if question.decoding.do_sample:
            self.generator = torch.Generator(device)
            if question.seed is None:
                self.generator.seed()
            else:
                self.generator.manual_seed(question.seed)

    def choose(self, logits: Tensor, end_token_id: int) -> int:
        """The next token from logits [V]; the answer ends with its last one, or with the end token."""
        decoding = self.question.decoding
        forbidden = end_token_id if self.made < decoding.min_new_tokens else None
        token_id = choose_token(logits, self.seen, forbidden, decoding, self.generator)
        self.seen.append(token_id)
        self.made += 1
        if token_id == end_token_id:
            self.end()
            return token_id
        if self.made > self.question.sent:
            self.question.out.put((token_id, logits.softmax(dim=-1)[token_id].item()))
            self.question.sent = self.made
        if self.made == decoding.max_new_tokens:
            self.end()
        return token_id

    def end(self, error: Exception | None = None) -> None:
        self.ended = True
        self.question.out.put(error)


@dataclass
class _Batch:
    rows: list[_Row]
    logits: Tensor  # [B, V]
    state: tuple  # of `LanguageModel.next_logits`


class Batcher:
    """Answers questions for any number of threads; a thread of its own computes while there are some.

    at_once  questions in one batch; 1 computes one answer after the other
    """

    def __init__(self, language_model: LanguageModel, at_once: int = AT_ONCE) -> None:
        self.language_model, self.at_once = language_model, at_once
        self._batches_at_once = BATCHES if at_once > 1 else 1
        self._line: list[_Question] = []
        self._lock, self._beams = threading.Lock(), threading.Lock()
        self._worker: threading.Thread | None = None

    def stream(self, visual_prompt: Tensor, prompt: str, decoding: Decoding, seed: int | None) -> Iterator[Token | int]:
        """The answer's tokens about one picture [1,Q,Dl], as `conversation.stream` gives them, and 0 from time to time
        while the question waits for its turn; close the iterator to be dropped. Raises ValueError for a prompt that is
        too long."""
        if decoding.num_beams > 1 and not decoding.do_sample:
            yield from self._search(visual_prompt, prompt, decoding)
            return
        language = self.language_model
        length = language.prompt_texts([prompt]).ids.shape[1]  # here, so that what cannot be read fails here
        language.check_length(language.prefix_length(visual_prompt) + length + decoding.max_new_tokens)
        question = _Question(visual_prompt, prompt, decoding, seed)
        with self._lock:
            self._line.append(question)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="answers", daemon=True)
                self._worker.start()
        try:
            first: list = []
            while not first:
                try:
                    first.append(question.out.get(timeout=HEARTBEAT))
                except Empty:
                    yield 0
            yield from language.as_tokens(_until_end(question, first[0]))
        finally:
            question.gone = True

    def _search(self, visual_prompt: Tensor, prompt: str, decoding: Decoding) -> Iterator[Token | int]:
        """Beam search, one at a time. While it waits for its turn, 0 tokens have been tried."""
        while not self._beams.acquire(timeout=HEARTBEAT):
            yield 0
        try:
            yield from conversation.stream(self.language_model, visual_prompt, prompt, decoding)
        finally:
            self._beams.release()

    # -- the thread that computes ----------------------------------------------------------------------------------

    def _work(self) -> None:
        batches: list[_Batch] = []
        try:
            time.sleep(SHORT_WAIT if self.at_once > 1 else 0)
            self._answer_all(batches)
        except Exception as error:  # a fault of this file: told to everybody who waits, and the next question is served
            with self._lock:
                waiting, self._line, self._worker = self._line, [], None
            for question in [*waiting, *(row.question for batch in batches for row in batch.rows)]:
                question.out.put(error)

    def _answer_all(self, batches: list[_Batch]) -> None:
        """Run until no question waits. `batches`: those that take turns, changed in place."""
        while True:
            with self._lock:
                self._line = [question for question in self._line if not question.gone]
                if not batches and not self._line:
                    self._worker = None
                    return
                taken = self._take() if len(batches) < self._batches_at_once else []
            batches += self._begin(taken)
            batches[:] = [left for batch in batches for left in self._advance(batch)]

    def _take(self) -> list[_Question]:
        """The first questions in the line whose pictures have visual prompts of one shape."""
        shapes = [question.visual_prompt.shape for question in self._line]
        taken = [q for q, shape in zip(self._line, shapes, strict=True) if shape == shapes[0]][: self.at_once]
        self._line = [question for question in self._line if all(question is not one for one in taken)]
        return taken

    @torch.inference_mode()
    def _begin(self, questions: list[_Question]) -> list[_Batch]:
        """The first pass over some questions, from their beginning."""
        if not questions:
            return []
        language, rows = self.language_model, []
        try:
            prompts = language.prompt_texts([question.prompt for question in questions])
            visual_prompts = torch.cat([question.visual_prompt for question in questions])
            start = [language.model.config.decoder_start_token_id] if language.model.config.is_encoder_decoder else []
            rows = [_Row(question, [*start], visual_prompts.device) for question in questions]
            return [_Batch(rows, *language.first_logits(visual_prompts, prompts))]
        except Exception as error:
            return self._one_by_one(questions, error)

    @torch.inference_mode()
    def _advance(self, batch: _Batch) -> list[_Batch]:
        """Choose a token for each row and compute the next logits -> what is left of the batch: none, one, or, after an
        error, one batch for each of its questions."""
        language, chosen = self.language_model, []
        for row, logits in zip(batch.rows, batch.logits.float(), strict=True):
            try:
                chosen.append(row.choose(logits, language.end_token_id))
            except Exception as error:
                row.end(error)
                chosen.append(language.end_token_id)
        kept = [i for i, row in enumerate(batch.rows) if not row.ended and not row.question.gone]
        if not kept:
            return []
        rows, state = [batch.rows[i] for i in kept], batch.state
        try:
            if len(kept) < len(batch.rows):
                state = language.select_rows(state, torch.tensor(kept, device=batch.logits.device))
            tokens = batch.logits.new_tensor([[chosen[i]] for i in kept], dtype=torch.long)
            return [_Batch(rows, *language.next_logits(tokens, state))]
        except Exception as error:
            return self._one_by_one([row.question for row in rows], error)

    def _one_by_one(self, questions: list[_Question], error: Exception) -> list[_Batch]:
        """Begin again with each of several questions alone; a question that was alone already gets the error."""
        if len(questions) == 1:
            questions[0].out.put(error)
            return []
        return [batch for question in questions for batch in self._begin([question])]


def _until_end(question: _Question, found: tuple[int, float] | Exception | None) -> Iterator[tuple[int, float]]:
    """What comes for a question, `found` first; raises the exception that ended it."""
    while isinstance(found, tuple):
        yield found
        found = question.out.get()
    if found is not None:
        raise found
