"""RAGFlow: a chat assistant or an agent, over its API, of any version since 0.13.

Each session of ours has a session of its own there. `ragflow_decoder` has what the answers look
like; how to ask differs, too:

    up to 0.25.0      `question`, and a session, without which it is dropped; over `messages`
                      the server breaks down
    0.25.1 to 0.25.5  `messages`, and nothing else; they become the session's history
    since 0.25.6      either. The server's own history lacks every turn that was cut off, so it
                      is given ours

So a question goes out in both forms, until a server breaks down over that. An agent needs no
session before the first question, and takes `question` or `query`.

There is no way to stop an answer but to hang up.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import Field, field_validator, model_validator

from holdfast.engine.policy import title_of
from holdfast.engine.run import UpstreamEnd
from holdfast.errors import UpstreamError
from holdfast.events import Reason
from holdfast.upstreams.base import Ask, Exchange, Health, Sink
from holdfast.upstreams.decoding.citations import CitationTranslator, Style
from holdfast.upstreams.decoding.decoder import Decoder, mapping
from holdfast.upstreams.decoding.lenient import decode_any
from holdfast.upstreams.ragflow.decoder import SESSION_CHARS, RagflowDecoder, refusal
from holdfast.upstreams.remote import SMALL_BYTES, NotingSink, RemoteSettings, RemoteUpstream

NO_ROUTE: Final = frozenset({404, 405})

_API: Final = re.compile(r"(/api)?(/v1)?/*\Z")
_NEEDS_MESSAGES: Final = re.compile(r"missing\b.*\bmessages", re.DOTALL)
_ABOUT_SESSION: Final = re.compile(r"\bsession\b", re.IGNORECASE)
_ABOUT_KEY: Final = re.compile(r"API key|`Authorization`|authorization format|unauthorized", re.I)


class RagflowSettings(RemoteSettings):
    """The upstream's table in the configuration file.

    `base_url` is the address of the server; an `/api/v1` at its end does no harm.
    """

    kind: Literal["ragflow"] = "ragflow"
    chat_id: str | None = None
    """The chat assistant to ask."""
    agent_id: str | None = None
    """The agent to ask; either this or `chat_id`."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further members of each question, such as `doc_ids`, or an agent's `inputs`."""
    citations: Style | None = None
    """What the numbers in citation marks mean; None knows."""

    @field_validator("base_url")
    @classmethod
    def _without_api(cls, value: str) -> str:
        parts = urlsplit(value)
        return urlunsplit(parts._replace(path=_API.sub("", parts.path)))

    @field_validator("chat_id", "agent_id")
    @classmethod
    def _is_id(cls, value: str | None) -> str | None:
        return (value or "").strip() or None

    @model_validator(mode="after")
    def _has_one_id(self) -> Self:
        if (self.chat_id is None) == (self.agent_id is None):
            raise ValueError("needs either chat_id or agent_id")
        return self


