"""docs/protocol.md, docs/dialects.md and docs/glossary.md say what the code does."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast import errors
from holdfast.events import EVENT_TYPES, Finish, Outcome, Reason, Reference
from holdfast.http import shapes, status
from holdfast.http.dialects import DIALECTS
from holdfast.http.operation import Operation
from holdfast.http.routes import operations
from holdfast.http.surfaces import (
    ai_sdk,
    documents,
    keys,
    messages,
    native,
    openai,
    plain,
    stream_ask,
    v1,
)
from holdfast.runner.factory import make_supervisor
from holdfast.runner.supervisor import Supervisor
from holdfast.settings import Settings, StorageSettings

DOCS = Path(__file__).parent.parent / "docs"
PROTOCOL = (DOCS / "protocol.md").read_text(encoding="utf-8")
SURFACES = (DOCS / "dialects.md").read_text(encoding="utf-8")
GLOSSARY = (DOCS / "glossary.md").read_text(encoding="utf-8")


def part(heading: str, document: str = PROTOCOL) -> str:
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", document, re.MULTILINE | re.DOTALL
    )
    assert found, f"there is no heading {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    lines = [line.strip("| \n") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")] for line in lines[1:]]


def words(text: str) -> list[str]:
    return re.findall(r"`([\w-]+)`", text)


@pytest.fixture
def supervisor(tmp_path: Path) -> Supervisor:
    storage = StorageSettings(url=f"sqlite:///{tmp_path}/chat.db")
    return make_supervisor(Settings(storage=storage), {})


def routes(text: str) -> list[str]:
    """The methods and paths at the beginning of a table's rows."""
    return [row[0] for row in rows(text) if re.match(r"`[A-Z]+ /", row[0])]


def named(table: list[Operation]) -> list[str]:
    return sorted(f"`{operation.method} {operation.path}`" for operation in table)


def test_every_route_is_documented(supervisor: Supervisor) -> None:
    everywhere = [*routes(part("1. Routes")), *routes(SURFACES)]
    assert sorted(everywhere) == named(operations(supervisor))


def test_the_native_routes_are_those_of_the_protocol(supervisor: Supervisor) -> None:
    table = operations(supervisor, (documents, native, keys, status))
    assert sorted(routes(part("1. Routes"))) == named(table)


OTHERS: dict[str, Any] = {
    "ai-sdk": ai_sdk,
    "messages": messages,
    "openai": openai,
    "plain": plain,
    "stream-ask": stream_ask,
    "v1": v1,
}


def test_every_dialect_has_its_part() -> None:
    assert OTHERS.keys() | {"native"} == DIALECTS.keys()


@pytest.mark.parametrize("dialect", OTHERS)
def test_the_routes_of_a_dialect_and_their_bodies_are_documented(
    dialect: str, supervisor: Supervisor
) -> None:
    table = operations(supervisor, (OTHERS[dialect],))
    text = part(dialect, SURFACES)
    assert sorted(routes(text)) == named(table)
    fields: set[str] = set()
    for operation in table:
        if operation.body is not None:
            fields |= {field.encode_name for field in msgspec.structs.fields(operation.body)}
    keys = re.findall(r"^\| key \|.*?(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    assert {key for one in keys for row in rows(one) for key in words(row[0])} == fields


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
