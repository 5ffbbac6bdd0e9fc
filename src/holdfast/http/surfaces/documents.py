"""The documents that references name, for a reader who wants to see where a passage stands."""

import msgspec
from starlette.types import ASGIApp

from holdfast.errors import BadRequest, NotFound
from holdfast.http.endpoint import Call, json_response
from holdfast.http.operation import Operation, Parameter
from holdfast.runner.supervisor import Supervisor

MAX_ID_CHARS = 4_096


class DocumentShape(msgspec.Struct, frozen=True):
    """A document as it is now; it may have changed since a passage was taken from it."""

    id: str
    title: str
    text: str


class DocumentRoutes:
    """The function behind the route."""

    def __init__(self, supervisor: Supervisor) -> None:
        """Serve the documents of the supervisor's upstreams."""
        self._upstreams = supervisor.upstreams

    async def get_document(self, call: Call) -> ASGIApp:
        """A document that references of this upstream name; only a `library` has them."""
        document_id = call.query_params.get("id", "")
        if not 0 < len(document_id) <= MAX_ID_CHARS:
            raise BadRequest("id takes the document_id of a reference")
        upstream = self._upstreams.get(call.path_params["name"])
        document = None if upstream is None else await upstream.document(document_id)
        if document is None:
            raise NotFound("there is no such document")
        return json_response(DocumentShape(document_id, document.title, document.text))


def operations(supervisor: Supervisor) -> list[Operation]:
    """The documents of upstreams."""
    return [
        Operation(
            "GET",
            "/api/v1/upstreams/{name}/document",
            DocumentRoutes(supervisor).get_document,
            "A document that references name, as it is now",
            answer=DocumentShape,
            parameters=(Parameter("id", "query", "The `document_id` of a reference."),),
        )
    ]
