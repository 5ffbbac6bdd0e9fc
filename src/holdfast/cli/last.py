"""Remembering the last question asked from this account, for `last` in place of an id."""

import contextlib
import os
from pathlib import Path

import msgspec

from holdfast.errors import ConfigError
from holdfast.events import RunStart

LAST = "last"


class Asked(msgspec.Struct, frozen=True):
    """Where a question went."""

    run_id: str
    session_id: str


def _file() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "holdfast" / "last.json"


def remember(start: RunStart) -> None:
    """Keep the run as the last one; not worth an error where nothing can be written."""
    with contextlib.suppress(OSError, RuntimeError):
        path = _file()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(Asked(start.run_id, start.session_id)))


def recall() -> Asked:
    """The last question.

    Raises:
        ConfigError: There is none.
    """
    try:
        return msgspec.json.decode(_file().read_bytes(), type=Asked)
    except (OSError, RuntimeError, msgspec.MsgspecError):
        raise ConfigError("there is no last question; give the id instead of `last`") from None
