"""The client for programs without an event loop: `AsyncClient` on a loop in a thread of its own.

Nothing is written twice. Each method here is one of `AsyncClient`, with its arguments and its
documentation, that is waited for.
"""

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from functools import wraps
from types import TracebackType
from typing import Concatenate, Generic, ParamSpec, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from holdfast.client._client import DEFAULT_URL, AsyncClient
from holdfast.client._stream import AsyncAnswerStream
from holdfast.engine.cursor import Cursor
from holdfast.events import Entry, Event

P = ParamSpec("P")
R = TypeVar("R")
X = TypeVar("X")


class _LoopThread:
    """An event loop in a thread of its own, begun when it is first needed."""

    def __init__(self, last: Callable[[], Awaitable[None]]) -> None:
        """Call `last` on the loop before it ends."""
        self._last = last
        self._lock = threading.Lock()
        self._portal: BlockingPortal | None = None
        self._end: Callable[[], object] | None = None
        self._closed = False
        self._ident: int | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    def wait(self, function: Callable[[], Awaitable[R]]) -> R:
        """Call `function` on the loop and wait for what it gives.

        Whatever ends the waiting, such as Ctrl-C, ends what was waited for.

        Raises:
            RuntimeError: It was closed, or this is its own thread, as in `on_wait`.
        """
        self._check_thread()
        future = self._running().start_task_soon(function)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError("the client is closed") from None
        except BaseException:
            future.cancel()
            raise

    def _check_thread(self) -> None:
        if threading.get_ident() == self._ident:
            raise RuntimeError("the client's own thread cannot wait for it")

    def _running(self) -> BlockingPortal:
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
            if self._portal is None:
                life = ExitStack()
                portal = start_blocking_portal("asyncio", name="holdfast-client")
                self._portal = life.enter_context(portal)
                # Where nobody closes it: when it is not needed any more, or the program ends.
                self._end = weakref.finalize(self, _end, self._portal, life, self._last)
                self.loop = self._portal.call(asyncio.get_running_loop)
                self._ident = self._portal.call(threading.get_ident)
            return self._portal

    def close(self) -> None:
        """End the loop, if there is one, with everything that waits on it."""
        self._check_thread()
        with self._lock:
            self._closed = True
        if self._end is not None:
            self._end()


def _end(portal: BlockingPortal, life: ExitStack, last: Callable[[], Awaitable[None]]) -> None:
    with life:
        portal.call(last)
        portal.start_task_soon(portal.stop, True)


class _Bridged(Generic[X]):
    """Something asynchronous, and the thread that it lives in."""

    def __init__(self, inner: X, thread: _LoopThread) -> None:
        self._inner = inner
        self._thread = thread


def _waited(
    method: Callable[Concatenate[X, P], Awaitable[R]],
) -> Callable[Concatenate[_Bridged[X], P], R]:
    """The method, waited for."""

    @wraps(method)
    def call(self: _Bridged[X], /, *args: P.args, **kwargs: P.kwargs) -> R:
        inner = self._inner  # all that the thread may hold: it must not be the last to let go
        return self._thread.wait(lambda: method(inner, *args, **kwargs))

    return call


