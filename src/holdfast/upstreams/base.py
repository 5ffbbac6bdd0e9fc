"""What an upstream is.

A new upstream is one file in this folder that defines a subclass of `Upstream` with its own
`Settings`, and one line in `registry.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, ClassVar, Protocol, Self, TypeAlias

import msgspec

from holdfast.engine.policy import ChatMessage
from holdfast.engine.run import UpstreamEnd
from holdfast.events import Event, Reason
from holdfast.settings import LimitSettings, Table
from holdfast.upstreams.wire.transport import Transport

Item: TypeAlias = Event | UpstreamEnd
"""What a decoder gives: events of the answer, then at most one `UpstreamEnd`."""


class Ask(msgspec.Struct, frozen=True):
    """One question as it is put to an upstream."""

    run_id: str
    session_id: str
    message_id: str
    message: str
    history: Sequence[ChatMessage] = ()
    """Earlier turns, oldest first, without the question itself."""
    system: str | None = None
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    metadata: dict[str, Any] | None = None
    conversation: str | None = None
    """The upstream's own conversation that it noted by `Sink.remember` earlier in this session."""
    chat: Mapping[str, Any] | None = None
    """The body of an OpenAI client's request: messages, tools and sampling parameters as they
    came. Who can passes it on unchanged; for everybody else `message` and `history` say it."""


class Exchange(msgspec.Struct):
    """What was said on the wire, kept with the run for people who debug.

    The upstream fills it in while it answers; secrets never go in.
    """

    request: dict[str, Any] | None = None
    response: Any = None


class Health(msgspec.Struct, frozen=True):
    """Whether an upstream answers, and the cause when it does not."""

    ok: bool
    detail: str = ""


class SourceDocument(msgspec.Struct, frozen=True):
    """A document that references name, as it is now."""

    title: str
    text: str


class Sink(Protocol):
    """Where an upstream puts its answer: the run."""

    def take(self, items: Sequence[Item]) -> UpstreamEnd | None:
        """Take a batch, as soon as it is known.

        Returns:
            None to go on; otherwise how the run ends, and nothing more is taken: the
            `UpstreamEnd` of the batch, or the limit that it broke.
        """

    def foretell(self, end: UpstreamEnd) -> None:
        """Say that the answer is whole, though more about it, such as usage, may follow.

        Whatever ends the run from here on, it ends like this.
        """

    def remember(self, conversation: str) -> None:
        """Note the upstream's own name for this session's conversation (at most 500 characters).

        It is committed like an event; later questions of the session find it in
        `Ask.conversation`.
        """

    def is_full(self) -> bool:
        """Whether too much waits to be saved; then wait for `room` before giving more."""

    async def room(self) -> None:
        """Wait until it is not full any more."""


class Upstream(ABC):
    """A service that writes answers."""

    kind: ClassVar[str]

    Settings: ClassVar[type[Table]] = Table
    """What checks the upstream's own table in the configuration file."""

    def __init__(self, name: str) -> None:
        """Keep the name that the configuration gives this upstream."""
        self.name = name

    @classmethod
    def make(cls, name: str, settings: Any, limits: LimitSettings, transport: Transport) -> Self:
        """Make one from its checked table; what a kind does not need it leaves out."""
        return cls(name)

    @property
    def model(self) -> str | None:
        """The model's name to show when a question does not choose one."""
        return None

    @property
    def asks(self) -> Mapping[str, str]:
        """The other upstreams that this one asks: keys of its table, with the names they have."""
        return {}

    def connect(self, upstreams: Mapping[str, "Upstream"]) -> None:  # noqa: B027
        """Take those that `asks` names, by the same keys; called once, when all are made."""

    async def open(self) -> None:  # noqa: B027 - most upstreams need nothing
        """Get ready; called once, on the event loop, before the first question."""

    async def close(self) -> None:  # noqa: B027
        """Let go of what `open` took."""

    @abstractmethod
    async def answer(self, ask: Ask, exchange: Exchange, sink: Sink) -> UpstreamEnd:
        """Write the answer to `ask` into `sink`, each batch as soon as it is known.

        An implementation must

        - give every character that arrived, also when the answer ends early (text held back for
          a split citation mark comes out before the end);
        - return an `UpstreamEnd` for whatever goes wrong, and raise only for its own bugs;
        - close its connection when its task is cancelled, and stop when `sink.take` says how
          the run ends, returning just that.
        """

    async def document(self, document_id: str) -> SourceDocument | None:
        """A document by the id that references have for it; None: it is not (any more) there.

        Only what references could name is given, and never more than its bounded text.
        """
        return None

    @abstractmethod
    async def check(self) -> Health:
        """Try whether it could answer now, in some seconds at most."""


class GeneratorUpstream(Upstream):
    """An upstream whose answer is an async generator of batches."""

    @abstractmethod
    def items(self, ask: Ask, exchange: Exchange) -> AsyncGenerator[Sequence[Item], None]:
        """The answer to `ask`; the batch that holds an `UpstreamEnd` is the last."""

    async def answer(self, ask: Ask, exchange: Exchange, sink: Sink) -> UpstreamEnd:
        """See `Upstream.answer`."""
        end = await pour(self.items(ask, exchange), sink)
        return end or UpstreamEnd(
            Reason.UPSTREAM_TRUNCATED, error="the upstream stopped without saying that it was done"
        )


async def pour(source: AsyncGenerator[Sequence[Item], None], sink: Sink) -> UpstreamEnd | None:
    """Give a run what a generator gives; how the run ends, if that was among it."""
    async with aclosing(source) as batches:
        async for batch in batches:
            end = sink.take(batch)
            if end is not None:
                return end
            if sink.is_full():
                await sink.room()
    return None
