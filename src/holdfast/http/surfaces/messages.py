"""The messages surface: `/api/messages`, as front ends that were written for RAGFlow ask."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from holdfast.dialects.messages import (
    LegacyMessagesEncoder,
    MessagesEncoder,
    continued,
    envelope,
    reference_object,
    with_ids,
)
from holdfast.errors import BadRequest, Conflict, HoldfastError, NotFound, TooLarge
from holdfast.events import Reference, encode
from holdfast.http.dialects import about
from holdfast.http.endpoint import Call, json_response
from holdfast.http.operation import IDEMPOTENCY_KEY, Operation, Parameter
from holdfast.http.surfaces.surface import Surface, bound_key, reworded, run_response, why_early
from holdfast.runner.supervisor import Supervisor
from holdfast.store.port import CompleteMessage, MessageRecord, RunRecord, SessionRecord
from holdfast.upstreams.decoding.references import CHUNK, read_reference

FRAMES = (
    "Each `data` is an envelope: `answer` has a piece of the text; the frame with `final` has the "
    "whole answer and its `reference`, and code 500 if it ended early; the last has `data: true`."
)
EXAMPLE = {"question": "What is a holdfast?", "session_id": "my-chat-1"}
SESSION = Parameter("session_id", "query", "The session; `conversation_id` is the same.")


class ChatTurn(msgspec.Struct, frozen=True):
    """One of `messages`; only the last of the user is asked, the session knows the others."""

    role: str = "user"
    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        """What it says; of typed parts those that are text."""
        if isinstance(self.content, list):
            return "".join(
                [part["text"] for part in self.content if isinstance(part.get("text"), str)]
            )
        return self.content or ""


class MessagesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A question. Fields that are not known are ignored."""

    question: str | None = None
    message: str | None = None
    """As `question`."""
    messages: list[ChatTurn] | None = None
    """As `question`: the last one of role `user`."""
    session_id: str | None = None
    """Your own name for the session, created on first use; without it a new one is begun."""
    conversation_id: str | None = None
    """As `session_id`."""
    upstream: str | None = None
    legacy: bool | None = False
    """Cumulative answers, as RAGFlow sent them up to 0.23."""
    stream: bool | None = False
    """Does not matter on `/stream`."""

    @property
    def asked(self) -> str:
        """The question: the first of the places where it may stand in which there is anything."""
        turns = [turn.text for turn in self.messages or () if turn.role == "user"]
        places = (self.question, self.message, *turns[-1:])
        return next((text for text in places if text and text.strip()), "")

    @property
    def session(self) -> str | None:
        """The session's name, wherever it stands."""
        return self.session_id or self.conversation_id


class SaveRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client has of an answer that ended early."""

    session_id: str
    message_id: str
    answer: str
    reference: dict[str, Any] | list[Any] | None = None


class MessagesItem(msgspec.Struct, frozen=True, kw_only=True):
    """A message."""

    id: str
    role: str
    content: str
    reference: dict[str, Any]
    status: str


class MessagesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer in one piece; `error` tells why it ended early, if it did."""

    answer: str
    reference: dict[str, Any]
    id: str
    session_id: str
    status: str
    error: str | None


class MessagesEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """What everything is wrapped in; a code of 0 says that all is well."""

    code: Annotated[int, Meta(ge=0)]
    message: str
    data: Any


