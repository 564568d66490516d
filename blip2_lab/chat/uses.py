"""What things are for and where they belong, in a visitor's words, as the question that the miniature reads best.

`put_by_use` is where to begin. The answer is the same, so the visitor is not told.

Notes:

* By measurement, `python -m benchmarks.forms`: "what is a drum for?" is answered rightly in 0.30, "what do you use the
  drum for?" in 1.00; "where do you find a fish?" in 0.14, "where does a fish belong?" in 0.98.
* The T5 knows one use of each thing (picturebook/facts.py), in one wording: `SAID` has others.

Paper: none. Notebook: 12.
"""

from __future__ import annotations

import re

from blip2_lab.chat.decisive_words import PICTURES
from blip2_lab.chat.plain_forms import KIND_OF, LEAD
from blip2_lab.chat.vocabulary import canonical
from blip2_lab.common.characters import any_of
from blip2_lab.picturebook.facts import FACTS
from blip2_lab.picturebook.noun_phrases import a
from blip2_lab.picturebook.scene import COLORS

#: A use, as the T5 knows it -> other ways to say it.
SAID: dict[str, tuple[str, ...]] = {
    "read in the dark": (
        "give light",
        "give light in the dark",
        "give light when it is dark",
        "give light when it gets dark",
        "make light",
        "see in the dark",
        "see at night",
        "light up the room",
        "light",
    ),
    "keep dry": (
        "stay dry",
        "keep me dry",
        "keep you dry",
        "not get wet",
        "protect me from the rain",
        "walk in the rain",
    ),
    "hit nails": ("hit a nail", "hit the nail", "hammer a nail", "drive in a nail", "hammer nails"),
    "drink tea": (
        "drink",
        "drink from",
        "drink out of",
        "drink water",
        "drink coffee",
        "drink milk",
        "drink something",
    ),
    "open a door": ("open the door", "open doors", "unlock a door", "unlock the door", "open a lock", "lock a door"),
    "play a game": ("play football", "play soccer", "kick", "throw", "bounce"),
    "make music": ("make noise", "play music", "make a sound", "make sounds", "play a song"),
    "go camping": ("camp", "sleep outside", "sleep outdoors", "camp in the wild"),
    "celebrate a birthday": ("celebrate", "celebrate birthdays", "have a birthday party"),
    "cross the ocean": ("fly to another country", "fly over the ocean", "fly across the ocean"),
    "bake a pie": ("make a pie", "bake a cake with"),
    "give shade": ("find shade", "sit in the shade"),
    "feed bees": ("feed a bee",),
    "feed rabbits": ("feed a rabbit", "feed the rabbit"),
    "catch mice": ("catch a mouse", "hunt mice", "hunt a mouse"),
}
AGENTS = frozenset(facts.use for facts in FACTS.values() if facts.agent)
USE_OF = {said: facts.use for facts in FACTS.values() for said in (facts.use, *SAID.get(facts.use, ()))}
#: "makes music", "keeps me dry" -> the use
DOES = {f"{verb}s {rest}".strip(): use for said, use in USE_OF.items() for verb, _, rest in [said.partition(" ")]}

