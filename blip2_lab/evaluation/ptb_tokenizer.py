r"""The Penn Treebank tokenizer that caption scores are defined on, without Java.

`tokenize` splits captions as pycocoevalcap does: by Stanford's `PTBTokenizer -preserveLines -lowerCase` of CoreNLP
3.4.1, then without punctuation. Published BLEU, ROUGE-L and CIDEr depend on it: `str.split` costs CIDEr a fifth.

Notes:

* The rules were worked out from what the Java tokenizer does, and are written anew. At each place the rule that
  matches most characters wins, those included that it only looks ahead at; among equal ones the first of `_RULES`.
* `_shape` replaces every character that is not ASCII by one that stands for its kind: a letter, a digit, a quote.
  Lengths stay equal, so that the rules are short, and a span of the shape is a span of the caption.
* Quirks that published scores contain, each tested: brackets become `-lrb-` and stay, because the list of punctuation
  has `-LRB-`. `€` becomes `$` and `£` becomes `#`. `!!` and `?!` stay, `!` does not. `cannot` is `can not`. `5 1/2`
  is one token with a no-break space, at which BLEU and CIDEr split it and ROUGE-L does not. Emoji beyond U+FFFF are
  left out, but in an address they stay and count as two characters: `http://😀` is one.
* A rule may look ahead into the next caption, as in the file that pycocoevalcap writes: "plan B." before a caption
  that begins with "A dog" is `plan b`, and alone `plan b.`. Blank captions between them are looked over. The last line
  of that file has no line break, so that ":)" at its very end is two tokens.
* differs from pycocoevalcap: a caption with a line separator (U+2028, U+000B, …) is one caption. There it is cut in
  two, and each caption after it is scored as another picture's.
* differs from pycocoevalcap: letters that Unicode got since 2014 are letters.

Source: pycocoevalcap 1.2 (https://pypi.org/project/pycocoevalcap/); its output is in tests/golden/ptb_tokens.json.
Paper: section 4.2. Notebook: none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import NamedTuple

#: What pycocoevalcap leaves out after tokenizing. The tokens are lower-cased by then, so that `-LRB-` never occurs.
PUNCTUATION = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))


def tokenize(captions: Iterable[str]) -> list[str]:
    """Captions -> their tokens in lower case, with spaces between them and without punctuation."""
    texts = [_one_line(caption) for caption in captions]
    text = "\n".join(texts)
    shape, place, result = text.translate(_shape), 0, []
    for caption in texts:
        end = place + len(caption)
        line = " ".join(_tokens(text, shape, place, end)).rstrip()  # also a no-break space at the end of the last token
        result.append(" ".join(token for token in line.split(" ") if token not in PUNCTUATION))
        place = end + 1
    return result


def tokens(caption: str) -> list[str]:
    """All tokens of one caption in lower case, punctuation included."""
    text = _one_line(caption)
    return _tokens(text, text.translate(_shape), 0, len(text))


def _tokens(text: str, shape: str, place: int, stop: int) -> list[str]:
    """The tokens of text[place:stop], one line; a rule may look ahead at the lines after it."""
    found: list[str] = []
    while place < stop:
        if blank := _BLANK.match(shape, place):
            place = blank.end()
            continue
        plain = _PLAIN_WORD.match(shape, place)
        if plain and (word := text[place : plain.end()].lower()) not in _SPLIT_WORDS:
            found.append(word)
            place = plain.end()
            continue
        rule, end = _longest(shape, place)
        if rule is None:
            place += 1  # a character that the tokenizer does not know
            continue
        if token := _lower(rule.write(text[place:end])):
            found.append(token)
        place = end
    return found


def _lower(token: str) -> str:
    """In lower case as in Java, which writes a sigma before a hyphen as inside a word; with whole characters again."""
    if not token.isascii():
        token = _SIGMA.sub("σ", token.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return token.lower()


def _one_line(caption: str) -> str:
    """Without line breaks; a character beyond U+FFFF as its two halves, which Java counts."""
    return _BEYOND.sub(lambda found: _halves(ord(found[0]) - 0x10000), _LINE_BREAKS.sub(" ", caption))


def _halves(code: int) -> str:
    return chr(0xD800 + (code >> 10)) + chr(0xDC00 + (code & 0x3FF))


# --------------------------------------------------------------------------------------------------------------- shape

_SIGMA = re.compile(r"Σ(?=[-_.'’]?[^\W\d_])")
_BEYOND = re.compile("[\U00010000-\U0010ffff]")
_LINE_BREAKS = re.compile("\r?\n|[\r\x0b\x0c\u2028\u2029]")

#: Characters that a rule names are kept. Others are replaced by the one that stands for their kind.
_LETTER, _DIGIT, _MARK, _SYMBOL, _UNKNOWN = "é", "٣", "\u0300", "°", "\ue000"
_KINDS = {
    "\u2000": "\u2000-\u200a\u3000",  # spaces
    "\xa0": "\xa0",
    "\xad": "\xad",
    "—": "\x96\x97\u2013-\u2015",
    "‐": "\u058a\u2010\u2011",  # hyphens inside a word
    "’": "\x92’",
    "‘": "\x91‘‛",
    "«": "\x93\x94«»‚“”„‟‹›",
    "…": "\x85…",
    "¥": "\x80¢-¥\u060b\u0e3f₠₤€￠￡￥￦",
    "½": "¼-¾⅓-⅞",
    "²": "²³¹⁰⁴-⁹",
    "₂": "₀-₉",
    "⁺": "⁺⁻₊₋",
    "٫": "٫٬",
    "⁄": "⁄",
    "、": "、",
    _SYMBOL: r"\u00a1\u00a6-\u00a9\u00ac\u00ae-\u00b1\u00b4-\u00b8\u00bf-\u00f7\u037e\u0387\u0589\u05be"
    r"\u05c0\u05c3\u05c6\u05f3-\u0603\u0606-\u060a\u060c\u0614\u061b\u061e\u061f\u066a\u066d\u06d4\u0700-\u070d\u07f6-\u07f8\u0964\u0965\u0e4f"
    r"\u1fbd\u2016\u2017\u2020-\u2023\u2030-\u2038\u203b\u203e-\u2042\u207c-\u207e\u208c-\u208e\u2100-\u214f\u2190-\u2bff"
    r"\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff65",
    # belong to words, though Unicode does not call them letters
    _MARK: r"\u02c2-\u0379\u0384\u0385\u03f6\u0483-\u0487\u055a-\u055f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    r"\u0615-\u061a\u064b-\u065e\u0670\u06d6-\u06ed\u06fd\u06fe\u070f-\u07b0\u07eb-\u07f3\u0900-\u0903\u093c-\u094e"
    r"\u0951-\u0955\u0962\u0963\u0981-\u09e3\u0a01-\u0a4f\u0a81-\u0acf\u0b82-\u0bcd\u0c01-\u0c03\u0c3e-\u0c56\u0d3e-\u0d48"
    r"\u0e31-\u0e3a\u0e47-\u0e4e\u0eb1-\u0ecd",
}
_KIND_OF = tuple((kind, re.compile(f"[{characters}]")) for kind, characters in _KINDS.items())


class _Shape(dict):
    """For `str.translate`: each code point -> the character that stands for its kind, worked out once."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = character if code < 128 else _kind(character)
        return self[code]


