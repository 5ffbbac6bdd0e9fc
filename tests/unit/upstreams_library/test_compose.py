import pytest

from holdfast.engine.fold import fold
from holdfast.events import Reference
from holdfast.upstreams.library.compose import Composed, chunk_id, compose, split_answer
from holdfast.upstreams.library.folder import Skipped
from holdfast.upstreams.library.index import Contents
from holdfast.upstreams.library.passages import Passage
from holdfast.upstreams.library.query import parse_query
from holdfast.upstreams.library.ranking import Hit

TIDES = "The Moon pulls at the sea. High tides come twice a day, as every sailor has to know."


def hit(text: str = TIDES, *, title: str = "Tides", section: str = "Why", line: int = 3) -> Hit:
    return Hit("sea/tides.md", title, 1, 1, Passage(section, text, line, line + 4), 0.75)


def write(
    question: str, *hits: Hit, unknown: str = "", contents: Contents | None = None
) -> Composed:
    return compose(
        parse_query(question),
        hits,
        contents or Contents(documents=12, passages=99),
        unknown=frozenset(unknown.split()),
        reference_bytes=20_000,
    )


def test_an_answer_leads_in_names_its_sources_and_quotes_them() -> None:
    other = hit("Grace Darling rowed out.", title="Lights", section="")
    assert write("What are high tides?", hit(), other).text == (
        "Here is what the documents say about “high” and “tides”.\n"
        "\n"
        "**In short**\n"
        "\n"
        "- High tides come twice a day, as every sailor has to know. [1]\n"
        "\n"
        "From **Tides** (Why):\n"
        "\n"
        f"> {TIDES} [1]\n"
        "\n"
        "From **Lights**:\n"
        "\n"
        "> Grace Darling rowed out. [2]"
    )


def test_a_chinese_question_is_answered_in_chinese() -> None:
    text = "月球的引力拉长了海水。潮汐每天涨落两次，所以通常一天有两次高潮和两次低潮。"
    assert write("什么是潮汐？", hit(text, title="潮汐", section="成因")).text == (
        "关于“潮汐”，文档中是这样说的。\n"
        "\n"
        "**要点**\n"
        "\n"
        "- 潮汐每天涨落两次，所以通常一天有两次高潮和两次低潮。 [1]\n"
        "\n"
        "摘自**《潮汐》**（成因）：\n"
        "\n"
        f"> {text} [1]"
    )


def test_each_mark_stands_where_the_text_has_it() -> None:
    composed = write("tides", hit("A literal [1] here. And [2] tides."), hit(line=9))
    assert [composed.text[start:end] for start, end, _ in composed.marks] == [
        f"[{ordinal}]" for _, _, ordinal in composed.marks
    ]
    assert [ordinal for _, _, ordinal in composed.marks] == [2, 1, 2]
    assert composed.text.count("[1]") == 2


def test_references_say_where_the_passage_stands() -> None:
    (reference,) = write("tides", hit()).references
    assert reference == Reference(
        ordinal=1,
        document_id="sea/tides.md",
        document_name="Tides",
        chunk_id="sea/tides.md#L3-L7",
        text=TIDES,
        score=0.75,
        positions=[[3, 7]],
        extra={"section": "Why"},
    )
    assert chunk_id(hit()) == reference.chunk_id


def test_the_text_of_a_reference_is_bounded_at_a_whole_character() -> None:
    composed = compose(
        parse_query("潮汐"), [hit("潮汐")], Contents(), unknown=frozenset(), reference_bytes=5
    )
    assert composed.references[0].text == "潮"


def test_words_that_the_documents_do_not_know_are_named() -> None:
    assert write("zebras and tides", hit(), unknown="zebra").text.startswith(
        "Here is what the documents say about “tides”. They do not mention “zebras”.\n"
    )
    assert write("斑马与潮汐", hit(), unknown="斑马").text.startswith("关于“斑马与潮汐”")
    assert "没有提到“斑马的历史”。" in write("斑马的历史，潮汐", hit(), unknown="斑马 历史").text
    assert write("斑马，潮汐", hit(), unknown="斑马").text.startswith(
        "关于“潮汐”，文档中是这样说的。文档中没有提到“斑马”。"
    )


