"""`python -m bench.simulation`: from what was measured to what 1 to 1,000 nodes need.

    per node:      streams, chunks ──► commits, by the rule of the group commit ──► rows
    per cluster:   commits, rows, hints, reads, heartbeats ──► PostgreSQL: CPU, log, connections

It is arithmetic and leaves out what nobody measured: locks that many commits wait for, vacuum of
large tables, networks. So it tells what certainly does not work, and in which order things end.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.report import align
from holdfast.store.group_commit import MAX_SPACING_S, QUIET_RATE, SPACING_PER_RATE

NODES: Final = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "scaling.md"


@dataclass(frozen=True)
class Costs:
    """What things cost, measured by `make bench`; CPU in microseconds."""

    node_chunk: float = 50.0
    """Of a node: a chunk from the upstream to the one who asked (paced64)."""
    node_follow: float = 35.0
    """Of a node: a chunk of another node's run, to a reader here (elsewhere, 64 runs)."""
    commit: float = 650.0
    """Of PostgreSQL: a commit, without its rows (elsewhere, 1 run)."""
    row: float = 13.0
    """Of PostgreSQL: a row of the journal, in and out again (paced64, paced64x4)."""
    run: float = 950.0
    """Of PostgreSQL: a question with its run, and its end (short)."""
    hint: float = 600.0
    """Of PostgreSQL: telling one node of a commit, and its reading (elsewhere, 1 run)."""
    read_row: float = 20.0
    """Of PostgreSQL: a row that is read by another node (elsewhere, 64 runs)."""
    idle_node: float = 1250.0
    """Of PostgreSQL, each second: a node's heartbeat and its looking after others (idle)."""
    idle_run: float = 0.2
    """Of PostgreSQL, each second: a live run of anybody, as one node looks at it (idle)."""
    commit_s: float = 0.002
    """How long a commit takes, the flush to the disk with it (not measured: a usual SSD)."""
    row_wal: float = 480.0
    """Bytes of the write-ahead log for a row (paced64, paced64x4)."""
    run_wal: float = 5_000.0
    """Bytes of it for a run, besides its rows (short)."""
    connections: int = 10
    """Of a node: one that commits, one for hints, `storage.read_connections`."""


@dataclass(frozen=True)
class Load:
    """What people do, and how it is spread."""

    streams: int = 200
    """Live runs of each node."""
    chunks_per_s: float = 20.0
    """Of each run."""
    chunks: int = 400
    """Of a whole answer."""
    elsewhere: float = 0.1
    """The share of runs that somebody reads at another node than the run's."""


@dataclass(frozen=True)
class Limits:
    """What there is. A resource is at its end at `full` of it."""

    node_cores: float = 1.0
    """A node is one process with one busy thread."""
    database_cores: float = 16.0
    wal_bytes_per_s: float = 200e6
    connections: int = 500
    full: float = 0.7


@dataclass(frozen=True)
class Use:
    """What a number of nodes needs; rates are per second, of the whole cluster."""

    nodes: int
    streams: int
    chunks: float
    commits: float
    rows: float
    hints: float
    wal_bytes: float
    connections: int
    node_cores: float
    """Of each node."""
    database_cores: float

    def shares(self, limits: Limits) -> dict[str, float]:
        """How much of each resource is used; 1 is its end."""
        return {
            "node CPU": self.node_cores / limits.node_cores / limits.full,
            "database CPU": self.database_cores / limits.database_cores / limits.full,
            "log": self.wal_bytes / limits.wal_bytes_per_s / limits.full,
            "connections": self.connections / limits.connections,
        }

    def first_to_end(self, limits: Limits) -> tuple[str, float]:
        """The resource that is used most, and how much."""
        return max(self.shares(limits).items(), key=lambda share: share[1])

    def fits(self, limits: Limits) -> bool:
        """Whether nothing is at its end."""
        return self.first_to_end(limits)[1] <= 1


def spacing_s(rows_per_s: float) -> float:
    """How far apart the group commit puts its commits; see `holdfast.store.group_commit`."""
    return min(MAX_SPACING_S, max(0.0, (rows_per_s - QUIET_RATE) * SPACING_PER_RATE))


def commits_and_rows(streams: int, chunks_per_s: float, commit_s: float) -> tuple[float, float]:
    """Commits and rows per second of one node.

    A commit takes one row of each run that has something. The next one begins when it is done
    and the spacing is over, and as soon as there is anything.
    """
    if not streams or not chunks_per_s:
        return 0.0, 0.0
    chunks = streams * chunks_per_s
    low, high = 0.0, chunks
    for _ in range(60):  # more rows mean more spacing, which means fewer rows: they meet once
        rows = (low + high) / 2
        period = max(commit_s, spacing_s(rows))
        told = _rows(streams, chunks, period)
        low, high = (rows, high) if told > rows else (low, rows)
    period = max(commit_s, spacing_s(low))
    return chunks / (1 + chunks * period), _rows(streams, chunks, period)


