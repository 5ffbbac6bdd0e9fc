"""The OpenAPI document: it names every route, it is valid, and the server keeps to it."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies
import pytest
import schemathesis
import schemathesis.openapi

from tests.support.server import Deployment
from tests.support.upstream_server import Wire, completion_chunk

METHODS = {"get", "put", "post", "delete", "patch", "options", "head"}
ROUTES = {
    "/api/v1/runs": {"post"},
    "/api/v1/runs/{id}": {"get"},
    "/api/v1/runs/{id}/events": {"get"},
    "/api/v1/runs/{id}/cancel": {"post"},
    "/api/v1/sessions": {"get", "post"},
    "/api/v1/sessions/{id}": {"get", "patch", "delete"},
    "/api/v1/sessions/{id}/events": {"get"},
    "/api/v1/sessions/{id}/messages": {"get"},
    "/api/v1/messages/{id}": {"get"},
    "/api/v1/messages/{id}/regenerate": {"post"},
    "/api/v1/messages/{id}/edit": {"post"},
    "/api/v1/upstreams": {"get"},
    "/api/v1/presets": {"get"},
    "/api/v1/chat": {"post"},
    "/api/v1/chat/stream": {"post"},
    "/chat": {"post"},
    "/chat/stream": {"post"},
    "/sessions/{id}/messages": {"get"},
    "/stream-ask": {"post"},
    "/healthz": {"get"},
    "/readyz": {"get"},
}


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
async def document(site: Deployment) -> Any:
    reply = await site.server.get("/openapi.json")
    assert reply.status == 200
    return reply.json


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def makes_keys(path: str) -> bool:
    """Whether this may be what shuts a server to everybody without a key: it comes last."""
    return path == "/api/v1/keys"


@pytest.fixture
async def own_site(tmp_path: Path) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path) as site:
        yield site


def is_native(path: str) -> bool:
    return path.startswith("/api/v1/") and not path.startswith("/api/v1/chat")


def known_id(path: str, run: Any) -> str:
    """An id that exists, of the kind that the path wants."""
    ids: dict[str, str] = {
        "sessions": run["session_id"],
        "messages": run["message_id"],
        "runs": run["id"],
        "chat": run["session_id"],
        "models": "script",
        "keys": "nope",
    }
    return ids[path.partition("/{id}")[0].rpartition("/")[2]]


def schema_at(document: Any, path: str, method: str, status: str) -> Any:
    content = document["paths"][path][method]["responses"][status]["content"]
    return content["application/json"]["schema"]


KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
KEYWORDS = {
    *("$ref", "anyOf", "type", "const", "enum", "properties", "required", "items", "prefixItems"),
    *("minItems", "maxItems", "minimum", "maximum", "minLength", "maxLength"),
    "additionalProperties",
}
NOTES = {"title", "description", "default", "discriminator"}


def misfits(value: Any, schema: Any, document: Any, at: str = "$") -> list[str]:
    """Where `value` does not fit; knows the words of JSON Schema that the document uses."""
    if not isinstance(schema, dict):
        return [] if schema is True else [f"{at}: nothing is allowed here"]
    unknown = schema.keys() - KEYWORDS - NOTES
    assert not unknown, f"the validator must learn {unknown}"
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return misfits(value, document["components"]["schemas"][name], document, at)
    if "anyOf" in schema:
        tries = [misfits(value, one, document, at) for one in schema["anyOf"]]
        return [] if [] in tries else [f"{at}: none of {tries}"]
    kind = schema.get("type")
    if kind is not None:
        right = isinstance(value, KINDS[kind])
        if not right or (isinstance(value, bool) and kind in ("integer", "number")):
            return [f"{at}: {value!r} is no {kind}"]
    return _wrong_value(value, schema, at) + _wrong_parts(value, schema, document, at)


def _wrong_value(value: Any, schema: Any, at: str) -> list[str]:
    fits = value == schema.get("const", value) and value in schema.get("enum", [value])
    if isinstance(value, int | float):
        fits = fits and schema.get("minimum", value) <= value <= schema.get("maximum", value)
    if isinstance(value, str | list):
        size = len(value)
        fits = fits and schema.get("minItems", 0) <= size <= schema.get("maxItems", size)
        fits = fits and schema.get("minLength", size) <= size <= schema.get("maxLength", size)
    return [] if fits else [f"{at}: {value!r} is not allowed by {schema}"]


def _wrong_parts(value: Any, schema: Any, document: Any, at: str) -> list[str]:
    wrong: list[str] = []
    if isinstance(value, dict):
        wrong += [
            f"{at}: {name} is missing" for name in schema.get("required", ()) if name not in value
        ]
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        for name, part in value.items():
            wrong += misfits(part, properties.get(name, others), document, f"{at}.{name}")
    if isinstance(value, list):
        first = schema.get("prefixItems", [])
        for place, part in enumerate(value):
            one = first[place] if place < len(first) else schema.get("items", True)
            wrong += misfits(part, one, document, f"{at}[{place}]")
    return wrong


async def test_names_every_route(document: Any) -> None:
    named = {path: set(methods) & METHODS for path, methods in document["paths"].items()}
    assert {path: named.get(path) for path in ROUTES} == ROUTES


async def test_says_what_every_operation_is(document: Any) -> None:
    assert document["openapi"].startswith("3.")
    assert document["info"]["title"]
    assert document["info"]["version"]
    names = []
    for path, _, operation in operations(document):
        names.append(operation["operationId"])
        assert operation["summary"]
        assert operation["responses"]
        for response in operation["responses"].values():
            assert response["description"]
        in_path = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
        assert in_path == re.findall(r"{(\w+)}", path)
    assert len(names) == len(set(names))


async def test_every_reference_leads_somewhere(document: Any) -> None:
    references = []

    def collect(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                references.append(part["$ref"])
            for value in part.values():
                collect(value)
        elif isinstance(part, list):
            for value in part:
                collect(value)

    collect(document)
    assert references
    for reference in references:
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
        assert isinstance(target, dict)


async def test_shows_an_example_for_every_body_and_it_works(
    document: Any, own_site: Deployment
) -> None:
    found = await own_site.asked("Why?")
    run = found["run"]
    for path, method, operation in sorted(
        operations(document), key=lambda found: makes_keys(found[0])
    ):
        if "requestBody" not in operation:
            continue
        content = operation["requestBody"]["content"]["application/json"]
        target = path.replace("{id}", known_id(path, run)) if "{id}" in path else path
        if path.endswith("/edit"):
            other = (await own_site.asked("Who?"))["run"]
            target = path.replace("{id}", other["question_id"])
        body = content["example"]
        if "message_id" in body:
            body = {**body, **await what_of_a_partial_answer_can_be_saved(own_site)}
        reply = await own_site.server.call(method.upper(), target, body)
        assert str(reply.status) in operation["responses"], (path, reply)
        assert reply.status in (200, 201), (path, reply)


async def what_of_a_partial_answer_can_be_saved(site: Deployment) -> dict[str, str]:
    found = await site.asked(site.answers(completion_chunk(content="Kelp"), Wire.CLOSE))
    message = found["message"]
    return {
        "session_id": message["session_id"],
        "message_id": message["id"],
        "answer": "Kelp holds.",
    }


class TestSchemas:
    async def test_of_bodies_take_their_examples_and_refuse_what_the_server_refuses(
        self, document: Any
    ) -> None:
        for path, _, operation in operations(document):
            for content in operation.get("requestBody", {}).get("content", {}).values():
                assert misfits(content["example"], content["schema"], document) == []
                unknown = {**content["example"], "no_such_option": 1}
                # The clients of other dialects send more than anybody reads.
                assert bool(misfits(unknown, content["schema"], document)) == is_native(path)

    async def test_of_answers_fit_what_is_answered(self, document: Any, site: Deployment) -> None:
        run = (await site.asked("Why?", metadata={"a": 1}))["run"]
        failed = (await site.asked(site.answers()))["run"]
        session = f"/api/v1/sessions/{run['session_id']}"
        for path, target, status in (
            ("/api/v1/runs/{id}", f"/api/v1/runs/{run['id']}", "200"),
            ("/api/v1/runs/{id}", f"/api/v1/runs/{failed['id']}", "200"),
            ("/api/v1/sessions", "/api/v1/sessions?limit=1", "200"),
            ("/api/v1/sessions/{id}", session, "200"),
            ("/api/v1/sessions/{id}/messages", f"{session}/messages", "200"),
            ("/api/v1/messages/{id}", f"/api/v1/messages/{run['question_id']}", "200"),
            ("/api/v1/upstreams", "/api/v1/upstreams", "200"),
            ("/api/v1/presets", "/api/v1/presets", "200"),
            ("/sessions/{id}/messages", f"/sessions/{run['session_id']}/messages", "200"),
            ("/sessions/{id}/messages", f"/sessions/{failed['session_id']}/messages", "200"),
            ("/sessions/{id}/messages", "/sessions/nope/messages", "404"),
            ("/api/v1/runs/{id}", "/api/v1/runs/nope", "404"),
            ("/api/v1/runs/{id}/events", f"/api/v1/runs/{run['id']}/events?after=x", "400"),
            ("/api/v1/runs/{id}/events", f"/api/v1/runs/{run['id']}/events?after=99", "410"),
        ):
            reply = await site.server.get(target)
            assert str(reply.status) == status
            assert reply.json
            assert misfits(reply.json, schema_at(document, path, "get", status), document) == []

    @pytest.mark.parametrize("path", ["/api/v1/chat", "/chat", "/stream-ask"])
    async def test_of_what_is_not_streamed_fit_it_in_other_dialects(
        self, document: Any, site: Deployment, path: str
    ) -> None:
        asks = [({}, 400), ({"message": "Why?"}, 200), ({"message": site.answers()}, 502)]
        for body, status in asks[:1] if path == "/stream-ask" else asks:
            reply = await site.server.post(path, body)
            assert reply.status == status
            schema = schema_at(document, path, "post", str(status))
            assert misfits(reply.json, schema, document) == []

    async def test_of_events_fit_what_is_streamed(self, document: Any, site: Deployment) -> None:
        schema = {"$ref": "#/components/schemas/Event"}
        async with site.ask("Why?") as stream:
            frames = await stream.rest()
        assert len(frames) > 3
        for frame in frames:
            assert misfits(frame.data, schema, document) == []
        assert misfits({"type": "no-such-event"}, schema, document)


@pytest.mark.filterwarnings("ignore")  # of the library's own
async def test_p9_what_a_fuzzer_makes_of_it_is_never_an_internal_error(
    document: Any, own_site: Deployment
) -> None:
    """Every operation gets the same requests in every run, good ones and bad ones."""
    run = (await own_site.asked("Why?"))["run"]
    await asyncio.to_thread(_fuzz, document, own_site.server.url, run)
    assert (await own_site.server.get("/healthz")).status == 200
    assert "Traceback" not in own_site.server.log_text


def _fuzz(document: Any, url: str, run: Any) -> None:
    schema: Any = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url)
    modes = list(schemathesis.GenerationMode)
    every = [found.ok() for found in schema.get_all_operations()]
    for operation in sorted(every, key=lambda operation: makes_keys(operation.path)):
        if operation.path.endswith("/events") or operation.method == "delete":
            continue

        @hypothesis.settings(max_examples=15, derandomize=True, database=None, deadline=None)
        @hypothesis.given(case=_cases(operation, modes), known=hypothesis.strategies.booleans())
        def check(case: Any, known: bool) -> None:
            if known and "id" in (case.path_parameters or {}):
                case.path_parameters["id"] = known_id(case.path, run)
            if isinstance(case.body, dict) and "message" in case.body:
                case.body["stream"] = False
            response = case.call(timeout=20, headers={"Connection": "close"})
            assert response.status_code < 500, (case.as_curl_command(), response.text)

        check()


def _cases(operation: Any, modes: Any) -> Any:
    return hypothesis.strategies.one_of(
        *(operation.as_strategy(generation_mode=mode) for mode in modes)
    )
