"""What is told when an upstream answers with something else than an answer.

An error text is for people, goes into the store and must not hold a secret.
"""

from collections.abc import Iterable
from typing import Any, Final

from holdfast.upstreams.lenient import decode_any, repair

ERROR_CHARS: Final = 500
BODY_BYTES: Final = 64_000
"""How much of a refusal's body is read."""


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
    return text if len(text) <= ERROR_CHARS else text[: ERROR_CHARS - 1] + "…"


def without(secrets: Iterable[str], text: str) -> str:
    """The text with every secret that it repeats blacked out."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return text
