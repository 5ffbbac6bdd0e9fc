import re
import sqlite3
from importlib.resources import files

import pytest

from holdfast.upstreams.library.stem import stem


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("caresses", "caress"),
        ("ponies", "poni"),
        ("cats", "cat"),
        ("agreed", "agre"),
        ("plastered", "plaster"),
        ("bled", "bled"),
        ("motoring", "motor"),
        ("sing", "sing"),
        ("conflated", "conflat"),
        ("hopping", "hop"),
        ("falling", "fall"),
        ("filing", "file"),
        ("happy", "happi"),
        ("sky", "sky"),
        ("relational", "relat"),
        ("rational", "ration"),
        ("hopefulness", "hope"),
        ("electrical", "electr"),
        ("adoption", "adopt"),
        ("replacement", "replac"),
        ("cease", "ceas"),
        ("controlling", "control"),
    ],
)
def test_words_lose_their_suffixes_by_the_published_rules(word: str, expected: str) -> None:
    assert stem(word) == expected


@pytest.mark.parametrize("forms", ["lighthouse lighthouses", "log logs logged logging"])
def test_all_forms_of_a_word_have_one_stem(forms: str) -> None:
    assert len({stem(form) for form in forms.split()}) == 1


@pytest.mark.parametrize("word", ["", "is", "x1s", "привет", "größen", "Cats"])
def test_anything_but_plain_lower_case_words_stays_as_it_is(word: str) -> None:
    assert stem(word) == word


def test_all_words_of_the_shipped_documents_are_stemmed_as_sqlite_stems_them() -> None:
    text = "".join(
        document.read_text("utf-8")
        for document in files("holdfast").joinpath("demo_documents").iterdir()
        if document.name.endswith(".md")
    )
    words = sorted(set(re.findall("[a-z]{3,}", text.lower())))
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE words USING fts5 (word, tokenize = 'porter unicode61')")
    database.execute("CREATE VIRTUAL TABLE stems USING fts5vocab (words, 'instance')")
    database.executemany("INSERT INTO words (rowid, word) VALUES (?, ?)", enumerate(words))
    expected = {words[row]: term for term, row in database.execute("SELECT term, doc FROM stems")}
    database.close()
    assert len(words) > 1_500
    assert {word: stem(word) for word in words} == expected
