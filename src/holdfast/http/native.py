"""The native surface: runs, sessions and messages under /api/v1."""

import hashlib
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp

from holdfast import ids
from holdfast.clock import now_ms
from holdfast.dialects.base import Encoder
from holdfast.dialects.native import NativeEncoder
from holdfast.engine.cursor import Cursor, parse_cursor, parse_position
from holdfast.errors import BadRequest, CursorAhead, NotFound
from holdfast.events import encode
from holdfast.http import shapes
from holdfast.http.endpoint import Call, json_response
from holdfast.http.stream import EventStream, run_headers
from holdfast.http.waiting import run_to_end
from holdfast.runner.reader import Reader
from holdfast.runner.supervisor import Question, Supervisor
from holdfast.store.port import CreateSession, RunRecord, SessionRecord, UpdateSession

KEY_BYTES = 255
PAGE = 50
MAX_PAGE = 200
TIME_DIGITS = 15

_canonical = msgspec.json.Encoder(order="sorted").encode


class NativeRoutes:
    """The functions behind the native routes."""

    def __init__(self, supervisor: Supervisor) -> None:
        """Serve what `supervisor` owns."""
        self._supervisor = supervisor
        self._settings = supervisor.settings

    # ------------------------------------------------------------------ runs

    async def create_run(self, call: Call) -> ASGIApp:
        """Ask a question, or go on reading the run that `Last-Event-ID` names."""
        resumed = await self._resumed(call)
        if resumed is not None:
            return resumed
        limits = self._settings.limits
        body = await call.json_body(
            shapes.RunRequest, max(limits.body_bytes, 2 * limits.question_bytes)
        )
        question = self._question(call, body, message=body.message, session_id=body.session_id)
        created = await self._supervisor.ask(question)
        return await self._answer(call, created.run, body.stream)

    async def regenerate(self, call: Call) -> ASGIApp:
        """Answer the same question once more; the old answer is kept as an earlier version."""
        resumed = await self._resumed(call)
        if resumed is not None:
            return resumed
        body = await call.json_body(shapes.AnswerOptions, self._settings.limits.body_bytes)
        question = self._question(call, body, message="")
        created = await self._supervisor.regenerate(question, call.path_params["id"])
        return await self._answer(call, created.run, body.stream)

    async def _resumed(self, call: Call) -> ASGIApp | None:
        """The rest of the run that `Last-Event-ID` names: such a request never asks (P7)."""
        last_event_id = call.headers.get("last-event-id")
        if last_event_id is None:
            return None
        cursor = parse_cursor(last_event_id)
        return await self._resume(call, await self._run(call, cursor.run_id), cursor)

    def _question(self, call: Call, body: shapes.AnswerOptions, **more: Any) -> Question:
        key = call.headers.get("idempotency-key")
        if key is not None and not 0 < len(key.encode("latin-1")) <= KEY_BYTES:
            raise BadRequest(f"an Idempotency-Key has 1 to {KEY_BYTES} bytes")
        _bound_metadata(body.metadata)
        return Question(
            owner=call.owner,
            idempotency_key=key,
            fingerprint=_fingerprint(call, body) if key is not None else None,
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
            return self._stream([(self._supervisor.read(run.id), run)], run)
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
        response = json_response(answer)
        response.headers.raw.extend(run_headers(run))
        return response

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
            return Response(status_code=204, headers=_text_headers(run))
        return self._stream([(self._supervisor.read(run.id, cursor.seq), run)], run)

    async def _is_at_end(self, call: Call, run: RunRecord, cursor: Cursor) -> bool:
        """Whether nothing follows the cursor, ever.

        Raises:
            NotFound: The cursor is of another run.
            CursorAhead: It is beyond the end of the log.
        """
        if cursor.run_id != run.id:
            raise NotFound("the cursor belongs to another run")
        execution = self._supervisor.live(run.id)
        last = run.last_seq
        if execution is not None:
            last = execution.log.saved_seq
        elif last is None:
            run = await self._run(call, run.id)  # it ended since it was read
            last = run.last_seq or 0
        if cursor.seq > last:
            snapshot = await self._supervisor.snapshot(call.owner, run.id)
            raise CursorAhead(
                f"the log of this run ends at {last}",
                shapes.message_shape(snapshot[1]),
                last_seq=last,
            )
        return execution is None and cursor.seq == last

    def _stream(self, parts: list[tuple[Reader, RunRecord]], run: RunRecord) -> EventStream:
        pairs: list[tuple[Reader, Encoder]] = [
            (reader, NativeEncoder(part.id)) for reader, part in parts
        ]
        return EventStream(pairs, self._settings.stream, run_headers(run))

    # ------------------------------------------------------------------ sessions

    async def session_events(self, call: Call) -> ASGIApp:
        """Join the session's live run; the rest of the cursor's run comes first."""
        session = await self._session(call)
        parts: list[tuple[Reader, RunRecord]] = []
        text = _position_text(call)
        cursor = None
        if text is not None and text != "0":
            cursor = parse_position(text, session.live_run_id or "")
            if not cursor.run_id:
                return Response(status_code=204)  # a bare seq, and no live run to count it in
            run = await self._run(call, cursor.run_id)
            if run.session_id != session.id:
                raise NotFound("the cursor belongs to another session")
            if not await self._is_at_end(call, run, cursor):
                parts.append((self._supervisor.read(run.id, cursor.seq), run))
        live = session.live_run_id
        if live is not None and (cursor is None or cursor.run_id != live):
            parts.append((self._supervisor.read(live), await self._run(call, live)))
        if not parts:
            return Response(status_code=204)
        return self._stream(parts, parts[-1][1])

    async def _session(self, call: Call) -> SessionRecord:
        return await self._supervisor.get_session(call.owner, call.path_params["id"])

    async def create_session(self, call: Call) -> ASGIApp:
        """An empty session."""
        body = await call.json_body(shapes.SessionRequest, self._settings.limits.body_bytes)
        _bound_metadata(body.metadata)
        at = now_ms()
        session = SessionRecord(
            ids.new_id(), call.owner, body.title, at, at, metadata=body.metadata
        )
        await self._supervisor.commits.submit(CreateSession(session))
        return json_response(shapes.session_shape(session), 201)

    async def get_session(self, call: Call) -> ASGIApp:
        """One session."""
        return json_response(shapes.session_shape(await self._session(call)))

    async def update_session(self, call: Call) -> ASGIApp:
        """Rename a session or replace its metadata."""
        body = await call.json_body(shapes.SessionRequest, self._settings.limits.body_bytes)
        _bound_metadata(body.metadata)
        await self._supervisor.commits.submit(
            UpdateSession(call.owner, call.path_params["id"], now_ms(), body.title, body.metadata)
        )
        return json_response(shapes.session_shape(await self._session(call)))

    async def delete_session(self, call: Call) -> ASGIApp:
        """Erase a session with everything in it; its live run is stopped first."""
        await self._supervisor.delete_session(call.owner, call.path_params["id"])
        return Response(status_code=204)

    async def list_sessions(self, call: Call) -> ASGIApp:
        """Sessions, last used first."""
        limit = call.integer("limit", PAGE, 1, MAX_PAGE)
        before = _page(call, "before")
        sessions = await self._supervisor.store.list_sessions(
            call.owner, limit + 1, (int(before[0]), before[1]) if before else None
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
        return json_response(
            shapes.MessageList(
                [shapes.message_shape(message) for message in messages[:limit]],
                f"{more.turn_id}.{more.id}" if more else None,
            )
        )

    async def get_message(self, call: Call) -> ASGIApp:
        """One message, any version."""
        message = await self._supervisor.get_message(call.owner, call.path_params["id"])
        return json_response(shapes.message_shape(message))

    # ------------------------------------------------------------------ upstreams

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


def _bound_metadata(metadata: dict[str, Any] | None) -> None:
    if metadata and len(encode(metadata)) > shapes.METADATA_BYTES:
        raise BadRequest(f"metadata has more than {shapes.METADATA_BYTES} bytes")


def _fingerprint(call: Call, body: shapes.AnswerOptions) -> str:
    """Digest of what the request asks for; how it is delivered does not count."""
    asked = msgspec.structs.replace(body, stream=True)
    return hashlib.sha256(call.url.path.encode() + b"\n" + _canonical(asked)).hexdigest()


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


def _text_headers(run: RunRecord) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in run_headers(run)}
