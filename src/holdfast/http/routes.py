"""All operations. The router, OpenAPI and the reference documentation are made from them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import ModuleType
from typing import Final, TypeAlias

from fastapi import APIRouter
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from holdfast.errors import MethodNotAllowed
from holdfast.http import status
from holdfast.http.endpoint import Call, Endpoint
from holdfast.http.operation import Operation
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
from holdfast.runner.supervisor import Supervisor

SURFACES: Final = (
    *(ai_sdk, documents, keys, messages, native, openai, plain, status, stream_ask, v1),
)
"""Each with a function `operations`; a new dialect is a module in `surfaces` and its name here."""
EMBEDDED: Final = (documents, native, status)
"""Those that another application gets: the other ones' paths may be its own."""

Admit: TypeAlias = Callable[[Call, str], Awaitable[None]]
"""Lets a call with the operation's scope pass and notes its owner, or raises."""


def operations(
    supervisor: Supervisor, surfaces: Sequence[ModuleType] = SURFACES
) -> list[Operation]:
    """Every operation of these surfaces, by default of all of them."""
    return [operation for surface in surfaces for operation in surface.operations(supervisor)]


async def admit_all(call: Call, scope: str) -> None:
    """For a server without keys."""


def make_routes(table: Sequence[Operation], admit: Admit = admit_all) -> list[BaseRoute]:
    """One route per path: a method that it does not have is answered by it, not by the next."""
    paths: dict[str, dict[str, Operation]] = {}
    for operation in table:
        paths.setdefault(operation.path, {})[operation.method] = operation
    return [
        Route(path, endpoint(methods, admit), methods=None, name=f"holdfast:{path}")
        for path, methods in paths.items()
    ]


def endpoint(operations: Mapping[str, Operation], admit: Admit) -> Endpoint:
    """The endpoint of one path, for its operations by method."""

    async def handle(call: Call) -> ASGIApp:
        method = "GET" if call.method == "HEAD" and "GET" in operations else call.method
        operation = operations.get(method)
        if operation is None:
            raise MethodNotAllowed(f"{call.method} is not possible here", allow=sorted(operations))
        if operation.scope is not None:
            await admit(call, operation.scope)
        return await operation.handler(call)

    refuse = next(iter(operations.values())).refuse
    return Endpoint(handle, refuse)


def make_router(table: Sequence[Operation], admit: Admit = admit_all) -> APIRouter:
    """The operations as a router that any FastAPI application can include."""
    router = APIRouter()
    router.routes.extend(make_routes(table, admit))
    return router
