"""`holdfast show`."""

import asyncio
import sys
from typing import Annotated

import typer

from holdfast.cli import last, options
from holdfast.cli.answer import describe_end, write_references
from holdfast.cli.terminal import Terminal, plain
from holdfast.client import AsyncClient, ServerUnreachable
from holdfast.events import Outcome
from holdfast.http.shapes import MessageShape, message_shape
from holdfast.settings import RouterSettings, Settings, load

HELP = """
Show a session: its questions and answers, with references.

\b
Examples:
  holdfast show
  holdfast show 01920f3c-5e1a-7c3b-9d2e-1f0a2b3c4d5e | less
"""


def show(
    session: Annotated[
        str, typer.Argument(metavar="SESSION", help="The session's id, or `last`.")
    ] = last.LAST,
    url: options.Url = None,
    config: options.Config = None,
) -> None:
    """See HELP."""
    session_id = last.recall().session_id if session == last.LAST else session
    settings, terminal = load(config), Terminal()
    try:
        client = AsyncClient(url or options.server_url(settings), api_key=options.api_key(settings))
        asyncio.run(_show(client, session_id, terminal))
    except ServerUnreachable:
        if url or not options.database_exists(settings):
            raise
        asyncio.run(_show_from_database(settings, session_id, terminal))


async def _show(client: AsyncClient, session_id: str, terminal: Terminal) -> None:
    async with client:
        session = await client.session(session_id)
        terminal.line(session.title or session_id, style="bold")
        async for message in client.messages(session_id):
            _write(terminal, message)


async def _show_from_database(settings: Settings, session_id: str, terminal: Terminal) -> None:
    from holdfast.embed import Holdfast

    # Nobody is asked here, so nobody needs to be there.
    settings = settings.model_copy(update={"router": RouterSettings()})
    async with Holdfast(settings=settings, upstreams={}) as hold:
        for record in await hold.messages(session_id, limit=sys.maxsize):
            _write(terminal, message_shape(record))


def _write(terminal: Terminal, message: MessageShape) -> None:
    terminal.line()
    asked = message.role == "user"
    who = "Question" if asked else f"Answer ({message.upstream})"
    terminal.line(f"{who}, {message.created_at}", style="cyan")
    if asked:
        terminal.write(message.content)
        terminal.end_line()
        return
    text = terminal.text_writer()
    text.write(plain(message.content))
    text.close()
    write_references(terminal, message.references)
    if message.status == "streaming":
        terminal.line("(being written)", style="dim")
    elif message.outcome != Outcome.COMPLETED:
        ending = describe_end(message.outcome, message.reason, message.error)
        terminal.line(ending, style="bold")
