"""The client for programs with an event loop; the other one is made from it."""

from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias, TypedDict, TypeVar, Unpack

from holdfast.client._http import Request, Transport
from holdfast.client._reading import Policy, Reading
from holdfast.client._stream import AsyncAnswerStream
from holdfast.engine.cursor import Cursor, parse_cursor
from holdfast.http.shapes import (
    MessageList,
    MessageShape,
    PresetList,
    PresetShape,
    RunAnswer,
    SessionList,
    SessionShape,
    UpstreamList,
    UpstreamShape,
)
from holdfast.ids import new_id

DEFAULT_URL: Final = "http://127.0.0.1:8484"

_BODY: Final = frozenset({"message", "session_id", "preset"})

Json: TypeAlias = dict[str, Any]
T = TypeVar("T")


class AnswerOptions(TypedDict, total=False):
    """How an answer is to be made; what is left out is the server's to decide."""

    idempotency_key: str
    """Makes asking again the same run, also by another client (default: a new one)."""
    upstream: str | None
    """Who answers: an upstream, `local_small`, `cloud_large` or `auto`."""
    model: str | None
    """Which model of it."""
    on_disconnect: Literal["continue", "cancel"] | None
    """Whether the run goes on when nobody reads any more."""
    on_busy: Literal["reject", "cancel"] | None
    """What becomes of the run that the session may still have."""
    metadata: Json | None
    """An object of yours, kept with the question."""
    temperature: float | None
    max_tokens: int | None
    system: str | None
    """The system prompt."""


