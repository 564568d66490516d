"""A question in the form that the miniature reads best: "isn't the cup red?" is asked as "is the cup red?".

`put_plainly` is where to begin. The answer is the same, so the visitor is not told. Questions whose answer is in
another question are in untaught.py.

Notes:

* `FORMS` are by measurement, `python -m benchmarks.forms`: "find something red" is never answered rightly. "which thing
  is red?" is, in 0.97, where one thing is; where two are, it is answered with both in 0.08, "which red things are
  there?" in 0.89 (two of a kind) and 0.64 (of two kinds).

Paper: none. Notebook: 12.
"""

from __future__ import annotations

import re

from blip2_lab.chat.decisive_words import PICTURES
from blip2_lab.chat.vocabulary import canonical
from blip2_lab.common.characters import any_of
from blip2_lab.picturebook.noun_phrases import a, plural_of
from blip2_lab.picturebook.scene import CATEGORIES, COLORS, KINDS, PLACES, SIZES
from blip2_lab.picturebook.wordings import SCENERY, SYNONYMS
from blip2_lab.picturebook.words import NUMBERS, PLACE_PHRASES

#: What may stand before a question and is no part of it.
LEAD = (
    r"(?:(?:hi|hello|hey|ok|okay|thanks|thank you|sorry|please|well|hmm|oh|cool|nice|great|good|yes|no|lol|haha|so|but)"
    r"\b[\s,.!:;-]*)*"
)
KIND_OF = {form: kind for kind in KINDS for form in (kind, plural_of(kind))}
#: "were is the cat?": where
WERE = re.compile(rf"(\W*{LEAD})were(?= (?:do|does|did|can|could|would|should|is|are)\b)", re.IGNORECASE)
#: "isn't the cup red?", "can't you see a cat?": the answer is that of the question without its "not"
DENYING = re.compile(
    rf"(?P<before>\W*{LEAD})"
    r"(?P<verb>(?:is|are|was|were|do|does|did|could|would|has|have)(?=n['’]?t| not)|can(?=['’]?t|\W?not))"
    r"(?:n['’]?t|['’]?t| ?not)(?= (?:the|that|this|it|there|an?|any|all|both|everything|you|we|i|one)\b)",
    re.IGNORECASE,
)
#: "it's day, right?", "there is a cat, isn't there?", "there is no cat, is there?": a question for yes or no
STATED = re.compile(
    rf"\W*{LEAD}(?:i (?:think|believe|guess|suppose),? (?:that )?)?(?:(?P<it>it|this|that|there)(?: is|['’]?s)|"
    r"(?P<of>the \w[^,.?!;:]*?) (?P<are>is|are)|there (?P<plural>are))(?:n['’]?t| not)?"
    r" (?P<said>[^,.?!;:]+?)"
    r"(?:, ?(?:right|correct|true|yes|no|(?:is|are) (?:it|there|they))|,? (?:is|are)(?:n['’]?t| not) (?:it|there|they)|"
    r"[,.;]? (?:am i right|is (?:that|this|it) (?:right|true|correct|so)))"
    r"\W*",
    re.IGNORECASE,
)
#: "tell me whether there are plants", "please check if the bird is below the train"
INDIRECT = re.compile(
    rf"\W*{LEAD}(?:(?:can|could|would|will) you |please )*(?:tell me|tell|say|check|see|find out|let me know|look|"
    r"(?:i (?:want|would like|need)|i['’]d like) to know|i wonder|do you know),? (?:if|whether) "
    r"(?P<who>there|it|this|(?:the|an?|any|that|these|those|all|some)(?: (?!(?:that|which|who)\b)\w+)+?)"
    r"(?P<verb> is| are| has| have| can|['’]s) (?P<rest>[^.,;?!]+)\W*",
    re.IGNORECASE,
)
OR_NOT = re.compile(r",? or (?:not|no|isn['’]?t (?:it|there))\W*$", re.IGNORECASE)
#: "are there fewer cats than dogs?"
FEWER = re.compile(
    r"\b(?:fewer|(?<=are there )less|(?<=see )less) (?P<few>\w+(?: \w+)?) than "
    r"(?P<many>\w+(?: (?!(?:in|on|here|there)\b)\w+)?)"
    r"(?= (?:in|on|here|there)\b|\W*$)",
    re.IGNORECASE,
)
#: "are there any people?": the T5 knows "person", and of "people" it says now yes, now no.
PEOPLE = re.compile(
    r"\b(?:(?P<there>(?:is|are) there)|(?P<seen>see|show|have|find)) (?:any |some )?people\b", re.IGNORECASE
)
#: What belongs to a background and is no thing of it -> the same question, asked of the place or the time.
SCENERY_OF = {
    form: f"is this {PLACE_PHRASES[name]}?" if name in PLACE_PHRASES else f"is it {name}?"
    for name, nouns in SCENERY.items()
    for noun in nouns
    for form in (noun, plural_of(noun))
}
#: "is there any water in the picture?"
SCENERY_ASKED = re.compile(
    rf"\W*{LEAD}(?:(?:is|are) there|(?:do|can|could|did) (?:you|i|we|one) (?:see|spot|find|notice)|is|are|any|"
    rf"does (?:the|this) (?:{'|'.join(sorted(PICTURES))}) (?:show|have|contain))"
    rf"(?: (?:any|some|the|an?))? (?P<noun>{'|'.join(sorted(SCENERY_OF))})"
    r"(?:,? (?:here|there|anywhere|visible|shown|(?:in|on) (?:the|this|it)(?: \w+)?|please)){0,2}\W*",
    re.IGNORECASE,
)
LOOKS = "|".join((*COLORS, *SIZES, "big", "little", "tiny"))
#: "the red house … the purple one"
ONE = re.compile(rf"\b(?P<looks>the (?:{LOOKS}) )one\b", re.IGNORECASE)

