"""The loads: the rows of the table of goals, and one that shows what commits follow."""

from dataclasses import dataclass
from typing import Literal

# Not a multiple of any pace, so that the streams' chunks are spread evenly over time.
RAMP_MS = 1030


@dataclass(frozen=True)
class Load:
    """What the generator asks for, and what is looked at."""

    name: str
    title: str
    streams: int
    chunks: int
    measure: Literal["chunk", "answer", "first", "memory"] = "chunk"
    pace_us: int = 0
    """Time between two chunks of a stream; 0: as fast as they are taken."""
    concurrency: int = 0
    """Streams open at a time; 0: all of them, started over the ramp if they are paced."""
    goal: tuple[float, ...] = ()
    """The first goal: times the relay; for `first` ms added at p50 and p99; for `memory` KiB."""
    deadline_s: int = 90
    held: bool = False
    """The answers wait after their first chunk until the upstream is told to go on."""

    @property
    def model(self) -> str:
        return f"bench-{self.chunks}-{self.pace_us}{'-held' if self.held else ''}"

    @property
    def ramp_ms(self) -> int:
        return RAMP_MS if self.pace_us and not self.concurrency else 0


WARM_UP = Load("warm-up", "", streams=200, chunks=20, concurrency=8, deadline_s=30)
"""So many that SQLite's log has got the size that it keeps: a file that grows is dearer to sync."""

LOADS = (
    Load(
        "paced64",
        "64 streams x 200 chunks, one each 20 ms",
        streams=64,
        chunks=200,
        pace_us=20_000,
        goal=(3.0,),
    ),
    Load(
        "paced1000",
        "1,000 streams x 60 chunks, one each 50 ms",
        streams=1000,
        chunks=60,
        pace_us=50_000,
        goal=(3.0,),
    ),
    # A busy relay passes on whatever came since its last turn, so its cost per chunk is what the
    # upstream's speed makes it. This rate is one that no decoding target can keep up with, and at
    # which the relay costs what it did when the goal was set.
    Load(
        "flood",
        "32 streams x 2,000 chunks, 256,000 offered per second",
        streams=32,
        chunks=2000,
        pace_us=125,
        concurrency=32,
        goal=(1.2,),
    ),
    Load(
        "burst",
        "32 streams x 2,000 chunks, as fast as the upstream can write",
        streams=32,
        chunks=2000,
        concurrency=32,
    ),
    Load(
        "short",
        "2,000 answers of 20 chunks at full rate, 16 at a time",
        measure="answer",
        streams=2000,
        chunks=20,
        concurrency=16,
        goal=(8.0,),
    ),
    Load(
        "ttft",
        "time to first token, 400 answers, 2 at a time",
        measure="first",
        streams=400,
        chunks=5,
        pace_us=5_000,
        concurrency=2,
        goal=(1.5, 4.0),
    ),
    Load(
        "memory",
        "memory with 1,000 idle streams open",
        measure="memory",
        streams=1000,
        chunks=2,
        pace_us=600_000_000,
        goal=(60.0,),
    ),
    Load(
        "paced64x4",
        "64 streams x 800 chunks, one each 5 ms: four times the tokens of paced64",
        streams=64,
        chunks=800,
        pace_us=5_000,
    ),
)
