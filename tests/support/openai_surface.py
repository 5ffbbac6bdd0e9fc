"""What tests of the OpenAI surface share: a deployment with upstreams of several kinds, questions
in the words of OpenAI's clients, and the shape of refusals."""

from pathlib import Path
from typing import Any

from tests.support.raw_client import Client, Reply, eventually
from tests.support.server import Deployment
from tests.support.upstream_server import Script, Wire, completion_chunk, whole

PATH = "/v1/chat/completions"
DOCUMENT = "# Kelp\n\nA holdfast is the root-like structure that anchors kelp to the rock.\n"
CAREFUL = {
    "upstream": "script",
    "model": "m-careful",
    "system": "Take care.",
    "temperature": 0.2,
    "max_tokens": 80,
}
CUT = (completion_chunk(content="Kelp ho"), Wire.RESET)
"""An answer that breaks off."""


def deployment(folder: Path, **sections: Any) -> Deployment:
    """A deployment with `script` as its default, a library `docs` and an upstream that is `dead`.

    Runs whose reader leaves end at once.
    """
    (folder / "documents").mkdir(parents=True)
    (folder / "documents" / "kelp.md").write_text(DOCUMENT)
    upstreams = {
        "docs": {"kind": "library", "path": "documents", "pace": 0},
        "dead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "model": "none"},
    }
    settings: dict[str, Any] = {
        "presets": {"careful": CAREFUL},
        "router": {"default": "script", "local": "docs"},
        **sections,
        "runs": {"disconnect_grace_s": 0, **sections.get("runs", {})},
    }
    return Deployment(folder, upstreams=upstreams, **settings)


def user(content: Any) -> dict[str, Any]:
    """A message of the user's."""
    return {"role": "user", "content": content}


def body_of(question: str, **more: Any) -> dict[str, Any]:
    """The body of a request that asks `script`."""
    return {"model": "script", "messages": [user(question)], **more}


async def post(client: Client, body: Any, **headers: str) -> Reply:
    """Ask, and read the whole response."""
    return await client.post(PATH, body, **headers)


def refusal(reply: Reply, status: int, code: str) -> dict[str, Any]:
    """The error object of a response that must be this refusal, in OpenAI's shape."""
    error = reply.json["error"]
    assert (reply.status, error["code"]) == (status, code), reply
    assert {"message", "type", "param", "code"} <= error.keys()
    assert error["message"]
    assert reply.headers["x-request-id"] == error["request_id"]
    return dict(error)


def failing(status: int, message: str = "Because.") -> Script:
    """An upstream's refusal."""
    return whole({"error": {"message": message}}, status)


async def is_asked(site: Deployment, question: str) -> None:
    """Wait until the upstream has a question."""

    async def look() -> bool | None:
        return True if site.requests_for(question) else None

    await eventually(look)
