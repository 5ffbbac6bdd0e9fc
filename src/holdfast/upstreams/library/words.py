"""Text to terms: what the index holds of a text and what a question is compared by.

A term is a stemmed word, or, in Chinese, Japanese and Korean, which do not put spaces between
words, a pair of neighbouring characters. Single characters of those are terms of the index too,
so that a question of one character finds.

Terms hold letters and digits only and never more than `MAX_TERM` of them.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

from holdfast.upstreams.library.stem import stem

MAX_TERM: Final = 48

HAN: Final = "々〇\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
HIRAGANA: Final = "ぁ-ゖゝ-ゟ"
KATAKANA: Final = "ァ-ヺー-ヿㇰ-ㇿ"
HANGUL: Final = "가-힣ᄀ-ᇿ"
UNSPACED: Final = HAN + HIRAGANA + KATAKANA + HANGUL
"""The characters, as the inside of a regular expression's class."""

_TOKEN: Final = re.compile(f"[{UNSPACED}]+|[^\\W_{UNSPACED}]+(?:['’][^\\W_{UNSPACED}]+)*")
_UNSPACED: Final = re.compile(f"[{UNSPACED}]")


class Token(NamedTuple):
    """A word as it stands in the text, or a run of characters without spaces between them."""

    text: str
    unspaced: bool


def is_unspaced(character: str) -> bool:
    """Whether it belongs to a script that this module reads by pairs."""
    return bool(_UNSPACED.match(character))


def tokens(text: str) -> Iterator[Token]:
    """The words of a text in the order in which they stand; full-width forms become usual ones."""
    for match in _TOKEN.finditer(unicodedata.normalize("NFKC", text)):
        yield Token(match[0], is_unspaced(match[0][0]))


@lru_cache(maxsize=50_000)
def fold_word(word: str) -> str:
    """A spaced word without case, accents, apostrophes and a possessive 's."""
    word = unicodedata.normalize("NFKD", word.casefold()).replace("’", "'").removesuffix("'s")
    return "".join(filter(str.isalnum, word))[:MAX_TERM]


def word_term(word: str) -> str:
    """The term of a spaced word."""
    return stem(fold_word(word))


def run_pairs(run: str) -> list[str]:
    """The pairs of neighbours in a run of unspaced characters."""
    return [first + second for first, second in pairwise(run)]


def index_terms(text: str) -> list[str]:
    """Every term of a text, repeated as often as it stands there."""
    found: list[str] = []
    for token in tokens(text):
        if token.unspaced:
            found += token.text
            found += run_pairs(token.text)
        elif term := word_term(token.text):
            found.append(term)
    return found
