"""`holdfast doctor`."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import NamedTuple

import typer

from holdfast.cli import options
from holdfast.cli.codes import ExitCode
from holdfast.cli.terminal import Terminal
from holdfast.errors import HoldfastError, StoreLocked
from holdfast.settings import Settings, load

HELP = """
Look whether settings, database and upstreams are in order.

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
    if not asyncio.run(_report(load(config), Terminal())):
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
    yield await _examine_database(settings)
    if not settings.upstreams:
        yield Finding("upstreams", False, "there is none; holdfast serve says what to do")
    for name in settings.upstreams:
        yield await _examine_upstream(name, settings)
    for key, name in settings.router.model_dump().items():
        if name not in (None, "auto", *settings.upstreams):
            yield Finding("router", False, f"router.{key} names {name!r}, which is no upstream")


async def _examine_database(settings: Settings) -> Finding:
    from holdfast.store.factory import make_store

    url = settings.storage.url
    if not options.database_exists(settings):
        return Finding("database", True, f"{url} is made at the first start")
    try:
        store = make_store(settings.storage)
        try:
            await store.open()
        finally:
            await store.close()
    except StoreLocked:
        return Finding("database", True, f"{url} is in use, by a running server most likely")
    except HoldfastError as error:
        return Finding("database", False, error.message)
    return Finding("database", True, url)


async def _examine_upstream(name: str, settings: Settings) -> Finding:
    from holdfast.runner.health import check
    from holdfast.upstreams.registry import make_upstreams

    title = f"upstream {name}"
    # Alone, so that a table that cannot work does not hide the others.
    alone = settings.model_copy(update={"upstreams": {name: settings.upstreams[name]}})
    try:
        upstream = make_upstreams(alone)[name]
        try:
            await upstream.open()
            health = await check(upstream)
        finally:
            await upstream.close()
    except HoldfastError as error:
        return Finding(title, False, error.message)
    return Finding(title, health.ok, health.detail)
