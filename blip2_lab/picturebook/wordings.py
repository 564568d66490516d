"""The many ways in which people ask the same thing: templates of questions and instructions, as data.

A template is plain text with slots in braces and alternatives in brackets: `"what color [is|has] {ref}[ {here}|]"`.
`expand` chooses one alternative of every bracket and fills the slots. The text corpus (corpus.py) asks in these words,
so that the language model meets a visitor's language before it meets a picture; FLAN, too, had ten templates a task.

Notes:

* The held-out natural questions (evaluation) have wordings of their own; a test compares the two sets.
* `SYNONYMS` are words for kinds, sizes and colors that people use and captions do not.

Paper: section 3.4 (instruction-trained language models), 4.1 (instructed generation). Notebook: 12.
"""

from __future__ import annotations

import re
from functools import cache
from random import Random

from .scene import pick

#: Other words for what the drawn world knows by one name, singular and plural.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "boat": ("ship", "sailboat", "vessel"),
    "car": ("automobile", "auto"),
    "train": ("locomotive", "railway"),
    "plane": ("airplane", "aeroplane", "aircraft", "jet"),
    "fish": ("goldfish",),
    "bird": ("birdie", "sparrow"),
    "cat": ("kitten", "kitty", "pussycat"),
    "turtle": ("tortoise",),
    "flower": ("blossom", "daisy"),
    "cake": ("birthday cake", "pie"),
    "umbrella": ("parasol",),
    "cup": ("mug", "teacup"),
    "lamp": ("lantern", "light"),
    "ball": ("beachball",),
    "house": ("cottage", "cabin", "hut"),
    "castle": ("fortress", "palace"),
    "tent": ("teepee",),
    "large": ("big", "huge", "giant", "enormous"),
    "small": ("little", "tiny", "mini"),
    "purple": ("violet",),
    "gray": ("silver",),
    "vehicle": ("means of transport",),
    "animal": ("creature", "living creature", "pet"),
    "food": ("thing to eat", "eatable thing", "snack"),
    "plant": ("growing thing",),
    "tool": ("instrument", "useful thing"),
    "toy": ("plaything", "thing to play with"),
    "building": ("place to live", "construction"),
}

#: What is part of a background, by place and by time: true there and false elsewhere. "sky" is true everywhere.
SCENERY: dict[str, tuple[str, ...]] = {
    "meadow": ("grass", "lawn"),
    "beach": ("sea", "water", "sand", "waves", "shore", "coast"),
    "snow": ("ice", "winter"),
    "street": ("road", "pavement", "asphalt", "sidewalk"),
    "mountains": ("rocks", "peaks", "cliffs"),
    "day": ("sun", "sunshine", "sunlight", "daylight", "clouds"),
    "night": ("moon", "stars", "moonlight", "darkness"),
}

