"""A round: answers in flight, a kill, a restart, and the checks."""

import contextlib
import json
import random
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.runner.recovery import BATCH
from tests.faults.checks import RECOVERY_S, ahead, check
from tests.faults.client import HOST, request
from tests.faults.control import ControlPage
from tests.faults.database import Database, Image, SqliteDatabase
from tests.faults.database_postgres import PostgresDatabase
from tests.faults.evidence import Evidence, Kill, Violation
from tests.faults.mutants import MUTANTS
from tests.faults.points import POINTS, Phase
from tests.faults.processes import Child, Children, Stuck, wait_until
from tests.faults.script import HELD, Kind, question
from tests.faults.wire import Response, read_responses
from tests.faults.witness import raw_files, read_clients, read_upstream
from tests.support.postgres import PostgresServer

START_S = 20.0
REACH_S = 20.0
SETTLE_S = 10.0
PORTS = range(20_000, 30_000)
"""Below the kernel's own range: a client that knocks at a dead server must not meet itself."""

LONG, BURST, SLOW, CHATS = 14, 8, 2, 4
HELD_RUNS = LONG + BURST + SLOW
CHAT_QUESTIONS = 200
WARM_FRAMES = 5
WARM_ANSWERS = 2


@dataclass(frozen=True)
class Plan:
    """What a round does; the seed decides everything that is left open."""

    seed: str
    point: str | None = None
    """Where the server kills itself; None: it is killed from outside at a random instant."""
    recovery: tuple[str, ...] = ()
    """Where the servers after it kill themselves, one after the other."""
    synchronous: str = "full"
    mutant: str | None = None
    scale: int = 1
    """How many times the usual number of answers is in flight."""

    @property
    def phases(self) -> list[Phase]:
        """The phases of the kills, in order."""
        first = POINTS[self.point].phase if self.point is not None else Phase.ANY
        return [first, *[POINTS[point].phase for point in self.recovery]]


@dataclass
class Result:
    """What a round showed."""

    plan: Plan
    places: list[str] = field(default_factory=list)
    """Where the kills hit, in order."""
    in_flight: int = 0
    ahead: int = 0
    """Runs of which the upstream had sent more than was committed."""
    unsaved: int | None = None
    """Runs that held events in memory that were not committed; unknown for a kill from outside."""
    clients: int = 0
    events: int = 0
    """Events that clients saw before the kill."""
    resumed: int = 0
    """Clients that came back with a cursor."""
    recovered_s: float | None = None
    """How long after the restart the messages of the dead server had their endings."""
    violations: list[Violation] = field(default_factory=list)

    @property
    def phases(self) -> list[Phase]:
        """The phases that were hit; the checks have made sure that the kills were there."""
        return self.plan.phases[: len(self.places)]


class Broken(Exception):
    """A promise that is broken so badly that the round cannot go on."""

    def __init__(self, promise: str, text: str) -> None:
        super().__init__(text)
        self.promise = promise


