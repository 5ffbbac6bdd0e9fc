"""The wall clock, in the unit of the store."""

import time


def now_ms() -> int:
    """Whole milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000
