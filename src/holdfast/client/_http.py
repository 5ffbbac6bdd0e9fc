"""The client: one question is one stream of entries, however often the connection breaks.

    ask ──► POST with a key ──► entries ──► run-end
                 ▲                 │ connection lost
                 │ nothing seen    ▼
                 └──────────── wait ──► GET events with Last-Event-ID ──► the rest

The same key is the same run, so asking again after a broken connection never asks twice.
"""

import asyncio
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, TypeAlias

import aiohttp
import msgspec
from yarl import URL

from holdfast import errors
from holdfast.events import Entry, RunEnd, decode
from holdfast.ids import new_id
from holdfast.upstreams.sse import SseEvent, SseParser

DEFAULT_URL: Final = "http://127.0.0.1:8484"

_MAX_EVENT: Final = 64_000_000
_CONNECT_TIMEOUT_S: Final = 10
_ANSWER_TIMEOUT_S: Final = 30
_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 3.0
_TRANSIENT: Final = frozenset({429, 502, 503, 504})

Json: TypeAlias = dict[str, Any]


class ServerUnreachable(errors.HoldfastError):
    """Nobody answers at the server's address, or not any more.

    Attributes:
        reached: Whether a server was there at first; it may have taken the question.
    """

    code = "server_unreachable"

    def __init__(self, message: str, *, reached: bool) -> None:
        """Keep whether asking anew would be asking twice."""
        super().__init__(message)
        self.reached = reached


