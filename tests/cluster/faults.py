"""What can go wrong in a cluster, how it is made to, and how it is made good again."""

import contextlib
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from tests.cluster.cluster import Cluster
from tests.cluster.nodes import IMPATIENT, MARGIN_S, PATIENT, Node
from tests.cluster.tables import Claim, Snapshot
from tests.faults.processes import Stuck, wait_until

FENCE_S: Final = IMPATIENT.lease_s + MARGIN_S
"""By then the runs of a node that is gone must have been ended by another one."""


class Broken(Exception):
    """A promise that is broken so badly that the round cannot go on."""

    def __init__(self, promise: str, text: str) -> None:
        super().__init__(text)
        self.promise = promise


class Fenced:
    """Claims that are over, and what was stored when they were."""

    def __init__(self, claims: frozenset[Claim], snapshot: Snapshot) -> None:
        self.claims = claims
        self.runs = snapshot.runs_of(claims)
        self.image = snapshot.image


class Scene:
    """What faults have to work on, and what they leave behind."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.fenced: list[Fenced] = []
        self.recoveries: list[float] = []
        """How long it took others to end what a node had left, in seconds."""


class Fault(ABC):
    """Something that goes wrong, at a node or at all of them."""

    harmless = False
    """Whether no answer may suffer, as long as leases and patience last."""
    first_to_heal = False
    """Whether nothing else can be healed while it lasts."""
    last_to_heal = False
    """Whether it shows when everything else is healed."""

    def __init__(self, place: int | None = None) -> None:
        """Choose the node."""
        self.place = place

    def __str__(self) -> str:
        name = "".join(f"-{c.lower()}" if c.isupper() else c for c in type(self).__name__)[1:]
        return name if self.place is None else f"{name} {'abc'[self.place]}"

    @abstractmethod
    def begin(self, scene: Scene) -> None:
        """Make it go wrong."""

    @abstractmethod
    def heal(self, scene: Scene) -> None:
        """Make it good again."""

    def node(self, scene: Scene) -> Node:
        assert self.place is not None
        return scene.cluster.nodes[self.place]


class _Losing(Fault):
    """The node loses its claim: others end its runs, and not one row of it comes after that."""

    def begin(self, scene: Scene) -> None:
        self._node_id = self.node(scene).node_id
        self._hurt(scene)

    def heal(self, scene: Scene) -> None:
        took = _wait(scene, self._is_over, f"node {self.node(scene).name} has lost its runs")
        scene.recoveries.append(took)
        snapshot = scene.cluster.tables.snapshot()
        scene.fenced.append(Fenced(self._claims(snapshot), snapshot))
        self._mend(scene)

    def _is_over(self, scene: Scene) -> bool:
        tables = scene.cluster.tables
        current = {claim.node_id for claim in tables.claims()}
        return self._node_id not in current and not tables.live_runs_of(self._node_id)

    def _claims(self, snapshot: Snapshot) -> frozenset[Claim]:
        """All of the node's claims so far, one that never had a run among them."""
        rows = [run.row for run in snapshot.image.runs.values()]
        found = {row["generation"] for row in rows if row["node_id"] == self._node_id}
        return frozenset(Claim(self._node_id, generation) for generation in found | {1})

    @abstractmethod
    def _hurt(self, scene: Scene) -> None: ...

    @abstractmethod
    def _mend(self, scene: Scene) -> None: ...

    def _wait_for_new_claim(self, scene: Scene) -> None:
        node = self.node(scene)
        old = max(claim.generation for claim in scene.fenced[-1].claims)

        def back(scene: Scene) -> bool:
            claim = scene.cluster.claim(node)
            return (
                claim is not None
                and claim.node_id == self._node_id
                and claim.generation > old
                and node.ready()
            )

        _wait(scene, back, f"node {node.name} is back as a new generation")


def _wait(scene: Scene, happened: Callable[[Scene], bool], what: str) -> float:
    try:
        return scene.cluster.until(lambda: happened(scene), what, FENCE_S)
    except Stuck as error:
        raise Broken("P3", str(error)) from None


class Kill(_Losing):
    """SIGKILL; another process takes the place when the runs have their endings."""

    def _hurt(self, scene: Scene) -> None:
        self.node(scene).kill()

    def _mend(self, scene: Scene) -> None:
        self.node(scene).start()
        self.node(scene).wait_ready()


class Stop(_Losing):
    """SIGSTOP until the claim is gone, then SIGCONT."""

    def _hurt(self, scene: Scene) -> None:
        self.node(scene).child.send(signal.SIGSTOP)

    def _mend(self, scene: Scene) -> None:
        self.node(scene).child.send(signal.SIGCONT)
        self._wait_for_new_claim(scene)


