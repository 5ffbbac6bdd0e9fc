"""Who may come in: keys on a server, the application's own function where Holdfast is embedded.

Both are `Admit`s for `routes.make_routes`. They note the owner in the request's scope, where
`Call.owner` finds it; a request without an owner gets no further.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from starlette.datastructures import Headers
from starlette.requests import Request

from holdfast.errors import Forbidden, Unauthorized
from holdfast.http.endpoint import KEY, OWNER, Call
from holdfast.runner.keys import KeyRing
from holdfast.settings.api_keys import DEFAULT_SCOPES

OwnerOf: TypeAlias = Callable[[Request], str | Awaitable[str | None] | None]
"""Tells whose request it is; None for a stranger. May raise an `HTTPException` instead."""

HOW: Final = "send one in the header `Authorization: Bearer KEY`"


class KeyGate:
    """Lets those in who have a key; everybody, as `local`, where there are no keys."""

    def __init__(self, keys: KeyRing) -> None:
        """Open to `keys`."""
        self._keys = keys

    async def __call__(self, call: Call, scope: str) -> None:
        """Pass for a key with this scope, and note its owner.

        Raises:
            Unauthorized: There is no key in the request, or none that is valid.
            Forbidden: The key may not do that.
        """
        if not self._keys.needed:
            return
        sent = bearer(call.headers)
        if sent is None:
            raise Unauthorized(f"this server wants a key: {HOW}")
        key = self._keys.find(sent)
        if key is None:
            raise Unauthorized("this key is not valid, or not any more")
        _check_scope(scope, key.scopes)
        call.scope[OWNER] = key.owner
        call.scope[KEY] = key


class OwnerGate:
    """Lets those in whom the embedding application knows."""

    def __init__(self, owner: OwnerOf) -> None:
        """Ask `owner` of each request whose it is."""
        self._owner = owner

    async def __call__(self, call: Call, scope: str) -> None:
        """Pass for a request with an owner, and note him.

        The application's users may do what a key may by default: raw requests, with what the
        application tells its upstreams, are not for them.

        Raises:
            Unauthorized: It is a stranger's.
            Forbidden: Users may not do that.
        """
        found = self._owner(call)
        owner = await found if inspect.isawaitable(found) else found
        if owner is None:
            raise Unauthorized("nobody is known to have sent this request")
        if not isinstance(owner, str) or not owner:
            raise TypeError(f"the function `owner` must give a str or None, not {type(owner)}")
        _check_scope(scope, DEFAULT_SCOPES)
        call.scope[OWNER] = owner


def bearer(headers: Headers) -> str | None:
    """The key that a request brings; None unless it brings exactly one.

    Only the header counts: a key in an address ends up in logs and histories.
    """
    values = headers.getlist("authorization")
    if len(values) != 1:
        return None
    scheme, _, key = values[0].strip().partition(" ")
    return (key.strip() or None) if scheme.lower() == "bearer" else None


def _check_scope(scope: str, scopes: tuple[str, ...]) -> None:
    if scope not in scopes:
        raise Forbidden(f"this needs the scope {scope}, which you do not have", scope=scope)