class AsyncClient:
    """Speaks to one Holdfast server. Use it as an async context manager."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        patience_s: float = 120.0,
        silence_s: float = 45.0,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        """Keep where the server is and how patient to be.

        Args:
            url: The server's address.
            api_key: A key of the server, if it wants one.
            patience_s: How long to try again without one new event before giving up.
            silence_s: How long a stream may be silent before it counts as broken; more than the
                server's heartbeat.
            on_wait: Called with the cause whenever a connection broke, before the next try.

        Raises:
            ConfigError: `url` is not the address of a server, or `api_key` cannot be a key.
        """
        self.url = _parse_url(url)
        self._headers = _authorization(api_key)
        self._patience_s = patience_s
        self._silence_s = silence_s
        self._on_wait = on_wait

    async def __aenter__(self) -> "AsyncClient":
        """Open the connection pool."""
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=self._silence_s
        )
        self._http = aiohttp.ClientSession(timeout=timeout, headers=self._headers)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all connections. What becomes of a live run is the server's policy."""
        await self._http.close()

    def ask(
        self,
        message: str,
        *,
        session_id: str | None = None,
        upstream: str | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncGenerator[Entry, None]:
        """Ask, and give every entry of the answer's run once and in order, to its `run-end`.

        Args:
            message: The question.
            session_id: The session to ask in; None begins one.
            upstream: Who answers; None leaves it to the server.
            idempotency_key: Makes asking again the same run (default: a new one).

        Raises:
            ServerUnreachable: Nobody answers, or not any more for `patience_s`.
            HoldfastError: What the server answered, as the error that it stands for.
        """
        body = {"message": message, "session_id": session_id, "upstream": upstream}
        opening = {
            "json": {key: value for key, value in body.items() if value is not None},
            "headers": {"Idempotency-Key": idempotency_key or new_id()},
        }
        return self._follow(_Position(opening=opening))

    def events(self, run_id: str, *, after: int = 0) -> AsyncGenerator[Entry, None]:
        """Give the entries of a run that come after `after`, live ones as they are written.

        Raises:
            ServerUnreachable: Nobody answers, or not any more for `patience_s`.
            HoldfastError: What the server answered, as the error that it stands for.
        """
        return self._follow(_Position(run_id, after))

    async def run(self, run_id: str) -> Json:
        """A run and its message as they are now: `{"run": {...}, "message": {...}}`."""
        return await self._get(f"/api/v1/runs/{run_id}")

    async def session(self, session_id: str) -> Json:
        """A session."""
        return await self._get(f"/api/v1/sessions/{session_id}")

    async def messages(self, session_id: str) -> AsyncIterator[Json]:
        """The messages of a session, oldest first."""
        query: dict[str, str] = {}
        while True:
            page = await self._get(f"/api/v1/sessions/{session_id}/messages", query)
            for message in page["items"]:
                yield message
            if page["next"] is None:
                return
            query = {"after": page["next"]}

    async def create_key(self, owner: str, **options: Any) -> Json:
        """Make a key; `key` of the answer has it, this once. Needs a key with the scope `admin`.

        Args:
            owner: Whose sessions it opens.
            options: `name`, `scopes`, `concurrent_runs`, `asks_per_minute`.
        """
        return await self._call("POST", "/api/v1/keys", json={"owner": owner, **options})

    async def keys(self) -> list[Json]:
        """Every key, without the keys themselves. Needs a key with the scope `admin`."""
        items: list[Json] = (await self._get("/api/v1/keys"))["items"]
        return items

    async def revoke_key(self, key_id: str) -> None:
        """Make a key useless. Needs a key with the scope `admin`."""
        await self._call("DELETE", f"/api/v1/keys/{key_id}")

    async def _get(self, path: str, query: Mapping[str, str] | None = None) -> Json:
        return await self._call("GET", path, params=query)

    async def _call(self, method: str, path: str, **options: Any) -> Json:
        """A request whose answer is one JSON object, or nothing."""
        timeout = aiohttp.ClientTimeout(total=_ANSWER_TIMEOUT_S)
        try:
            url = self.url.joinpath(path.lstrip("/"))
            async with self._http.request(method, url, timeout=timeout, **options) as response:
                if response.status == 204:
                    return {}
                if response.status not in (200, 201):
                    raise await self._error(response)
                answer = _json_object(await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(_cause(error)) from error
        if answer is None:
            raise self._not_holdfast()
        return answer

    async def _follow(self, position: "_Position") -> AsyncGenerator[Entry, None]:
        """Entries after `position`, over as many connections as it takes."""
        patience = _Patience(self._patience_s)
        while True:
            try:
                async with self._connect(position) as response:
                    parser = SseParser(_MAX_EVENT)
                    async for chunk in response.content.iter_any():
                        for entry in self._take(position, parser.feed(chunk)):
                            patience.renew()
                            yield entry
                        if position.ended:
                            return
                    if response.status == 204:
                        return
                    raise _Broken("the connection was closed")
            except _Broken as broken:
                wait_s = patience.next_wait_s(broken.retry_after_s)
                if wait_s is None:
                    raise self._unreachable(str(broken), reached=True) from broken
                if self._on_wait:
                    self._on_wait(str(broken))
                await asyncio.sleep(wait_s)

    @asynccontextmanager
    async def _connect(self, position: "_Position") -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """One response that streams what comes after `position`.

        The first try may fail in a way that another would not; that is for the caller to know
        at once. Later ones are waited out.
        """
        method, path, options = position.request()
        try:
            async with self._http.request(method, self.url.joinpath(path), **options) as response:
                if position.reached and response.status in _TRANSIENT:
                    raise _Broken(f"HTTP {response.status}", _retry_after_s(response))
                position.reached = True
                if response.status >= 300:
                    raise await self._error(response)
                if response.status != 204 and response.content_type != "text/event-stream":
                    raise self._not_holdfast()
                yield response
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            if not position.reached:
                raise self._unreachable(_cause(error)) from error
            raise _Broken(_cause(error)) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            position.reached = True
            raise _Broken(_cause(error)) from error

    def _take(self, position: "_Position", events: list[SseEvent]) -> Iterator[Entry]:
        """The events as entries, without those that were seen before."""
        for event in events:
            run_id, _, seq = event.id.rpartition(".")
            try:
                entry = Entry(int(seq), decode(event.data), event.data)
            except (ValueError, msgspec.MsgspecError):
                raise self._not_holdfast() from None
            if entry.seq > position.seq + 1:
                raise _Broken(f"event {position.seq + 1} did not come")
            if entry.seq == position.seq + 1:
                position.run_id, position.seq = run_id, entry.seq
                position.ended = isinstance(entry.event, RunEnd)
                yield entry

    async def _error(self, response: aiohttp.ClientResponse) -> errors.HoldfastError:
        """The error that the response stands for."""
        body = _json_object(await response.read()) or {}
        told = body.get("error")
        if not isinstance(told, dict):
            return errors.HoldfastError(f"{self._name} answered HTTP {response.status}")
        extra = {key: value for key, value in told.items() if key not in {"code", "message"}}
        text = str(told.get("message"))
        if told.get("code") == errors.CursorAhead.code:
            return errors.CursorAhead(text, body.get("message"), **extra)
        return _ERRORS.get(str(told.get("code")), errors.HoldfastError)(text, **extra)

    @property
    def _name(self) -> str:
        return str(self.url).rstrip("/")

    def _unreachable(self, cause: str, *, reached: bool = False) -> ServerUnreachable:
        return ServerUnreachable(f"no answer from {self._name}: {cause}", reached=reached)

    def _not_holdfast(self) -> errors.HoldfastError:
        return errors.HoldfastError(
            f"what answers at {self._name} is no Holdfast server, or one of another version"
        )


class _Broken(Exception):
    """A stream ended in the middle; worth another try."""

    def __init__(self, cause: str, retry_after_s: float = 0) -> None:
        super().__init__(cause)
        self.retry_after_s = retry_after_s


class _Position:
    """How far a run was read, and how to ask for what comes next."""

    def __init__(
        self, run_id: str | None = None, seq: int = 0, *, opening: Json | None = None
    ) -> None:
        self.run_id = run_id
        self.seq = seq
        self.opening = opening
        self.ended = False
        self.reached = False
        """Whether a server was there at least once."""

    def request(self) -> tuple[str, str, Json]:
        """Method, path and options of the next request."""
        if self.run_id is None:
            return "POST", "api/v1/runs", self.opening or {}
        headers = {"Last-Event-ID": f"{self.run_id}.{self.seq}"} if self.seq else {}
        return "GET", f"api/v1/runs/{self.run_id}/events", {"headers": headers}


class _Patience:
    """How long to wait before each try, and when to stop trying."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._clock = asyncio.get_running_loop().time
        self.renew()

    def renew(self) -> None:
        """Something came: start anew."""
        self._wait_s = _FIRST_WAIT_S
        self._deadline = self._clock() + self._seconds

    def next_wait_s(self, at_least_s: float) -> float | None:
        """How long to wait now; None when patience is at its end."""
        # Spread, so that many clients of one server do not come back at the same instant.
        wait_s = max(self._wait_s * random.uniform(0.75, 1.25), at_least_s)
        self._wait_s = min(self._wait_s * 2, _LONGEST_WAIT_S)
        return wait_s if self._clock() + wait_s < self._deadline else None


def _parse_url(text: str) -> URL:
    try:
        url = URL(text if "://" in text else f"http://{text}")
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise errors.ConfigError(f"{text!r} is not the address of a server")
    return url


def _authorization(api_key: str | None) -> dict[str, str]:
    if not api_key:
        return {}
    if not re.fullmatch(r"[!-~]+", api_key):
        raise errors.ConfigError("the API key has signs in it that no key can have")
    return {"Authorization": f"Bearer {api_key}"}


def _retry_after_s(response: aiohttp.ClientResponse) -> float:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else 0


def _json_object(body: bytes) -> Json | None:
    try:
        return msgspec.json.decode(body, type=Json)
    except msgspec.MsgspecError:
        return None


def _cause(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.strerror or "cannot connect"
    if isinstance(error, TimeoutError):
        return "it is silent"
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError):
        return "the connection was closed"
    return str(error) or type(error).__name__


_ERRORS: Final[dict[str, type[errors.HoldfastError]]] = {
    kind.code: kind
    for kind in (
        errors.BadRequest,
        errors.Unauthorized,
        errors.Forbidden,
        errors.NotFound,
        errors.Conflict,
        errors.RunActive,
        errors.TooLarge,
        errors.UnsupportedMediaType,
        errors.IdempotencyMismatch,
        errors.TooManyRequests,
        errors.Unavailable,
        errors.StoreUnavailable,
        errors.Draining,
    )
}
