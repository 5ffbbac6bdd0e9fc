from typing import Any

import pytest

from holdfast.events import Step
from holdfast.upstreams.ragflow.agent_events import Workflow

NODE = {"component_id": "Agent:Busy", "component_name": "Researcher"}
FAILED = {**NODE, "error": "**ERROR**: AUTH_ERROR - no"}
ERROR = "Researcher: AUTH_ERROR - no"


def told(*events: tuple[str, dict[str, Any]]) -> Workflow:
    workflow = Workflow()
    for name, data in events:
        workflow.take(name, data)
    return workflow


@pytest.mark.parametrize(
    ("after", "error"),
    [
        ([], ERROR),
        ([("node_finished", {"component_id": "Other"})], ERROR),
        ([("message", {"content": ""}), ("message_end", {})], ERROR),
        ([("message", {"content": "Sorry."})], None),
        ([("workflow_finished", {})], None),
    ],
)
@pytest.mark.parametrize("start", [[], [("node_started", NODE)]])
def test_a_failed_node_counts_until_something_makes_up_for_it(
    start: list[tuple[str, dict[str, Any]]],
    after: list[tuple[str, dict[str, Any]]],
    error: str | None,
) -> None:
    assert told(*start, ("node_finished", FAILED), *after).error == error


def test_what_was_written_instead_comes_right_before_the_failure() -> None:
    instead: list[tuple[str, dict[str, Any]]] = [
        ("message", {"content": "Sorry."}),
        ("message_end", {}),
        ("node_finished", FAILED),
    ]
    assert told(*instead).error is None
    # Where all is told, workflow_finished would tell that it went on.
    assert told(("node_started", NODE), *instead).error == ERROR


def test_a_node_is_one_step_unless_it_fails() -> None:
    workflow = Workflow()
    assert workflow.take("node_started", {**NODE, "thoughts": " a\n b "}) == [
        Step("Researcher", "a b")
    ]
    assert workflow.take("node_finished", NODE) == []
    assert workflow.take("node_finished", FAILED) == [Step("Researcher", "AUTH_ERROR - no")]
    assert workflow.take("node_finished", {"component_type": "Begin"}) == [Step("Begin")]


@pytest.mark.parametrize(
    ("data", "question"),
    [
        ({"tips": "Which date?"}, "Which date?"),
        ({"tips": " ", "inputs": {"a": {"name": "Date"}, "b": {"name": None}}}, "Date, b"),
        ({"tips": 7, "inputs": {}}, None),
        ({"inputs": [1]}, None),
        ({}, None),
    ],
)
def test_what_an_agent_asks_for(data: dict[str, Any], question: str | None) -> None:
    workflow = Workflow()
    assert workflow.take("user_inputs", data) == [Step("waiting for input", question)]
    assert workflow.question == question


@pytest.mark.parametrize("value", [None, 7, "", [], {"a": 1}])
def test_odd_values_are_no_words(value: Any) -> None:
    data = {"component_name": value, "thoughts": value, "error": value, "component_id": value}
    workflow = Workflow()
    assert workflow.take("node_started", data) == [Step("node")]
    assert workflow.take("node_finished", data) == []
    assert workflow.error is None
