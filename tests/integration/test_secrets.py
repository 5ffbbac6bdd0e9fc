"""No secret reaches a log, an answer, the store or the description of the interface.

A server that logs everything is made to fail in every way there is; then all that it has said and
written is searched for every secret that it knows.
"""

import base64
import itertools
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from blockbuster import BlockBuster
from typer.testing import CliRunner

from holdfast.cli.main import app
from holdfast.settings import LimitSettings
from holdfast.upstreams.base import Ask, Exchange
from holdfast.upstreams.openai.upstream import OpenAI
from holdfast.upstreams.wire.transport import Transport
from tests.support import loud_server
from tests.support.keyed import ALICE, BOB, OPS, VARIABLE, Caller
from tests.support.raw_client import Connection, Reply
from tests.support.server import Server
from tests.support.sink import RecordingSink
from tests.support.upstream_server import (
    LAST_CHUNK,
    Request,
    Script,
    ScriptedUpstream,
    Wire,
    chunk,
    completion_chunk,
    event,
    head,
    whole,
)

UPSTREAM_KEYS = {
    "gpt": "sk-openai-7Qx4-very-secret",
    "kb": "ragflow-8Rt5-very-secret",
    "notes": "ALLM-9Uv6-very-secret",
    "app": "app-dify-0Wz7-very-secret",
}
TEAM = "team-header-1Ab8-very-secret"
UNUSED = "sk-of-another-program-2Cd9"
WRONG = "a-mistyped-key-3Ef0"
PASSWORD = "hunter2-4Gh1-password"
SETTINGS: dict[str, dict[str, str]] = {
    "gpt": {"kind": "openai", "model": "m1"},
    "kb": {"kind": "ragflow", "chat_id": "c1"},
    "notes": {"kind": "anythingllm", "workspace": "w1"},
    "app": {"kind": "dify"},
}


def forms(secret: str) -> Iterator[str]:
    """How a secret may be written."""
    yield secret
    yield quote(secret, safe="")
    yield base64.b64encode(secret.encode()).decode().rstrip("=")
    yield secret[:12]  # cut off
    yield json.dumps(secret)[1:-1]


def assert_no_secret(text: str, about: object, secrets: list[str]) -> None:
    for secret in secrets:
        for form in forms(secret):
            at = text.find(form)
            assert at < 0, f"{about}: …{text[max(0, at - 200) : at + 100]}…"


# ---------------------------------------------------------------------- an upstream that tells


def told(request: Request) -> str:
    """All that the upstream was sent in its headers, and so every secret."""
    return " ".join(request.headers.values())


def in_band(request: Request) -> Script:
    said = {"error": {"message": f"invalid key {told(request)}", "code": "invalid_api_key"}}
    ragflow = {"code": 401, "message": f"invalid key {told(request)}", "data": False}
    notes: dict[str, Any] = {
        "id": "1",
        "type": "abort",
        "textResponse": None,
        "close": True,
        "sources": [],
    }
    dify = {"event": "error", "status": 401, "code": "unauthorized", "message": told(request)}
    body = {**ragflow, **notes, **dify, **said}
    return [head(), chunk(event(body)), LAST_CHUNK]


def long_error(length: int, request: Request) -> Script:
    """A text that is too long to be told as a whole, with the key where it is cut."""
    return whole({"error": {"message": "x" * length + request.headers["authorization"]}}, 403)


WAYS: dict[str, Callable[[Request], Script]] = {
    "JSON error": lambda r: whole({"error": {"message": f"wrong key: {told(r)}"}}, 401),
    "JSON error of Dify": lambda r: whole({"code": told(r), "message": told(r)}, 401),
    "JSON error with 200": lambda r: whole({"code": 109, "message": f"wrong key: {told(r)}"}),
    **{
        f"error of {length} letters and a key": partial(long_error, length)
        for length in (440, 470, 475, 480, 485, 490)
    },
    "text error": lambda r: whole(f"wrong key: {told(r)}", 403, "text/plain"),
    "HTML error": lambda r: whole(f"<p>wrong key: {told(r)}</p>", 500, "text/html"),
    "HTML with 200": lambda r: whole(f"<p>wrong key: {told(r)}</p>", 200, "text/html"),
    "type": lambda r: whole("x", 200, f"text/{told(r)}"),
    "reason": lambda r: [f"HTTP/1.1 401 {told(r)}\r\nContent-Length: 0\r\n\r\n".encode()],
    "redirect": lambda r: whole("", 302, None, Location=f"http://127.0.0.1/?{told(r)}"),
    "wait": lambda r: whole("", 429, None, Retry_After=told(r)),
    "no HTTP": lambda r: [told(r).encode() + b"\r\n\r\n", Wire.CLOSE],
    "bad header": lambda r: [f"HTTP/1.1 200 OK\r\n{told(r)}\r\n\r\n".encode(), Wire.CLOSE],
    "bad length": lambda r: [
        f"HTTP/1.1 200 OK\r\nContent-Length: {told(r)}\r\n\r\n".encode(),
        Wire.CLOSE,
    ],
    "bad chunk": lambda r: [head(), f"{told(r)}\r\n".encode(), Wire.CLOSE],
    "bad stream": lambda r: [head(), chunk(told(r).encode() + b"\n\n"), LAST_CHUNK],
    "in band": in_band,
    "cut off": lambda r: [head(), chunk(completion_chunk(content="Kelp")), Wire.RESET],
    "nothing": lambda r: [Wire.CLOSE],
}


