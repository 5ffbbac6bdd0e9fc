"""Sortable ids in the form of UUID version 7 (RFC 9562, section 5.7)."""

import os
import threading
import time

_lock = threading.Lock()
_last = {True: 0, False: 0}
"""The last id by this machine's clock, and the last by another one, which may be far behind it."""


def new_id(at_ms: int | None = None) -> str:
    """A new id, larger than every id that this process made before by the same clock.

    Args:
        at_ms: The time in it, in milliseconds since the Unix epoch (default: this machine's).

    48 bits of Unix time in milliseconds, then 74 random bits; within a millisecond they count up
    in random steps (RFC 9562, section 6.2, method 2).
    """
    own = at_ms is None
    if at_ms is None:
        at_ms = time.time_ns() // 1_000_000
    value = at_ms << 80 | int.from_bytes(os.urandom(10), "big")
    with _lock:
        if value <= _last[own]:
            value = _last[own] + (int.from_bytes(os.urandom(4), "big") + 1 << 6)
        _last[own] = value
    # The lowest 6 of the 80 bits make room for version and variant, so steps are 64 and more.
    stamped = (value >> 80 << 80) | 0x7 << 76 | (value >> 68 & 0xFFF) << 64
    stamped |= 0b10 << 62 | (value >> 6 & (1 << 62) - 1)
    text = f"{stamped:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
