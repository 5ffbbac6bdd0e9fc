"""The tables of the scenes with several nodes."""

from collections.abc import Callable, Sequence

from bench.report import NONE, align
from bench.scenes import NODES, ROWS, Idle, Outcome

Column = tuple[str, Callable[[Outcome], str]]


def _pair(values: tuple[float, float]) -> str:
    return f"{values[0]:.2f} / {values[1]:.2f}"


def _per(cost: float, units: float, digits: int = 1) -> str:
    return f"{cost / units:.{digits}f}" if units else NONE


def _place(outcome: Outcome) -> str:
    return "another" if outcome.scene.elsewhere else "same"


def _notifications(outcome: Outcome) -> str:
    """What wrote and was no commit of a run: hints, and now and then a heartbeat."""
    return _per(max(outcome.database.transactions - outcome.commits, 0), outcome.seconds, 0)


_DATABASE: Column = (
    "database us/chunk",
    lambda outcome: _per(outcome.database.cpu_us, outcome.chunks),
)
_COMMITS: Column = ("commits/s", lambda outcome: _per(outcome.commits, outcome.seconds, 0))
_HINTS: Column = ("hints/s", _notifications)
_WHOLE: Column = ("whole", lambda outcome: f"{outcome.whole}/{outcome.answers}")
_READ: tuple[Column, ...] = (
    ("reader's node", _place),
    ("asker ms", lambda outcome: _pair(outcome.latency_ms)),
    ("reader ms", lambda outcome: _pair(outcome.reader_latency_ms)),
    ("reader after asker ms", lambda outcome: _pair(outcome.lag_ms)),
)
_COLUMNS: dict[str, tuple[Column, ...]] = {
    "nodes": (
        ("nodes", lambda outcome: str(outcome.scene.asked_nodes)),
        ("nodes' us/chunk", lambda outcome: _per(outcome.asked_cpu_us, outcome.chunks)),
        (
            "x relay",
            lambda o: _per(o.asked_cpu_us / o.chunks, o.relay_us, 2) if o.relay_us else NONE,
        ),
        _DATABASE,
        ("latency ms", lambda outcome: _pair(outcome.latency_ms)),
        ("chunks/s", lambda outcome: _per(outcome.chunks, outcome.seconds, 0)),
        _COMMITS,
        ("WAL B/chunk", lambda outcome: _per(outcome.database.wal_bytes, outcome.chunks, 0)),
        _WHOLE,
    ),
    "elsewhere": (
        ("runs", lambda outcome: str(outcome.scene.load.streams)),
        *_READ,
        ("run's node us/chunk", lambda outcome: _per(outcome.asked_cpu_us, outcome.chunks)),
        ("other node us/chunk", lambda outcome: _per(outcome.reading_cpu_us, outcome.chunks)),
        _DATABASE,
        _COMMITS,
        _HINTS,
        _WHOLE,
    ),
    "readers": (
        ("readers", lambda outcome: str(outcome.scene.readers)),
        *_READ,
        (
            "us/delivery",
            lambda o: _per(o.asked_cpu_us + o.reading_cpu_us, o.deliveries),
        ),
        _DATABASE,
        ("database us to open one", lambda o: _per(o.opening_us, o.scene.readers, 0)),
        _HINTS,
        _WHOLE,
    ),
}


def tables(rows: Sequence[str], outcomes: Sequence[Outcome], idle: Sequence[Idle]) -> str:
    """One table for each row."""
    texts = []
    for row in rows:
        mine = [outcome for outcome in outcomes if outcome.scene.row == row]
        if mine:
            columns = _COLUMNS[row]
            cells = [[name for name, _ in columns]]
            cells += [[write(outcome) for _, write in columns] for outcome in mine]
            texts.append("\n".join([f"{row}: {ROWS[row]}", *align(cells)]))
    if idle:
        lines = [[name for name, _ in _IDLE], *([write(one) for _, write in _IDLE] for one in idle)]
        texts.append("\n".join([f"idle: {ROWS['idle']}", *align(lines)]))
    return "\n\n".join(texts)


def _each(total: float, idle: Idle) -> str:
    return f"{total / idle.seconds / NODES:.2f}"


_IDLE: tuple[tuple[str, Callable[[Idle], str]], ...] = (
    ("among rows of nodes", lambda idle: str(idle.crowd.nodes)),
    ("of live runs", lambda idle: str(idle.crowd.runs)),
    ("node ms CPU/s", lambda idle: _each(idle.node_cpu_us / 1000, idle)),
    ("database ms CPU/s and node", lambda idle: _each(idle.database.cpu_us / 1000, idle)),
    ("writes/s and node", lambda idle: _each(idle.database.transactions, idle)),
)