class LoudServer(Server):
    """Logs everything; it is meant to break down, too."""

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


class Site:
    """The loud server and the upstream that tells all it knows.

    Attributes:
        said: All that the server has answered.
        secrets: What must not be in it.
    """

    server: LoudServer

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[tuple[object, str]] = []
        self.secrets = [*UPSTREAM_KEYS.values(), TEAM, UNUSED, WRONG, ALICE, BOB, OPS]
        self.upstream = ScriptedUpstream(self._choose)

    def _choose(self, request: Request) -> Script:
        if request.method == "GET":
            return WAYS["JSON error"](request)
        asked = re.search(rb"Way (\d+)", request.body)
        ways = list(WAYS.values())
        return ways[int(asked[1]) if asked else 0](request)

    def make_server(self) -> LoudServer:
        """The server, with its secrets where people put them."""
        variables = [f'HOLDFAST_API_KEYS="{VARIABLE}"', f"OPENAI_API_KEY={UNUSED}"]
        variables += [f"KEY_OF_{name.upper()}={key}" for name, key in UPSTREAM_KEYS.items()]
        (self.folder / ".env").write_text("\n".join(variables))
        upstreams = {
            name: {
                **table,
                "base_url": f"{self.upstream.base_url}/{name}",
                "api_key": f"${{KEY_OF_{name.upper()}}}",
            }
            for name, table in SETTINGS.items()
        }
        prefix = [sys.executable, loud_server.__file__]
        return LoudServer(
            self.folder,
            prefix=prefix,
            upstreams=upstreams,
            router={"default": "gpt", "breaker_failures": 1_000},
            limits={"question_bytes": 2_000, "body_bytes": 5_000},
        )

    def note(self, about: object, reply: Reply) -> Reply:
        """Keep what was answered, to be searched."""
        self.said.append((about, f"{reply.headers} {reply.body.decode(errors='replace')}"))
        return reply


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    async with site.upstream:
        site.server = site.make_server()
        async with site.server:
            yield site


async def ask_everybody(site: Site, alice: Caller, ops: Caller) -> None:
    """Every upstream fails in every way, on several surfaces."""
    for (number, way), name in itertools.product(enumerate(WAYS), UPSTREAM_KEYS):
        body = {"message": f"Way {number}", "upstream": name, "stream": False}
        reply = site.note((way, name), await ops.post("/api/v1/runs", body))
        assert reply.status == 200, (way, name, reply)
        run = reply.json["run"]["id"]
        for path in (f"/api/v1/runs/{run}/raw", f"/api/v1/runs/{run}/events"):
            site.note((way, name, path), await ops.get(path))
    for number, way in enumerate(WAYS):
        text = f"Way {number}"
        part = {"type": "text", "text": text}
        messages = [{"role": "user", "content": text}]
        bodies: tuple[tuple[str, dict[str, Any]], ...] = (
            ("/api/v1/chat", {"message": text}),
            ("/api/v1/chat/stream", {"message": text}),
            ("/chat", {"message": text}),
            ("/chat/stream", {"message": text}),
            ("/stream-ask", {"question": text}),
            ("/api/messages", {"question": text}),
            ("/api/messages/stream", {"question": text}),
            ("/api/chat", {"messages": [{"role": "user", "parts": [part]}]}),
            ("/v1/chat/completions", {"messages": messages}),
            ("/v1/chat/completions", {"messages": messages, "stream": True}),
        )
        for path, body in bodies:
            site.note((way, path, body), await alice.post(path, body))


