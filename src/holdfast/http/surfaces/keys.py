"""Managing keys while the server runs, under /api/v1/keys."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from starlette.responses import Response
from starlette.types import ASGIApp

from holdfast.http.endpoint import Call, json_response
from holdfast.http.operation import Operation
from holdfast.http.shapes import timestamp
from holdfast.runner.keys import GIVEN, NAME_CHARS, NewKey
from holdfast.runner.supervisor import Supervisor
from holdfast.settings.api_keys import OWNER_BYTES
from holdfast.store.port import KeyRecord

SCOPE = "admin"
NO_STORE = {"Cache-Control": "no-store"}

Bound = Annotated[int, Meta(ge=0, le=1_000_000)]


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key is to be."""

    owner: Annotated[str, Meta(max_length=OWNER_BYTES)]
    """Whose sessions it opens."""
    name: Annotated[str, Meta(max_length=NAME_CHARS)] = ""
    """What people call it."""
    scopes: tuple[Literal["chat", "admin", "debug"], ...] = ("chat",)
    concurrent_runs: Bound | None = None
    """How many live runs it may have; 0: no limit, none: as the settings say."""
    asks_per_minute: Bound | None = None
    """How many questions it may ask within a minute; 0: no limit, none: as the settings say."""


class KeyShape(msgspec.Struct, frozen=True, kw_only=True):
    """A key, without the key itself."""

    id: str
    owner: str
    name: str
    scopes: tuple[str, ...]
    concurrent_runs: int | None
    asks_per_minute: int | None
    source: Literal["store", "environment"]
    created_at: str | None
    revoked_at: str | None


class KeyCreated(KeyShape, frozen=True, kw_only=True):
    """A new key. It is shown this once."""

    key: str


class KeyList(msgspec.Struct, frozen=True):
    """Every key, revoked ones too."""

    items: list[KeyShape]
    next: str | None = None


def key_fields(key: KeyRecord) -> dict[str, object]:
    """A key as the members of `KeyShape`."""
    given = key.id.startswith(GIVEN)
    return {
        "id": key.id,
        "owner": key.owner,
        "name": key.name,
        "scopes": key.scopes,
        "concurrent_runs": key.concurrent_runs,
        "asks_per_minute": key.asks_per_minute,
        "source": "environment" if given else "store",
        "created_at": None if given else timestamp(key.created_at),
        "revoked_at": timestamp(key.revoked_at),
    }


class KeyRoutes:
    """The functions behind the routes."""

    def __init__(self, supervisor: Supervisor) -> None:
        """Manage the keys of `supervisor`."""
        self._keys = supervisor.keys
        self._body_bytes = supervisor.settings.limits.body_bytes

    async def create_key(self, call: Call) -> ASGIApp:
        """Make a key. It counts at once, and is shown in this answer only.

        The first key closes the server to everybody who has none.
        """
        body = await call.json_body(KeyRequest, self._body_bytes)
        key, record = await self._keys.create(NewKey(**msgspec.structs.asdict(body)))
        created = msgspec.convert({**key_fields(record), "key": key}, KeyCreated)
        return json_response(created, 201, NO_STORE)

    async def list_keys(self, call: Call) -> ASGIApp:
        """Every key, revoked ones too; none of them is shown."""
        keys = await self._keys.list()
        return json_response(KeyList([msgspec.convert(key_fields(key), KeyShape) for key in keys]))

    async def revoke_key(self, call: Call) -> ASGIApp:
        """Make a key useless, at once; twice is no error."""
        await self._keys.revoke(call.path_params["id"])
        return Response(status_code=204)


def operations(supervisor: Supervisor) -> list[Operation]:
    """Managing keys."""
    routes = KeyRoutes(supervisor)
    return [
        Operation(
            "POST",
            "/api/v1/keys",
            routes.create_key,
            "Make a key; it is shown once",
            body=KeyRequest,
            answer=KeyCreated,
            status=201,
            scope=SCOPE,
            example={"owner": "alice", "name": "alice's phone"},
        ),
        Operation(
            "GET",
            "/api/v1/keys",
            routes.list_keys,
            "Every key, without the keys themselves",
            answer=KeyList,
            scope=SCOPE,
        ),
        Operation(
            "DELETE",
            "/api/v1/keys/{id}",
            routes.revoke_key,
            "Make a key useless",
            status=204,
            scope=SCOPE,
        ),
    ]
