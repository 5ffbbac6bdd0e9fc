"""Between ASGI and the routes' functions: bodies in, responses and error envelopes out.

A route's function takes a `Call` and gives back an ASGI application. Every error that it raises
becomes the same envelope, in the server and inside somebody else's application alike.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast import ids
from holdfast.errors import (
    BadRequest,
    CursorAhead,
    HoldfastError,
    MethodNotAllowed,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
)
from holdfast.events import encode
from holdfast.http.forms import MULTIPART, URLENCODED, parse_form
from holdfast.http.waiting import ClientGone
from holdfast.store.port import KeyRecord

logger = logging.getLogger(__name__)

T = TypeVar("T")
REQUEST_ID = "holdfast.request_id"
OWNER = "holdfast.owner"
KEY = "holdfast.key"
LOCAL_OWNER = "local"
"""The owner of everything while a server has no keys."""

ID_HEADERS: Final = {
    "session_id": "X-Holdfast-Session",
    "message_id": "X-Holdfast-Message",
    "run_id": "X-Holdfast-Run",
}
"""The headers with the ids of what a response is about, as far as they are known."""


class Call(Request):
    """A request with what the routes need of it."""

    @property
    def owner(self) -> str:
        """Whose request it is; set by whoever checks keys."""
        owner: str = self.scope.get(OWNER, LOCAL_OWNER)
        return owner

    @property
    def key(self) -> KeyRecord | None:
        """What it was asked with, on a server with keys; set together with the owner."""
        key: KeyRecord | None = self.scope.get(KEY)
        return key

    @property
    def request_id(self) -> str:
        """The id by which the request is found in the log."""
        return request_id(self.scope)

    @property
    def media_type(self) -> str:
        """The body's, without parameters; empty if it is not declared."""
        return self.headers.get("content-type", "").split(";", 1)[0].strip().lower()

    async def form_body(self, limit: int) -> dict[str, str]:
        """The text fields of a form.

        Raises:
            UnsupportedMediaType: The body is not declared as a form.
            TooLarge: It has more than `limit` bytes.
            BadRequest: It is none.
        """
        if self.media_type not in (URLENCODED, MULTIPART):
            raise UnsupportedMediaType("the body must be a form")
        return parse_form(self.headers["content-type"], await self._bounded_body(limit))

    async def json_body(self, kind: type[T], limit: int) -> T:
        """The JSON body as `kind`.

        Raises:
            UnsupportedMediaType: It is not declared as JSON.
            TooLarge: It has more than `limit` bytes.
            BadRequest: It is not JSON, or not of this shape; the message says where.
        """
        media = self.media_type
        if media != "application/json" and not media.endswith("+json"):
            raise UnsupportedMediaType("the body must be JSON, with Content-Type: application/json")
        body = await self._bounded_body(limit)
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError as error:
            raise BadRequest(f"the body does not fit: {error}") from None
        except RecursionError:
            raise BadRequest("the body is nested too deeply") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"the body is not JSON: {error}") from None

    async def _bounded_body(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in self.stream():
            size += len(part)
            if size > limit:
                raise TooLarge(f"the body has more than {limit} bytes")
            parts.append(part)
        return b"".join(parts)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number of the query.

        Raises:
            BadRequest: It is none, or out of bounds.
        """
        text = self.query_params.get(name)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or not low <= int(text[:10]) <= high:
            raise BadRequest(f"{name} must be a whole number from {low} to {high}")
        return int(text)


Handler: TypeAlias = Callable[[Call], Awaitable[ASGIApp]]
Refuse: TypeAlias = Callable[[HoldfastError, Scope], Response]
"""Makes the response to a request that failed."""


class Endpoint:
    """A route's function as an ASGI application."""

    def __init__(self, handler: Handler, refuse: Refuse | None = None) -> None:
        """Serve `handler`; `refuse` tells errors otherwise than by the native envelope."""
        self._handler = handler
        self._refuse = refuse or error_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            response = await self._handler(Call(scope, receive))
        except ClientGone:
            return
        except HoldfastError as error:
            response = self._refuse(error, scope)
        except HTTPException:
            raise  # by the embedding application, which has words of its own for it
        except Exception:
            logger.exception("request %s failed", request_id(scope))
            response = self._refuse(HoldfastError("internal error"), scope)
        await response(scope, receive, send)


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """`value` as JSON."""
    return Response(encode(value), status, headers, media_type="application/json")


def identified(response: Response, ids: Mapping[str, Any]) -> Response:
    """The response with headers for those of its `session_id`, `message_id` and `run_id` in `ids`.

    Args:
        response: The response.
        ids: Holdfast's own ids; None, and anything else, is left out.
    """
    for name, header in ID_HEADERS.items():
        known = ids.get(name)
        if isinstance(known, str):
            response.headers[header] = known
    return response


def error_response(error: HoldfastError, scope: Scope) -> Response:
    """The envelope of an error, with the ids that the error knows in headers."""
    detail = {
        "code": error.code,
        "message": error.message,
        "request_id": request_id(scope),
        **error.extra,
    }
    body: dict[str, Any] = {"error": detail}
    if isinstance(error, CursorAhead):
        body["message"] = error.answer
    response = json_response(body, error.status)
    if isinstance(error, MethodNotAllowed):
        response.headers["Allow"] = ", ".join(error.extra["allow"])
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Unavailable | TooManyRequests):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return identified(response, error.extra)


def request_id(scope: Scope) -> str:
    """The request's id, made on first use."""
    found: str | None = scope.get(REQUEST_ID)
    if found is None:
        found = scope[REQUEST_ID] = ids.new_id()
    return found
