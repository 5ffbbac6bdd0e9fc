"""The OpenAI surface: `/v1/chat/completions` and `/v1/models`, for the clients of that API.

Its clients send the whole conversation with every question, so Holdfast adds no history, and they
ask anew by themselves when a response has a status that looks as if it would help. Once a run
exists it would not: the same question would be asked, and kept, twice. `x-should-retry` tells
them.

As with OpenAI, a stream tells the tokens used only with `stream_options.include_usage`; an answer
in one piece always does.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from holdfast.clock import now_ms
from holdfast.dialects import openai as dialect
from holdfast.dialects.openai import OpenAIEncoder
from holdfast.engine.policy import ChatMessage
from holdfast.errors import BadRequest, HoldfastError, NotFound, Unavailable
from holdfast.events import Outcome, RunEnd
from holdfast.http.dialects import about
from holdfast.http.endpoint import (
    Call,
    error_response,
    identified,
    json_response,
    request_id,
)
from holdfast.http.operation import IDEMPOTENCY_KEY, Operation, Parameter
from holdfast.http.surfaces import openai_shapes as shapes
from holdfast.http.surfaces.surface import Surface
from holdfast.http.waiting import early_end, run_to_end
from holdfast.runner.supervisor import Question, Supervisor
from holdfast.settings.tables import ROUTES
from holdfast.store.port import RunRecord

OWN: Final = frozenset({"on_disconnect", "on_busy"})
"""Members of the body that are said to Holdfast alone."""
DELIVERY: Final = frozenset({"stream", "stream_options"})
"""Members that do not change what is asked."""
ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Roles of messages that every upstream can be told of, in Holdfast's words."""

SESSION = "X-Holdfast-Session"
ON_DISCONNECT = "X-Holdfast-On-Disconnect"
PARAMETERS = (
    IDEMPOTENCY_KEY,
    Parameter(SESSION, "header", "The session to keep the question in; a new one without it."),
    Parameter(ON_DISCONNECT, "header", "As `on_disconnect`, which beats it."),
)
EXAMPLE = {
    "model": "auto",
    "messages": [{"role": "user", "content": "What is a holdfast?"}],
    "stream": True,
}


class ModelNotFound(NotFound):
    """Nothing here has this name."""

    code = "model_not_found"


class Choice(NamedTuple):
    """What `model` chose."""

    preset: str | None = None
    upstream: str | None = None
    model: str | None = None


class _Asked(msgspec.Struct):
    """What an idempotency key stands for."""

    session: str | None
    body: dict[str, Any]


