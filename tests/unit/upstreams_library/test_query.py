import pytest

from holdfast.upstreams.library.query import (
    BORROWED,
    MAX_CHARS,
    MAX_TERMS,
    PAIR,
    WEAK,
    WORD,
    Language,
    parse_query,
)


def test_question_words_are_not_searched_for() -> None:
    assert parse_query("What is a holdfast, and why does it hold?").weights == {
        "holdfast": WORD,
        "hold": WORD,
    }


@pytest.mark.parametrize(
    "question",
    ["什么是潮汐", "潮汐是什么？", "请问，潮汐是怎么来的？", "为什么有潮汐", "如何解释潮汐"],
)
def test_chinese_question_words_are_not_searched_for(question: str) -> None:
    assert parse_query(question).terms == ["潮汐"]


def test_a_long_chinese_word_is_searched_for_by_its_pairs() -> None:
    assert parse_query("大型藻类").weights == {"大型": PAIR, "型藻": PAIR, "藻类": PAIR}


def test_a_character_between_grammar_is_a_word() -> None:
    weights = parse_query("茶的历史").weights
    assert weights["茶"] == PAIR
    assert weights["历史"] == PAIR
    assert weights["的历"] == WEAK


@pytest.mark.parametrize("word", ["目的", "能量", "和平", "茶", "不同", "如果", "什么", "海"])
def test_a_chinese_word_by_itself_is_searched_for_whatever_it_is(word: str) -> None:
    assert parse_query(word).terms == [word]


@pytest.mark.parametrize("word", ["about", "The", "work", "c", "9"])
def test_a_single_word_is_searched_for_whatever_it_is(word: str) -> None:
    assert parse_query(word).terms == [word.lower()]


def test_words_that_say_little_only_help_to_order() -> None:
    query = parse_query("how does group commit work")
    assert query.weights["work"] == WEAK
    assert query.terms == ["group", "commit"]
    assert query.subject == ["group", "commit"]


def test_words_that_say_little_find_if_there_is_nothing_else() -> None:
    assert parse_query("how does it work").terms == ["work"]


@pytest.mark.parametrize(
    "question", ["", "  ", "why?", "and how is that?", "为什么呢？", "🙂🙂", '"*"']
)
def test_a_question_without_a_word_borrows_from_the_one_before(question: str) -> None:
    query = parse_query(question, previous="What is the use of tides?")
    assert query.weights == {"tide": BORROWED}
    assert query.subject == ["tides"]


def test_a_pronoun_points_back_but_own_words_find() -> None:
    query = parse_query("why is it salty?", previous="what is sea water")
    assert query.terms == ["salti"]
    assert query.weights == {"salti": WORD, "sea": BORROWED, "water": BORROWED}


def test_a_question_that_stands_by_itself_borrows_nothing() -> None:
    assert parse_query("lighthouse keepers", previous="tides").terms == ["lighthous", "keeper"]


def test_each_word_counts_once() -> None:
    query = parse_query("tide TIDES tide's")
    assert query.weights == {"tide": WORD}


def test_of_a_very_long_question_both_ends_are_read() -> None:
    query = parse_query("first " + "x" * 200_000 + " last")
    assert {"first", "last"} <= set(query.terms)
    many = parse_query(" ".join(f"w{number}" for number in range(MAX_CHARS)))
    assert len(many.weights) <= MAX_TERMS
    assert "w0" in many.weights
    assert f"w{MAX_CHARS - 1}" in many.weights


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("What are tides?", Language.ENGLISH),
        ("潮汐", Language.CHINESE),
        ("什么是 write-ahead logging？", Language.CHINESE),
        ("WAL 的原理", Language.CHINESE),
        ("What does 潮汐 mean?", Language.ENGLISH),
        ("SQLite 日志", Language.CHINESE),
        ("潮の満ち引きとは", Language.ENGLISH),
        ("", Language.ENGLISH),
    ],
)
def test_the_language_is_the_one_that_the_question_is_asked_in(
    question: str, language: Language
) -> None:
    assert parse_query(question).language is language