def _iterated(
    method: Callable[Concatenate[X, P], AsyncGenerator[R, None]],
) -> Callable[Concatenate[_Bridged[X], P], Iterator[R]]:
    """The method's asynchronous generator as an ordinary one."""

    @wraps(method)
    def call(self: _Bridged[X], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        generator = method(self._inner, *args, **kwargs)
        while True:
            try:
                yield self._thread.wait(generator.__anext__)
            except StopAsyncIteration:
                return

    return call


def _streamed(
    method: Callable[Concatenate[AsyncClient, P], AsyncAnswerStream],
) -> Callable[Concatenate["Client", P], "AnswerStream"]:
    """The method, with an ordinary stream for its asynchronous one."""

    @wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> "AnswerStream":
        return AnswerStream(method(self._inner, *args, **kwargs), self._thread)

    return call


class AnswerStream(_Bridged[AsyncAnswerStream]):
    """The events of one run: an `AsyncAnswerStream` for programs without an event loop.

    Iterate it for the events; `answer` gives what they amount to. The question is asked when the
    first event is wanted, or with `start`. Ctrl-C while it waits loses nothing: the next event
    wanted is the next one there is. Another thread may `cancel` it.
    """

    def __init__(self, inner: AsyncAnswerStream, thread: _LoopThread) -> None:
        """Give what `inner` gives."""
        super().__init__(inner, thread)
        self._seq = inner._reading.seq
        self._turn = threading.Lock()
        # Where nobody closes it: a connection is only touched by the thread that it lives in.
        weakref.finalize(self, _let_go, inner, thread).atexit = False

    def __enter__(self) -> Self:
        """Nothing is asked yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go of the connection."""
        self.close()

    @property
    def run_id(self) -> str | None:
        """The run, once the server has answered."""
        return self._inner.run_id

    @property
    def session_id(self) -> str | None:
        """The session, once the server has answered."""
        return self._inner.session_id

    @property
    def message_id(self) -> str | None:
        """The answer's message, once the server has answered."""
        return self._inner.message_id

    @property
    def cursor(self) -> str | None:
        """The position after the last event that was given; `resume` goes on from there."""
        return str(Cursor(self.run_id, self._seq)) if self.run_id else None

    def __iter__(self) -> Self:
        """The events that were not given yet."""
        return self

    def __next__(self) -> Event:
        """The next event; raises what `AsyncAnswerStream` raises."""
        entry = self._take()
        if entry is None:
            raise StopIteration
        return entry.event

    def entries(self) -> Iterator[Entry]:
        """The events that were not given yet, each with its `seq` and the bytes of its JSON."""
        while (entry := self._take()) is not None:
            yield entry

    def _take(self) -> Entry | None:
        with self._turn:
            inner, seq = self._inner, self._seq
            entry = self._thread.wait(lambda: inner._after(seq))
            if entry is not None:
                self._seq = entry.seq
            return entry

    start = _waited(AsyncAnswerStream.start)
    answer = _waited(AsyncAnswerStream.answer)
    cancel = _waited(AsyncAnswerStream.cancel)
    close = _waited(AsyncAnswerStream.close)


def _let_go(stream: AsyncAnswerStream, thread: _LoopThread) -> None:
    """Close a stream that nobody has any more, from whatever thread noticed."""
    if thread.loop is not None:
        with suppress(RuntimeError):  # the loop has ended, and the connection with it
            thread.loop.call_soon_threadsafe(stream._pause)


class Client(_Bridged[AsyncClient]):
    """Speaks to one Holdfast server. Close it, or use it as a context manager.

    It may be used by several threads at once, and where an event loop runs. What it does is done
    in a thread of its own; that is where `on_wait` is called.
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
        """Keep where the server is and how patient to be; see `AsyncClient`.

        Raises:
            ConfigError: `url` is not the address of a server, or `api_key` cannot be a key.
        """
        client = AsyncClient(
            url,
            api_key=api_key,
            patience_s=patience_s,
            silence_s=silence_s,
            wait_for_server=wait_for_server,
            on_wait=on_wait,
        )
        super().__init__(client, _LoopThread(client.close))

    def __enter__(self) -> Self:
        """Nothing is opened before it is needed."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close all connections and end the thread. What still waits gets a `RuntimeError`."""
        self._thread.close()

    ask = _streamed(AsyncClient.ask)
    regenerate = _streamed(AsyncClient.regenerate)
    edit = _streamed(AsyncClient.edit)
    resume = _streamed(AsyncClient.resume)
    follow = _streamed(AsyncClient.follow)
    cancel = _waited(AsyncClient.cancel)
    run = _waited(AsyncClient.run)

    sessions = _iterated(AsyncClient.sessions)
    session = _waited(AsyncClient.session)
    create_session = _waited(AsyncClient.create_session)
    rename_session = _waited(AsyncClient.rename_session)
    delete_session = _waited(AsyncClient.delete_session)
    messages = _iterated(AsyncClient.messages)
    message = _waited(AsyncClient.message)
    feedback = _waited(AsyncClient.feedback)

    upstreams = _waited(AsyncClient.upstreams)
    presets = _waited(AsyncClient.presets)
    create_key = _waited(AsyncClient.create_key)
    keys = _waited(AsyncClient.keys)
    revoke_key = _waited(AsyncClient.revoke_key)