class OpenAIRoutes(Surface):
    """The functions behind the routes."""

    dialect = "openai"

    def __init__(self, supervisor: Supervisor) -> None:
        """Serve what `supervisor` owns."""
        super().__init__(supervisor)
        self._created = now_ms() // 1000

    # ------------------------------------------------------------------ asking

    async def create_chat_completion(self, call: Call) -> ASGIApp:
        """Ask a question; what is not Holdfast's own goes to the upstream as it came."""
        raw: dict[str, Any] = await self._question_body(call, dict[str, Any])
        body = _fitting(raw)
        created = await self._supervisor.ask(self._asked(call, body, raw))
        try:
            if body.stream:
                return await self._streamed(call, created.run, body.stream_options)
            return await self._whole(call, created.run)
        except HoldfastError as error:
            return _about_run(refuse(error, call.scope), created.run, retry=False)

    def _asked(self, call: Call, body: shapes.ChatRequest, raw: dict[str, Any]) -> Question:
        message, history = conversation(body.messages)
        choice = self._choose(body.model)
        session = call.headers.get(SESSION)
        asked = {name: raw[name] for name in raw if name not in DELIVERY}
        return self._question(
            call,
            _Asked(session, asked),
            message=message,
            history=history,
            chat=self._chat(raw, choice.preset),
            session_id=session,
            hidden=True,
            preset=choice.preset,
            upstream=choice.upstream,
            model=choice.model,
            on_disconnect=body.on_disconnect or _on_disconnect(call) or "cancel",
            on_busy=body.on_busy,
            temperature=body.temperature,
            max_tokens=body.max_completion_tokens or body.max_tokens,
        )

    def _chat(self, raw: dict[str, Any], name: str | None) -> dict[str, Any]:
        """The body for upstreams that speak the same API, with what a preset adds to it."""
        chat = {member: raw[member] for member in raw if member not in OWN}
        preset = self._settings.presets.get(name or "")
        if preset is None:
            return chat
        if preset.system:
            chat["messages"] = [{"role": "system", "content": preset.system}, *chat["messages"]]
        if preset.temperature is not None:
            chat.setdefault("temperature", preset.temperature)
        if preset.max_tokens is not None and "max_completion_tokens" not in chat:
            chat.setdefault("max_tokens", preset.max_tokens)
        return chat

    # ------------------------------------------------------------------ answering

    async def _streamed(
        self, call: Call, run: RunRecord, options: shapes.StreamOptions | None
    ) -> ASGIApp:
        """The stream; a run that fails at once gets the status that its clients know."""
        patience_s = self._settings.stream.heartbeat_s
        end = await early_end(self._supervisor.read(run.id), call.receive, patience_s)
        if end is not None:
            return _failed(call, run, end)
        include_usage = options is not None and bool(options.include_usage)
        encoder = OpenAIEncoder(about(run), include_usage=include_usage)
        # The cursor that looked ahead was closed in this turn: the run still has its reader.
        return self._stream(run, encoder, [_request_id(call)])

    async def _whole(self, call: Call, run: RunRecord) -> ASGIApp:
        """The answer in one piece, once it has ended."""
        end = await run_to_end(self._supervisor.read(run.id), call.receive)
        run, message, _ = await self._supervisor.snapshot(call.owner, run.id)
        answer = message.answer
        if not (end.outcome is Outcome.COMPLETED or answer.text or answer.tool_calls):
            return _failed(call, run, end)
        model = answer.model or answer.upstream or run.upstream
        response = json_response(shapes.completion(about(run), model, answer, end))
        response.headers.raw.append(_request_id(call))
        return _about_run(response, run)

    # ------------------------------------------------------------------ models

    def _choose(self, name: str | None) -> Choice:
        """What the caller means by a model.

        Raises:
            ModelNotFound: Nothing.
        """
        upstreams = self._supervisor.upstreams
        if name is None or name in ROUTES:
            return Choice(upstream=name)
        if name in self._settings.presets:
            return Choice(preset=name)
        if name in upstreams:
            return Choice(upstream=name)
        for upstream in upstreams.values():
            if upstream.model == name:
                return Choice(upstream=upstream.name, model=name)
        upstream_name, _, model = name.partition("/")
        if upstream_name in upstreams and model:
            return Choice(upstream=upstream_name, model=model)
        raise ModelNotFound(
            f"there is no model {name[:200]!r}; GET /v1/models lists those there are"
        )

    def _models(self) -> Iterator[tuple[str, str]]:
        """The names of what answers, each with its owner, the most particular first."""
        upstreams = self._supervisor.upstreams
        router = self._settings.router
        for preset in self._settings.presets:
            yield preset, "holdfast"
        for upstream in upstreams.values():
            yield upstream.name, upstream.kind
        for route, target in (("local_small", router.local), ("cloud_large", router.cloud)):
            if target is not None:
                yield route, "holdfast"
        if upstreams:
            yield "auto", "holdfast"
        for upstream in upstreams.values():
            if upstream.model is not None:
                yield upstream.model, upstream.name

    def _model(self, name: str, owner: str) -> shapes.Model:
        return shapes.Model(id=name, created=self._created, owned_by=owner)

    async def list_models(self, call: Call) -> ASGIApp:
        """What `model` can name; `upstream/model` asks an upstream for any model of its own."""
        owners: dict[str, str] = {}
        for name, owner in self._models():
            owners.setdefault(name, owner)
        models = [self._model(name, owner) for name, owner in owners.items()]
        return json_response(shapes.ModelList(data=models))

    async def get_model(self, call: Call) -> ASGIApp:
        """One thing that `model` can name."""
        name = call.path_params["id"]
        choice = self._choose(name)
        owner = choice.upstream if choice.model is not None else dict(self._models()).get(name)
        return json_response(self._model(name, owner or "holdfast"))


# ---------------------------------------------------------------------- requests


