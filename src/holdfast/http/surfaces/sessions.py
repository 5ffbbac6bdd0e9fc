"""Sessions and messages on the native surface, and what a question can name."""

from starlette.responses import Response
from starlette.types import ASGIApp

from holdfast import ids
from holdfast.errors import BadRequest
from holdfast.http import shapes
from holdfast.http.endpoint import Call, identified, json_response
from holdfast.http.operation import LIMIT, Operation, Parameter
from holdfast.http.surfaces.surface import Surface, bound_metadata, message_response
from holdfast.runner.supervisor import Supervisor
from holdfast.store.port import (
    CreateSession,
    MessageRecord,
    SessionRecord,
    SetFeedback,
    UpdateSession,
)

PAGE = 50
MAX_PAGE = 200
MAX_QUERY_CHARS = 200
TIME_DIGITS = 15


class SessionRoutes(Surface):
    """The functions behind the routes."""

    dialect = "native"

    async def _session(self, call: Call) -> SessionRecord:
        return await self._supervisor.get_session(call.owner, call.path_params["id"])

    # ------------------------------------------------------------------ sessions

    async def create_session(self, call: Call) -> ASGIApp:
        """An empty session."""
        body = await call.json_body(shapes.NewSessionRequest, self._settings.limits.body_bytes)
        bound_metadata(body.metadata)
        self._supervisor.presets.check(body.preset)
        at = self._supervisor.now()
        session = SessionRecord(
            ids.new_id(at),
            call.owner,
            body.title,
            at,
            at,
            preset=body.preset,
            metadata=body.metadata,
        )
        await self._supervisor.commits.submit(CreateSession(session))
        return _session_response(session, 201)

    async def get_session(self, call: Call) -> ASGIApp:
        """One session."""
        return _session_response(await self._session(call))

    async def update_session(self, call: Call) -> ASGIApp:
        """Rename a session or replace its metadata."""
        body = await call.json_body(shapes.SessionRequest, self._settings.limits.body_bytes)
        bound_metadata(body.metadata)
        await self._supervisor.commits.submit(
            UpdateSession(
                call.owner,
                call.path_params["id"],
                self._supervisor.now(),
                body.title,
                body.metadata,
            )
        )
        return _session_response(await self._session(call))

    async def delete_session(self, call: Call) -> ASGIApp:
        """Erase a session with everything in it; its live run is stopped first."""
        session_id = call.path_params["id"]
        await self._supervisor.delete_session(call.owner, session_id)
        return identified(Response(status_code=204), {"session_id": session_id})

    async def list_sessions(self, call: Call) -> ASGIApp:
        """Sessions, last used first."""
        limit = call.integer("limit", PAGE, 1, MAX_PAGE)
        before = _page(call, "before")
        sessions = await self._supervisor.store.list_sessions(
            call.owner,
            limit + 1,
            (int(before[0]), before[1]) if before else None,
            _query(call),
        )
        more = sessions[limit - 1] if len(sessions) > limit else None
        return json_response(
            shapes.SessionList(
                [shapes.session_shape(session) for session in sessions[:limit]],
                f"{more.updated_at}.{more.id}" if more else None,
            )
        )

    # ------------------------------------------------------------------ messages

    async def list_messages(self, call: Call) -> ASGIApp:
        """A session's messages, oldest first, each answer in its active version."""
        session = await self._session(call)
        limit = call.integer("limit", PAGE, 1, MAX_PAGE)
        messages = await self._supervisor.list_messages(session.id, limit + 1, _page(call, "after"))
        more = messages[limit - 1] if len(messages) > limit else None
        page = shapes.MessageList(
            [shapes.message_shape(message) for message in messages[:limit]],
            f"{more.turn_id}.{more.id}" if more else None,
        )
        return identified(json_response(page), {"session_id": session.id})

    async def get_message(self, call: Call) -> ASGIApp:
        """One message, any version."""
        return _message_response(
            await self._supervisor.get_message(call.owner, call.path_params["id"])
        )

    async def set_feedback(self, call: Call) -> ASGIApp:
        """Keep what a person thinks of an answer, in place of what was said before."""
        body = await call.json_body(shapes.FeedbackRequest, self._settings.limits.body_bytes)
        message_id = call.path_params["id"]
        feedback = None
        if body.rating is not None:
            feedback = {
                "rating": body.rating,
                "comment": body.comment,
                "at": shapes.timestamp(self._supervisor.now()),
            }
        await self._supervisor.commits.submit(SetFeedback(call.owner, message_id, feedback))
        return _message_response(await self._supervisor.get_message(call.owner, message_id))

    # ------------------------------------------------------------------ upstreams and presets

    async def list_upstreams(self, call: Call) -> ASGIApp:
        """The upstreams that a question can name."""
        healths = await self._supervisor.healths()
        return json_response(
            shapes.UpstreamList(
                [
                    shapes.UpstreamShape(name, upstream.kind, healths[name].ok)
                    for name, upstream in self._supervisor.upstreams.items()
                ]
            )
        )

    async def list_presets(self, call: Call) -> ASGIApp:
        """The presets that a session can be created with."""
        presets = self._settings.presets.items()
        return json_response(
            shapes.PresetList(
                [shapes.PresetShape(name, one.upstream, one.model) for name, one in presets]
            )
        )


