"""JSON that a strict reader refuses, although people can read it."""

import json
import math
from typing import Any

import msgspec


def repair(data: bytes) -> bytes | None:
    """The same JSON as a strict reader takes it; None if it is no JSON at all.

    Bytes that are not UTF-8 and halves of surrogate pairs become U+FFFD; some servers send them
    when they cut their text inside a character. Control characters in strings are kept. Numbers
    that JSON does not have, such as NaN, become null.
    """
    try:
        value = json.loads(
            data.decode("utf-8-sig", "replace"),
            strict=False,
            parse_constant=_no_number,
            parse_float=_finite,
        )
        text = json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def decode_any(data: bytes) -> Any:
    """The value of some JSON, repaired if need be; an empty object if it is none."""
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError):
        pass
    try:
        return msgspec.json.decode(repair(data) or b"{}")
    except (ValueError, RecursionError):
        return {}


def _no_number(_: str) -> None:
    return None


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None