def _fitting(raw: Mapping[str, Any]) -> shapes.ChatRequest:
    """What Holdfast reads of a body.

    Raises:
        BadRequest: It is of another shape.
    """
    try:
        body = msgspec.convert(raw, shapes.ChatRequest)
    except msgspec.ValidationError as error:
        raise BadRequest(f"the body does not fit: {error}") from None
    if body.n not in (None, 1):
        raise BadRequest("only one answer can be asked for: n must be 1", param="n")
    return body


def conversation(messages: Sequence[Mapping[str, Any]]) -> tuple[str, list[ChatMessage]]:
    """The question and what was said before it, for upstreams that are told no more.

    The question is what the user said last, also where results of tools follow it; where no user
    says anything, it is the last message that holds text.

    Raises:
        BadRequest: No message holds anything.
    """
    said = [(str(message.get("role")), text_of(message.get("content"))) for message in messages]
    holding = [place for place, (_, text) in enumerate(said) if text.strip()]
    if not holding:
        raise BadRequest("the messages hold no text", param="messages")
    asked = [place for place in holding if said[place][0] == "user"] or holding
    history = [
        ChatMessage(ROLES[said[place][0]], said[place][1])
        for place in holding
        if place < asked[-1] and said[place][0] in ROLES
    ]
    return said[asked[-1]][1], history


def text_of(content: object) -> str:
    """The text of a message, which may be in parts; of one without text, what it is instead."""
    if isinstance(content, str):
        return content
    found = content if isinstance(content, list) else ()
    parts = [part for part in found if isinstance(part, dict)]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    return "\n".join(texts or [f"[{part.get('type')}]" for part in parts])


def _on_disconnect(call: Call) -> str | None:
    policy = call.headers.get(ON_DISCONNECT)
    if policy not in (None, "continue", "cancel"):
        raise BadRequest(f"{ON_DISCONNECT} is `continue` or `cancel`")
    return policy


# ---------------------------------------------------------------------- responses


def refuse(error: HoldfastError, scope: Scope) -> Response:
    """An error in OpenAI's words, with status and headers of the native one."""
    native = error_response(error, scope)
    more = dict(error.extra)
    detail = {
        "message": error.message,
        "type": dialect.error_type(error.status),
        "param": more.pop("param", None),
        "code": error.code,
        "request_id": request_id(scope),
        **more,
    }
    response = json_response({"error": detail}, native.status_code)
    for name, value in native.headers.items():
        response.headers.setdefault(name, value)
    response.headers["X-Request-Id"] = request_id(scope)
    if not isinstance(error, Unavailable) and error.status != 429:
        response.headers["X-Should-Retry"] = "false"
    return response


def _failed(call: Call, run: RunRecord, end: RunEnd) -> Response:
    """The error of a run that has nothing to show."""
    detail = {**dialect.error(end), "request_id": call.request_id}
    response = json_response({"error": detail}, dialect.status(end))
    response.headers.raw.append(_request_id(call))
    return _about_run(response, run, retry=False)


def _about_run(response: Response, run: RunRecord, *, retry: bool = True) -> Response:
    ids = {"session_id": run.session_id, "message_id": run.message_id, "run_id": run.id}
    identified(response, ids)
    if not retry:
        response.headers["X-Should-Retry"] = "false"
    return response


def _request_id(call: Call) -> tuple[bytes, bytes]:
    return b"x-request-id", call.request_id.encode()


def operations(supervisor: Supervisor) -> list[Operation]:
    """The OpenAI surface."""
    routes = OpenAIRoutes(supervisor)
    return [
        Operation(
            "POST",
            "/v1/chat/completions",
            routes.create_chat_completion,
            "Ask as a client of OpenAI does; stream the answer or wait for it",
            body=shapes.ChatRequest,
            answer=shapes.ChatCompletion,
            refuse=refuse,
            stream=True,
            parameters=PARAMETERS,
            example=EXAMPLE,
        ),
        Operation(
            "GET",
            "/v1/models",
            routes.list_models,
            "What a question can name as its model",
            answer=shapes.ModelList,
            refuse=refuse,
        ),
        Operation(
            "GET",
            "/v1/models/{id:path}",
            routes.get_model,
            "One of them",
            answer=shapes.Model,
            refuse=refuse,
        ),
    ]
