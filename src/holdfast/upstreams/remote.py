"""What all upstreams that are reached over HTTP have in common.

A kind of its own says what to send and which decoder reads the answer; here is the rest: the
address and its secrets, refusals, what happens when the connection breaks or the run is stopped.
"""

import asyncio
import contextlib
import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

import msgspec
from pydantic import Field, SecretStr, field_validator

from holdfast.engine.run import UpstreamEnd
from holdfast.errors import UpstreamError
from holdfast.events import Reason
from holdfast.settings import LimitSettings, Table
from holdfast.upstreams.base import Ask, Exchange, Health, Item, Sink, Upstream
from holdfast.upstreams.decoding.decoder import Decoder
from holdfast.upstreams.decoding.lenient import decode_any
from holdfast.upstreams.decoding.refusal import (
    BODY_BYTES,
    KEPT_BYTES,
    body_text,
    kept_text,
    without,
    without_anywhere,
)
from holdfast.upstreams.pacing import pace_out
from holdfast.upstreams.wire.transport import CONNECT_TIMEOUT_S, Response, Transport

AFTERMATH_S: Final = 5.0
"""How long a stream that gave its terminal marker may be silent, and a refusal take to come."""
CHECK_TIMEOUT_S: Final = 5.0
STREAM_TYPES: Final = frozenset({"text/event-stream", ""})
FOREIGN_SECRET_CHARS: Final = 8
"""A shorter header of another upstream is no secret, but a word such as a language."""
RETRY_AFTER: Final = re.compile(r"[0-9]{1,6}")
SMALL_BYTES: Final = 1_000_000
"""How large the answer to a small request may be."""


