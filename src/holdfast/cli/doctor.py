"""`holdfast doctor`."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import typer

from holdfast.cli import options
from holdfast.cli.codes import ExitCode
from holdfast.cli.terminal import Terminal
from holdfast.errors import HoldfastError, StoreLocked
from holdfast.settings import Settings, load
from holdfast.settings.api_keys import API_KEYS

if TYPE_CHECKING:
    from holdfast.upstreams.base import Upstream

HELP = """
Look whether settings, database, keys and upstreams are in order.

Exit codes: 0 all is well, 1 something is wrong, 2 the settings cannot be read.
"""


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


def doctor(config: options.Config = None) -> None:
    """See HELP."""
    logging.disable()  # whatever is wrong is a finding
    try:
        well = asyncio.run(_report(load(config), Terminal()))
    finally:
        logging.disable(logging.NOTSET)
    if not well:
        raise typer.Exit(ExitCode.FAILED)


async def _report(settings: Settings, terminal: Terminal) -> bool:
    well = True
    async for finding in _examine(settings):
        mark, style = ("ok  ", "green") if finding.ok else ("FAIL", "bold red")
        detail = f": {finding.detail}" if finding.detail else ""
        terminal.line(f"{mark} {finding.name}{detail}", style=style)
        well = well and finding.ok
    return well


async def _examine(settings: Settings) -> AsyncIterator[Finding]:
    async for finding in _examine_database(settings):
        yield finding
    if not settings.upstreams:
        yield Finding("upstreams", False, "there is none; holdfast serve says what to do")
    made: dict[str, Upstream] = {}
    for name in settings.upstreams:
        yield await _examine_upstream(name, settings, made)
    for finding in _examine_names(settings, made):
        yield finding


async def _examine_database(settings: Settings) -> AsyncIterator[Finding]:
    """Look into the database, and at the keys that it holds."""
    from holdfast.store.factory import make_store

    url, stored = settings.storage.shown_url, 0
    if not options.database_exists(settings):
        yield Finding("database", True, f"{url} is made at the first start")
        yield _keys(settings, stored)
        return
    try:
        store = make_store(settings.storage)
        try:
            await store.open()
            stored = sum(key.revoked_at is None for key in await store.list_keys())
        finally:
            await store.close()
    except StoreLocked:
        yield Finding("database", True, f"{url} is in use, by a running server most likely")
        yield _keys(settings, None)
    except HoldfastError as error:
        yield Finding("database", False, error.message)
    else:
        yield Finding("database", True, url)
        yield _keys(settings, stored)


def _keys(settings: Settings, stored: int | None) -> Finding:
    """Say how many keys there are; `stored` is None where that cannot be seen."""
    given = len(settings.api_keys)
    counts = [f"{stored} in the database"] if stored else []
    counts += [f"{given} in {API_KEYS}"] if given else []
    if stored is None:
        counts.append("those in the database are told by holdfast keys list")
    told = ", ".join(counts) or "none, so the server listens on this machine only"
    return Finding("keys", True, told)


async def _examine_upstream(name: str, settings: Settings, made: dict[str, "Upstream"]) -> Finding:
    """Look at one upstream alone, so that a table that cannot work does not hide the others."""
    from holdfast.runner.health import check
    from holdfast.upstreams.registry import make_upstream
    from holdfast.upstreams.wire.transport import Transport

    title = f"upstream {name}"
    try:
        table = settings.upstreams[name]
        upstream = made[name] = make_upstream(name, table, settings.limits, Transport())
        try:
            await upstream.open()
            health = await check(upstream)
        finally:
            await upstream.close()
    except HoldfastError as error:
        return Finding(title, False, error.message)
    return Finding(title, health.ok, health.detail)


def _examine_names(settings: Settings, made: Mapping[str, "Upstream"]) -> Iterator[Finding]:
    """Look whether the upstreams that are named are there; nothing is said if they are."""
    from holdfast.runner.presets import check_presets
    from holdfast.runner.router import check_router
    from holdfast.upstreams.registry import connect

    names = settings.upstreams.keys()
    checks: dict[str, Callable[[], None]] = {
        "router": lambda: check_router(settings.router, names),
        "presets": lambda: check_presets(settings.presets, names),
    }
    if made.keys() == names:
        checks["upstreams"] = lambda: connect(made)
    for title, check in checks.items() if names else ():
        try:
            check()
        except HoldfastError as error:
            yield Finding(title, False, error.message)
