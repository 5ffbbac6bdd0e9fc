"""A question to what is searched for.

Not every word of a question says what it is about. Each term gets a weight:

    1.0   a word
    0.5   a pair of unspaced characters: about every second pair straddles two words
    0.25  of that, for what is borrowed from the question before ("and why does it?")
    0.1   a word that questions use about anything ("work", "区别"), a pair with a grammatical
          character in it ("的历"): it helps to order what other terms found
    -     "what", "the", "什么", "为什么": not searched for

A question of a single word, with none before it, searches for that word, whatever it is.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from holdfast.upstreams.library.vocabulary import (
    GRAMMAR,
    PRONOUN_CHARACTERS,
    PRONOUNS,
    STOP_PHRASES,
    STOP_WORDS,
    WEAK_PHRASES,
    WEAK_WORDS,
)
from holdfast.upstreams.library.words import (
    HAN,
    HANGUL,
    HIRAGANA,
    KATAKANA,
    fold_word,
    run_pairs,
    tokens,
    word_term,
)

MAX_CHARS: Final = 4_000
"""How much of a question is read: this much, half of it from either end."""
MAX_TERMS: Final = 64
MAX_BORROWED: Final = 16
MAX_SUBJECT: Final = 6
MAX_SUBJECT_WORD: Final = 40

WORD: Final = 1.0
PAIR: Final = 0.5
BORROWED: Final = 0.25
WEAK: Final = 0.1


def _alternatives(phrases: Iterable[str]) -> str:
    return "|".join(sorted(phrases, key=len, reverse=True))


_PHRASE: Final = re.compile(
    f"(?P<stop>{_alternatives(STOP_PHRASES)})|(?P<weak>{_alternatives(WEAK_PHRASES)})"
)
_CHINESE: Final = re.compile(f"[{HAN}]")
_NOT_CHINESE: Final = re.compile(f"[{HIRAGANA}{KATAKANA}{HANGUL}]")
_HIRAGANA: Final = re.compile(f"[{HIRAGANA}]")


class Language(StrEnum):
    """The languages in which answers are worded."""

    ENGLISH = "en"
    CHINESE = "zh"


class Word(msgspec.Struct, frozen=True):
    """A word as the question has it, with its terms; one with weak terms only is not shown."""

    text: str
    terms: dict[str, float]

    @property
    def strong_terms(self) -> set[str]:
        """Those of its terms that say what the question is about."""
        return {term for term, weight in self.terms.items() if weight > WEAK}


def show_words(words: Sequence[Word]) -> list[str]:
    """The first of the words, none of them too long to be shown."""
    return [word.text[:MAX_SUBJECT_WORD] for word in words[:MAX_SUBJECT]]


class Query(msgspec.Struct, frozen=True):
    """What a question is searched by."""

    language: Language = Language.ENGLISH
    words: tuple[Word, ...] = ()
    """The words it is about, each once, in its order."""
    weights: dict[str, float] = {}
    """All terms."""

    @property
    def subject(self) -> list[str]:
        """Its first words in a size that can be shown."""
        return show_words(self.words)

    @property
    def terms(self) -> list[str]:
        """The terms that find: the strong ones, or all if there is none."""
        strong = [term for term, weight in self.weights.items() if weight >= PAIR]
        return strong or list(self.weights)

    @property
    def total(self) -> float:
        """The sum of all weights."""
        return sum(self.weights.values())


def parse_query(question: str, previous: str = "") -> Query:
    """Read a question.

    Args:
        question: Any text.
        previous: The question before it in the conversation. Its terms are borrowed if this
            one says nothing by itself, or points back with a pronoun.
    """
    question, previous = _both_ends(question), _both_ends(previous)
    words = _bounded(_read(question, take_any=not previous), MAX_TERMS)
    strong = [word for word in words if word.strong_terms]
    weights = _merge(words)
    if previous and (not strong or _points_back(question)):
        before = [
            word
            for word in _bounded(_read(previous, take_any=True), MAX_BORROWED)
            if word.strong_terms
        ]
        for term, weight in _merge(before).items():
            weights.setdefault(term, weight * BORROWED)
        strong = strong or before
    return Query(_language(question), tuple(strong), weights)


def _both_ends(text: str) -> str:
    """The start and the end of a long text, where people say what they want."""
    half = MAX_CHARS // 2
    return text if len(text) <= MAX_CHARS else f"{text[:half]} {text[-half:]}"


def _bounded(words: Iterator[Word], most: int) -> list[Word]:
    """Each word once, and of too many those at both ends."""
    unique = list({word.text.casefold(): word for word in words}.values())
    half = most // 2
    return unique if len(unique) <= most else unique[:half] + unique[-half:]


def _merge(words: list[Word]) -> dict[str, float]:
    """The terms of all words, each with the largest of its weights."""
    weights: dict[str, float] = {}
    for word in words:
        for term, weight in word.terms.items():
            weights[term] = max(weight, weights.get(term, 0.0))
    return dict(list(weights.items())[: 2 * MAX_TERMS])


def _read(text: str, *, take_any: bool) -> Iterator[Word]:
    """The words of a text; a single one is taken as it is if `take_any`."""
    found = list(tokens(text))
    take_any = take_any and len(found) == 1
    for token in found:
        if not token.unspaced:
            yield from _read_word(token.text, take_any)
        elif take_any and _PHRASE.fullmatch(token.text):
            yield Word(token.text, dict.fromkeys(run_pairs(token.text) or [token.text], PAIR))
        else:
            yield from _read_run(token.text)


def _read_word(text: str, take_any: bool) -> Iterator[Word]:
    folded = fold_word(text)
    if folded and (take_any or folded not in STOP_WORDS):
        weight = WORD if take_any or folded not in WEAK_WORDS else WEAK
        yield Word(text, {word_term(text): weight})


def _read_run(run: str) -> Iterator[Word]:
    """Cut a run of unspaced characters at the phrases that questions are made with."""
    at = 0
    for match in _PHRASE.finditer(run):
        yield from _read_part(run[at : match.start()])
        at = match.end()
        if match["weak"]:
            yield Word(match[0], dict.fromkeys(run_pairs(match[0]), WEAK))
    yield from _read_part(run[at:])


def _read_part(part: str) -> Iterator[Word]:
    """What stands between two such phrases: a word, or words and grammar."""
    core = part.strip("".join(GRAMMAR))
    if len(part) == 2 and core:
        core = part  # "目的": a pair by itself is a word
    if not core:
        return
    if len(core) <= 2:
        yield Word(core, {core: PAIR})
        return
    terms = {}
    for pair in run_pairs(core):
        grammatical = [_is_grammar(character) for character in pair]
        if not all(grammatical):
            terms[pair] = WEAK if any(grammatical) else PAIR
    terms |= dict.fromkeys(_isolated(core), PAIR)
    if not terms:
        terms = dict.fromkeys(run_pairs(core), WEAK)
    yield Word(core, terms)


def _isolated(run: str) -> Iterator[str]:
    """Characters with nothing but grammar beside them: words of one character, as in "茶的历史"."""
    walls = [True, *map(_is_grammar, run), True]
    for place, character in enumerate(run, 1):
        if not walls[place] and walls[place - 1] and walls[place + 1]:
            yield character


def _is_grammar(character: str) -> bool:
    return character in GRAMMAR or bool(_HIRAGANA.match(character))


def _points_back(question: str) -> bool:
    return any(
        not PRONOUN_CHARACTERS.isdisjoint(token.text)
        if token.unspaced
        else fold_word(token.text) in PRONOUNS
        for token in tokens(question)
    )


def _language(question: str) -> Language:
    """Chinese if it is asked in Chinese, even if it asks about an English word."""
    if not _CHINESE.search(question) or _NOT_CHINESE.search(question):
        return Language.ENGLISH
    if _PHRASE.search(question) or not GRAMMAR.isdisjoint(question):
        return Language.CHINESE
    english = any(
        fold_word(token.text) in STOP_WORDS for token in tokens(question) if not token.unspaced
    )
    return Language.ENGLISH if english else Language.CHINESE
