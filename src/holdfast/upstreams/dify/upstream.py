"""Dify: a chatbot, an agent or a chatflow, over its service API.

Each session of ours is a conversation of Dify's, which keeps what was said in it and takes no
messages from us; model, prompt and temperature are the app's. `dify_decoder` has what the answers
look like.

Dify goes on writing when its reader hangs up, so an answer that is not wanted any more is stopped
by a call of its own.
"""

import asyncio
import contextlib
import re
from typing import Any, Final, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import Field, SecretStr, field_validator

from holdfast.engine.run import UpstreamEnd
from holdfast.errors import UpstreamError
from holdfast.events import Notice
from holdfast.settings import LimitSettings
from holdfast.upstreams.base import Ask, Exchange, Health, Sink
from holdfast.upstreams.decoding.decoder import Decoder, mapping
from holdfast.upstreams.decoding.refusal import error_text
from holdfast.upstreams.dify.decoder import DifyDecoder
from holdfast.upstreams.remote import NotingSink, RemoteSettings, RemoteUpstream
from holdfast.upstreams.wire.transport import Transport

STOP_TIMEOUT_S: Final = 2.0
"""How long the call that stops an answer may take."""

_ROUTE: Final = re.compile(r"(/v1)?(/chat-messages)?/*\Z")
_GONE: Final = re.compile(
    r"conversation (?:not exist|does not exist|has ended)|conversation_completed", re.IGNORECASE
)
"""How Dify says that a conversation was deleted, belongs to another user, or is over."""
_NO_CHAT: Final = frozenset({"completion", "workflow"})
"""Kinds of apps that cannot be talked to."""


class DifySettings(RemoteSettings):
    """The upstream's table in the configuration file.

    `base_url` is the address of the API, with or without `/v1`; `api_key` is that of one app.
    """

    kind: Literal["dify"] = "dify"
    api_key: SecretStr
    inputs: dict[str, Any] = Field(default_factory=dict)
    """Values for the variables that the app asks for."""
    user: str | None = Field(default=None, min_length=1, max_length=200)
    """Who asks, as Dify is told; by default each session is a user of its own."""
    think_tags: bool = True
    """Take `<think>...</think>` in the text for reasoning."""

    @field_validator("base_url")
    @classmethod
    def _with_version(cls, value: str) -> str:
        parts = urlsplit(value)
        return urlunsplit(parts._replace(path=_ROUTE.sub("", parts.path, count=1) + "/v1"))

    @field_validator("api_key")
    @classmethod
    def _is_given(cls, value: SecretStr | None) -> SecretStr:
        if value is None:
            raise ValueError("must be the key of a Dify app")
        return value


class Dify(RemoteUpstream[DifySettings]):
    """An upstream of kind `dify`."""

    kind = "dify"
    Settings = DifySettings

    def __init__(
        self, name: str, settings: DifySettings, limits: LimitSettings, transport: Transport
    ) -> None:
        """See `RemoteUpstream`."""
        super().__init__(name, settings, limits, transport)
        self._stopping: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Let go of the transport, once all answers are stopped that are being stopped."""
        if self._stopping:
            await asyncio.wait(self._stopping)
        await super().close()

    # ------------------------------------------------------------------ asking

    def _decoder(self, ask: Ask) -> DifyDecoder:
        settings = self._settings
        return DifyDecoder(self._limits, base_url=settings.base_url, think_tags=settings.think_tags)

    async def _converse(
        self, ask: Ask, exchange: Exchange, sink: Sink, decoder: Decoder
    ) -> UpstreamEnd | None:
        assert isinstance(decoder, DifyDecoder)
        noting = NotingSink(sink, lambda: decoder.conversation, ask.conversation)
        try:
            return await self._put(ask, ask.conversation, exchange, noting, decoder)
        except UpstreamError as error:
            if ask.conversation is None or not _GONE.search(error.message):
                raise
            lost = f"{self.name} does not have this conversation any more and begins a new one"
            sink.take([Notice("conversation_lost", lost)])
            return await self._put(ask, None, exchange, noting, decoder)
        finally:
            if decoder.task is not None:
                self._stop(decoder.task, self._user(ask))

    async def _put(
        self,
        ask: Ask,
        conversation: str | None,
        exchange: Exchange,
        sink: Sink,
        decoder: DifyDecoder,
    ) -> UpstreamEnd | None:
        """Put the question in this conversation, or in a new one.

        Raises:
            UpstreamError: See `_converse`.
        """
        exchange.request = {
            "inputs": self._settings.inputs,
            "query": ask.message,
            "response_mode": "streaming",
            "user": self._user(ask),
            "auto_generate_name": False,  # it would cost a model's answer; sessions have titles
        }
        if conversation is not None:
            exchange.request["conversation_id"] = conversation
        return await self._post("/chat-messages", exchange.request, sink, decoder)

    def _user(self, ask: Ask) -> str:
        return self._settings.user or f"holdfast-{ask.session_id}"

    # ------------------------------------------------------------------ stopping

    def _stop(self, task: str, user: str) -> None:
        """Have Dify stop an answer; nobody waits for that, but `close`."""
        stopping = asyncio.create_task(self._call_stop(task, user), name=f"stop-{self.name}")
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)

    async def _call_stop(self, task: str, user: str) -> None:
        path = f"/chat-messages/{quote(task, safe='')}/stop"
        with contextlib.suppress(TimeoutError, UpstreamError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._fetch("POST", path, {"user": user})

    # ------------------------------------------------------------------ health

    async def _check(self) -> Health:
        """Ask what app the key belongs to, or, of an older Dify, for the app's parameters."""
        status, answer = await self._fetch("GET", "/info?user=holdfast")
        if status == 404:
            status, answer = await self._fetch("GET", "/parameters?user=holdfast")
        detail = _complaint(status, mapping(answer))
        return Health(ok=not detail, detail=detail)


def _complaint(status: int, answer: dict[str, Any]) -> str:
    """What is wrong, by the answer to the check; "" if nothing."""
    if status in (401, 403):
        return f"answered {status}: the api_key is missing or refused"
    if status == 404 or (status < 300 and not answer):
        return f"answered {status}, but not as Dify does; is base_url right?"
    if status >= 300:
        text = error_text(answer)
        return f"answered {status}" + (f": {text}" if text else "")
    mode = answer.get("mode")
    is_chat = not isinstance(mode, str) or mode not in _NO_CHAT
    return "" if is_chat else f"the app is a {mode} app, which cannot chat"
