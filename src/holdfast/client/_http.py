"""Between the clients and aiohttp: a request out, a value or a stream of bytes back."""

import re
import weakref
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from holdfast import errors
from holdfast.client._errors import Broken, ServerUnreachable, told_error

T = TypeVar("T")

_CONNECT_TIMEOUT_S: Final = 10
_ANSWER_TIMEOUT_S: Final = 30
_TRANSIENT: Final = frozenset({429, 502, 503, 504})


class Request(NamedTuple):
    """What is asked of the server; `path` is what follows `/api/v1`, a segment each."""

    method: str
    path: tuple[str, ...]
    body: Mapping[str, Any] | None = None
    query: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = None


class Connection:
    """A response that is read as it comes.

    Attributes:
        ids: `run_id`, `message_id` and `session_id`, as far as the server named them.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        """Read `response`."""
        self._response = response
        self.ids = {
            f"{name}_id": response.headers[f"X-Holdfast-{name}"]
            for name in ("run", "message", "session")
            if f"X-Holdfast-{name}" in response.headers
        }

    async def read(self) -> bytes:
        """What has come since; waits until there is something.

        Raises:
            Broken: It has ended.
        """
        try:
            data = await self._response.content.readany()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Broken(_cause(error)) from error
        if not data:
            raise Broken("the connection was closed")
        return data

    def close(self) -> None:
        """Let go of it."""
        self._response.close()

    def __del__(self) -> None:
        """Let go of it, too, where a loop over a stream was left and nobody has the stream."""
        self._response.close()


class Transport:
    """Speaks to one server.

    Nothing is opened before the first request: it is the event loop of that which it belongs to.
    """

    def __init__(self, url: str, api_key: str | None, silence_s: float) -> None:
        """Keep where the server is.

        Raises:
            ConfigError: `url` is not the address of a server, or `api_key` cannot be a key.
        """
        self.url = _parse_url(url)
        self._headers = _authorization(api_key)
        self._silence_s = silence_s
        self._session: aiohttp.ClientSession | None = None
        self._streams: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._closed = False

    async def close(self) -> None:
        """Close all connections, for good."""
        self._closed = True
        for stream in tuple(self._streams):
            stream.close()
        if self._session is not None:
            await self._session.close()

    async def call(self, request: Request, kind: type[T]) -> T:
        """Send a request whose answer is one JSON value; None if there is nothing in it.

        Raises:
            ServerUnreachable: Nobody answers.
            HoldfastError: What the server answered, as the error that it stands for.
        """
        timeout = aiohttp.ClientTimeout(total=_ANSWER_TIMEOUT_S)
        try:
            async with await self._send(request, timeout=timeout) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self.unreachable(_cause(error), reached=False) from error
        if response.status not in (200, 201, 204):
            raise told_error(body) or self._foreign_error(response)
        try:
            return msgspec.json.decode(body or b"null", type=kind)
        except msgspec.MsgspecError:
            raise self.not_holdfast() from None

    async def stream(self, request: Request) -> Connection | None:
        """Send a request whose answer is an event stream; None if there is nothing to stream.

        Raises:
            Broken: Another try may do better.
            HoldfastError: What the server answered, as the error that it stands for.
        """
        try:
            response = await self._send(request)
            try:
                return await self._checked(response)
            except BaseException:
                response.close()
                raise
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Broken(_cause(error), reached=False) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Broken(_cause(error)) from error

    async def _checked(self, response: aiohttp.ClientResponse) -> Connection | None:
        if response.status == 204:
            response.release()
            return None
        if response.status >= 300:
            told = told_error(await response.read())
            if response.status in _TRANSIENT:
                cause = f"HTTP {response.status}" + (f", {told.message}" if told else "")
                raise Broken(cause, refusal=told, retry_after_s=_retry_after_s(response))
            raise told or self._foreign_error(response)
        if response.content_type != "text/event-stream":
            raise self.not_holdfast()
        connection = Connection(response)
        self._streams.add(connection)
        return connection

    async def _send(self, request: Request, **options: Any) -> aiohttp.ClientResponse:
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._session is None:
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=self._silence_s
            )
            self._session = aiohttp.ClientSession(timeout=timeout, headers=self._headers)
        path = "/".join(quote(part, safe="") for part in ("api", "v1", *request.path))
        return await self._session.request(
            request.method,
            self.url.joinpath(path, encoded=True),
            json=request.body,
            params=request.query,
            headers=request.headers,
            **options,
        )

    @property
    def _name(self) -> str:
        return str(self.url).rstrip("/")

    def unreachable(self, cause: str, *, reached: bool) -> ServerUnreachable:
        """The error for a server that does not answer."""
        return ServerUnreachable(f"no answer from {self._name}: {cause}", reached=reached)

    def not_holdfast(self) -> errors.HoldfastError:
        """The error for an answer that is none of Holdfast's."""
        return errors.HoldfastError(
            f"what answers at {self._name} is no Holdfast server, or one of another version"
        )

    def _foreign_error(self, response: aiohttp.ClientResponse) -> errors.HoldfastError:
        return errors.HoldfastError(f"{self._name} answered HTTP {response.status}")


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
    return float(value) if re.fullmatch(r"[0-9]{1,9}", value) else 0


def _cause(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.strerror or "cannot connect"
    if isinstance(error, TimeoutError):
        return "it is silent"
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError):
        return "the connection was closed"
    return str(error) or type(error).__name__
