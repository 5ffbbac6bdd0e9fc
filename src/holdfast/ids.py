"""Sortable ids in the form of UUID version 7 (RFC 9562, section 5.7)."""

import os
import threading
import time
import uuid

_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """A new id, larger than every id that this process made before.

    48 bits of Unix time in milliseconds, then 74 random bits, of which the first 12 and the
    version's neighbours count up within a millisecond (RFC 9562, section 6.2, method 2).
    """
    global _last
    value = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10), "big")
    with _lock:
        if value <= _last:
            value = _last + (int.from_bytes(os.urandom(4), "big") << 8) + 1
        _last = value
    # The counter runs over all 80 bits; version and variant are laid over a copy of it.
    stamped = (value >> 80 << 80) | 0x7 << 76 | (value >> 68 & 0xFFF) << 64
    stamped |= 0b10 << 62 | (value >> 6 & (1 << 62) - 1)
    return str(uuid.UUID(int=stamped))
