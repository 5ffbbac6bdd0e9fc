"""Any server that speaks the OpenAI API's `/chat/completions`.

OpenAI, DeepSeek, vLLM, llama.cpp, Ollama, LiteLLM, the OpenAI routes of RAGFlow and AnythingLLM,
and so on; `openai_decoder` has what their answers look like.
"""

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from holdfast.engine.run import UpstreamEnd
from holdfast.upstreams.base import Ask, Exchange, Health, Sink
from holdfast.upstreams.decoding.citations import CitationTranslator, Style
from holdfast.upstreams.decoding.decoder import Decoder, mapping
from holdfast.upstreams.openai.decoder import OpenAIDecoder
from holdfast.upstreams.remote import RemoteSettings, RemoteUpstream, refusal_text


class OpenAISettings(RemoteSettings):
    """The upstream's table in the configuration file."""

    kind: Literal["openai"] = "openai"
    model: str | None = None
    """Asked for unless the question chooses one."""
    temperature: float | None = None
    max_tokens: int | None = Field(default=None, gt=0)
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further members of the request, such as RAGFlow's `reference = true`."""
    include_usage: bool = True
    """Ask for the tokens used; for servers that refuse `stream_options`, turn it off."""
    stream: bool = True
    """Ask for a stream. A server that cannot stream answers in one piece."""
    pace: float = Field(default=200.0, ge=0, allow_inf_nan=False)
    """Characters per second at which an answer in one piece is given; 0 is at once."""
    think_tags: bool = True
    """Take `<think>...</think>` at the beginning of the content for reasoning."""
    citations: Style | None = None
    """What citation marks look like; None knows RAGFlow's."""


class OpenAI(RemoteUpstream[OpenAISettings]):
    """An upstream of kind `openai`; `base_url` is what comes before `/chat/completions`."""

    kind = "openai"
    Settings = OpenAISettings

    @property
    def model(self) -> str | None:
        """The configured model."""
        return self._settings.model

    async def _converse(
        self, ask: Ask, exchange: Exchange, sink: Sink, decoder: Decoder
    ) -> UpstreamEnd | None:
        exchange.request = self._request(ask)
        waits = ask.chat is not None and ask.chat.get("stream") is not True
        pace = 0.0 if waits else self._settings.pace  # nobody sees it being written
        return await self._post("/chat/completions", exchange.request, sink, decoder, pace=pace)

    def _decoder(self, ask: Ask) -> Decoder:
        return OpenAIDecoder(self._limits, self._translator(), think_tags=self._settings.think_tags)

    def _request(self, ask: Ask) -> dict[str, Any]:
        settings = self._settings
        body = self._question(ask) if ask.chat is None else dict(ask.chat)
        body.pop("model", None)  # a client's names one of ours
        if ask.model or settings.model:
            body["model"] = ask.model or settings.model
        body["stream"] = settings.stream
        if not settings.stream:
            body.pop("stream_options", None)
        elif settings.include_usage:
            body["stream_options"] = {**mapping(body.get("stream_options")), "include_usage": True}
        return {**settings.extra_body, **body}

    def _question(self, ask: Ask) -> dict[str, Any]:
        """The request's own part where no client of the same API has written it."""
        settings = self._settings
        messages = [{"role": turn.role, "content": turn.content} for turn in ask.history]
        if ask.system:
            messages.insert(0, {"role": "system", "content": ask.system})
        messages.append({"role": "user", "content": ask.message})
        temperature = settings.temperature if ask.temperature is None else ask.temperature
        optional = {
            "temperature": temperature,
            "max_tokens": ask.max_tokens or settings.max_tokens,
        }
        chosen = {name: value for name, value in optional.items() if value is not None}
        return {**chosen, "messages": messages}

    def _translator(self) -> CitationTranslator:
        style = self._settings.citations
        if style is not None:
            return CitationTranslator(style)
        # RAGFlow numbers an agent's references by keys, those of a chat by their places.
        agent = "/agents_openai/" in urlsplit(self._settings.base_url).path
        return CitationTranslator(Style.KEY if agent else Style.PLACE, loose=False)

    async def _check(self) -> Health:
        """Ask for the list of models."""
        async with self._stream("GET", "/models") as response:
            status = response.status
            if status < 300 and response.content_type.endswith("json"):
                return Health(ok=True)
            if status < 300:
                kind = response.content_type or "no content type"
                return Health(ok=False, detail=f"answered with {kind}; is base_url right?")
            if status in (401, 403):
                return Health(
                    ok=False, detail=f"answered {status}: the api_key is missing or refused"
                )
            if status == 404:
                return Health(
                    ok=False, detail="answered 404: there is no /models; is base_url right?"
                )
            text = await refusal_text(response)
            return Health(ok=False, detail=f"answered {status}" + (f": {text}" if text else ""))
