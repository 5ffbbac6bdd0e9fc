"""The rules of server-sent events, whole and literally, to compare a parser with.

HTML Living Standard, section 9.2.6 (Interpreting an event stream).
"""

from holdfast.upstreams.wire.sse import SseEvent


def parse(stream: bytes) -> list[SseEvent]:
    """The events of a stream."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events: list[SseEvent] = []
    data, kind, last_id = bytearray(), b"", b""
    for line in text.split(b"\n")[:-1]:
        name, colon, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if not line:
            if data:
                event = kind.decode("utf-8", "replace") or "message"
                events.append(SseEvent(bytes(data[:-1]), event, last_id.decode("utf-8", "replace")))
            data, kind = bytearray(), b""
        elif name == b"" and colon:
            continue
        elif name == b"data":
            data += value + b"\n"
        elif name == b"event":
            kind = value
        elif name == b"id" and b"\0" not in value:
            last_id = value
    return events