def _rows(streams: int, chunks: float, period: float) -> float:
    """Runs that have something after a period, for each of the commits of a second."""
    commits = chunks / (1 + chunks * period)
    # Which run a chunk belongs to is chance; two of one run are one row.
    return commits * min(_different(streams, chunks / commits), chunks / commits)


def watching_nodes(nodes: int, watched_rows: float) -> float:
    """How many other nodes a commit with so many watched rows is told to."""
    return _different(nodes - 1, watched_rows) if nodes > 1 else 0.0


def _different(boxes: int, thrown: float) -> float:
    """How many of the boxes have something after so many throws."""
    return boxes * (1.0 - float((1.0 - 1.0 / boxes) ** thrown))


def simulate(nodes: int, load: Load, costs: Costs) -> Use:
    """What so many nodes under this load need."""
    elsewhere = load.elsewhere if nodes > 1 else 0.0
    streams = nodes * load.streams
    chunks = streams * load.chunks_per_s
    commits, rows = (
        nodes * rate for rate in commits_and_rows(load.streams, load.chunks_per_s, costs.commit_s)
    )
    runs = chunks / load.chunks
    hints = commits * watching_nodes(nodes, elsewhere * rows / commits) if commits else 0.0
    database_us = (
        commits * costs.commit
        + rows * costs.row
        + runs * costs.run
        + hints * costs.hint
        + rows * elsewhere * costs.read_row
        + nodes * (costs.idle_node + streams * costs.idle_run)
    )
    node_us = chunks / nodes * (costs.node_chunk + elsewhere * costs.node_follow)
    return Use(
        nodes=nodes,
        streams=streams,
        chunks=chunks,
        commits=commits,
        rows=rows,
        hints=hints,
        wal_bytes=rows * costs.row_wal + runs * costs.run_wal,
        connections=nodes * costs.connections,
        node_cores=node_us / 1e6,
        database_cores=database_us / 1e6,
    )


def largest_cluster(load: Load, costs: Costs, limits: Limits) -> int:
    """The most nodes that one PostgreSQL carries; every cost grows with the nodes."""
    low, high = 0, NODES[-1] + 1
    while high - low > 1:
        nodes = (low + high) // 2
        low, high = (nodes, high) if simulate(nodes, load, costs).fits(limits) else (low, nodes)
    return low


def clusters(nodes: int, largest: int) -> int | None:
    """How many clusters so many nodes are to be divided into; None if none carries even one."""
    return -(-nodes // largest) if largest else None


# ---------------------------------------------------------------------------- the tables

SCENARIOS: Final = (
    ("200 streams a node, 10 % of them read at another node", Load()),
    ("600 streams a node, which nearly fill its core", Load(streams=600)),
    (
        "200 streams a node, all read at another node, as after a rolling restart",
        Load(elsewhere=1.0),
    ),
)


def table(title: str, load: Load, costs: Costs, limits: Limits) -> str:
    """One line for each number of nodes."""
    largest = largest_cluster(load, costs, limits)
    head = (
        "nodes", "streams", "chunks/s", "commits/s", "rows/s", "hints/s", "log MB/s",
        "connections", "node cores", "database cores", "most used", "", "clusters",
    )  # fmt: skip
    lines = [head, *(_line(simulate(n, load, costs), limits, largest) for n in NODES)]
    last = f"One PostgreSQL carries {largest} nodes of this kind."
    return "\n".join([f"{title}:", *align(lines), last])


def _line(use: Use, limits: Limits, largest: int) -> tuple[str, ...]:
    name, share = use.first_to_end(limits)
    return (
        str(use.nodes),
        f"{use.streams:,}",
        f"{use.chunks:,.0f}",
        f"{use.commits:,.0f}",
        f"{use.rows:,.0f}",
        f"{use.hints:,.0f}",
        f"{use.wal_bytes / 1e6:,.1f}",
        f"{use.connections:,}",
        f"{use.node_cores:.2f}",
        f"{use.database_cores:,.1f}",
        name,
        f"{share:.0%}",
        str(clusters(use.nodes, largest) or "-"),
    )


def tables(costs: Costs, limits: Limits) -> str:
    """The tables of all scenarios."""
    return "\n\n".join(table(title, load, costs, limits) for title, load in SCENARIOS)


def with_tables(document: str, text: str) -> str:
    """The document with the tables between their markers."""
    begin, end = "<!-- simulation -->\n", "<!-- end of simulation -->"
    before, _, rest = document.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}```\n{text}\n```\n{end}{after}"


def main(arguments: Sequence[str]) -> int:
    """Print the tables, or write them into docs/scaling.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.simulation")
    parser.add_argument("--write", action="store_true", help="into docs/scaling.md")
    parser.add_argument("--database-cores", type=float, default=Limits.database_cores)
    parser.add_argument("--connections", type=int, default=Limits.connections)
    options = parser.parse_args(arguments)
    limits = replace(
        Limits(), database_cores=options.database_cores, connections=options.connections
    )
    text = tables(Costs(), limits)
    if options.write:
        DOCUMENT.write_text(with_tables(DOCUMENT.read_text(), text))
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
