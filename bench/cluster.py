"""Several nodes on one PostgreSQL: what nodes, and readers on other nodes than the run's, cost.

The nodes run through all scenes; what is compared lies inside one scene, or side by side.
"""

import json
import signal
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.loads import WARM_UP, Load
from bench.measure import SETTLE_S, Tools, measure
from bench.postgres import Database
from bench.process import BenchError, Process
from bench.scenes import CROWDS, NODES, SCENES, Crowd, Idle, Outcome, Scene, Spent
from bench.targets import POSTGRES, RELAY, wait_ready
from tests.support.postgres import run_sql

IDLE_S = 6.0
_ADD_NODES = """
WITH numbers AS (SELECT generate_series(1, $1::int) AS n), added AS (
  INSERT INTO nodes (id, generation, started_at)
  SELECT 'crowd ' || n, 1, 9000000000000 FROM numbers)
INSERT INTO node_heartbeats (node_id, generation, lease_ms, beat_at)
SELECT 'crowd ' || n, 1, 1000000000, 9000000000000 FROM numbers
"""
_ADD_SESSIONS = """
INSERT INTO sessions (id, owner, dialect, hidden, created_at, updated_at)
SELECT 'crowd ' || n, 'crowd', 'native', false, 0, 0 FROM generate_series(1, $1::int) AS n
"""
_ADD_RUNS = """
INSERT INTO runs (id, owner, session_id, message_id, question_id, status, upstream, on_disconnect,
                  created_at, node_id, generation)
SELECT 'crowd ' || n, 'crowd', 'crowd ' || n, 'm', 'q', 'accepted', 'bench', 'continue', 0,
       'crowd 1', 1 FROM generate_series(1, $1::int) AS n
"""


@dataclass(frozen=True)
class Node:
    """A running server and its port."""

    process: Process
    port: int

    def commits(self) -> int:
        """The group commits of this node so far."""
        address = f"http://127.0.0.1:{self.port}/healthz"
        with urllib.request.urlopen(address, timeout=10) as answer:
            commits: int = json.load(answer)["commits"]
        return commits


class Cluster:
    """Nodes on one database."""

    def __init__(
        self,
        nodes: Sequence[Node],
        upstream: Process,
        url: str,
        database: Database,
        tools: Tools,
        directory: Path,
    ) -> None:
        self._nodes = nodes
        self._upstream = upstream
        self._url = url
        self._database = database
        self._tools = tools
        self._directory = directory

    def play(self, scene: Scene) -> Outcome:
        """Let a scene happen."""
        asked = self._nodes[: scene.asked_nodes]
        reading = self._nodes[1 if scene.elsewhere else 0]
        others = [reading] if scene.elsewhere else []
        load = scene.load_of_all
        options: dict[str, object] = {
            "port": ",".join(str(node.port) for node in asked),
            "readers": scene.readers,
            "reader-port": reading.port,
        }
        opening = self._database.read_before()
        with self._tools.generate(load, POSTGRES, self._directory, options) as generator:
            if scene.readers:
                _expect_open(generator, load)
                time.sleep(SETTLE_S)  # the readers have what was said before they came
                opening = self._database.read_after().since(opening)
            since = self._read(asked, others)
            if load.held:
                self._upstream.send(signal.SIGUSR1)
            said = json.loads(generator.read_line(load.deadline_s + 10))
            time.sleep(SETTLE_S)
            spent = since()
        return Outcome(
            scene=scene,
            deliveries=said["chunks_since_open"],
            answers=said["asked"],
            whole=said["whole"],
            fault=said["fault"],
            latency_ms=_quantiles(said, "latency"),
            reader_latency_ms=_quantiles(said, "reader_latency"),
            lag_ms=_quantiles(said, "lag"),
            seconds=spent.seconds,
            asked_cpu_us=spent.asked_cpu_us,
            reading_cpu_us=spent.reading_cpu_us,
            database=spent.database,
            commits=spent.commits,
            opening_us=opening.cpu_us if scene.readers else 0.0,
        )

    def idle(self, crowd: Crowd) -> Idle:
        """Let nothing happen, among others that are not really there."""
        run_sql(self._url, _ADD_NODES, crowd.nodes)
        run_sql(self._url, _ADD_SESSIONS, crowd.runs)
        run_sql(self._url, _ADD_RUNS, crowd.runs)
        run_sql(self._url, "VACUUM ANALYZE")
        since = self._read(self._nodes, [])
        time.sleep(IDLE_S)
        spent = since()
        for table, column in (("sessions", "id"), ("node_heartbeats", "node_id"), ("nodes", "id")):
            run_sql(self._url, f"DELETE FROM {table} WHERE {column} LIKE 'crowd%'")
        return Idle(crowd, spent.seconds, spent.asked_cpu_us, spent.database)

    def _read(self, asked: Sequence[Node], others: Sequence[Node]) -> Callable[[], Spent]:
        """What tells later what was spent from now on."""
        commits = sum(node.commits() for node in self._nodes)
        database = self._database.read_before()
        began = time.monotonic()
        costs = [_cpu_us(asked), _cpu_us(others)]

        def since() -> Spent:
            after = [_cpu_us(asked), _cpu_us(others)]
            return Spent(
                time.monotonic() - began,
                after[0] - costs[0],
                after[1] - costs[1],
                self._database.read_after().since(database),
                sum(node.commits() for node in self._nodes) - commits,
            )

        return since

    def warm_up(self) -> None:
        """Ask each node some questions."""
        for node in self._nodes:
            with self._tools.ask(WARM_UP, POSTGRES, node.port, self._directory) as generator:
                said = json.loads(generator.read_line(WARM_UP.deadline_s + 10))
            if said["whole"] != WARM_UP.streams:
                raise BenchError(f"a node does not answer: {said['fault']}")