#: Things that people ask for and that no scene shows.
ABSENT: tuple[str, ...] = tuple(
    """dog puppy horse cow pig sheep goat lion tiger elephant bear monkey rabbit mouse snake frog duck chicken spider
    butterfly bee whale shark dolphin penguin dinosaur dragon person man woman boy girl child baby human king queen
    princess robot clown soldier doctor teacher face hand foot eye hat shirt shoe dress coat glove ring watch bag
    backpack box bottle glass plate bowl spoon fork knife table chair bed sofa desk door window wall mirror clock
    phone telephone computer laptop screen television radio camera book newspaper letter pen pencil paper map flag
    bicycle bike motorcycle bus truck helicopter rocket spaceship submarine ladder rope wheel bridge tower church
    school hospital shop bank fence garden fountain statue bench mailbox candle guitar piano violin trumpet
    doll puzzle balloon dice banana orange lemon pear grape strawberry tomato potato onion bread cheese egg pizza
    burger sandwich cookie chocolate salad soup bush leaf mushroom rose palm volcano rainbow lightning
    snowman""".split()
)

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
    "color": (
        "what [hue|shade|tint|tone|coloring] [is|has|does] {ref}[ have|]",
        "{ref} comes in [what|which] color",
        "which [shade|color] [was|did they] [used|use] for {ref}",
        "[specify|state|indicate|mention] the color of {ref}",
        "what color [is|has] {ref}",
        "[which|what] color does {ref} have",
        "[what is|tell me|name|give me|say] the color of {ref}",
        "{tell} [what|which] color {ref} [is|has]",
        "{ref} [is|has] [what|which] color",
        "[of what|in what|in which] color is {ref}[ painted| drawn| shown|]",
        "how is {ref} colored",
        "what color would you say {ref} is",
        "[color of|what color|which color|the color of] {ref}",
        "what is {ref} color",
        "do you know the color of {ref}",
        "what color can you see on {ref}",
        "how would you call the color of {ref}",
        "what does {ref} look like in color",
    ),
    "color choice": ("is {ref} {color} or {other}", "{color} or {other}: what color is {ref}"),
    "color check": (
        "is {ref} {color}[ in color|]",
        "{tell} [if|whether] {ref} is {color}",
        "is the color of {ref} {color}",
        "{ref} is {color}[, right|, is it not|, true or false|]",
        "does {ref} have the color {color}",
        "would you say {ref} is {color}",
        "does {ref} look {color}",
        "is it true that {ref} is {color}",
        "has {ref} a {color} color",
    ),
    "kind check": (
        "is {ref} {a}",
        "{tell} [if|whether] {ref} is {a}",
        "{ref} is {a}[, right|, is it not|, true or false|]",
        "would you say {ref} is {a}",
        "does {ref} look like {a}",
        "is it true that {ref} is {a}",
        "could {ref} be {a}",
        "do you think {ref} is {a}",
    ),
    "what": (
        "what [exactly |actually |]is {ref} [showing|meant to be|likely to be|]",
        "how would you [name|describe|call|classify] {ref}",
        "[classify|determine|specify|guess] what {ref} is",
        "what [figure|shape|element|subject] is {ref}",
        "what is the [name|kind|type|identity] of {ref}",
        "what [is|could|might] {ref}[ be|]",
        "what do you call {ref}",
        "[what|which] [kind|sort|type] of {thing} is {ref}",
        "[name|identify|recognize|tell me|say] {ref}",
        "{tell} what {ref} is",
        "what would you call {ref}",
        "what is {ref} [called|exactly|supposed to be]",
        "what [do you think|would you say] {ref} is",
        "{ref}: what is [it|that]",
        "what is that, {ref}",
        "what does {ref} show",
        "do you know what {ref} is",
        "what can {ref} be",
    ),
    "what by attribute": (
        "[what|which {thing}|which one] is {attribute}",
        "[what|which {thing}] [looks|seems] {attribute}",
        "what {thing} is {attribute}[ {here}|]",
        "what is {attribute}[ {here}|]",
        "{tell} what is {attribute}",
        "which of the {things} is {attribute}",
        "is there something {attribute}, and what is it",
    ),
    "what by position": (
        "what [sits|lies|appears|is situated|is positioned|is standing|is sitting|is lying] {where}",
        "which [figure|shape|element] is {where}",
        "[describe|mention|state] the {thing} {where}",
        "what have you got {where}",
        "what occupies the [part|area|region|space] {where}",
        "[what|which {thing}] is {where}[ of the {picture}|]",
        "what [do you see|can you see|is there|stands|is shown|is drawn|is located|is placed|can be seen] {where}",
        "what is {where} part of the {picture}",
        "{tell} what is {where}",
        "{where}, what [is there|do you see|can you see|is it]",
        "what do we have {where}",
        "what {thing} [do you see|can you find] {where}",
        "what is the {thing} {where}",
        "name the {thing} {where}",
        "which {thing} is found {where}",
    ),
    "size": (
        "what are the dimensions of {ref}",
        "is {ref} [rather|more|quite] {large} or {small}",
        "how [wide|high|sized] is {ref}",
        "is it a {large} or a {small} one, {ref}",
        "[state|specify|mention|guess] the size of {ref}",
        "is {ref} [{large} or {small}|{small} or {large}]",
        "what [size|is the size of] {ref}",
        "what size [is|has] {ref}",
        "how [big|large|small|little|tall] is {ref}",
        "{tell} [how big {ref} is|the size of {ref}|if {ref} is {large} or {small}]",
        "is {ref} a [{large} or a {small}|{small} or a {large}] one",
        "{ref} is {large} or {small}",
        "does {ref} look {large} or {small}",
        "would you say {ref} is {large} or {small}",
        "[describe|give me|name] the size of {ref}",
        "of what size is {ref}",
        "how much space does {ref} take",
    ),
    "size check": (
        "is {ref} {size}",
        "is {ref} a {size} one",
        "does {ref} look {size}",
        "would you say {ref} is {size}",
        "{tell} [if|whether] {ref} is {size}",
        "{ref} is {size}[, right|, is it not|, true or false|]",
        "is it true that {ref} is {size}",
    ),
    "position": (
        "where [exactly |precisely |]is {ref} [situated|positioned|located|standing|sitting|lying|found|visible]",
        "in [what|which] [direction|half|quarter|portion|zone|spot] is {ref}",
        "[which|what] [part|corner|side|area] of the {picture} [contains|holds|has|shows] {ref}",
        "whereabouts is {ref}",
        "[state|specify|mention|indicate|describe] [where {ref} is|the position of {ref}|the location of {ref}]",
        "where is {ref}[ {here}|]",
        "where [do you see|can you see|can i see|do i find|can i find|could i find|is placed|is located] {ref}",
        "where {here} is {ref}",
        "in [what|which] [part|corner|area|region|place|section] of the {picture} is {ref}",
        "{tell} where {ref} is",
        "what is the [position|location|place] of {ref}",
        "where exactly is {ref}",
        "[find|locate|point to|point at|show me|look for] {ref}",
        "on [what|which] side is {ref}",
        "where should i look for {ref}",
        "where would you say {ref} is",
        "where has {ref} been [drawn|placed|put]",
        "where does {ref} [stand|appear|lie|sit|show up]",
        "at [what|which] [position|place|spot] is {ref}",
        "location of {ref}",
    ),
    "side": (
        "is {ref} on the left[ side|] or on the right[ side|]",
        "is {ref} [left or right|to the left or to the right]",
        "on which side is {ref}, left or right",
        "is {ref} [more |]on the [right or the left|left or the right]",
    ),
    "height": (
        "is {ref} at the top or at the bottom",
        "is {ref} [up or down|high or low|above or below]",
        "is {ref} at the [bottom or the top|top or the bottom]",
    ),
    "position check": (
        "is {ref} {where}[ of the {picture}|]",
        "{tell} [if|whether] {ref} is {where}",
        "{ref} is {where}[, right|, is it not|, true or false|]",
        "do you see {ref} {where}",
        "is it true that {ref} is {where}",
        "does {ref} stand {where}",
        "is {where} where {ref} is",
        "can you find {ref} {where}",
    ),
    "count": (
        "what [amount|quantity] of {plural} [is there|do you see|can you see]",
        "how many {plural} altogether",
        "[state|specify|mention|determine|guess] [how many {plural} there are|the number of {plural}]",
        "how many different {plural} {seen}",
        "there are how many {plural}",
        "what is the total number of {plural}",
        "how many pieces of {singular}",
        "how many {plural} {seen}[ {here}|]",
        "[what is|tell me|give me|say] the number of {plural}[ {here}|]",
        "[count|please count|can you count|could you count|try to count] [the |all |all the |]{plural}[ {here}|]",
        "{tell} how many {plural} {seen}",
        "number of {plural}",
        "how many {plural}",
        "{plural}: how many",
        "how many of the {things} are {plural}",
        "what number of {plural} {seen}",
        "i see how many {plural}",
        "how often do you see {a}",
        "how many {plural} in total",
        "how many {plural} would you say there are",
        "in the {picture}, how many {plural} {seen}",
        "how many {plural} did the artist draw",
        "what is the count of {plural}",
    ),
    "color count": (
        "how many [different |]colors {seen}",
        "[count|tell me the number of] the [different |]colors",
        "in how many colors are the {things}",
    ),
    "count check": (
        "{are_there} {number} {plural}[ {here}|]",
        "are there exactly {number} {plural}",
        "{tell} [if|whether] there are {number} {plural}",
        "is the number of {plural} {number}",
        "is it true that there are {number} {plural}",
    ),
    "more than one": (
        "{is_there} more than one {singular}[ {here}|]",
        "are there [several|many|multiple|a few|some more] {plural}",
        "are there two or more {plural}",
        "do you see several {plural}",
    ),
    "existence": (
        "[is|was] {a} [included|contained|to be seen|to be found|among the {things}|on display|located here]",
        "are you able to see {a}",
        "can i see {a} [somewhere|anywhere|{here}|]",
        "do we have {a}",
        "does {a} exist [{here}|]",
        "have you got {a} {here}",
        "is there at least one {singular}",
        "can you [locate|detect|recognize|identify|notice] {a}",
        "[does|would] the {picture} include {a}",
        "might there be {a}",
        "is there possibly {a}",
        "has the {picture} got {a}",
        "there is no {singular}, or is there",
        "{is_there} {a}[ {here}|]",
        "{is_there} [any|some] {singular}[ {here}|]",
        "{are_there} [any |some |]{plural}[ {here}|]",
        "[is|would] {a} [visible|present|shown|in the {picture}|in this {picture}|there|here|be there|depicted|drawn]",
        "{tell} [if|whether] there is {a}",
        "any {plural}[ {here}|]",
        "[is there|do you see|can you find] {a} [somewhere|anywhere]",
        "could you see if there is {a}",
        "can {a} be seen[ {here}|]",
        "{a}, is [it|there one] in the {picture}",
        "is one of the {things} {a}",
        "look for {a}, is there one",
        "are {plural} [visible|shown|present|in the {picture}|there]",
        "does {a} appear[ {here}|]",
        "check if there is {a}",
        "did the artist draw {a}",
        "is {a} part of the {picture}",
    ),
    "something": (
        "is there [something|anything] that [is|looks|seems] {attribute}",
        "[does|would] anything [appear|seem|look] {attribute}",
        "{is_there} [something|anything|any {thing}|some {thing}|a {thing} that is] {attribute}[ {here}|]",
        "is [something|anything|any of the {things}|one of the {things}|any {thing}] {attribute}[ {here}|]",
        "are there any {attribute} {things}",
        "does anything look {attribute}",
        "do you see [something|anything] {attribute}",
    ),
    "relation": (
        "what [sits|lies|appears|is situated|is positioned|is standing] {relation} {ref}",
        "which [figure|shape|element] is {relation} {ref}",
        "who or what is {relation} {ref}",
        "[describe|mention|state] the {thing} {relation} {ref}",
        "what is {relation} {ref}",
        "[which|what] {thing} is {relation} {ref}",
        "what [do you see|can you see|is there|stands|is shown|can be seen|is located|is placed] {relation} {ref}",
        "{tell} what is {relation} {ref}",
        "{relation} {ref}, what is there",
        "what [thing |]do you find {relation} {ref}",
        "name the {thing} {relation} {ref}",
        "what is {relation} of {ref}",
        "what {thing} [do you see|can you find] {relation} {ref}",
    ),
    "relation check": (
        "is {first} {relation} {ref}",
        "{tell} [if|whether] {first} is {relation} {ref}",
        "do you see {first} {relation} {ref}",
        "is it true that {first} is {relation} {ref}",
        "{first} is {relation} {ref}[, right|, is it not|]",
        "does {first} stand {relation} {ref}",
    ),
    "comparison": (
        "{tell} which of {first} and {second} is {more}",
        "is {first} or {second} {more}",
        "which of the two is {more}: {first} or {second}",
        "which stands {more}, {first} or {second}",
        "does {first} or {second} stand {more}",
        "who is {more}: {first} or {second}",
    ),
    "category choice": (
        "{first} or {second}: which is {ref}",
        "{tell} [if|whether] {ref} is {first} or {second}",
        "what sort of thing is {ref}, {first} or {second}",
        "do you think {ref} is {first} or rather {second}",
        "where does {ref} belong: {firsts} or {seconds}",
        "is {ref} one of the {firsts} or one of the {seconds}",
    ),
    "place": (
        "what [environment|surroundings|area|region|world|spot|scenario] is [this|it|shown]",
        "[where|in which place] [is it|is the {picture}] [situated|located|playing]",
        "[which|what] [environment|surroundings|terrain|scene] [do you see|is shown|is depicted]",
        "are we [outside|outdoors], and where",
        "[state|specify|guess] the [place|location|setting]",
        "where are the {things} [located|standing|situated]",
        "what place is [this|it|that|shown|shown here|in the {picture}]",
        "which place [is shown|is this|do you see|does the {picture} show|is it|is depicted]",
        "where [was|is] this {picture} [made|taken|from|set|painted|drawn|shot]",
        "where [are we|are you|am i|is this|is that|is it|does this happen|does this take place|is the scene]",
        "what [kind|sort|type] of place [is this|is it|do you see|is shown|are we in]",
        "what is the [setting|background|location|environment|landscape|surrounding|scenery|place]",
        "what is in the background",
        "what does the [background|landscape|scenery|place] [show|look like]",
        "{tell} [where this is|what place this is|where we are|the place|the setting|where this was taken]",
        "in what [place|setting|landscape|environment] [is this|are we|are the {things}|does this happen]",
        "[name|describe|identify] the [place|setting|background|location|landscape]",
        "where is all [this|that]",
        "where are the {things}",
        "what landscape [is this|do you see]",
        "what kind of [landscape|scenery|background|setting|ground] [is it|is this|do you see|is there]",
    ),
    "place check": (
        "is [this|it|that|the place|the setting] {a_place}",
        "is [this|it|the {picture}|the scene|everything] {place}",
        "are [we|you|the {things}] {place}",
        "does the {picture} show {a_place}",
        "was this [taken|made|painted|drawn] {place}",
        "{tell} [if|whether] this is {a_place}",
        "{is_there} {a_place}[ {here}|]",
        "does this look like {a_place}",
    ),
    "place choice": (
        "is [this|it] {a_place} or {another_place}",
        "{a_place} or {another_place}",
        "are we {place} or {other_place}",
    ),
    "time": (
        "is it [morning or evening|noon or midnight], day or night",
        "[state|specify|guess] the time of day",
        "which [part|half] of the day [is it|is this|is shown]",
        "is it day there or night",
        "what [moment|time] of the day [is it|do you see]",
        "is the [sun or the moon|moon or the sun] out",
        "is it [day or night|night or day|daytime or nighttime|nighttime or daytime|dark or light]",
        "what time [is it|of day is it|of day is shown|of day is this|of the day is it|of day does the {picture} show]",
        "[when|at what time|at what time of day] [was|is] this [{picture} |][made|taken|drawn|painted|set|happening]",
        "{tell} [if|whether] it is day or night",
        "which time of day [is it|is shown|do you see]",
        "is [this|the {picture}] [by day or by night|at day or at night|a day or a night {picture}]",
        "what is the time[ of day|]",
        "does the {picture} show day or night",
        "when is this",
        "is it day or is it night[ {here}|]",
        "[time of day|day or night]",
    ),
    "day check": (
        "is it [noon|a bright day|a sunny day|morning|afternoon]",
        "do you see daylight",
        "is the sky [bright|blue|light]",
        "are we in daylight",
        "does the {picture} show [daytime|a day]",
        "is it [day|daytime|day time|light|bright|light outside|bright outside|sunny|still day|during the day]",
        "is this [by day|during the day|at daytime|a day {picture}]",
        "does the sun shine",
        "is the sun [out|shining|up|in the sky]",
        "{tell} [if|whether] it is [day|light|daytime]",
        "was this [taken|made|drawn] [by day|during the day]",
        "is it day [now|here|already|there|in the {picture}]",
    ),
    "night check": (
        "is it [midnight|evening|a dark night|pitch dark]",
        "do you see [moonlight|the moon|stars]",
        "is the sky [dark|black]",
        "does the {picture} show [nighttime|a night]",
        "is it [night|nighttime|night time|dark|dark outside|late|already night|already dark|at night]",
        "is this [by night|during the night|at night|a night {picture}]",
        "does the moon shine",
        "is the moon [out|shining|up|in the sky]",
        "are the stars [out|shining|visible]",
        "{tell} [if|whether] it is [night|dark|nighttime]",
        "was this [taken|made|drawn] [at night|during the night|in the dark]",
        "is it night [now|here|already|there|in the {picture}]",
    ),
    "category": (
        "[which|what] {category} [is there|do you see|can you see|is shown|is in the {picture}|is it|is this|is here]",
        "[what|which] [kind|sort|type] of {category} [is there|do you see|is it|is shown|is this|can you see]",
        "[name|tell me|identify] the {category}",
        "{tell} which {category} you see",
        "what {category} does the {picture} show",
        "what is the {category}[ {here}|]",
        "the {category}, what is it",
    ),
    "some listed": (
        "[which|what] {plural} [are there|do you see|can you see|are shown|are in the {picture}|are here|can you find]",
        "[name|list|tell me|show me|enumerate|mention] [the|all|all the] {plural}[ {here}|]",
        "what {plural} does the {picture} show",
        "{tell} which {plural} [you see|are there]",
        "what are the {plural}[ {here}|]",
        "what are [all |]the {plural} in the {picture}",
    ),
    "inventory": (
        "what [elements|subjects|contents|stuff|figures|shapes] "
        "[are there|do you see|can you see|are shown|are visible]",
        "what stuff is [there|here|in it]",
        "what [makes up|is included in|appears in|is contained in] the {picture}",
        "[summarize|mention|enumerate|identify] [the contents|what is there|the {things}|all {things}]",
        "what all can you [see|find|spot|notice|recognize|identify]",
        "[tell|show] me [each|every] [{thing}|single {thing}]",
        "what are the [contents|main {things}|elements|subjects] of the {picture}",
        "what is the {picture} made of",
        "walk me through the {things}",
        "what does it [show|contain|depict]",
        "whatever you see, name it",
        "what is the [subject|content|topic] of [the|this] {picture}",
        "what am i looking at",
        "what is [in the {picture}|in this {picture}|on the {picture}|shown|here|there|visible|to see|depicted|drawn]",
        "what [do you see|can you see|do you notice|can you find|can you spot|can be seen|could you see][ {here}|]",
        "what [things|objects|items] [are there|do you see|can you see|are in the {picture}|are shown|are visible]",
        "which {things} [are there|do you see|can you see|are shown|does the {picture} show|are here]",
        "[list|name|enumerate|mention] [the|all|all the|every|everything in the|the names of the] [{things}|{picture}]",
        "[list|name] [everything|all|every {thing}][ you see| you can see| that you see| {here}| that is there|]",
        "{tell} [what you see|what is there|what is in the {picture}|everything you see|what there is|what is shown]",
        "what does [the|this] {picture} [show|contain|have|have in it|depict|display|include]",
        "what is [this|that|it][ {picture} of| a {picture} of| about| showing|]",
        "what is this {picture} [of|about|showing]",
        "what are the {things}[ {here}|]",
        "what is there[ to see| in the {picture}| here|]",
        "what [all |else |]is there in the {picture}",
        "what is [going on|happening|up][ {here}|]",
        "what are [we|you] looking at",
        "what did the artist [draw|paint]",
        "[what|which {things}] [makes up|fill|are part of] the {picture}",
        "[you see what|show me what you see|say what you see|look and tell me what you see]",
        "what [have you got|do we have|have we got][ {here}|]",
        "what is on [it|this|display]",
        "which things can be found {here}",
        "everything in the {picture}",
        "what is all in the {picture}",
    ),
    "colors": (
        "[what|which] colors [are there|do you see|can you see|are in the {picture}|do the {things} have|are shown]",
        "[what|which] colors [are|have] the {things}",
        "[name|list|tell me] [the|all|all the] colors[ of the {things}|]",
    ),
    "use": (
        "what [function|job|task] does {ref} have",
        "what does {ref} serve for",
        "what [would|could] {ref} be [useful|used|needed] for",
        "what do people [typically|commonly|usually|normally] do with {ref}",
        "what is the [function|usage|job] of {ref}",
        "for what is {ref} used",
        "what is {ref} used for",
        "what [do you|do people|can you|can one|would you|could i|does one] [do with|use] {ref}[ for|]",
        "what is [the purpose|the use] of {ref}",
        "what is {ref} good for",
        "why [would|do|does] [you|people|one|somebody] [use|need|have|want] {ref}",
        "{tell} what {ref} is [used for|good for|for]",
        "what can [i|we|people] do with {ref}",
        "what is {ref} for",
        "how do [you|people|we] use {ref}",
    ),
    "can do": (
        "what [ability|abilities|skill] does {ref} have",
        "what [would|could] {ref} do",
        "what does {ref} [typically|commonly|normally|usually|like to] do",
        "what is the [function|job|ability] of {ref}",
        "how does {ref} spend its time",
        "what can {ref} do",
        "what does {ref} do[ usually| all day| normally|]",
        "what is {ref} able to do",
        "{tell} what {ref} can do",
        "what [do|would] you expect {ref} to do",
        "what is {ref} good at",
        "what is {ref} known for",
        "what is {ref} used for",
    ),
    "home": (
        "what is the [natural|usual|normal|typical] [place|home|habitat|location] of {ref}",
        "where does {ref} [typically|commonly|usually|normally] [live|stay|stand|belong]",
        "where would {ref} be [kept|stored|found|seen|placed]",
        "in what kind of place does {ref} [live|belong|stay]",
        "where does {ref} [belong|live|come from|go|normally belong|usually belong]",
        "where [do|would|could|can] [you|one|people] [usually |normally |]find {ref}[ in real life| usually|]",
        "where [would|do] [you|people] [keep|put|look for] {ref} [usually|normally|in real life]",
        "where is {ref} at home",
        "what is the home of {ref}",
        "{tell} where {ref} [belongs|lives]",
        "in what place does {ref} belong",
        "what place is right for {ref}",
    ),
    "part": (
        "what [component|feature|piece|detail|element] does {ref} have",
        "does {ref} have a part, and which",
        "which [component|piece|feature] [is part of|belongs to] {ref}",
        "what is {ref} equipped with",
        "what part can you name of {ref}",
        "what part[s|] does {ref} have",
        "what does {ref} have[ as a part|]",
        "[name|tell me] [a|one] part of {ref}",
        "which part belongs to {ref}",
        "what is [a|one] part of {ref}",
        "what is {ref} made of",
        "what do you find on {ref}",
        "{tell} [a|one] part of {ref}",
    ),
    "description": (
        "[summarize|summarise] the {picture}",
        "[provide|write|offer] a description",
        "what would you say about [the|this] {picture}",
        "explain the {picture}[ to me|]",
        "walk me through the {picture}",
        "how would you describe [it|the {picture}|this]",
        "describe the {picture}",
        "describe this {picture}",
        "please describe [the {picture}|what you see|everything|the scene|it]",
        "[describe|explain] what you see[ in detail| here|]",
        "give [me |]a [detailed |full |complete |good |]description[ of the {picture}|]",
        "can you describe [the {picture}|this {picture}|what you see|it]",
        "write a [detailed |long |full |]description[ of the {picture}|]",
        "describe everything[ you see| in the {picture}|]",
        "tell me [all|everything] about the {picture}",
        "tell me about [the|this] {picture}",
        "what does the {picture} look like",
        "describe the {picture} in detail",
        "describe it",
    ),
    "caption": (
        "write a [short |]caption[ for the {picture}| for this {picture}|]",
        "[caption|title] [this|the {picture}|this {picture}]",
        "give [me |]a [short |]caption[ for the {picture}|]",
        "describe the {picture} [in one sentence|briefly|in a few words|shortly|in short]",
        "what would be a good caption",
        "write a title[ for the {picture}|]",
        "make a caption",
        "sum up the {picture}",
    ),
    "story": (
        "tell [me |us |]a [short |little |nice |]story[ about the {picture}| about this|]",
        "write [me |]a [short |little |nice |]story[ about the {picture}|]",
        "make up a story",
        "can you tell me a story",
        "a story, please",
        "invent a story",
    ),
    "message": (
        "write a [romantic |nice |short |kind |]message that goes [with|along with|along] this {picture}",
        "write a [nice |short |kind |]message[ for the {picture}|]",
        "write a postcard",
        "write a [message|postcard|letter|card] to [a friend|my friend|my family|somebody]",
        "what would you write on a postcard",
        "greet my friend",
    ),
    "facts": (
        "write down the facts that you know about {ref}",
        "what do you know about {ref}",
        "tell me [something|more|a fact|some facts] about {ref}",
        "give me [facts|some facts|information] about {ref}",
        "tell me about {ref}",
        "do you know [something|anything] about {ref}",
    ),
}

