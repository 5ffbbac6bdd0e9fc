"""The v1 surface: `/api/v1/chat` and `/api/v1/chat/stream`."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from holdfast.dialects.naive import cut, data
from holdfast.dialects.v1 import V1Encoder
from holdfast.errors import HoldfastError
from holdfast.events import Reference, encode
from holdfast.http.dialects import about
from holdfast.http.endpoint import Call
from holdfast.http.operation import IDEMPOTENCY_KEY, Operation
from holdfast.http.surfaces.surface import (
    Surface,
    bound_key,
    reworded,
    run_response,
    why_early,
)
from holdfast.runner.supervisor import Supervisor
from holdfast.settings.tables import ROUTES
from holdfast.store.port import RunRecord

ERROR_BYTES = 900
"""Of an error in a frame."""
FRAMES = (
    "Each `data` has `content`, `session_id` and `model_used`; before the end one has an `error`, "
    "if the answer ended early, and one has `references`, `message_id` and `status`; the last is "
    "`[DONE]`."
)
EXAMPLE = {"message": "What is a holdfast?", "session_id": "session_123", "model_type": "auto"}


DEFAULTS: Final = {"max_tokens": 1024, "temperature": 0.7}
"""What holds where neither the question nor its session's preset says otherwise."""


class V1Request(msgspec.Struct, frozen=True, kw_only=True):
    """A question. Fields that are not known are ignored."""

    message: str
    session_id: str | None = None
    """The caller's own name for the conversation; created on first use."""
    max_tokens: (
        Annotated[
            Annotated[int, Meta(ge=1, le=10_000_000)] | None,
            Meta(extra_json_schema={"default": DEFAULTS["max_tokens"]}),
        ]
        | UnsetType
    ) = UNSET
    """The default holds unless the session's preset says otherwise; as for `temperature`."""
    temperature: (
        Annotated[
            Annotated[float, Meta(ge=0, le=10)] | None,
            Meta(extra_json_schema={"default": DEFAULTS["temperature"]}),
        ]
        | UnsetType
    ) = UNSET
    model_type: Literal["auto", "local_small", "cloud_large"] | None = None
    preferred_model: Annotated[str, Meta(max_length=200)] | None = None
    """An upstream or its model; else a model for the upstream that `model_type` gives."""
    stream: bool | None = False
    """Does not matter on `/stream`."""


class V1Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer in one piece; `error` tells why it ended early, if it did."""

    content: str
    session_id: str
    model_used: str
    references: tuple[Reference, ...]
    message_id: str
    status: str
    error: str | None


class V1Failure(msgspec.Struct, frozen=True):
    """Every error's body."""

    content: str
    error: str


class V1Routes(Surface):
    """The functions behind the routes."""

    dialect = "v1"

    async def v1_chat(self, call: Call) -> ASGIApp:
        """The answer in one piece, or as a stream with `stream`."""
        body = await self._question_body(call, V1Request)
        return await self._answer(call, body, bool(body.stream))

    async def v1_chat_stream(self, call: Call) -> ASGIApp:
        """The answer as a stream."""
        return await self._answer(call, await self._question_body(call, V1Request), True)

    async def _answer(self, call: Call, body: V1Request, stream: bool) -> ASGIApp:
        key = bound_key(body.session_id)
        upstream, model = self._choose(body)
        question = self._question(
            call,
            body,
            message=body.message,
            session_key=key,
            upstream=upstream,
            model=model,
            temperature=None if body.temperature is UNSET else body.temperature,
            max_tokens=None if body.max_tokens is UNSET else body.max_tokens,
            defaults=DEFAULTS,
        )
        run = (await self._supervisor.ask(question)).run
        encoder = V1Encoder(about(run, key))
        if stream:
            return self._stream(run, encoder)
        return await self._whole(call, run, encoder)

    def _choose(self, body: V1Request) -> tuple[str | None, str | None]:
        """The upstream or route that answers, and its model.

        What is preferred beats the type: an upstream or route by its name, or the upstream that is
        configured with that model. Any other name is a model for the upstream of that type.
        """
        wanted, upstreams = body.preferred_model, self._supervisor.upstreams
        if not wanted:
            return body.model_type, None
        if wanted in upstreams or wanted in ROUTES:
            return wanted, None
        for upstream in upstreams.values():
            if upstream.model == wanted:
                return upstream.name, None
        return body.model_type, wanted

    async def _whole(self, call: Call, run: RunRecord, encoder: V1Encoder) -> Response:
        run, message = await self._wait(call, run, encoder.encode)
        if not message.answer.text:
            return run_response(V1Failure("", why_early(message)), run, 502)
        answer = V1Answer(
            content=message.answer.text,
            session_id=encoder.about.session,
            model_used=encoder.model_used,
            references=message.answer.references,
            message_id=message.id,
            status=message.status,
            error=message.error,
        )
        return run_response(answer, run)


def refuse(error: HoldfastError, scope: Scope) -> Response:
    """An error as the body of a waiting request."""
    return reworded(error, scope, encode(V1Failure("", error.message)), "application/json")


def refuse_in_a_frame(error: HoldfastError, scope: Scope) -> Response:
    """An error for a client that looks at frames only."""
    frame = data({"content": "", "error": cut(error.message, ERROR_BYTES)})
    return reworded(error, scope, frame, "text/event-stream")


def operations(supervisor: Supervisor) -> list[Operation]:
    """The v1 surface."""
    routes = V1Routes(supervisor)
    return [
        Operation(
            "POST",
            "/api/v1/chat",
            routes.v1_chat,
            "v1: ask, and wait for the answer",
            body=V1Request,
            answer=V1Answer,
            refuse=refuse,
            failure=V1Failure,
            stream=True,
            frames=FRAMES,
            parameters=(IDEMPOTENCY_KEY,),
            example=EXAMPLE,
        ),
        Operation(
            "POST",
            "/api/v1/chat/stream",
            routes.v1_chat_stream,
            "v1: ask, and stream the answer",
            body=V1Request,
            refuse=refuse_in_a_frame,
            failure=str,
            stream=True,
            frames=FRAMES,
            parameters=(IDEMPOTENCY_KEY,),
            example=EXAMPLE,
        ),
    ]
