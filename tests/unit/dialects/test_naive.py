"""Small frames: how texts are cut and references are made to fit."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.dialects.base import About, ascii_json, json_size, split_text
from holdfast.dialects.naive import (
    CLOSING_BYTES,
    PACKET_BYTES,
    NaiveEncoder,
    cut,
    data,
    fitted,
)
from holdfast.dialects.plain import PlainEncoder
from holdfast.dialects.stream_ask import StreamAskEncoder
from holdfast.dialects.v1 import V1Encoder
from holdfast.events import (
    Event,
    Finish,
    Notice,
    Outcome,
    Reason,
    Reference,
    References,
    RunEnd,
    RunStart,
    TextDelta,
    TextReplace,
)
from tests.support import strategies
from tests.support.frames import datas_of, entries_of, frames_of
from tests.unit.test_events import PINNED

ENCODERS: list[type[NaiveEncoder]] = [V1Encoder, PlainEncoder, StreamAskEncoder]
ABOUT = About("run-1", "my session", 0)
START = RunStart("run-1", "s1", "m1", "q1", "docs")
TEXTS = (TextDelta, TextReplace)
HOSTILE = ["a\nb\r\n\r\ndata: [DONE]\n\n", '"}\\u', "\x00\x01\u2028\u2029", "海带🌊", "\x7f\x85"]


class TestSplitText:
    @given(strategies.texts, st.integers(12, 40))
    def test_loses_nothing_and_fits(self, text: str, size: int) -> None:
        pieces = list(split_text(text, size))
        assert "".join(pieces) == text
        assert all(0 < json_size(piece) <= size for piece in pieces)

    def test_of_a_text_that_fits_is_the_text(self) -> None:
        assert list(split_text("a" * 40, 40)) == ["a" * 40]
        assert list(split_text("海" * 6, 36)) == ["海" * 6]
        assert list(split_text("", 12)) == []

    @pytest.mark.parametrize("character", ["a", "é", "海", "🌊", '"', "\n", "\x01"])
    def test_fills_its_pieces(self, character: str) -> None:
        pieces = list(split_text(character * 1_000, 120))
        assert {json_size(piece) for piece in pieces[:-1]} == {120}

    def test_of_a_mixed_text_makes_no_more_than_twice_the_pieces_that_are_needed(self) -> None:
        text = ("kelp " * 300 + "海带" * 300) * 20
        assert len(list(split_text(text, 900))) <= 2 * json_size(text) / 900


class TestCut:
    @given(strategies.texts, st.integers(18, 60))
    def test_fits_and_says_where_it_was_cut(self, text: str, size: int) -> None:
        short = cut(text, size)
        assert json_size(short) <= size
        assert short == text or (short.endswith("…") and text.startswith(short[:-1]))

    def test_leaves_alone_what_fits(self) -> None:
        assert cut("a" * 18, 18) == "a" * 18
        assert cut("a" * 19, 18) == "a" * 12 + "…"


def large(ordinal: int, **fields: Any) -> Reference:
    return Reference(
        **{
            "ordinal": ordinal,
            "document_id": f"{ordinal:032x}",
            "document_name": "海带" * 250,
            "chunk_id": f"{ordinal + 500:032x}",
            "text": "潮汐" * 3_000,
            "url": "https://kelp.example/" + "a" * 1_900,
            "score": 0.123456789,
            "positions": [[1, 2, 3]] * 100,
            "extra": {"note": "x" * 3_000},
            **fields,
        }
    )


class TestReferences:
    def test_that_fit_are_whole(self) -> None:
        references = [Reference(1, text="A root.", extra={"a": [1, None]}), Reference(2)]
        assert fitted(references, 1_000) == [
            {"ordinal": 1, "text": "A root.", "extra": {"a": [1, None]}},
            {"ordinal": 2},
        ]

    def test_first_get_shorter_passages_and_keep_all_else(self) -> None:
        references = [
            Reference(1, document_name="long", text="海" * 5_000, extra={"a": 1}),
            Reference(2, document_name="short", text="A root.", extra={"b": 2}),
        ]
        long, short = fitted(references, 2_000)
        assert (short["text"], short["extra"]) == ("A root.", {"b": 2})
        assert long["extra"] == {"a": 1}
        assert long["text"].endswith("海…")
        assert 1_900 < len(ascii_json([long, short])) <= 2_000

    def test_then_lose_the_upstreams_own_fields(self) -> None:
        items = fitted([large(n, document_name="kelp.md", url=None) for n in range(1, 11)], 6_000)
        assert all(item.keys().isdisjoint({"extra", "positions"}) for item in items)
        assert all(len(item["text"]) > 20 for item in items)
        assert [item["chunk_id"] for item in items] == [f"{n + 500:032x}" for n in range(1, 11)]

    def test_then_lose_their_passages(self) -> None:
        items = fitted([large(n, document_name="kelp.md", url=None) for n in range(1, 11)], 2_500)
        assert [item["ordinal"] for item in items] == list(range(1, 11))
        assert all("text" not in item for item in items)
        assert all(item["document_name"] == "kelp.md" for item in items)

    def test_a_hundred_large_ones_still_fit_by_name_and_id(self) -> None:
        items = fitted([large(n) for n in range(1, 101)], CLOSING_BYTES - 1_000)
        assert [item["ordinal"] for item in items] == list(range(1, 101))
        assert items[0]["document_id"] == f"{1:032x}"
        assert items[0]["chunk_id"] == f"{501:032x}"
        assert len(items[0]["document_name"]) >= 20
        assert items[0]["document_name"].startswith("海带海带")

    def test_with_long_names_keep_their_urls_and_get_the_room_that_is_left(self) -> None:
        url = "https://kelp.example/" + "a" * 100
        items = fitted([large(n, url=url, text="") for n in range(1, 31)], CLOSING_BYTES)
        assert [item["url"] for item in items] == [url] * 30
        assert all(len(item["document_name"]) > 100 for item in items)
        assert CLOSING_BYTES - 1_000 < len(ascii_json(items)) <= CLOSING_BYTES

    def test_that_are_mostly_urls_lose_the_last_ones_and_keep_their_names(self) -> None:
        references = [large(n, document_name=f"{n} " + "kelp " * 15) for n in range(1, 101)]
        items = fitted(references, CLOSING_BYTES)
        linked = ["url" in item for item in items]
        assert linked == sorted(linked, reverse=True)
        assert 3 < sum(linked) < 100
        assert [item["document_name"] for item in items] == [r.document_name for r in references]
        assert CLOSING_BYTES - 2_000 < len(ascii_json(items)) <= CLOSING_BYTES

    def test_shorten_the_longest_names_first(self) -> None:
        references = [Reference(1, document_name="海" * 500), Reference(2, document_name="Kelp")]
        long, short = fitted(references, 1_000)
        assert short["document_name"] == "Kelp"
        assert 900 < len(ascii_json([long, short])) <= 1_000

    def test_a_thousand_of_them_fit_as_far_as_they_go(self) -> None:
        items = fitted([large(n) for n in range(1, 1_001)], CLOSING_BYTES)
        assert [item["ordinal"] for item in items] == list(range(1, len(items) + 1))
        assert len(items) > 100

    @given(strategies.references(), st.integers(2, 2_000))
    def test_always_fit(self, references: tuple[Reference, ...], size: int) -> None:
        assert len(ascii_json(fitted(references, size))) <= size

    def test_that_no_json_can_say_are_said_as_they_are_stored(self) -> None:
        assert fitted([Reference(1, score=float("nan"))], 100) == [{"ordinal": 1, "score": None}]


@pytest.mark.parametrize("kind", ENCODERS)
class TestFrames:
    def test_are_small_and_ascii_whatever_is_said(self, kind: type[NaiveEncoder]) -> None:
        said = [TextDelta(text * 700) for text in HOSTILE]
        references = References(tuple(large(n) for n in range(1, 101)))
        end = RunEnd(Outcome.INTERRUPTED, Reason.UPSTREAM_ERROR, error="海\n" * 9_000)
        frames = frames_of(kind(ABOUT).encode(entries_of(START, *said, references, end)))
        assert all(frame.isascii() for frame in frames)
        *others, largest = sorted(len(frame) for frame in frames)
        assert largest < 32_768
        assert others[-1] < 1_024

    def test_hold_the_text_of_one_wake_up_together(self, kind: type[NaiveEncoder]) -> None:
        encoder = kind(ABOUT)
        encoder.encode(entries_of(START))
        body = encoder.encode(entries_of(*[TextDelta(c) for c in "Kelp 海带 🌊"], first=2))
        (said,) = datas_of(body)
        assert said["content"] == "Kelp 海带 🌊"

    @pytest.mark.parametrize("text", HOSTILE)
    def test_are_one_line_of_data_whatever_is_said(
        self, kind: type[NaiveEncoder], text: str
    ) -> None:
        body = kind(ABOUT).encode(entries_of(START, TextDelta(text)))
        assert body.count(b"\n") == 2
        assert datas_of(body)[0]["content"] == text

    def test_of_a_session_with_a_long_name_are_small_too(self, kind: type[NaiveEncoder]) -> None:
        about = About("run-1", "é" * 120, 0)
        frames = frames_of(kind(about).encode(entries_of(START, TextDelta("海" * 2_000))))
        assert max(map(len, frames)) < 1_024
        assert "".join(said["content"] for said in datas_of(b"".join(frames))) == "海" * 2_000

    def test_tell_nothing_but_the_text(self, kind: type[NaiveEncoder]) -> None:
        others = [event for event, _ in PINNED if type(event) not in (*TEXTS, RunStart, RunEnd)]
        assert len(others) > 5
        assert kind(ABOUT).encode(entries_of(START, *others)) == b""

    @pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.CANCELLED])
    def test_tell_no_error_of_an_answer_that_was_wanted_so(
        self, kind: type[NaiveEncoder], outcome: Outcome
    ) -> None:
        end = RunEnd(outcome, finish=Finish.STOP)
        assert b"error" not in kind(ABOUT).encode(entries_of(START, TextDelta("Kelp"), end))

    def test_tell_the_reason_where_there_are_no_other_words(self, kind: type[NaiveEncoder]) -> None:
        end = RunEnd(Outcome.FAILED, Reason.UPSTREAM_TIMEOUT)
        first = frames_of(kind(ABOUT).encode(entries_of(START, end)))[0]
        assert b'"the answer ended early: upstream_timeout"' in first

    def test_never_take_back_what_was_said(self, kind: type[NaiveEncoder]) -> None:
        """A rewritten answer goes on where it extends what was sent, and else not at all."""
        said: list[Event] = [
            TextDelta("Kelp holds"),
            TextReplace("Kelp [1] holds"),
            TextDelta(" fast"),
        ]
        assert text_of(kind, *said) == "Kelp holds"
        assert text_of(kind, *said, TextReplace("Kelp holds on.")) == "Kelp holds on."
        assert text_of(kind, TextDelta("a"), TextReplace("ab"), TextDelta("c")) == "abc"


@pytest.mark.parametrize("kind", ENCODERS)
class TestPackets:
    def test_are_whole_frames_that_fit_a_packet(self, kind: type[NaiveEncoder]) -> None:
        encoder = kind(ABOUT)
        body = encoder.encode(entries_of(START, TextDelta("海带 kelp " * 900)))
        packets = list(encoder.packets(body))
        assert b"".join(packets) == body
        assert [frame for packet in packets for frame in frames_of(packet)] == frames_of(body)
        assert 5 < len(packets) <= len(frames_of(body))
        assert all(0 < len(packet) <= PACKET_BYTES for packet in packets)

    def test_hold_small_frames_together(self, kind: type[NaiveEncoder]) -> None:
        encoder = kind(ABOUT)
        body = encoder.encode(entries_of(START, TextDelta("a"), RunEnd(Outcome.FAILED)))
        assert list(encoder.packets(body)) == [body]

    def test_have_a_large_frame_by_itself(self, kind: type[NaiveEncoder]) -> None:
        encoder = kind(ABOUT)
        references = References(tuple(large(n) for n in range(1, 101)))
        end = entries_of(START, TextDelta("a" * 900), references, RunEnd(Outcome.COMPLETED))
        body = encoder.encode(end)
        packets = list(encoder.packets(body))
        assert b"".join(packets) == body
        assert all(len(frames_of(packet)) == 1 for packet in packets if len(packet) > PACKET_BYTES)


def text_of(kind: type[NaiveEncoder], *events: Event) -> str:
    datas = datas_of(kind(ABOUT).encode(entries_of(START, *events)))
    return "".join(said["content"] for said in datas)


def test_data_has_a_space_after_the_colon() -> None:
    assert data({"a": "é"}) == b'data: {"a":"\\u00e9"}\n\n'


def test_a_notice_without_an_upstream_changes_nothing() -> None:
    encoder = V1Encoder(ABOUT)
    encoder.encode(entries_of(START, Notice("n", "Hm.")))
    assert encoder.model_used == "docs"