class Ragflow(RemoteUpstream[RagflowSettings]):
    """An upstream of kind `ragflow`."""

    kind = "ragflow"
    Settings = RagflowSettings

    _takes_messages = True
    """Not that the server is known to; but it is not known to break down over them."""

    @property
    def _place(self) -> str:
        """The path of the assistant or agent."""
        chat, agent = self._settings.chat_id, self._settings.agent_id
        return f"/api/v1/{'chats' if chat else 'agents'}/{quote(chat or agent or '', safe='')}"

    def _decoder(self, ask: Ask) -> RagflowDecoder:
        style = self._settings.citations
        citations = CitationTranslator(style) if style else None
        return RagflowDecoder(self._limits, citations, agent=self._settings.agent_id is not None)

    # ------------------------------------------------------------------ asking

    async def _converse(
        self, ask: Ask, exchange: Exchange, sink: Sink, decoder: Decoder
    ) -> UpstreamEnd | None:
        assert isinstance(decoder, RagflowDecoder)
        sink = NotingSink(sink, lambda: decoder.session, ask.conversation)
        try:
            session = ask.conversation or await self._new_session(ask, decoder)
            sink.note()
            return await self._put(ask, session, exchange, sink, decoder)
        except UpstreamError as error:
            if not ask.conversation or not _ABOUT_SESSION.search(_words(error)):
                raise
        session = await self._new_session(ask, decoder)
        sink.note()
        return await self._put(ask, session, exchange, sink, decoder)

    async def _new_session(self, ask: Ask, decoder: RagflowDecoder) -> str | None:
        """Make a session; None where the first question is to make it.

        Raises:
            UpstreamError: The server refuses.
        """
        if self._settings.agent_id:
            return None
        path = f"{self._place}/sessions"
        async with self._stream("POST", path, {"name": title_of(ask.message)}) as response:
            content = await response.read_all(SMALL_BYTES)
        if response.status in NO_ROUTE:
            return None
        _raise_if_refused(content, response.status)
        answer = decode_any(content)
        session = mapping(mapping(answer).get("data")).get("id")
        if not isinstance(session, str) or not 0 < len(session) <= SESSION_CHARS:
            return None
        decoder.session = session
        return session

    async def _put(
        self,
        ask: Ask,
        session: str | None,
        exchange: Exchange,
        sink: Sink,
        decoder: RagflowDecoder,
    ) -> UpstreamEnd | None:
        """Put the question in this session, or in one that the server makes of it.

        Raises:
            UpstreamError: See `_converse`.
        """
        decoder.awaits_session = session is None
        exchange.request = self._question(ask, session)
        decoder.offers_messages = "messages" in exchange.request
        try:
            path = f"{self._place}/completions"
            end = await self._post(path, exchange.request, sink, decoder)
        except UpstreamError as error:
            if decoder.offers_messages or not _NEEDS_MESSAGES.search(_words(error)):
                raise
            self._takes_messages = True  # the server was updated
            return await self._put(ask, session, exchange, sink, decoder)
        if end is not None or not decoder.begin_anew():
            return end
        if "messages" in exchange.request:
            self._takes_messages = decoder.offers_messages
        return await self._put(ask, decoder.session or session, exchange, sink, decoder)

    def _question(self, ask: Ask, session: str | None) -> dict[str, Any]:
        body = {**self._settings.extra_body, "stream": True, "question": ask.message}
        if session:
            body["session_id"] = session
        if self._settings.agent_id:
            body["query"] = ask.message
        elif self._takes_messages:
            turns = [{"role": turn.role, "content": turn.content} for turn in ask.history]
            asked = {"role": "user", "content": ask.message, "id": ask.message_id}
            body["messages"] = [*turns, asked]
            if turns:  # otherwise the server's history, which has its greeting, will do
                body["pass_all_history_messages"] = True
        return body

    # ------------------------------------------------------------------ refusals and health

    def _check_whole(self, whole: bytes, status: int) -> None:
        _raise_if_refused(whole, status)

    async def _check(self) -> Health:
        """Ask for the sessions of the assistant or agent; one is enough."""
        status, answer = await self._fetch("GET", f"{self._place}/sessions?page=1&page_size=1")
        detail = self._complaint(status, mapping(answer))
        return Health(ok=not detail, detail=detail)

    def _complaint(self, status: int, answer: Mapping[str, Any]) -> str:
        """What is wrong, by the answer to the check; "" if nothing."""
        words = refusal(answer)
        is_ours = words is not None or answer.get("code") == 0
        if status in (401, 403) or (words and _ABOUT_KEY.search(words)):
            detail = "the api_key is missing or refused"
        elif status in NO_ROUTE or (status < 300 and not is_ours):
            detail = "this is not RAGFlow's API, or one before 0.13; is base_url right?"
        elif words is not None:
            detail = f"is {'chat_id' if self._settings.chat_id else 'agent_id'} right?"
        elif status >= 300:
            return f"answered {status}"
        else:
            return ""
        told = f"answered {status}" if words is None else words.rstrip(".!")
        return f"{told}: {detail}"


def _raise_if_refused(body: bytes, status: int) -> None:
    """Pass unless this answer in one piece is a refusal.

    Raises:
        UpstreamError: What it says.
    """
    words = refusal(mapping(decode_any(body)))
    if status < 300 and words is None:
        return
    told = f": {words}" if words else ""
    if status >= 300:
        error = f" answered {status}{told}"
        raise UpstreamError(Reason.UPSTREAM_ERROR, error, status=status, answered=(status, body))
    raise UpstreamError(Reason.UPSTREAM_ERROR, told, refusal=words, answered=(status, body))


def _words(error: UpstreamError) -> str:
    """By what words the server refused before it tried to answer; "" if it did not."""
    if "refusal" in error.extra:
        return str(error.extra["refusal"])
    return error.message if 400 <= error.extra.get("status", 0) < 500 else ""
