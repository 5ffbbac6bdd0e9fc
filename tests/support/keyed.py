"""A server with keys, which a test has in its environment, and clients that send them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tests.support.raw_client import Client, Reply
from tests.support.server import Deployment, Server

ALICE = "alice-key-0123456789"
BOB = "bob-key-0123456789"
OPS = "ops-key-0123456789"
WATCH = "watch-key-0123456789"
VARIABLE = f"alice:{ALICE},bob:{BOB},ops:{OPS}:chat+admin+debug,watch:{WATCH}:debug"


def keyed(folder: Path, **sections: Any) -> Deployment:
    """A deployment whose server takes the keys above, from `.env`."""
    (folder / ".env").write_text(f'HOLDFAST_API_KEYS="{VARIABLE}"\n', encoding="utf-8")
    return Deployment(folder, **sections)


def bearer(key: str) -> dict[str, str]:
    """The header that a key is sent in."""
    return {"Authorization": f"Bearer {key}"}


class HasServer(Protocol):
    """Where a server is; it may be another one after a restart."""

    @property
    def server(self) -> Server:
        """The server as it is now."""


class Caller(Client):
    """Somebody with a key, or with none."""

    def __init__(self, site: HasServer, key: str | None) -> None:
        """Call the server of `site` with `key`."""
        self._site = site
        self.key = key

    @property
    def url(self) -> str:  # type: ignore[override]
        """The server as it is now."""
        return self._site.server.url

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        own = bearer(self.key) if self.key else {}
        return super().request(method, path, body, {**own, **(headers or {})})

    async def asked(self, message: str, **body: Any) -> Any:
        """Ask and wait: the run with its message."""
        reply = await self.ask(message, **body)
        assert reply.status == 200, reply
        return reply.json

    async def ask(self, message: str, **body: Any) -> Reply:
        """Ask and wait, whatever is answered."""
        return await self.post("/api/v1/runs", {"message": message, "stream": False, **body})
