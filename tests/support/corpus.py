"""The corpus: what upstreams sent, what it means, and what each dialect makes of it.

    tests/corpus/<decoder>/<case>.sse            the body of an answer, as it came
    tests/corpus/<decoder>/<case>.json           the same, of one that came in one piece
    tests/corpus/<decoder>/<case>.jsonl          the items that the decoder must give
    tests/corpus/<decoder>/<case>.<dialect>.txt  what a reader of that dialect must get

A case is made by its first file alone; `pytest tests/corpus --record-corpus` writes the others,
for somebody to read before they are committed. A decoder needs a line in `DECODERS`; a dialect
needs nothing, as those of `holdfast.http.dialects` are found.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from holdfast.dialects.base import About, Encoder
from holdfast.engine.run import RunMachine, Signal, UpstreamEnd
from holdfast.events import (
    Entry,
    Event,
    Reason,
    RunStart,
    TextDelta,
    TextReplace,
    decode,
    encode,
)
from holdfast.upstreams.anythingllm.decoder import AnythingLLMDecoder
from holdfast.upstreams.base import Item
from holdfast.upstreams.decoding.citations import CitationTranslator, Style
from holdfast.upstreams.decoding.decoder import Decoder
from holdfast.upstreams.dify.decoder import DifyDecoder
from holdfast.upstreams.openai.decoder import OpenAIDecoder
from holdfast.upstreams.ragflow.decoder import RagflowDecoder
from holdfast.upstreams.wire.sse import SseParser

CORPUS: Final = Path(__file__).parents[1] / "corpus"

DECODERS: Final[dict[str, Callable[[], Decoder]]] = {
    "anythingllm": AnythingLLMDecoder,
    "dify": lambda: DifyDecoder(base_url="https://dify.example/v1"),
    "openai": OpenAIDecoder,
    "openai_agents": lambda: OpenAIDecoder(citations=CitationTranslator(Style.KEY, loose=False)),
    "ragflow": RagflowDecoder,
}
"""A fresh decoder for the cases of each folder."""

START: Final = RunStart(
    run_id="run-1",
    session_id="session-1",
    message_id="message-2",
    question_id="message-1",
    upstream="upstream-1",
    model="model-1",
    route_reason="the default",
)
ABOUT: Final = About("run-1", "session-1", 1_790_000_000_000)
Compared: TypeAlias = Callable[[Path, bytes], None]
"""Compares bytes with those of a file, or records them."""
CUT_OFF: Final = UpstreamEnd(Reason.UPSTREAM_TRUNCATED, error="the connection was cut")


class Case(msgspec.Struct, frozen=True):
    """One answer of one upstream."""

    path: Path

    def __str__(self) -> str:
        return f"{self.folder}/{self.path.stem}"

    @property
    def folder(self) -> str:
        """The name of its decoder."""
        return self.path.parent.name

    @property
    def is_stream(self) -> bool:
        """Whether the answer came as a stream, and not in one piece."""
        return self.path.suffix == ".sse"

    @property
    def body(self) -> bytes:
        """What the upstream sent."""
        return self.path.read_bytes()

    def decoder(self) -> Decoder:
        """A fresh one."""
        return DECODERS[self.folder]()

    def items(self) -> list[Item]:
        """What the decoder makes of the whole."""
        decoder = self.decoder()
        if not self.is_stream:
            return decoder.feed_whole(self.body)
        return decoder.feed(self.body) + decoder.finish()

    @property
    def items_file(self) -> Path:
        """Where the expected items are."""
        return self.path.with_suffix(".jsonl")

    def dialect_file(self, dialect: str) -> Path:
        """Where the expected bytes of a dialect are."""
        return self.path.with_suffix(f".{dialect}.txt")


def find_cases(*folders: str) -> list[Case]:
    """The cases of these decoders, by default of all, in a stable order."""
    paths = [path for name in folders or DECODERS for path in (CORPUS / name).iterdir()]
    return [Case(path) for path in sorted(paths) if path.suffix in (".sse", ".json")]


# ---------------------------------------------------------------------- items


def as_lines(items: Iterable[Item]) -> bytes:
    """Items as the corpus writes them: a line of JSON each."""
    return b"".join([_as_line(item) + b"\n" for item in items])


def _as_line(item: Item) -> bytes:
    if not isinstance(item, UpstreamEnd):
        return encode(item)
    fields = msgspec.structs.asdict(item)
    told = {name: value for name, value in fields.items() if value is not None}
    return msgspec.json.encode({"type": "upstream-end", **told})


def check_items(items: list[Item]) -> None:
    """One end, last; every event can be stored and read back; marks fit their texts."""
    assert [isinstance(item, UpstreamEnd) for item in items] == [False] * (len(items) - 1) + [True]
    for item in items[:-1]:
        assert not isinstance(item, UpstreamEnd)
        assert decode(encode(item)) == item
        if isinstance(item, TextDelta | TextReplace):
            for start, end, ordinal in item.marks:
                assert item.text[start:end] == f"[{ordinal}]"


def feed_pieces(decoder: Decoder, pieces: Iterable[bytes]) -> list[Item]:
    """What a decoder gives for a stream that comes in these pieces and ends by itself."""
    items = [item for piece in pieces for item in decoder.feed(piece)]
    return items + decoder.finish()


def ends_of_events(stream: bytes) -> list[int]:
    """The places right behind each whole event of a stream."""
    parser = SseParser()
    return [at + 1 for at in range(len(stream)) if parser.feed(stream[at : at + 1])]


# ---------------------------------------------------------------------- dialects


def log_of(items: Iterable[Item]) -> list[Entry]:
    """The log of a run that was given these items; its ids are always the same."""
    machine = RunMachine()
    machine.signal(Signal.CONNECT)
    log: list[Event] = [START]
    for item in items:
        if isinstance(item, UpstreamEnd):
            log.append(machine.end(item))
        else:
            machine.see(item)
            log.append(item)
    return [Entry(seq, event, encode(event)) for seq, event in enumerate(log, 1)]


def write_each(encoder: Encoder, entries: Iterable[Entry]) -> list[bytes]:
    """What an encoder writes for entries that come one by one."""
    return [encoder.encode([entry]) for entry in entries]


# ---------------------------------------------------------------------- recording


def compare(path: Path, got: bytes, *, record: bool) -> None:
    """Compare with what is recorded, or record it.

    Raises:
        AssertionError: It is not as recorded, or nothing is.
    """
    if record:
        if not path.exists() or path.read_bytes() != got:
            path.write_bytes(got)
        return
    assert path.exists(), f"{path.name} is missing: run pytest tests/corpus --record-corpus"
    recorded = path.read_bytes()
    # Lines, with the name, are what a difference is read by.
    assert {path.name: got.splitlines(True)} == {path.name: recorded.splitlines(True)}
