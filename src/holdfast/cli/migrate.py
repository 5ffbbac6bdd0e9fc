"""`holdfast migrate`."""

import asyncio

from holdfast.cli import options
from holdfast.cli.terminal import Terminal
from holdfast.settings import load

HELP = """
Bring the database's schema up to date.

The embedded database does this by itself at the first start; other databases wait for this
command.
"""


def migrate(config: options.Config = None) -> None:
    """See HELP."""
    from holdfast.store.factory import migrate as migrate_store

    storage = load(config).storage
    asyncio.run(migrate_store(storage))
    Terminal().say(f"{storage.shown_url} is up to date")
