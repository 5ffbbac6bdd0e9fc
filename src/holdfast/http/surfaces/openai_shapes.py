"""The bodies of the OpenAI surface. OpenAPI is made from these classes."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from holdfast.dialects import openai
from holdfast.dialects.base import About
from holdfast.engine.fold import Answer
from holdfast.events import Outcome, Reference, RunEnd


class StreamOptions(msgspec.Struct, frozen=True):
    """What a stream is to tell besides the answer."""

    include_usage: bool | None = None


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A question as OpenAI's clients ask it.

    These are the members that Holdfast reads. All but its own two go to an upstream of kind
    `openai`, and with them everything else that the body holds, such as tools; only the model is
    the one that was chosen.
    """

    model: str | None = None
    """What answers: a preset, an upstream, `upstream/model`, the model that an upstream is set up
    with, `auto`, `local_small` or `cloud_large`."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    n: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    on_disconnect: Literal["continue", "cancel"] | None = None
    """Holdfast's own: what becomes of the answer when its reader leaves; `cancel` by default."""
    on_busy: Literal["reject", "cancel"] | None = None
    """Holdfast's own: what becomes of the answer that the session is still writing."""


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """An answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET
    annotations: list[dict[str, Any]] | UnsetType = UNSET
    references: tuple[Reference, ...] | UnsetType = UNSET


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The one choice that there is."""

    index: int = 0
    message: ChatMessage
    finish_reason: str


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer; with `status` and `error` one that ended early."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: dict[str, Any] | UnsetType = UNSET
    status: str | UnsetType = UNSET
    error: dict[str, Any] | UnsetType = UNSET


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """Something that `model` can name."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `model` can name, but `upstream/model`."""

    object: Literal["list"] = "list"
    data: list[Model]


def completion(about: About, model: str, answer: Answer, end: RunEnd) -> ChatCompletion:
    """An ended answer, whole or as far as it came.

    Args:
        about: Its run.
        model: What answered.
        answer: The answer.
        end: How it ended.
    """
    whole = end.outcome is Outcome.COMPLETED
    cited = openai.annotations(answer.references, answer.marks, len(answer.text))
    message = ChatMessage(
        content=answer.text or (None if answer.tool_calls else ""),
        reasoning_content=answer.reasoning or UNSET,
        tool_calls=openai.tool_calls(answer, about.run_id) or UNSET,
        annotations=cited or UNSET,
        references=answer.references or UNSET,
    )
    return ChatCompletion(
        id=openai.completion_id(about),
        created=about.created_at // 1000,
        model=model,
        choices=[Choice(message=message, finish_reason=openai.finish_reason(end, answer))],
        usage=openai.usage(answer.usage) if answer.usage is not None else UNSET,
        status=UNSET if whole else answer.status,
        error=UNSET if whole else openai.error(end),
    )
