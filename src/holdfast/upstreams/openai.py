"""Any server that speaks the OpenAI API's `/chat/completions`.

OpenAI, DeepSeek, vLLM, llama.cpp, Ollama, LiteLLM, the OpenAI routes of RAGFlow and AnythingLLM,
and so on; `openai_decoder` has what their answers look like.
"""

import asyncio
import contextlib
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit, urlunsplit

import msgspec
from pydantic import Field, SecretStr, field_validator

from holdfast.engine.run import UpstreamEnd
from holdfast.errors import UpstreamError
from holdfast.events import Reason
from holdfast.settings import LimitSettings
from holdfast.upstreams.base import Ask, Exchange, Health, Sink, Upstream
from holdfast.upstreams.citations import CitationTranslator, Style
from holdfast.upstreams.openai_decoder import OpenAIDecoder
from holdfast.upstreams.refusal import BODY_BYTES, body_text, without
from holdfast.upstreams.transport import CONNECT_TIMEOUT_S, Response, Transport

AFTERMATH_S: Final = 5.0
"""How long a stream that gave its `finish_reason` may be silent, and a refusal take to come."""
CHECK_TIMEOUT_S: Final = 5.0
STREAM_TYPES: Final = frozenset({"text/event-stream", ""})


class OpenAI(Upstream):
    """An upstream of kind `openai`."""

    kind = "openai"

    class Settings(Upstream.Settings):
        """The upstream's table in the configuration file."""

        kind: Literal["openai"] = "openai"
        base_url: str
        """What comes before `/chat/completions`; its query is kept."""
        api_key: SecretStr | None = None
        model: str | None = None
        """Asked for unless the question chooses one."""
        temperature: float | None = None
        max_tokens: int | None = Field(default=None, gt=0)
        headers: dict[str, SecretStr] = Field(default_factory=dict)
        """Sent with every request."""
        extra_body: dict[str, Any] = Field(default_factory=dict)
        """Further members of the request, such as RAGFlow's `reference = true`."""
        include_usage: bool = True
        """Ask for the tokens used; for servers that refuse `stream_options`, turn it off."""
        citations: Style | None = None
        """What citation marks look like; None knows RAGFlow's."""
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

    @classmethod
    def make(
        cls, name: str, settings: Settings, limits: LimitSettings, transport: Transport
    ) -> Self:
        """See `Upstream.make`."""
        return cls(name, settings, limits, transport)

    def __init__(
        self, name: str, settings: Settings, limits: LimitSettings, transport: Transport
    ) -> None:
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
    def model(self) -> str | None:
        """The configured model."""
        return self._settings.model

    async def open(self) -> None:
        """Open the transport."""
        await self._transport.open()

    async def close(self) -> None:
        """Let go of the transport."""
        await self._transport.close()

    async def answer(self, ask: Ask, exchange: Exchange, sink: Sink) -> UpstreamEnd:
        """See `Upstream.answer`."""
        exchange.request = self._request(ask)
        decoder = OpenAIDecoder(self._limits, self._translator())
        end: UpstreamEnd | None = None
        cause: UpstreamEnd | None = None
        try:
            async with self._transport.stream(
                "POST",
                self._url("/chat/completions"),
                self._headers,
                msgspec.json.encode(exchange.request),
                connect_timeout_s=self._settings.connect_timeout_s,
            ) as response:
                if response.status < 300 and response.content_type.endswith("json"):
                    whole = await response.read_all(self._whole_bytes)
                    end = sink.take(decoder.feed_whole(whole))
                elif (cause := await self._refusal(response)) is None:
                    end = await _relay(response, decoder, sink)
                if decoder.ended and decoder.finished:
                    response.settle()
        except UpstreamError as error:
            cause = UpstreamEnd(error.reason, error=f"{self.name}: {error.message}")
        except asyncio.CancelledError:
            # No citation mark comes of what is held any more.
            sink.take(decoder.finish() if decoder.finished else decoder.release())
            raise
        finally:
            exchange.response = decoder.closing
        if end is None:
            end = sink.take(decoder.finish(cause))
        return self._without_secrets(end or UpstreamEnd(Reason.UPSTREAM_TRUNCATED))

    async def check(self) -> Health:
        """Ask for the list of models."""
        try:
            async with (
                asyncio.timeout(CHECK_TIMEOUT_S),
                self._transport.stream("GET", self._url("/models"), self._headers) as response,
            ):
                return await self._health(response)
        except TimeoutError:
            return Health(ok=False, detail=f"no answer within {CHECK_TIMEOUT_S:g} s")
        except UpstreamError as error:
            return Health(ok=False, detail=without(self._secrets, error.message))

    # ------------------------------------------------------------------ the request

    def _url(self, path: str) -> str:
        parts = urlsplit(self._settings.base_url)
        return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path, fragment=""))

    def _request(self, ask: Ask) -> dict[str, Any]:
        settings = self._settings
        messages = [{"role": turn.role, "content": turn.content} for turn in ask.history]
        if ask.system:
            messages.insert(0, {"role": "system", "content": ask.system})
        messages.append({"role": "user", "content": ask.message})
        temperature = settings.temperature if ask.temperature is None else ask.temperature
        optional = {
            "model": ask.model or settings.model,
            "temperature": temperature,
            "max_tokens": ask.max_tokens or settings.max_tokens,
            "stream_options": {"include_usage": True} if settings.include_usage else None,
        }
        chosen = {name: value for name, value in optional.items() if value is not None}
        return {**settings.extra_body, **chosen, "messages": messages, "stream": True}

    def _translator(self) -> CitationTranslator:
        style = self._settings.citations
        if style is not None:
            return CitationTranslator(style)
        # RAGFlow numbers an agent's references by keys, those of a chat by their places.
        agent = "/agents_openai/" in urlsplit(self._settings.base_url).path
        return CitationTranslator(Style.KEY if agent else Style.PLACE, loose=False)

    # ------------------------------------------------------------------ the response

    @property
    def _whole_bytes(self) -> int:
        """How large an answer in one piece may be: its text, and an event's worth of the rest."""
        return self._limits.answer_bytes + self._limits.event_bytes

    async def _refusal(self, response: Response) -> UpstreamEnd | None:
        """Why this response holds no answer; None if it does."""
        status = response.status
        if status < 300 and response.content_type in STREAM_TYPES:
            return None
        if status < 300:
            error = (
                f"{self.name} answered with {response.content_type} instead of an event stream; "
                "is base_url right?"
            )
        elif status < 400:
            error = f"{self.name} answered {status}; redirects are not followed, set base_url"
        else:
            text = await _refusal_text(response)
            error = f"{self.name} answered {status}" + (f": {text}" if text else "")
        return UpstreamEnd(Reason.UPSTREAM_ERROR, error=error)

    async def _health(self, response: Response) -> Health:
        status = response.status
        if status < 300 and response.content_type.endswith("json"):
            return Health(ok=True)
        if status < 300:
            kind = response.content_type or "no content type"
            return Health(ok=False, detail=f"answered with {kind}; is base_url right?")
        if status in (401, 403):
            detail = f"answered {status}: the api_key is missing or refused"
        elif status == 404:
            detail = "answered 404: there is no /models; is base_url right?"
        else:
            text = await _refusal_text(response)
            detail = f"answered {status}" + (f": {text}" if text else "")
        return Health(ok=False, detail=without(self._secrets, detail))

    def _without_secrets(self, end: UpstreamEnd) -> UpstreamEnd:
        if not end.error:
            return end
        return msgspec.structs.replace(end, error=without(self._secrets, end.error))


async def _relay(response: Response, decoder: OpenAIDecoder, sink: Sink) -> UpstreamEnd | None:
    """Give the run each piece in the turn in which it comes; the end, if the stream told it.

    Raises:
        UpstreamError: The connection broke; what came before was taken.
    """
    end: UpstreamEnd | None = None

    def take(data: bytes) -> bool:
        nonlocal end
        end = sink.take(decoder.feed(data))
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


async def _read_aftermath(response: Response) -> bytes:
    """What follows a `finish_reason`; b"" if nothing does and the stream stays open."""
    try:
        async with asyncio.timeout(AFTERMATH_S):
            return await response.read()
    except TimeoutError:
        return b""


async def _refusal_text(response: Response) -> str:
    body = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(AFTERMATH_S):
            body = await response.read_start(BODY_BYTES)
    return body_text(response.content_type, body)
