import pytest

from holdfast.events import MAX_ORDINAL
from holdfast.upstreams.decoding.citations import (
    MAX_KEYS,
    MAX_NUMBER,
    CitationTranslator,
    Style,
    Translated,
)

ID_MARKS = [
    "[ID:4]",
    "[ID: 4]",
    "[ID 4]",
    "[ ID : 4 ]",
    "(ID:4)",
    "(ID: 4)",
    "【ID:4】",
    "【ID: 4】",
    "【ID：4】",
    "##4$$",
    "[ID:004]",
]


def translate(translator: CitationTranslator, *texts: str) -> Translated:
    """Feed texts and flush; join what comes out as a reader joins deltas."""
    text, marks = "", []
    for piece in texts:
        more, new = translator.feed(piece)
        for start, end, ordinal in new:
            assert more[start:end] == f"[{ordinal}]"
            marks.append((start + len(text), end + len(text), ordinal))
        text += more
    return text + translator.flush(), tuple(marks)


class TestPlaces:
    @pytest.mark.parametrize("mark", ID_MARKS)
    def test_every_form_becomes_the_ordinal(self, mark: str) -> None:
        text = f"Ventil {mark}. Ende"
        assert translate(CitationTranslator(), text) == ("Ventil [5]. Ende", ((7, 10, 5),))

    @pytest.mark.parametrize("mark", ID_MARKS)
    def test_a_mark_may_be_split_anywhere(self, mark: str) -> None:
        text = f"Ventil {mark}. Ende"
        for cut in range(len(text)):
            pieces = (text[:cut], text[cut:])
            assert translate(CitationTranslator(), *pieces) == ("Ventil [5]. Ende", ((7, 10, 5),))
        assert translate(CitationTranslator(), *text) == ("Ventil [5]. Ende", ((7, 10, 5),))

    def test_marks_may_follow_each_other(self) -> None:
        assert translate(CitationTranslator(), "a [ID:0][ID:2]##10$$ b") == (
            "a [1][3][11] b",
            ((2, 5, 1), (5, 8, 3), (8, 12, 11)),
        )

    def test_offsets_count_code_points(self) -> None:
        assert translate(CitationTranslator(), "😀é中[ID:0]") == ("😀é中[1]", ((3, 6, 1),))

    @pytest.mark.parametrize(
        "text",
        [
            "a literal [1] and [x](y)",
            "[ID:]",
            "[ID:a]",
            "[ID:12345]",
            "[IDs: 3]",
            "[ID:3",
            "[id:3]",
            "(ID: 3]",
            "[[ID",
            "# Title\n## Part ##",
            "##3$",
            "##$$",
            "f(ID)",
            "x[I",
            "【",
        ],
    )
    def test_what_only_resembles_a_mark_is_text(self, text: str) -> None:
        assert translate(CitationTranslator(), text) == (text, ())
        assert translate(CitationTranslator(), *text) == (text, ())

    def test_only_what_may_begin_a_mark_is_held(self) -> None:
        translator = CitationTranslator()
        assert translator.feed("Ventil [ID") == ("Ventil ", ())
        assert translator.feed("entity]") == ("[IDentity]", ())
        assert translator.feed("a [") == ("a ", ())
        assert translator.feed("[ID:0") == ("[", ())
        assert translator.feed("]") == ("[1]", ((0, 3, 1),))

    def test_a_mark_is_given_before_its_reference_is_known(self) -> None:
        assert CitationTranslator().feed("[ID:7]") == ("[8]", ((0, 3, 8),))

    def test_a_mark_beyond_known_references_is_text(self) -> None:
        translator = CitationTranslator()
        assert translator.number(["0", "1"]) == [1, 2]
        assert translate(translator, "[ID:1] [ID:2]") == ("[2] [ID:2]", ((0, 3, 2),))

    def test_references_keep_the_ordinals_of_their_places(self) -> None:
        translator = CitationTranslator()
        translate(translator, "[ID:2][ID:0]")
        assert translator.number(["0", "1", "2"]) == [1, 2, 3]
        assert translator.number(["0", "1", "2", "3"]) == [1, 2, 3, 4]

    def test_keyed_references_fit_the_marks_that_were_taken_for_places(self) -> None:
        translator = CitationTranslator()
        assert translate(translator, "[ID:317]")[0] == "[318]"
        assert translator.number(["42", "317"]) == [319, 318]


