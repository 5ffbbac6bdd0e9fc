"""Tables out of results: medians over rounds, ratios inside a round, goals."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.loads import LOADS, Load
from bench.measure import Result
from bench.targets import DIRECT, RELAY, TARGETS, Target

NONE = "-"


@dataclass(frozen=True)
class Cell:
    """All results of one target under one load, and those of its round-mates to compare with."""

    load: Load
    target: Target
    results: Sequence[Result]
    relay: dict[int, Result]
    direct: dict[int, Result]

    def cost(self, result: Result) -> float | None:
        """CPU per unit of the load, in microseconds."""
        units = result.answers if self.load.measure == "answer" else result.chunks
        return None if result.cpu_us is None or not units else result.cpu_us / units

    def costs(self) -> list[float]:
        return [cost for cost in map(self.cost, self.results) if cost is not None]

    def ratios(self) -> list[float]:
        """Times the relay of the same round."""
        pairs = [
            (self.cost(result), self.cost(self.relay[result.round]))
            for result in self.results
            if result.round in self.relay
        ]
        return [mine / base for mine, base in pairs if mine is not None and base]

    def added(
        self, field: Callable[[Result], tuple[float, float]], base: dict[int, Result]
    ) -> tuple[float, float] | None:
        """Milliseconds over the same quantile of the base in the same round: p50, p99."""
        pairs = [
            (field(result), field(base[result.round]))
            for result in self.results
            if result.round in base
        ]
        if not pairs or self.target == DIRECT:
            return None
        return (
            median(mine[0] - other[0] for mine, other in pairs),
            median(mine[1] - other[1] for mine, other in pairs),
        )

    def database_cost(self) -> float | None:
        """PostgreSQL's CPU per unit of the load, in microseconds."""
        by_answer = self.load.measure in ("answer", "first")
        costs = [
            result.database_cpu_us / max(result.answers if by_answer else result.chunks, 1)
            for result in self.results
            if result.database_cpu_us is not None
        ]
        return median(costs) if costs else None

    def commit_rate(self) -> float | None:
        rates = [r.commits / r.wall_s for r in self.results if r.commits is not None]
        return median(rates) if rates else None

    def reached(self) -> tuple[float, ...] | None:
        """What is held against the goal, in its unit."""
        match self.load.measure:
            case "memory":
                sizes = [r.stream_kib for r in self.results if r.stream_kib is not None]
                return (median(sizes),) if sizes else None
            case "first":
                return self.added(_first, self.direct)
            case "chunk" | "answer":
                ratios = self.ratios()
                return (median(ratios),) if ratios else None

    def verdict(self) -> str:
        goal, reached = self.load.goal, self.reached()
        if not goal or not self.target.has_goal or reached is None:
            return NONE
        kept = all(value <= limit for value, limit in zip(reached, goal, strict=True))
        limits = " / ".join(f"{limit:g}" for limit in goal)
        return f"<= {limits} {'ok' if kept else 'ABOVE'}"


def _first(result: Result) -> tuple[float, float]:
    return result.first_ms


def _latency(result: Result) -> tuple[float, float]:
    return result.latency_ms


def _pair(values: tuple[float, float] | None) -> str:
    return NONE if values is None else f"{values[0]:.2f} / {values[1]:.2f}"


def _spread(values: Sequence[float], digits: int = 1) -> str:
    if not values:
        return NONE
    return " / ".join(f"{v:.{digits}f}" for v in (min(values), median(values), max(values)))


def _number(value: float | None, digits: int = 0) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _whole(cell: Cell) -> str:
    return f"{sum(r.whole for r in cell.results)}/{sum(r.answers for r in cell.results)}"


def _peak(cell: Cell) -> str:
    return _number(max((r.peak_mib for r in cell.results if r.peak_mib is not None), default=None))


def _ratio(cell: Cell) -> str:
    ratios = cell.ratios()
    return _number(median(ratios) if ratios else None, 2)


Column = tuple[str, Callable[[Cell], str]]

