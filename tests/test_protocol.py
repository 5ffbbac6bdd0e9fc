"""docs/protocol.md and docs/glossary.md say what the code does."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast import errors
from holdfast.events import EVENT_TYPES, Finish, Outcome, Reason, Reference
from holdfast.http import shapes
from holdfast.http.routes import operations
from holdfast.runner.factory import make_supervisor
from holdfast.settings import Settings, StorageSettings

DOCS = Path(__file__).parent.parent / "docs"
PROTOCOL = (DOCS / "protocol.md").read_text(encoding="utf-8")
GLOSSARY = (DOCS / "glossary.md").read_text(encoding="utf-8")


def part(heading: str) -> str:
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", PROTOCOL, re.MULTILINE | re.DOTALL
    )
    assert found, f"there is no heading {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    lines = [line.strip("| \n") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")] for line in lines[1:]]


def words(text: str) -> list[str]:
    return re.findall(r"`([\w-]+)`", text)


def test_every_route_is_documented(tmp_path: Path) -> None:
    storage = StorageSettings(url=f"sqlite:///{tmp_path}/chat.db")
    supervisor = make_supervisor(Settings(storage=storage), {})
    table = operations(supervisor)
    expected = {f"`{operation.method} {operation.path}`" for operation in table}
    assert {row[0] for row in rows(part("1. Routes"))} == expected


def test_every_key_of_a_question_is_documented() -> None:
    documented = {key for row in rows(part("2. Asking")) for key in words(row[0])}
    assert documented == set(shapes.RunRequest.__struct_fields__)


def test_every_event_is_documented_with_its_fields() -> None:
    documented = {words(row[0])[0]: words(row[1]) for row in rows(part("Events"))}
    assert documented == {
        name: list(kind.__struct_fields__)  # type: ignore[attr-defined]
        for kind, name in EVENT_TYPES.items()
    }


def test_every_field_of_a_reference_is_documented() -> None:
    (sentence,) = re.findall(r"^A reference has (.*?)\.\n", PROTOCOL, re.MULTILINE | re.DOTALL)
    assert words(sentence) == list(Reference.__struct_fields__)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        ("A run: ", shapes.RunShape),
        ("A message: ", shapes.MessageShape),
        ("A session: ", shapes.SessionShape),
    ],
)
def test_every_field_of_a_shape_is_documented(start: str, kind: type[msgspec.Struct]) -> None:
    (sentence,) = re.findall(rf"^{start}(.*?)\.\s", PROTOCOL, re.MULTILINE | re.DOTALL)
    fields = re.sub(r"\(.*?\)", "", sentence, flags=re.DOTALL)  # without the values in brackets
    assert words(fields) == list(kind.__struct_fields__)


def leaves(kind: type[errors.HoldfastError]) -> Iterator[type[errors.HoldfastError]]:
    yield kind
    for inner in kind.__subclasses__():
        if inner.__module__ == errors.__name__:
            yield from leaves(inner)


INSIDE = {"config_error", "store_error", "store_locked", "unavailable", "upstream_error"}
"""Codes that no request is answered with in this release: they end a run, or the start."""


def test_every_error_is_documented_with_its_status() -> None:
    documented = {(int(row[0]), row[1].strip("`")) for row in rows(part("7. Errors"))}
    raised = {(kind.status, kind.code) for kind in leaves(errors.HoldfastError)}
    assert documented == {(status, code) for status, code in raised if code not in INSIDE}


def table_under(heading: str) -> list[str]:
    text = GLOSSARY.partition(heading)[2]
    return [line.split("`")[1] for line in text.split("\n\n")[0].splitlines() if "| `" in line]


@pytest.mark.parametrize(
    ("heading", "kind"),
    [("| outcome | when |", Outcome), ("| reason | meaning |", Reason)],
)
def test_every_ending_is_in_the_glossary(heading: str, kind: Any) -> None:
    assert sorted(table_under(heading)) == sorted(kind)


def test_every_finish_is_documented() -> None:
    (row,) = [row for row in rows(part("Events")) if row[0] == "`run-end`"]
    assert set(words(row[2].partition("`finish` is")[2])) == set(Finish)
