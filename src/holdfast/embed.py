"""Holdfast inside somebody else's application."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Self

from fastapi import APIRouter
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from holdfast.errors import ConfigError
from holdfast.events import Entry
from holdfast.http.auth import OwnerGate, OwnerOf
from holdfast.http.dialects import DIALECTS, about
from holdfast.http.endpoint import LOCAL_OWNER
from holdfast.http.routes import EMBEDDED, admit_all, make_router, operations
from holdfast.http.stream import EventStream, Headers, run_headers
from holdfast.runner.factory import make_supervisor
from holdfast.runner.supervisor import Question
from holdfast.settings import Settings, StorageSettings
from holdfast.store.port import MessageRecord, RunRecord
from holdfast.upstreams.base import Upstream
from holdfast.upstreams.callable import CallableUpstream


class Holdfast:
    """The engine as a library: your generator's answers, kept and resumable.

    Example:
        hold = Holdfast("sqlite:///chat.db")
        app = FastAPI(lifespan=hold.lifespan)
        app.include_router(hold.router)

        @app.post("/chat")
        async def chat(body: dict):
            run = await hold.ask(message=body["message"], upstream=my_async_generator)
            return hold.respond(run)

    The router has the native surface under /api/v1; its readers resume by themselves. Where there
    are users, `owner` tells them apart; then give `ask` and the others the same owner, too.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        settings: Settings | None = None,
        upstreams: Mapping[str, Upstream] | None = None,
        owner: OwnerOf | None = None,
    ) -> None:
        """Name the store.

        Args:
            url: `storage.url`; beats the one in `settings`.
            settings: All settings (default: the defaults, without file or environment).
            upstreams: Upstreams by name, instead of those that `settings` list.
            owner: Tells whose a request to the router is: a function, async or not, from a
                Starlette `Request` to a text. None is a stranger (401); it may raise an
                `HTTPException` of its own. Without it everything is of the owner `local`.

        Raises:
            ConfigError: The settings cannot work.
        """
        settings = settings or Settings()
        if url is not None:
            storage = StorageSettings(**{**settings.storage.model_dump(), "url": url})
            settings = settings.model_copy(update={"storage": storage})
        self._supervisor = make_supervisor(settings, upstreams)
        admit = OwnerGate(owner) if owner is not None else admit_all
        self.router: APIRouter = make_router(operations(self._supervisor, EMBEDDED), admit)
        """The native surface, for `app.include_router`."""

    async def __aenter__(self) -> Self:
        """Open the store, end what an earlier process left, open the upstreams.

        Raises:
            HoldfastError: One of them cannot be opened.
        """
        await self._supervisor.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let live runs finish within `server.shutdown_grace_s`, save the others, close."""
        await self._supervisor.stop(self._supervisor.settings.server.shutdown_grace_s)

    def lifespan(self, app: Any) -> AbstractAsyncContextManager[None]:
        """For `FastAPI(lifespan=hold.lifespan)`."""

        @asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            async with self:
                yield

        return lifespan()

    async def ask(
        self,
        *,
        message: str,
        session_id: str | None = None,
        upstream: str | Upstream | Callable[..., Any] | None = None,
        owner: str = LOCAL_OWNER,
        **options: Any,
    ) -> RunRecord:
        """Commit a question and start its run; the answer is written whether anybody reads or not.

        Args:
            message: The question.
            session_id: Your own name for the conversation, or the id of a session; created on
                first use. None begins a new one, named by the run's `session_id`.
            upstream: The name of a configured upstream, an `Upstream`, or your async generator
                function; it is called with an `Ask` and yields `str` or events.
            owner: Whose conversation it is.
            options: Further fields of `holdfast.runner.supervisor.Question`, such as `model`,
                `system`, `metadata`, `on_disconnect`, `idempotency_key`.

        Raises:
            HoldfastError: What `Supervisor.ask` raises.
        """
        given: Upstream | None = None
        if isinstance(upstream, Upstream):
            given, upstream = upstream, None
        elif upstream is not None and not isinstance(upstream, str):
            given, upstream = CallableUpstream(upstream), None
        question = Question(
            owner=owner,
            message=message,
            session_key=session_id,
            dialect="library",
            upstream=upstream,
            **options,
        )
        created = await self._supervisor.ask(question, given)
        return created.run

    def respond(self, run: RunRecord, dialect: str = "native", after: int = 0) -> Response:
        """The run as a streaming response; return it from a route of FastAPI or Starlette.

        Args:
            run: What `ask` gave.
            dialect: The wire format.
            after: The seq of the last event that the client has. Only the native dialect tells its
                clients; in the others the answer is sent from its beginning.

        Raises:
            ConfigError: There is no such dialect.
        """
        encoder = DIALECTS.get(dialect)
        if encoder is None:
            raise ConfigError(f"no dialect {dialect!r}; there is {', '.join(sorted(DIALECTS))}")

        def stream(headers: Headers) -> EventStream:
            writer = encoder(about(run))
            reader = self._supervisor.read(run.id, 0 if writer.needs_history else after)
            settings = self._supervisor.settings.stream
            return EventStream([(reader, writer)], settings, headers)

        return _RunResponse(stream, run_headers(run))

    async def read(self, run_id: str, after: int = 0) -> AsyncIterator[Entry]:
        """The committed events of a run after `after`, until its end.

        Raises:
            HoldfastError: What `Reader.next` raises.
        """
        reader = self._supervisor.read(run_id, after)
        try:
            while (entries := await reader.next()) is not None:
                for entry in entries:
                    yield entry
        finally:
            reader.close()

    async def cancel(self, run_id: str, owner: str = LOCAL_OWNER) -> RunRecord:
        """Stop a run and keep what it has written.

        Raises:
            NotFound: No such run.
        """
        return await self._supervisor.cancel(owner, run_id)

    async def message(self, message_id: str, owner: str = LOCAL_OWNER) -> MessageRecord:
        """A message, as far as it is written.

        Raises:
            NotFound: No such message.
        """
        return await self._supervisor.get_message(owner, message_id)

    async def messages(
        self, session_id: str, owner: str = LOCAL_OWNER, limit: int = 200
    ) -> list[MessageRecord]:
        """The messages of a session by its own id, oldest first.

        Raises:
            NotFound: No such session.
        """
        session = await self._supervisor.get_session(owner, session_id)
        return await self._supervisor.list_messages(session.id, limit, None)


class _RunResponse(Response):
    """An `EventStream` in the form that frameworks take from a route.

    It is opened when it is called for, so a route that fails after `respond` leaves no reader.
    """

    def __init__(self, stream: Callable[[Headers], EventStream], headers: Headers) -> None:
        super().__init__()
        self.raw_headers = list(headers)
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._stream(self.raw_headers)(scope, receive, send)
        if self.background is not None:
            await self.background()
