"""OpenAPI from the table of routes and the classes of the bodies."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

import holdfast
from holdfast.events import Event
from holdfast.http.routes import Operation
from holdfast.http.shapes import ErrorShape

_REF = "#/components/schemas/{name}"
_ERRORS = {
    "400": "Malformed body, parameter or cursor.",
    "404": "Not there, or not yours.",
    "409": "The session's run is live, or the state does not allow it.",
    "410": "The cursor is ahead of the log.",
    "413": "The body or the question is too large.",
    "415": "The body is not declared as JSON.",
    "422": "The idempotency key was used with another request.",
    "503": "Try again after Retry-After.",
}


def paths_and_schemas(table: Sequence[Operation]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `paths` and the `components.schemas` of the document."""
    kinds: list[Any] = [ErrorShape, Event]
    for operation in table:
        kinds += [kind for kind in (operation.body, operation.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    by_kind = {id(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    components = {**components, "Event": by_kind[id(kinds[1])]}
    paths: dict[str, Any] = {}
    for operation in table:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(
            operation, by_kind
        )
    return paths, components


def openapi(table: Sequence[Operation]) -> dict[str, Any]:
    """The whole document."""
    paths, schemas = paths_and_schemas(table)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Holdfast", "version": holdfast.__version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _describe(operation: Operation, schemas: dict[int, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.handler.__name__,
        "summary": operation.summary,
        "description": (operation.handler.__doc__ or "").strip(),
        "parameters": _parameters(operation),
        "responses": _responses(operation, schemas),
    }
    if operation.body is not None:
        content: dict[str, Any] = {"schema": schemas[id(operation.body)]}
        if operation.example is not None:
            content["example"] = operation.example
        found["requestBody"] = {"required": True, "content": {"application/json": content}}
    return found


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    others = [
        {
            "name": parameter.name,
            "in": parameter.place,
            "description": parameter.text,
            "schema": {"type": "integer" if parameter.name == "limit" else "string"},
        }
        for parameter in operation.parameters
    ]
    return in_path + others


def _responses(operation: Operation, schemas: dict[int, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.stream:
        content["text/event-stream"] = {
            "schema": {"type": "string", "description": "SSE; each `data` is an Event."}
        }
    if operation.answer is not None:
        content["application/json"] = {"schema": schemas[id(operation.answer)]}
    success: dict[str, Any] = {"description": operation.summary}
    if content:
        success["content"] = content
    responses: dict[str, Any] = {str(operation.status): success}
    if operation.stream:
        responses["204"] = {"description": "There is nothing after the cursor."}
    error = {"application/json": {"schema": schemas[id(ErrorShape)]}}
    for status, text in _ERRORS.items():
        responses[status] = {"description": text, "content": error}
    return responses
