"""What all surfaces do alike: take a question, stream its answer or wait for it."""

import hashlib
import re
from collections.abc import AsyncIterator
from typing import Any, ClassVar, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Scope

from holdfast.dialects.base import Encoder
from holdfast.errors import BadRequest, HoldfastError
from holdfast.events import Outcome, encode
from holdfast.http.endpoint import Call, error_response, identified, json_response
from holdfast.http.stream import EventStream, Headers, run_headers
from holdfast.http.waiting import See, run_to_end
from holdfast.runner.supervisor import Question, Supervisor
from holdfast.store.port import MessageRecord, RunRecord, SessionRecord

KEY_BYTES = 255
METADATA_BYTES = 16_000
PAGE = 100
"""How many messages are read at once."""

T = TypeVar("T")

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_canonical = msgspec.json.Encoder(order="sorted").encode


class Surface:
    """The functions behind the routes of one dialect."""

    dialect: ClassVar[str]
    """The dialect's name; session keys are unique within it."""

    def __init__(self, supervisor: Supervisor) -> None:
        """Serve what `supervisor` owns."""
        self._supervisor = supervisor
        self._settings = supervisor.settings

    async def _question_body(self, call: Call, kind: type[T]) -> T:
        """The JSON body of a request that holds a question.

        Raises:
            HoldfastError: What `Call.json_body` raises.
        """
        return await call.json_body(kind, self._question_limit)

    @property
    def _question_limit(self) -> int:
        """How large a body with a question may be, in bytes."""
        limits = self._settings.limits
        return max(limits.body_bytes, 2 * limits.question_bytes)

    def _question(
        self, call: Call, body: msgspec.Struct, *, own_key: str | None = None, **fields: Any
    ) -> Question:
        """The question that a request asks, with its owner and its idempotency key.

        Args:
            call: The request.
            body: Its body, which the key stands for.
            own_key: The key if the request has no header for it.
            **fields: Fields of `Question`.

        Raises:
            BadRequest: The key or the metadata are too long.
        """
        key = call.headers.get("idempotency-key")
        if key is not None and not 0 < len(key.encode("latin-1")) <= KEY_BYTES:
            raise BadRequest(f"an Idempotency-Key has 1 to {KEY_BYTES} bytes")
        key = own_key if key is None else key
        bound_metadata(fields.get("metadata"))
        named = {
            "owner": call.owner,
            "key": call.key,
            "dialect": self.dialect,
            "idempotency_key": key,
            "fingerprint": _fingerprint(call, body) if key is not None else None,
        }
        return Question(**{**named, **fields})

    def _stream(self, run: RunRecord, encoder: Encoder, headers: Headers = ()) -> EventStream:
        """The run from its beginning, in the words of `encoder`."""
        return EventStream(
            [(self._supervisor.read(run.id), encoder)],
            self._settings.stream,
            [*run_headers(run), *headers],
        )

    async def _wait(
        self, call: Call, run: RunRecord, see: See | None = None
    ) -> tuple[RunRecord, MessageRecord]:
        """The run and its message, once it has ended.

        Args:
            call: The request that waits.
            run: What it waits for.
            see: Is given the events.

        Raises:
            ClientGone: There is nobody left to answer.
            HoldfastError: The run cannot be read.
        """
        await run_to_end(self._supervisor.read(run.id), call.receive, see)
        run, message, _ = await self._supervisor.snapshot(call.owner, run.id)
        return run, message

    async def _named_session(self, owner: str, name: str) -> SessionRecord | None:
        """The session that the caller names; by its own id, too, as one that was begun unnamed."""
        store = self._supervisor.store
        named = await store.find_session(owner, self.dialect, name)
        return named or await store.get_session(owner, name)

    async def _pages(self, session_id: str) -> AsyncIterator[list[MessageRecord]]:
        """All messages of a session that the caller owns, oldest first, some at a time."""
        after = None
        while page := await self._supervisor.list_messages(session_id, PAGE, after):
            yield page
            after = (page[-1].turn_id, page[-1].id)


def bound_key(key: str | None, what: str = "a session_id") -> str | None:
    """The caller's own name for a session, if he gave one.

    Args:
        key: The name.
        what: What the dialect calls it.

    Raises:
        BadRequest: It is too long, or no text that can be echoed.
    """
    if not key:
        return None
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise BadRequest(f"{what} must not hold half of a surrogate pair") from None
    if size > KEY_BYTES or _CONTROLS.search(key):
        raise BadRequest(f"{what} has at most {KEY_BYTES} bytes and no control characters")
    return key


def why_early(message: MessageRecord) -> str:
    """What to say of an answer that has no text."""
    if message.error:
        return message.error
    if message.outcome != Outcome.COMPLETED:
        return f"there is no text: {message.reason or message.outcome}"
    has_reasoning, has_calls = bool(message.answer.reasoning), bool(message.answer.tool_calls)
    if has_reasoning or has_calls:
        return f"the answer has no text, only {'reasoning' if has_reasoning else 'tool calls'}"
    return "the answer is complete, but there is no text in it"


def run_response(value: Any, run: RunRecord, status: int = 200) -> Response:
    """`value` as JSON, with the ids of the run that it is about."""
    response = json_response(value, status)
    response.headers.raw.extend(run_headers(run))
    return response


def message_response(value: Any, message: MessageRecord) -> Response:
    """`value` as JSON, with the ids of the message that it is about and of the run behind it."""
    ids = {"session_id": message.session_id, "message_id": message.id, "run_id": message.run_id}
    return identified(json_response(value), ids)


def reworded(error: HoldfastError, scope: Scope, body: bytes, media_type: str) -> Response:
    """The native response to an error with another body; status and headers tell the same.

    Args:
        error: The error.
        scope: The request's.
        body: What the dialect says of it.
        media_type: What that is.
    """
    native = error_response(error, scope)
    kept = {name: text for name, text in native.headers.items() if not name.startswith("content-")}
    return Response(body, native.status_code, kept, media_type)


def bound_metadata(metadata: dict[str, Any] | None) -> None:
    """Check the size of what a caller wants to be kept with a message or session.

    Raises:
        BadRequest: It is too large.
    """
    if metadata and len(encode(metadata)) > METADATA_BYTES:
        raise BadRequest(f"metadata has more than {METADATA_BYTES} bytes")


def _fingerprint(call: Call, body: msgspec.Struct) -> str:
    """Digest of what the request asks for; how it is delivered does not count."""
    asked = msgspec.structs.replace(body, stream=True) if hasattr(body, "stream") else body
    path = call.url.path.removesuffix("/stream")
    return hashlib.sha256(path.encode() + b"\n" + _canonical(asked)).hexdigest()
