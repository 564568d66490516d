"""Talking about pictures: conversations, search in a folder, and what an answer rests on. The web page is in chat/web.

    conversation         prompts, earlier turns, streamed answers, how well a text fits
    questions            what a text asks: several questions in one, short follow-ups, what "it" is
    batching             answers of several visitors, computed in one batch
    plain_forms          a question in the form that the miniature reads best
    uses                 what things are for, in a visitor's words
    untaught             questions that the miniature was not taught: what is asked instead, or what the visitor is told
    vocabulary           slips of the keyboard, and words that a small tokenizer does not know
    decisive_words       unknown words that a question is about, so that it is refused
    near_words           words that are read as the known word nearest in meaning
    real_words           words that are near to known ones, and no slips
    small_talk           a greeting, or the bare name of a thing: what the model is not asked
    image_search         a folder of pictures, searched by a sentence or a picture
    out_of_distribution  is a picture like those the model was trained on?
    word_origin          where a word of an answer came from
    web                  the page in the browser: `blip2-lab app`

Paper: sections 4.1 and 4.4, Figure 4. Notebooks: 06, 12.
"""

from importlib import import_module
from typing import Any

#: name -> module. Imported when asked for: web/start.py says what is wrong with an option before torch is loaded.
_MODULE_OF = {
    "INSTRUCTIONS": "conversation",
    "Conversation": "conversation",
    "DrawnWorld": "out_of_distribution",
    "Match": "conversation",
    "Origin": "word_origin",
    "PictureIndex": "image_search",
    "Reply": "conversation",
    "Turn": "conversation",
    "origin": "word_origin",
    "search": "image_search",
    "search_like": "image_search",
    "read": "vocabulary",
}
__all__ = [*_MODULE_OF]  # noqa: PLE0604  the keys are strings


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
