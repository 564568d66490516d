"""Questions in a visitor's own words about drawn scenes: what to ask, how it is asked, whether the answer is true.

    words      what people call the things of the picture book
    phrases    wordings that were written without a look at the corpus, and habits of typing
    overlap    which of these wordings the corpus has, too
    reading    what an answer states: things, numbers, colors, places
    judge      is it true of the scene, and does it answer the question?
    questions  six questions for a scene, of eighteen groups, with their truth
    ask        asks them all in batches, as the app would, and counts

    harder          harder questions, counted apart: sides, superlatives, uses, what is not red, what else there is
    harder_phrases  their wordings, and what people know about the kinds of things
    harder_judge    is an answer to one of them right?

Paper: section 4.1. Notebook: 11.
"""

from blip2_lab.evaluation.natural.ask import (
    Answer,
    Asker,
    Shown,
    ask_all,
    natural_scores,
    prompts_for,
    see_all,
    verdicts,
)
from blip2_lab.evaluation.natural.harder import harder_questions
from blip2_lab.evaluation.natural.judge import NaturalQuestion, is_right
from blip2_lab.evaluation.natural.questions import GROUPS, natural_questions

__all__ = [
    "GROUPS",
    "Answer",
    "Asker",
    "NaturalQuestion",
    "Shown",
    "ask_all",
    "harder_questions",
    "is_right",
    "natural_questions",
    "natural_scores",
    "prompts_for",
    "see_all",
    "verdicts",
]