#: What people put before and after a question. It changes nothing in the answer.
BEFORE = (
    "please,", "hey,", "hello,", "hi,", "ok,", "okay,", "so", "so,", "and", "now", "well,", "tell me:", "tell me,",
    "excuse me,", "question:", "one more question:", "quick question:", "next,", "look at the {picture}.",
    "look at this {picture}:", "in the {picture},", "in this {picture},", "from the {picture},", "for me,", "model,",
    "i wonder,", "i wonder:", "just tell me,", "be honest,", "hmm,", "oh,", "then", "also,", "and now,", "first,",
    "can you answer this:", "answer this:", "think and answer:", "my question is:", "i have a question:", "but",
    "looking at the {picture},", "given the {picture},", "according to the {picture},", "actually,", "by the way,",
)  # fmt: skip
AFTER = (
    "please", "[in|on] the {picture}", "in this {picture}", "here", "exactly", "right now", "do you think", "for me",
    "if you can see it", "in your opinion", "in one word", "in short", "i wonder", "my friend", "thanks", "thank you",
    "in the {picture}, please", "that you can see", "really", "overall", "actually", "now", "would you say",
)  # fmt: skip

#: Words that a question may have in it anywhere and that change nothing in its answer.
ANYWHERE = tuple(
    """actually really perhaps maybe possibly currently basically clearly simply just also again still honestly roughly
    probably certainly surely definitely sir dear buddy mate friend folks guys quickly kindly precisely
    specifically generally usually lovely nice cute funny pretty beautiful great wonderful strange whole entire
    main given following mentioned very quite rather too much will shall should must may might be been being got
    get let us our your my his her their because since while although though always sometimes often soon later
    today tomorrow yesterday sure correct answer reply respond question word words sentence english model
    machine test try check help need want like love hope think guess believe suppose imagine remember understand
    know wonder mean means feel ask asked asking wanted thanks cheers cool awesome amazing super fine good bad
    better best new old young some close far away""".split()
)