class TestLooseForms:
    def test_prose_stays_as_it_is(self) -> None:
        text = "the user (ID: 42) and [ID 7]"
        assert translate(CitationTranslator(loose=False), text) == (text, ())

    def test_they_count_after_a_strict_mark(self) -> None:
        translator = CitationTranslator(loose=False)
        assert translate(translator, "(ID: 0) [ID:0] (ID: 1)")[0] == "(ID: 0) [1] [2]"

    def test_they_count_once_there_are_references(self) -> None:
        translator = CitationTranslator(loose=False)
        translator.number(["0"])
        assert translate(translator, "(ID: 0) (ID: 1)")[0] == "[1] (ID: 1)"


class TestKeys:
    def test_ordinals_go_by_the_first_mark(self) -> None:
        translator = CitationTranslator(Style.KEY)
        assert translate(translator, "a [ID:317] b [ID:42] c [ID:317]") == (
            "a [1] b [2] c [1]",
            ((2, 5, 1), (8, 11, 2), (14, 17, 1)),
        )

    def test_uncited_references_come_after(self) -> None:
        translator = CitationTranslator(Style.KEY)
        translate(translator, "[ID:317]")
        assert translator.number(["9", "317", "8"]) == [2, 1, 3]
        assert translate(translator, "[ID:8] [ID:7]")[0] == "[3] [ID:7]"


class TestNumbers:
    @pytest.mark.parametrize("mark", ["[2]", "【2】"])
    def test_a_known_number_is_a_mark(self, mark: str) -> None:
        translator = CitationTranslator(Style.NUMBER)
        translator.number(["1", "2"])
        assert translate(translator, *f"a {mark} b") == ("a [2] b", ((2, 5, 2),))

    def test_an_unknown_number_is_text(self) -> None:
        translator = CitationTranslator(Style.NUMBER)
        assert translate(translator, "[1]") == ("[1]", ())
        translator.number(["1", "2"])
        assert translate(translator, "[0] [3] 【4】 [ID:0]") == ("[0] [3] 【4】 [ID:0]", ())


def test_without_marks_all_is_text_at_once() -> None:
    translator = CitationTranslator(Style.NONE)
    assert translator.number(["0"]) == [1]
    assert translator.feed("[ID:0] [") == ("[ID:0] [", ())


def test_a_rewrite_replaces_what_is_held() -> None:
    translator = CitationTranslator()
    translator.feed("Ventil [ID")
    assert translator.rewrite("Ventil [ID:0] und [") == ("Ventil [1] und [", ((7, 10, 1),))
    assert translator.flush() == ""


@pytest.mark.parametrize("style", list(Style))
def test_no_key_makes_an_ordinal_that_a_store_cannot_hold(style: Style) -> None:
    keys = ["999999999", "9" * 10, "9" * 5000, "-1", "0", "", "²", "٣", "\0"]
    ordinals = CitationTranslator(style).number(keys)
    assert len(set(ordinals)) == len(keys)
    assert 1 <= min(ordinals) <= max(ordinals) <= MAX_ORDINAL


class TestClaims:
    def test_a_reference_keeps_the_ordinal_that_it_has_elsewhere(self) -> None:
        translator = CitationTranslator()
        translator.claim("4", 5)
        assert translator.number(["4", "https://a.example"]) == [5, 6]
        assert translate(translator, "[ID:4] [ID:0]") == ("[5] [ID:0]", ((0, 3, 5),))

    @pytest.mark.parametrize("style", list(Style))
    def test_no_two_references_have_the_same(self, style: Style) -> None:
        translator = CitationTranslator(style)
        assert translator.number(["https://a.example"]) == [1]
        translator.claim("x", 1)
        translator.claim("https://a.example", 7)
        assert translator.number(["https://a.example", "x"]) == [1, 2]
        ordinals = translator.number(["0", "1", "2"])
        assert len({1, 2, *ordinals}) == 5

    @pytest.mark.parametrize("ordinal", [0, -1, MAX_NUMBER + 1])
    def test_what_is_no_ordinal_is_not_taken(self, ordinal: int) -> None:
        translator = CitationTranslator(Style.KEY)
        translator.claim("a", ordinal)
        assert translator.number(["a"]) == [1]


def test_only_so_many_keys_are_known() -> None:
    translator = CitationTranslator(Style.KEY)
    keys = [f"k{n}" for n in range(MAX_KEYS + 1)]
    first, again = translator.number(keys), translator.number(keys)
    assert again[:-1] == first[:-1] == list(range(1, MAX_KEYS + 1))
    assert first[-1] < again[-1]
