"""AnythingLLM: a workspace's knowledge, over its developer API.

Each session of ours has a thread of its own there, or, with `threads = false`, a `sessionId`:
AnythingLLM keeps the conversation, takes no messages from us, and uses the model, the system
prompt and the temperature of the workspace. `anythingllm_decoder` has what its answers look like.

It has no way to take up an answer that broke off, but a history. What it sent for an answer is
saved there when the answer ends, and also when we hang up, if there is any text by then.
"""

import asyncio
import contextlib
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import Field, field_validator

from holdfast.engine.policy import title_of
from holdfast.engine.run import UpstreamEnd
from holdfast.errors import UpstreamError
from holdfast.events import Notice, Reason
from holdfast.upstreams.anythingllm.decoder import AnythingLLMDecoder, SavedTurn, newest_turn
from holdfast.upstreams.base import Ask, Exchange, Health, Item, Sink
from holdfast.upstreams.decoding.decoder import Decoder, mapping
from holdfast.upstreams.decoding.lenient import decode_any
from holdfast.upstreams.decoding.refusal import KEPT_BYTES, error_text
from holdfast.upstreams.remote import (
    SMALL_BYTES,
    STREAM_TYPES,
    RemoteSettings,
    RemoteUpstream,
    read_refusal,
    refusal_text,
)
from holdfast.upstreams.wire.transport import Response

HISTORY_PAUSES_S: Final = (0.1, 0.3, 0.6, 1.0)
"""Before each look into the history: a turn is in it some 20 ms after we hung up."""
HISTORY_TIMEOUT_S: Final = 10.0
HISTORY_BYTES: Final = 16_000_000
"""How large a history may be; that of a thread comes whole, with the passages of every source."""
HEAD_BYTES: Final = 4_000
"""How much of the description of a workspace is read: its documents are listed in it."""
CONVERSATION_CHARS: Final = 500
"""See `Sink.remember`."""

_API: Final = re.compile(r"(/api(/v1(/openai)?)?)?/*\Z")
_WORKSPACE: Final = re.compile(rb'\s*\{\s*"workspace"\s*:\s*(?:(\[?\s*\{)|\[\s*\]|null)')
_WEB_PAGE: Final = "base_url leads to a web page and not to AnythingLLM's API"
_LOST: Final = "has lost this conversation's thread; it does not know what was said before"


class AnythingLLMSettings(RemoteSettings):
    """The upstream's table in the configuration file.

    `base_url` is the address of the server; an `/api` or `/api/v1` at its end does no harm.
    """

    kind: Literal["anythingllm"] = "anythingllm"
    workspace: str = Field(min_length=1)
    """The workspace's slug, as in the address of its page."""
    mode: Literal["chat", "query", "automatic", "agent"] = "chat"
    """`query` answers only from documents. `automatic`, or `agent`, may use tools."""
    threads: bool = True
    """Make a thread of the workspace for each session; otherwise send a `sessionId`."""
    idle_timeout_s: float = Field(default=60.0, gt=0)
    """How long an answer that has begun may be silent before it is looked up in the history.

    Should be less than `runs.idle_timeout_s`, which ends the run.
    """

    @field_validator("base_url")
    @classmethod
    def _without_api(cls, value: str) -> str:
        parts = urlsplit(value)
        return urlunsplit(parts._replace(path=_API.sub("", parts.path)))

    @field_validator("workspace")
    @classmethod
    def _is_slug(cls, value: str) -> str:
        slug = value.strip().strip("/")
        if not slug or "/" in slug:
            raise ValueError("must be a workspace's slug, as in the address of its page")
        return slug


