from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.engine.fold import fold
from holdfast.events import encode
from holdfast.upstreams.library.compose import compose, split_answer
from holdfast.upstreams.library.folder import Folder
from holdfast.upstreams.library.index import Index
from holdfast.upstreams.library.passages import ENOUGH, PIECE, REST, split_document
from holdfast.upstreams.library.query import parse_query
from holdfast.upstreams.library.ranking import rank
from holdfast.upstreams.library.words import MAX_TERM, index_terms, is_unspaced, run_pairs

DEMO_DOCUMENTS = Path(__file__).parents[2] / "src" / "holdfast" / "demo_documents"

WORDS = [
    "kelp",
    "tides",
    "潮汐",
    "茶",
    "的",
    "what",
    "AND",
    "NEAR(",
    '"',
    "*",
    "[1]",
    "🙂",
    "\0",
    " ",
]
anything = st.text() | st.lists(st.sampled_from(WORDS)).map(" ".join)
HAN = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), min_size=2, max_size=2)
MARKDOWN = st.lists(
    st.text(max_size=80)
    | st.sampled_from(["# A", "## B", "---", "```", "~~~", "- item", "| a |", "> q", "", "=="]),
    max_size=30,
).map("\n".join)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    index = Index(tmp_path_factory.mktemp("index") / "library.db", Folder(DEMO_DOCUMENTS, 10**6))
    yield index
    index.close()


@given(question=anything, previous=anything, size=st.floats(0.1, 500))
@example(question='a AND b* NEAR(c, 2) {x} ^y -z : + "', previous="'", size=3.2)
@example(question="x" * 200_000, previous="", size=3.2)
@example(question="潮汐" * 100_000, previous="", size=3.2)
@example(question="? " * 100_000 + "tide", previous="tide " * 40_000, size=3.2)
@example(question="\ud800 tide", previous="\udfff", size=1)
def test_any_question_gets_an_answer_whose_marks_fit(
    index: Index, question: str, previous: str, size: float
) -> None:
    query = parse_query(question, previous)
    found = index.search(query, 0.0)
    hits = rank(found.candidates, query, 5, 20_000)
    composed = compose(query, hits, found.contents, unknown=found.unknown, reference_bytes=20_000)
    deltas = split_answer(composed, size)
    answer = fold(deltas)
    assert (answer.text, answer.marks) == (composed.text, composed.marks)
    assert answer.text
    for delta in deltas:
        encode(delta)
        for start, end, ordinal in delta.marks:
            assert delta.text[start:end] == f"[{ordinal}]"
    assert {ordinal for _, _, ordinal in answer.marks} == set(range(1, len(hits) + 1))
    assert all(0 < hit.score <= 1 for hit in hits)


@given(word=HAN, before=st.text(max_size=20), after=st.text(max_size=20))
def test_every_word_of_two_chinese_characters_finds(word: str, before: str, after: str) -> None:
    assert set(parse_query(word).terms) <= set(index_terms(before + word + after))
    assert parse_query(word).terms


@given(text=anything)
def test_terms_are_short_and_hold_letters_and_digits_only(text: str) -> None:
    for term in index_terms(text) + list(parse_query(text).weights):
        assert all(letter.isalnum() or is_unspaced(letter) for letter in term)
        assert len(term) <= MAX_TERM


@given(run=st.text(min_size=1))
def test_a_run_has_one_pair_less_than_characters(run: str) -> None:
    assert len(run_pairs(run)) == len(run) - 1


@given(text=MARKDOWN, suffix=st.sampled_from([".md", ".rst", ".txt"]))
def test_any_text_is_cut_into_passages_in_its_order(text: str, suffix: str) -> None:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    document = split_document(text, suffix)
    at = 1
    for passage in document.passages:
        assert at <= passage.first_line <= passage.last_line <= len(lines)
        at = passage.first_line
        assert passage.text.strip()


@given(text=st.text(st.sampled_from("ab .。\n,潮"), max_size=4_000))
def test_no_character_of_a_text_is_lost_and_no_passage_is_too_long(text: str) -> None:
    passages = split_document(text, ".txt").passages
    found = "".join("".join(passage.text.split()) for passage in passages)
    assert found == "".join(text.split())
    assert all(len(passage.text) <= PIECE + ENOUGH + REST + 4 for passage in passages)