KIND, USE = rf"(?P<kind>{any_of(*KIND_OF)})", rf"(?P<use>{any_of(*USE_OF)})"
ONE = "(?:you|i|we|one|people|they)"
USUALLY = "(?:usually|normally|often|typically|mostly|most of the time|in real life|in general)"
USUAL = "(?:usual|normal|typical|natural|common)"
OFTEN = rf"(?: {USUALLY})?"
ASKED = r"(?:what|which(?: (?:one|thing|object|item|of (?:them|these|those|the things)))?|who)"
END = r"(?:,? (?:here|there|with|from|in|in general|usually|normally|exactly|please|pls|thanks|thank you))*"
HOME = "where does {a_kind} belong?"
WHAT_FOR = "what do you use the {kind} for?"
#: Forms of questions about a thing -> the form that is read best.
OF_A_THING: tuple[tuple[str, str], ...] = (
    (
        rf"what (?:can|do|does|could|would|should) {ONE}{OFTEN} "
        rf"(?:do (?:with|in|on)|use|need)(?: an?| the)? {KIND}(?: for)?",
        WHAT_FOR,
    ),
    (rf"why (?:do|does|would|should) {ONE} (?:need|want|have|use|buy)(?: an?| the| this| that)? {KIND}", WHAT_FOR),
    (rf"what (?:does|do|can)(?: an?| the)? {KIND}{OFTEN} do", WHAT_FOR),
    (rf"how (?:can|do|could) {ONE} use(?: an?| the)? {KIND}", WHAT_FOR),
    (  # an umbrella
        rf"{ASKED} (?:can|could|do|would|should) {ONE} (?:use|need|take|want) (?:when|if|in|against) (?:it |the )?"
        r"(?:rains|is raining|rain)",
        "what can you use to keep dry?",
    ),
    (rf"what has (?P<part>an? {any_of(*(facts.part for facts in FACTS.values()))})", "which thing has {part}?"),
)
#: A question for yes or no; "can you name …?" is none.
YES_OR_NO = re.compile(
    rf"\W*{LEAD}(?:is|are|was|were|do|does|did|has|have|can|could|will|would|should|may)(?:n['’]?t)?\b"
    r"(?! (?:(?:you|we|i|please) )+(?:tell|name|say|give|list|know|mention|describe)\b)",
    re.IGNORECASE,
)
#: Where another thing is asked for, or the color of this one or its place in the picture.
OF_ANOTHER = re.compile(
    r"\b(?:above|below|under|over|beside|between|behind|left|right|top|bottom|next to|how many|colou?rs?|"
    rf"(?:in|on|at) (?:what|which) parts?|parts? of (?:the|this) (?:\w+ )?{any_of(*PICTURES)}|"
    rf"{any_of(*COLORS)} part)\b",
    re.IGNORECASE,
)
#: What a question about one kind of things has in it, wherever it stands -> the form that is read best.
ANYWHERE: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"\b(?:{pattern})(?!\w)", re.IGNORECASE), plain)
    for pattern, plain in (
        (
            "parts?|pieces?|components?|made up of|consists? of|"
            rf"something (?:that )?(?:all|any|every|an?|each) {any_of(*KIND_OF)} (?:has|have)",
            "what part does the {kind} have?",
        ),
        # "where can you see a fish?" asks for its place in the picture, "where do you usually see a fish?" does not
        (
            rf"habitat|home of|['’]s home|{USUAL} (?:location|place|spot|home|surroundings) of|"
            rf"where .*?(?:lives?|living|grows?|stays?|belongs?|comes? from|in nature|in the wild|{USUALLY})|"
            r"(?:what|which)(?: kind of| sort of)? (?:places?|environment|surroundings) (?:do|does|would) .*?"
            r"(?:live|grow|stay|belong|come from)|"
            rf"(?:what|which) places? .*?{USUALLY}|"
            rf"where (?:do|does|would) {ONE} (?:find|keep|get|put|buy)(?: an?)? {any_of(*KIND_OF)}|"
            rf"where (?:should|would|must|do|can|could) {ONE}(?: have to)? (?:go|look)"
            rf"(?: to (?:see|find|get|buy|meet|watch)| for)(?: an?)? {any_of(*KIND_OF)}|"
            rf"where (?:are|is|can|could|do)(?: an?)? {any_of(*KIND_OF)} (?:be )?(?:found|kept|bought|grown)",
            HOME,
        ),
        (
            rf"(?:use|purpose|point|function) of|(?:used|good|useful|made|meant) for|for what|for{END}\W*$",
            WHAT_FOR,
        ),
    )
)
#: Forms of questions about a use -> the form for what is used, and for what does it itself.
OF_A_USE: tuple[tuple[str, str, str], ...] = (
    (
        rf"{ASKED} (?:can|could|do|would|should) {ONE} (?:use|need|take|have) (?:to|for) {USE}",
        "what can you use to {use}?",
        "which thing can {use}?",
    ),
    (rf"{ASKED} (?:can|could|do|would) {ONE} {USE}", "what can you use to {use}?", "which thing can {use}?"),
    (rf"{ASKED} (?:can|could|would|helps to|is able to) {USE}", "what can you use to {use}?", "which thing can {use}?"),
    (
        rf"(?:with|from) (?:what|which thing) (?:can|could) {ONE} {USE}",
        "what can you use to {use}?",
        "which thing can {use}?",
    ),
    (
        rf"(?:can|could) {ONE} {USE}(?: with| from| in)? "
        r"(?:something|anything|any of (?:them|these|the things)|one of (?:them|these|the things))",
        "is there something to {use}?",
        "is there anything that can {use}?",
    ),
    (
        rf"is there (?:something|anything) (?:that )?(?:{ONE} )?can {USE}",
        "is there something to {use}?",
        "is there anything that can {use}?",
    ),
)


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\W*{LEAD}{pattern}{END}\W*", re.IGNORECASE)


_OF_A_THING = [(_compiled(pattern), plain) for pattern, plain in OF_A_THING]
_OF_A_USE = [(_compiled(pattern), used, doing) for pattern, used, doing in OF_A_USE]
_WHICH_DOES = _compiled(rf"{ASKED} (?P<does>{any_of(*DOES)})")


def put_by_use(text: str) -> str | None:
    """The question in the form that is read best; None for a text that asks for no use, no home and no part.

    "tell me what umbrellas are for" -> "what do you use the umbrella for?", "habitat of a cat?" -> "where does a cat
    belong?", "which part of a car do you know?" -> "what part does the car have?"
    """
    for pattern, plain in _OF_A_THING:
        if found := pattern.fullmatch(text):
            named = found.groupdict()
            return _about(KIND_OF.get((named.get("kind") or "").lower(), ""), plain, part=named.get("part"))
    for pattern, used, doing in _OF_A_USE:
        if found := pattern.fullmatch(text):
            use = USE_OF[found["use"].lower()]
            return (doing if use in AGENTS else used).format(use=use)
    if found := _WHICH_DOES.fullmatch(text):
        use = DOES[found["does"].lower()]
        return f"which thing can {use}?" if use in AGENTS else f"what can you use to {use}?"
    kinds = {KIND_OF[word] for word in re.findall(r"\w+", canonical(text.lower())) if word in KIND_OF}
    if len(kinds) == 1 and not YES_OR_NO.match(text) and not OF_ANOTHER.search(text):
        for pattern, plain in ANYWHERE:
            if pattern.search(text):
                return _about(*kinds, plain)
    return None


def _about(kind: str, plain: str, **named: str | None) -> str:
    return plain.format(kind=kind, a_kind=a(kind) if kind else "", **named)
