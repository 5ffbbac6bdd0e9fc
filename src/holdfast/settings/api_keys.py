"""Keys from a variable, for containers: `HOLDFAST_API_KEYS="alice:KEY,bob:KEY:chat+debug"`.

Only digests of them leave this file, and no message quotes an entry: whatever is wrong with it,
it may hold a key.
"""

import hashlib
import re
from typing import Final, NamedTuple

from holdfast.errors import ConfigError

API_KEYS: Final = "HOLDFAST_API_KEYS"
SCOPES: Final = ("chat", "admin", "debug")
"""What a key may be for: asking and reading; managing keys; seeing what upstreams were sent."""
DEFAULT_SCOPES: Final = ("chat",)
OWNER_BYTES: Final = 255

_KEY: Final = re.compile(r"[!-9;-~]{16,255}")  # visible ASCII without the colon


class GivenKey(NamedTuple):
    """A key that is given from outside."""

    owner: str
    digest: str
    """See `digest_of`."""
    scopes: tuple[str, ...]


def digest_of(key: str) -> str:
    """SHA-256 of a key, in hexadecimal digits: all that is kept of it.

    A plain digest will do, since keys are long and random, unlike passwords.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def is_owner(name: str) -> bool:
    """Whether there can be an owner of this name."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size <= OWNER_BYTES and name.isprintable() and name == name.strip()


def parse_api_keys(text: str, source: str) -> tuple[GivenKey, ...]:
    """The keys that the variable's text lists.

    Args:
        text: `OWNER:KEY` or `OWNER:KEY:SCOPE+SCOPE`, with commas between.
        source: Where the variable was found, for messages.

    Raises:
        ConfigError: The text is malformed; the message says where, and quotes nothing.
    """
    where = f"{API_KEYS} ({source})"
    entries = [entry.strip() for entry in text.split(",")]
    keys = [
        _parse(entry, f"{where}: entry {place}") for place, entry in enumerate(entries, 1) if entry
    ]
    if not keys:
        raise ConfigError(f"{where} is set, but lists no key")
    places: dict[str, int] = {}
    for place, key in enumerate(keys, 1):
        first = places.setdefault(key.digest, place)
        if first != place:
            raise ConfigError(f"{where}: keys {first} and {place} are the same")
    return tuple(keys)


def _parse(entry: str, place: str) -> GivenKey:
    owner, *rest = entry.split(":")
    if not 1 <= len(rest) <= 2 or not is_owner(owner):
        raise ConfigError(f"{place} must be OWNER:KEY or OWNER:KEY:SCOPE+SCOPE")
    key = rest[0]
    if not _KEY.fullmatch(key):
        raise ConfigError(
            f"{place} needs a key of 16 to 255 letters, digits and signs, without colon and space"
        )
    scopes = tuple(rest[1].split("+")) if len(rest) == 2 else DEFAULT_SCOPES
    if not set(scopes) <= set(SCOPES) or len(set(scopes)) < len(scopes):
        raise ConfigError(f"{place} has scopes that do not exist; there are {', '.join(SCOPES)}")
    return GivenKey(owner, digest_of(key), scopes)
