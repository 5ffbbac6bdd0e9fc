"""History and titles."""

import pytest

from holdfast.engine.policy import TITLE_LENGTH, ChatMessage, Turn, select_history, title_of

TURNS = [Turn("q1", "a1"), Turn("q2", "a2"), Turn("q3", "a3")]


def _texts(messages: list[ChatMessage]) -> list[str]:
    return [message.content for message in messages]


def test_history_is_given_oldest_first_with_alternating_roles() -> None:
    assert select_history(TURNS, 20, 1_000) == [
        ChatMessage("user", "q1"),
        ChatMessage("assistant", "a1"),
        ChatMessage("user", "q2"),
        ChatMessage("assistant", "a2"),
        ChatMessage("user", "q3"),
        ChatMessage("assistant", "a3"),
    ]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [(0, ""), (1, ""), (2, "q3 a3"), (3, "q3 a3"), (4, "q2 a2 q3 a3"), (6, "q1 a1 q2 a2 q3 a3")],
)
def test_history_takes_whole_turns_up_to_the_number_of_messages(
    messages: int, expected: str
) -> None:
    assert _texts(select_history(TURNS, messages, 1_000)) == expected.split()


@pytest.mark.parametrize(
    ("chars", "expected"),
    [
        (0, ""),
        (3, ""),
        (4, "q3 a3"),
        (7, "q3 a3"),
        (8, "q2 a2 q3 a3"),
        (11, "q2 a2 q3 a3"),
        (12, "q1 a1 q2 a2 q3 a3"),
    ],
)
def test_history_takes_whole_turns_up_to_the_number_of_characters(
    chars: int, expected: str
) -> None:
    assert _texts(select_history(TURNS, 20, chars)) == expected.split()


def test_characters_are_counted_and_not_bytes() -> None:
    assert len(select_history([Turn("海带", "褐藻")], 2, 4)) == 2


def test_a_turn_without_an_answer_is_left_out_whole() -> None:
    turns = [Turn("q1", "a1"), Turn("q2", ""), Turn("q3", "a3")]
    assert _texts(select_history(turns, 20, 1_000)) == ["q1", "a1", "q3", "a3"]
    assert _texts(select_history(turns, 4, 1_000)) == ["q1", "a1", "q3", "a3"]
    assert select_history([Turn("q", "")], 20, 1_000) == []


def test_a_turn_without_an_answer_costs_no_characters() -> None:
    turns = [Turn("q1", "a1"), Turn("x" * 1_000, "")]
    assert _texts(select_history(turns, 20, 4)) == ["q1", "a1"]


def test_history_has_no_hole_where_a_long_turn_was() -> None:
    """An older short turn must not come in behind the back of a longer one that did not fit."""
    turns = [Turn("q1", "a1"), Turn("q2", "x" * 100), Turn("q3", "a3")]
    assert _texts(select_history(turns, 20, 50)) == ["q3", "a3"]


def test_no_turns_give_no_history() -> None:
    assert select_history([], 20, 1_000) == []


# ------------------------------------------------------------------------------ titles


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("What is kelp?", "What is kelp?"),
        ("  \n What is kelp?\nTell me all.", "What is kelp?"),
        ("one\r\ntwo", "one"),
        ("海带是什么?", "海带是什么?"),
        ("x" * TITLE_LENGTH, "x" * TITLE_LENGTH),
        ("海" * TITLE_LENGTH, "海" * TITLE_LENGTH),
        ("海" * (TITLE_LENGTH + 1), "海" * TITLE_LENGTH + "…"),
        ("x" * 500, "x" * TITLE_LENGTH + "…"),
    ],
)
def test_a_title_is_the_first_line_of_the_question(question: str, title: str) -> None:
    assert title_of(question) == title


def test_a_long_title_is_cut_at_a_word() -> None:
    question = "How does the root of a kelp stay in its place when the current is strong?"
    assert title_of(question) == "How does the root of a kelp stay in its place when the…"


def test_a_word_that_ends_exactly_at_the_bound_stays() -> None:
    question = "a" * 40 + " " + "b" * 19 + " and more"
    assert title_of(question) == "a" * 40 + " " + "b" * 19 + "…"


def test_a_title_never_becomes_tiny_because_of_one_long_word() -> None:
    question = "See " + "x" * 500
    assert title_of(question) == ("See " + "x" * 500)[:TITLE_LENGTH] + "…"


@pytest.mark.parametrize("length", range(TITLE_LENGTH - 2, TITLE_LENGTH + 3))
def test_a_title_is_never_longer_than_its_bound_and_the_dots(length: int) -> None:
    assert len(title_of("word " * 40)) <= TITLE_LENGTH + 1
    assert len(title_of("y" * length)) <= TITLE_LENGTH + 1
