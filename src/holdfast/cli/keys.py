"""`holdfast keys`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Protocol, TypeVar

import typer

from holdfast.cli import options
from holdfast.cli.terminal import Terminal
from holdfast.client import AsyncClient, ServerUnreachable
from holdfast.errors import HoldfastError, StoreLocked
from holdfast.settings import Settings, load
from holdfast.settings.api_keys import SCOPES

HELP = """
Make, list and revoke the keys that open a server.

The database is opened for it; if a server has it open, that server is asked, with the key in
HOLDFAST_API_KEY, which must have the scope admin. A server without any key takes every request,
and only listens on its own machine.

\b
Examples:
  holdfast keys create alice --name phone
  holdfast keys list
  holdfast keys revoke 01920f3c-5e1a-7c3b-9d2e-1f0a2b3c4d5e
"""

CREATE_HELP = """
Make a key for an owner. It is shown this once, alone on standard output.

\b
Examples:
  holdfast keys create alice
  holdfast keys create ops --scopes admin,debug
  holdfast keys create shop --concurrent-runs 200 --asks-per-minute 0
"""
REVOKE_HELP = "Make a key useless, at once."
LIST_HELP = "List the keys: their ids, owners and limits. The keys themselves are kept nowhere."

Json = dict[str, Any]
T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _bound(text: str) -> Any:
    return typer.Option(min=0, max=1_000_000, metavar="N", help=text, show_default="as settings")


@app.command("create", help=CREATE_HELP)
def create(
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="Whose sessions it opens.")],
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="What you call it.")] = "",
    scopes: Annotated[
        str,
        typer.Option("--scopes", metavar="LIST", help=f"Of {', '.join(SCOPES)}; with commas."),
    ] = SCOPES[0],
    concurrent_runs: Annotated[
        int | None, _bound("How many live runs it may have; 0: no limit.")
    ] = None,
    asks_per_minute: Annotated[
        int | None, _bound("How many questions it may ask in a minute; 0: no limit.")
    ] = None,
    url: options.Url = None,
    config: options.Config = None,
) -> None:
    """See CREATE_HELP."""
    wanted: Json = {
        "name": name,
        "scopes": [scope.strip() for scope in scopes.split(",") if scope.strip()],
        "concurrent_runs": concurrent_runs,
        "asks_per_minute": asks_per_minute,
    }
    key = _on_keys(load(config), url, lambda keys: keys.create_key(owner, **wanted))
    terminal = Terminal()
    terminal.say(f"Key {key['id']} of {key['owner']}, for {', '.join(key['scopes'])}:")
    terminal.line(key["key"])
    terminal.say("It is not shown again. Requests send it as `Authorization: Bearer KEY`.")


@app.command("list", help=LIST_HELP)
def list_keys(url: options.Url = None, config: options.Config = None) -> None:
    """See LIST_HELP."""
    settings, terminal = load(config), Terminal()
    if not (url or settings.api_keys or options.database_exists(settings)):
        terminal.say("There are no keys.")  # nor is there anything to look into
        return
    found = _on_keys(settings, url, lambda keys: keys.keys())
    if not found:
        terminal.say("There are no keys.")
        return
    rows: list[tuple[str, ...]] = [
        ("ID", "OWNER", "NAME", "SCOPES", "RUNS", "ASKS/MIN", "CREATED", "REVOKED")
    ]
    rows += [_row(key) for key in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminal.line("  ".join(cells).rstrip())


@app.command("revoke", help=REVOKE_HELP)
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, from the list.")],
    url: options.Url = None,
    config: options.Config = None,
) -> None:
    """See REVOKE_HELP."""
    _on_keys(load(config), url, lambda keys: keys.revoke_key(key_id))
    Terminal().say(f"Key {key_id} is revoked.")


def _row(key: Json) -> tuple[str, ...]:
    limits = (key["concurrent_runs"], key["asks_per_minute"])
    runs, asks = ("-" if bound is None else str(bound or "any") for bound in limits)
    scopes = ",".join(key["scopes"])
    created = "(environment)" if key["source"] == "environment" else key["created_at"]
    named = (key["id"], key["owner"], key["name"] or "-", scopes)
    return (*named, runs, asks, created or "-", key["revoked_at"] or "-")


# ---------------------------------------------------------------------- where the keys are


class Keys(Protocol):
    """Manages keys, over HTTP or in the database; what it gives is as HTTP has it."""

    async def create_key(self, owner: str, **options: Any) -> Json:
        """Make a key."""

    async def keys(self) -> Sequence[Json]:
        """All keys."""

    async def revoke_key(self, key_id: str) -> None:
        """Make a key useless."""


def _on_keys(settings: Settings, url: str | None, work: Callable[[Keys], Awaitable[T]]) -> T:
    """Do `work` where the keys are."""

    async def do() -> T:
        if url:
            return await _with_server(settings, url, work)
        try:
            async with _database(settings) as keys:
                return await work(keys)
        except StoreLocked as locked:
            try:
                return await _with_server(settings, options.server_url(settings), work)
            except ServerUnreachable as error:
                raise HoldfastError(
                    f"{locked.message}, and there is {error.message}; name that server with --url"
                ) from None

    return asyncio.run(do())


async def _with_server(settings: Settings, url: str, work: Callable[[Keys], Awaitable[T]]) -> T:
    async with AsyncClient(url, api_key=options.api_key(settings)) as client:
        return await work(client)


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Keys]:
    from holdfast.store.factory import opened

    async with opened(settings.storage) as store:
        yield _StoredKeys(settings, store)


class _StoredKeys:
    """The keys in a database that no server has open."""

    def __init__(self, settings: Settings, store: Any) -> None:
        from holdfast.clock import now_ms
        from holdfast.runner.keys import KeyRing

        async def submit(write: Any, on_result: Callable[[Any], None]) -> Any:
            (result,) = await store.commit([write])
            on_result(result)
            if isinstance(result, Exception):
                raise result
            return result

        self._ring = KeyRing(settings.api_keys, store, submit, now_ms)

    async def create_key(self, owner: str, **options: Any) -> Json:
        from holdfast.http.surfaces.keys import key_fields
        from holdfast.runner.keys import NewKey

        options["scopes"] = tuple(options["scopes"])
        key, record = await self._ring.create(NewKey(owner=owner, **options))
        return {**key_fields(record), "key": key}

    async def keys(self) -> list[Json]:
        from holdfast.http.surfaces.keys import key_fields

        return [key_fields(key) for key in await self._ring.list()]

    async def revoke_key(self, key_id: str) -> None:
        await self._ring.revoke(key_id)
