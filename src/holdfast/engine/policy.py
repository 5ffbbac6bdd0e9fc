"""Small decisions that are pure functions of their arguments."""

from collections.abc import Sequence

import msgspec

TITLE_LENGTH = 60


class Turn(msgspec.Struct, frozen=True):
    """A question of the session with the active version of its answer."""

    question: str
    answer: str


class ChatMessage(msgspec.Struct, frozen=True):
    """A message as stateless upstreams take it: role `system`, `user` or `assistant`."""

    role: str
    content: str


def select_history(turns: Sequence[Turn], messages: int, chars: int) -> list[ChatMessage]:
    """The most recent turns that fit, oldest first.

    A turn goes in whole or not at all, and a turn without an answer is left out: a model that
    sees two questions in a row answers the wrong one.

    Args:
        turns: The session's turns, oldest first.
        messages: How many messages to give at most.
        chars: How many characters to give at most.
    """
    chosen: list[ChatMessage] = []
    for turn in reversed(turns):
        if not turn.answer:
            continue
        chars -= len(turn.question) + len(turn.answer)
        if chars < 0 or len(chosen) + 2 > messages:
            break
        chosen += [ChatMessage("assistant", turn.answer), ChatMessage("user", turn.question)]
    return chosen[::-1]


def title_of(question: str) -> str:
    """A session's title from its first question: its first line, cut at a word."""
    line = question.strip().split("\n", 1)[0].strip()
    if len(line) <= TITLE_LENGTH:
        return line
    cut = line[:TITLE_LENGTH]
    if line[TITLE_LENGTH] == " ":
        return cut + "…"
    head, space, _ = cut.rpartition(" ")
    return (head if space and len(head) > TITLE_LENGTH // 2 else cut) + "…"