def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if category.startswith("L"):
        return _LETTER
    if category == "Nd":
        return _DIGIT
    return next((kind for kind, characters in _KIND_OF if characters.match(character)), _UNKNOWN)


_shape = _Shape()

# --------------------------------------------------------------------------------------------------------------- rules


class _Rule(NamedTuple):
    """`pattern`: its group 1 is the token, or all of it; the rest is looked ahead at, and counts for the length."""

    pattern: re.Pattern[str]
    write: Callable[[str], str]


def _as_it_is(token: str) -> str:
    return token


def _without_soft_hyphens(token: str) -> str:
    return token.replace("\xad", "") or "-"


def _spaces_kept(token: str) -> str:
    """A token may hold a space, which is then a no-break space, so that tokens can be joined by spaces."""
    return token.replace(" ", "\xa0")


_AMPERSAND = re.compile("&amp;", re.IGNORECASE)
_BRACKETS = str.maketrans({"(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"})
_ROUND_BRACKETS = str.maketrans({"(": "-LRB-", ")": "-RRB-"})
_FRACTIONS = {"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}  # ⅛ and others stay
_CURRENCIES = {"¢": "cents", "£": "#", "\x80": "$", "¤": "$", "₠": "$", "€": "$"}  # ¥ and others stay
_LEFT_SINGLE, _RIGHT_SINGLE = "\x91‘‛‹", "\x92’›"
_LEFT_DOUBLE, _RIGHT_DOUBLE = "\x93“«", "\x94”»"
_CURLY_QUOTES = str.maketrans(
    dict.fromkeys(_LEFT_SINGLE, "`")
    | dict.fromkeys(_RIGHT_SINGLE, "'")
    | dict.fromkeys(_LEFT_DOUBLE, "``")
    | dict.fromkeys(_RIGHT_DOUBLE, "''")
)


def _ampersand(token: str) -> str:
    return _AMPERSAND.sub("&", token)


def _bracket(token: str) -> str:
    return {"&lt;": "<", "&gt;": ">"}.get(token.lower(), token).translate(_BRACKETS)


def _round_brackets(token: str) -> str:
    return _spaces_kept(token).translate(_ROUND_BRACKETS)


def _fraction(token: str) -> str:
    return _FRACTIONS.get(token, token)


def _currency(token: str) -> str:
    return _CURRENCIES.get(token, token)


def _right_quote(token: str) -> str:
    return token.replace("&apos;", "'").replace("&quot;", "''").replace('"', "''").translate(_CURLY_QUOTES)


def _left_quote(token: str) -> str:
    return {"'": "`", '"': "``", "&quot;": "``"}.get(token, token)


def _dash(token: str) -> str:
    return "--" if len(token) in (3, 4) else token


_SPACE = "[ \t\xa0\u2000]"
_D = "[0-9٣]"
_L = "[A-Za-zé]"
_LD = "[A-Za-z0-9é٣]"
_APOSTROPHE = "(?:['’]|(?i:&apos;))"
_ANY_APOSTROPHE = "(?:['’‘`]|(?i:&apos;))"
_ENTITY = "&[aeiouAEIOU](?i:acute|grave|uml);"
_W = f"(?:[A-Za-zé\u0300\xad]|{_ENTITY})"
_WORD = f"{_W}(?:{_W}|{_D})*(?:[.!?]{_W}(?:{_W}|{_D})*)*"
_NUM = f"(?:{_D}*(?:[.:,\xad٫]{_D}+)+|{_D}+)"
_HYPHEN = "[-_‐]"
_ACRONYM = r"(?:[A-Za-z](?:\.[A-Za-z])+|(?i:(?:Canada|Sino|Korean|EU|Japan|non)-U\.S|U\.S\.-U\.K|U\.S\.-U\.S\.S\.R))"
_STOP = "[,;:、]"  # punctuation inside a sentence
_CLITIC = f"{_APOSTROPHE}(?:[msdMSD]|(?i:re|ve|ll))"
_NOT = f"(?i:n){_ANY_APOSTROPHE}(?i:t)"
_PART = f"(?:[dDoOlL]{_ANY_APOSTROPHE}{_LD})?"
_THING = f"{_PART}{_LD}+(?:{_HYPHEN}{_PART}{_LD}+)*"
_HYPHENATED = rf"[A-Za-z0-9][A-Za-z0-9.,\xad]*(?:-(?:{_ACRONYM}\.|[A-Za-z0-9\xad]+))+"
_CAPITALS = "[A-Z]+(?:(?:(?i:&amp;)|[+&])[A-Z]+)+"
_SLASHED = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}"

