"""The server's application: the routes, the page, the protections."""

from pathlib import Path, PurePosixPath
from typing import Any

from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.errors import HoldfastError, MethodNotAllowed, NotFound
from holdfast.http.auth import KeyGate
from holdfast.http.edge import Edge
from holdfast.http.endpoint import Call, Endpoint, error_response, json_response
from holdfast.http.openapi import openapi
from holdfast.http.operation import Operation
from holdfast.http.routes import make_routes, operations
from holdfast.runner.supervisor import Supervisor

CONSOLE = Path(__file__).parent.parent / "console"

MEDIA_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
"""The files of the page by their ends; what the system knows of types is not relied on."""
PAGE_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"cache-control", b"no-cache"),  # an upgrade must not mix old files with new ones
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class Page:
    """The static files of the page, each with the page's security headers."""

    def __init__(self, folder: Path) -> None:
        """Serve `folder`."""
        self._files = StaticFiles(directory=folder, html=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one file."""
        path = scope["path"]
        suffix = PurePosixPath(path).suffix

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [pair for pair in message["headers"] if pair[0] != b"content-type"]
                media_type = (b"content-type", MEDIA_TYPES[suffix or ".html"])
                message["headers"] = [*headers, media_type, *PAGE_HEADERS]
            await send(message)

        try:
            if suffix and suffix not in MEDIA_TYPES:
                raise HTTPException(404)
            await self._files(scope, receive, send_with_headers)
        except HTTPException as error:
            refusal: HoldfastError = NotFound(f"there is nothing at {path[:200]}")
            if error.status_code == 405:
                refusal = MethodNotAllowed(f"{scope['method']} is not possible here", allow=["GET"])
            await error_response(refusal, scope)(scope, receive, send)


def make_app(supervisor: Supervisor) -> ASGIApp:
    """The server's application behind its protections.

    Whoever serves it starts and stops the supervisor. The routes stand in a plain router: every
    layer of a framework's own stack would be passed by every request, and errors have their one
    place in `Endpoint`.
    """
    table = operations(supervisor)
    routes = make_routes(table, KeyGate(supervisor.keys))
    router = Router([*routes, *page_routes(table)], default=Endpoint(not_found))
    server = supervisor.settings.server
    app: ASGIApp = router
    if server.cors_origins:
        app = CORSMiddleware(
            router,
            allow_origins=server.cors_origins,
            allow_methods=["GET", "POST", "PATCH", "PUT", "DELETE"],
            allow_headers=["*"],  # clients send headers of their own; none of them harms
            expose_headers=[
                *("X-Holdfast-Session", "X-Holdfast-Message", "X-Holdfast-Run", "X-Holdfast-Error"),
                *("Retry-After", "WWW-Authenticate", "X-Should-Retry", "X-Request-Id"),
            ],
        )
    return Edge(app, allowed_hosts=server.allowed_hosts, allowed_origins=server.cors_origins)


def page_routes(table: list[Operation]) -> list[BaseRoute]:
    """What a browser asks for: the description of the interface, and the page."""
    document = openapi(table)

    async def describe(call: Call) -> ASGIApp:
        return json_response(document)

    return [
        Route("/openapi.json", Endpoint(describe), methods=["GET"]),
        Mount("/", Page(CONSOLE), name="console"),
    ]


async def not_found(call: Call) -> ASGIApp:
    """For what no route serves."""
    raise NotFound(f"there is nothing at {call.url.path}")
