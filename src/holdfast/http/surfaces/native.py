"""The native surface: runs, sessions and messages under /api/v1."""

from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp

from holdfast import ids
from holdfast.clock import now_ms
from holdfast.dialects.base import Encoder
from holdfast.dialects.native import NativeEncoder
from holdfast.engine.cursor import Cursor, parse_cursor, parse_position
from holdfast.errors import BadRequest, Conflict, CursorAhead, NotFound
from holdfast.http import shapes
from holdfast.http.dialects import about
from holdfast.http.endpoint import Call, identified, json_response
from holdfast.http.operation import (
    AFTER,
    IDEMPOTENCY_KEY,
    LAST_EVENT_ID,
    LIMIT,
    Operation,
    Parameter,
)
from holdfast.http.stream import EventStream, run_headers
from holdfast.http.surfaces.surface import (
    Surface,
    bound_metadata,
    message_response,
    run_response,
)
from holdfast.http.waiting import run_to_end
from holdfast.runner.reader import Reader
from holdfast.runner.supervisor import Question, Supervisor
from holdfast.store.port import (
    CreateSession,
    MessageRecord,
    RunRecord,
    SessionRecord,
    SetFeedback,
    UpdateSession,
)

PAGE = 50
MAX_PAGE = 200
MAX_QUERY_CHARS = 200
TIME_DIGITS = 15

RUN_EXAMPLE = {"message": "What is a holdfast?", "stream": True}
RUN_PARAMETERS = (IDEMPOTENCY_KEY, LAST_EVENT_ID)