def _query(call: Call) -> str | None:
    text = call.query_params.get("q", "").strip()
    if len(text) > MAX_QUERY_CHARS:
        raise BadRequest(f"q has more than {MAX_QUERY_CHARS} characters")
    return text or None


def _page(call: Call, name: str) -> tuple[str, str] | None:
    text = call.query_params.get(name)
    if text is None:
        return None
    first, dot, second = text.partition(".")
    if not dot or len(text) > 200 or (name == "before" and not _is_time(first)):
        raise BadRequest(f"{name} takes the `next` of the page before")
    return first, second


def _is_time(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= TIME_DIGITS


def _session_response(session: SessionRecord, status: int = 200) -> Response:
    response = json_response(shapes.session_shape(session), status)
    return identified(response, {"session_id": session.id})


def _message_response(message: MessageRecord) -> Response:
    return message_response(shapes.message_shape(message), message)


def operations(supervisor: Supervisor) -> list[Operation]:
    """The routes of sessions and messages."""
    routes = SessionRoutes(supervisor)
    return [
        Operation(
            "POST",
            "/api/v1/sessions",
            routes.create_session,
            "Create an empty session",
            body=shapes.NewSessionRequest,
            answer=shapes.SessionShape,
            status=201,
            example={"title": "Kelp"},
        ),
        Operation(
            "GET",
            "/api/v1/sessions",
            routes.list_sessions,
            "Sessions, last used first; with `q` those that a text is in",
            answer=shapes.SessionList,
            parameters=(
                LIMIT,
                Parameter("before", "query", "`next` of the page before."),
                Parameter("q", "query", "A text in the title or in a message."),
            ),
        ),
        Operation(
            "GET",
            "/api/v1/sessions/{id}",
            routes.get_session,
            "One session",
            answer=shapes.SessionShape,
        ),
        Operation(
            "PATCH",
            "/api/v1/sessions/{id}",
            routes.update_session,
            "Rename a session or replace its metadata",
            body=shapes.SessionRequest,
            answer=shapes.SessionShape,
            example={"title": "Kelp and tides"},
        ),
        Operation(
            "DELETE",
            "/api/v1/sessions/{id}",
            routes.delete_session,
            "Erase a session with everything in it",
            status=204,
        ),
        Operation(
            "GET",
            "/api/v1/sessions/{id}/messages",
            routes.list_messages,
            "A session's messages, oldest first",
            answer=shapes.MessageList,
            parameters=(LIMIT, Parameter("after", "query", "`next` of the page before.")),
        ),
        Operation(
            "GET",
            "/api/v1/messages/{id}",
            routes.get_message,
            "One message, any version",
            answer=shapes.MessageShape,
        ),
        Operation(
            "PUT",
            "/api/v1/messages/{id}/feedback",
            routes.set_feedback,
            "Say what you think of an answer",
            body=shapes.FeedbackRequest,
            answer=shapes.MessageShape,
            example={"rating": "up", "comment": "Just what I needed."},
        ),
        Operation(
            "GET",
            "/api/v1/upstreams",
            routes.list_upstreams,
            "The upstreams a question can name, and whether they answer",
            answer=shapes.UpstreamList,
        ),
        Operation(
            "GET",
            "/api/v1/presets",
            routes.list_presets,
            "The presets that a session can be created with",
            answer=shapes.PresetList,
        ),
    ]
