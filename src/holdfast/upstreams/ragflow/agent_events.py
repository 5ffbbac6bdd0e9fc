"""What RAGFlow's agents, since 0.20, tell of their work besides the answer.

Each node of the workflow has a `node_started` and a `node_finished`; an existing session is told
only some of the events, and older servers tell even less. A node that fails ends the workflow
unless its author said what to do instead. That the workflow ended so is told by nothing but what
is missing then: the text that was written instead, and `workflow_finished`.
"""

from typing import Any

from holdfast.events import Step
from holdfast.upstreams.decoding.references import NAME_CHARS
from holdfast.upstreams.decoding.refusal import clean
from holdfast.upstreams.decoding.told_errors import MARK

WAITING = "waiting for input"


class Workflow:
    """The nodes of one run of an agent.

    Attributes:
        question: What the agent asks its user for, when it pauses for that.
    """

    def __init__(self) -> None:
        """Begin before the first event."""
        self.question: str | None = None
        self._error: str | None = None
        self._started: set[str] = set()
        self._before: str | None = None

    @property
    def error(self) -> str | None:
        """The failure of a node that nothing made up for, so far."""
        return self._error

    def take(self, event: str, data: dict[str, Any]) -> list[Step]:
        """Take an event; give the steps that it makes known."""
        steps: list[Step] = []
        match event:
            case "node_started":
                self._started.add(_component(data))
                steps.append(Step(_label(data), _words(data.get("thoughts"))))
            case "node_finished":
                steps = self._finish_node(data)
            case "message" if data.get("content"):
                self._error = None
            case "workflow_finished":
                self._error = None
            case "user_inputs":
                self.question = _question(data)
                steps.append(Step(WAITING, self.question))
        self._before = event
        return steps

    def _finish_node(self, data: dict[str, Any]) -> list[Step]:
        error = _words(data.get("error"))
        if error is not None:
            error = error.removeprefix(MARK.strip()).strip()
            # Where node_started is not told, workflow_finished may not be either; then the
            # message right before was written instead.
            if self._started or self._before != "message_end":
                self._error = f"{_label(data)}: {error}"
        if error is None and _component(data) in self._started:
            return []
        return [Step(_label(data), error)]


def _component(data: dict[str, Any]) -> str:
    return str(data.get("component_id"))[:NAME_CHARS]


def _label(data: dict[str, Any]) -> str:
    names = (data.get(name) for name in ("component_name", "component_type", "component_id"))
    return next((clean(name) for name in names if isinstance(name, str) and name.strip()), "node")


def _words(value: object) -> str | None:
    return clean(value) or None if isinstance(value, str) else None


def _question(data: dict[str, Any]) -> str | None:
    """The agent's tips, else the names of what it asks for."""
    tips, inputs = data.get("tips"), data.get("inputs")
    if isinstance(tips, str) and tips.strip():
        return tips
    if not isinstance(inputs, dict):
        return None
    names = [mapped.get("name") if isinstance(mapped, dict) else None for mapped in inputs.values()]
    return (
        clean(", ".join(str(name or key) for name, key in zip(names, inputs, strict=True))) or None
    )
