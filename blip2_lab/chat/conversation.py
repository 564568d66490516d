"""Talking about a picture: prompts, conversation, streaming, the confidence of each word, the match meter.

`Conversation` is where to begin.

Notes:

* A picture is encoded once (`ImageCache`). A further question about it runs the language model alone.
* A conversation is text: earlier questions and answers stand in front of the new question, in the same form. BLIP-2 was
  never trained on conversations; the frozen language model can follow them.
* An answer can be stopped: a token is computed when it is asked for, and beam search asks after each token.
* How a text is read (two questions in one, "and the boat?", what "it" is) is in questions.py.
* A language model of a thousand words corrects a slip of the keyboard and names a word that it does not know.

Paper: section 4.1, Figure 4 (instructed zero-shot generation). Notebook: 12.
"""

from __future__ import annotations

import hashlib
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from blip2_lab.chat import small_talk
from blip2_lab.chat.plain_forms import put_plainly
from blip2_lab.chat.questions import (
    after_a_list,
    as_one,
    asks,
    in_full,
    is_question,
    is_short_follow_up,
    names_nothing,
    question_mark,
    questions_in,
    refers_back,
    which_one,
    with_its_name,
)
from blip2_lab.chat.untaught import Untaught, asked_instead, told_instead
from blip2_lab.chat.uses import put_by_use
from blip2_lab.chat.vocabulary import Reading, check, for_stage1, knows_whole_words_only, read, unknown_words
from blip2_lab.common.images import ImageSource, open_image
from blip2_lab.evaluation.calibration import Calibration
from blip2_lab.models.decoding import Decoding, Token, check_seed, merge_into_words
from blip2_lab.models.language_model import LanguageModel
from blip2_lab.models.retrieval import score_pairs
from blip2_lab.models.stage2 import Stage2Model, check_answers
from blip2_lab.picturebook.scene import KINDS

#: Instructions to try with one click: Figure 4 for real weights, and the same abilities in the miniature world.
INSTRUCTIONS = {
    "micro": (
        "what is in the picture?",
        "how many things are there?",
        "what place is this?",
        "is it day or night?",
        "what colors are there?",
        "Describe the picture.",
        "Tell a story.",
    ),
    "real": (
        "What is in the photo?",
        "Is this photo unusual?",
        "Which city is this?",
        "Why do you think so?",
        "Tell me something about the history of this place.",
        "Write down the facts that you know about this flower.",
        "What are the ingredients I need to make this?",
        "Write a romantic message that goes along this photo.",
    ),
}

#: What a *miniature* is given of the conversation: "named", the name of "it" in its place (`with_its_name`) or else the
#: turn that says what it is, or "all", what real weights get. A language model that was taught no unrelated follow-up
#: questions is confused by them: `python -m benchmarks.history` measures both and says which to write here. With "all",
#: `named_before` can go. Of 162 short talks ("is there a drum?", "where is it?") the second answer was right in 0.94
#: with the name, and in 0.72 with the turn before.
MICRO_HISTORY = "named"
THEM = re.compile(r"\bthem\b", re.IGNORECASE)
HISTORY_TURNS = 4  #: earlier turns that a question carries along
HISTORY_TOKENS = 128  #: and never more than this; the oldest turn goes first
ANSWERING = Decoding(num_beams=1, max_new_tokens=60)  #: how a question is answered unless told: greedy, it streams best


@dataclass(frozen=True)
class Turn:
    """A question as it was typed, and the answer.

    stopped   the answer has not come to its end
    by_model  False: the model was not asked (a greeting, unknown words); the answer is the lab's own
    note      words of the question that were read otherwise or not at all (`vocabulary.Reading`)
    unsure    an answer of this confidence is more often wrong than right (`evaluation.calibration`); only of questions
    """

    question: str
    answer: str
    stopped: bool = False
    by_model: bool = True
    note: str = ""
    unsure: bool = False


@dataclass(frozen=True)
class Reply:
    """An answer so far: its text, its words with their probabilities, and the prompt the language model was given.

    Beam search shows nothing before its end; `searched` says how many tokens it has tried so far. `note`, `unsure`: see
    `Turn`; whether it is unsure is known at the end.
    """

    text: str
    words: tuple[Token, ...]
    prompt: str
    done: bool = False
    searched: int = 0
    note: str = ""
    unsure: bool = False


#: Which of the two scores to use; the app shows it.
WHICH_SCORE = (
    "ITM looks at picture and text together: trust it to decide whether a text fits. ITC compares two vectors made "
    "apart: take it to search among many, and compare its values only with each other."
)