class AsyncClient:
    """Speaks to one Holdfast server. Close it, or use it as an async context manager.

    Streams of answers are read over as many connections as it takes. Everything else is tried
    once: where it fails, that is told at once.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        patience_s: float = 120.0,
        silence_s: float = 45.0,
        wait_for_server: bool = False,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        """Keep where the server is and how patient to be.

        Args:
            url: The server's address.
            api_key: A key of the server, if it wants one.
            patience_s: How long to try again without one new event before giving up. A server
                that restarts (502, 503, 504) is waited for from the first try on.
            silence_s: How long a stream may be silent before it counts as broken; more than the
                server's heartbeat.
            wait_for_server: Wait as long for a server that was not there yet. By default that
                nobody listens at `url` is told at once: it may be the wrong address.
            on_wait: Called with the cause whenever a connection broke, before the next try.

        Raises:
            ConfigError: `url` is not the address of a server, or `api_key` cannot be a key.
        """
        self._transport = Transport(url, api_key, silence_s)
        self._policy = Policy(patience_s, wait_for_server, on_wait)

    async def __aenter__(self) -> Self:
        """Nothing is opened before it is needed."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Close all connections. What becomes of a live run is the server's policy."""
        await self._transport.close()

    # ------------------------------------------------------------------ answers

    def ask(
        self,
        message: str,
        *,
        session: str | None = None,
        preset: str | None = None,
        **options: Unpack[AnswerOptions],
    ) -> AsyncAnswerStream:
        """Ask a question, in `session` or in a new one; the answer as it comes.

        Args:
            message: The question.
            session: The id of the session to ask in; None begins one.
            preset: A named configuration, for this question and those that follow in a session
                that it begins.
            **options: See `AnswerOptions`.
        """
        more = {"session_id": session, "preset": preset}
        return self._asked(("runs",), {"message": message, **more, **options})

    def regenerate(self, message_id: str, **options: Unpack[AnswerOptions]) -> AsyncAnswerStream:
        """Answer the question of an answer once more; the old answer stays as a version."""
        return self._asked(("messages", message_id, "regenerate"), {**options})

    def edit(
        self, question_id: str, message: str, **options: Unpack[AnswerOptions]
    ) -> AsyncAnswerStream:
        """Ask a question in other words; it and all that came after it are left out from now on."""
        return self._asked(("messages", question_id, "edit"), {"message": message, **options})

    def resume(self, cursor: str) -> AsyncAnswerStream:
        """Go on reading a run after `cursor`, or from its beginning if that is a run's id.

        Raises:
            BadRequest: It can be neither.
        """
        start = parse_cursor(cursor) if "." in cursor else Cursor(cursor, 0)
        return self._stream(Reading(self._transport, self._policy, cursor=start))

    def follow(self, session: str) -> AsyncAnswerStream:
        """Join the live run of a session, from its first event; nothing comes if there is none."""
        opening = Request("GET", ("sessions", session, "events"))
        return self._stream(Reading(self._transport, self._policy, opening))

    async def cancel(self, run_id: str) -> RunAnswer:
        """Stop a run and keep what it has written; one that has ended stays as it is."""
        return await self._call(RunAnswer, "POST", "runs", run_id, "cancel", body={})

    async def run(self, run_id: str) -> RunAnswer:
        """A run with its message, as far as it is written."""
        return await self._get(RunAnswer, "runs", run_id)

    def _asked(self, path: tuple[str, ...], given: Json) -> AsyncAnswerStream:
        unknown = given.keys() - _BODY - AnswerOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"there is no option {', '.join(sorted(unknown))}")
        headers = {"Idempotency-Key": given.pop("idempotency_key", None) or new_id()}
        body = {name: value for name, value in given.items() if value is not None}
        opening = Request("POST", path, body, headers=headers)
        return self._stream(Reading(self._transport, self._policy, opening))

    def _stream(self, reading: Reading) -> AsyncAnswerStream:
        return AsyncAnswerStream(reading, self.cancel, self.resume)

    # ------------------------------------------------------------------ sessions and messages

    async def sessions(self, query: str | None = None) -> AsyncGenerator[SessionShape, None]:
        """The sessions, last used first; with `query` those that this text is in."""
        before: str | None = None
        while True:
            asked = {"q": query, "before": before}
            page = await self._get(SessionList, "sessions", **asked)
            for session in page.items:
                yield session
            before = page.next
            if before is None:
                return

    async def session(self, session: str) -> SessionShape:
        """A session."""
        return await self._get(SessionShape, "sessions", session)

    async def create_session(
        self,
        *,
        title: str | None = None,
        preset: str | None = None,
        metadata: Json | None = None,
    ) -> SessionShape:
        """An empty session; its first question gives it a title, if it has none."""
        body = {"title": title, "preset": preset, "metadata": metadata}
        return await self._call(SessionShape, "POST", "sessions", body=body)

    async def rename_session(self, session: str, title: str) -> SessionShape:
        """Give a session another title."""
        return await self._call(SessionShape, "PATCH", "sessions", session, body={"title": title})

    async def delete_session(self, session: str) -> None:
        """Stop a session's run and erase everything in it."""
        await self._call(type(None), "DELETE", "sessions", session)

    async def messages(self, session: str) -> AsyncGenerator[MessageShape, None]:
        """The messages of a session, oldest first, each answer in its active version."""
        after: str | None = None
        while True:
            page = await self._get(MessageList, "sessions", session, "messages", after=after)
            for message in page.items:
                yield message
            after = page.next
            if after is None:
                return

    async def message(self, message_id: str) -> MessageShape:
        """A message, also an earlier version or one that an edit left out."""
        return await self._get(MessageShape, "messages", message_id)

    async def feedback(
        self, message_id: str, rating: Literal["up", "down"] | None, comment: str | None = None
    ) -> MessageShape:
        """Say what you think of an answer; a `rating` of None takes it back."""
        body = {"rating": rating, "comment": comment}
        return await self._call(MessageShape, "PUT", "messages", message_id, "feedback", body=body)

    # ------------------------------------------------------------------ the server

    async def upstreams(self) -> list[UpstreamShape]:
        """The upstreams that a question can name, and whether they answer."""
        return (await self._get(UpstreamList, "upstreams")).items

    async def presets(self) -> list[PresetShape]:
        """The presets that a question or a session can name."""
        return (await self._get(PresetList, "presets")).items

    async def create_key(self, /, owner: str, **options: Any) -> Json:
        """Make a key; `key` of the answer has it, this once. Needs a key with the scope `admin`.

        Args:
            owner: Whose sessions it opens.
            options: `name`, `scopes`, `concurrent_runs`, `asks_per_minute`.
        """
        return await self._call(Json, "POST", "keys", body={"owner": owner, **options})

    async def keys(self) -> list[Json]:
        """Every key, without the keys themselves. Needs a key with the scope `admin`."""
        items: list[Json] = (await self._get(Json, "keys"))["items"]
        return items

    async def revoke_key(self, key_id: str) -> None:
        """Make a key useless. Needs a key with the scope `admin`."""
        await self._call(type(None), "DELETE", "keys", key_id)

    async def _get(self, kind: type[T], *path: str, **query: str | None) -> T:
        given = {name: value for name, value in query.items() if value is not None}
        return await self._transport.call(Request("GET", path, query=given), kind)

    async def _call(self, kind: type[T], method: str, *path: str, body: Json | None = None) -> T:
        return await self._transport.call(Request(method, path, body), kind)
