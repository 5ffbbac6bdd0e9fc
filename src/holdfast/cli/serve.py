"""`holdfast serve`."""

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli import options
from holdfast.cli.terminal import Terminal
from holdfast.settings import Settings, load

if TYPE_CHECKING:
    from holdfast.runner.supervisor import Supervisor

HELP = """
Start the server.

It takes its settings from holdfast.toml, .env and the environment, and runs until Ctrl-C or
SIGTERM. Live answers may then go on for a while; a second signal ends them at once, and even
then what their readers saw is kept.

Without a key (`holdfast keys create`, HOLDFAST_API_KEYS) it only listens on this machine.

\b
Examples:
  holdfast serve
  holdfast serve --config /etc/holdfast.toml --port 9000
"""


def serve(
    config: options.Config = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")
    ] = None,
    port: options.Port = None,
) -> None:
    """See HELP."""
    settings = options.with_server(load(config), host=host, port=port)
    options.require_upstreams(settings)
    terminal = Terminal()

    def tell(url: str, supervisor: "Supervisor") -> None:
        names = ", ".join(supervisor.upstreams)
        terminal.say(
            f"Holdfast at {url}, database {settings.storage.shown_url}, upstreams: {names}"
        )

    run_server(settings, tell)


def run_server(settings: Settings, tell: Callable[[str, "Supervisor"], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; `tell` is called once requests are taken."""
    from holdfast.http.server import serve

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("holdfast").setLevel(logging.INFO)
    # Ctrl-C is the usual way to stop a server: it has stopped in good order by now.
    with contextlib.suppress(KeyboardInterrupt):
        serve(settings, tell)