@dataclass(frozen=True)
class Match:
    """How well a text fits a picture: `itc`, the cosine of the best query, and `itm`, the probability of a match."""

    itc: float
    itm: float


@dataclass(frozen=True)
class EncodedImage:
    """An encoded picture: image_features [1,N,Dv] and visual_prompt [1,Q,Dl]."""

    image_features: Tensor
    visual_prompt: Tensor


class ImageCache:
    """Encodes each picture once. Pictures are identified by their pixels; the last `capacity` used are kept."""

    def __init__(self, model: Stage2Model, capacity: int = 16) -> None:
        self.model = model
        self.capacity = capacity
        self._encoded: OrderedDict[bytes, EncodedImage] = OrderedDict()
        self._one_at_a_time = threading.Lock()

    @torch.no_grad()
    def encode(self, image: ImageSource) -> EncodedImage:
        """The picture's image features and visual prompt, from the cache where they are in it.

        image  anything that `open_image` reads, read as `Stage2Model.generate` reads it
        """
        image = open_image(image)
        key = hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).digest()
        with self._one_at_a_time:
            if key not in self._encoded:
                features = self.model.image_encoder(self.model.image_encoder.preprocess([image]))
                self._encoded[key] = EncodedImage(features, self.model.visual_prompt(features))
            self._encoded.move_to_end(key)
            while len(self._encoded) > self.capacity:
                self._encoded.popitem(last=False)
            return self._encoded[key]


