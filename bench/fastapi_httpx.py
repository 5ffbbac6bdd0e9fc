"""The usual way: FastAPI, one shared httpx client, an async generator in a StreamingResponse.

It keeps nothing. Run as `fastapi_httpx.py PORT UPSTREAM_PORT`.
"""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse


def create_app(upstream_port: int) -> FastAPI:
    # Without these limits the pool would refuse the 101st stream; the usual cure is to lift them.
    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{upstream_port}",
        timeout=None,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    async def relay(body: dict[str, Any]) -> AsyncIterator[str]:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data: "):
                    continue
                data = line.removeprefix("data: ")
                if data == "[DONE]":
                    break
                chunk = json.loads(data)
                yield f"data: {json.dumps(chunk)}\n\n"
        yield "data: [DONE]\n\n"

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/chat/completions")
    async def chat(body: dict[str, Any]) -> StreamingResponse:
        return StreamingResponse(relay(body), media_type="text/event-stream")

    return app


if __name__ == "__main__":
    uvicorn.run(
        create_app(int(sys.argv[2])),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        backlog=4096,
        log_level="warning",
    )