#: Abbreviations whose full stop belongs to them. A letter in brackets is compared with its case.
_ABBREVIATIONS = (  # before a word in lower case, mostly
    "(?i:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|Mon|Tues?|Wed|Thu(?:rs)?|Fri"
    "|Ala|Ariz|Calif|Colo|Conn|Ct|Dak|Fla|Ga|Ind|Kans?|Ky|Md|Mich|Minn|Mo|Mont|Neb|Nev|Okla|Penn|Tenn|Va|Vt|Wisc?|Wyo"
    r"|Inc|Cos?|Corp|Ltd|Plc|Rt|Bancorp|Bhd|Assn|Univ|Intl|Sys|tel|est|ext|sq|Jr|Sr|Bros|(?:Ed|Ph)\.D|Esq|Blvd|Rd|Bldg"
    "|etc|al|seq)"
    "|A(?i:z|rk)|D(?i:el)|I(?i:ll)|L(?i:a)|M(?i:ass|iss)|O(?i:re)|P(?i:a)|T(?i:ex)|W(?i:ash)|(?i:pp?t)[ye](?i:s?)"
)
_TITLES = (  # before a word with a capital, mostly
    "(?i:Mr|Mrs|Ms|Drs?|Profs?|Sens?|Reps?|Attys?|Lt|Col|Gen|Messrs|Govs?|Adm|Rev|Maj|Sgt|Cpl|Pvt|Mt|Ft|Capt|Ste?|Ave|Pres"
    "|Lieut|Hon|Brig|Co?mdr|Pfc|Spc|Supts?|Det|Adj|Adv|Asst|Assoc|Ens|Insp|Mlle|Mme|Msgr|Sfc|Dept|Invt|Elec|Natl|Ph|vs|v"
    "|Alex|Wm|Jos|Cie|cf|TREAS|a\\.k\\.a)|(?i:M)[ft](?i:g)|M(?i:iss)|[A-Za-z]"
)
#: After `C. ` these begin a sentence, with a capital: the stop is not the letter's.
_SENTENCE_STARTS = "|".join(
    f"{word[0]}(?i:{re.escape(word[1:])})"
    for word in """
        About According Additionally After An A As At But Earlier Here Her However He If In It Last Many More Mr. Ms.
        Now Once One Other Our Since She Some So Such That Their Then There These They This The We When While What Yet
        You
    """.split()
)
_BEFORE_NUMBERS = "(?i:ca|figs?|prop|nos?|art|pp|op)"

