"""Readers of this node's runs on other nodes: they are told when there is more.

A run that nobody elsewhere reads costs nothing here: a watcher is a listener of the run's log,
as any reader is, and counts as one of its audience. It is forgotten when its node has not asked
again for a while.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from holdfast.runner.execution import Execution

FORGET_S: Final = 15.0
"""How long a node is told of a run without asking for it again."""
NEWS_BYTES: Final = 7_000

SendHint: TypeAlias = Callable[[str, str], None]


class _Watcher:
    """One node that reads one run."""

    def __init__(self, watchers: "Watchers", node_id: str, execution: Execution) -> None:
        self._watchers = watchers
        self._node_id = node_id
        self._execution = execution
        self.until = 0.0
        execution.log.listen(self._ring)
        execution.audience.came()
        self._ring()

    def _ring(self) -> None:
        log = self._execution.log
        self._watchers.tell(self._node_id, log.run_id, log.saved_seq)

    def close(self) -> None:
        self._execution.log.unlisten(self._ring)
        self._execution.audience.left()


class Watchers:
    """See the module."""

    def __init__(self, live: Callable[[str], Execution | None], send: SendHint) -> None:
        """Tell nobody yet.

        Args:
            live: Gives a run that is executed here.
            send: Sends a hint to a node.
        """
        self._live = live
        self._send = send
        self._watchers: dict[tuple[str, str], _Watcher] = {}
        self._news: dict[str, dict[str, int]] = {}
        self._flushing: asyncio.Handle | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    def watch(self, node_id: str, run_ids: Iterable[str]) -> None:
        """A node reads these runs, or still does."""
        loop = asyncio.get_running_loop()
        gone = []
        for run_id in run_ids:
            execution = self._live(run_id)
            if execution is None:
                gone.append(run_id)
                continue
            watcher = self._watchers.get((node_id, run_id))
            if watcher is None:
                watcher = self._watchers[node_id, run_id] = _Watcher(self, node_id, execution)
            watcher.until = loop.time() + FORGET_S
        if gone:  # it may have ended after that node had read the store, and before it asked
            self._send(node_id, f"gone {' '.join(gone)}")
        if self._sweeping is None and self._watchers:
            self._sweeping = loop.call_later(FORGET_S / 3, self._sweep)

    def unwatch(self, node_id: str, run_ids: Iterable[str]) -> None:
        """Nobody on that node reads these runs any more."""
        for run_id in run_ids:
            self._forget((node_id, run_id))

    def _forget(self, key: tuple[str, str]) -> None:
        watcher = self._watchers.pop(key, None)
        if watcher is not None:
            watcher.close()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for key, watcher in tuple(self._watchers.items()):
            if watcher.until < now or self._live(key[1]) is None:
                self._forget(key)
        self._sweeping = loop.call_later(FORGET_S / 3, self._sweep) if self._watchers else None

    def close(self) -> None:
        """Tell nobody any more."""
        for key in tuple(self._watchers):
            self._forget(key)
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._flush()

    # ------------------------------------------------------------------ telling

    def tell(self, node_id: str, run_id: str, seq: int) -> None:
        """The run has entries up to `seq`; one hint tells of all runs of one commit."""
        self._news.setdefault(node_id, {})[run_id] = seq
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
        self._flushing = None
        news, self._news = self._news, {}
        for node_id, runs in news.items():
            hint = "news"
            for run_id, seq in runs.items():
                word = f" {run_id}:{seq}"
                if len(hint) + len(word) > NEWS_BYTES:
                    self._send(node_id, hint)
                    hint = "news"
                hint += word
            self._send(node_id, hint)
