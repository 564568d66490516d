"""The micro models' tokenizers: one word, one token, over the closed vocabulary of the picture-book world.

Notes:

* Three tokenizers over the same words, each with the special tokens and ids of the model it stands for.
* Like T5's, a token carries the space before it (`▁boat`), so decoding gives back the text, punctuation included.

Paper: section 3.2 ([CLS] and the new [DEC]). Notebook: 07.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .corpus import vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

PUNCTUATION = tuple(".,:?!")
#: What people type and the vocabulary does not know, as (pattern, replacement), in order.
SPELLINGS = (
    (r"[’`´]", "'"),
    (r"\bcan'?t\b|\bcannot\b", "can not"),
    *((rf"\b{verb}n'?t\b", f"{verb} not") for verb in "is are do does did was has would could".split()),
    *((rf"\b{word}'?s\b", f"{word} is") for word in "what where there that who how here when".split()),
    (r"'s\b", " is"),  # it's, the boat's
    *((rf"'{end}\b", f" {word}") for end, word in (("re", "are"), ("m", "am"), ("d", "would"), ("ll", "will"))),
    (r"'ve\b", " have"),
    (r"\b(pls|plz)\b", "please"),
    (r"\b(pics|pix)\b", "pictures"),
    (r"\b(thx|tnx)\b", "thanks"),
    (r"\bu\b", "you"),
    (r"\bur\b", "your"),
    *((rf"\b{digit}\b", word) for digit, word in zip("1234", ("one", "two", "three", "four"), strict=True)),
    (r"\bcolour", "color"),
    (r"\bgrey\b", "gray"),
    (r"\b(further|farther)\b", "more"),
    (r"[^\w\s.,:?!]", " "),  # quotes, hyphens, brackets
    *((rf"\s*\{mark}+\s*", f"{mark} ") for mark in PUNCTUATION),  # "a boat ,a car ??"
)

#: Special tokens in the order of their ids, and the frame around a text, for each family.
FAMILIES = {
    "bert": (("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), "[CLS] $A [SEP]"),
    "t5": (("<pad>", "</s>", "<unk>"), "$A </s>"),
    "opt": (("<unk>", "<pad>", "</s>"), "</s> $A"),
}


def build_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """The word-level tokenizer of a family: "bert" (adds [DEC] last, as BLIP-2 does), "t5" or "opt"."""
    from tokenizers import Regex, Tokenizer, models, normalizers

    special, _ = FAMILIES[family]
    unknown = unknown_token(family)
    words = [*special, *PUNCTUATION, *(f"▁{word}" for word in vocabulary())]
    words += ["[DEC]"] if family == "bert" else []
    ids = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=unknown))
    spellings = [normalizers.Replace(Regex(pattern), replacement) for pattern, replacement in SPELLINGS]
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), *spellings, normalizers.Strip()]
    )
    split_words(tokenizer)
    return as_transformers(tokenizer, family)


def unknown_token(family: str) -> str:
    """The token of a family that stands for an unknown word."""
    return next(token for token in FAMILIES[family][0] if "unk" in token.lower())


def split_words(tokenizer: Tokenizer) -> None:
    """Let the tokenizer split a text into words, each with the space before it, and punctuation marks."""
    from tokenizers import Regex, decoders, pre_tokenizers

    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(prepend_scheme="always", split=False),
            pre_tokenizers.Split(Regex(r"[^\w▁]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")


def as_transformers(tokenizer: Tokenizer, family: str) -> PreTrainedTokenizerFast:
    """The tokenizer in transformers' class, with the special tokens of its family and the frame around a text. A token
    that its vocabulary lacks, such as [DEC], is added last."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    special, frame = FAMILIES[family]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=frame, special_tokens=[(token, tokenizer.token_to_id(token)) for token in special]
    )
    names = {
        "bert": dict(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]", bos_token="[DEC]"),
        "t5": dict(pad_token="<pad>", eos_token="</s>"),
        "opt": dict(pad_token="<pad>", bos_token="</s>", eos_token="</s>"),
    }[family]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=unknown_token(family),
        **names,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
