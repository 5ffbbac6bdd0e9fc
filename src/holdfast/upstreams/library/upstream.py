"""The upstream itself: a question in, the composed answer out, at the pace of a reader."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Final, Literal, Self, TypeVar

import anyio
import msgspec
from pydantic import Field

from holdfast.engine.run import UpstreamEnd
from holdfast.errors import Unavailable, UpstreamError
from holdfast.events import Finish, References, Step, TextDelta
from holdfast.settings import LimitSettings, Table
from holdfast.upstreams.base import (
    Ask,
    Exchange,
    GeneratorUpstream,
    Health,
    Item,
    Sink,
    SourceDocument,
    Upstream,
    pour,
)
from holdfast.upstreams.library.compose import Composed, chunk_id, compose, split_answer
from holdfast.upstreams.library.folder import Folder, Skipped
from holdfast.upstreams.library.index import Contents, Index
from holdfast.upstreams.library.query import MAX_CHARS, Query, parse_query
from holdfast.upstreams.library.ranking import Hit, rank
from holdfast.upstreams.library.writer import Writer
from holdfast.upstreams.pacing import pace_out
from holdfast.upstreams.wire.transport import Transport

UNPACED_PIECE: Final = 400
CHECK_PATIENCE_S: Final = 3.0
MAX_SHOWN_SKIPPED: Final = 20

_log = logging.getLogger(__name__)

T = TypeVar("T")


class LibrarySettings(Table):
    """The library's table in the configuration file."""

    kind: Literal["library"] = "library"
    path: Path
    """The folder of documents. It is only read."""
    pace: float = Field(default=80.0, ge=0, allow_inf_nan=False)
    """Characters per second; 0 gives the whole answer at once."""
    passages: int = Field(default=5, ge=1, le=50)
    """How many passages an answer quotes at most."""
    index: Path | None = None
    """The index file; `<name>.library.db` in the current folder if nothing is said."""
    max_file_bytes: int = Field(default=2_000_000, gt=0)
    writer: str | None = None
    """An upstream that writes the answers, from the passages; without one they are quoted."""
    writer_timeout_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """How long the writer may be silent before its first text; then the passages are quoted."""


