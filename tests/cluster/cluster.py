"""Three nodes, each behind a proxy of its own to one PostgreSQL."""

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.cluster.nodes import MARGIN_S, Node, Temper
from tests.cluster.tables import AWAY, Claim, Tables
from tests.faults.processes import wait_until
from tests.faults.rounds import free_port
from tests.support.pg_proxy import PgProxy
from tests.support.postgres import PrivateServer

NAMES: Final = ("a", "b", "c")
SKEWS_S: Final = (0, 5_000, -5_000)
"""How far their clocks are ahead."""


class Cluster:
    """All nodes of a round and their database."""

    def __init__(self, server: PrivateServer, url: str, folder: Path, seed: str) -> None:
        self.server = server
        self.tables = Tables(url)
        self._url = url
        self._folder = folder
        self._choose = random.Random(f"{seed} ports")
        self._stack = contextlib.ExitStack()
        self.nodes: list[Node] = []

    def start(
        self, upstream: str, temper: Temper, mutant: str | None, small_disks: frozenset[int]
    ) -> None:
        """Start all nodes at once and wait until they take questions."""
        for place, (name, skew_s) in enumerate(zip(NAMES, SKEWS_S, strict=True)):
            proxy = self._stack.enter_context(PgProxy(self._url))
            folder = self._folder / f"node-{name}"
            node = Node(name, free_port(self._choose), proxy, folder, skew_s=skew_s)
            self._stack.callback(node.close)
            node.prepare(upstream, temper, mutant, small_disk=place in small_disks)
            self.nodes.append(node)
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait_ready()

    def close(self) -> None:
        """End everything; the database is there again, whatever was done to it."""
        self._stack.close()
        try:
            _ = self.server.pid
        except FileNotFoundError:
            self.server.start()

    def claim(self, node: Node) -> Claim | None:
        """What this node may write under now."""
        found = [claim for claim in self.tables.claims() if claim.node_id == node.node_id]
        return found[0] if found else None

    def whole(self) -> bool:
        """Whether every node is there and has its claim, and no run is without an owner."""
        return (
            all(node.ready() and self.claim(node) is not None for node in self.nodes)
            and not self.tables.orphans()
        )

    def until(self, happened: Callable[[], bool], what: str, timeout_s: float = MARGIN_S) -> float:
        """Wait for something that the tables say; they may be away in between."""

        def known() -> bool:
            try:
                return happened()
            except AWAY:
                return False

        return wait_until(known, timeout_s, what)
