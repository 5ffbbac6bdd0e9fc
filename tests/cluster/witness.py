"""What was seen from outside: by the clients, and by the upstream."""

import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.faults.script import script_of
from tests.faults.wire import Frame, Response, read_frames, read_responses

REQUEST, NOTES, RAW = ".request", ".notes", ".raw"


@dataclass(frozen=True)
class Reader:
    """A client's reading of one run, over all its connections."""

    name: str
    request: bytes | None
    """How it asked; None if it followed another one."""
    responses: list[Response]
    notes: list[list[str]]

    @cached_property
    def _streams(self) -> list[tuple[list[Frame], bytes]]:
        return [read_frames(r.body) for r in self.responses if r.status == 200]

    @cached_property
    def frames(self) -> list[Frame]:
        """All events, in the order in which they came."""
        return [frame for frames, _ in self._streams for frame in frames]

    @property
    def tail(self) -> bytes:
        """The beginning of an event after which nothing came."""
        return self._streams[-1][1] if self._streams else b""

    @property
    def ended(self) -> bool:
        return bool(self.frames) and self.frames[-1].event == b"run-end"

    @property
    def text(self) -> str | None:
        """The question."""
        if self.request is None:
            return None
        body: dict[str, Any] = json.loads(self.request.partition(b"\r\n\r\n")[2])
        return str(body["message"])

    @property
    def run_id(self) -> str | None:
        """The run that it was answered with."""
        names = [r.headers.get("x-holdfast-run") for r in self.responses if r.status == 200]
        return names[0] if names else None

    @property
    def run_ids(self) -> set[str]:
        """All runs that it had events of."""
        return {frame.id.partition(b".")[0].decode() for frame in self.frames}

    @property
    def ports(self) -> list[int]:
        """The nodes of its connections."""
        return [int(note[1]) for note in self.notes if note[0].isdigit()]

    @property
    def cancelled(self) -> bool:
        """Whether a cancel of its run was acknowledged."""
        return any(note[0] == "cancel" and note[2].startswith("2") for note in self.notes)

    @property
    def refusals(self) -> list[str]:
        """What it was told that it should not have been."""
        odd = [" ".join(n) for n in self.notes if n[0] == "refused"]
        odd += [" ".join(n) for n in self.notes if n[0] == "cancel" and not n[2].startswith("2")]
        return odd + [f"status {r.status}" for r in self.responses if r.status == 500]


def read_clients(folder: Path) -> list[Reader]:
    """All that clients have written down so far."""
    return [_read(folder, path.name.removesuffix(NOTES)) for path in sorted(folder.glob("*.notes"))]


def _read(folder: Path, stem: str) -> Reader:
    request = folder / f"{stem}{REQUEST}"
    paths = sorted(folder.glob(f"{stem}.*{RAW}"), key=lambda path: int(path.suffixes[-2][1:]))
    found = [read_responses(path.read_bytes()) for path in paths]
    lines = (folder / f"{stem}{NOTES}").read_text().split("\n")[:-1]
    return Reader(
        stem,
        request.read_bytes() if request.exists() else None,
        [responses[0] for responses in found if responses],
        [line.split(" ") for line in lines],
    )


class Progress:
    """Counts the events that clients have got, as they come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[int, bytes]] = {}
        self._events = 0

    _MARK = b"\nevent: "

    def count(self) -> int:
        """How many there are by now."""
        for path in self._folder.glob(f"*{RAW}"):
            offset, rest = self._read.get(path, (0, b""))
            with path.open("rb") as file:
                file.seek(offset)
                new = file.read()
            if new:
                self._events += (rest + new).count(self._MARK)
                rest = (rest + new)[-len(self._MARK) + 1 :]
                self._read[path] = (offset + len(new), rest)
        return self._events


@dataclass(frozen=True)
class UpstreamLog:
    """What the upstream was asked, what it sent and who hung up, as far as its log went."""

    asked: Counter[str]
    sent: dict[str, int]
    """Frames by the question's name."""
    closed: frozenset[str]

    def left_open(self, question: str, name: str) -> bool:
        """Whether this answer is still wanted by whoever asked for it."""
        whole = self.sent.get(name, 0) >= len(script_of(question).frames)
        return name in self.asked and not whole and name not in self.closed


def read_upstream(path: Path) -> UpstreamLog:
    """Read the log; its last line may be half written."""
    asked: Counter[str] = Counter()
    sent: dict[str, int] = {}
    closed: set[str] = set()
    for line in path.read_text().split("\n")[:-1]:
        word, name, *rest = line.split(" ")
        match word:
            case "asked":
                asked[name] += 1
            case "closed":
                closed.add(name)
            case _:
                sent[name] = int(rest[0])
    return UpstreamLog(asked, sent, frozenset(closed))
