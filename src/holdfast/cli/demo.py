"""`holdfast demo`."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple
from urllib.parse import urlsplit

import typer

from holdfast.cli import options
from holdfast.cli.serve import run_server
from holdfast.cli.terminal import Terminal
from holdfast.errors import ConfigError
from holdfast.settings import RouterSettings, Settings, load
from holdfast.settings.well_known import WELL_KNOWN

if TYPE_CHECKING:
    from holdfast.runner.supervisor import Supervisor

DATABASE = "holdfast.db"
DOCUMENTS = Path(__file__).parent.parent / "demo_documents"
MODEL_KIND: Final = "openai"
"""The kind of upstream that can write from passages without knowing anything of them before."""
QUESTION = "How does a write-ahead log keep data safe when a server is killed?"

HELP = """
Try Holdfast out, over documents that come with it.

No model, no key and no network are needed: the answers quote the documents. If OPENAI_* or
OLLAMA_* variables name a model, it writes the answers from the documents.

The demo prints what to open, what to type, and how to kill it in the middle of an answer. Its
database is a file that the next demo goes on with.

\b
Examples:
  holdfast demo
  holdfast demo --documents ~/notes --port 9000
"""


class Writer(NamedTuple):
    """A model that can write the demo's answers, or why there is none."""

    name: str | None
    """Of its upstream; None: nobody writes, the documents are quoted."""
    told: str | None
    """What is said about it."""


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
    no_writer: Annotated[
        bool, typer.Option("--no-writer", help="Quote the documents even if a model is set up.")
    ] = False,
) -> None:
    """See HELP."""
    if not documents.is_dir():
        raise ConfigError(f"{documents}: there is no such folder")
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{data}: cannot be made: {error.strerror}") from None
    data, documents = data.resolve(), documents.resolve()
    settings = options.with_server(load(), host="127.0.0.1", port=port)
    settings.note_keys(())  # it is to be tried without one, so nobody else may reach it
    writer = Writer(None, None) if no_writer else find_writer(settings)
    settings = demo_settings(settings, data, documents, writer.name)
    terminal = Terminal()

    def tell(url: str, supervisor: "Supervisor") -> None:
        for line in introduction(url, data / DATABASE, documents, writer.told):
            terminal.line(line)

    run_server(settings, tell)


def find_writer(settings: Settings) -> Writer:
    """The model that the variables of other programs describe, if there is one.

    They may be meant for those programs only, so what cannot work is said and no error.
    """
    from holdfast.upstreams.registry import make_upstream
    from holdfast.upstreams.wire.transport import Transport

    problem: str | None = None
    for known in WELL_KNOWN:
        table = settings.upstreams.get(known.name)
        if table is None or table.get("kind") != MODEL_KIND:
            continue
        try:
            upstream = make_upstream(known.name, table, settings.limits, Transport())
        except ConfigError as error:
            problem = f"No model writes the answers: {error.message.splitlines()[0]}"
            continue
        host = urlsplit(str(table.get("base_url"))).netloc
        return Writer(
            known.name,
            f"The answers are written by {upstream.model or known.name} at {host}, which gets your "
            "questions and the passages that fit them; --no-writer quotes the passages instead.",
        )
    return Writer(None, problem)


def demo_settings(
    settings: Settings, data: Path, documents: Path, writer: str | None = None
) -> Settings:
    """Settings by which the library answers, and nobody else is asked but its writer."""
    storage = settings.storage.model_copy(update={"url": f"sqlite:///{data / DATABASE}"})
    docs = {"kind": "library", "path": str(documents), "index": str(data / "docs.library.db")}
    upstreams: dict[str, dict[str, Any]] = {"docs": docs}
    if writer is not None:
        upstreams = {"docs": {**docs, "writer": writer}, writer: settings.upstreams[writer]}
    update = {
        "storage": storage,
        "router": RouterSettings(default="docs"),
        "presets": {},
        "upstreams": upstreams,
    }
    return settings.model_copy(update=update)


def introduction(url: str, database: Path, documents: Path, writer: str | None = None) -> list[str]:
    """What to try, and what is to be said about who writes."""
    body = shlex.quote(json.dumps({"message": QUESTION}))
    return [
        "",
        f"Holdfast answers from {documents}, and keeps everything in {database}",
        *([writer] if writer else []),
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
