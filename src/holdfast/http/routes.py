"""The table of routes. The router, OpenAPI and the reference documentation are made from it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fastapi import APIRouter
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from holdfast.errors import MethodNotAllowed
from holdfast.http import shapes
from holdfast.http.endpoint import Call, Endpoint, Handler
from holdfast.http.native import NativeRoutes
from holdfast.http.status import StatusRoutes
from holdfast.runner.supervisor import Supervisor


class Parameter(NamedTuple):
    """A query parameter or header."""

    name: str
    place: str
    text: str


class Operation(NamedTuple):
    """One method on one path."""

    method: str
    path: str
    handler: Handler
    summary: str
    body: type | None = None
    answer: type | None = None
    status: int = 200
    stream: bool = False
    parameters: tuple[Parameter, ...] = ()
    example: Any = None


LAST_EVENT_ID = Parameter("Last-Event-ID", "header", "The id of the last event that you have.")
AFTER = Parameter("after", "query", "As Last-Event-ID, or a bare seq; the header beats it.")
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key", "header", "The same key with the same body is the same run."
)
LIMIT = Parameter("limit", "query", "How many items, 1 to 200.")

RUN_EXAMPLE = {"message": "What is a holdfast?", "stream": True}
RUN_PARAMETERS = (IDEMPOTENCY_KEY, LAST_EVENT_ID)


def operations(supervisor: Supervisor) -> list[Operation]:
    """Every operation of the server but the page's files."""
    native, status = NativeRoutes(supervisor), StatusRoutes(supervisor)
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
            body=shapes.SessionRequest,
            answer=shapes.SessionShape,
            status=201,
            example={"title": "Kelp"},
        ),
        Operation(
            "GET",
            "/api/v1/sessions",
            native.list_sessions,
            "Sessions, last used first",
            answer=shapes.SessionList,
            parameters=(LIMIT, Parameter("before", "query", "`next` of the page before.")),
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
            "GET",
            "/api/v1/upstreams",
            native.list_upstreams,
            "The upstreams a question can name, and whether they answer",
            answer=shapes.UpstreamList,
        ),
        Operation("GET", "/healthz", status.healthz, "Whether the process is alive"),
        Operation("GET", "/readyz", status.readyz, "Whether a question would be taken now"),
    ]


def make_routes(table: list[Operation]) -> list[BaseRoute]:
    """One route per path: a method that it does not have is answered by it, not by the next."""
    paths: dict[str, dict[str, Handler]] = {}
    for operation in table:
        paths.setdefault(operation.path, {})[operation.method] = operation.handler
    return [
        Route(path, Endpoint(by_method(handlers)), methods=None, name=f"holdfast:{path}")
        for path, handlers in paths.items()
    ]


def by_method(handlers: Mapping[str, Handler]) -> Handler:
    """The handler for the request's method."""

    async def handle(call: Call) -> ASGIApp:
        method = "GET" if call.method == "HEAD" and "GET" in handlers else call.method
        handler = handlers.get(method)
        if handler is None:
            raise MethodNotAllowed(f"{call.method} is not possible here", allow=sorted(handlers))
        return await handler(call)

    return handle


def make_router(table: list[Operation]) -> APIRouter:
    """The operations as a router that any FastAPI application can include."""
    router = APIRouter()
    router.routes.extend(make_routes(table))
    return router