_WORDS_WITH_APOSTROPHES = (
    f"{_APOSTROPHE}(?i:n){_APOSTROPHE}?",
    f"[lLdDjJ]{_APOSTROPHE}",
    f"(?i:Dunkin|somethin|ol){_APOSTROPHE}",
    f"{_APOSTROPHE}(?i:em|cause|till?)",
    f"[A-HJ-XZn]{_ANY_APOSTROPHE}{_L}{{2,}}",
    f"{_APOSTROPHE}[2-9](?i:0s)",
    f"{_L}+[aeiouyAEIOUY]{_ANY_APOSTROPHE}[aeiouA-Z]{_L}*",
    "(?i:cont'd\\.?|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l)",
    f"[oO]{_ANY_APOSTROPHE}[oO]",
)
_HOST = r"""[^ \t\n"<>|.!?(){},]"""
_PATH = r"""(?:/[^ \t\n"<>|()]+[^ \t\n"<>|.!?(){},\-])"""
_NAME = r"""[^ \t\n"`'<>|.!?(){}$,-_]"""  # `,-_` is a range: no digit, no capital

_MAIL = r"""[^ \t\n"<>|(){}\xa0]"""
_MAIL_HOST = r"""[^ \t\n"<>|(){}.\xa0]"""
_FILE_ENDINGS = (
    "bat|bmp|c|cgi|class|cpp|dll|docx?|exe|gif|gz|h|html?|jar|java|jpe?g|mov|mp3|pdf|php|pl|png|ppt|ps|py|sql|tar|txt|wav|x"
    "|xml|zip"
)


