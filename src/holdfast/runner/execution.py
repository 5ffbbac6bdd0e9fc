"""One live run: its upstream's items become its log, and in the end its message.

An execution is a source of the group commit: whatever the upstream gives goes into the run log,
waits there for a commit, and only then can be read. It lives in a task of its own that no request
owns, so nobody who goes away takes it with him.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from holdfast.engine.fold import Answer, Fold
from holdfast.engine.policy import ChatMessage
from holdfast.engine.run import RunMachine, Signal, State, UpstreamEnd
from holdfast.errors import StoreUnavailable
from holdfast.events import (
    Entry,
    Event,
    Reason,
    ReasoningDelta,
    TextDelta,
    TextReplace,
    ToolCall,
    join_log,
)
from holdfast.live.run_log import RunLog
from holdfast.live.wake import Wake
from holdfast.runner.watch import Audience, SilenceWatch
from holdfast.settings import LimitSettings, RunSettings
from holdfast.store.port import Append, FinishRun, RunRecord, Write
from holdfast.upstreams.base import Ask, Exchange, Item, Upstream

History: TypeAlias = Callable[[], Awaitable[Sequence[ChatMessage]]]

logger = logging.getLogger(__name__)



FOLD_BATCH = 500

_SIZED = frozenset({TextDelta, TextReplace, ReasoningDelta, ToolCall})


class Execution:
    """Runs one run. Made by the supervisor once the question is committed."""

    def __init__(
        self,
        run: RunRecord,
        start: Entry,
        ask: Ask,
        upstream: Upstream,
        *,
        runs: RunSettings,
        limits: LimitSettings,
        mark: Callable[["Execution"], None],
        ended: Callable[["Execution"], None],
        now: Callable[[], int],
    ) -> None:
        """Take over a committed run.

        Args:
            run: The run as it is stored.
            start: Its committed first entry.
            ask: What to ask.
            upstream: Whom to ask.
            runs: Time-outs.
            limits: Bounds.
            mark: Tells the group commit that there is something to save.
            ended: Called once, when the run's end is committed or given up.
            now: The wall clock in milliseconds.
        """
        self.run = run
        self.ask = ask
        self.log = RunLog(run.id, start, limits.tail_bytes)
        self.machine = RunMachine()
        self.exchange = Exchange()
        self.audience = Audience(run.on_disconnect == "cancel", runs.disconnect_grace_s, self.stop)
        self.over = asyncio.Event()
        """Set when the run's end is committed, or given up for recovery."""
        self.given_up = False
        """The store refused what this run wrote; recovery must end it from what is stored."""
        self._upstream = upstream
        self._runs = runs
        self._limits = limits
        self._mark = mark
        self._on_ended = ended
        self._now = now
        self._fold = Fold()
        self._fold.add(start.event)
        self._unfolded: list[Event] = []
        self._marked = False
        self._end: UpstreamEnd | None = None
        self._answer: Answer | None = None
        self._finishing = False
        self._room = Wake()
        self._answer_bytes = 0
        self._consuming = False
        self._task: asyncio.Task[None] | None = None
        self._watch: SilenceWatch | None = None

    def start(self, history: History | None) -> None:
        """Begin; `history` loads the earlier turns of a session that has some."""
        self._task = asyncio.create_task(self._execute(history), name=f"run-{self.run.id}")

    def stop(self, end: UpstreamEnd) -> bool:
        """End the run for `end`; False if its end was decided before (the first cause counts)."""
        if self._end is not None:
            return False
        self._end = end
        if self._consuming and self._task is not None:
            self._task.cancel()
        return True

    async def wait_closed(self) -> None:
        """Wait until the task is gone, too."""
        if self._task is not None:
            await asyncio.wait([self._task])

    @property
    def state(self) -> State:
        """Where the run is in its life, as its readers may know it."""
        return State.ENDED if self.log.ended else self.machine.state

    # ------------------------------------------------------------------ the upstream

    async def _execute(self, history: History | None) -> None:
        self.machine.signal(Signal.CONNECT)
        self._watch = SilenceWatch(self._runs, self.stop, excused=self.is_full)
        self._consuming = True
        try:
            if self._end is None:
                if history is not None:
                    self.ask = msgspec.structs.replace(self.ask, history=await history())
                self.stop(await self._upstream.answer(self.ask, self.exchange, self))
        except asyncio.CancelledError:
            task = self._task
            if self._end is None or task is None or task.uncancel() > 0:
                raise
        except StoreUnavailable as error:
            self.stop(UpstreamEnd(Reason.STORAGE_ERROR, error=error.message))
        except Exception as error:
            logger.exception("run %s broke down", self.run.id)
            self.stop(UpstreamEnd(Reason.UPSTREAM_ERROR, error=f"internal error: {error}"))
        finally:
            self._consuming = False
            self._watch.cancel()
        if not self.given_up:
            self._finish()

    def take(self, items: Sequence[Item]) -> UpstreamEnd | None:
        """See `Sink.take`."""
        assert self._watch is not None
        self._watch.touch()
        if self._end is not None:
            return self._end
        events: list[Event] = []
        end: UpstreamEnd | None = None
        for item in items:
            if isinstance(item, UpstreamEnd):
                end = item
                break
            if type(item) in _SIZED:
                end = self._over_limit(item)  # type: ignore[arg-type]
                if end is not None:
                    break
            events.append(item)
        if events:
            if not self.machine.arrived:
                for event in events:
                    self.machine.see(event)
            self.log.append(events)
            self._unfolded += events
            if len(self._unfolded) > FOLD_BATCH:
                self._fold_up()
            self._announce()
        return end

    def is_full(self) -> bool:
        """See `Sink.is_full`: the upstream is not read until the store has caught up."""
        return self.log.unsaved_bytes > self._limits.unsaved_bytes

    async def room(self) -> None:
        """See `Sink.room`."""
        while self.is_full():
            await self._room.wait()

    def _over_limit(
        self, event: TextDelta | TextReplace | ReasoningDelta | ToolCall
    ) -> UpstreamEnd | None:
        """The run's end if this event would break a limit; such an event is left out."""
        text = event.arguments_delta if isinstance(event, ToolCall) else event.text
        size = len(text) if text.isascii() else len(text.encode())
        limits = self._limits
        if size > limits.event_bytes:
            return UpstreamEnd(
                Reason.LIMIT, error=f"an event of {size} bytes is over limits.event_bytes"
            )
        self._answer_bytes += size
        if self._answer_bytes > limits.answer_bytes:
            return UpstreamEnd(
                Reason.LIMIT,
                error=f"the answer reached limits.answer_bytes ({limits.answer_bytes})",
            )
        return None

    def _fold_up(self) -> None:
        """Fold in batches: an event at a time costs several times as much."""
        for event in self._unfolded:
            self._fold.add(event)
        self._unfolded.clear()

    # ------------------------------------------------------------------ the end

    def _finish(self) -> None:
        """Decide the outcome and hand the final message to the group commit."""
        assert self._end is not None
        run_end = self.machine.end(self._end)
        self._fold_up()
        self._fold.add(run_end)
        self.log.append([run_end])
        self._answer = self._fold.answer()
        self._announce()

    def _announce(self) -> None:
        if not self._marked:
            self._marked = True
            self._mark(self)

    def pending(self) -> Write | None:
        """See `Source.pending`."""
        self._marked = False
        entries = self.log.take()
        if not entries:
            return None
        append = Append(self.run.id, entries[0].seq, entries[-1].seq, join_log(entries))
        if self._answer is None:
            return append
        self._finishing = True
        return FinishRun(
            run_id=self.run.id,
            message_id=self.run.message_id,
            append=append,
            answer=self._answer,
            ended_at=self._now(),
            request=self.exchange.request,
            response=self.exchange.response,
        )

    def settle(self, result: Any) -> None:
        """See `Source.settle`."""
        if isinstance(result, Exception) or result is False:
            self._refused(result)
            return
        self.log.saved(ended=self._finishing)
        if self._finishing:
            self._leave()
        self._room.ring()

    def _refused(self, result: Any) -> None:
        """What this run wrote will not be stored; nobody has seen it (P2)."""
        logger.error("run %s could not be saved: %s", self.run.id, result)
        self.given_up = True
        self.log.drop_unsaved()
        self.stop(UpstreamEnd(Reason.STORAGE_ERROR))
        self._break_readers()
        self._leave()

    def stall(self) -> None:
        """See `Source.stall`."""
        self._break_readers()
        self.stop(
            UpstreamEnd(Reason.STORAGE_ERROR, error="the answer could not be saved any further")
        )

    def _break_readers(self) -> None:
        self.log.broken = True
        self.log.ring()

    def _leave(self) -> None:
        self.audience.close()
        self.over.set()
        self._on_ended(self)
