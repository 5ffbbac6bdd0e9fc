"""A program that prints an answer as it comes: `aiohttp_chat.py URL MESSAGE`.

It takes `content` of every frame unasked: one without it ends the program.
"""

import asyncio
import json
import sys

import aiohttp

URL, MESSAGE = sys.argv[1:]


async def stream_chat() -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{URL}/api/v1/chat/stream",
            json={"message": MESSAGE, "stream": True},
            headers={"Authorization": "Bearer your-api-key"},
        ) as response,
    ):
        async for line in response.content:
            if line.startswith(b"data:"):
                data = line[5:].strip()
                if data != b"[DONE]":
                    chunk = json.loads(data.decode("utf-8"))
                    print(chunk["content"], end="", flush=True)


asyncio.run(stream_chat())