def _rule(pattern: str, write: Callable[[str], str] = _as_it_is) -> _Rule:
    return _Rule(re.compile(pattern), write)


_TAG_NAME = r"[A-Za-z][A-Za-z0-9_:.\-]*"
_ATTRIBUTE = rf"""{_TAG_NAME}(?: *= *(?:'[^'\n]*'|"[^"\n]*"))?"""
_TAG = rf"<(?:[!?][A-Za-z\-][^>\n]*|{_TAG_NAME}(?: +{_ATTRIBUTE})* */?|/{_TAG_NAME}) *>"

#: At equal lengths an earlier rule wins.
_RULES = (
    # two words in one
    _rule("((?i:can))(?i:not)"),
    _rule("((?i:gon|got|lem|gim|wan))(?:(?<=[nN])(?i:na)|(?<=[tT])(?i:ta)|(?<=[mM])(?i:me))"),
    _rule("('(?i:t))(?i:is|was)"),  # a curly one is a quote here
    # markup and entities
    _rule(_TAG, _spaces_kept),
    _rule("—|(?i:&MD;|&mdash;|&ndash;)", lambda token: "--"),
    _rule("(?i:&amp;)", _ampersand),
    _rule(f"{_SPACE}+|(?i:&nbsp;)", lambda token: ""),
    _rule("(?i:&HT;|&TL;|&UR;|&LR;|&QC;|&QL;|&QR;|&odq;|&cdq;)|&#[0-9]+;"),
    # words and what is split from them
    _rule(f"({_WORD}){_CLITIC}", _without_soft_hyphens),
    _rule(f"([A-Za-z\xad]*[A-MO-Za-mo-z]\xad*){_NOT}", _without_soft_hyphens),
    _rule(_WORD, _without_soft_hyphens),
    *map(_rule, _WORDS_WITH_APOSTROPHES),
    _rule(f"((?i:y){_APOSTROPHE}){_L}"),
    # addresses
    _rule(r"""(?i:https?)://[^ \t\n"<>|(){}]+[^ \t\n"<>|.!?(){},\-]"""),
    _rule(rf"(?i:www)\.(?:{_HOST}+\.)+[a-zA-Z]{{2,4}}{_PATH}?"),
    _rule(rf"(?i:www)\.(?:{_HOST}+\.)+?[a-zA-Z]{{2,4}}{_PATH}"),
    _rule(rf"(?:{_NAME}+\.)+(?i:com|net|org|edu){_PATH}?"),
    _rule(rf"(?:(?i:&lt;)|<)?[a-zA-Z0-9]{_MAIL}*@(?:{_MAIL_HOST}+\.)*{_MAIL_HOST}+(?:(?i:&gt;)|>)?"),
    _rule("@[a-zA-Z_][a-zA-Z_0-9]*"),
    _rule(f"#{_W}+"),
    _rule(f"({_CLITIC})[^A-Za-z]", _right_quote),
    _rule(_NOT, _right_quote),
    # numbers
    _rule(f"{_D}{{1,2}}[-/]{_D}{{1,2}}[-/]{_D}{{2,4}}"),
    _rule(f"[-+]?{_NUM}", _without_soft_hyphens),
    _rule("⁺?(?:²+|₂+)"),
    _rule(rf"(?:{_D}{{1,4}}[- \xa0])?{_D}{{1,4}}(?:\\?/|⁄){_D}{{1,4}}", _spaces_kept),
    _rule("½", _fraction),
    # treebank's own
    _rule(r"(?i:-(?:RRB|LRB|RCB|LCB|RSB|LSB)-|C\.D\.s|pro-|anti-|S(?:&|&amp;)P-500|S(?:&|&amp;)Ls)", _ampersand),
    _rule(f"(?i:Cap){_APOSTROPHE}(?i:n)|(?i:c){_APOSTROPHE}(?i:est)"),
    _rule(_SLASHED),
    _rule(r"[A-Z]*\$|#"),
    _rule("¥", _currency),
    # abbreviations
    _rule(rf"((?:{_ABBREVIATIONS})\.)[\s\S]{{2}}"),
    _rule(rf"(?:{_ABBREVIATIONS})\."),
    _rule(rf"([A-Za-z])\.[ \t\xa0\u2000\n]+(?:{_SENTENCE_STARTS}|{_TAG})[ \t\xa0\u2000\n]"),
    _rule(rf"(?:{_ACRONYM}|{_TITLES})\."),
    _rule(rf"({_BEFORE_NUMBERS}\.)[ \t\xa0\u2000\n]?{_D}"),
    _rule(rf"({_ACRONYM})[ \t\xa0\u2000\n]"),
    _rule(rf"({_APOSTROPHE}[0-9][0-9])[ \t\xa0\u2000\n]"),
    _rule(rf"((?:(?:{_W}|{_D})+\.)+(?i:{_FILE_ENDINGS}))[ \t\xa0\u2000\n.!?,]"),
    _rule(rf"({_WORD}\.){_STOP}", _without_soft_hyphens),
    _rule(
        r"(?:\([0-9]{2,3}\)[ \xa0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \xa0])?[0-9]{2,4}[- \xa0])[0-9]{3,4}[- \xa0]?[0-9]{3,5}",
        _round_brackets,
    ),
    _rule(r"(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}", _round_brackets),
    # quotes, faces, brackets, punctuation
    _rule('("|(?i:&quot;))[A-Za-z0-9$]', _left_quote),
    _rule('"|(?i:&quot;)', _right_quote),
    _rule(r"([<>]?[:;=][\-o*']?[()DPdpO\\{@|\[\]])[^A-Za-z0-9]", _round_brackets),
    _rule(r"[\-^x=~<>']_[\-^x=~<>']|\([\-^x=~<>'][_.]?[\-^x=~<>']\)|\([\^x=~<>']-[\^x=~<>'`]\)", _round_brackets),
    _rule(r"[<>\[\](){}]|(?i:&lt;|&gt;)", _bracket),
    _rule("-+", _dash),
    _rule(r"\.{3,5}|(?:\.[ \xa0]){2,4}\.|…", lambda token: "..."),
    _rule(r"@+|#+|_+|\*+|(?:\\\*){1,3}"),
    _rule(f"{_STOP}|[?!]+|[.=/]"),
    # words with hyphens and with &
    _rule(rf"({_HYPHENATED}\.){_STOP}", _without_soft_hyphens),
    _rule(_HYPHENATED, _without_soft_hyphens),
    _rule(rf"({_THING}\.){_STOP}"),
    _rule(_THING),
    _rule(rf"({_CAPITALS}\.){_STOP}", _ampersand),
    _rule(_CAPITALS, _ampersand),
    _rule(r"[cC]\+\+|[cCfF]#"),
    _rule(r"(')[A-Za-z][^ \t\n\xa0]", _left_quote),
    _rule(_CLITIC, _right_quote),
    _rule(f"[`’‘«]{{1,2}}|''|{_APOSTROPHE}", _right_quote),
    _rule("<<|>>"),
    _rule(r"[+%&~^|\\°⁺⁄]"),
)

#: Most words of most captions: letters, then a space, at most with a comma or the like between. No rule matches more.
_PLAIN_WORD = re.compile(r"[A-Za-z]+(?=[,;:!?]?(?:[ \n]|\Z))")
_BLANK = re.compile("[ \t][ \t\xa0\u2000]*")
_SPLIT_WORDS = frozenset(("cannot", "gonna", "gotta", "lemme", "gimme", "wanna"))


def _longest(shape: str, place: int) -> tuple[_Rule | None, int]:
    """The rule that matches most characters at `place`, and where its token ends."""
    best, longest, end = None, place, place
    for rule in _RULES:
        match = rule.pattern.match(shape, place)
        if match and match.end() > longest:
            best, longest, end = rule, match.end(), match.end(rule.pattern.groups)
    return best, end