async def fail_at_the_door(site: Site, alice: Caller) -> None:
    """Requests that are refused, each in its own way."""
    long = "x" * 6_000
    wrong = {"Authorization": f"Bearer {WRONG}"}
    boom = f"/api/v1/sessions/{loud_server.BOOM}"
    for status, method, path, body, headers in (
        (401, "GET", "/api/v1/sessions", None, wrong),
        (401, "POST", "/api/v1/runs", {"message": "Hi"}, wrong),
        (401, "GET", f"/api/v1/sessions?key={WRONG}", None, {"Authorization": ""}),
        (401, "GET", "/api/v1/sessions", None, {"Authorization": f"Basic {WRONG}"}),
        (403, "GET", "/api/v1/keys", None, {}),
        (403, "POST", "/api/v1/runs", {"message": "Hi"}, {"Origin": "https://evil.example"}),
        (404, "GET", "/api/v1/runs/nope", None, {}),
        (400, "POST", "/api/v1/runs", b"{", {}),
        (400, "POST", "/api/v1/runs", {"message": 1}, {}),
        (413, "POST", "/api/v1/runs", {"message": long}, {}),
        (415, "POST", "/api/v1/runs", b"x", {"Content-Type": "text/plain"}),
        (405, "PUT", "/api/v1/runs", {}, {}),
        (400, "GET", "/", None, {"Host": "evil.example"}),
        (500, "GET", boom, None, {}),
        (500, "GET", "/sessions/boom/messages", None, {}),
    ):
        reply = site.note((method, path), await alice.call(method, path, body, headers))
        assert reply.status == status, (method, path, reply)
    for garbage in (
        f"GET / HTTP/1.1\r\nAuthorization: Bearer {ALICE}\r\nbroken\r\n\r\n",
        f"Authorization: Bearer {ALICE}\r\n\r\n",
        f"GET /{long * 20} HTTP/1.1\r\nAuthorization: Bearer {ALICE}\r\n",
    ):
        async with site.server.connect() as connection:
            await _send(connection, garbage.encode())
            site.said.append((garbage[:40], (await connection.closed()).decode("latin-1")))


async def _send(connection: Connection, data: bytes) -> None:
    await connection.send(data)
    connection.end()


async def manage_keys(site: Site, ops: Caller) -> None:
    """Make and revoke keys; the answer that shows one is the only place where it may be."""
    made = (await ops.post("/api/v1/keys", {"owner": "dora"})).json
    site.secrets.append(made["key"])
    dora = Caller(site, made["key"])
    body = {"message": "Way 0", "stream": False}
    site.note("asked with a new key", await dora.post("/api/v1/runs", body))
    site.note("keys", await ops.get("/api/v1/keys"))
    site.note("revoked", await ops.call("DELETE", f"/api/v1/keys/{made['id']}"))
    site.note("revoked key", await dora.get("/api/v1/sessions"))
    site.note("revoked env key", await ops.call("DELETE", "/api/v1/keys/env-1"))
    body = {"owner": f"\n{made['key']}", "scopes": []}
    site.note("no such key", await ops.post("/api/v1/keys", body))


async def look_everywhere(site: Site, ops: Caller) -> None:
    """Read all that there is to read."""
    for path in ("/openapi.json", "/healthz", "/readyz", "/api/v1/upstreams", "/", "/v1/models"):
        site.note(path, await ops.get(path))
    sessions = site.note("sessions", await ops.get("/api/v1/sessions?limit=200"))
    for session in sessions.json["items"]:
        path = f"/api/v1/sessions/{session['id']}/messages"
        site.note(path, await ops.get(path))


async def test_no_secret_is_told_or_kept(site: Site) -> None:
    alice, ops = Caller(site, ALICE), Caller(site, OPS)
    await ask_everybody(site, alice, ops)
    await fail_at_the_door(site, alice)
    await manage_keys(site, ops)
    await look_everywhere(site, ops)
    assert len(site.said) > 300
    assert sum("***" in text for _, text in site.said) > 100
    sent = {value for request in site.upstream.requests for value in request.headers.values()}
    for key in UPSTREAM_KEYS.values():
        assert f"Bearer {key}" in sent  # what the upstream told was the secret
    site.server.signal(signal.SIGTERM)
    await site.server.exit()
    log = site.server.log_text
    assert "DEBUG:" in log
    assert "broken down on purpose" in log
    assert_no_secret(log, "the log", site.secrets)
    for about, text in site.said:
        assert_no_secret(text, about, site.secrets)
    for name in ("chat.db", "chat.db-wal"):
        written = site.folder / name
        if written.exists():
            assert_no_secret(written.read_bytes().decode("latin-1"), name, site.secrets)