class Cut(_Losing):
    """Every connection to PostgreSQL is reset, and there are no new ones."""

    silently = False

    def _hurt(self, scene: Scene) -> None:
        self.node(scene).proxy.cut(silently=self.silently)

    def _mend(self, scene: Scene) -> None:
        self.node(scene).proxy.heal()
        self._wait_for_new_claim(scene)


class HalfCut(Cut):
    """The same, but PostgreSQL does not learn of it before it is over."""

    silently = True


class Stall(_Losing):
    """Nothing gets through, either way, and comes when it is over."""

    up = down = True

    def _hurt(self, scene: Scene) -> None:
        self.node(scene).proxy.stall(up=self.up, down=self.down)

    def _mend(self, scene: Scene) -> None:
        self.node(scene).proxy.heal()
        self._wait_for_new_claim(scene)


class StallUp(Stall):
    """PostgreSQL hears nothing."""

    down = False


class Flicker(Fault):
    """A cut that is over at once."""

    harmless = True

    def begin(self, scene: Scene) -> None:
        self.node(scene).proxy.cut()

    def heal(self, scene: Scene) -> None:
        self.node(scene).proxy.heal()


class Nap(Fault):
    """SIGSTOP for a part of the lease."""

    harmless = True

    def begin(self, scene: Scene) -> None:
        self.node(scene).child.send(signal.SIGSTOP)

    def heal(self, scene: Scene) -> None:
        self.node(scene).child.send(signal.SIGCONT)


class StallDown(Fault):
    """Commits arrive, and their acknowledgements do not before it is over."""

    harmless = True

    def begin(self, scene: Scene) -> None:
        self.node(scene).proxy.stall(up=False)

    def heal(self, scene: Scene) -> None:
        self.node(scene).proxy.heal()


class LostAnswer(Fault):
    """Something is committed, the connections break before the node is told."""

    harmless = True

    def begin(self, scene: Scene) -> None:
        self.node(scene).proxy.lose_answer("holdfast commit")

    def heal(self, scene: Scene) -> None:
        self.node(scene).proxy.heal()


class HintsLost(Fault):
    """Not one notification arrives anywhere; it lasts until one was lost."""

    harmless = last_to_heal = True

    def begin(self, scene: Scene) -> None:
        for node in scene.cluster.nodes:
            node.proxy.swallow_notifications()

    def heal(self, scene: Scene) -> None:
        nodes = scene.cluster.nodes
        with contextlib.suppress(Stuck):  # the checks tell
            wait_until(lambda: any(node.proxy.swallowed for node in nodes), MARGIN_S, "a lost hint")
        for node in nodes:
            node.proxy.swallow_notifications(False)


class ListenersCut(Fault):
    """PostgreSQL ends the connections that listen, twice."""

    harmless = True

    def begin(self, scene: Scene) -> None:
        scene.cluster.server.cut("holdfast control %")

    def heal(self, scene: Scene) -> None:
        scene.cluster.server.cut("holdfast control %")


class ConnectionsCut(Fault):
    """PostgreSQL ends all connections, twice."""

    harmless = True

    def begin(self, scene: Scene) -> None:
        scene.cluster.server.cut("holdfast %")

    def heal(self, scene: Scene) -> None:
        scene.cluster.server.cut("holdfast %")


class DatabaseFast(Fault):
    """PostgreSQL is restarted in good order."""

    harmless = first_to_heal = True
    mode = "fast"

    def begin(self, scene: Scene) -> None:
        scene.cluster.server.stop(self.mode)

    def heal(self, scene: Scene) -> None:
        scene.cluster.server.start()


class DatabaseImmediate(DatabaseFast):
    """PostgreSQL crashes and recovers."""

    mode = "immediate"


class DatabaseAway(DatabaseFast):
    """PostgreSQL is away for longer than a lease, and nodes have patience for that."""

    def heal(self, scene: Scene) -> None:
        time.sleep(PATIENT.lease_s + 2)
        super().heal(scene)


class DatabaseGone(DatabaseFast):
    """PostgreSQL is away for longer than the nodes have patience."""

    harmless = False

    def heal(self, scene: Scene) -> None:
        time.sleep(IMPATIENT.patience_s + 2)
        super().heal(scene)


class DiskFull(Fault):
    """There is no room in the node's folder, where it also logs."""

    harmless = True

    def begin(self, scene: Scene) -> None:
        self.node(scene).fill_disk()

    def heal(self, scene: Scene) -> None:
        self.node(scene).free_disk()


class Rolling(Fault):
    """SIGTERM to one node after the other; another process takes each place."""

    harmless = True

    def begin(self, scene: Scene) -> None:
        for node in scene.cluster.nodes:
            node.terminate()
            node.start()
            node.wait_ready()

    def heal(self, scene: Scene) -> None:
        pass
