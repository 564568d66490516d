"""Wordings of the harder questions, and what people know about the kinds of things.

`SIDE` shows the form: one tuple of wordings for each form of a question. harder.py fills their blanks.

Notes:

* These wordings were written without a look at the templates of the corpus, as those of phrases.py were. None is one of
  those. Templates for the corpus must not be taken from here.
* What a kind can do, is used for and has is written here with the kinds that some people would say it of as well.
  No question is asked about it where one of these is in the scene.

Notebook: 11.
"""

from __future__ import annotations

SIDE = (
    "what's {where}", "what is there {where}", "what do you see {where}", "which {things} are {where}",
    "name whatever is {where}", "{where}: what's there", "tell me what you find {where}", "what was drawn {where}",
    "and {where}, what did they draw", "look {where}, what do you notice", "what can be seen {where} of the {pic}",
    "what {things} have they put {where}", "i only care about what's {where}, what is it",
    "describe what sits {where}", "what does the {pic} have {where}", "which {thing} or {things} can you spot {where}",
)  # fmt: skip
WHERE_PHRASES = {
    "left": ("on the left", "on the left side", "on the left hand side", "over on the left"),
    "right": ("on the right", "on the right side", "on the right hand side", "over on the right"),
    "top": ("at the top", "up at the top", "at the very top"),
    "bottom": ("at the bottom", "down at the bottom", "at the very bottom"),
    "middle": ("in the middle", "right in the middle", "in the center", "in the centre"),
    "top left": ("in the top left corner", "in the upper left corner"),
    "top right": ("in the top right corner", "in the upper right corner"),
    "bottom left": ("in the bottom left corner", "in the lower left corner"),
    "bottom right": ("in the bottom right corner", "in the lower right corner"),
}

SUPERLATIVE = (
    "which {thing} is the {most}", "what is the {most} {thing} here", "what's the {most} {thing} in the {pic}",
    "name the {most} {thing}", "can you tell me the {most} {thing}", "of all the {things}, which is the {most}",
    "which one is the {most} of them", "the {most} {thing}: what is it", "what kind of {thing} is the {most} one",
    "what did they draw as the {most} {thing}", "do you know what the {most} {thing} is",
    "i'm curious what the {most} {thing} is", "say what the {most} {thing} is",
    "if you compare the {things}, which is the {most}",
)  # fmt: skip
MOST = {
    "large": ("largest", "biggest"),
    "small": ("smallest", "tiniest", "littlest"),
    "left": ("leftmost",),
    "right": ("rightmost",),
    "top": ("topmost", "highest", "uppermost"),
    "bottom": ("lowest", "bottommost"),
}

CATEGORY_COUNT = (
    "how many of the {things} are {cats}", "of everything drawn here, how many are {cats}",
    "how many {cats} did they draw", "{cats}, how many of them are there", "would you count the {cats}",
    "how many {cats} are shown", "if you count just the {cats}, how many is that", "how many {cats} can be found in it",
    "say how many {cats} there are", "what number of {cats} do you come to", "how many {cats} does it have",
    "i'd like the number of {cats}", "how many {cats} are in there", "how many {cats} would you say there are",
)  # fmt: skip
CATEGORY_WHICH = (
    "what {cats} are there", "which {cats} do you see in here", "what kinds of {cats} are in the {pic}",
    "list the {cats}", "which {cats} did they draw", "what {cats} can be seen", "{cats}: which ones are there",
    "name every {cat} in the {pic}", "tell me all the {cats}", "which {cats} have they put in the {pic}",
    "what sorts of {cats} does the {pic} have", "which of the {things} are {cats}", "what {cats} could you point at",
    "i'd like to know what {cats} you can spot",
)  # fmt: skip

