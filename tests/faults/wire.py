"""What a client received, read from its raw bytes, however they were cut off."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple


class Frame(NamedTuple):
    """An event as it stood on the wire."""

    id: bytes
    event: bytes
    data: bytes


class Response(NamedTuple):
    """A response as far as it came."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Broken(Exception):
    """Bytes that are no HTTP or no events, although nothing was cut."""


def read_responses(raw: bytes) -> list[Response]:
    """The responses that came over one connection; the last one may be cut."""
    responses = []
    while raw:
        head, end, rest = raw.partition(b"\r\n\r\n")
        if not end:
            break
        start, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if "chunked" in headers.get("transfer-encoding", ""):
            body, whole, raw = _read_chunks(rest)
        else:
            length = int(headers.get("content-length", 0))
            body, whole, raw = rest[:length], len(rest) >= length, rest[length:]
        responses.append(Response(int(start.split(" ")[1]), headers, body, whole))
    return responses


def _read_chunks(rest: bytes) -> tuple[bytes, bool, bytes]:
    body: list[bytes] = []
    while True:
        line, end, rest = rest.partition(b"\r\n")
        if not end:
            return b"".join(body), False, b""
        size = int(line, 16)
        body.append(rest[:size])
        if len(rest) < size + 2:
            return b"".join(body), False, b""
        if rest[size : size + 2] != b"\r\n":
            raise Broken(f"a chunk of {size} bytes is not followed by a line's end")
        rest = rest[size + 2 :]
        if size == 0:
            return b"".join(body), True, rest


def read_frames(body: bytes) -> tuple[list[Frame], bytes]:
    """The whole events of a stream's body, and what is left of a cut one."""
    *blocks, tail = body.split(b"\n\n")
    return [frame for block in blocks for frame in _read_frame(block)], tail


def _read_frame(block: bytes) -> Iterator[Frame]:
    if block.startswith((b":", b"retry: ")):
        return  # the opening or a heartbeat; a node that goes
    fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
    if fields.keys() != {b"id", b"event", b"data"}:
        raise Broken(f"a frame has the fields {sorted(fields)}")
    yield Frame(fields[b"id"], fields[b"event"], fields[b"data"])


def stored_frame(run_id: str, seq: int, line: bytes) -> Frame:
    """The event that a line of a stored log must be on the wire."""
    return Frame(f"{run_id}.{seq}".encode(), json.loads(line)["type"].encode(), line)


def frame_bytes(frame: Frame) -> bytes:
    """A frame on the wire."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % frame