@dataclass
class Conversation:
    """Questions about one picture, each with the earlier turns in front of it.

    `turns` grows while an answer streams: an answer that was stopped halfway stays, as far as it got.
    `calibration` says which answers are unsure; without it none is. `streaming` computes the answer: None is `stream`
    with this model, and `batching.Batcher.stream` the same for many visitors at once.
    """

    model: Stage2Model
    encoded: EncodedImage
    turns: list[Turn] = field(default_factory=list)
    history_turns: int = HISTORY_TURNS
    calibration: Calibration | None = None
    streaming: Callable[[Tensor, str, Decoding, int | None], Iterator[Token | int]] | None = None

    @classmethod
    def about(cls, model: Stage2Model, image: ImageSource, calibration: Calibration | None = None) -> Conversation:
        """Begin to talk about a picture. Raises ValueError for a model that writes no answers."""
        check_answers(model)
        return cls(model, ImageCache(model).encode(image), calibration=calibration)

    def prompt(self, text: str) -> str:
        """What the language model reads. Raises ValueError for a text it should not be given (see `check` and `read`).

        A question takes the paper's form, after the last turns that were questions too, so that "it" has a meaning:
            Question: which city is this? Short answer: singapore. Question: why do you think so? Short answer:
        At most `history_turns` of them and HISTORY_TOKENS tokens; the oldest goes first. FlanT5 was trained on 512
        tokens and BLIP-2 on 32 of text, so a long history costs more than it tells. A miniature may get the name of
        "it", or only the turn that explains it, see MICRO_HISTORY (differs from the paper's conversations).
        An instruction ("Describe the picture.") and a text that brings its own form ("Question: …") go as they are.
        """
        tokenizer = self.model.language_model.tokenizer
        miniature = knows_whole_words_only(tokenizer)
        is_asked = asks if miniature else is_question
        answered = [t for t in self.turns if t.answer.strip() and t.by_model]
        typed = check(text)
        text = as_read(tokenizer, typed, follows=bool(answered))
        if not is_asked(text):
            return text
        form = self.model.language_model.question_prompt
        asked = form.format(question_mark(text))
        turns = [replace(t, question=as_read(tokenizer, t.question, follows=i > 0)) for i, t in enumerate(answered)]
        turns = [t for t in turns if is_asked(t.question)]
        if MICRO_HISTORY == "named" and miniature:
            named = None
            if THEM.search(typed):  # where nothing says what they are, `read` makes "the things" of "them"
                about_them = as_read(tokenizer, THEM.sub("they", typed), follows=bool(answered))
                several = named_before(turns, about_them)
                named = with_its_name(about_them, several[-1].question) if several else None
            answered_before, turns = turns, named_before(turns, text)
            if turns and not named:
                in_words = with_its_name if refers_back(text) else after_a_list
                named = in_words(text, turns[-1].question)
            if not named and (whole := _whole(answered_before)):
                named = which_one(text, whole[-1].question)
            if named and not unknown_words(tokenizer, named):
                turns, asked = [], form.format(question_mark(_plainly(named)))
        turns = turns[-self.history_turns :] if self.history_turns else []
        past = [f"{form.format(question_mark(t.question))} {t.answer.strip().rstrip('.')}." for t in turns]
        while past and _num_tokens(self.model.language_model, " ".join([*past, asked])) > HISTORY_TOKENS:
            past = past[1:]
        return " ".join([*past, asked])

    def ask(self, text: str, decoding: Decoding | None = None, *, seed: int | None = None) -> Iterator[Reply]:
        """The growing answer. Close the iterator to stop the model. Greedy by default: it streams best.

        `seed` makes sampling repeatable. A miniature is not asked small talk (`small_talk.reply`). Several questions in
        one text are asked one by one (`questions_in`): each is a turn of its own, and the replies tell all answers.
        Raises ValueError before the first reply when the text cannot be asked.
        """
        if seed is not None:
            check_seed(seed)
        if decoding is not None and not isinstance(decoding, Decoding):
            raise ValueError(f"decoding is {decoding!r:.60}; it must be a Decoding, such as Decoding(num_beams=1).")
        question, tokenizer = check(text), self.model.language_model.tokenizer
        if not knows_whole_words_only(tokenizer):
            return self._ask_one(question, decoding or ANSWERING, seed)
        if said := small_talk.reply(question):
            return self._say(question, said)
        questions = questions_in(question)
        if len(questions) == 1:
            return self._ask_one(questions[0], decoding or ANSWERING, seed)
        for one in questions:  # what cannot be read is refused before any is answered
            read_question(tokenizer, one)
        as_typed = all(one.rstrip("? ") in question for one in questions)
        note = "" if as_typed else f"I asked: {', '.join(f'“{one}”' for one in questions)}."
        return self._ask_each(questions, decoding or ANSWERING, seed, note)

    def _ask_one(self, question: str, decoding: Decoding, seed: int | None) -> Iterator[Reply]:
        note = read_question(self.model.language_model.tokenizer, question).note
        return self._answer(question, self.prompt(question), decoding, seed, note)

    def _ask_each(self, questions: Sequence[str], decoding: Decoding, seed: int | None, note: str) -> Iterator[Reply]:
        answered: list[Reply] = []
        for question in questions:
            for reply in self._ask_one(question, decoding, seed):
                done, so_far = reply.done and question is questions[-1], joined([*answered, reply])
                yield replace(so_far, done=done, note=" ".join(filter(None, (note, so_far.note))))
            answered.append(reply)

    def _say(self, question: str, said: str) -> Iterator[Reply]:
        self.turns.append(Turn(question, said, by_model=False))
        yield Reply(said, (), "", done=True)

    def _answer(self, question: str, prompt: str, decoding: Decoding, seed: int | None, note: str) -> Iterator[Reply]:
        tokens: list[Token] = []
        streaming = self.streaming or partial(stream, self.model.language_model)
        self.turns.append(Turn(question, "", stopped=True, note=note))
        visual_prompt = self.encoded.visual_prompt
        if self.model.reads_questions:
            with torch.no_grad():
                visual_prompt = self.model.visual_prompt(self.encoded.image_features, [prompt])
        for token in streaming(visual_prompt, prompt, decoding, seed):
            searched = token if isinstance(token, int) else 0
            if isinstance(token, Token):
                tokens.append(token)
            answer = "".join(token.text for token in tokens).strip()
            self.turns[-1] = Turn(question, answer, stopped=True, note=note)
            yield Reply(answer, tuple(merge_into_words(tokens)), prompt, searched=searched, note=note)
        confidence = math.prod(token.probability for token in tokens)
        # a description can be said in many ways, each of which is unlikely: the calibration is one of questions
        is_asked = prompt.endswith(self.model.language_model.question_prompt.partition("{}")[2])
        unsure = is_asked and self.calibration is not None and self.calibration.is_unsure(confidence)
        self.turns[-1] = Turn(question, self.turns[-1].answer, note=note, unsure=unsure)
        found = tuple(merge_into_words(tokens))
        yield Reply(self.turns[-1].answer, found, prompt, done=True, note=note, unsure=unsure)

    def match(self, text: str) -> Match:
        """How well a text fits the picture, by stage 1. Raises ValueError when there is no stage 1 or no text."""
        if self.model.stage1 is None:
            raise ValueError("This model was loaded without stage 1, which matches pictures and texts.")
        text = for_stage1(self.model.stage1.tokenizer, check(text, "sentence", "a red boat on the beach."))
        with torch.no_grad():
            itc, itm = score_pairs(self.model.stage1, self.encoded.image_features, *self.model.stage1.tokenize([text]))
        return Match(itc.item(), itm.item())


