"""A round: three nodes, answers in flight, things go wrong and right again, and the checks."""

import contextlib
import json
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.cluster.checks import check
from tests.cluster.clients import request
from tests.cluster.cluster import Cluster
from tests.cluster.evidence import Evidence, Glimpse
from tests.cluster.faults import Broken, Scene
from tests.cluster.load import CHATS, HELD_RUNS, chats, held_answers
from tests.cluster.nodes import IMPATIENT, MARGIN_S, START_S, ask
from tests.cluster.plans import Plan, Scheduled
from tests.cluster.tables import AWAY, Snapshot
from tests.cluster.witness import Progress, read_clients, read_upstream
from tests.faults.evidence import Violation
from tests.faults.processes import Child, Children, Stuck, wait_until
from tests.faults.script import HELD, name_of
from tests.faults.wire import Response
from tests.support.postgres import PrivateServer

CLIENTS: Final = Path(__file__).with_name("clients.py")
PROCESSES: Final = 3
REACH_S, WHOLE_S, END_S = 40.0, 40.0, 60.0
WARM_EVENTS: Final = 60


@dataclass
class Result:
    """What a round showed."""

    plan: Plan
    in_flight: int = 0
    """Runs that were live when the first fault began."""
    events: int = 0
    """Events that clients saw."""
    connections: int = 0
    runs: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    passed: int = 0
    swallowed: int = 0
    recovery_s: float | None = None
    """The longest time that others took to end what a node had left."""
    violations: list[Violation] = field(default_factory=list)


