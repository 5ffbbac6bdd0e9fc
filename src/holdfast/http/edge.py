"""Protections against web pages that the user of a server without keys happens to visit.

Pure ASGI, in front of everything. A browser lets any page send requests to 127.0.0.1; what tells
them apart from the server's own page is the Host they name (DNS rebinding), and the Origin and
Sec-Fetch-Site that the browser adds to writes (cross-site request forgery).
"""

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.errors import BadRequest, Forbidden, HoldfastError
from holdfast.http.endpoint import error_response

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Edge:
    """Refuses requests that name a foreign host, and writes that come from foreign pages."""

    def __init__(
        self, app: ASGIApp, *, allowed_hosts: Iterable[str], allowed_origins: Iterable[str] = ()
    ) -> None:
        """Protect `app`.

        Args:
            app: The application behind.
            allowed_hosts: Host names without port; `*` allows all.
            allowed_origins: Origins of other sites that may write, as in the Origin header.
        """
        self._app = app
        self._hosts = frozenset(host.lower() for host in allowed_hosts)
        self._origins = frozenset(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http":
            error = self._refusal(scope)
            if error is not None:
                await error_response(error, scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> HoldfastError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if "*" not in self._hosts and _name(host) not in self._hosts:
            return BadRequest(
                f"the host {host[:200]!r} is not served here; "
                "server.allowed_hosts lists those that are"
            )
        if scope["method"] in SAFE_METHODS:
            return None
        origin = headers.get("origin")
        if origin is not None:
            own = f"{scope['scheme']}://{host}".lower()
            if origin in self._origins or origin.lower() == own:
                return None
            return Forbidden("writes from pages of other sites are refused")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return Forbidden("writes from pages of other sites are refused")
        return None


def _name(host: str) -> str:
    """The host without its port; an IPv6 address keeps its brackets."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()
