"""The rules of the HTML Living Standard, section 9.2, as a table, and the parser's limits."""

import pytest

from holdfast.upstreams.wire.sse import BOM, SseEvent, SseParser

A, B = SseEvent(b"a"), SseEvent(b"b")
A1 = SseEvent(b"a", id="1")
ODD = "a\u2028b\u0085c"

CASES: list[tuple[str, bytes, list[SseEvent]]] = [
    ("one block", b"data: a\n\n", [A]),
    ("two blocks", b"data: a\n\ndata: b\n\n", [A, B]),
    ("no space after the colon", b"data:a\n\n", [A]),
    ("only one space is removed", b"data:  a\n\n", [SseEvent(b" a")]),
    ("a tab is not removed", b"data:\ta\n\n", [SseEvent(b"\ta")]),
    ("the first colon splits", b"data: a: b:c\n\n", [SseEvent(b"a: b:c")]),
    ("lines of data are joined by LF", b"data: a\ndata\ndata: b\n\n", [SseEvent(b"a\n\nb")]),
    ("empty data is dispatched", b"data\n\n", [SseEvent(b"")]),
    ("empty data with a colon", b"data:\n\n", [SseEvent(b"")]),
    ("empty data with a space", b"data: \n\n", [SseEvent(b"")]),
    ("two empty lines of data", b"data\ndata\n\n", [SseEvent(b"\n")]),
    ("blank lines alone", b"\n\n\n\n", []),
    ("more blank lines between blocks", b"data: a\n\n\n\ndata: b\n\n", [A, B]),
    ("a blank line first", b"\ndata: a\n\n", [A]),
    ("CR ends lines", b"data: a\r\rdata: b\r\r", [A, B]),
    ("CRLF ends lines", b"data: a\r\n\r\ndata: b\r\n\r\n", [A, B]),
    ("ends of all kinds", b"data: a\r\ndata: b\rdata: c\n\r\n", [SseEvent(b"a\nb\nc")]),
    ("LF then CR is a blank line", b"data: a\n\rdata: b\r\n\n", [A, B]),
    ("CR inside a block of LF", b"data: a\rdata: b\n\n", [SseEvent(b"a\nb")]),
    ("a comment is nothing", b": hi\n\n:\n\ndata: a\n\n", [A]),
    ("a comment inside a block", b"data: a\n: hi\ndata: b\n\n", [SseEvent(b"a\nb")]),
    ("a byte order mark is dropped", b"\xef\xbb\xbfdata: a\n\n", [A]),
    ("only one is", b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [B]),
    ("and only at the start", b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [A]),
    ("half of one is no mark", b"\xef\xbbdata: a\n\ndata: b\n\n", [B]),
    ("an event's type", b"event: x\ndata: a\n\n", [SseEvent(b"a", "x")]),
    ("the type is for one event", b"event: x\ndata: a\n\ndata: b\n\n", [SseEvent(b"a", "x"), B]),
    ("the last type counts", b"event: x\nevent: y\ndata: a\n\n", [SseEvent(b"a", "y")]),
    ("an empty type is the default", b"event: x\nevent\ndata: a\n\n", [A]),
    ("a type without data is forgotten", b"event: x\n\ndata: a\n\n", [A]),
    ("an id stays", b"id: 1\ndata: a\n\ndata: a\n\n", [A1, A1]),
    ("an id alone counts", b"id: 1\n\ndata: a\n\n", [A1]),
    ("an empty id resets", b"id: 1\n\nid\ndata: a\n\n", [A]),
    ("an id with NUL is ignored", b"id: 1\nid: 2\x003\ndata: a\n\n", [A1]),
    ("NUL in data is data", b"data: a\x00b\n\n", [SseEvent(b"a\x00b")]),
    ("names are case-sensitive", b"Data: a\nDATA: b\ndata: c\n\n", [SseEvent(b"c")]),
    ("a space before the name", b" data: a\ndata: b\n\n", [B]),
    ("a space behind the name", b"data : a\ndata: b\n\n", [B]),
    ("an unknown field", b"datum: a\ndata: b\nx\n\n", [B]),
    ("U+2028 and U+0085 end no line", f"data: {ODD}\n\n".encode(), [SseEvent(ODD.encode())]),
    ("VT and FF end no line", b"data: a\x0bb\x0cc\n\n", [SseEvent(b"a\x0bb\x0cc")]),
    ("not UTF-8", b"data: \xff\xfe\nevent: \xff\n\n", [SseEvent(b"\xff\xfe", "\ufffd")]),
    ("no end", b"data: a\n\ndata: b", [A]),
    ("no blank line at the end", b"data: a\n\ndata: b\n", [A]),
    ("CRLF CR is a blank line", b"data: a\r\n\r", [A]),
]  # fmt: skip


