"""OpenAPI from the table of routes and the classes of the bodies."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

import holdfast
from holdfast.events import Event
from holdfast.http.forms import MULTIPART, URLENCODED
from holdfast.http.operation import LAST_EVENT_ID, Operation
from holdfast.http.shapes import ErrorShape

_REF = "#/components/schemas/{name}"
_ERRORS = {
    "400": "Malformed body, parameter or cursor.",
    "401": "The server has keys, and none that is valid came with the request.",
    "403": "The key lacks the scope, or the request comes from a page of another site.",
    "404": "Not there, or not yours.",
    "409": "The session's run is live, or the state does not allow it.",
    "410": "The cursor is ahead of the log.",
    "413": "The body or the question is too large.",
    "415": "The body is not declared as JSON.",
    "422": "The idempotency key was used with another request.",
    "429": "The key has reached a limit; try again after Retry-After.",
    "503": "Try again after Retry-After.",
}
_NO_ANSWER = {
    "500": "The settings cannot work, or something in Holdfast failed.",
    "502": "The upstream failed before there was any text.",
}
"""Of surfaces other than the native one, where a run that failed is still a run."""

KEY = "key"
_KEY_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key of this server. A server without keys takes every request.",
}

JSON = "application/json"
EVENT_STREAM = "text/event-stream"


def paths_and_schemas(table: Sequence[Operation]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `paths` and the `components.schemas` of the document."""
    kinds: list[Any] = [ErrorShape, Event]
    for operation in table:
        named = (operation.body, operation.answer, operation.failure)
        kinds += [kind for kind in named if kind is not None]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    by_kind = {id(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    components = {**components, "Event": by_kind[id(kinds[1])]}
    paths: dict[str, Any] = {}
    for operation in table:
        path = re.sub(r"{(\w+):path}", r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _describe(operation, by_kind)
    return paths, components


def openapi(table: Sequence[Operation]) -> dict[str, Any]:
    """The whole document."""
    paths, schemas = paths_and_schemas(table)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Holdfast", "version": holdfast.__version__},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {KEY: _KEY_SCHEME}},
    }


def _describe(operation: Operation, schemas: dict[int, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.handler.__name__,
        "summary": operation.summary,
        "description": (operation.handler.__doc__ or "").strip(),
        "parameters": _parameters(operation),
        "responses": _responses(operation, schemas),
        # In 3.1 the list may name what the key must be allowed; {}: there may be no keys at all.
        "security": [{KEY: [operation.scope]}, {}] if operation.scope else [],
    }
    if operation.body is not None:
        content: dict[str, Any] = {"schema": schemas[id(operation.body)]}
        if operation.example is not None:
            content["example"] = operation.example
        media = [JSON, URLENCODED, MULTIPART] if operation.forms else [JSON]
        found["requestBody"] = {"required": True, "content": dict.fromkeys(media, content)}
    return found


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)[:}]", operation.path)
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
        schema = {"type": "string", "description": operation.frames}
        content[EVENT_STREAM] = {"schema": schema}
    if operation.answer is not None:
        content[JSON] = {"schema": schemas[id(operation.answer)]}
    success: dict[str, Any] = {"description": operation.summary}
    if content:
        success["content"] = content
    responses: dict[str, Any] = {str(operation.status): success}
    if LAST_EVENT_ID in operation.parameters:
        responses["204"] = {"description": "There is nothing after the cursor."}
    failure = operation.failure or ErrorShape
    media = EVENT_STREAM if failure is str else JSON
    error = {media: {"schema": schemas[id(failure)]}}
    statuses = _ERRORS if operation.failure is None else {**_ERRORS, **_NO_ANSWER}
    for status, text in statuses.items():
        responses[status] = {"description": text, "content": error}
    return responses