# ------------------------------------------------------------------------------------------------------------ prompts


def first_prompt(model: Stage2Model, text: str) -> str:
    """What the language model reads when a conversation begins with this text, whatever the picture is.

    Raises ValueError as `Conversation.ask` does.
    """
    no_picture = torch.empty(0)
    return Conversation(model, EncodedImage(no_picture, no_picture)).prompt(text)


def as_read(tokenizer, text: str, follows: bool) -> str:
    """What is asked of the model for a text: slips corrected, and for a miniature a short question in full.

    follows  there are earlier turns (see `in_full`)
    """
    text = read_question(tokenizer, text).text
    full = in_full(_plainly(text), follows) if knows_whole_words_only(tokenizer) else text
    return text if unknown_words(tokenizer, full) else full  # a miniature of another world lacks the words of this one


def read_question(tokenizer, text: str) -> Reading:
    """What is read of a text; for the miniature, with the question that it is asked instead of one it was not taught.

    Raises UnknownWords as `vocabulary.read` does, and Untaught for what the miniature cannot answer in other words.
    """
    is_miniature = knows_whole_words_only(tokenizer)
    if not is_miniature or unknown_words(tokenizer, " ".join(KINDS)):  # one of another world was taught other things
        return read(tokenizer, text)
    if instead := asked_instead(text):
        return Reading(instead[1], corrected=(instead,))
    if told := told_instead(text):
        raise Untaught(told)
    return read(tokenizer, _plainly(text))  # "fewer" is unknown; "more", in its place, is known


def _plainly(text: str) -> str:
    plain = put_plainly(as_one(text))
    return put_by_use(plain) or plain


def joined(replies: Sequence[Reply]) -> Reply:
    """The replies to several questions as one; what is said of the prompt and the search is of the last."""
    words: list[Token] = []
    for reply in filter(lambda reply: reply.words, replies):
        if words:
            words[-1] = replace(words[-1], text=f"{words[-1].text};")
        words += reply.words
    return replace(
        replies[-1],
        text="; ".join(reply.text for reply in replies if reply.text),
        words=tuple(words),
        note=" ".join(dict.fromkeys(reply.note for reply in replies if reply.note)),
        unsure=any(reply.unsure for reply in replies),
    )


def named_before(turns: Sequence[Turn], question: str) -> list[Turn]:
    """The turn that the question needs: the last that named a thing for an "it", the last whole question for a short
    one ("and the boat?"), and else none."""
    if is_short_follow_up(question):
        return _whole(turns)[-1:]
    naming = [t for t in turns if not refers_back(t.question) and not names_nothing(t.question)]
    return naming[-1:] if refers_back(question) else []


def _whole(turns: Sequence[Turn]) -> list[Turn]:
    """The turns whose question needs no other turn."""
    return [t for t in turns if not refers_back(t.question) and not is_short_follow_up(t.question)]


def _num_tokens(language_model: LanguageModel, text: str) -> int:
    return language_model.prompt_texts([text]).ids.shape[1]


# ---------------------------------------------------------------------------------------------------------- streaming


def stream(
    language_model: LanguageModel,
    visual_prompt: Tensor,
    prompt: str,
    decoding: Decoding,
    seed: int | None = None,
    *,
    heartbeat: float = 0.1,
) -> Iterator[Token | int]:
    """The answer's tokens about one picture [1,Q,Dl]; close the iterator and the model stops within a token.

    Beam search knows its answer only at the end: until then the number of tokens it has tried comes every `heartbeat`
    seconds, so that a caller can show progress and stop in between. `seed` makes sampling repeatable.
    """
    if seed is not None:
        torch.manual_seed(seed)
    if decoding.do_sample or decoding.num_beams == 1:
        yield from language_model.stream(visual_prompt, prompt, decoding)
        return
    text = language_model.prompt_texts([prompt])
    stop, searched = threading.Event(), 0

    def asked() -> bool:
        nonlocal searched
        searched += 1
        return stop.is_set()

    with ThreadPoolExecutor(1) as background:
        search = background.submit(language_model.generate_ids, visual_prompt, text, decoding, stop=asked)
        try:
            while not wait([search], heartbeat).done:
                yield searched
        finally:
            stop.set()
    (ids,) = search.result()
    shown = ""
    for i, probability in enumerate(language_model.probabilities(visual_prompt, text, ids)):
        answer = language_model.decode(ids[: i + 1])
        if answer.endswith("\N{REPLACEMENT CHARACTER}"):
            continue  # half a character: its other bytes are in the next token
        yield Token(answer[len(shown) :], probability)
        shown = answer
