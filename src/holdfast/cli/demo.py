"""`holdfast demo`."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli import options
from holdfast.cli.serve import run_server
from holdfast.cli.terminal import Terminal
from holdfast.errors import ConfigError
from holdfast.settings import Settings, load

if TYPE_CHECKING:
    from holdfast.runner.supervisor import Supervisor

DATABASE = "holdfast.db"
DOCUMENTS = Path(__file__).parent.parent / "demo_documents"
QUESTION = "How does a write-ahead log keep data safe when a server is killed?"

HELP = """
Try Holdfast out, over documents that come with it.

No model, no key and no network are needed. The demo prints what to open, what to type, and how
to kill it in the middle of an answer. Its database is a file that the next demo goes on with.

\b
Examples:
  holdfast demo
  holdfast demo --documents ~/notes --port 9000
"""


def demo(
    port: options.Port = None,
    data: Annotated[
        Path, typer.Option("--data", metavar="FOLDER", help="Where to keep the database.")
    ] = Path("demo-data"),
    documents: Annotated[
        Path,
        typer.Option(
            "--documents",
            metavar="FOLDER",
            help="What to answer from.",
            show_default="what comes with Holdfast",
        ),
    ] = DOCUMENTS,
) -> None:
    """See HELP."""
    if not documents.is_dir():
        raise ConfigError(f"{documents}: there is no such folder")
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{data}: cannot be made: {error.strerror}") from None
    data, documents = data.resolve(), documents.resolve()
    settings = demo_settings(options.with_server(load(), port=port), data, documents)
    terminal = Terminal()

    def tell(url: str, supervisor: "Supervisor") -> None:
        for line in introduction(url, data / DATABASE, documents):
            terminal.line(line)

    run_server(settings, tell)


def demo_settings(settings: Settings, data: Path, documents: Path) -> Settings:
    """Settings whose only upstream is the library, so that a demo never asks another service."""
    storage = settings.storage.model_copy(update={"url": f"sqlite:///{data / DATABASE}"})
    router = settings.router.model_copy(update={"default": "docs", "local": None, "cloud": None})
    docs = {"kind": "library", "path": str(documents), "index": str(data / "docs.library.db")}
    update = {"storage": storage, "router": router, "upstreams": {"docs": docs}}
    return settings.model_copy(update=update)


def introduction(url: str, database: Path, documents: Path) -> list[str]:
    """What to try."""
    body = shlex.quote(json.dumps({"message": QUESTION}))
    return [
        "",
        f"Holdfast answers from {documents}, and keeps everything in {database}",
        "",
        "1. Open the page and ask something, for example",
        f"       {QUESTION}",
        "   at",
        f"       {url}/",
        "   or ask from another terminal:",
        f"       curl -N -H 'Content-Type: application/json' -d {body} {url}/api/v1/runs",
        "",
        "2. Kill this server in the middle of the answer:",
        f"       kill -9 {os.getpid()}",
        "",
        "3. Start it again: what you saw is there, and the page goes on by itself:",
        f"       {shlex.join(sys.argv)}",
        "",
    ]
