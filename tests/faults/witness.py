"""What was seen from outside: by the clients, and by the upstream."""

import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.faults.script import script_of
from tests.faults.wire import Frame, Response, read_frames, read_responses


@dataclass(frozen=True)
class Stream:
    """What one connection of a client gave."""

    response: Response
    before: bool
    """Whether it is of the time before the kill."""

    @cached_property
    def _parts(self) -> tuple[list[Frame], bytes]:
        return read_frames(self.response.body) if self.response.status == 200 else ([], b"")

    @property
    def frames(self) -> list[Frame]:
        return self._parts[0]

    @property
    def tail(self) -> bytes:
        """The beginning of an event that was cut off."""
        return self._parts[1]


@dataclass(frozen=True)
class Asked:
    """A question as a client put it, and the streams that it got for it."""

    name: str
    request: bytes
    streams: list[Stream]

    @property
    def text(self) -> str:
        body: dict[str, Any] = json.loads(self.request.partition(b"\r\n\r\n")[2])
        return str(body["message"])

    @property
    def before(self) -> Stream | None:
        """The stream that the kill broke, or that was whole by then."""
        return next((stream for stream in self.streams if stream.before), None)

    @property
    def resumed(self) -> bool:
        """Whether it came back with a cursor."""
        return len(self.streams) > 1 and self.before is not None and bool(self.before.frames)

    @property
    def frames(self) -> list[Frame]:
        """All events, in the order in which they came."""
        return [frame for stream in self.streams for frame in stream.frames]


def raw_files(folder: Path) -> set[Path]:
    """The files of all connections so far."""
    return set(folder.glob("*.raw"))


def read_clients(folder: Path, before: set[Path]) -> list[Asked]:
    """All questions, by the names of their files; `before` are the connections before the kill."""
    return [
        Asked(path.stem, path.read_bytes(), _streams(folder, path.stem, before))
        for path in sorted(folder.glob("*.request"))
    ]


def _streams(folder: Path, stem: str, before: set[Path]) -> list[Stream]:
    paths = sorted(folder.glob(f"{stem}.*.raw"), key=lambda path: int(path.suffixes[-2][1:]))
    found = [(read_responses(path.read_bytes()), path in before) for path in paths]
    return [Stream(responses[0], early) for responses, early in found if responses]


@dataclass(frozen=True)
class UpstreamLog:
    """What the upstream was asked and what it sent, as far as its log went."""

    asked: Counter[str]
    sent: dict[str, int]
    """Frames by the question's name."""

    def sent_text(self, name: str, question: str) -> str:
        """The text that it had sent."""
        frames = script_of(question).frames[: self.sent.get(name, 0)]
        return "".join(frame.text for frame in frames)


def read_upstream(path: Path) -> UpstreamLog:
    """Read the log; its last line may be half written."""
    asked: Counter[str] = Counter()
    sent: dict[str, int] = {}
    for line in path.read_text().split("\n")[:-1]:
        word, name, *rest = line.split(" ")
        if word == "asked":
            asked[name] += 1
        else:
            sent[name] = int(rest[0])
    return UpstreamLog(asked, sent)