class Round:
    """Runs a plan in a folder of its own."""

    def __init__(self, plan: Plan, folder: Path, database: Database) -> None:
        self._plan = plan
        self._folder = folder
        self._database = database
        self._choose = random.Random(plan.seed)
        self._port = free_port(self._choose)
        self._servers = 0
        self._kills: list[Kill] = []
        self._children = Children()

    def run(self) -> Result:
        """Play the round and check what it left behind."""
        result = Result(self._plan)
        try:
            with self._children:
                evidence = self._play()
        except (Stuck, Broken) as error:
            promise = error.promise if isinstance(error, Broken) else "round"
            result.violations.append(Violation(promise, str(error)))
            return result
        result.violations = check(evidence)
        result.places = [kill.place for kill in self._kills]
        result.in_flight = len(evidence.at_kill.live)
        result.ahead = ahead(evidence)
        record = self._kills[0].record
        result.unsaved = record["unsaved"] if record is not None else None
        streams = [asked.before for asked in evidence.clients if asked.before is not None]
        result.clients = len(streams)
        result.events = sum(len(stream.frames) for stream in streams)
        result.resumed = sum(asked.resumed for asked in evidence.clients)
        result.recovered_s = evidence.streaming_s
        return result

    def _play(self) -> Evidence:
        upstream = self._children.add(
            Child.module("upstream", str(self._folder / "upstream.txt"), self._log("upstream"))
        )
        self._upstream_url = f"http://{HOST}:{upstream.line(START_S)}/v1"
        points = [self._plan.point, *self._plan.recovery, None]
        self._idle = [self._load_server(point) for point in points]
        server, page = self._start_server()
        server.line(START_S)
        clients = self._start_clients()
        self._wait_for_traffic()
        self._kill(server, page)
        before = raw_files(self._folder)
        upstream_at_kill = read_upstream(self._folder / "upstream.txt")
        for point in self._plan.recovery:
            server, page = self._start_server()
            page.arm()
            self._gather(server, page, point)
        upstream.send(signal.SIGUSR1)
        start = time.monotonic()
        server, page = self._start_server()
        server.line(START_S)
        self._wait_for_recovery()
        streaming_s = time.monotonic() - start
        self._wait_for_clients(clients)
        return self._look(
            server, before, upstream_at_kill=upstream_at_kill, streaming_s=streaming_s
        )

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    # ------------------------------------------------------------------ starting

    def _load_server(self, point: str | None) -> tuple[Child, ControlPage]:
        """A server that has loaded its code and waits for its start."""
        self._servers += 1
        control = self._folder / f"control-{self._servers}"
        page = ControlPage(control, create=True)
        plan = {
            "folder": str(self._folder),
            "port": self._port,
            "upstream": self._upstream_url,
            "database": self._database.url,
            "synchronous": self._plan.synchronous,
            "control": str(control),
            "point": point,
            "occurrence": self._choose.randint(1, 6),
            "mutant": self._plan.mutant,
        }
        if point is not None and point in ("recovery-begin", "recovery-commit", "recovery-release"):
            plan["occurrence"] = -(-HELD_RUNS * self._plan.scale // BATCH)  # the last batch's
        log = self._log(f"server-{self._servers}")
        return self._children.add(Child.module("server", json.dumps(plan), log)), page

    def _start_server(self) -> tuple[Child, ControlPage]:
        server, page = self._idle.pop(0)
        server.go()
        return server, page

    def _start_clients(self) -> list[Child]:
        plans = [*self._held_plans(), *self._chat_plans()]
        plans.append({"name": "watch", "watch": True, "bodies": []})
        return [
            self._children.add(
                Child.client(
                    json.dumps({"port": self._port, "folder": str(self._folder), **plan}),
                    self._log("clients"),
                )
            )
            for plan in plans
        ]

    def _held_plans(self) -> Iterator[dict[str, Any]]:
        counts = {Kind.LONG: LONG, Kind.BURST: BURST, Kind.SLOW: SLOW}
        for kind, count in counts.items():
            for number in range(count * self._plan.scale):
                name = f"{kind}{number:02}"
                yield {
                    "name": name,
                    "bodies": [{"message": question(kind, f"{name}.00")}],
                    "resume": self._choose.choice(["no", "get", "post"]),
                }

    def _chat_plans(self) -> Iterator[dict[str, Any]]:
        kinds = [Kind.SHORT, Kind.SHORT, Kind.SHORT, Kind.ERROR, Kind.CUT, Kind.EMPTY]
        for number in range(CHATS):
            name = f"chat{number:02}"
            yield {
                "name": name,
                "bodies": [
                    {"message": question(self._choose.choice(kinds), f"{name}.{place:02}")}
                    for place in range(CHAT_QUESTIONS)
                ],
                "resume": "no",
            }

    def _wait_for_traffic(self) -> None:
        """Wait until every long answer is being written and answers keep ending."""
        held = HELD_RUNS * self._plan.scale

        def flows() -> bool:
            log = read_upstream(self._folder / "upstream.txt")
            asked = [name for name in log.asked if name.startswith(HELD)]
            slow = SLOW * self._plan.scale
            warm = [name for name in asked if log.sent.get(name, 0) >= WARM_FRAMES]
            return len(asked) == held and len(warm) == held - slow and self._answered()

        wait_until(flows, REACH_S, f"{held} answers in flight")

    def _answered(self) -> bool:
        return all(
            (self._folder / f"chat{number:02}.{WARM_ANSWERS:02}.request").exists()
            for number in range(CHATS)
        )

    # ------------------------------------------------------------------ the kill

    def _kill(self, server: Child, page: ControlPage) -> None:
        point = self._plan.point
        if point is None:
            time.sleep(self._choose.uniform(0, 0.5))  # the random instant
            server.send(signal.SIGKILL)
        else:
            page.arm()
        self._gather(server, page, point)

    def _gather(self, server: Child, page: ControlPage, point: str | None) -> None:
        """Keep what the dead server left behind."""
        what = f"the point {point}" if point is not None else "the kill"
        wait_until(lambda: not server.running, REACH_S, what)
        if server.wait(0) != -signal.SIGKILL:
            raise Stuck(f"the server ended by itself, see {server.log.name}")
        target = self._folder / f"kill-{len(self._kills) + 1}"
        target.mkdir()
        image = self._database.left_behind(target)
        record = self._folder / "killed.json"
        found = None
        if record.exists():
            shutil.move(record, target)
            found = json.loads((target / record.name).read_text())
        self._kills.append(Kill(image, page.place, point, found))
        page.close()

    def _wait_for_recovery(self) -> None:
        """Wait until no message of the dead servers is streaming."""
        left = {
            message_id
            for kill in self._kills
            for message_id, message in kill.image.messages.items()
            if message["status"] == "streaming"
        }
        streaming = self._database.streaming
        try:
            wait_until(lambda: not left & streaming(), RECOVERY_S, "recovery")
        except Stuck:
            late = len(left & streaming())
            text = f"{late} messages are streaming {RECOVERY_S:g} s after the restart"
            raise Broken("P3", text) from None

    def _wait_for_clients(self, clients: list[Child]) -> None:
        """Wait until all have gone; the checks say what one lacks that had to be sent away."""
        with contextlib.suppress(Stuck):
            wait_until(lambda: not any(c.running for c in clients), SETTLE_S, "the clients' end")
        for client in clients:
            client.close()

    # ------------------------------------------------------------------ looking

    def _look(self, server: Child, before: set[Path], **seen: Any) -> Evidence:
        """Ask the restarted server for everything there is, and stop it."""
        clients = read_clients(self._folder, before)
        again = {asked.name: self._ask(asked.request) for asked in clients}
        image = self._settled()
        runs = {run_id: self._json(f"/api/v1/runs/{run_id}") for run_id in image.runs}
        streams = {run_id: self._get(f"/api/v1/runs/{run_id}/events") for run_id in image.runs}
        sessions = {run.row["session_id"] for run in image.runs.values()}
        messages = {
            session: self._json(f"/api/v1/sessions/{session}/messages?limit=200")
            for session in sessions
        }
        server.send(signal.SIGTERM)
        return Evidence(
            exit_code=server.wait(SETTLE_S),
            clients=clients,
            watched=read_responses((self._folder / "watch.raw").read_bytes()),
            kills=self._kills,
            upstream=read_upstream(self._folder / "upstream.txt"),
            final=self._database.image(),
            runs=runs,
            streams=streams,
            messages=messages,
            again=again,
            logs=sorted(self._folder.glob("server-*.log")),
            **seen,
        )

    def _settled(self) -> Image:
        """The database once no run is live; with a broken server, as it is."""
        image = self._database.image
        with contextlib.suppress(Stuck):  # the checks say which run has no ending
            wait_until(lambda: not image().live, RECOVERY_S, "the end of all runs")
        return image()

    def _get(self, path: str) -> Response:
        return self._ask(request("GET", path))

    def _json(self, path: str) -> Any:
        response = self._get(path)
        return response.json if response.whole else {}

    def _ask(self, data: bytes) -> Response:
        """The answer to a request, as far as it comes."""
        raw = b""
        with socket.create_connection((HOST, self._port), timeout=SETTLE_S) as link:
            link.sendall(data)
            try:
                while part := link.recv(262_144):
                    raw += part
            except TimeoutError:
                asked = data.partition(b"\r\n")[0].decode()
                raise Broken("P5", f"{asked} is not answered to its end") from None
        return (read_responses(raw) or [Response(0, {}, b"", whole=False)])[0]


def free_port(choose: random.Random) -> int:
    for _ in range(100):
        port = choose.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise Stuck("no free port")


def play(plan: Plan, folder: Path, server: PostgresServer | None = None) -> Result:
    """Run a round: on PostgreSQL if there is a server, else on SQLite."""
    folder = folder.absolute()
    folder.mkdir(parents=True)  # must be new
    with closing(PostgresDatabase(server) if server else SqliteDatabase(folder)) as database:
        return Round(plan, folder, database).run()


def mutant_plan(name: str, seed: str) -> Plan:
    """The round that must find a mutant out."""
    return Plan(seed, point=MUTANTS[name].point, mutant=name)
