"""The owner of all runs of this process: takes questions, starts and stops runs, hands out readers.

The supervisor belongs to the application, not to a request. Requests come and go; what they have
of a run is a `Reader`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import anyio
import msgspec

from holdfast.clock import SharedClock, now_ms
from holdfast.engine.run import UpstreamEnd
from holdfast.errors import (
    Conflict,
    Draining,
    Fenced,
    HoldfastError,
    RunActive,
    StoreError,
    StoreUnavailable,
)
from holdfast.events import Entry, Reason, encode
from holdfast.live.wake import Wake
from holdfast.runner import recovery
from holdfast.runner.archive import Archive
from holdfast.runner.asking import Question as Question
from holdfast.runner.candidates import Candidates
from holdfast.runner.execution import Execution, LoadHistory
from holdfast.runner.followers import Followers
from holdfast.runner.health import HealthBoard
from holdfast.runner.keys import RELOAD_S, KeyRing
from holdfast.runner.node import Node
from holdfast.runner.patience import patiently
from holdfast.runner.quota import Claim, Quota
from holdfast.runner.reader import Reader
from holdfast.runner.reception import Prepared, Reception
from holdfast.settings import Settings
from holdfast.store.group_commit import GroupCommit
from holdfast.store.port import (
    DeleteSession,
    RequestCancel,
    RunCreated,
    RunRecord,
    Store,
    Write,
)
from holdfast.store.shared import SharedStore
from holdfast.upstreams.base import Ask, Health, Upstream

logger = logging.getLogger(__name__)

T = TypeVar("T")

SHUT_DOWN = UpstreamEnd(Reason.SERVER_SHUTDOWN, error="the server was shut down")
BUSY_TRIES = 5
"""How often `on_busy = "cancel"` stops a live run that came in between."""
RESCUE_PAUSES_S = (0.05, 0.2, 1.0, 5.0, 30.0)
"""Pauses between tries to end a run that the store refused."""
END_TIMEOUT_S = 5.0
"""How long a cancel waits for the run's end to be committed before it answers anyway."""


