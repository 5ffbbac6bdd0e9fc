from holdfast.upstreams.library.passages import Passage
from holdfast.upstreams.library.query import parse_query
from holdfast.upstreams.library.ranking import Candidate, rank
from holdfast.upstreams.library.words import index_terms


def candidate(
    text: str,
    *,
    relevance: float = 1.0,
    number: int = 5,
    document: str = "a.md",
    section: str = "",
) -> Candidate:
    return Candidate(
        document=document,
        title="A",
        number=number,
        passage=Passage(section, text, number * 10, number * 10 + 4),
        relevance=relevance,
        terms=frozenset(index_terms(text)),
    )


def best_texts(question: str, *candidates: Candidate, count: int = 5) -> list[str]:
    hits = rank(candidates, parse_query(question), count, 20_000)
    return [hit.passage.text for hit in hits]


def test_a_passage_with_more_of_the_words_comes_first() -> None:
    assert best_texts(
        "bitter green tea",
        candidate("tea and tea and tea", number=1, relevance=1.2),
        candidate("green tea is bitter", number=9, relevance=1.0),
    ) == ["green tea is bitter", "tea and tea and tea"]


def test_a_passage_that_holds_too_little_of_the_question_is_left_out() -> None:
    question = "write python function sorting numbers descending quickly"
    assert best_texts(question, candidate("we write a log")) == []


def test_of_a_very_long_question_three_words_are_enough() -> None:
    question = " ".join(f"word{number}" for number in range(50))
    assert best_texts(question, candidate("word1 word2")) == []
    assert best_texts(question, candidate("word1 word2 word3")) == ["word1 word2 word3"]


def test_accidental_pairs_of_a_chinese_question_do_not_hide_what_was_found() -> None:
    assert best_texts("海带能长得那样快速", candidate("海带生长很快")) == ["海带生长很快"]


def test_weak_passages_are_dropped_beside_strong_ones() -> None:
    assert best_texts(
        "green tea leaves",
        candidate("green tea leaves", number=1, relevance=9.0),
        candidate("leaves", number=9, relevance=0.5),
    ) == ["green tea leaves"]


def test_the_first_passage_of_a_document_leads_among_equals() -> None:
    assert best_texts(
        "tea", candidate("tea later", number=4), candidate("tea first", number=0, document="z.md")
    ) == ["tea first", "tea later"]


def test_the_same_text_is_quoted_once() -> None:
    assert best_texts("tea", candidate("tea"), candidate("tea", document="copy.md")) == ["tea"]


def test_neighbours_in_one_section_are_joined() -> None:
    query = parse_query("tea")
    hits = rank(
        [
            candidate("tea three", number=3, relevance=1.0),
            candidate("tea one", number=1, relevance=0.8),
            candidate("tea two", number=2, relevance=0.9),
            candidate("tea four", number=4, section="other", relevance=0.7),
        ],
        query,
        5,
        20_000,
    )
    assert [(hit.passage.text, hit.number, hit.last_number) for hit in hits] == [
        ("tea one\n\ntea two\n\ntea three", 1, 3),
        ("tea four", 4, 4),
    ]
    assert (hits[0].passage.first_line, hits[0].passage.last_line) == (10, 34)


def test_neighbours_are_not_joined_beyond_the_size_of_a_reference() -> None:
    hits = rank(
        [candidate("tea one", number=1), candidate("tea two", number=2)], parse_query("tea"), 5, 10
    )
    assert len(hits) == 2


def test_scores_lie_between_nothing_and_one() -> None:
    hits = rank(
        [candidate("tea", number=0), candidate("teas and cups", relevance=0.0)],
        parse_query("tea"),
        5,
        20_000,
    )
    assert [hit.score for hit in hits] == [1.0, 0.4841]


def test_no_more_passages_are_taken_than_asked_for() -> None:
    candidates = [candidate(f"tea {number}", number=number * 2) for number in range(9)]
    assert len(best_texts("tea", *candidates, count=3)) == 3


def test_without_candidates_there_is_nothing() -> None:
    assert best_texts("tea") == []
