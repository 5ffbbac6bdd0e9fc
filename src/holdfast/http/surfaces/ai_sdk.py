"""The AI SDK surface: what `useChat` calls, under /api/chat.

A chat's id is the caller's own name for a session. The client makes up the ids of its questions;
each is kept with its question, so that the history has it, and is the question's idempotency key
within its chat.
"""

from typing import Final

import msgspec
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Scope

from holdfast.dialects.ai_sdk import AiSdkEncoder
from holdfast.errors import BadRequest, HoldfastError, IdempotencyMismatch, NotFound, RunActive
from holdfast.http.dialects import about
from holdfast.http.endpoint import Call, error_response, identified, json_response
from holdfast.http.operation import IDEMPOTENCY_KEY, Operation, Parameter
from holdfast.http.stream import Headers
from holdfast.http.surfaces.ai_sdk_shapes import (
    DIALECT,
    ChatRequest,
    UIMessage,
    UIMessageIn,
    check_chat_id,
    check_question,
    kept_from,
    last_message,
    question_key,
    shown_id,
    ui_message,
)
from holdfast.http.surfaces.surface import Surface
from holdfast.runner.supervisor import Question, Supervisor
from holdfast.store.port import MessageRecord, RunCreated, RunRecord, SessionRecord

STREAM_HEADERS: Final[Headers] = ((b"x-vercel-ai-ui-message-stream", b"v1"),)

BODY_BYTES: Final = 8_000_000
"""By default `useChat` sends the whole chat with each question; only the last message is read."""
PAGE: Final = 200
MAX_HISTORY: Final = 1_000

EXAMPLE: Final = {
    "id": "chat-1",
    "messages": [
        {
            "id": "question-1",
            "role": "user",
            "parts": [{"type": "text", "text": "What is a holdfast?"}],
        }
    ],
    "trigger": "submit-message",
}


# ---------------------------------------------------------------------------- routes


class AiSdkRoutes(Surface):
    """The functions behind the routes of the AI SDK."""

    dialect = DIALECT

    async def ai_sdk_chat(self, call: Call) -> ASGIApp:
        """Ask the last message's question, or answer one once more; stream the answer."""
        body = await call.json_body(ChatRequest, max(BODY_BYTES, self._question_limit))
        check_chat_id(body.id)
        last = last_message(body)
        if body.trigger == "regenerate-message":
            created = await self._regenerate(call, body, last)
        else:
            created = await self._submit(call, body, last)
        return self._answer(created.run, body.id)

    async def _submit(self, call: Call, body: ChatRequest, last: UIMessageIn | None) -> RunCreated:
        if last is None:
            raise BadRequest("there is no message in the body")
        check_question(last)
        # Neither the chat around it nor how it came to be sent makes it another question.
        told = msgspec.structs.replace(body, trigger="submit-message", message_id=None)
        name = last.id
        question = self._asked(call, told, last, question_key(body.id, name))
        try:
            return await self._supervisor.ask(question)
        except IdempotencyMismatch:
            if name is None or body.message_id != name or "idempotency-key" in call.headers:
                raise
        # The client has edited a question, which keeps its id.
        edited = self._asked(call, told, last, question_key(body.id, name, last.text))
        return await self._supervisor.ask(edited)

    async def _regenerate(
        self, call: Call, body: ChatRequest, last: UIMessageIn | None
    ) -> RunCreated:
        session = await self._named_session(call.owner, body.id) if body.id is not None else None
        answer = await self._answer_meant(session, body, last) if session is not None else None
        if answer is not None:
            question = self._asked(call, body, last or UIMessageIn(role="user", parts=[]), None)
            return await self._supervisor.regenerate(question, answer)
        if last is None:
            raise NotFound("there is no such message in this chat")
        return await self._submit(call, body, last)  # it never came here before

    async def _answer_meant(
        self, session: SessionRecord, body: ChatRequest, last: UIMessageIn | None
    ) -> str | None:
        """The id of the answer that is to be made anew: by its own id or by its question's."""
        shown = await self._shown(session)
        answers = {one.turn_id: one.id for one in shown if one.role == "assistant"}
        names = [body.message_id, last.id if last is not None else None]
        for name in names:
            for message in reversed(shown) if name is not None else ():
                if name in (shown_id(message), *message.versions):
                    return answers.get(message.turn_id)
        return None if any(names) else next(reversed(answers.values()), None)

    def _asked(
        self, call: Call, body: ChatRequest, last: UIMessageIn, own_key: str | None
    ) -> Question:
        alone = msgspec.structs.replace(last, metadata=None)
        return self._question(
            call,
            msgspec.structs.replace(body, messages=[], message=alone),
            own_key=own_key,
            message=last.text,
            session_key=body.id,
            metadata=kept_from(last),
            upstream=body.upstream,
            model=body.model,
            preset=body.preset,
            system=body.system,
            temperature=body.temperature,
            max_tokens=body.max_tokens,
            on_disconnect=body.on_disconnect,
            on_busy=body.on_busy,
        )

    def _answer(self, run: RunRecord, chat_id: str | None) -> ASGIApp:
        return self._stream(run, AiSdkEncoder(about(run, chat_id)), STREAM_HEADERS)

    async def ai_sdk_resume(self, call: Call) -> ASGIApp:
        """The answer that is being written, from its beginning; 204 if there is none."""
        chat_id = call.path_params["id"]
        session = await self._named_session(call.owner, chat_id)
        run = await self._run_of(call.owner, session, call.query_params.get("message"))
        if run is None:
            run = await self._live_run(call.owner, session)
        return self._answer(run, chat_id) if run is not None else _nothing(session)

    async def ai_sdk_stop(self, call: Call) -> ASGIApp:
        """Stop the answer that is being written and keep what there is of it."""
        session = await self._named_session(call.owner, call.path_params["id"])
        response = _nothing(session)
        run = await self._live_run(call.owner, session)
        if run is not None:
            await self._supervisor.cancel(call.owner, run.id)
            identified(response, {"message_id": run.message_id, "run_id": run.id})
        return response

    async def ai_sdk_messages(self, call: Call) -> ASGIApp:
        """The chat as `useChat` takes it; a chat that is not known has no messages."""
        limit = call.integer("limit", MAX_HISTORY, 1, MAX_HISTORY)
        bare = call.query_params.get("resume", "") in ("1", "true")
        chat_id = call.path_params["id"]
        session = await self._named_session(call.owner, chat_id)
        shown = await self._shown(session) if session is not None else []
        response = json_response([ui_message(one, chat_id, bare) for one in shown[-limit:]])
        return identified(response, _ids(session))

    # ------------------------------------------------------------------ chats

    async def _live_run(self, owner: str, session: SessionRecord | None) -> RunRecord | None:
        if session is None or session.live_run_id is None:
            return None
        return await self._supervisor.get_run(owner, session.live_run_id)

    async def _run_of(
        self, owner: str, session: SessionRecord | None, message_id: str | None
    ) -> RunRecord | None:
        """The run of an answer in this chat, whether or not it has ended."""
        if session is None or message_id is None:
            return None
        message = await self._supervisor.store.get_message(owner, message_id)
        if message is None or message.session_id != session.id or message.run_id is None:
            return None
        return await self._supervisor.get_run(owner, message.run_id)

    async def _shown(self, session: SessionRecord) -> list[MessageRecord]:
        """The chat as its client has it: a question that was edited replaces what came after it."""
        shown: list[MessageRecord] = []
        places: dict[str, int] = {}
        after: tuple[str, str] | None = None
        while True:
            page = await self._supervisor.list_messages(session.id, PAGE, after)
            for message in page:
                name = shown_id(message)
                place = places.get(name, len(shown))
                if place < len(shown) and shown_id(shown[place]) == name:
                    del shown[place:]
                places[name] = len(shown)
                shown.append(message)
            if len(page) < PAGE:
                return shown
            if len(shown) > 2 * MAX_HISTORY:
                del shown[:-MAX_HISTORY]
                places = {shown_id(message): place for place, message in enumerate(shown)}
            after = (page[-1].turn_id, page[-1].id)