def test_nothing_found_is_said_and_cites_nothing() -> None:
    composed = write("What is a zebra?")
    assert composed == Composed(
        "I found nothing about “zebra” in the documents. Documents searched: 12."
    )
    assert write("斑马是什么").text == "在文档中没有找到关于“斑马”的内容。已检索的文档数：12。"


def test_a_question_without_a_word_is_told_so() -> None:
    assert write("why?!").text.startswith("I found nothing about “why”")
    assert write("why is it so?").text == (
        "There is no word in this question that could be searched for. Documents searched: 12."
    )
    assert write("为什么呢？").text == "这个问题里没有可以检索的词。已检索的文档数：12。"


def test_nothing_found_names_what_was_not_searched() -> None:
    skipped = tuple(Skipped(f"{number}.md", "not UTF-8") for number in range(7))
    assert write("zebra", contents=Contents(1, 1, skipped)).text.endswith(
        "Documents searched: 1. Not searched: `0.md` (not UTF-8), `1.md` (not UTF-8), "
        "`2.md` (not UTF-8), `3.md` (not UTF-8), `4.md` (not UTF-8), 2 more."
    )


def test_paragraphs_lists_and_code_stay_inside_the_quotation() -> None:
    text = "About tides.\n\n- one\n- two\n\n```\ncode\n```"
    quotation = write("tides", hit(text)).text.partition("(Why):\n\n")[2]
    assert quotation == ("> About tides.\n>\n> - one\n> - two\n>\n> ```\n> code\n> ```\n>\n> [1]")


@pytest.mark.parametrize(
    "text",
    [
        "Only one sentence about tides is no summary of itself, is it",
        "Short tides. Short.",
        "Nothing of it. Nothing at all of what was asked for in the question of the reader.",
        "```\nHigh tides come twice a day in this code. High tides come twice a day in it.\n```",
        "| High tides come twice a day here. High tides come twice a day in this table. |",
        "**High tides come twice a day and the sea. High** tides come twice a day, as one has.",
    ],
)
def test_what_is_no_good_sentence_is_not_put_in_front(text: str) -> None:
    assert "In short" not in write("tides", hit(text)).text


def test_a_list_item_is_put_in_front_without_its_marker() -> None:
    text = "2. It was 1998. High tides come twice a day, as every sailor knows.\n3. No."
    assert "\n- High tides come twice a day, as every sailor knows. [1]\n" in (
        write("high tides", hit(text)).text
    )


def test_very_long_words_are_shown_short() -> None:
    assert len(write("x" * 5_000).text) < 200
    assert len(write(" ".join(f"word{number}" for number in range(1_000))).text) < 200


@pytest.mark.parametrize("size", [1, 3.2, 40, 400, 10_000])
def test_deltas_fold_to_the_answer_with_its_marks(size: float) -> None:
    composed = write("tides 潮汐", hit(), hit("潮汐。潮汐 tides [1] [2].", line=9))
    answer = fold(split_answer(composed, size))
    assert (answer.text, answer.marks) == (composed.text, composed.marks)


def test_no_mark_spans_two_deltas() -> None:
    composed = write("tides", *[hit(line=number) for number in range(12)])
    for delta in split_answer(composed, 1):
        for start, end, ordinal in delta.marks:
            assert delta.text[start:end] == f"[{ordinal}]"


def test_deltas_are_words_of_about_the_size_asked_for() -> None:
    deltas = split_answer(Composed("The quick brown fox, 今天的潮汐很大。  End"), 4)
    assert [delta.text for delta in deltas] == [
        "The quick",
        " brown",
        " fox,",
        " 今天的",
        "潮汐很大",
        "。  End",
    ]