CAN = (
    "which {thing} can {do}", "what in the {pic} can {do}", "what here is able to {do}",
    "name the {thing} that can {do}",
    "which of these {things} knows how to {do}", "tell me which {thing} is able to {do}", "who or what can {do}",
    "what do you see that can {do}",
)  # fmt: skip
CAN_ANY = (
    "is there something that can {do}", "can anything in the {pic} {do}", "do you see {a_thing} that's able to {do}",
    "does the {pic} show something that can {do}", "is there any {thing} here that could {do}",
    "i'm looking for something that can {do}, is it there",
)  # fmt: skip
USE = (
    "what could i use to {do}", "what would i take if i wanted to {do}", "what in the {pic} would help me {do}",
    "i want to {do}, which {thing} do i need", "which {thing} is there to {do} with", "what's here that lets you {do}",
    "which of the {things} do people use to {do}", "name the {thing} that's made to {do} with",
)  # fmt: skip
USE_ANY = (
    "is there something that people use to {do}", "do you see {a_thing} that would help me {do}",
    "could i use any {thing} here to {do}", "i'd like to {do}, is there something for that",
    "is any {thing} in the {pic} meant to {do} with", "does the {pic} have something one needs to {do}",
)  # fmt: skip
HAS = (
    "what has {part}", "which {thing} has {part}", "what in the {pic} comes with {part}",
    "{part}: which {thing} has that", "which of the {things} is the one with {part}", "name the {thing} with {part}",
    "what do you see that's got {part}", "tell me which {thing} has {part}",
)  # fmt: skip
HAS_ANY = (
    "is there something with {part}", "does anything here have {part}", "do you see {a_thing} that has {part}",
    "is there any {thing} that's got {part}", "has any of the {things} got {part}",
    "can you find something in the {pic} that has {part}",
)  # fmt: skip

PURPOSE_ANY = (
    "is there something to {do}", "is there anything to {do} here", "could i find something to {do} in the {pic}",
    "i need something to {do}, do you see any", "did they draw something to {do}",
    "does the {pic} have {a_thing} to {do}",
    "is one of the {things} something to {do}", "can you spot something to {do}", "would there be anything to {do}",
    "have you got something to {do} there",
)  # fmt: skip
PURPOSE_WHICH = (
    "what is there to {do}", "which {things} are there to {do}", "what's in the {pic} to {do}",
    "what do you see to {do}", "show me what there is to {do}", "what did they draw to {do}",
    "list whatever there is to {do}", "what have we got to {do}",
)  # fmt: skip

#: The first eight ask for things in so many words. They can be asked where the answer is "nothing".
OTHER = (
    "which other {things} are there besides {the}", "apart from {the}, which {things} do you see",
    "what other {things} are there, not counting {the}", "not counting {the}, which {things} did they draw",
    "other than {the}, which {things} can you see", "which {things} would remain without {the}",
    "without {the}, which {things} would you still see", "name all {things} but {the}",
    "what else is there besides {the}", "apart from {the}, what is in the {pic}", "everything except {the}",
    "list everything except {the}", "leave out {the}, what remains", "i already found {the}, what else is here",
    "what is in the {pic} in addition to {the}", "what keeps {the} company", "besides {the}, what did they draw",
    "list whatever isn't {the}",
)  # fmt: skip
NEGATION = (
    "which {things} are not {value}", "which {things} aren't {value}", "name the {things} that are not {value}",
    "tell me which {things} are anything but {value}", "which of the {things} would you not call {value}",
    "which {things} do you see that aren't {value}", "list every {thing} that isn't {value}",
    "leave out each {thing} that's {value}, which {things} remain",
    "what is not {value}", "what isn't {value} here", "what do you see that's not {value}",
    "what in the {pic} is not {value}", "which ones are something other than {value}",
    "name whatever isn't {value}",
)  # fmt: skip
FOR_THINGS = 8  #: so many wordings at the beginning of `OTHER` and `NEGATION`