class NativeRoutes(Surface):
    """The functions behind the native routes."""

    dialect = "native"

    # ------------------------------------------------------------------ runs

    async def create_run(self, call: Call) -> ASGIApp:
        """Ask a question, or go on reading the run that `Last-Event-ID` names."""
        resumed = await self._resumed(call)
        if resumed is not None:
            return resumed
        body = await self._question_body(call, shapes.RunRequest)
        question = self._asked(
            call,
            body,
            message=body.message,
            session_id=body.session_id,
            preset=body.preset,
        )
        created = await self._supervisor.ask(question)
        return await self._answer(call, created.run, body.stream)

    async def regenerate(self, call: Call) -> ASGIApp:
        """Answer the same question once more; the old answer is kept as an earlier version."""
        resumed = await self._resumed(call)
        if resumed is not None:
            return resumed
        body = await call.json_body(shapes.AnswerOptions, self._settings.limits.body_bytes)
        question = self._asked(call, body, message="")
        created = await self._supervisor.regenerate(question, call.path_params["id"])
        return await self._answer(call, created.run, body.stream)

    async def edit(self, call: Call) -> ASGIApp:
        """Ask a question in other words; it and all that came after it are left out from now on."""
        resumed = await self._resumed(call)
        if resumed is not None:
            return resumed
        body = await self._question_body(call, shapes.EditRequest)
        edited = await self._supervisor.get_message(call.owner, call.path_params["id"])
        question = self._asked(
            call,
            body,
            message=body.message,
            session_id=edited.session_id,
            retire_from=edited.turn_id,
        )
        metadata = {**(body.metadata or {}), "edited_from": edited.id}
        question = msgspec.structs.replace(question, metadata=metadata)
        await self._check_editable(question, edited)
        created = await self._supervisor.ask(question)
        return await self._answer(call, created.run, body.stream)

    async def _check_editable(self, question: Question, edited: MessageRecord) -> None:
        """Pass for a question that is still part of its session, or a repeated request (P7).

        Raises:
            Conflict: It is an answer, or another edit has taken its place.
        """
        ids = {"session_id": edited.session_id, "message_id": edited.id}
        if edited.role != "user":
            raise Conflict("only a question can be edited", **ids)
        key = question.idempotency_key
        asked = key is not None and await self._supervisor.store.find_run(question.owner, key)
        if not edited.active and not asked:
            raise Conflict("this question was edited before and is left out by now", **ids)

    async def _resumed(self, call: Call) -> ASGIApp | None:
        """The rest of the run that `Last-Event-ID` names: such a request never asks (P7)."""
        last_event_id = call.headers.get("last-event-id")
        if last_event_id is None:
            return None
        cursor = parse_cursor(last_event_id)
        return await self._resume(call, await self._run(call, cursor.run_id), cursor)

    def _asked(self, call: Call, body: shapes.AnswerOptions, **more: Any) -> Question:
        return self._question(
            call,
            body,
            upstream=body.upstream,
            model=body.model,
            on_disconnect=body.on_disconnect,
            on_busy=body.on_busy,
            temperature=body.temperature,
            max_tokens=body.max_tokens,
            system=body.system,
            metadata=body.metadata,
            **more,
        )

    async def _answer(self, call: Call, run: RunRecord, stream: bool) -> ASGIApp:
        if stream:
            return self._events([(self._supervisor.read(run.id), run)], run)
        await run_to_end(self._supervisor.read(run.id), call.receive)
        return await self._snapshot(call.owner, run.id)

    async def get_run(self, call: Call) -> ASGIApp:
        """A run with its message, as far as it is written."""
        return await self._snapshot(call.owner, call.path_params["id"])

    async def _snapshot(self, owner: str, run_id: str) -> Response:
        run, message, seq = await self._supervisor.snapshot(owner, run_id)
        execution = self._supervisor.live(run_id)
        state = execution.state.value if execution is not None else None
        answer = shapes.RunAnswer(shapes.run_shape(run, seq, state), shapes.message_shape(message))
        return run_response(answer, run)

    async def get_raw(self, call: Call) -> ASGIApp:
        """What Holdfast and the upstream said to each other in a run that has ended."""
        run = await self._run(call, call.path_params["id"])
        raw = await self._supervisor.get_raw(call.owner, run.id)
        return run_response(shapes.RawShape(*raw), run)

    async def cancel_run(self, call: Call) -> ASGIApp:
        """Stop a run and keep what it has written; a run that has ended stays as it is."""
        run = await self._supervisor.cancel(call.owner, call.path_params["id"])
        return await self._snapshot(call.owner, run.id)

    async def run_events(self, call: Call) -> ASGIApp:
        """The events of a run after a cursor, live or long past."""
        run = await self._run(call, call.path_params["id"])
        return await self._resume(call, run, _position(call, run.id))

    async def _run(self, call: Call, run_id: str) -> RunRecord:
        return await self._supervisor.get_run(call.owner, run_id)

    async def _resume(self, call: Call, run: RunRecord, cursor: Cursor) -> ASGIApp:
        if await self._is_at_end(call, run, cursor):
            return _nothing(run.session_id, run)
        return self._events([(self._supervisor.read(run.id, cursor.seq), run)], run)

    async def _is_at_end(self, call: Call, run: RunRecord, cursor: Cursor) -> bool:
        """Whether nothing follows the cursor, ever.

        Raises:
            NotFound: The cursor is of another run.
            CursorAhead: It is beyond the end of the log.
        """
        if cursor.run_id != run.id:
            raise NotFound("the cursor belongs to another run")
        if run.last_seq is None:
            run = await self._run(call, run.id)  # it may have ended since it was read
        last, live = await self._supervisor.extent(run)
        if cursor.seq > last:
            snapshot = await self._supervisor.snapshot(call.owner, run.id)
            raise CursorAhead(
                f"the log of this run ends at {last}",
                shapes.message_shape(snapshot[1]),
                last_seq=last,
                session_id=run.session_id,
                message_id=run.message_id,
                run_id=run.id,
            )
        return not live and cursor.seq == last

    def _events(self, parts: list[tuple[Reader, RunRecord]], run: RunRecord) -> EventStream:
        pairs: list[tuple[Reader, Encoder]] = [
            (reader, NativeEncoder(about(part))) for reader, part in parts
        ]
        return EventStream(pairs, self._settings.stream, run_headers(run))

    # ------------------------------------------------------------------ sessions

    async def session_events(self, call: Call) -> ASGIApp:
        """Join the session's live run; the rest of the cursor's run comes first."""
        session = await self._session(call)
        parts: list[tuple[Reader, RunRecord]] = []
        text = _position_text(call)
        cursor, run = None, None
        if text is not None and text != "0":
            cursor = parse_position(text, session.live_run_id or "")
            if not cursor.run_id:  # a bare seq, and no live run to count it in
                return _nothing(session.id)
            run = await self._run(call, cursor.run_id)
            if run.session_id != session.id:
                raise NotFound("the cursor belongs to another session")
            if not await self._is_at_end(call, run, cursor):
                parts.append((self._supervisor.read(run.id, cursor.seq), run))
        live = session.live_run_id
        if live is not None and (cursor is None or cursor.run_id != live):
            parts.append((self._supervisor.read(live), await self._run(call, live)))
        if not parts:
            return _nothing(session.id, run)
        return self._events(parts, parts[-1][1])

    async def _session(self, call: Call) -> SessionRecord:
        return await self._supervisor.get_session(call.owner, call.path_params["id"])

    async def create_session(self, call: Call) -> ASGIApp:
        """An empty session."""
        body = await call.json_body(shapes.NewSessionRequest, self._settings.limits.body_bytes)
        bound_metadata(body.metadata)
        self._supervisor.presets.check(body.preset)
        at = now_ms()
        session = SessionRecord(
            ids.new_id(),
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
            UpdateSession(call.owner, call.path_params["id"], now_ms(), body.title, body.metadata)
        )
        return _session_response(await self._session(call))

    async def delete_session(self, call: Call) -> ASGIApp:
        """Erase a session with everything in it; its live run is stopped first."""
        session_id = call.path_params["id"]
        await self._supervisor.delete_session(call.owner, session_id)
        return _nothing(session_id)

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
                "at": shapes.timestamp(now_ms()),
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


