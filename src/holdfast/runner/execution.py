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

from holdfast.engine.fold import Fold
from holdfast.engine.policy import ChatMessage
from holdfast.engine.run import RunMachine, Signal, State, UpstreamEnd
from holdfast.errors import Fenced, StoreUnavailable
from holdfast.events import (
    Entry,
    Event,
    Reason,
    ReasoningDelta,
    References,
    TextDelta,
    TextReplace,
    encode,
    join_log,
)
from holdfast.live.run_log import RunLog
from holdfast.live.wake import Wake
from holdfast.runner.candidates import Candidates
from holdfast.runner.watch import Audience, SilenceWatch
from holdfast.settings import LimitSettings, RunSettings
from holdfast.store.port import Append, FinishRun, Remember, RunRecord, Write
from holdfast.upstreams.base import Ask, Exchange, Item

LoadHistory: TypeAlias = Callable[[], Awaitable[Sequence[ChatMessage]]]
"""Gives the earlier turns of the session."""

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0
"""How long an upstream that has said all may take to close."""


class Execution:
    """Runs one run. Made by the supervisor once the question is committed."""

    def __init__(
        self,
        run: RunRecord,
        start: Entry,
        ask: Ask,
        candidates: Candidates,
        *,
        runs: RunSettings,
        limits: LimitSettings,
        mark: Callable[["Execution"], None],
        note: Callable[[Write], None],
        ended: Callable[["Execution"], None],
        now: Callable[[], int],
    ) -> None:
        """Take over a committed run.

        Args:
            run: The run as it is stored.
            start: Its committed first entry.
            ask: What to ask.
            candidates: Whom to ask.
            runs: Time-outs.
            limits: Bounds.
            mark: Tells the group commit that there is something to save.
            note: Gives the group commit a write that nobody waits for.
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
        self.fenced = False
        """It was given up since other nodes end the runs of this one."""
        self._candidates = candidates
        self._answering = run.upstream
        self._kept_request: dict[str, Any] | None = None
        self._runs = runs
        self._limits = limits
        self._mark = mark
        self._note = note
        self._on_ended = ended
        self._now = now
        self._fold = Fold()
        self._fold.add(start.event)
        self._marked = False
        self._end: UpstreamEnd | None = None
        self._told: UpstreamEnd | None = None
        self._foretold: UpstreamEnd | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._sealed = False
        self._finishing = False
        self._room = Wake()
        self._answer_bytes = 0
        self._consuming = False
        self._task: asyncio.Task[None] | None = None
        self._watch: SilenceWatch | None = None

    def start(self, history: LoadHistory | None) -> None:
        """Begin; `history` loads the earlier turns of a session that may have some."""
        self._task = asyncio.create_task(self._execute(history), name=f"run-{self.run.id}")

    def stop(self, end: UpstreamEnd) -> bool:
        """End the run for `end`; False if its end was decided before (the first cause counts)."""
        if self._end is not None:
            return False
        self._end = self._told or self._foretold or end
        if self._consuming and self._task is not None:
            self._task.cancel()
            self._close_in_time()
        return self._end is end

    def _close_in_time(self) -> None:
        """However long the upstream takes to hang up, its run ends."""
        if self._closing is None:
            loop = asyncio.get_running_loop()
            self._closing = loop.call_later(CLOSE_TIMEOUT_S, self._close_late)

    def _close_late(self) -> None:
        logger.warning("the upstream of run %s does not hang up", self.run.id)
        self._end = self._end or self._told
        self._finish()
        if self._task is not None:
            self._task.cancel()

    async def wait_closed(self) -> None:
        """Wait until the task is gone, too."""
        if self._task is not None:
            await asyncio.wait([self._task])

    @property
    def state(self) -> State:
        """Where the run is in its life, as its readers may know it."""
        if self.log.ended or self.machine.state is not State.ENDED:
            return State.ENDED if self.log.ended else self.machine.state
        return State.STREAMING if self.machine.arrived else State.CONNECTING

    # ------------------------------------------------------------------ the upstream

    async def _execute(self, history: LoadHistory | None) -> None:
        self.machine.signal(Signal.CONNECT)
        self._watch = SilenceWatch(self._runs, self.stop, excused=self.is_full)
        self._consuming = True
        try:
            if self._end is None:
                if history is not None:
                    self.ask = msgspec.structs.replace(self.ask, history=await history())
                end = await self._candidates.answer(self.ask, self)
                decided = self._told or self._foretold
                if decided is not None and decided.reason is not end.reason:
                    end = decided  # it did not listen
                self._end = self._end or end
        except asyncio.CancelledError:
            task = self._task
            assert task is not None
            if task.cancelling() == 0:
                self.stop(UpstreamEnd(Reason.UPSTREAM_ERROR, error="the upstream gave up"))
            elif self._end is None or task.uncancel() > 0:
                raise
        except StoreUnavailable as error:
            self.stop(UpstreamEnd(Reason.STORAGE_ERROR, error=error.message))
        except Exception as error:
            logger.exception("run %s broke down", self.run.id)
            broken = UpstreamEnd(Reason.UPSTREAM_ERROR, error=f"internal error: {error}")
            self.stop(broken)
        finally:
            self._consuming = False
            self._watch.cancel()
            if self._closing is not None:
                self._closing.cancel()
        self._finish()

    def take(self, items: Sequence[Item]) -> UpstreamEnd | None:
        """See `Sink.take`."""
        assert self._watch is not None
        self._watch.touch()
        if self._end is not None and (self._sealed or self.given_up):
            return self._end  # too late: the log has its last event
        if self._told is not None:
            return self._told
        events: list[Event] = []
        end: UpstreamEnd | None = None
        try:
            for item in items:
                end = item if isinstance(item, UpstreamEnd) else self._over_limit(item)
                if end is not None:
                    break
                events.append(item)  # type: ignore[arg-type]
        finally:
            if events:
                self._append(events)
        if end is not None:
            self._told = self._foretold or end
            self._close_in_time()
        return end

    def _append(self, events: Sequence[Event]) -> None:
        before = self.log.last_seq
        try:
            self.log.append(events)
        finally:
            if not self.machine.arrived:
                for event in events[: self.log.last_seq - before]:
                    self.machine.see(event)
            self._announce()

    def turn_to(self, upstream: str) -> Exchange:
        """See `candidates.Run`."""
        assert self._watch is not None
        self._answering = upstream
        self._watch.begin_anew()
        self.machine.signal(Signal.CONNECT)
        self.exchange = Exchange()
        return self.exchange

    @property
    def decided(self) -> UpstreamEnd | None:
        """See `candidates.Run`."""
        return self._end

    def remember(self, conversation: str) -> None:
        """See `Sink.remember`."""
        self._note(Remember(self.run.session_id, self._answering, conversation))

    def foretell(self, end: UpstreamEnd) -> None:
        """See `Sink.foretell`."""
        self._foretold = end

    def is_full(self) -> bool:
        """See `Sink.is_full`: the upstream is not read until the store has caught up."""
        return self.log.unsaved_bytes > self._limits.unsaved_bytes

    async def room(self) -> None:
        """See `Sink.room`."""
        while self.is_full():
            await self._room.wait()
        if self._watch is not None:
            self._watch.touch()  # while it was not read it could not be silent

    def _over_limit(self, event: Event) -> UpstreamEnd | None:
        """The run's end if this event would break a limit; such an event is left out."""
        limits = self._limits
        kind = type(event)
        if kind is TextDelta or kind is ReasoningDelta or kind is TextReplace:
            text: str = event.text  # type: ignore[union-attr]
            size = len(text) if text.isascii() else len(text.encode())
            self._answer_bytes = size + (0 if kind is TextReplace else self._answer_bytes)
        elif kind is References:
            return None  # bounded by number and size where they are made
        else:
            size = len(encode(event))
            self._answer_bytes += size
        if size > limits.event_bytes:
            return UpstreamEnd(
                Reason.LIMIT, error=f"an event of {size} bytes is over limits.event_bytes"
            )
        if self._answer_bytes > limits.answer_bytes:
            return UpstreamEnd(
                Reason.LIMIT,
                error=f"the answer reached limits.answer_bytes ({limits.answer_bytes})",
            )
        return None

    # ------------------------------------------------------------------ the end

    def _finish(self) -> None:
        """Decide the outcome and hand the final message to the group commit."""
        if self._sealed or self.given_up:
            return
        assert self._end is not None
        run_end = self.machine.end(self._end)
        self.log.append([run_end])
        self._sealed = True
        self._announce()

    def _announce(self) -> None:
        if not self._marked:
            self._marked = True
            self._mark(self)

    def pending(self) -> Write | None:
        """See `Source.pending`."""
        self._marked = False
        entries = self.log.take()
        if not entries or self.given_up:
            return None
        log = join_log(entries)
        append = Append(self.run.id, entries[0].seq, entries[-1].seq, log, self._new_request())
        for entry in entries:
            self._fold.add(entry.event)
        if not self._sealed:
            return append
        self._finishing = True
        answer = self._fold.answer()
        return FinishRun(
            run_id=self.run.id,
            message_id=self.run.message_id,
            append=append,
            answer=answer,
            ended_at=self._now(),
            log=self._whole_log(),
            metadata=answer.early_end,
            request=self.exchange.request,
            response=self.exchange.response,
        )

    def _new_request(self) -> dict[str, Any] | None:
        """What was sent to the upstream, the first time that somebody asks."""
        request = self.exchange.request
        if request is self._kept_request:
            return None
        self._kept_request = request
        return request

    def _whole_log(self) -> bytes | None:
        committed = self.log.after(0)
        return None if committed is None else join_log([*committed, *self.log.taken])

    def settle(self, result: Any) -> None:
        """See `Source.settle`."""
        if self.given_up:
            return
        if isinstance(result, Exception) or result is False:
            self._refused(result)
            return
        self.log.saved(ended=self._finishing)
        if self._finishing:
            self._leave()
        self._room.ring()

    def abandon(self, cause: Fenced) -> None:
        """Others have ended this run, or will: not a word more of it."""
        if not self.over.is_set():
            self._refused(cause)

    def _refused(self, result: Any) -> None:
        """What this run wrote will not be stored; nobody has seen it (P2)."""
        self.fenced = isinstance(result, Fenced)
        if not self.fenced:
            logger.error("run %s could not be saved: %s", self.run.id, result)
        self.given_up = True
        self.log.drop_unsaved()
        self.stop(UpstreamEnd(Reason.STORAGE_ERROR))
        self.log.break_off()
        self._leave()

    def stall(self) -> None:
        """See `Source.stall`."""
        self.log.break_off()
        self.stop(
            UpstreamEnd(Reason.STORAGE_ERROR, error="the answer could not be saved any further")
        )

    def _leave(self) -> None:
        self.audience.close()
        self.over.set()
        self._on_ended(self)