EVERY_THING = r"(?:things?|objects?|items?)"
WHICH_THINGS = rf"(?:what|which)(?: {EVERY_THING}| of the things)?"  # "which one" may be of things named before
ANYTHING = rf"(?:everything|anything|something|all|(?:(?:all )?(?:of )?(?:the )?|one |an?(?:other)? ){EVERY_THING})"
ASK_FOR = (
    "(?:(?:can|could|would) you |please )*(?:find|show me|show|name|list|spot|point to|point at|pick|choose|give me|"
    "tell me|count up|mention)"
)
ANY_OF_THEM = "(?:any|some|one|something|anything)(?: of)?(?: (?:it|them|these|those|the))?(?: things?)?"
WHAT = r"(?:what|which(?: (?:one|thing|object))?)"
LARGE, SMALL = "(?:big|large|huge)", "(?:small|little|tiny)"
A_SIZE = f"(?:an? |rather )?(?:{LARGE}|{SMALL})(?: one)?"
THERE = r"(?: (?:(?:are|do|can) (?:there|you see|i see|you find)))?"
HERE = r"(?: (?:here|there|in (?:the|this) \w+))?"
WHERE = "(?:(?:to|on) the )?(?:left|right) of|above|below|under|over|beside|next to"
PLURALS = any_of(*map(plural_of, (*KINDS, *CATEGORIES)))
LOOK = rf"(?P<look>{any_of(*COLORS)})"
NUMBER = rf"(?:{any_of(*NUMBERS)}|no|zero|an?|\d|many|more|some|any)"
PLACE = any_of(*(form for name in PLACES for form in (name, *SYNONYMS.get(name, ()))), *SCENERY_OF, "field", "road")
ONE_OF_A_KIND = rf"(?P<one>(?:the|this|that) (?:\w+ ){{0,2}}?(?:{any_of(*KINDS)}))"
CHOICE = " or ".join((", ".join(map(a, [*CATEGORIES][:-1])), a([*CATEGORIES][-1])))  #: "a vehicle, … or a building"
#: Forms of questions that the T5 reads badly -> the form of the same question that it reads best.
FORMS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"\W*{LEAD}{pattern}\W*", re.IGNORECASE), plain)
    for pattern, plain in (
        *(
            (f"{form} ?{LOOK}(?: in colou?r)?{rest}{HERE}", "which {look} things are there?")
            for form, rest in (
                (rf"{WHICH_THINGS}(?: is| are|['’]?s| looks?)(?: all)?(?: colou?red| painted)?", ""),
                (rf"{WHICH_THINGS} (?:has|have) (?:the )?colou?r", ""),
                (r"what (?:did (?:they|you|someone)|(?:has|have) \w+) (?:paint|colou?r)(?:ed)?", ""),
                (f"{ASK_FOR} {ANYTHING}(?:,? (?:that|which)(?: is| are|['’]?s)| in| of(?: the)? colou?r)?", ""),
                (f"(?:{ASK_FOR}(?: all)?(?: of)?(?: the)?)?", f" {EVERY_THING}"),
                ("is (?:there )?(?:anything|something)", ",? and (?:if so,? )?what(?: is it)?"),
            )
        ),
        (rf"where is (?:something|anything)(?: that is)? (?P<look>{any_of(*COLORS)})", "where is the {look} thing?"),
        (  # "is there cat?", as who speaks a language without articles types it
            rf"(?:is there|there is|(?:do|can) you see|can see|have you|exists|is in (?:the|this) \w+) "
            rf"(?P<one>(?:(?:{LOOKS}) )*(?:{any_of(*KINDS)})){HERE}",
            "is there {one_with_article}?",
        ),
        (rf"(?P<one>(?:(?:{LOOKS}) )*(?:{any_of(*KINDS)})) (?:present|visible|shown)", "is there {one_with_article}?"),
        (rf"(?:the )?(?P<kind>{any_of(*KIND_OF)}) (?:count|number)", "how many {plural} are there?"),
        (rf"(?:the )?(?:count|number) of (?:the )?(?P<kind>{any_of(*KIND_OF)}){HERE}", "how many {plural} are there?"),
        (rf"(?P<where>{WHERE}) (?P<one>the (?:\w+ ){{0,2}}?(?:{any_of(*KINDS)}))", "what is {where} {one}?"),
        (  # "at what place of the picture stays the castle?"
            rf"(?:at|in|on) (?:what|which) (?:place|part|spot|position)(?: of the {any_of(*PICTURES)})? "
            rf"(?:is|stays|stands|sits|lies) {ONE_OF_A_KIND}",
            "where is {one}?",
        ),
        (rf"does {ONE_OF_A_KIND} look (?P<how>{LOOKS})(?: to you)?", "is {one} {how}?"),
        (  # "is the fish red or blue or what color?"
            rf"is {ONE_OF_A_KIND} {any_of(*COLORS)}(?:(?:,| or|, or) {any_of(*COLORS)})*,? or "
            "(?:what|another|some other)(?: colou?r)?(?: is it)?",
            "what color is {one}?",
        ),
        (rf"what colou?r (?:is|was) used (?:for|on) {ONE_OF_A_KIND}", "what color is {one}?"),
        (rf".*?\bcolou?r of {ONE_OF_A_KIND},? what is it", "what color is {one}?"),
        (
            r"is (?:it|this|that) an? (?P<time>day|night)(?:time| time)? "
            rf"(?:scene|{any_of(*PICTURES)})",
            "is it {time}?",
        ),
        (rf"is there (?:a second|another) (?P<kind>{any_of(*KINDS)}){HERE}", "are there several {plural}?"),
        *(
            (rf"how many (?:{forms}){HERE}", f"how many {size} things are there?")
            for size, words in (("large", LARGE), ("small", SMALL))
            for forms in (f"{words} {EVERY_THING}{THERE}", f"(?:(?:of the )?{EVERY_THING} )?(?:are|look) {words}")
        ),
        (
            r"are (?P<both>they|both|all|(?:both |all )?(?:of )?the [\w ]+?) (?:equally|just as) (?:big|large|small)",
            "are {both} the same size?",
        ),
        (  # "is that bird a big one or a little one?"
            rf"is {ONE_OF_A_KIND},? {A_SIZE},? or {A_SIZE}",
            "how big is {one}?",
        ),
        (  # "are there one, two or no kites?"
            rf"(?:is|are) there {NUMBER}(?:(?:,| or|, or) {NUMBER})+ (?P<kind>{any_of(*KIND_OF)}){HERE}",
            "how many {plural} are there?",
        ),
        (  # "is it a beach, a street or what?"
            rf"(?:is|are|was) (?:it|this|that|we|the {any_of(*PICTURES)}) [\w ,]*?\b{PLACE}\b[\w ,]*?,? or "
            r"(?:what|where|something|somewhere|some other place|another place|elsewhere)(?: else)?",
            "what place is this?",
        ),
        (  # 0.73 without "any", 0.97 with it
            rf"(?:are|is) there (?P<several>(?:(?:{LOOKS}) )*(?:{PLURALS})){HERE}",
            "are there any {several}?",
        ),
        (
            r"(?:is|are) (?:it|this|that|we) (?:on|at|in) (?:an?|the) (?:road|highway|roadside|city street)",
            "is this on the street?",
        ),
        (  # "is it in a grassy field?"
            r"is (?:it|this|that) (?:in|on) an? (?:(?:grassy|green|open|flowery) )?field",
            "is this in a meadow?",
        ),
        (
            rf"(?:what|which) (?P<kind>{any_of(*CATEGORIES)}) (?:is|are) (?:there|here|shown){HERE}",
            "which {plural} are there?",
        ),
        (
            r"(?:what|which) (?:sort|kind|type|category|class)(?: of (?:thing|object|item)s?)? (?:is|does) "
            rf"{ONE_OF_A_KIND}(?: belong to)?",
            f"is {{one}} {CHOICE}?",
        ),
        (
            rf"(?:what(?: is|['’]?s)|what do you know about) an? (?P<one>{any_of(*KINDS)})(?: in general)?",
            "tell me about the {one}",
        ),
        (r"what(?: is|['’]?s) (?:(?:right )?at the very|on) top", "what is the highest?"),
        (rf"(?:can|could) {ANY_OF_THEM} be eaten", "is there something to eat?"),
        *(
            (
                rf"[\w ]*\bfrom {start} to {end},? {WHAT} (?:comes|is|stands) {which}",
                f"what is the {superlative} thing?",
            )
            for start, end, first, last in (
                ("left", "right", "leftmost", "rightmost"),
                ("right", "left", "rightmost", "leftmost"),
                ("top", "bottom", "highest", "lowest"),
                ("bottom", "top", "lowest", "highest"),
            )
            for which, superlative in (("first", first), ("last", last))
        ),
        (r"what(?: is|['’]?s) at the very bottom", "what is the lowest?"),
        (r"is everything an? (?P<kind>\w+)", "are all things {plural}?"),
    )
)