BOTH = (
    "is there {a} and {b}", "do you see {a} and also {b}", "are {a} and {b} both in the {pic}",
    "is there both {a} and {b}", "can i find {a} together with {b} here", "{a} and {b}: are both there",
    "does the {pic} have {a} as well as {b}", "would i find {a} and {b} in it", "did they draw {a} and {b}",
    "i need {a} and {b}, do you have both",
)  # fmt: skip
EITHER = (
    "is there {a} or {b}", "do you see {a} or {b} anywhere", "does the {pic} show {a} or maybe {b}",
    "is at least one of these there: {a}, {b}", "can you spot either {a} or {b}", "is there by any chance {a} or {b}",
    "{a} or {b}: is one of them here", "have they drawn {a} or {b}", "did you notice {a} or {b}",
    "i need {a} or {b}, do you have one of them",
)  # fmt: skip

ALL = (
    "are all {several} {value}", "are all the {several} in the {pic} {value}", "is every {one} {value}",
    "is each {one} {value}", "would you say all {several} are {value}", "is it true that all {several} are {value}",
    "all {several} are {value}, aren't they", "does every {one} look {value}", "is each and every {one} {value}",
    "are these {several} all {value}", "are the {several} {value} without exception",
)  # fmt: skip
BOTH_ARE = (
    "are both {several} {value}", "are the two {several} {value}", "both {several} are {value}, right",
    "is it so that both {several} are {value}", "do both {several} look {value}",
)  # fmt: skip
SAME = (
    "do {the} and {other} have the same {colour}", "are {the} and {other} the same {colour}",
    "is {the} the same {colour} as {other}", "does the {colour} of {the} match that of {other}",
    "have {the} and {other} got one and the same {colour}", "compare {the} with {other}, is the {colour} the same",
    "{the} and {other}: same {colour}", "do {the} and {other} share a {colour}",
    "would you say {the} and {other} are of one {colour}", "is {the} drawn in the {colour} of {other}",
)  # fmt: skip

GROUP_COLOR = (
    "what {colour} are the {several}", "which {colour}s do the {several} have",
    "what are the {colour}s of the {several}",
    "tell me the {colour} of all the {several}", "the {several}, what {colour} are they",
    "in which {colour}s are the {several} drawn", "name each {colour} among the {several}",
    "what {colour} would you say the {several} are", "i see {several}, what {colour} do they have",
    "which {colour} is each of the {several}", "what {colour}s did they give the {several}",
)  # fmt: skip
GROUP_WHERE = (
    "where are the {several}", "where do you see the {several}", "where did they put the {several}",
    "tell me where the {several} are", "where can the {several} be found", "the {several}: where are they",
    "i'm looking for the {several}, where are they",
)  # fmt: skip
GROUP_POSITION = (
    "in which parts of the {pic} are the {several}", "at which spots of the {pic} are the {several}",
    "whereabouts in the {pic} are the {several}", "which positions do the {several} have",
    "locate all the {several} in the {pic}",
)  # fmt: skip

NEXT_TO = (
    "what's next to {the}", "what stands beside {the}", "which {thing} is near {the}", "what is right by {the}",
    "what is {the}'s neighbor", "what do you find close to {the}", "name the {thing} next to {the}",
    "what sits alongside {the}", "{the} has something next to it, what is it", "next to {the}, what is there",
    "tell me what is beside {the}",
)  # fmt: skip
WHICH_OF_TWO = (
    "which of the two is {rel} the other", "which one is {rel} the other", "which {thing} is {rel} the other one",
    "tell me the one that's {rel} the other", "which of the two {things} is {more}", "of the two, what is {more}",
    "one of the two {things} is {more}, which one", "out of both {things}, which is {more}",
    "which {thing} of the pair is {more}", "name the {thing} that is {more} than the other",
)  # fmt: skip

