"""What is told when an upstream answers with something else than an answer.

An error text is for people, goes into the store and must not hold a secret.
"""

import html
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from holdfast.upstreams.decoding.lenient import decode_any, repair

ERROR_CHARS: Final = 500
CUT: Final = "…"
"""Stands where a text was cut off."""
BEGINNING_CHARS: Final = 4
"""So much of a secret tells something of it."""
BODY_BYTES: Final = 64_000
"""How much of a refusal's body is read."""
KEPT_BYTES: Final = 4_096
"""How much of it is kept for people who debug."""


def error_text(value: Any, depth: int = 3) -> str:
    """The words for people in a decoded error body, whatever its form; "" if there are none."""
    if isinstance(value, str):
        return clean(value)
    if not isinstance(value, dict) or depth == 0:
        return ""
    code = value.get("code") or value.get("type")
    code = str(code) if isinstance(code, str | int) else ""
    for name in ("error", "message", "detail", "msg", "error_message"):
        text = error_text(value.get(name), depth - 1)
        if text:
            return clean(f"{text} ({code})") if code and code not in text else text
    return clean(code)


def body_text(content_type: str, body: bytes) -> str:
    """The words for people in an error body; an HTML page has none."""
    data = repair(body)
    if data is not None:
        return error_text(decode_any(data))
    if "html" in content_type or body.lstrip()[:1] == b"<":
        return ""
    return clean(body[: 4 * ERROR_CHARS].decode("utf-8", "replace"))


def clean(text: str) -> str:
    """The text on one line and not too long."""
    text = " ".join(text.split())
    return text if len(text) <= ERROR_CHARS else text[: ERROR_CHARS - 1] + CUT


def kept_text(secrets: Iterable[str], body: bytes) -> str:
    """The beginning of a body as text, for people who debug, with every secret blacked out."""
    text = body[:BODY_BYTES].decode("utf-8", "replace")
    # The body may have been cut in the middle of a secret; `without` knows that by the mark.
    text = without(_written(secrets), text + CUT).removesuffix(CUT)
    kept = text.encode()
    if len(kept) <= KEPT_BYTES:
        return text
    return kept[: KEPT_BYTES - len(CUT.encode())].decode("utf-8", "ignore") + CUT


def _written(secrets: Iterable[str]) -> Iterator[str]:
    """Each secret in the forms in which it may stand in JSON and HTML."""
    for secret in secrets:
        quoted = json.dumps(secret)[1:-1]
        forms = (secret, quoted, quoted.replace("/", "\\/"), html.escape(secret))
        yield from dict.fromkeys(forms)


def without(secrets: Iterable[str], text: str) -> str:
    """The text with every secret that it repeats blacked out, also one that `clean` has cut."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
        for length in range(len(secret) - 1, BEGINNING_CHARS - 1, -1) if CUT in text else ():
            text = text.replace(secret[:length] + CUT, "***" + CUT)
    return text


def without_anywhere(secrets: Sequence[str], value: Any) -> Any:
    """A decoded JSON value with every secret in its texts blacked out."""
    match value:
        case str():
            return without(secrets, value)
        case dict():
            return {name: without_anywhere(secrets, item) for name, item in value.items()}
        case list() | tuple():
            return [without_anywhere(secrets, item) for item in value]
    return value