class Round:
    """Runs a plan in a folder of its own."""

    def __init__(self, plan: Plan, folder: Path, server: PrivateServer) -> None:
        self._plan = plan
        self._folder = folder.absolute()
        self._server = server
        self._choose = random.Random(plan.seed)
        self._progress = Progress(self._folder)
        self._glimpses: list[Glimpse] = []
        self._children = Children()
        self._start, self._began = time.monotonic(), time.time()
        self._cancelling: set[str] = set()
        """The clients that cancel their answer on the way."""

    def run(self) -> Result:
        """Play the round and check what it left behind."""
        self._folder.mkdir(parents=True)  # must be new
        result = Result(self._plan)
        with self._server.database() as url:
            cluster = Cluster(self._server, url, self._folder, self._plan.seed)
            scene = Scene(cluster)
            try:
                with self._children:
                    evidence = self._play(scene)
            except (Stuck, Broken) as error:
                promise = error.promise if isinstance(error, Broken) else "round"
                result.violations.append(Violation(promise, str(error)))
            else:
                result.violations = check(evidence)
                _count(result, evidence)
            finally:
                result.recovery_s = max(scene.recoveries, default=None)
                cluster.close()
        return result

    def _play(self, scene: Scene) -> Evidence:
        cluster = scene.cluster
        log = self._folder / "upstream.txt"
        upstream = self._child("tests.cluster.upstream", str(log))
        small_disks = frozenset(
            step.fault.place
            for act in self._plan.schedule()
            for step in act.steps
            if step.fault.place is not None and str(step.fault).startswith("disk-full")
        )
        url = f"http://127.0.0.1:{upstream.line(START_S)}/v1"
        cluster.start(url, self._plan.temper, self._plan.mutant, small_disks)
        clients = self._start_clients(cluster)
        wait_until(self._is_warm, REACH_S, "answers in flight")
        self._look_around("before", cluster)
        for number, act in enumerate(self._plan.schedule(), 1):
            self._perform(act, scene, f"act {number}")
        with contextlib.suppress(Stuck):  # one who gets nothing cannot cancel; the checks tell
            wait_until(self._has_cancelled, REACH_S, "the cancels")
        self._wait_until_whole(cluster)
        self._look_around("healed", cluster)
        upstream_when_healed = read_upstream(log)
        upstream.send(signal.SIGUSR1)
        (self._folder / "stop").touch()
        self._wait_for_clients(clients, cluster)
        return self._look(scene, upstream_when_healed=upstream_when_healed)

    # ------------------------------------------------------------------ starting

    def _child(self, module: str, *arguments: str) -> Child:
        log = self._folder / f"{module.rpartition('.')[2]}.log"
        return self._children.add(Child([sys.executable, "-m", module, *arguments], log))

    def _start_clients(self, cluster: Cluster) -> list[Child]:
        plans = list(chats(self._choose, rolling=self._plan.rolling))
        if not self._plan.rolling:
            plans += held_answers(self._choose)
        everybody = [client for group in plans for client in group]
        self._cancelling = {f"{c['name']}.00" for c in everybody if "cancel_after" in c}
        groups: list[list[dict[str, Any]]] = [[] for _ in range(PROCESSES)]
        for number, group in enumerate(plans):
            groups[number % PROCESSES] += group
        common = {
            "ports": [node.port for node in cluster.nodes],
            "folder": str(self._folder),
            "seed": self._plan.seed,
        }
        return [
            self._start_crowd(f"clients-{number}", {**common, "clients": group})
            for number, group in enumerate(groups, 1)
        ]

    def _start_crowd(self, name: str, plan: dict[str, Any]) -> Child:
        """Some clients as a process; it needs nothing but the standard library."""
        path = self._folder / f"{name}.json"
        path.write_text(json.dumps(plan))
        command = [sys.executable, "-S", "-E", str(CLIENTS), str(path)]
        return self._children.add(Child(command, self._folder / f"{name}.log"))

    # ------------------------------------------------------------------ acting

    def _note(self, what: object) -> None:
        """A line of the round's timeline."""
        with (self._folder / "timeline.txt").open("a") as file:
            file.write(f"{time.monotonic() - self._start:7.2f} {what}\n")

    def _is_warm(self) -> bool:
        """Whether every held answer is asked for, and chats have got some."""
        asked = read_upstream(self._folder / "upstream.txt").asked
        held = [name for name in asked if name.startswith(HELD)]
        chats = {name.partition(".")[0] for name in asked if name.startswith("chat")}
        expected = (0, 3 * CHATS) if self._plan.rolling else (HELD_RUNS, CHATS)
        return (len(held), len(chats)) == expected and self._progress.count() >= WARM_EVENTS

    def _has_cancelled(self) -> bool:
        """Whether every answer was cancelled that should be, or has ended before."""
        readers = {reader.name: reader for reader in read_clients(self._folder)}
        return all(readers[name].cancelled or readers[name].ended for name in self._cancelling)

    def _wait_for_events(self, more: int) -> None:
        """Wait until clients have seen so many events more."""
        enough = self._progress.count() + more
        wait_until(lambda: self._progress.count() >= enough, REACH_S, f"{more} more events")

    def _look_around(self, when: str, cluster: Cluster) -> None:
        """Note what clients have, then what is stored."""
        self._note(when)
        clients = read_clients(self._folder)
        try:
            snapshot = cluster.tables.snapshot()
        except AWAY:
            return
        self._glimpses.append(Glimpse(when, clients, snapshot))

    def _perform(self, act: Scheduled, scene: Scene, name: str) -> None:
        for step in act.steps:
            self._wait_for_events(step.after)
            self._note(f"begin {step.fault}")
            step.fault.begin(scene)
        self._wait_for_events(act.hold)
        self._look_around(f"{name} began", scene.cluster)
        for fault in act.healing:
            self._note(f"heal {fault}")
            fault.heal(scene)
        self._look_around(f"{name} healed", scene.cluster)

    def _wait_until_whole(self, cluster: Cluster) -> None:
        """Wait until all nodes are well and what was cancelled or left has come to its end."""
        try:
            cluster.until(cluster.whole, "three nodes and no run without an owner", WHOLE_S)
            cluster.until(
                lambda: not self._unstopped(cluster.tables.snapshot()),
                "the end of every answer that was cancelled or left",
                IMPATIENT.lease_s + MARGIN_S,
            )
        except Stuck as error:
            left = sorted(self._unstopped(cluster.tables.snapshot()))
            promise = "P10" if left else "P3"
            raise Broken(promise, f"{error}: {', '.join(left) or 'a node is missing'}") from None

    def _unstopped(self, snapshot: Snapshot) -> set[str]:
        """Answers that were cancelled and live, or that ended and are still being sent."""
        upstream = read_upstream(self._folder / "upstream.txt")
        image = snapshot.image
        cancelled = {r.run_id for r in read_clients(self._folder) if r.cancelled}
        found = set()
        for run_id, run in image.runs.items():
            text = image.question(run) or ""
            wanted = not run.ended and run_id not in cancelled
            if not wanted and (not run.ended or upstream.left_open(text, name_of(text))):
                found.add(name_of(text))
        return found

    def _wait_for_clients(self, clients: list[Child], cluster: Cluster) -> None:
        """Wait until every client has its ending; the checks say what one lacks."""
        try:
            wait_until(lambda: not any(c.running for c in clients), END_S, "the clients' end")
            cluster.until(lambda: not cluster.tables.live_runs(), "the end of all runs", END_S)
        except Stuck:
            pass
        for client in clients:
            client.close()

    # ------------------------------------------------------------------ looking

    def _look(self, scene: Scene, **seen: Any) -> Evidence:
        """Ask the nodes for everything there is, each for something else, and stop them."""
        self._note("look")
        cluster = scene.cluster
        clients = read_clients(self._folder)
        asked = [(reader.name, reader.request) for reader in clients]
        again = {
            name: self._ask(cluster, number, data)
            for number, (name, data) in enumerate(asked)
            if data is not None
        }
        image = cluster.tables.snapshot().image
        runs, streams, messages = {}, {}, {}
        for number, run in enumerate(image.runs.values()):
            run_id, session = run.row["id"], run.row["session_id"]
            runs[run_id] = self._json(cluster, number, f"/api/v1/runs/{run_id}")
            streams[run_id] = self._get(cluster, number + 1, f"/api/v1/runs/{run_id}/events")
            if session not in messages:
                messages[session] = self._listed(cluster, number + 2, session)
        for node in cluster.nodes:
            node.terminate()
        return Evidence(
            plan=self._plan,
            span=(self._began, time.time()),
            glimpses=self._glimpses,
            fenced=scene.fenced,
            clients=clients,
            upstream=read_upstream(self._folder / "upstream.txt"),
            final=cluster.tables.snapshot(),
            runs=runs,
            streams=streams,
            messages=messages,
            again=again,
            exit_codes=[code for node in cluster.nodes for code in node.exit_codes],
            logs=[log for node in cluster.nodes for log in node.logs],
            passed=sum(node.proxy.passed for node in cluster.nodes),
            swallowed=sum(node.proxy.swallowed for node in cluster.nodes),
            **seen,
        )

    def _listed(self, cluster: Cluster, number: int, session: str) -> list[Any]:
        found: list[Any] = []
        path = f"/api/v1/sessions/{session}/messages?limit=200"
        page = self._json(cluster, number, path)
        while page.get("items"):
            found += page["items"]
            if page["next"] is None:
                break
            page = self._json(cluster, number, f"{path}&after={page['next']}")
        return found

    def _json(self, cluster: Cluster, number: int, path: str) -> Any:
        response = self._get(cluster, number, path)
        return response.json if response.whole else {}

    def _get(self, cluster: Cluster, number: int, path: str) -> Response:
        return self._ask(cluster, number, request("GET", path))

    def _ask(self, cluster: Cluster, number: int, data: bytes) -> Response:
        node = cluster.nodes[number % len(cluster.nodes)]
        try:
            return ask(node.port, data)
        except OSError as error:
            asked = data.partition(b"\r\n")[0].decode()
            raise Broken("P5", f"{asked} is not answered by node {node.name}: {error}") from None


def _count(result: Result, evidence: Evidence) -> None:
    result.in_flight = len(evidence.glimpses[0].snapshot.image.live)
    result.events = sum(len(reader.frames) for reader in evidence.clients)
    result.connections = sum(len(reader.ports) for reader in evidence.clients)
    result.runs = len(evidence.final.image.runs)
    rows = [run.row for run in evidence.final.image.runs.values()]
    result.endings = Counter(str(row["reason"] or row["outcome"]) for row in rows)
    result.passed, result.swallowed = evidence.passed, evidence.swallowed


def play(plan: Plan, folder: Path, server: PrivateServer) -> Result:
    """Run a round."""
    return Round(plan, folder, server).run()
