"""The messages of the AI SDK: as `useChat` sends them, and as it takes them from the history."""

import hashlib
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from holdfast.dialects.ai_sdk import message_parts
from holdfast.engine.run import Status
from holdfast.errors import BadRequest
from holdfast.http.shapes import timestamp
from holdfast.http.surfaces.surface import bound_key
from holdfast.store.port import MessageRecord

DIALECT: Final = "ai-sdk"

# ---------------------------------------------------------------------------- bodies


class PartIn(msgspec.Struct, frozen=True):
    """A part of a message that is sent; only text is read."""

    type: str
    text: str = ""


class UIMessageIn(msgspec.Struct, frozen=True, kw_only=True):
    """A message as the AI SDK sends it."""

    role: str
    parts: list[PartIn]
    id: str | None = None
    metadata: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """The text of its text parts."""
        return "\n".join(part.text for part in self.parts if part.type == "text")


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True, rename={"message_id": "messageId"}):
    """What `useChat` sends: the whole chat, or its last message.

    The other members are for `body` of the transport; those that are not known are left alone.
    """

    id: str | None = None
    messages: list[msgspec.Raw] = []
    message: UIMessageIn | None = None
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: str | None = None
    upstream: str | None = None
    model: str | None = None
    preset: str | None = None
    system: str | None = None
    temperature: Annotated[float, Meta(ge=0, le=10)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    on_disconnect: Literal["continue", "cancel"] | None = None
    on_busy: Literal["reject", "cancel"] | None = None


class UIMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message as the AI SDK has it."""

    id: str
    role: str
    parts: list[dict[str, Any]]
    metadata: dict[str, Any] | None = None


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a question's metadata say of the message that it came in."""

    id: str | None = None
    metadata: dict[str, Any] | None = None


# ---------------------------------------------------------------------------- messages in


def check_chat_id(chat_id: str | None) -> None:
    """Check that a chat's id fits into the paths of the other routes.

    Raises:
        BadRequest: It does not.
    """
    if chat_id is None:
        return
    if bound_key(chat_id, "a chat's id") is None:
        raise BadRequest("a chat's id must not be empty")
    if "/" in chat_id or chat_id in (".", ".."):
        raise BadRequest('a chat\'s id has no "/" in it, and is neither "." nor ".."')


def last_message(body: ChatRequest) -> UIMessageIn | None:
    """The message that a request is about.

    Raises:
        BadRequest: It is not a message, or its id is too long.
    """
    last = body.message
    if last is None and body.messages:
        try:
            last = msgspec.json.decode(body.messages[-1], type=UIMessageIn)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"the last message does not fit: {error}") from None
    if last is not None and last.id is not None and bound_key(last.id, "a message's id") is None:
        raise BadRequest("a message's id must not be empty")
    return last


def check_question(last: UIMessageIn) -> None:
    """Check that a message is a question in words: what cannot be asked must not be lost silently.

    Raises:
        BadRequest: It is not.
    """
    if last.role != "user":
        raise BadRequest(
            "the last message must be the user's; outputs of tools cannot be taken in here"
        )
    if any(part.type == "file" for part in last.parts):
        raise BadRequest("files cannot be asked about here; send text only")


def question_key(chat_id: str | None, name: str | None, text: str | None = None) -> str | None:
    """The idempotency key of a question.

    Args:
        chat_id: The chat, if it has a name.
        name: The id that the client gave the question, if it did.
        text: What it says, if that was changed under the same id.
    """
    if chat_id is None or name is None:
        return None
    told = [chat_id, name] if text is None else [chat_id, name, text]
    return f"{DIALECT}:" + hashlib.sha256(msgspec.json.encode(told)).hexdigest()


# ---------------------------------------------------------------------------- messages out


def kept_from(message: UIMessageIn) -> dict[str, Any] | None:
    """What a question's metadata keep of the message that it came in."""
    kept = msgspec.to_builtins(Kept(message.id, message.metadata))
    return {DIALECT: kept} if kept else None


def kept_of(message: MessageRecord) -> Kept:
    """What is kept of the message that a question came in; nothing for those from elsewhere."""
    kept = (message.metadata or {}).get(DIALECT) if message.role == "user" else None
    try:
        return msgspec.convert(kept or {}, Kept)
    except msgspec.ValidationError:  # metadata are free: another surface may use the same name
        return Kept()


def shown_id(message: MessageRecord) -> str:
    """The id by which the client knows a message."""
    return kept_of(message).id or message.id


def ui_message(message: MessageRecord, chat_id: str, bare: bool) -> UIMessage:
    """A message as the AI SDK has it.

    Args:
        message: As it is stored, or so far.
        chat_id: The chat's id, as the caller knows it.
        bare: Whether an answer that is still being written comes without its parts.
    """
    if message.role != "assistant":
        text = {"type": "text", "text": message.answer.text}
        return UIMessage(shown_id(message), message.role, [text], kept_of(message).metadata)
    live = message.status == Status.STREAMING
    run = {
        "run_id": message.run_id,
        "session_id": chat_id,
        "status": message.status,
        "upstream": message.upstream,
        "model": message.model,
        "usage": message.answer.usage,
        "outcome": message.outcome,
        "reason": message.reason,
        "error": message.error,
    }
    parts = [] if live and bare else message_parts(message.answer, message.id, run, live)
    told = {
        "status": message.status,
        "created_at": timestamp(message.created_at),
        "completed_at": timestamp(message.completed_at),
        "versions": message.versions,
        "feedback": message.feedback,
    }
    metadata = {name: value for name, value in told.items() if value is not None}
    return UIMessage(message.id, message.role, parts, metadata)
