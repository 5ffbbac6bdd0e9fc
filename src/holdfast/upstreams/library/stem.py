"""English words to their stems, by the suffix rules that Porter published in 1980.

"Lighthouses" and "lighthouse", "logging" and "logged" become one term, so a question finds a
text that uses another form of its word. A stem need not be a word, it only has to be the same
for all forms.
"""

import re
from functools import lru_cache
from typing import Final

_LONG_SUFFIXES: Final = {
    "ational": "ate",
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "izer": "ize",
    "bli": "ble",
    "alli": "al",
    "entli": "ent",
    "eli": "e",
    "ousli": "ous",
    "ization": "ize",
    "ation": "ate",
    "ator": "ate",
    "alism": "al",
    "iveness": "ive",
    "fulness": "ful",
    "ousness": "ous",
    "aliti": "al",
    "iviti": "ive",
    "biliti": "ble",
    "logi": "log",
}
_SHORT_SUFFIXES: Final = {
    "icate": "ic",
    "ative": "",
    "alize": "al",
    "iciti": "ic",
    "ical": "ic",
    "ful": "",
    "ness": "",
}
_DROPPED: Final = frozenset(
    {
        "al",
        "ance",
        "ence",
        "er",
        "ic",
        "able",
        "ible",
        "ant",
        "ement",
        "ment",
        "ent",
        "sion",
        "tion",
        "ou",
        "ism",
        "ate",
        "iti",
        "ous",
        "ive",
        "ize",
    }
)

_PLAIN: Final = re.compile(r"[a-z]{3,}")


def _shape(word: str) -> str:
    """The word as a row of `c` and `v`; y counts as a vowel after a consonant."""
    shape = ""
    for letter in word:
        vowel = letter in "aeiou" or (letter == "y" and shape.endswith("c"))
        shape += "v" if vowel else "c"
    return shape


def _measure(stem: str) -> int:
    """How many times a vowel is followed by a consonant: roughly the syllables."""
    return _shape(stem).count("vc")


def _ends_short(stem: str) -> bool:
    """Whether it ends like `hop`: consonant, vowel, consonant that is not w, x or y."""
    return _shape(stem).endswith("cvc") and stem[-1] not in "wxy"


def _ends_double(stem: str) -> bool:
    """Whether it ends with the same consonant twice."""
    return stem[-1:] == stem[-2:-1] and _shape(stem).endswith("cc")


def _replace(word: str, rules: dict[str, str]) -> str:
    """Apply the rule of the longest suffix that is there, if enough stays before it."""
    for length in range(min(7, len(word) - 1), 1, -1):
        ending = rules.get(word[-length:])
        if ending is not None:
            return word[:-length] + ending if _measure(word[:-length]) else word
    return word


def _drop_suffix(word: str) -> str:
    """Drop the longest of the last suffixes, if two syllables and more stay before it."""
    for length in range(min(5, len(word) - 1), 1, -1):
        if word[-length:] in _DROPPED:
            # Of -sion and -tion only -ion goes.
            stem = word[:-3] if word.endswith(("sion", "tion")) else word[:-length]
            return stem if _measure(stem) > 1 else word
    return word


def _drop_plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _drop_past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) else word
    for suffix in ("ed", "ing"):
        stem = word.removesuffix(suffix)
        if stem != word:
            return _repair(stem) if "v" in _shape(stem) else word
    return word


def _repair(stem: str) -> str:
    """Undo what English does to a word before it puts -ed or -ing behind it."""
    if stem.endswith(("at", "bl", "iz")):
        return stem + "e"
    if _ends_double(stem) and stem[-1] not in "lsz":
        return stem[:-1]
    return stem + "e" if _measure(stem) == 1 and _ends_short(stem) else stem


def _tidy_end(word: str) -> str:
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _ends_short(word[:-1])):
            word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word) > 1 else word


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """The stem of a lower-case word; anything but three and more plain letters stays."""
    if not _PLAIN.fullmatch(word):
        return word
    word = _drop_past(_drop_plural(word))
    if word.endswith("y") and "v" in _shape(word[:-1]):
        word = word[:-1] + "i"
    word = _replace(_replace(word, _LONG_SUFFIXES), _SHORT_SUFFIXES)
    return _tidy_end(_drop_suffix(word))