def _position_text(call: Call) -> str | None:
    return call.headers.get("last-event-id") or call.query_params.get("after")


def _position(call: Call, run_id: str) -> Cursor:
    text = _position_text(call)
    return parse_position(text, run_id) if text is not None else Cursor(run_id, 0)


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


def _nothing(session_id: str, run: RunRecord | None = None) -> Response:
    response = Response(status_code=204)
    if run is not None:
        response.headers.raw.extend(run_headers(run))
        return response
    return identified(response, {"session_id": session_id})


def _session_response(session: SessionRecord, status: int = 200) -> Response:
    response = json_response(shapes.session_shape(session), status)
    return identified(response, {"session_id": session.id})


def _message_response(message: MessageRecord) -> Response:
    return message_response(shapes.message_shape(message), message)


def operations(supervisor: Supervisor) -> list[Operation]:
    """The native surface."""
    native = NativeRoutes(supervisor)
    return [
        Operation(
            "POST",
            "/api/v1/runs",
            native.create_run,
            "Ask a question; stream the answer or wait for it",
            body=shapes.RunRequest,
            answer=shapes.RunAnswer,
            stream=True,
            parameters=RUN_PARAMETERS,
            example=RUN_EXAMPLE,
        ),
        Operation(
            "GET",
            "/api/v1/runs/{id}",
            native.get_run,
            "A run with its message, as far as it is written",
            answer=shapes.RunAnswer,
        ),
        Operation(
            "GET",
            "/api/v1/runs/{id}/events",
            native.run_events,
            "The events of a run after a cursor, live or long past; 204 at its end",
            stream=True,
            parameters=(LAST_EVENT_ID, AFTER),
        ),
        Operation(
            "GET",
            "/api/v1/runs/{id}/raw",
            native.get_raw,
            "What was said on the wire in a run that has ended",
            answer=shapes.RawShape,
            scope="debug",
        ),
        Operation(
            "POST",
            "/api/v1/runs/{id}/cancel",
            native.cancel_run,
            "Stop a run and keep what it has written",
            answer=shapes.RunAnswer,
        ),
        Operation(
            "POST",
            "/api/v1/sessions",
            native.create_session,
            "Create an empty session",
            body=shapes.NewSessionRequest,
            answer=shapes.SessionShape,
            status=201,
            example={"title": "Kelp"},
        ),
        Operation(
            "GET",
            "/api/v1/sessions",
            native.list_sessions,
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
            native.get_session,
            "One session",
            answer=shapes.SessionShape,
        ),
        Operation(
            "PATCH",
            "/api/v1/sessions/{id}",
            native.update_session,
            "Rename a session or replace its metadata",
            body=shapes.SessionRequest,
            answer=shapes.SessionShape,
            example={"title": "Kelp and tides"},
        ),
        Operation(
            "DELETE",
            "/api/v1/sessions/{id}",
            native.delete_session,
            "Erase a session with everything in it",
            status=204,
        ),
        Operation(
            "GET",
            "/api/v1/sessions/{id}/events",
            native.session_events,
            "Join the session's live run; 204 if there is none",
            stream=True,
            parameters=(LAST_EVENT_ID, AFTER),
        ),
        Operation(
            "GET",
            "/api/v1/sessions/{id}/messages",
            native.list_messages,
            "A session's messages, oldest first",
            answer=shapes.MessageList,
            parameters=(LIMIT, Parameter("after", "query", "`next` of the page before.")),
        ),
        Operation(
            "GET",
            "/api/v1/messages/{id}",
            native.get_message,
            "One message, any version",
            answer=shapes.MessageShape,
        ),
        Operation(
            "PUT",
            "/api/v1/messages/{id}/feedback",
            native.set_feedback,
            "Say what you think of an answer",
            body=shapes.FeedbackRequest,
            answer=shapes.MessageShape,
            example={"rating": "up", "comment": "Just what I needed."},
        ),
        Operation(
            "POST",
            "/api/v1/messages/{id}/regenerate",
            native.regenerate,
            "Answer the same question once more; the old answer stays as a version",
            body=shapes.AnswerOptions,
            answer=shapes.RunAnswer,
            stream=True,
            parameters=RUN_PARAMETERS,
            example={"stream": True},
        ),
        Operation(
            "POST",
            "/api/v1/messages/{id}/edit",
            native.edit,
            "Ask a question in other words; it and all that came after it are left out",
            body=shapes.EditRequest,
            answer=shapes.RunAnswer,
            stream=True,
            parameters=RUN_PARAMETERS,
            example={"message": "What is kelp?", "stream": True},
        ),
        Operation(
            "GET",
            "/api/v1/upstreams",
            native.list_upstreams,
            "The upstreams a question can name, and whether they answer",
            answer=shapes.UpstreamList,
        ),
        Operation(
            "GET",
            "/api/v1/presets",
            native.list_presets,
            "The presets that a session can be created with",
            answer=shapes.PresetList,
        ),
    ]
