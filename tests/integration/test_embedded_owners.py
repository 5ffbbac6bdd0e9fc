"""Owners inside somebody else's application: its own function says whose a request is."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request
from starlette.responses import JSONResponse, Response

from holdfast import Holdfast
from holdfast.http.endpoint import OWNER
from holdfast.upstreams.base import Ask
from holdfast.upstreams.callable import CallableUpstream


async def answer(ask: Ask) -> AsyncIterator[str]:
    yield f"Kelp for {ask.message}."


def from_header(request: Request) -> str | None:
    return request.headers.get("x-user")


async def from_header_later(request: Request) -> str | None:
    return request.headers.get("x-user")


@asynccontextmanager
async def application(
    tmp_path: Path, owner: Callable[[Request], Any] | None, **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """An application with Holdfast inside, and a client that calls it."""
    hold = Holdfast(
        f"sqlite:///{tmp_path}/chat.db",
        upstreams={"own": CallableUpstream(answer)},
        owner=owner,
        **options,
    )
    app = FastAPI()
    app.include_router(hold.router)

    @app.exception_handler(HTTPException)
    async def told(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"app": error.detail}, error.status_code)

    async with hold:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            yield client


def as_user(name: str) -> dict[str, str]:
    return {"X-User": name}


async def ask(client: httpx.AsyncClient, **headers: str) -> Any:
    body = {"message": "Hi?", "stream": False}
    response = await client.post("/api/v1/runs", json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("owner", [from_header, from_header_later], ids=["plain", "async"])
async def test_p8_the_functions_owners_do_not_see_each_other(
    tmp_path: Path, owner: Callable[[Request], Any]
) -> None:
    async with application(tmp_path, owner) as client:
        found = await ask(client, **as_user("alice"))
        path = f"/api/v1/runs/{found['run']['id']}"
        assert (await client.get(path, headers=as_user("alice"))).status_code == 200
        assert (await client.get(path, headers=as_user("bob"))).status_code == 404
        lists = [
            (await client.get("/api/v1/sessions", headers=as_user(name))).json()["items"]
            for name in ("alice", "bob")
        ]
        assert [len(items) for items in lists] == [1, 0]


async def test_a_stranger_is_turned_away_everywhere_but_from_the_health(tmp_path: Path) -> None:
    async with application(tmp_path, from_header) as client:
        for method, path in (
            ("GET", "/api/v1/sessions"),
            ("POST", "/api/v1/runs"),
            ("GET", "/api/v1/runs/x/events"),
            ("DELETE", "/api/v1/sessions/x"),
        ):
            response = await client.request(method, path)
            assert response.status_code == 401, (method, path)
            assert response.json()["error"]["code"] == "unauthorized"
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200


async def test_a_refusal_of_its_own_is_told_in_the_applications_words(tmp_path: Path) -> None:
    def owner(request: Request) -> str:
        raise HTTPException(403, "pay first")

    async with application(tmp_path, owner) as client:
        response = await client.get("/api/v1/sessions")
        assert (response.status_code, response.json()) == (403, {"app": "pay first"})


@pytest.mark.parametrize("wrong", [1, b"alice", "", ["alice"]])
async def test_what_is_no_owner_is_a_mistake_and_lets_nobody_in(
    tmp_path: Path, wrong: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with application(tmp_path, lambda request: wrong) as client:
        response = await client.get("/api/v1/sessions")
    assert response.json()["error"]["code"] == "internal_error"
    assert "must give a str or None" in caplog.text


async def test_a_function_that_fails_lets_nobody_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def owner(request: Request) -> str:
        raise KeyError("session")

    async with application(tmp_path, owner) as client:
        response = await client.post("/api/v1/runs", json={"message": "Hi?"})
        assert response.status_code == 500
        assert "session" not in response.text


async def test_users_do_not_see_what_the_application_tells_its_upstreams(tmp_path: Path) -> None:
    async with application(tmp_path, from_header) as client:
        run = (await ask(client, **as_user("alice")))["run"]["id"]
        response = await client.get(f"/api/v1/runs/{run}/raw", headers=as_user("alice"))
        assert (response.status_code, response.json()["error"]["scope"]) == (403, "debug")


async def test_there_are_no_keys_to_manage(tmp_path: Path) -> None:
    async with application(tmp_path, None) as client:
        assert (await client.post("/api/v1/keys", json={"owner": "mallory"})).status_code == 404


async def test_without_the_function_all_is_local_or_as_a_middleware_says(tmp_path: Path) -> None:
    async with application(tmp_path, None) as client:
        run = (await ask(client))["run"]["id"]
        assert (await client.get(f"/api/v1/runs/{run}")).status_code == 200

    hold = Holdfast(f"sqlite:///{tmp_path}/chat.db")
    app = FastAPI()
    app.include_router(hold.router)

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        scope[OWNER] = "bob"
        await app(scope, receive, send)

    transport = httpx.ASGITransport(middleware)
    async with hold, httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        assert (await client.get(f"/api/v1/runs/{run}")).status_code == 404