@pytest.mark.parametrize(("data", "events"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
class TestWhatwg:
    def test_in_one_piece(self, data: bytes, events: list[SseEvent]) -> None:
        assert SseParser().feed(data) == events

    def test_byte_by_byte(self, data: bytes, events: list[SseEvent]) -> None:
        parser = SseParser()
        assert [event for byte in data for event in parser.feed(bytes([byte]))] == events

    def test_cut_in_two_anywhere(self, data: bytes, events: list[SseEvent]) -> None:
        for cut in range(len(data) + 1):
            parser = SseParser()
            assert parser.feed(data[:cut]) + parser.feed(b"") + parser.feed(data[cut:]) == events

    def test_after_another_block(self, data: bytes, events: list[SseEvent]) -> None:
        mark = data[:3] if data.startswith(BOM) else b""
        stream = mark + b"data: 0\n\n" + data.removeprefix(mark)
        assert SseParser().feed(stream) == [SseEvent(b"0"), *events]


@pytest.mark.parametrize(
    ("line", "retry_ms"),
    [
        (b"retry: 3000", 3000),
        (b"retry:0", 0),
        (b"retry: 1_000", None),
        (b"retry: -5", None),
        (b"retry: 5 ", None),
        (b"retry: 1.5", None),
        (b"retry", None),
        ("retry: ３".encode(), None),
        (b"retry: " + b"9" * 5000, None),
    ],
)
def test_retry_takes_ascii_digits_only(line: bytes, retry_ms: int | None) -> None:
    parser = SseParser()
    assert parser.feed(line + b"\n\n") == []
    assert parser.retry_ms == retry_ms


@pytest.mark.parametrize(
    ("data", "unfinished"),
    [
        (b"", False),
        (b"data: a\n\n", False),
        (b"data: a\r\n\r\n", False),
        (b"data: a\n\ndata: b\n", True),
        (b"data: a\n\nd", True),
        (b": a comment\n", False),
        (b"\xef\xbb", True),
        (b"\xef\xbb\xbf", False),
    ],
)
def test_an_unterminated_tail_is_told(data: bytes, unfinished: bool) -> None:
    parser = SseParser()
    parser.feed(data)
    assert parser.unfinished is unfinished


class TestLimit:
    def test_an_event_of_the_largest_size_passes(self) -> None:
        parser = SseParser(max_event=20)
        line = b"data: " + b"x" * 14
        assert parser.feed(line + b"\n\n") == [SseEvent(b"x" * 14)]
        assert not parser.overflowed

    @pytest.mark.parametrize("size", [1, 3, 1000])
    def test_a_longer_line_ends_the_parsing(self, size: int) -> None:
        parser = SseParser(max_event=20)
        stream = b"data: a\n\ndata: " + b"x" * 15 + b"\n\ndata: b\n\n"
        events = []
        for at in range(0, len(stream), size):
            events += parser.feed(stream[at : at + size])
        assert events == [SseEvent(b"a")]
        assert parser.overflowed
        assert parser.feed(b"\n\ndata: c\n\n") == []

    @pytest.mark.parametrize("size", [1, 3, 1000])
    def test_lines_of_data_count_together(self, size: int) -> None:
        parser = SseParser(max_event=20)
        stream = b"data: 0\n\n" + b"data: xxxxxx\n" * 3 + b"\n" + b"data: yyyyyy\n" * 4 + b"\n"
        events = []
        for at in range(0, len(stream), size):
            events += parser.feed(stream[at : at + size])
        assert events == [SseEvent(b"0"), SseEvent(b"xxxxxx\nxxxxxx\nxxxxxx")]
        assert parser.overflowed

    def test_comments_and_unknown_fields_do_not_add_up(self) -> None:
        parser = SseParser(max_event=20)
        assert parser.feed(b": keep-alive\nx: y\n" * 1000) == []
        assert parser.feed(b"data: a\n\n") == [SseEvent(b"a")]

    def test_an_endless_line_is_not_kept(self) -> None:
        parser = SseParser(max_event=1000)
        for _ in range(100):
            parser.feed(b"x" * 100)
        assert parser.overflowed
        assert not parser.unfinished