class RemoteSettings(Table):
    """What the table of every such upstream has."""

    base_url: str
    api_key: SecretStr | None = None
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """Sent with every request."""
    connect_timeout_s: float = Field(default=CONNECT_TIMEOUT_S, gt=0)

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        parts = urlsplit(value.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http or https URL")
        if parts.username is not None:
            raise ValueError("must not hold a user name; use api_key or headers")
        _ = parts.port  # raises ValueError for what is no port
        return value.strip()

    @field_validator("api_key")
    @classmethod
    def _is_set(cls, value: SecretStr | None) -> SecretStr | None:
        key = value.get_secret_value().strip() if value else ""
        return SecretStr(key) if key else None


S = TypeVar("S", bound=RemoteSettings)


class RemoteUpstream(Upstream, Generic[S]):
    """An upstream behind an HTTP address."""

    @classmethod
    def make(cls, name: str, settings: S, limits: LimitSettings, transport: Transport) -> Self:
        """See `Upstream.make`."""
        return cls(name, settings, limits, transport)

    def __init__(self, name: str, settings: S, limits: LimitSettings, transport: Transport) -> None:
        """Use a server through `transport`, which `open` opens too.

        Args:
            name: The upstream's name in the configuration.
            settings: Its table.
            limits: Bounds on what it may send.
            transport: The HTTP client; may be shared.
        """
        super().__init__(name)
        self._settings = settings
        self._limits = limits
        self._transport = transport
        self._headers = {
            "Content-Type": "application/json",
            **{name: value.get_secret_value() for name, value in settings.headers.items()},
        }
        if settings.api_key:
            self._headers["Authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
        secrets = [settings.api_key, *settings.headers.values()]
        self._secrets = [secret.get_secret_value() for secret in secrets if secret]

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nobody may be told, though the upstream may repeat it."""
        return tuple(self._secrets)

    def hide(self, secrets: Iterable[str]) -> None:
        """Keep back other upstreams' secrets, too: a gateway may know the keys of several."""
        foreign = {secret for secret in secrets if len(secret) >= FOREIGN_SECRET_CHARS}
        # The longest first, as one may be the beginning of another.
        self._secrets = sorted({*self._secrets, *foreign}, key=lambda one: (-len(one), one))

    async def open(self) -> None:
        """Open the transport."""
        await self._transport.open()

    async def close(self) -> None:
        """Let go of the transport."""
        await self._transport.close()

    # ------------------------------------------------------------------ what a kind says

    @abstractmethod
    def _decoder(self, ask: Ask) -> Decoder:
        """A decoder for the answer to `ask`."""

    @abstractmethod
    async def _converse(
        self, ask: Ask, exchange: Exchange, sink: Sink, decoder: Decoder
    ) -> UpstreamEnd | None:
        """Ask and give the answer to `sink`, mostly by one `_post`.

        Returns:
            How the run ends, if `sink.take` told it; None: `decoder` tells it.

        Raises:
            UpstreamError: No answer, or not all of it.
        """

    # ------------------------------------------------------------------ answering

    async def answer(self, ask: Ask, exchange: Exchange, sink: Sink) -> UpstreamEnd:
        """See `Upstream.answer`."""
        decoder = self._decoder(ask)
        decoder.secrets = self._secrets
        end: UpstreamEnd | None = None
        cause: UpstreamEnd | None = None
        try:
            end = await self._converse(ask, exchange, sink, decoder)
        except UpstreamError as error:
            decoder.refused = error.extra.get("answered")
            status = error.extra.get("status")
            cause = UpstreamEnd(error.reason, error=f"{self.name}{error.message}", status=status)
        except asyncio.CancelledError:
            # No citation mark comes of what is held any more.
            sink.take(decoder.finish() if decoder.finished else decoder.release())
            raise
        finally:
            exchange.response = self._kept(decoder)
        if end is None:
            end = sink.take(decoder.finish(cause))
        return self._without_secrets(end or UpstreamEnd(Reason.UPSTREAM_TRUNCATED))

    def _kept(self, decoder: Decoder) -> Any:
        """What the upstream said besides an answer, or instead of one, for people who debug."""
        said = without_anywhere(self._secrets, decoder.closing)
        if decoder.refused is None:
            return said
        status, body = decoder.refused
        return {**(said or {}), "status": status, "body": kept_text(self._secrets, body)}

    async def _post(
        self,
        path: str,
        body: Mapping[str, Any],
        sink: Sink,
        decoder: Decoder,
        *,
        pace: float = 0.0,
    ) -> UpstreamEnd | None:
        """Post a question and relay the answer, a stream or one piece of JSON.

        Args:
            path: Where to, below `base_url`.
            body: The question.
            sink: The run.
            decoder: Reads the answer.
            pace: Characters per second at which an answer in one piece is given; 0 is at once.

        Returns:
            How the run ends, if `sink.take` told it.

        Raises:
            UpstreamError: A refusal, or the connection broke; what came before was taken.
        """
        async with self._stream("POST", path, body) as response:
            if response.status < 300 and response.content_type.endswith("json"):
                whole = await response.read_all(self._whole_bytes)
                self._check_whole(whole, response.status)
            else:
                await self._refuse_unless_stream(response)
                end = await relay(response, decoder, sink)
                if decoder.ended and decoder.finished:
                    response.settle()
                return end
        items = decoder.feed_whole(whole)
        if any(isinstance(item, UpstreamEnd) and item.reason is not None for item in items):
            decoder.refused = response.status, whole
        return await give_paced(items, pace, sink) if pace else sink.take(items)

    def _check_whole(self, whole: bytes, status: int) -> None:
        """Pass if an answer in one piece is not a refusal after which the kind asks once more.

        Raises:
            UpstreamError: It is.
        """

    # ------------------------------------------------------------------ requests

    def _url(self, path: str) -> str:
        """The address of `path` below `base_url`, whose query is kept."""
        parts = urlsplit(self._settings.base_url)
        path, _, query = path.partition("?")
        return urlunsplit(
            parts._replace(
                path=parts.path.rstrip("/") + path,
                query="&".join(part for part in (parts.query, query) if part),
                fragment="",
            )
        )

    @contextlib.asynccontextmanager
    async def _stream(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[Response]:
        """Send a request whose answer is read as it comes; errors begin with ": "."""
        try:
            async with self._transport.stream(
                method,
                self._url(path),
                self._headers,
                None if body is None else msgspec.json.encode(body),
                connect_timeout_s=self._settings.connect_timeout_s,
            ) as response:
                yield response
        except UpstreamError as error:
            if not error.message.startswith((":", " ")):
                raise UpstreamError(error.reason, f": {error.message}", **error.extra) from error
            raise

    async def _fetch(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, Any]:
        """The status and the JSON of a small request; an empty object where it is no JSON.

        Raises:
            UpstreamError: No whole answer came.
        """
        async with self._stream(method, path, body) as response:
            content = await response.read_all(SMALL_BYTES)
        return response.status, decode_any(content)

    # ------------------------------------------------------------------ refusals

    @property
    def _whole_bytes(self) -> int:
        """How large an answer in one piece may be: its text, and an event's worth of the rest."""
        return self._limits.answer_bytes + self._limits.event_bytes

    async def _refuse_unless_stream(self, response: Response) -> None:
        """Pass if this response is a stream of events.

        Raises:
            UpstreamError: Why it holds no answer.
        """
        status = response.status
        if status < 300 and response.content_type in STREAM_TYPES:
            return
        body = await read_refusal(response, KEPT_BYTES if status < 400 else BODY_BYTES)
        if status < 300:
            error = (
                f" answered with {response.content_type} instead of an event stream; "
                "is base_url right?"
            )
        elif status < 400:
            error = f" answered {status}; redirects are not followed, set base_url"
        else:
            text = body_text(response.content_type, body)
            error = f" answered {status}" + (f": {text}" if text else "") + _wait(response)
        told = {"status": status} if status >= 400 else {}
        raise UpstreamError(Reason.UPSTREAM_ERROR, error, answered=(status, body), **told)

    def _without_secrets(self, end: UpstreamEnd) -> UpstreamEnd:
        if not end.error:
            return end
        return msgspec.structs.replace(end, error=without(self._secrets, end.error))

    # ------------------------------------------------------------------ health

    async def check(self) -> Health:
        """Ask for something small that only a working server with the right key gives."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                health = await self._check()
        except TimeoutError:
            return Health(ok=False, detail=f"no answer within {CHECK_TIMEOUT_S:g} s")
        except UpstreamError as error:
            health = Health(ok=False, detail=error.message.removeprefix(":").strip())
        return msgspec.structs.replace(health, detail=without(self._secrets, health.detail))

    @abstractmethod
    async def _check(self) -> Health:
        """The check itself; what it raises as an UpstreamError is told."""


class NotingSink:
    """A run's sink that remembers the conversation as soon as the answer tells its name."""

    def __init__(self, sink: Sink, told: Callable[[], str | None], known: str | None) -> None:
        """Stand before a sink.

        Args:
            sink: The run.
            told: The conversation's name as far as it was told.
            known: The name that need not be remembered.
        """
        self._sink = sink
        self._told = told
        self._known = known
        self.remember = sink.remember
        self.foretell = sink.foretell
        self.is_full = sink.is_full
        self.room = sink.room

    def take(self, items: Sequence[Item]) -> UpstreamEnd | None:
        """See `Sink.take`."""
        self.note()
        return self._sink.take(items)

    def note(self) -> None:
        """Remember the name if it has been told by now."""
        told = self._told()
        if told is not None and told != self._known:
            self._known = told
            self._sink.remember(told)


async def read_refusal(response: Response, size: int = BODY_BYTES) -> bytes:
    """The first bytes of a refusal's body, about `size` of them, as far as they come in time."""
    body = b""
    with contextlib.suppress(TimeoutError, UpstreamError):
        async with asyncio.timeout(AFTERMATH_S):
            while len(body) < size and (piece := await response.read()):
                body += piece
    return body


async def refusal_text(response: Response) -> str:
    """The words for people in a refusal's body, as far as they come in time."""
    return body_text(response.content_type, await read_refusal(response))


def _wait(response: Response) -> str:
    """How long a server that refuses wants to be left alone, in words."""
    seconds = response.headers.get("retry-after", "").strip()
    return f" (it asks to wait {seconds} s)" if RETRY_AFTER.fullmatch(seconds) else ""


async def relay(response: Response, decoder: Decoder, sink: Sink) -> UpstreamEnd | None:
    """Give the run each piece in the turn in which it comes; the end, if the stream told it.

    Raises:
        UpstreamError: The connection broke; what came before was taken.
    """
    end: UpstreamEnd | None = None

    def take(data: bytes) -> bool:
        nonlocal end
        end = sink.take(decoder.feed_read(data))
        if end is not None or decoder.finished:
            return True
        if sink.is_full():
            response.pause()
            return True
        return False

    while end is None and not decoder.finished:
        await response.pump(take)
        if response.connection.complete and end is None:
            return None
        if sink.is_full():
            await sink.room()
    if end is None:
        sink.foretell(decoder.ending(UpstreamEnd()))
    while end is None and (data := await _read_aftermath(response)):
        end = sink.take(decoder.feed(data))
    return end


async def give_paced(items: Sequence[Item], pace: float, sink: Sink) -> UpstreamEnd | None:
    """Give the run a whole answer piece by piece; the end, which is among the items.

    Who is cancelled meanwhile has given what was read so far, and nothing more.
    """
    async with contextlib.aclosing(pace_out(items, pace)) as batches:
        async for batch in batches:
            end = sink.take(batch)
            if end is not None:
                return end
            if sink.is_full():
                await sink.room()
    return None


async def _read_aftermath(response: Response) -> bytes:
    """What follows the terminal marker; b"" if nothing does and the stream stays open."""
    try:
        async with asyncio.timeout(AFTERMATH_S):
            return await response.read()
    except TimeoutError:
        return b""
