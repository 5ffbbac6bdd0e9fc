"""The scenes with several nodes, and what one gives."""

from dataclasses import dataclass, replace

from bench.loads import LOADS, Load
from bench.postgres import DatabaseReading

NODES = 3
PACED64 = next(load for load in LOADS if load.name == "paced64")
HELD64 = replace(PACED64, held=True)
ONE_RUN = replace(HELD64, streams=1)
SLOW_RUN = replace(ONE_RUN, chunks=150, pace_us=40_000)


@dataclass(frozen=True)
class Scene:
    """Who asks where, and who reads where."""

    row: str
    load: Load
    asked_nodes: int = 1
    readers: int = 0
    """Of each run, besides the one who asked."""
    elsewhere: bool = False
    """Whether they read at another node."""

    @property
    def load_of_all(self) -> Load:
        """Each node is asked for the whole load."""
        return replace(self.load, streams=self.load.streams * self.asked_nodes)


_PLACES = (False, True)
SCENES = (
    *(Scene("nodes", PACED64, asked_nodes=count) for count in range(1, NODES + 1)),
    *(
        Scene("elsewhere", load, readers=1, elsewhere=elsewhere)
        for load in (ONE_RUN, HELD64)
        for elsewhere in _PLACES
    ),
    *(
        Scene("readers", SLOW_RUN, readers=count, elsewhere=elsewhere)
        for count in (1, 10, 100, 1000)
        for elsewhere in _PLACES
    ),
)
ROWS = {
    "nodes": "1, 2, 3 nodes, each with 64 streams x 200 chunks, one each 20 ms",
    "elsewhere": "each run has a second reader, at the same node or at another one",
    "readers": "many readers of one run (150 chunks, one each 40 ms), besides the one who asked",
    "idle": f"{NODES} nodes that nobody asks",
}


@dataclass(frozen=True)
class Crowd:
    """Rows of other nodes and of their live runs: what all nodes look through all the time."""

    nodes: int = 1
    runs: int = 0


CROWDS = (Crowd(), Crowd(nodes=1000), Crowd(runs=20_000))


@dataclass(frozen=True)
class Outcome:
    """What a scene gave, from the moment on at which all its readers were there."""

    scene: Scene
    seconds: float
    deliveries: int
    """Chunks that arrived, each at each of its readers."""
    answers: int
    whole: int
    fault: str
    latency_ms: tuple[float, float]
    """Of those who asked: from written by the upstream to read, p50 and p99."""
    reader_latency_ms: tuple[float, float]
    lag_ms: tuple[float, float]
    """How much later than the one who asked a reader had a chunk."""
    asked_cpu_us: float
    """Of the nodes that execute the runs."""
    reading_cpu_us: float
    """Of the node where only readers are."""
    database: DatabaseReading
    commits: int
    """Of all nodes' group commits, as they count themselves."""
    opening_us: float = 0.0
    """What PostgreSQL had to do until the readers were there."""
    relay_us: float | None = None
    """What a chunk of this load costs a bare relay."""

    @property
    def complete(self) -> bool:
        return self.whole == self.answers

    @property
    def chunks(self) -> float:
        """Chunks that were relayed, however many read them."""
        return self.deliveries / (1 + self.scene.readers)


@dataclass(frozen=True)
class Idle:
    """What nodes cost by being there."""

    crowd: Crowd
    seconds: float
    node_cpu_us: float
    database: DatabaseReading


@dataclass(frozen=True)
class Spent:
    """What was used between two moments."""

    seconds: float
    asked_cpu_us: float
    reading_cpu_us: float
    database: DatabaseReading
    commits: int