class Library(GeneratorUpstream):
    """Full-text search over a folder of documents; no model, no network.

    The answer is made of the best passages, quoted, unless another upstream writes it from them.
    The index is a file of its own. All work on files happens in one thread that belongs to the
    library.
    """

    kind = "library"

    Settings = LibrarySettings

    def __init__(
        self,
        name: str,
        settings: LibrarySettings,
        limits: LimitSettings,
        *,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        now: Callable[[], float] = anyio.current_time,
    ) -> None:
        """Take the settings; nothing is opened or read.

        Args:
            name: The upstream's name in the configuration.
            settings: Its table.
            limits: How many references, and how large ones, an answer may have.
            sleep: Waits some seconds.
            now: The time in seconds by the clock that `sleep` goes by.
        """
        super().__init__(name)
        self._pace = settings.pace
        self._passages = min(settings.passages, limits.references)
        self._reference_bytes = limits.reference_bytes
        self._sleep = sleep
        self._now = now
        path = settings.index or Path(re.sub(r"[^\w.-]", "_", name) + ".library.db")
        folder = Folder(settings.path, settings.max_file_bytes)
        self._index = Index(path.expanduser(), folder)
        self._settings = settings
        self.writer: Upstream | None = None
        """Who writes the answers, once it is connected."""
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"library-{name}")

    @classmethod
    def make(
        cls, name: str, settings: LibrarySettings, limits: LimitSettings, transport: Transport
    ) -> Self:
        """See `Upstream.make`."""
        return cls(name, settings, limits)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The files that were not searched last time, and why."""
        return self._index.contents.skipped

    @property
    def asks(self) -> Mapping[str, str]:
        """The writer."""
        writer = self._settings.writer
        return {} if writer is None else {"writer": writer}

    def connect(self, upstreams: Mapping[str, Upstream]) -> None:
        """Take the writer."""
        self.writer = upstreams.get("writer")

    async def open(self) -> None:
        """Begin to bring the index up to date; questions wait until that is done."""
        self._worker.submit(self._warm_up, self._now())

    def _warm_up(self, now: float) -> None:
        try:
            self._index.refresh(now)
        except UpstreamError as error:
            _log.warning("the library %r cannot answer: %s", self.name, error)

    async def close(self) -> None:
        """Let go of the index file."""
        self._index.stop()
        await self._work(self._index.close)
        self._worker.shutdown(wait=False)

    async def _work(self, call: Callable[[], T]) -> T:
        """Call it in the library's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)

    async def answer(self, ask: Ask, exchange: Exchange, sink: Sink) -> UpstreamEnd:
        """See `Upstream.answer`."""
        if self.writer is None:
            return await super().answer(ask, exchange, sink)
        found = _Found()
        end = await pour(self._search(ask, exchange, found), sink)
        composed = found.composed
        if end is None and composed.references:
            writer = Writer(self.writer, self._settings.writer_timeout_s)
            end = await writer.write(ask, composed.references, exchange, sink)
        if end is None:
            end = await pour(self._quote(composed), sink)
        return end or UpstreamEnd(finish=Finish.STOP)

    async def items(self, ask: Ask, exchange: Exchange) -> AsyncGenerator[Sequence[Item], None]:
        """Search, then stream what was found."""
        found = _Found()
        async with aclosing(self._search(ask, exchange, found)) as batches:
            async for batch in batches:
                yield batch
        if found.failed:
            return
        async with aclosing(self._quote(found.composed)) as batches:
            async for batch in batches:
                yield batch

    async def _search(
        self, ask: Ask, exchange: Exchange, found: "_Found"
    ) -> AsyncGenerator[Sequence[Item], None]:
        """Look for passages; what is there goes into `found`, and to the reader as references."""
        query = parse_query(ask.message, _last_question(ask))
        exchange.request = {"query": ask.message[:MAX_CHARS], "terms": query.weights}
        yield [Step("searching", " ".join(query.subject) or None)]
        try:
            now = self._now()
            found.composed, hits = await self._work(lambda: self._look_up(query, now))
        except UpstreamError as error:
            found.failed = True
            yield [UpstreamEnd(reason=error.reason, error=error.message)]
            return
        exchange.response = {
            "passages": [{"id": chunk_id(hit), "score": hit.score} for hit in hits]
        }
        if found.composed.references:
            yield [References(found.composed.references)]

    async def _quote(self, composed: Composed) -> AsyncGenerator[Sequence[Item], None]:
        """The composed answer at its pace."""
        if not self._pace:
            yield split_answer(composed, UNPACED_PIECE)
        else:
            text = TextDelta(composed.text, composed.marks)
            paced = pace_out([text], self._pace, sleep=self._sleep, now=self._now)
            async with aclosing(paced) as batches:
                async for batch in batches:
                    yield batch
        yield [UpstreamEnd(finish=Finish.STOP)]

    def _look_up(self, query: Query, now: float) -> tuple[Composed, list[Hit]]:
        found = self._index.search(query, now)
        hits = rank(found.candidates, query, self._passages, self._reference_bytes)
        composed = compose(
            query,
            hits,
            found.contents,
            unknown=found.unknown,
            reference_bytes=self._reference_bytes,
        )
        return composed, hits

    async def document(self, document_id: str) -> SourceDocument | None:
        """A document of the folder, by its path in it."""
        try:
            with anyio.fail_after(CHECK_PATIENCE_S):
                found = await self._work(lambda: self._index.document(document_id))
        except TimeoutError:
            raise Unavailable("the documents are still being read") from None
        return None if found is None else SourceDocument(*found)

    async def check(self) -> Health:
        """Bring the index up to date and say what it holds, and what it had to leave out."""
        now = self._now()
        try:
            with anyio.fail_after(CHECK_PATIENCE_S):
                contents = await self._work(lambda: self._index.refresh(now))
        except TimeoutError:
            return Health(True, "the documents are still being read")
        except UpstreamError as error:
            return Health(False, error.message)
        return Health(True, _describe(contents))


class _Found(msgspec.Struct):
    """What a search gave."""

    composed: Composed = Composed("")
    failed: bool = False


def _last_question(ask: Ask) -> str:
    questions = [message.content for message in ask.history if message.role == "user"]
    return questions[-1] if questions else ""


def _describe(contents: Contents) -> str:
    detail = f"{contents.documents} documents, {contents.passages} passages"
    if not contents.skipped:
        return detail
    named = [f"{file.path} ({file.reason})" for file in contents.skipped[:MAX_SHOWN_SKIPPED]]
    if len(contents.skipped) > MAX_SHOWN_SKIPPED:
        named.append(f"{len(contents.skipped) - MAX_SHOWN_SKIPPED} more")
    return f"{detail}; not searched: {', '.join(named)}"