class AnythingLLM(RemoteUpstream[AnythingLLMSettings]):
    """An upstream of kind `anythingllm`."""

    kind = "anythingllm"
    Settings = AnythingLLMSettings

    def _decoder(self, ask: Ask) -> AnythingLLMDecoder:
        return AnythingLLMDecoder(self._limits)

    @property
    def _workspace(self) -> str:
        return f"/api/v1/workspace/{quote(self._settings.workspace, safe='')}"

    # ------------------------------------------------------------------ asking

    async def _converse(
        self, ask: Ask, exchange: Exchange, sink: Sink, decoder: Decoder
    ) -> UpstreamEnd | None:
        assert isinstance(decoder, AnythingLLMDecoder)
        mode = self._settings.mode
        exchange.request = body = {
            "message": ask.message,
            "mode": "automatic" if mode == "agent" else mode,
        }
        if not self._settings.threads:
            body["sessionId"] = ask.session_id
            return await self._answer_at(self._workspace, ask, body, sink, decoder)
        thread = ask.conversation or await self._new_thread(ask, sink)
        try:
            return await self._answer_at(self._at(thread), ask, body, sink, decoder)
        except UpstreamError as error:
            if thread != ask.conversation or not _is_gone(error):
                raise
        thread = await self._new_thread(ask, sink)
        end = sink.take([Notice("conversation_lost", f"{self.name} {_LOST}")])
        return end or await self._answer_at(self._at(thread), ask, body, sink, decoder)

    def _at(self, thread: str) -> str:
        return f"{self._workspace}/thread/{quote(thread, safe='')}"

    async def _new_thread(self, ask: Ask, sink: Sink) -> str:
        """Make a thread for this session and remember it.

        Raises:
            UpstreamError: None was made.
        """
        path, body = f"{self._workspace}/thread/new", {"name": title_of(ask.message)}
        async with self._stream("POST", path, body) as response:
            await self._refuse_unless(response, response.content_type.endswith("json"))
            content = await response.read_all(SMALL_BYTES)
        answer = mapping(decode_any(content))
        slug = mapping(answer.get("thread")).get("slug")
        if not isinstance(slug, str) or not 0 < len(slug) <= CONVERSATION_CHARS:
            error = error_text(answer)
            raise UpstreamError(
                Reason.UPSTREAM_ERROR,
                " made no thread" + (f": {error}" if error else ""),
                answered=(response.status, content),
            )
        sink.remember(slug)
        return slug

    async def _answer_at(
        self,
        place: str,
        ask: Ask,
        body: Mapping[str, Any],
        sink: Sink,
        decoder: AnythingLLMDecoder,
    ) -> UpstreamEnd | None:
        """Ask a workspace or thread; what breaks off is looked up in its history.

        Raises:
            UpstreamError: See `_converse`.
        """
        broken: UpstreamError | None = None
        try:
            async with _PatientSink(sink, decoder, self._settings.idle_timeout_s) as patient:
                end = await self._post(f"{place}/stream-chat", body, patient, decoder)
        except TimeoutError:
            end = None
            idle_s = self._settings.idle_timeout_s
            error = f" was silent for {idle_s:g} s and never said that the answer was whole"
            broken = UpstreamError(Reason.UPSTREAM_TIMEOUT, error)
        except UpstreamError as error:
            if error.reason is not Reason.UPSTREAM_TRUNCATED:
                raise
            end, broken = None, error
        if end is None and decoder.is_broken_off:
            end = await self._look_up(place, ask, sink, decoder)
        if end is None and broken is not None:
            raise broken
        return end

    # ------------------------------------------------------------------ the history

    async def _look_up(
        self, place: str, ask: Ask, sink: Sink, decoder: AnythingLLMDecoder
    ) -> UpstreamEnd | None:
        """Add what the history has of an answer that broke off, or will never be told to end.

        A server that lost its reader, be it by our hanging up or by a proxy's, saves what it has
        with its sources and metrics, and marks it in no way. So what is saved passes for the whole
        answer only if the model had said all, or if it is an agent's, who goes on without a reader.
        That some providers end without telling why, and AnythingLLM then waits for ever, cannot be
        told from a model that got stuck.

        Returns:
            How the run ends; None if the answer is cut off all the same.
        """
        end = sink.take(decoder.release())
        saved = None if end else await self._saved_turn(place, ask, decoder)
        if saved is None:
            return end
        is_whole = decoder.is_written or decoder.is_agent
        return sink.take(decoder.take_saved(saved, is_whole=is_whole))

    async def _saved_turn(
        self, place: str, ask: Ask, decoder: AnythingLLMDecoder
    ) -> SavedTurn | None:
        """This answer as the history has it, once it has it; None if it does not get it."""
        path = f"{place}/chats"
        if not self._settings.threads:  # that of a thread takes no parameters
            session = quote(ask.session_id, safe="")
            path += f"?apiSessionId={session}&limit=1&orderBy=desc"
        with contextlib.suppress(TimeoutError, UpstreamError):
            async with asyncio.timeout(HISTORY_TIMEOUT_S):
                for pause_s in HISTORY_PAUSES_S:
                    await asyncio.sleep(pause_s)
                    async with self._stream("GET", path) as response:
                        history = await response.read_all(HISTORY_BYTES)
                    saved = newest_turn(history, ask.message)
                    if saved is not None and decoder.is_begun_of(saved):
                        return saved
        return None

    # ------------------------------------------------------------------ refusals and health

    async def _refuse_unless_stream(self, response: Response) -> None:
        await self._refuse_unless(response, response.content_type in STREAM_TYPES)

    async def _refuse_unless(self, response: Response, is_right: bool) -> None:
        """Pass if the response is no refusal and of the right type.

        Raises:
            UpstreamError: What it is instead.
        """
        if response.status < 300 and is_right:
            return
        if response.status < 300 and "html" in response.content_type:
            answered = response.status, await read_refusal(response, KEPT_BYTES)
            raise UpstreamError(Reason.UPSTREAM_ERROR, f": {_WEB_PAGE}", answered=answered)
        try:
            await super()._refuse_unless_stream(response)
        except UpstreamError as error:
            message = error.message.removesuffix(" (abort)")
            if message.endswith(" answered 400: Bad Request"):
                message += f"; is there a workspace {self._settings.workspace!r}?"
            raise UpstreamError(error.reason, message, **error.extra) from None
        raise UpstreamError(Reason.UPSTREAM_ERROR, " answered with something else than JSON")

    async def _check(self) -> Health:
        """Ask for the workspace."""
        async with self._stream("GET", self._workspace) as response:
            status, content_type = response.status, response.content_type
            if status in (401, 403):
                detail = f"answered {status}: the api_key is missing or refused"
            elif status >= 300:
                text = await refusal_text(response)
                detail = f"answered {status}" + (f": {text}" if text else "")
            elif "html" in content_type:
                detail = _WEB_PAGE
            else:
                detail = self._missing(await response.read_start(HEAD_BYTES))
        return Health(ok=not detail, detail=detail)

    def _missing(self, start: bytes) -> str:
        """What is wrong with the description of the workspace; "" if nothing."""
        found = _WORKSPACE.match(start)
        if found is None:
            return "answered, but not as AnythingLLM does; is base_url right?"
        return "" if found[1] else f"there is no workspace {self._settings.workspace!r}"


