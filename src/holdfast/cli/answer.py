"""Showing an answer: its text as it is written, its references under it, how it ended."""

from collections.abc import Iterable

from holdfast.cli.terminal import Terminal
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
                self._terminal.write(event.text)
            case TextReplace():
                self._rewrite(event.text)
            case ReasoningDelta():
                self._terminal.mention(event.text, end="")
            case Step():
                self._terminal.mention(": ".join(filter(None, (event.label, event.detail))))
            case Notice():
                self._terminal.say(event.message)
            case _:
                pass  # references come at the end; tool calls and usage are for programs

    def _rewrite(self, text: str) -> None:
        shown = self._fold.answer().text
        if text.startswith(shown):
            self._terminal.write(text[len(shown) :])
        else:
            self._terminal.line()
            self._terminal.say("The answer was written anew:")
            self._terminal.write(text)

    def _close(self, end: RunEnd) -> None:
        self.end = end
        self._terminal.end_line()
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
            terminal.line(f"    {_in_a_line(reference.text)}", style="dim")
        if reference.url and reference.url != name:
            terminal.line(f"    {reference.url}", style="dim")


def _in_a_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= PASSAGE_LENGTH else text[: PASSAGE_LENGTH - 1] + "…"
