"""Templates of questions and instructions, as data: some ten to forty for each intention; FLAN had ten for each task.

A template is plain text with slots in braces and alternatives in brackets: `"what color [is|has] {ref}[ {here}|]"`.
`wordings.expand` makes one wording of it.

Paper: section 3.4 (instruction-trained language models). Notebook: 12.
"""

from __future__ import annotations

from . import attributes, comparing, counting, knowledge, listing, positions, setting, talking

#: Names of slots that need no scene.
FILLERS: dict[str, str] = {
    "picture": "[picture|picture|image|photo|photograph|drawing|scene|painting|illustration|pic|artwork|snapshot]",
    "here": "[in the {picture}|in this {picture}|here|there|in this|on the {picture}|in it|in view|at all]",
    "thing": "[thing|thing|object|item]",
    "things": "[things|things|objects|items]",
    "is_there": (
        "[is there|is there|is there|do you see|can you see|does the {picture} show|does the {picture} have|"
        "does the {picture} contain|does this {picture} show|can you spot|can you find|could there be|do you spot|"
        "do you notice|would you say there is|does it show|is it true that there is|have you seen|can one see|"
        "does one see|i see|there is|am i right that there is|are we looking at|did you see|is it possible to see]"
    ),
    "are_there": (
        "[are there|are there|do you see|can you see|does the {picture} show|does the {picture} have|"
        "does this {picture} contain|can you spot|can you find|do you notice|does it show|there are|i see]"
    ),
    "seen": (
        "[are there|are there|do you see|can you see|are in the {picture}|are shown|are visible|are here|"
        "does the {picture} show|does this {picture} have|does the {picture} contain|can you spot|can you count|"
        "do you count|are in this {picture}|are on it|are present|can be seen|exist|did you find|do we have|]"
    ),
    "tell": (
        "[tell me|please tell me|can you tell me|could you tell me|say|do you know|i want to know|"
        "i would like to know|let me know|show me|give me|would you tell me|help me to see|explain]"
    ),
}

#: Wordings of each intention. Slots: {ref} "the red boat", {a} "a red boat", {plural} "red boats", {kind}, {color} …
WORDINGS: dict[str, tuple[str, ...]] = {
    intention: templates
    for part in (attributes, positions, comparing, counting, listing, knowledge, setting, talking)
    for intention, templates in part.WORDINGS.items()
}