class Supervisor(Archive):
    """See the module."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        upstreams: Mapping[str, Upstream],
        now: Callable[[], int] = now_ms,
    ) -> None:
        """Put the parts together; nothing happens before `start`.

        Raises:
            ConfigError: The settings name an upstream that is not there.
        """
        self.settings = settings
        super().__init__(store)
        self.upstreams = upstreams
        self._clock = SharedClock()
        self._node: Node | None = None
        if isinstance(store, SharedStore):
            now = self._clock  # the store's time, whatever this machine's clock says
            self._node = self._make_node(store, settings)
        self._reception = Reception(settings, store, upstreams, now)
        self.router = self._reception.router
        self.presets = self._reception.presets
        self.commits = GroupCommit(store, patience_s=settings.storage.store_patience_s, now=now)
        reload_s = None if self._node is None else RELOAD_S
        self.keys = KeyRing(settings.api_keys, store, self.commits.submit, now, reload_s)
        self._quota = Quota(settings.limits)
        self.draining = False
        self._grace_s = 0.0
        self._drained = asyncio.Event()
        self._health = HealthBoard(upstreams, self.router)
        self._now = now
        self._asking = 0
        self._asked = Wake()
        self._live: dict[str, Execution] = {}
        self._making: set[str] = set()
        """Runs whose creation is being committed: they may be stored before they are known here."""
        self._rescues: set[asyncio.Task[None]] = set()
        self._notes: set[asyncio.Task[None]] = set()

    def _make_node(self, store: SharedStore, settings: Settings) -> Node:
        patience_s = settings.storage.store_patience_s
        followers = Followers(store, settings.limits.tail_bytes, patience_s)
        return Node(store, self, self._clock, settings.node, followers)

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Open the store, end what an earlier process left, open the upstreams.

        Raises:
            HoldfastError: What `Store.open` and the upstreams raise.
        """
        try:
            await self.store.open()
            await self._recover()
            for upstream in self.upstreams.values():
                await upstream.open()
            await self.keys.start()
        except BaseException:
            if self._node is not None:
                await self._node.stop()
            await self.store.close()
            raise
        self.commits.start()

    async def _recover(self) -> None:
        if self._node is not None:
            await self._node.start()
            return
        recovered = await recovery.recover(self.store, await self.store.live_runs(), self._now)
        if recovered:
            logger.warning("recovered %d runs of an earlier process", recovered)

    async def drain(self, grace_s: float) -> None:
        """Take no more questions; let live runs finish for `grace_s` seconds, then end them."""
        if self.draining:
            await self._drained.wait()
            return
        self.draining = True
        self._grace_s = grace_s
        try:
            await self._drain(grace_s)
        finally:
            self._drained.set()

    async def _drain(self, grace_s: float) -> None:
        while self._asking:
            await self._asked.wait()
        if self._node is not None:
            self._node.followers.send_away()
        if grace_s > 0:
            await self._let_finish(grace_s)
        left = tuple(self._live.values())
        for execution in left:
            execution.stop(SHUT_DOWN)
        await asyncio.gather(*(self._ended(execution) for execution in left))
        if not self.commits.healthy:
            for execution in left:
                execution.log.break_off()  # its end cannot be saved: nobody need wait for it
        if self._node is not None:
            self._node.followers.break_off()

    async def _let_finish(self, grace_s: float) -> None:
        """Wait until no run is live here and nobody reads runs of other nodes, for so long."""
        ends: list[Coroutine[Any, Any, object]] = [run.over.wait() for run in self._live.values()]
        if self._node is not None:
            ends.append(self._node.followers.idle())
        waits = [asyncio.create_task(end) for end in ends]
        if waits:
            _, late = await asyncio.wait(waits, timeout=grace_s)
            for wait in late:
                wait.cancel()

    async def stop(self, grace_s: float = 0.0) -> None:
        """Drain, save what is pending, and let go of everything."""
        await self.drain(grace_s)
        await self.keys.stop()
        await self.commits.close()
        for task in self._rescues:
            task.cancel()  # the next start recovers what could not be rescued by now
        if self._rescues:
            await asyncio.wait(self._rescues)
        if self._node is not None:
            await self._node.stop()
        for upstream in self.upstreams.values():
            try:
                await upstream.close()
            except Exception:
                logger.exception("the upstream %s could not be closed", upstream.name)
        await self.store.close()

    def now(self) -> int:
        """The time, in milliseconds since the epoch; all nodes on one store have the same."""
        return self._now()

    @property
    def ready(self) -> bool:
        """Whether a question could be taken now."""
        joined = self._node is None or self._node.joined
        return joined and self.commits.healthy and not self.draining

    @property
    def live_runs(self) -> int:
        """How many runs are live in this process."""
        return len(self._live)

    async def healths(self) -> Mapping[str, Health]:
        """The health of each upstream by name."""
        return await self._health.look()

    # ------------------------------------------------------------------ asking

    async def ask(self, question: Question, upstream: Upstream | None = None) -> RunCreated:
        """Commit a question with its run, then start the run (P1, P7).

        Args:
            question: The request.
            upstream: An upstream that is not in the configuration.

        Raises:
            BadRequest: An empty question, or an upstream or preset that does not exist.
            TooLarge: A question over its limit.
            NotFound: No such session or question.
            RunActive: The session's run is live and `on_busy` is `reject`.
            IdempotencyMismatch: The key was used with another request.
            TooManyRequests: Its API key has reached a limit.
            Unavailable: The node drains or the store fails.
        """
        if self.draining:
            raise Draining("the server is shutting down; ask again in a moment")
        self._reception.check(question)
        self._asking += 1
        try:
            return await self._ask(question, upstream)
        finally:
            self._asking -= 1
            self._asked.ring()

    async def _ask(self, question: Question, upstream: Upstream | None) -> RunCreated:
        prepared = await self._reception.prepare(question, upstream)
        try:
            return await self._create(prepared)
        except StoreError:
            # Two first questions with the same session key: the other one has created it.
            again = await self._reception.prepare(question, upstream)
            if again.question.session_id == prepared.question.session_id:
                raise
            return await self._create(again)

    async def _create(self, prepared: Prepared) -> RunCreated:
        on_busy = prepared.question.on_busy or self.settings.runs.on_busy
        claim = await self._claim(prepared.question, on_busy)

        run_id = prepared.write.run.id

        def execute(result: Any) -> None:
            self._making.discard(run_id)
            # Not after the await: a request that is cancelled in between must not leave a run
            # that nobody executes.
            if isinstance(result, RunCreated) and not result.replayed:
                if claim is not None:
                    self._quota.begin(claim, result.run.id)
                self._execute(prepared, result.run)

        ids: dict[str, Any] = {}
        try:
            for _ in range(BUSY_TRIES):
                self._making.add(run_id)
                try:
                    created: RunCreated = await self.commits.submit(prepared.write, execute)
                except StoreUnavailable:
                    self._making.discard(run_id)
                    raise
                except RunActive as busy:
                    if on_busy == "reject":
                        raise
                    ids = busy.extra
                    await self._cancel(ids["run_id"], Reason.CLIENT_CANCELLED)
                else:
                    return created
        finally:
            if claim is not None:
                claim.settle()
        raise RunActive("the session is busy: another question came first each time", **ids)

    async def _claim(self, question: Question, on_busy: str) -> Claim | None:
        """Count a question with its API key; one that was asked before is let through as it is."""
        if question.key is None:
            return None
        again = question.idempotency_key
        if again is not None and await self.store.find_run(question.owner, again) is not None:
            return None
        replaced = None
        if on_busy == "cancel":
            runs = (execution.run for execution in self._live.values())
            replaced = next((run.id for run in runs if run.session_id == question.session_id), None)
        return self._quota.claim(question.key, asyncio.get_running_loop().time(), replaced)

    def _execute(self, prepared: Prepared, run: RunRecord) -> None:
        question, start = prepared.question, prepared.start
        ask = Ask(
            run_id=run.id,
            session_id=run.session_id,
            message_id=run.message_id,
            message=question.message,
            system=question.system,
            model=question.model,
            temperature=question.temperature,
            max_tokens=question.max_tokens,
            metadata=question.metadata,
            history=question.history or (),
            chat=question.chat,
        )
        execution = Execution(
            run,
            Entry(1, start, encode(start)),
            ask,
            self._candidates(prepared, run),
            runs=self.settings.runs,
            limits=self.settings.limits,
            mark=self.commits.mark,
            note=self._note,
            ended=self._forget,
            now=self._now,
        )
        self._live[run.id] = execution
        execution.start(self._history(question, run))
        if self.draining and self._grace_s <= 0:
            execution.stop(SHUT_DOWN)  # before it asks anybody

    def _history(self, question: Question, run: RunRecord) -> LoadHistory | None:
        if question.session_id is None:
            return None
        load = self._reception.history
        return lambda: self._patiently(lambda: load(question, run.session_id, run.question_id))

    def _patiently(self, read: Callable[[], Coroutine[Any, Any, T]]) -> Coroutine[Any, Any, T]:
        return patiently(read, self.settings.storage.store_patience_s)

    def _candidates(self, prepared: Prepared, run: RunRecord) -> Candidates:
        async def conversation(upstream: str) -> str | None:
            return await self._patiently(
                lambda: self.store.get_conversation(run.session_id, upstream)
            )

        is_new = prepared.question.session_id is None
        runs = self.settings.runs
        patience_s = min(runs.first_byte_timeout_s, runs.idle_timeout_s) / 2
        return Candidates(
            prepared.route.candidates,
            now=self.router.now,
            patience_s=min(self.settings.router.fall_through_after_s, patience_s),
            conversation=None if is_new else conversation,
        )

    def _note(self, write: Write) -> None:
        task = asyncio.create_task(self._write_quietly(write), name="note")
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def regenerate(self, question: Question, message_id: str) -> RunCreated:
        """Answer the question of an assistant message once more; the old answer stays a version.

        `question.message`, `session_id` and `question_id` are filled in from the message.

        Raises:
            NotFound: No such message.
            Conflict: It is not an answer.
            HoldfastError: What `ask` raises.
        """
        message = await self.get_message(question.owner, message_id)
        if message.role != "assistant":
            ids = {"session_id": message.session_id, "message_id": message.id}
            raise Conflict("only an answer can be regenerated", **ids)
        asked = await self.get_message(question.owner, message.turn_id)
        return await self.ask(
            msgspec.structs.replace(
                question,
                message=asked.answer.text,
                session_id=message.session_id,
                question_id=message.turn_id,
            )
        )

    def _forget(self, execution: Execution) -> None:
        self._live.pop(execution.run.id, None)
        self._quota.end(execution.run.id)
        if execution.given_up and not execution.fenced and not self.draining:
            self._begin_rescue(execution.run)

    def _begin_rescue(self, run: RunRecord) -> None:
        task = asyncio.create_task(self._rescue(run), name=f"rescue-{run.id}")
        self._rescues.add(task)
        task.add_done_callback(self._rescues.discard)

    async def _rescue(self, run: RunRecord) -> None:
        """End a run that nobody executes any more, from what is stored of it."""
        end = UpstreamEnd(Reason.STORAGE_ERROR, error="a part of the answer could not be saved")
        for pause_s in RESCUE_PAUSES_S:
            try:
                write = await recovery.ending(self.store, run, end, self._now())
                await self.commits.submit(write)
                return
            except StoreUnavailable:
                await anyio.sleep(pause_s)
            except HoldfastError as error:
                logger.error("run %s cannot be ended: %s", run.id, error)
                break
        logger.error("run %s stays open until the next start", run.id)

    # ------------------------------------------------------------------ stopping

    async def cancel(self, owner: str, run_id: str) -> RunRecord:
        """Stop a run (P10) and wait for its end; a run that has ended stays as it is.

        Raises:
            NotFound: No such run.
        """
        await self.get_run(owner, run_id)
        await self._cancel(run_id, Reason.CLIENT_CANCELLED)
        return await self.get_run(owner, run_id)

    async def _cancel(self, run_id: str, reason: Reason) -> None:
        execution = self._live.get(run_id)
        if execution is None:
            if self._node is not None:
                await self._cancel_elsewhere(self._node, run_id)
            return
        # The upstream is stopped first: a store that fails must not keep it running. The note in
        # the store is for recovery, should this process die before the end is committed.
        execution.stop(UpstreamEnd(reason))
        if self.commits.healthy:
            await self._write_quietly(RequestCancel(run_id))
        await self._ended(execution)

    async def _cancel_elsewhere(self, node: Node, run_id: str) -> None:
        """Note the wish, tell the owner of the run, and wait for its end."""
        await self.commits.submit(RequestCancel(run_id))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT_S):
                pause_s = 0.01
                while await node.cancel(run_id):
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, 0.5)

    def stop_run(self, run_id: str) -> None:
        """See `node.Runs`."""
        execution = self._live.get(run_id)
        if execution is not None:
            execution.stop(UpstreamEnd(Reason.CLIENT_CANCELLED))

    def abandon(self, run_ids: Iterable[str] | None = None) -> None:
        """See `node.Runs`."""
        for run_id in tuple(self._live if run_ids is None else run_ids):
            execution = self._live.get(run_id)
            if execution is not None:
                execution.abandon(Fenced("others have ended this run"))

    def live_ids(self) -> Collection[str]:
        """See `node.Runs`."""
        return tuple(self._live)

    def adopt(self, runs: Sequence[RunRecord]) -> None:
        """See `node.Runs`."""
        for run in runs:
            if run.id not in self._making:
                logger.warning("run %s has nobody who executes it", run.id)
                self._begin_rescue(run)

    async def _write_quietly(self, write: Write) -> None:
        try:
            await self.commits.submit(write)
        except HoldfastError as error:
            logger.warning("not noted: %s", error)

    async def _ended(self, execution: Execution) -> None:
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await execution.over.wait()
        except TimeoutError:
            logger.warning("the end of run %s is not saved yet", execution.run.id)

    async def delete_session(self, owner: str, session_id: str) -> None:
        """Cancel the session's run and erase all of it.

        Raises:
            NotFound: No such session.
            Unavailable: The store fails.
        """
        session = await self.get_session(owner, session_id)
        if session.live_run_id is not None:
            await self._cancel(session.live_run_id, Reason.CLIENT_CANCELLED)
        await self.commits.submit(DeleteSession(owner, session_id))

    # ------------------------------------------------------------------ reading

    def live(self, run_id: str) -> Execution | None:
        """The execution of a run that is live in this process."""
        return self._live.get(run_id)

    def read(self, run_id: str, after: int = 0) -> Reader:
        """A reader of a run that the caller may see; it must be closed."""
        execution = self._live.get(run_id)
        if execution is None:
            elsewhere = self._node.followers if self._node is not None else None
            return Reader(self.store, run_id, after, None, elsewhere=elsewhere)
        execution.audience.came()
        return Reader(self.store, run_id, after, execution.log, execution.audience.left)