def put_plainly(text: str) -> str:
    """The question in a plainer form that has the same answer; every other text as it is. See also `FORMS`.

    "isn't the cup red?" -> "is the cup red?", "it's day, right?" -> "is it day?", "is the red cup below the blue one?"
    -> "is the red cup below the blue cup?", "fewer cats than dogs?" -> "more dogs than cats?", "is there any water?" ->
    "is this on the beach?": from descriptions the T5 knows what belongs to a place (0.98), from pictures it often does
    not, though it tells the place.
    """
    text = re.sub(r"\bu\b", "you", WERE.sub(r"\1where", text, count=1), flags=re.IGNORECASE)
    stated = STATED.fullmatch(text)
    if stated and not (stated["of"] and {"that", "which", "who"}.intersection(stated["of"].lower().split())):
        subject, verb = stated["it"] or stated["of"] or "there", stated["are"] or stated["plural"] or "is"
        text = f"{verb} {subject} {re.sub('^no ', 'any ', stated['said'])}?".lower()
    if indirect := INDIRECT.fullmatch(text):
        verb = "is" if indirect["verb"][0] in "'’" else indirect["verb"].strip()
        text = f"{verb} {indirect['who']} {indirect['rest']}?".lower()
    text = OR_NOT.sub("?", text)
    text = FEWER.sub(r"more \g<many> than \g<few>", _named_again(text))
    text = PEOPLE.sub(lambda found: f"{'is there' if found['there'] else found['seen']} a person", text)
    if DENYING.match(text):
        text = DENYING.sub(lambda found: found["before"] + found["verb"], text, count=1)
    if scenery := SCENERY_ASKED.fullmatch(text):
        return SCENERY_OF[scenery["noun"].lower()]
    for pattern, plain in FORMS:
        if found := pattern.fullmatch(text):
            named = {name: words and words.lower() for name, words in found.groupdict().items()}
            kind = named.get("kind", "thing")
            made = {
                "plural": plural_of(KIND_OF.get(kind, kind)),
                "one_with_article": a(named.get("one", "thing")),
            }
            return plain.format(**named, **made)
    return text


def _named_again(text: str) -> str:
    """ "the red cup … the blue one" -> "the red cup … the blue cup", where one kind of things is named."""
    named = [(word, KIND_OF.get(canonical(word[0].lower()))) for word in re.finditer(r"\w+", text)]
    named = [(word, kind) for word, kind in named if kind]
    if len({kind for _, kind in named}) != 1:
        return text
    (word, kind), *_ = named
    return text[: word.end()] + ONE.sub(rf"\g<looks>{kind}", text[word.end() :])
