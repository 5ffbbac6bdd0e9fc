"""The plain surface: `/chat`, `/chat/stream` and `/sessions/{id}/messages`."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Scope

from holdfast.dialects.plain import PlainEncoder
from holdfast.errors import HoldfastError
from holdfast.events import Reference, encode
from holdfast.http.dialects import about
from holdfast.http.endpoint import Call, identified
from holdfast.http.operation import IDEMPOTENCY_KEY, Operation
from holdfast.http.shapes import timestamp
from holdfast.http.stream import StreamBroken
from holdfast.http.surfaces.surface import Surface, reworded, run_response, why_early
from holdfast.runner.supervisor import Supervisor
from holdfast.store.port import MessageRecord, RunRecord

FRAMES = (
    "Each `data` has a piece of `content`, the first one the `session_id`, too; one with an "
    "`error` follows if the answer ended early; the last is `[DONE]`."
)
EXAMPLE = {"message": "What is a holdfast?"}


class PlainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A question. Fields that are not known are ignored."""

    message: str
    session_id: str | int | None = None
    """A session that exists; a new one without it."""
    config_id: str | int | None = None
    """The preset of a session that is created."""
    stream: bool | None = False
    """Does not matter on `/stream`."""


class PlainAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer in one piece; `error` tells why it ended early, if it did."""

    session_id: str
    user_message_id: str
    message_id: str
    content: str
    references: tuple[Reference, ...]
    status: str
    error: str | None


class PlainMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message; `metadata` has `partial`, `error` and `reason` where it ended early."""

    id: str
    session_id: str
    role: str
    content: str
    timestamp: str
    references: tuple[Reference, ...]
    metadata: dict[str, Any]
    status: str


class PlainFailure(msgspec.Struct, frozen=True):
    """Every error's body."""

    error: str


class PlainRoutes(Surface):
    """The functions behind the routes."""

    dialect = "plain"

    async def plain_chat(self, call: Call) -> ASGIApp:
        """The answer in one piece, or as a stream with `stream`."""
        body = await self._question_body(call, PlainRequest)
        return await self._answer(call, body, bool(body.stream))

    async def plain_chat_stream(self, call: Call) -> ASGIApp:
        """The answer as a stream."""
        return await self._answer(call, await self._question_body(call, PlainRequest), True)

    async def _answer(self, call: Call, body: PlainRequest, stream: bool) -> ASGIApp:
        question = self._question(
            call,
            body,
            message=body.message,
            session_id=_name(body.session_id),
            preset=_name(body.config_id),
        )
        run = (await self._supervisor.ask(question)).run
        if stream:
            return self._stream(run, PlainEncoder(about(run)))
        return await self._whole(call, run)

    async def _whole(self, call: Call, run: RunRecord) -> Response:
        run, message = await self._wait(call, run)
        if not message.answer.text:
            return run_response(PlainFailure(why_early(message)), run, 502)
        answer = PlainAnswer(
            session_id=run.session_id,
            user_message_id=run.question_id,
            message_id=message.id,
            content=message.answer.text,
            references=message.answer.references,
            status=message.status,
            error=message.error,
        )
        return run_response(answer, run)

    async def plain_messages(self, call: Call) -> ASGIApp:
        """All messages of a session, oldest first; a live answer as far as it is written."""
        session = await self._supervisor.get_session(call.owner, call.path_params["id"])
        pages = self._pages(session.id)
        first: list[MessageRecord] = await anext(pages, [])
        response = StreamingResponse(_array(first, pages), media_type="application/json")
        return identified(response, {"session_id": session.id})


def _name(value: str | int | None) -> str | None:
    """A name as it is kept; clients whose own ids are numbers send it as one."""
    return str(value) if value else None


async def _array(
    first: list[MessageRecord], pages: AsyncIterator[list[MessageRecord]]
) -> AsyncIterator[bytes]:
    """A JSON array, page by page: a long session is never in memory as a whole."""
    yield b"[" + _items(first)
    try:
        async for page in pages:
            yield b"," + _items(page)
    except HoldfastError as error:
        raise StreamBroken from error
    yield b"]"


def _items(messages: list[MessageRecord]) -> bytes:
    return b",".join([encode(_shape(message)) for message in messages])


def _shape(message: MessageRecord) -> PlainMessage:
    return PlainMessage(
        id=message.id,
        session_id=message.session_id,
        role=message.role,
        content=message.answer.text,
        timestamp=timestamp(message.created_at) or "",
        references=message.answer.references,
        metadata=message.metadata or {},
        status=message.status,
    )


def refuse(error: HoldfastError, scope: Scope) -> Response:
    """An error as `{"error": "…"}`."""
    return reworded(error, scope, encode(PlainFailure(error.message)), "application/json")


def operations(supervisor: Supervisor) -> list[Operation]:
    """The plain surface."""
    routes = PlainRoutes(supervisor)
    return [
        Operation(
            "POST",
            "/chat",
            routes.plain_chat,
            "plain: ask, and wait for the answer",
            body=PlainRequest,
            answer=PlainAnswer,
            refuse=refuse,
            failure=PlainFailure,
            stream=True,
            frames=FRAMES,
            parameters=(IDEMPOTENCY_KEY,),
            example=EXAMPLE,
        ),
        Operation(
            "POST",
            "/chat/stream",
            routes.plain_chat_stream,
            "plain: ask, and stream the answer",
            body=PlainRequest,
            refuse=refuse,
            failure=PlainFailure,
            stream=True,
            frames=FRAMES,
            parameters=(IDEMPOTENCY_KEY,),
            example=EXAMPLE,
        ),
        Operation(
            "GET",
            "/sessions/{id}/messages",
            routes.plain_messages,
            "plain: all messages of a session",
            answer=list[PlainMessage],
            refuse=refuse,
            failure=PlainFailure,
        ),
    ]