class MessagesRoutes(Surface):
    """The functions behind the routes."""

    dialect = "messages"

    async def messages_ask(self, call: Call) -> ASGIApp:
        """The answer in one piece, or as a stream with `stream`."""
        body = await self._question_body(call, MessagesRequest)
        return await self._answer(call, body, bool(body.stream))

    async def messages_stream(self, call: Call) -> ASGIApp:
        """The answer as a stream."""
        return await self._answer(call, await self._question_body(call, MessagesRequest), True)

    async def _answer(self, call: Call, body: MessagesRequest, stream: bool) -> ASGIApp:
        key = bound_key(body.session)
        question = self._question(
            call, body, message=body.asked, session_key=key, upstream=body.upstream
        )
        run = (await self._supervisor.ask(question)).run
        if not stream:
            return await self._whole(call, run, key)
        encoder = LegacyMessagesEncoder if body.legacy else MessagesEncoder
        return self._stream(run, encoder(about(run, key)))

    async def _whole(self, call: Call, run: RunRecord, key: str | None) -> Response:
        run, message = await self._wait(call, run)
        answer = MessagesAnswer(
            answer=with_ids(message.answer.text, message.answer.marks),
            reference=reference_object(message.answer.references),
            id=message.id,
            session_id=key or run.session_id,
            status=message.status,
            error=message.error,
        )
        if not message.answer.text:
            return run_response(envelope(answer, 500, why_early(message)), run)
        return run_response(envelope(answer), run)

    async def messages_list(self, call: Call) -> ASGIApp:
        """All messages of a session, oldest first; a live answer as far as it is written."""
        name = call.query_params.get("session_id") or call.query_params.get("conversation_id")
        session = await self._session(call.owner, name)
        items = [_item(message) async for page in self._pages(session.id) for message in page]
        response = json_response(envelope(items))
        response.headers["X-Holdfast-Session"] = session.id
        return response

    async def messages_save(self, call: Call) -> ASGIApp:
        """Complete an answer that ended early with what the client has of it.

        The client's text must begin with what is stored. Saving the same again changes nothing;
        an answer that is complete, or still being written, is not touched.
        """
        body = await call.json_body(SaveRequest, 2 * self._settings.limits.answer_bytes)
        session = await self._session(call.owner, body.session_id)
        message = await self._supervisor.get_message(call.owner, body.message_id)
        text = self._completed(message, body.answer)
        await self._supervisor.commits.submit(
            CompleteMessage(
                call.owner,
                session.id,
                message.id,
                text,
                self._references(body),
                self._supervisor.now(),
            )
        )
        message = await self._supervisor.get_message(call.owner, body.message_id)
        return json_response(envelope(_item(message)))

    def _completed(self, message: MessageRecord, answer: str) -> str:
        """What the message says once it is completed; the store decides whether it may be.

        Raises:
            Conflict: The client's text is not the beginning of the same answer.
            TooLarge: It is larger than an answer may be.
        """
        if len(answer.encode("utf-8", "replace")) > self._settings.limits.answer_bytes:
            raise TooLarge("the answer is larger than limits.answer_bytes")
        text = continued(message.answer.text, message.answer.marks, answer)
        if text is None:
            raise Conflict("the answer does not begin with what is stored of it")
        return text

    def _references(self, body: SaveRequest) -> tuple[Reference, ...] | None:
        """The client's references; None if it names none, so that the stored ones stay."""
        told = body.reference
        chunks = told.get("chunks") if isinstance(told, dict) else told
        sources = list(chunks.values()) if isinstance(chunks, dict) else chunks
        if not isinstance(sources, list) or not sources:
            return None
        limits = self._settings.limits
        return tuple(
            read_reference(source, CHUNK, ordinal=place, text_bytes=limits.reference_bytes)
            for place, source in enumerate(sources[: limits.references], 1)
            if isinstance(source, dict)
        )

    async def _session(self, owner: str, name: str | None) -> SessionRecord:
        """The session of this name.

        Raises:
            BadRequest: No name.
            NotFound: No such session.
        """
        key = bound_key(name)
        if key is None:
            raise BadRequest("session_id is missing")
        session = await self._named_session(owner, key)
        if session is None:
            raise NotFound("there is no such session")
        return session


def _item(message: MessageRecord) -> MessagesItem:
    return MessagesItem(
        id=message.id,
        role=message.role,
        content=with_ids(message.answer.text, message.answer.marks),
        reference=reference_object(message.answer.references),
        status=message.status,
    )


def refuse(error: HoldfastError, scope: Scope) -> Response:
    """An error as an envelope whose code is the HTTP status."""
    body = encode(envelope(None, error.status, error.message))
    return reworded(error, scope, body, "application/json")


def operations(supervisor: Supervisor) -> list[Operation]:
    """The messages surface."""
    routes = MessagesRoutes(supervisor)
    return [
        Operation(
            "POST",
            "/api/messages/stream",
            routes.messages_stream,
            "messages: ask, and stream the answer",
            body=MessagesRequest,
            refuse=refuse,
            failure=MessagesEnvelope,
            stream=True,
            frames=FRAMES,
            parameters=(IDEMPOTENCY_KEY,),
            example=EXAMPLE,
        ),
        Operation(
            "POST",
            "/api/messages",
            routes.messages_ask,
            "messages: ask, and wait for the answer",
            body=MessagesRequest,
            answer=MessagesEnvelope,
            refuse=refuse,
            failure=MessagesEnvelope,
            stream=True,
            frames=FRAMES,
            parameters=(IDEMPOTENCY_KEY,),
            example=EXAMPLE,
        ),
        Operation(
            "GET",
            "/api/messages",
            routes.messages_list,
            "messages: all messages of a session",
            answer=MessagesEnvelope,
            refuse=refuse,
            failure=MessagesEnvelope,
            parameters=(SESSION,),
        ),
        Operation(
            "PUT",
            "/api/messages/save",
            routes.messages_save,
            "messages: complete an answer that ended early",
            body=SaveRequest,
            answer=MessagesEnvelope,
            refuse=refuse,
            failure=MessagesEnvelope,
            example={"session_id": "my-chat-1", "message_id": "…", "answer": "Kelp holds."},
        ),
    ]