@contextmanager
def start_cluster(tools: Tools, database: Database) -> Iterator[Cluster]:
    """Nodes and their upstream, warmed up, for the time of the block."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        upstream = stack.enter_context(
            Process([str(tools.upstream)], directory, "upstream", talks=True)
        )
        upstream_port = int(upstream.read_line(5).split()[1])
        url = stack.enter_context(database.fresh())
        nodes = []
        for number in range(NODES):
            folder = directory / str(number)
            folder.mkdir()
            process, port = POSTGRES.start(upstream_port, folder, url)
            stack.enter_context(process)
            wait_ready(process, port)
            nodes.append(Node(process, port))
        cluster = Cluster(nodes, upstream, url, database, tools, directory)
        cluster.warm_up()
        yield cluster


def play(
    rows: Sequence[str], tools: Tools, database: Database, tell: Callable[[str], None]
) -> tuple[list[Outcome], list[Idle], bool]:
    """The scenes of these rows, one after the other; whether one failed."""
    outcomes, idle, failed = [], [], False
    with start_cluster(tools, database) as cluster:
        if "idle" in rows:
            idle += [cluster.idle(crowd) for crowd in CROWDS]
        for scene in SCENES:
            if scene.row not in rows:
                continue
            where = f"{scene.row:10} {scene.readers:5} readers {scene.load_of_all.streams:4} runs"
            try:
                outcome = cluster.play(scene)
            except BenchError as error:
                failed = True
                tell(f"{where} FAILED: {error}")
                continue
            outcomes.append(outcome)
            per = (outcome.asked_cpu_us + outcome.reading_cpu_us) / max(outcome.deliveries, 1)
            tell(f"{where} {outcome.seconds:6.1f} s {per:7.1f} us/delivery")
    return [_with_relay(outcome, tools) for outcome in outcomes], idle, failed


def _with_relay(outcome: Outcome, tools: Tools) -> Outcome:
    """Beside the nodes, the bare relay under the same load."""
    if outcome.scene.row != "nodes":
        return outcome
    relay = measure(1, outcome.scene.load_of_all, RELAY, tools, None)
    return replace(outcome, relay_us=(relay.cpu_us or 0) / max(relay.chunks, 1))


def _expect_open(generator: Process, load: Load) -> None:
    line = generator.read_line(load.deadline_s)
    if line != "open\n":
        raise BenchError(f"not all readers came: {json.loads(line)['fault']}")


def _cpu_us(nodes: Sequence[Node]) -> float:
    return sum(node.process.cpu_us() for node in nodes)


def _quantiles(said: dict[str, float], name: str) -> tuple[float, float]:
    return said[f"{name}_p50_us"] / 1000, said[f"{name}_p99_us"] / 1000