_TARGET: Column = ("target", lambda cell: cell.target.name)
_GOAL: Column = ("goal, first", Cell.verdict)
_TAIL: tuple[Column, ...] = (
    ("database us", lambda cell: _number(cell.database_cost(), 1)),
    ("commits/s", lambda cell: _number(cell.commit_rate())),
    ("peak MiB", _peak),
    ("tools us/chunk", lambda cell: _number(_tools_cost(cell), 1)),
    ("whole", _whole),
    _GOAL,
)
_COLUMNS: dict[str, tuple[Column, ...]] = {
    "chunk": (
        _TARGET,
        ("CPU us/chunk", lambda cell: _spread(cell.costs())),
        ("x relay", _ratio),
        ("latency added ms", lambda cell: _pair(cell.added(_latency, cell.direct))),
        ("first added ms", lambda cell: _pair(cell.added(_first, cell.direct))),
        *_TAIL,
    ),
    "answer": (
        _TARGET,
        ("CPU us/answer", lambda cell: _spread(cell.costs(), 0)),
        ("x relay", _ratio),
        ("first added ms", lambda cell: _pair(cell.added(_first, cell.direct))),
        *_TAIL,
    ),
    "first": (
        _TARGET,
        ("first token ms", lambda cell: _pair(_median_pair(map(_first, cell.results)))),
        ("over direct", lambda cell: _pair(cell.added(_first, cell.direct))),
        ("over relay", lambda cell: _pair(cell.added(_first, cell.relay))),
        ("CPU us/answer", lambda cell: _spread(_cpu_per_answer(cell), 0)),
        *_TAIL,
    ),
    "memory": (
        _TARGET,
        (
            "KiB per idle stream",
            lambda cell: _spread([r.stream_kib for r in cell.results if r.stream_kib is not None]),
        ),
        ("peak MiB", _peak),
        ("open", _whole),
        _GOAL,
    ),
}


def _tools_cost(cell: Cell) -> float:
    return median(r.tools_cpu_us / max(r.chunks, 1) for r in cell.results)


def _cpu_per_answer(cell: Cell) -> list[float]:
    return [r.cpu_us / r.answers for r in cell.results if r.cpu_us is not None and r.answers]


def _median_pair(pairs: Iterable[tuple[float, float]]) -> tuple[float, float]:
    first, second = zip(*pairs, strict=True)
    return median(first), median(second)


def table(load: Load, results: Sequence[Result]) -> str:
    """One load's table as text."""
    of_load = [result for result in results if result.load == load.name]
    relay, direct = (
        {r.round: r for r in of_load if r.target == base.name} for base in (RELAY, DIRECT)
    )
    cells = [
        Cell(load, target, mine, relay, direct)
        for target in TARGETS
        if (mine := [result for result in of_load if result.target == target.name])
    ]
    columns = _COLUMNS[load.measure]
    rows = [[name for name, _ in columns]]
    rows += [[write(cell) for _, write in columns] for cell in cells]
    return "\n".join([f"{load.name}: {load.title}", *align(rows)])


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines whose columns are below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


def commits_against_tokens(results: Sequence[Result]) -> list[str]:
    """For each target with a journal: how its commits follow four times the tokens."""
    slow, fast = (load for load in LOADS if load.name in ("paced64", "paced64x4"))
    lines = []
    for target in TARGETS:
        rates = []
        for load in (slow, fast):
            mine = [r for r in results if r.load == load.name and r.target == target.name]
            cell = Cell(load, target, mine, {}, {})
            tokens = median(r.chunks / r.wall_s for r in mine) if mine else 0
            rates.append((tokens, cell.commit_rate()))
        (few, low), (many, high) = rates
        if low and high:
            lines.append(
                f"{target.name}: {few:.0f} tokens/s: {low:.0f} commits/s; "
                f"{many:.0f} tokens/s: {high:.0f} commits/s; "
                f"tokens x {many / few:.1f}, commits x {high / low:.2f}"
            )
    return lines
