"""Showing an answer: its text as it is written, its references under it, how it ended."""

from collections.abc import Iterable

from holdfast.cli.terminal import Terminal, plain
from holdfast.engine.fold import Fold
from holdfast.events import (
    Entry,
    Event,
    Notice,
    Outcome,
    ReasoningDelta,
    Reference,
    RunEnd,
    RunStart,
    Step,
    TextDelta,
    TextReplace,
)

PASSAGE_LENGTH = 240


class AnswerView:
    """One answer while it is written."""

    def __init__(self, terminal: Terminal) -> None:
        """Show on `terminal`."""
        self._terminal = terminal
        self._text = terminal.text_writer()
        self._fold = Fold()
        self._reasoning = False
        self.start: RunStart | None = None
        self.end: RunEnd | None = None

    def show(self, entry: Entry) -> None:
        """Show the next event of the run."""
        event = entry.event
        if self._reasoning and not isinstance(event, ReasoningDelta):
            self._terminal.end_line()
        self._reasoning = isinstance(event, ReasoningDelta)
        self._show(event)
        self._fold.add(event)
        if isinstance(event, RunEnd):
            self._close(event)

    def _show(self, event: Event) -> None:
        match event:
            case RunStart():
                self.start = event
            case TextDelta():
                self._text.write(plain(event.text))
            case TextReplace():
                self._rewrite(plain(event.text))
            case ReasoningDelta():
                self._terminal.mention(event.text, end="")
            case Step():
                self._terminal.mention(": ".join(filter(None, (event.label, event.detail))))
            case Notice():
                self._terminal.say(event.message)
            case _:
                pass  # references come at the end; tool calls and usage are for programs

    def _rewrite(self, text: str) -> None:
        if not self._text.rewrite(text):
            self._text.close()
            self._terminal.line()
            self._terminal.say("The answer was written anew:")
            self._text.write(text)

    def leave(self) -> None:
        """Show all there is by now; nothing more will come."""
        self._text.close()

    def _close(self, end: RunEnd) -> None:
        self.end = end
        self.leave()
        write_references(self._terminal, self._fold.answer().references)
        if end.outcome != Outcome.COMPLETED:
            self._terminal.say(describe_end(end.outcome, end.reason, end.error), style="bold")


def describe_end(outcome: str | None, reason: str | None, error: str | None) -> str:
    """Why an answer is not whole, in a line."""
    what = "There is no answer" if outcome == Outcome.FAILED else "The answer is not complete"
    details = ": ".join(part for part in (reason, error) if part)
    return f"{what} ({details})." if details else f"{what}."


def write_references(terminal: Terminal, references: Iterable[Reference]) -> None:
    """Write a list of references, if there are any."""
    for index, reference in enumerate(references):
        if index == 0:
            terminal.line()
            terminal.line("References", style="bold")
        name = reference.document_name or reference.document_id or reference.url or "(no name)"
        terminal.line(f"[{reference.ordinal}] {_in_a_line(name)}", style="cyan")
        if reference.text:
            terminal.line(_in_a_line(reference.text), style="dim", indent=4)
        more = [f"score {reference.score:.2f}"] if reference.score is not None else []
        if reference.url and reference.url != name:
            more.append(reference.url)
        if more:
            terminal.line(", ".join(more), style="dim", indent=4)


def _in_a_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= PASSAGE_LENGTH else text[: PASSAGE_LENGTH - 1] + "…"
