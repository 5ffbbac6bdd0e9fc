"""The server's application: the routes, the page, the protections."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

import holdfast
from holdfast.http.edge import Edge
from holdfast.http.openapi import paths_and_schemas
from holdfast.http.routes import make_router, operations
from holdfast.runner.supervisor import Supervisor

CONSOLE = Path(__file__).parent.parent / "console"

PAGE_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
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

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *PAGE_HEADERS]
            await send(message)

        await self._files(scope, receive, send_with_headers)


def make_app(supervisor: Supervisor) -> FastAPI:
    """The server's FastAPI application; whoever serves it starts and stops the supervisor."""
    app = FastAPI(title="Holdfast", version=holdfast.__version__, docs_url=None, redoc_url=None)
    table = operations(supervisor)
    app.include_router(make_router(table))
    app.mount("/", Page(CONSOLE), name="console")
    plain_openapi = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain_openapi()
        paths, schemas = paths_and_schemas(table)
        document["paths"] = paths
        document["components"] = {"schemas": schemas}
        return document

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def protect(app: ASGIApp, supervisor: Supervisor) -> ASGIApp:
    """The application behind the protections of the server's edge."""
    server = supervisor.settings.server
    return Edge(app, allowed_hosts=server.allowed_hosts, allowed_origins=server.cors_origins)
