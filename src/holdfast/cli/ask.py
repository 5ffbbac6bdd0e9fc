"""`holdfast ask`."""

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

import typer

from holdfast.cli import last, options
from holdfast.cli.answer import AnswerView
from holdfast.cli.codes import ExitCode, of_end
from holdfast.cli.terminal import Terminal
from holdfast.client import AsyncClient, ServerUnreachable
from holdfast.errors import ConfigError
from holdfast.events import Entry, RunStart
from holdfast.settings import Settings, load

PATIENCE_S = 120.0
"""How long a server that was there is waited for."""

HELP = """
Ask a question and watch the answer being written.

The running server is asked; if there is none, and no --url, the question is answered in this
process. When the connection breaks, even because the server was killed, `ask` waits for the
server and goes on where it stopped. Ctrl-C leaves the answer going on.

\b
Examples:
  holdfast ask "What is a write-ahead log?"
  holdfast ask --session last "And who invented it?"
  holdfast ask --resume last
  cat question.txt | holdfast ask -

Exit codes: 0 the answer is complete, 1 there is none, 2 wrong arguments or settings,
3 the answer ended early, 4 no server, 130 Ctrl-C.
"""


@dataclass(frozen=True)
class Question:
    """What is asked, or which run is read once more."""

    message: str = ""
    session: str | None = None
    upstream: str | None = None
    resume: str | None = None


def ask(
    message: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="The question; - reads it from input.")
    ] = None,
    session: Annotated[
        str | None, typer.Option("--session", metavar="ID", help="Ask in this session, or `last`.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="RUN", help="Show this run instead of asking, or `last`."),
    ] = None,
    upstream: Annotated[
        str | None, typer.Option("--upstream", metavar="NAME", help="Who is to answer.")
    ] = None,
    url: options.Url = None,
    config: options.Config = None,
) -> None:
    """See HELP."""
    question = _question(message, session, resume, upstream)
    settings = load(config)
    terminal = Terminal()
    view = AnswerView(terminal)
    conversation = _Conversation(question, terminal, view)
    try:
        asyncio.run(conversation.hold(settings, url))
    except ServerUnreachable:
        conversation.tell_how_to_resume(url)
        raise
    except KeyboardInterrupt:
        conversation.tell_how_to_resume(url)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if view.start:
        terminal.say(f'Ask on with: holdfast ask --session {view.start.session_id} "…"')
    raise typer.Exit(of_end(view.end) if view.end else ExitCode.FAILED)


def _question(
    message: str | None, session: str | None, resume: str | None, upstream: str | None
) -> Question:
    if resume is not None:
        if message is not None or session is not None or upstream is not None:
            raise ConfigError("--resume shows a run that was asked before; give nothing else")
        return Question(resume=last.recall().run_id if resume == last.LAST else resume)
    if message == "-":
        message = sys.stdin.read()
    if message is None or not message.strip():
        raise ConfigError('what is the question? Try: holdfast ask "What is a write-ahead log?"')
    if session == last.LAST:
        session = last.recall().session_id
    return Question(message, session, upstream)


class _Conversation:
    """One question with its answer, wherever it is answered."""

    def __init__(self, question: Question, terminal: Terminal, view: AnswerView) -> None:
        self._question = question
        self._terminal = terminal
        self._view = view
        self._waiting = False
        self._in_process = False

    async def hold(self, settings: Settings, url: str | None) -> None:
        """Let the server answer, or this process if nothing names a server and none is there."""
        try:
            await self._with_server(url or options.server_url(settings), options.api_key(settings))
        except ServerUnreachable as error:
            if url or self._question.resume or error.reached:
                raise
            self._in_process = True
            await self._without_server(settings)

    async def _with_server(self, url: str, api_key: str | None) -> None:
        question = self._question
        client = AsyncClient(url, api_key=api_key, patience_s=PATIENCE_S, on_wait=self._on_wait)
        async with client:
            if question.resume:
                stream = client.resume(question.resume)
            else:
                stream = client.ask(
                    question.message, session=question.session, upstream=question.upstream
                )
            async with stream:
                await self._show(stream.entries())

    async def _without_server(self, settings: Settings) -> None:
        from holdfast.embed import Holdfast

        options.require_upstreams(settings)
        self._terminal.say(f"No server; answering here, database {settings.storage.shown_url}")
        # Ctrl-C ends the answer at once; what had arrived is kept.
        settings = options.with_server(settings, shutdown_grace_s=0.0)
        question = self._question
        async with Holdfast(settings=settings) as hold:
            run = await hold.ask(
                message=question.message,
                session_id=question.session,
                upstream=question.upstream,
            )
            await self._show(hold.read(run.id, after=0))

    async def _show(self, entries: AsyncIterator[Entry]) -> None:
        try:
            async for entry in entries:
                if self._waiting:
                    self._waiting = False
                    self._terminal.say("Connected again.")
                self._view.show(entry)
                if isinstance(entry.event, RunStart):
                    last.remember(entry.event)
        finally:
            self._view.leave()

    def _on_wait(self, cause: str) -> None:
        if not self._waiting:
            self._waiting = True
            self._terminal.say(f"Connection lost ({cause}); waiting for the server …")

    def tell_how_to_resume(self, url: str | None) -> None:
        """Say where the answer is found after this command has ended."""
        start = self._view.start
        if start is None:
            return
        where = f" --url {url}" if url else ""
        if self._in_process:
            self._terminal.say(f"What was shown is kept: holdfast show {start.session_id}")
        else:
            self._terminal.say(
                "The answer goes on without this command; to see it: "
                f"holdfast ask --resume {start.run_id}{where}"
            )
