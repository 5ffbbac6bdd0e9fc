import pytest

from holdfast.upstreams.library.passages import (
    ENOUGH,
    FULL,
    PIECE,
    REST,
    split_document,
    split_sentences,
)

SENTENCE = "The tide comes in twice a day and nobody can stop it at the shore. "
CHINESE = "海水每天涨落两次，白天的叫作潮，夜间的叫作汐，合起来就是潮汐。"


def test_the_first_heading_is_the_title_and_the_others_are_the_section() -> None:
    document = split_document("# Sea\nA.\n## Tides\nB.\n### Neaps\nC.\n## Salt\nD.", ".md")
    assert document.title == "Sea"
    assert [(passage.section, passage.text) for passage in document.passages] == [
        ("", "A."),
        ("Tides", "B."),
        ("Tides › Neaps", "C."),
        ("Salt", "D."),
    ]


def test_a_heading_after_text_is_no_title() -> None:
    document = split_document("Text.\n\n# Later\n\nMore.", ".md")
    assert document.title is None
    assert [passage.section for passage in document.passages] == ["", "Later"]


def test_short_paragraphs_of_a_section_become_one_passage() -> None:
    (passage,) = split_document("One.\n\nTwo.\n\nThree.", ".txt").passages
    assert passage.text == "One.\n\nTwo.\n\nThree."
    assert (passage.first_line, passage.last_line) == (1, 5)


@pytest.mark.parametrize("sentence", [SENTENCE, CHINESE])
def test_long_paragraphs_are_cut_between_sentences(sentence: str) -> None:
    passages = split_document(sentence * 60, ".md").passages
    assert len(passages) > 2
    assert all(len(passage.text) <= FULL for passage in passages)
    assert all(len(passage.text) >= ENOUGH for passage in passages[:-1])
    assert all(passage.text.endswith(sentence.strip()[-1]) for passage in passages)
    assert all(passage.text.startswith(sentence[:8]) for passage in passages)


def test_a_text_without_sentences_is_cut_at_words() -> None:
    passages = split_document("word " * 1_000, ".txt").passages
    assert all(len(passage.text) <= FULL for passage in passages)
    assert {word for passage in passages for word in passage.text.split()} == {"word"}


def test_a_single_endless_word_is_cut_too() -> None:
    passages = split_document("x" * 10_000, ".txt").passages
    assert sum(passage.text.count("x") for passage in passages) == 10_000
    assert all(len(passage.text) <= PIECE + ENOUGH + REST for passage in passages)


def test_each_part_of_a_long_code_block_has_its_fences() -> None:
    code = "\n".join(f"line {number} of a program" for number in range(200))
    passages = split_document(f"```py\n{code}\n```", ".md").passages
    assert len(passages) > 2
    for passage in passages:
        assert passage.text.startswith("```py\nline ")
        assert passage.text.endswith("program\n```")


def test_a_passage_knows_its_lines() -> None:
    lines = [f"{number:03d} {SENTENCE.strip()}" for number in range(1, 41)]
    for passage in split_document("\n".join(lines), ".txt").passages:
        assert passage.text.startswith(f"{passage.first_line:03d}")
        assert f"{passage.last_line:03d} " in passage.text
        assert f"{passage.last_line + 1:03d} " not in passage.text


def test_no_text_is_lost() -> None:
    words = [f"w{number}" for number in range(3_000)]
    text = "".join(
        word + (".\n\n" if number % 97 == 0 else ". " if number % 11 == 0 else " ")
        for number, word in enumerate(words)
    )
    found = " ".join(passage.text for passage in split_document(text, ".md").passages)
    assert found.replace(".", "").split() == words


def test_comments_are_no_text() -> None:
    assert split_document("<!-- licence\nlines -->\n\nText.", ".md").passages[0].text == "Text."


@pytest.mark.parametrize("text", ["", "\n\n", "# Only a title\n", "```\n```\n", "---\n---\n"])
def test_a_document_without_text_has_no_passages(text: str) -> None:
    assert split_document(text, ".md").passages == ()


def test_sentences_end_where_people_see_an_end() -> None:
    assert split_sentences('He said "Stop!" and left. J. Smith, e.g. by 3.5 p.m. it is. Yes?') == [
        'He said "Stop!" and left.',
        "J. Smith, e.g. by 3.5 p.m. it is.",
        "Yes?",
    ]
    assert split_sentences("涨潮了。“快跑！”他说。\n走") == ["涨潮了。", "“快跑！”", "他说。", "走"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "unit", [".", ". ", "! ", "[", "[](", "`", "#", "> ", "*", "…", "=\n", " "]
)
def test_no_text_takes_long(unit: str) -> None:
    split_document(unit * (300_000 // len(unit)), ".md")
