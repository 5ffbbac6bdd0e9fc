"""The errors that Holdfast raises, split by whose fault they are.

HoldfastError
  +-- RequestError          the caller asked for something that cannot be
  |     +-- BadRequest              400  malformed body, parameter or cursor
  |     +-- Unauthorized            401  no key, or one that is not valid
  |     +-- Forbidden               403  refused by the server's edge, or not in the key's scopes
  |     +-- NotFound                404  not there, or not yours
  |     +-- MethodNotAllowed        405  the path has no such method
  |     +-- RunActive               409  the session's run is still live
  |     +-- Conflict                409  the thing is in another state than the request needs
  |     +-- CursorAhead             410  a cursor beyond the end of the log
  |     +-- TooLarge                413  body or question over its limit
  |     +-- UnsupportedMediaType    415  a JSON route without a JSON body
  |     +-- IdempotencyMismatch     422  the same key with another request
  |     +-- TooManyRequests         429  the key has reached a limit (Retry-After)
  +-- Unavailable           503  try again later (Retry-After)
  |     +-- StoreUnavailable        the store does not answer or takes no writes
  |     +-- Fenced                  this node has lost its claim to write
  |     +-- Draining                the node is shutting down
  +-- UpstreamError         the service that writes the answer failed; carries a Reason
  +-- StoreError            one write that this store will never take
  +-- StoreLocked           another process has the database file open
  +-- ConfigError           settings that cannot work
  +-- LocalProtocolError    a bug in Holdfast itself

`status`, `code` and the message are what HTTP clients see; `extra` holds further members of the
error object, such as the id of the live run.
"""

from typing import Any, ClassVar

from holdfast.events import Reason


class HoldfastError(Exception):
    """Base of everything that Holdfast raises on purpose."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, **extra: Any) -> None:
        """Keep the message and the further members of the error object."""
        super().__init__(message)
        self.message = message
        self.extra = extra


class RequestError(HoldfastError):
    """The caller's fault."""

    status = 400
    code = "bad_request"


class BadRequest(RequestError):
    """Malformed body, parameter or cursor."""


class Unauthorized(RequestError):
    """No key, or one that is not valid."""

    status = 401
    code = "unauthorized"


class Forbidden(RequestError):
    """Refused by the protections of the server's edge, or not within the key's scopes."""

    status = 403
    code = "forbidden"


class NotFound(RequestError):
    """Not there, or not the caller's."""

    status = 404
    code = "not_found"


class MethodNotAllowed(RequestError):
    """The path has no such method; `extra["allow"]` lists those that it has."""

    status = 405
    code = "method_not_allowed"


class Conflict(RequestError):
    """The thing is in another state than the request needs."""

    status = 409
    code = "conflict"


class RunActive(Conflict):
    """The session's run is still live; `extra["run_id"]` names it."""

    code = "run_active"


class CursorAhead(RequestError):
    """A cursor beyond the end of the log; `answer` holds the message as it is."""

    status = 410
    code = "cursor_ahead"

    def __init__(self, message: str, answer: Any, **extra: Any) -> None:
        """Keep what there is, so that the client can start from it."""
        super().__init__(message, **extra)
        self.answer = answer


class TooLarge(RequestError):
    """Body or question over its limit."""

    status = 413
    code = "too_large"


class UnsupportedMediaType(RequestError):
    """A JSON route without a JSON body."""

    status = 415
    code = "unsupported_media_type"


class IdempotencyMismatch(RequestError):
    """The same Idempotency-Key with another request."""

    status = 422
    code = "idempotency_mismatch"


class TooManyRequests(RequestError):
    """The key has reached a limit; `extra["retry_after_s"]` says when to try again."""

    status = 429
    code = "too_many_requests"

    @property
    def retry_after_s(self) -> int:
        """How long to wait, in whole seconds."""
        return int(self.extra.get("retry_after_s", 1))


class Unavailable(HoldfastError):
    """Try again later."""

    status = 503
    code = "unavailable"
    retry_after_s = 5


class StoreUnavailable(Unavailable):
    """The store does not answer or takes no writes at the moment.

    Attributes:
        uncertain: Whether what was to be written may be written all the same: the connection was
            lost before the answer came.
    """

    code = "store_unavailable"
    uncertain = False


class Fenced(Unavailable):
    """This node's lease ran out and another node ended its runs; it must join again."""

    code = "fenced"
    retry_after_s = 1


class Draining(Unavailable):
    """This node is shutting down and takes no more questions."""

    code = "draining"


class UpstreamError(HoldfastError):
    """The service that writes the answer failed."""

    status = 502
    code = "upstream_error"

    def __init__(self, reason: Reason, message: str, **extra: Any) -> None:
        """Keep the reason that the run will end with."""
        super().__init__(message, **extra)
        self.reason = reason


class StoreError(HoldfastError):
    """One write that this store will never take; other writes are not affected."""

    code = "store_error"


class StoreLocked(HoldfastError):
    """Another process has the database file open."""

    code = "store_locked"


class ConfigError(HoldfastError):
    """Settings that cannot work; the message says which and why."""

    code = "config_error"


class LocalProtocolError(HoldfastError):
    """A bug in Holdfast itself: a step that the run table does not allow."""

    code = "internal_error"