def _ids(session: SessionRecord | None) -> dict[str, str]:
    return {} if session is None else {"session_id": session.id}


def _nothing(session: SessionRecord | None) -> Response:
    return identified(Response(status_code=204), _ids(session))


def refuse(error: HoldfastError, scope: Scope) -> Response:
    """An error in plain words: `useChat` shows people the body as it is."""
    response = error_response(error, scope)
    headers = dict(response.headers)
    del headers["content-length"], headers["content-type"]
    headers["x-holdfast-error"] = error.code
    message = error.message
    if isinstance(error, RunActive):
        message = "an answer is still being written in this chat; stop it or wait for its end"
    return PlainTextResponse(message[:1].upper() + message[1:], error.status, headers)


def operations(supervisor: Supervisor) -> list[Operation]:
    """The AI SDK surface."""
    routes = AiSdkRoutes(supervisor)
    return [
        Operation(
            "POST",
            "/api/chat",
            routes.ai_sdk_chat,
            "useChat: ask a question and stream the answer",
            body=ChatRequest,
            refuse=refuse,
            stream=True,
            parameters=(IDEMPOTENCY_KEY,),
            example=EXAMPLE,
        ),
        Operation(
            "GET",
            "/api/chat/{id}/stream",
            routes.ai_sdk_resume,
            "useChat: the answer that is being written, from its beginning; 204 if there is none",
            refuse=refuse,
            stream=True,
            parameters=(
                Parameter(
                    "message",
                    "query",
                    "An answer that the page has a part of; it is given even if it has ended.",
                ),
            ),
        ),
        Operation(
            "POST",
            "/api/chat/{id}/stop",
            routes.ai_sdk_stop,
            "Stop the answer that is being written and keep what there is of it",
            status=204,
            refuse=refuse,
        ),
        Operation(
            "GET",
            "/api/chat/{id}/messages",
            routes.ai_sdk_messages,
            "The chat as useChat takes it in `messages`",
            answer=list[UIMessage],
            refuse=refuse,
            parameters=(
                Parameter("limit", "query", f"How many messages, 1 to {MAX_HISTORY}; the last."),
                Parameter(
                    "resume",
                    "query",
                    "1: an answer that is being written comes without its parts. For `ai` before "
                    "6.0.250, which adds the parts of a resumed stream to those that it has.",
                ),
            ),
        ),
    ]