#: Words that people use and no template has: known, so that a question with one of them is not refused.
KNOWN = tuple(
    """not no never only above between beside near next inside outside front behind together first second third
    last middle side edge half quarter upper lower leftmost rightmost topmost uppermost lowest highest bigger
    smaller larger taller any other another else every each same both either neither alone why when who whose
    whom yes wrong right end start begin around across along through""".split()
)

UNKNOWN = "wug"  #: stands for any word that the vocabulary lacks

#: Small words that people leave out when they type in a hurry.
DROPPED = frozenset("the a an is are do you does can there of in me".split())

_GROUP = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


def expand(rng: Random, template: str, **slots: str) -> str:
    """One wording of a template: every slot filled, one alternative of every bracket chosen."""

    def fill(match: re.Match) -> str:
        name = match[1]
        return slots[name] if name in slots else FILLERS[name]

    while _SLOT.search(template):
        template = _SLOT.sub(fill, template)
    while group := _GROUP.search(template):
        template = template[: group.start()] + pick(rng, group[1].split("|")) + template[group.end() :]
    return " ".join(template.split())


def wording(rng: Random, intention: str, **slots: str) -> str:
    """The intention in one of its wordings, without a question mark."""
    return expand(rng, pick(rng, WORDINGS[intention]), **slots)