SENTENCE = (
    "describe this in one sentence", "give me a short caption", "sum it up", "what would you write under this {pic}",
    "one sentence about the {pic}", "put this {pic} into a single sentence", "in a few words, what is this",
    "tell me briefly what's in here", "caption this", "how would you caption the {pic}", "summarize the {pic}",
    "sum this {pic} up for me", "write a line about this {pic}", "make a short description",
    "in one line, what does it show", "say in a sentence what you see", "i need a caption for this",
    "what is this {pic} of, in short", "a short summary of the {pic}",
)  # fmt: skip

Kinds = tuple[str, ...]

#: What is done or had -> the kinds it is said of, and those that some people would say it of, too.
ABLE: dict[str, tuple[Kinds, Kinds]] = {
    "fly": (("bird", "plane"), ("kite", "ball")),
    "sing": (("bird",), ()),
    "swim": (("fish",), ("turtle", "boat", "bird", "cat", "ball")),
    "sail": (("boat",), ("kite",)),
    "drive": (("car",), ("train", "boat")),
    "pull wagons": (("train",), ("car",)),
    "cross the ocean": (("plane",), ("boat", "fish", "turtle", "bird")),
    "catch mice": (("cat",), ("bird",)),
    "meow": (("cat",), ()),
    "hide in a shell": (("turtle",), ()),
    "ride on rails": (("train",), ()),
}
USED: dict[str, tuple[Kinds, Kinds]] = {
    "drink tea": (("cup",), ()),
    "open a door": (("key",), ()),
    "hit nails": (("hammer",), ()),
    "keep dry": (("umbrella",), ("house", "castle", "tent", "car", "train", "tree", "boat", "plane")),
    "read in the dark": (("lamp",), ("cake",)),
    "give shade": (("tree",), ("umbrella", "house", "castle", "tent", "flower", "cactus")),
    "feed bees": (("flower",), ("tree", "cactus", "cherry", "apple")),
    "feed rabbits": (("carrot",), ("apple", "flower", "cherry", "tree", "cake")),
    "bake a pie": (("apple",), ("cherry", "carrot", "cake", "cup")),
    "make jam": (("cherry",), ("apple", "carrot")),
    "make music": (("drum",), ("bird", "cup", "hammer")),
    "go camping": (("tent",), ("car", "lamp", "cup")),
    "play with the wind": (("kite",), ("boat", "plane", "flower")),
}
PARTS: dict[str, tuple[Kinds, Kinds]] = {
    "wings": (("bird", "plane"), ("castle", "house", "kite")),
    "wheels": (("car", "train"), ("plane",)),
    "a chimney": (("house",), ("train", "castle", "boat")),
    "a tower": (("castle",), ("house",)),
    "a zipper": (("tent",), ("umbrella",)),
    "a sail": (("boat",), ("kite",)),
    "an engine": (("car",), ("train", "plane", "boat")),
    "fins": (("fish",), ("plane", "boat", "turtle")),
    "a beak": (("bird",), ("turtle",)),
    "whiskers": (("cat",), ()),
    "a shell": (("turtle",), ()),
    "a trunk": (("tree",), ("car",)),
    "petals": (("flower",), ("cactus",)),
    "needles": (("cactus",), ("tree",)),
    "candles": (("cake",), ("lamp",)),
    "a bulb": (("lamp",), ("flower", "car")),
    "a string": (("kite",), ("drum", "umbrella", "tent")),
}
PURPOSES: dict[str, tuple[Kinds, Kinds]] = {
    "eat": (("apple", "carrot", "cake", "cherry"), ("fish", "turtle", "bird", "cactus")),
    "play with": (("kite", "ball"), ("drum", "cat", "car", "train", "plane", "boat", "umbrella", "bird")),
    "live in": (("house", "castle"), ("tent", "boat", "tree", "train")),
    "drink from": (("cup",), ()),
    "travel with": (("boat", "car", "train", "plane"), ("umbrella", "tent")),
    "repair things with": (("hammer",), ("key", "lamp")),
}
