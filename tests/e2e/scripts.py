"""What the scripted upstream says to the page's questions."""

import asyncio
from typing import Any

from tests.support.upstream_server import Step, completion_chunk, event

KELP: dict[str, Any] = {
    "id": "c1",
    "content": "Kelp grips the **rock** with its holdfast.",
    "document_id": "d1",
    "document_name": "kelp.md",
}
TIDES: dict[str, Any] = {
    "id": "c2",
    "content": "The tide turns twice a day.",
    "document_id": "d2",
    "document_name": "tides.md",
    "url": "https://sea.example/tides",
}
SOURCES = completion_chunk(reference=[KELP, TIDES])
END = (completion_chunk("stop"), event("[DONE]"))


def text(content: str) -> bytes:
    """A piece of the answer."""
    return completion_chunk(content=content)


def held(gate: asyncio.Event) -> tuple[Step, ...]:
    """An answer that stops in the middle until the gate opens."""
    return (SOURCES, text("Kelp "), gate, text("holds [ID:0]."), *END)