def _is_gone(error: UpstreamError) -> bool:
    """Whether this refusal says that the thread does not exist (any more)."""
    return error.extra.get("status") in (400, 404) and "thread" in error.message.lower()


class _PatientSink:
    """A run's sink that notices when an answer that has begun goes silent.

    As a context manager it raises a TimeoutError then.
    """

    def __init__(self, sink: Sink, decoder: AnythingLLMDecoder, idle_s: float) -> None:
        self._sink = sink
        self._decoder = decoder
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._active = self._loop.time()
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._timer = self._loop.call_later(self._idle_s, self._check)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, traceback)

    def _check(self) -> None:
        now = self._loop.time()
        if self._sink.is_full() or not self._decoder.is_speaking:
            self._active = now
        due = self._active + self._idle_s
        if due > now:
            self._timer = self._loop.call_at(due, self._check)
        else:
            self._timeout.reschedule(now)

    def take(self, items: Sequence[Item]) -> UpstreamEnd | None:
        self._active = self._loop.time()
        return self._sink.take(items)

    def foretell(self, end: UpstreamEnd) -> None:
        self._sink.foretell(end)

    def remember(self, conversation: str) -> None:
        self._sink.remember(conversation)

    def is_full(self) -> bool:
        return self._sink.is_full()

    async def room(self) -> None:
        await self._sink.room()
        self._active = self._loop.time()
