"""The dialects inside somebody else's application."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import Response

from holdfast import Holdfast
from holdfast.upstreams.base import Ask
from tests.support.frames import datas_of


async def answer(ask: Ask) -> AsyncIterator[str]:
    yield "Kelp "
    yield "holds."


@pytest.mark.parametrize("dialect", ["plain", "stream-ask", "v1"])
@pytest.mark.parametrize("after", [0, 2])
async def test_are_written_whole_whatever_the_client_claims_to_have(
    tmp_path: Path, dialect: str, after: int
) -> None:
    hold = Holdfast(f"sqlite:///{tmp_path}/chat.db")
    app = FastAPI()

    @app.post("/chat")
    async def chat() -> Response:
        run = await hold.ask(message="Why?", upstream=answer)
        return hold.respond(run, dialect, after)

    app.include_router(hold.router)
    async with hold:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            response = await client.post("/chat")
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    datas = [data for data in datas_of(response.content) if isinstance(data, dict)]
    assert "".join(data.get("content", "") for data in datas) == "Kelp holds."
    if dialect != "plain":
        assert datas[-1]["message_id"] == response.headers["x-holdfast-message"]


async def test_their_routes_are_left_to_the_application(tmp_path: Path) -> None:
    hold = Holdfast(f"sqlite:///{tmp_path}/chat.db")
    paths = {route.path for route in hold.router.routes}  # type: ignore[attr-defined]
    assert "/api/v1/runs" in paths
    assert paths.isdisjoint({"/chat", "/chat/stream", "/stream-ask", "/sessions/{id}/messages"})
