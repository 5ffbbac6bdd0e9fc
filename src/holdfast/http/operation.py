"""What an operation is: one method on one path, described well enough to make OpenAPI from it."""

from typing import Any, NamedTuple

from holdfast.http.endpoint import Handler, Refuse, error_response


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
    scope: str | None = "chat"
    """What a key must be allowed to do; None: anybody may call it."""
    refuse: Refuse = error_response
    """Errors in the words of the operation's dialect."""
    failure: type | None = None
    """What `refuse` makes: a JSON body, or `str` for one frame; None: the native envelope."""
    stream: bool = False
    frames: str = "SSE; each `data` is an Event."
    """What a stream consists of."""
    forms: bool = False
    """Whether the body may also be a form."""
    parameters: tuple[Parameter, ...] = ()
    example: Any = None


LAST_EVENT_ID = Parameter("Last-Event-ID", "header", "The id of the last event that you have.")
AFTER = Parameter("after", "query", "As Last-Event-ID, or a bare seq; the header beats it.")
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key", "header", "The same key with the same body is the same run."
)
LIMIT = Parameter("limit", "query", "How many items, 1 to 200.")
