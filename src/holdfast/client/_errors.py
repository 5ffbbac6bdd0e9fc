"""What a client raises: the error that a response stands for, or that there is no response."""

from typing import Any, Final

import msgspec

from holdfast import errors

_BY_CODE: Final[dict[str, type[errors.HoldfastError]]] = {
    kind.code: kind
    for kind in (
        errors.BadRequest,
        errors.Unauthorized,
        errors.Forbidden,
        errors.NotFound,
        errors.MethodNotAllowed,
        errors.Conflict,
        errors.RunActive,
        errors.TooLarge,
        errors.UnsupportedMediaType,
        errors.IdempotencyMismatch,
        errors.TooManyRequests,
        errors.Unavailable,
        errors.StoreUnavailable,
        errors.Draining,
        errors.Fenced,
    )
}


class ServerUnreachable(errors.HoldfastError):
    """Nobody answers at the server's address, or not any more.

    Attributes:
        reached: Whether a server was there at first; it may have taken the question.
    """

    code = "server_unreachable"

    def __init__(self, message: str, *, reached: bool) -> None:
        """Keep whether asking anew would be asking twice."""
        super().__init__(message)
        self.reached = reached


class Broken(Exception):
    """A connection failed in a way that another one may not."""

    def __init__(
        self,
        cause: str,
        *,
        reached: bool = True,
        refusal: errors.HoldfastError | None = None,
        retry_after_s: float = 0,
    ) -> None:
        """Keep what is known of it.

        Args:
            cause: In a few words.
            reached: Whether anybody was there.
            refusal: What the server said, if it was one of Holdfast that said something.
            retry_after_s: How long it asked to be left alone.
        """
        super().__init__(cause)
        self.reached = reached
        self.refusal = refusal
        self.retry_after_s = retry_after_s


def told_error(body: bytes) -> errors.HoldfastError | None:
    """The error that a response's body tells in Holdfast's words; None if it is in other words."""
    answer = _json_object(body)
    told = answer.get("error")
    if not isinstance(told, dict):
        return None
    code, text = str(told.get("code")), str(told.get("message"))
    extra = {key: value for key, value in told.items() if key not in {"code", "message"}}
    if code == errors.CursorAhead.code:
        return errors.CursorAhead(text, answer.get("message"), **extra)
    return _BY_CODE.get(code, errors.HoldfastError)(text, **extra)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}
