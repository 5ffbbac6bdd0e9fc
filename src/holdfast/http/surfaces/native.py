"""The native surface under /api/v1: runs and their events; `sessions` has the rest of it."""

from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp

from holdfast.dialects.base import Encoder
from holdfast.dialects.native import NativeEncoder
from holdfast.engine.cursor import Cursor, parse_cursor, parse_position
from holdfast.errors import Conflict, CursorAhead, NotFound
from holdfast.http import shapes
from holdfast.http.dialects import about
from holdfast.http.endpoint import Call, identified
from holdfast.http.operation import (
    AFTER,
    IDEMPOTENCY_KEY,
    LAST_EVENT_ID,
    Operation,
)
from holdfast.http.stream import EventStream, run_headers
from holdfast.http.surfaces import sessions
from holdfast.http.surfaces.surface import (
    Surface,
    run_response,
)
from holdfast.http.waiting import run_to_end
from holdfast.runner.reader import Reader
from holdfast.runner.supervisor import Question, Supervisor
from holdfast.store.port import (
    MessageRecord,
    RunRecord,
    SessionRecord,
)

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


def _position_text(call: Call) -> str | None:
    return call.headers.get("last-event-id") or call.query_params.get("after")


def _position(call: Call, run_id: str) -> Cursor:
    text = _position_text(call)
    return parse_position(text, run_id) if text is not None else Cursor(run_id, 0)


def _nothing(session_id: str, run: RunRecord | None = None) -> Response:
    response = Response(status_code=204)
    if run is not None:
        response.headers.raw.extend(run_headers(run))
        return response
    return identified(response, {"session_id": session_id})


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
            "GET",
            "/api/v1/sessions/{id}/events",
            native.session_events,
            "Join the session's live run; 204 if there is none",
            stream=True,
            parameters=(LAST_EVENT_ID, AFTER),
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
        *sessions.operations(supervisor),
    ]
