"""The stream-ask surface: `/stream-ask`, in front of a knowledge base."""

from typing import Any, Final

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from holdfast.dialects.stream_ask import StreamAskEncoder
from holdfast.errors import BadRequest, ConfigError, HoldfastError
from holdfast.events import encode
from holdfast.http.dialects import about
from holdfast.http.endpoint import Call
from holdfast.http.forms import MULTIPART, URLENCODED
from holdfast.http.operation import IDEMPOTENCY_KEY, Operation
from holdfast.http.surfaces.surface import Surface, reworded
from holdfast.runner.supervisor import Supervisor
from holdfast.settings.tables import ROUTES

KIND: Final = "anythingllm"
"""The kind of upstream that is asked unless the settings name one."""

FRAMES = (
    "Each `data` is a `chunk` with a piece of `content`; `event: error` has a `message`, if the "
    "answer ended early; `event: final_end` has `sources`, `session_id`, `message_id`, `status`."
)


class StreamAskRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A question. Fields that are not known are ignored."""

    question: str
    session_id: str | None = None
    """A session that exists; a new one without it."""


class StreamAskFailure(msgspec.Struct, frozen=True):
    """Every error's body."""

    error: str


class StreamAskRoutes(Surface):
    """The function behind the route."""

    dialect = "stream-ask"

    def __init__(self, supervisor: Supervisor) -> None:
        """Serve what `supervisor` owns.

        Raises:
            ConfigError: The upstream to be asked does not exist.
        """
        super().__init__(supervisor)
        named = self._settings.dialects.stream_ask
        if named is not None and named not in ROUTES and named not in supervisor.upstreams:
            known = ", ".join(sorted(supervisor.upstreams)) or "none"
            raise ConfigError(f"dialects.stream_ask names {named!r}; upstreams: {known}")

    async def stream_ask(self, call: Call) -> ASGIApp:
        """The answer as a stream; the question comes as JSON or in a form."""
        body = await self._body(call)
        question = self._question(
            call,
            body,
            message=body.question,
            session_id=body.session_id or None,
            upstream=self._upstream(),
        )
        run = (await self._supervisor.ask(question)).run
        return self._stream(run, StreamAskEncoder(about(run)))

    async def _body(self, call: Call) -> StreamAskRequest:
        if call.media_type not in (URLENCODED, MULTIPART):
            return await self._question_body(call, StreamAskRequest)
        limits = self._settings.limits
        fields = await call.form_body(max(limits.body_bytes, 3 * limits.question_bytes))
        try:
            return msgspec.convert(fields, StreamAskRequest)
        except msgspec.ValidationError as error:
            raise BadRequest(f"the form does not fit: {error}") from None

    def _upstream(self) -> str | None:
        """Who is asked; None: the router decides.

        Raises:
            ConfigError: The variables describe the knowledge base only in part.
        """
        named = self._settings.dialects.stream_ask
        if named is not None:
            return named
        for upstream in self._supervisor.upstreams.values():
            if upstream.kind == KIND:
                return upstream.name
        missing = self._settings.unset_variables.get(KIND)
        if missing:
            raise ConfigError(f"not set (environment or .env): {', '.join(missing)}")
        return None


def refuse(error: HoldfastError, scope: Scope) -> Response:
    """An error as `{"error": "…"}`."""
    return reworded(error, scope, encode(StreamAskFailure(error.message)), "application/json")


def operations(supervisor: Supervisor) -> list[Operation]:
    """The stream-ask surface."""
    example: dict[str, Any] = {"question": "What is a holdfast?"}
    return [
        Operation(
            "POST",
            "/stream-ask",
            StreamAskRoutes(supervisor).stream_ask,
            "stream-ask: ask the knowledge base, and stream the answer",
            body=StreamAskRequest,
            refuse=refuse,
            failure=StreamAskFailure,
            stream=True,
            frames=FRAMES,
            forms=True,
            parameters=(IDEMPOTENCY_KEY,),
            example=example,
        )
    ]
