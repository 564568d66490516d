"""Talking about pictures: conversations, search in a folder, and what an answer rests on. The web page is in chat/web.

    conversation         prompts, earlier turns, streamed answers, how well a text fits
    vocabulary           words that a small tokenizer does not know
    image_search         a folder of pictures, searched by a sentence or a picture
    out_of_distribution  is a picture like those the model was trained on?
    word_origin          where a word of an answer came from
    web                  the page in the browser: `blip2-lab app`

Paper: sections 4.1 and 4.4, Figure 4. Notebooks: 06, 12.
"""

from blip2_lab.chat.conversation import INSTRUCTIONS, Conversation, Match, Reply, Turn
from blip2_lab.chat.image_search import PictureIndex, search, search_like
from blip2_lab.chat.out_of_distribution import DrawnWorld
from blip2_lab.chat.vocabulary import unknown_words
from blip2_lab.chat.word_origin import Origin, origin

__all__ = [
    "INSTRUCTIONS",
    "Conversation",
    "DrawnWorld",
    "Match",
    "Origin",
    "PictureIndex",
    "Reply",
    "Turn",
    "origin",
    "search",
    "search_like",
    "unknown_words",
]