async def test_the_run_itself_is_not_told_a_key_that_the_upstream_tells() -> None:
    """It may end by what it was given last, before the upstream has hung up."""
    secret = UPSTREAM_KEYS["gpt"]
    script: Script = [head(), chunk(event({"error": {"message": f"bad {secret}"}})), Wire.STALL]
    sink, transport = RecordingSink(), Transport()
    await transport.open()
    async with ScriptedUpstream(script) as server:
        table = {"base_url": server.base_url, "api_key": secret, "model": "m"}
        upstream = OpenAI("gpt", OpenAI.Settings.model_validate(table), LimitSettings(), transport)
        ask = Ask(run_id="r", session_id="s", message_id="m", message="Hi?")
        end = await upstream.answer(ask, Exchange(), sink)
    await transport.close()
    assert sink.ends[0].error == end.error == "bad ***"


async def test_what_an_upstream_said_at_the_end_is_kept_without_its_key() -> None:
    secret, exchange = UPSTREAM_KEYS["gpt"], Exchange()
    said = {"id": f"for {secret}", "model": "m", "choices": []}
    script = [head(), chunk(event(said) + completion_chunk("stop") + event("[DONE]")), LAST_CHUNK]
    transport = Transport()
    await transport.open()
    async with ScriptedUpstream(script) as server:
        table = {"base_url": server.base_url, "api_key": secret, "model": "m"}
        upstream = OpenAI("gpt", OpenAI.Settings.model_validate(table), LimitSettings(), transport)
        ask = Ask(run_id="r", session_id="s", message_id="m", message="Hi?")
        await upstream.answer(ask, exchange, RecordingSink())
    await transport.close()
    assert "for ***" in str(exchange.response)
    assert secret not in str(exchange.response)


KEY = "sk-in-a-bad-setting-5Jk2"
DATABASE = f"postgresql://ada:{PASSWORD}@db.example/chat?password={PASSWORD}"
BAD_FILES = {
    "not TOML": f'[upstreams.gpt]\napi_key = "{KEY}',
    "not TOML either": f"[upstreams.gpt]\napi_key = {KEY}",
    "a number": f'[upstreams.gpt]\nkind = "openai"\nmodel = 1\napi_key = "{KEY}"',
    "a key that is none": f'[upstreams.gpt]\nkind = "openai"\napi_keys = "{KEY}"',
    "a list": f'[upstreams.gpt]\nkind = "openai"\napi_key = ["{KEY}"]',
    "a table": f'[upstreams.gpt]\nkind = "openai"\nbase_url = "x"\nheaders = {{ a = ["{KEY}"] }}',
    "a user": f'[upstreams.gpt]\nkind = "openai"\nmodel = "m"\nbase_url = "http://u:{KEY}@a.b"',
    "no host": f'[upstreams.gpt]\nkind = "openai"\nmodel = "m"\nbase_url = "http://u:{KEY}@"',
    "elsewhere": f'[server]\nport = "{KEY}"\n[storage]\nstore_patience_s = "x"\napi_key = "{KEY}"',
}
BAD_VARIABLES = {
    "database": {"HOLDFAST_DATABASE_URL": DATABASE},
    "storage": {"HOLDFAST_STORAGE": DATABASE},
    "no database": {"HOLDFAST_STORAGE__URL": f"postgres//ada:{PASSWORD}@db.example"},
    "JSON": {"HOLDFAST_UPSTREAMS": f'{{"gpt": {{"api_key": "{KEY}"'},
    "whole": {"HOLDFAST_UPSTREAMS__GPT": f'"{KEY}"'},
    "keys": {"HOLDFAST_API_KEYS": KEY},
    "own key": {"HOLDFAST_API_KEY": f"{KEY} {KEY}"},
    "name": {"HOLDFAST_APIKEY": KEY},
}


@pytest.mark.parametrize("command", ["serve", "doctor", "ask", "keys"])
@pytest.mark.parametrize("bad", [*BAD_FILES, *BAD_VARIABLES])
def test_no_secret_is_told_of_settings_that_cannot_work(
    command: str,
    bad: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loop_guard: BlockBuster,
) -> None:
    loop_guard.deactivate()  # a command has its loop for itself
    monkeypatch.chdir(tmp_path)
    (tmp_path / "holdfast.toml").write_text(BAD_FILES.get(bad, '[upstreams.x]\nkind = "openai"'))
    for name, value in BAD_VARIABLES.get(bad, {}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOLDFAST_SERVER__PORT", "1")
    words = {"ask": ["Hi?"], "keys": ["list", "--url", "http://127.0.0.1:1"]}.get(command, [])
    result = CliRunner().invoke(app, [command, *words])
    told = result.stdout + result.stderr
    assert result.exit_code in (1, 2, 4), told
    assert told
    assert_no_secret(told, bad, [KEY, PASSWORD])