def as_typed(rng: Random, text: str) -> str:
    """The question as somebody types it: something before or after it, a small word left out, its mark or none."""
    if rng.random() < 0.25:
        text = f"{expand(rng, pick(rng, BEFORE))} {text}"
    elif rng.random() < 0.2:
        text = f"{text} {expand(rng, pick(rng, AFTER))}"
    if rng.random() < 0.12:
        words = text.split()
        draw = rng.random()
        word = UNKNOWN if draw < 0.25 else pick(rng, ANYWHERE if draw < 0.9 else KNOWN)
        words.insert(int(rng.random() * (len(words) + 1)), word)
        text = " ".join(words)
    if rng.random() < 0.08:
        words = text.split()
        small = [i for i, word in enumerate(words) if word in DROPPED]
        if small:
            del words[pick(rng, small)]
            text = " ".join(words)
    return text + ("?" if rng.random() < 0.75 else "")


@cache
def words_of_wordings() -> frozenset[str]:
    """Every word of every template and table above, without slots and punctuation."""
    texts = [text for texts in WORDINGS.values() for text in texts] + [*FILLERS.values(), *BEFORE, *AFTER]
    texts += [*ABSENT, *ANYWHERE, *KNOWN]
    texts += [text for texts in (*SYNONYMS.values(), *SCENERY.values()) for text in texts] + ["sky"]
    found = re.sub(r"\{\w+\}|[\[\]|.,:?!]", " ", " ".join(texts)).split()
    return frozenset(found)
