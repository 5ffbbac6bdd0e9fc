"""Keys on a running server: who gets in, what they may do, how keys are made and revoked."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.store.sqlite import SqliteStore
from tests.support.command import Command, run
from tests.support.keyed import ALICE, BOB, OPS, WATCH, Caller, bearer, keyed
from tests.support.raw_client import Reply
from tests.support.server import Deployment
from tests.support.upstream_server import completion, completion_chunk

APP = "https://app.example"
OPEN = [
    *("/", "/index.html", "/app/main.js", "/style/base.css", "/holdfast-client.js"),
    *("/openapi.json", "/healthz", "/readyz"),
]
EVERYWHERE = ["::", "::ffff:127.0.0.1"] if socket.has_dualstack_ipv6() else []
"""Addresses of IPv6, on machines that have it, that are not only this machine's."""


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    folder = tmp_path_factory.mktemp("site")
    async with keyed(folder, server={"cors_origins": [APP]}) as site:
        yield site


@pytest.fixture(scope="module")
async def document(site: Deployment) -> Any:
    return (await site.server.get("/openapi.json")).json


def guarded(document: Any) -> Iterator[tuple[str, str, Any]]:
    """Every operation that needs a key: method, path, description."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation["security"]:
                yield method.upper(), path.replace("{id}", "x"), operation


def body_of(operation: Any) -> Any:
    content = operation.get("requestBody", {}).get("content", {})
    return content["application/json"]["example"] if content else None


def assert_turned_away(reply: Reply, told: str = "key") -> None:
    assert reply.status == 401, reply
    assert reply.headers["www-authenticate"] == "Bearer"
    assert told in reply.body.decode()


class TestWithoutKey:
    async def test_no_operation_does_anything(self, site: Deployment, document: Any) -> None:
        asked = len(site.upstream.requests)
        operations = list(guarded(document))
        assert len(operations) > 25
        for method, path, operation in operations:
            reply = await site.server.call(method, path, body_of(operation))
            assert_turned_away(reply)
            assert "401" in operation["responses"]
        assert len(site.upstream.requests) == asked

    @pytest.mark.parametrize(
        "headers",
        [
            bearer("wrong-key-0123456789"),
            bearer(ALICE[:-1]),
            bearer(ALICE + "x"),
            bearer(ALICE.upper()),
            bearer(f"alice:{ALICE}"),
            bearer("é" * 20),
            bearer("x" * 20_000),
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer "},
            {"Authorization": ALICE},
            {"Authorization": f"Basic {ALICE}"},
            {"Authorization": f"Bearer {ALICE} {BOB}"},
            {"Authorization": f"Bearer {ALICE}, Bearer {BOB}"},
            {"X-Api-Key": ALICE},
            {"Cookie": f"key={ALICE}; Authorization=Bearer {ALICE}"},
            {"Proxy-Authorization": f"Bearer {ALICE}"},
        ],
        ids=str,
    )
    async def test_nothing_else_opens(self, headers: dict[str, str], site: Deployment) -> None:
        assert_turned_away(await site.server.call("GET", "/api/v1/sessions", None, headers))

    async def test_two_keys_are_no_key(self, site: Deployment) -> None:
        async with site.server.connect() as connection:
            request = site.server.request("GET", "/api/v1/sessions", None, bearer(ALICE))
            line = f"Authorization: Bearer {BOB}\r\n\r\n".encode()
            await connection.send(request.removesuffix(b"\r\n") + line)
            assert_turned_away(await connection.reply())

    @pytest.mark.parametrize("name", ["key", "api_key", "access_token", "token", "authorization"])
    async def test_a_key_in_the_address_is_not_taken(self, name: str, site: Deployment) -> None:
        assert_turned_away(await site.server.get(f"/api/v1/sessions?{name}={ALICE}"))
        assert_turned_away(await site.server.get(f"/api/v1/sessions?{name}=Bearer%20{ALICE}"))

    @pytest.mark.parametrize("path", OPEN)
    async def test_page_status_and_description_are_for_everybody(
        self, path: str, site: Deployment
    ) -> None:
        assert (await site.server.get(path)).status == 200

    async def test_what_does_not_exist_is_told_as_before(self, site: Deployment) -> None:
        (await site.server.get("/no/such/path")).refused(404, "not_found")
        (await site.server.call("PUT", "/api/v1/runs", {})).refused(405, "method_not_allowed")

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", " Bearer "])
    async def test_the_schemes_name_is_of_any_case(self, scheme: str, site: Deployment) -> None:
        headers = {"Authorization": f"{scheme} {ALICE}"}
        assert (await site.server.call("GET", "/api/v1/sessions", None, headers)).status == 200

    async def test_it_is_told_in_the_words_of_each_dialect(self, site: Deployment) -> None:
        words = "this server wants a key: send one in the header `Authorization: Bearer KEY`"
        reply = await site.server.post("/api/v1/runs", {"message": "Hi"})
        assert reply.refused(401, "unauthorized")["message"] == words
        reply = await site.server.post("/api/v1/chat", {"message": "Hi"})
        assert reply.json == {"content": "", "error": words}
        reply = await site.server.post("/api/v1/chat/stream", {"message": "Hi"})
        assert reply.headers["content-type"].startswith("text/event-stream")
        frame = reply.body.removeprefix(b"data: ").removesuffix(b"\n\n")
        assert json.loads(frame) == {"content": "", "error": words}
        for path in ("/chat", "/chat/stream", "/stream-ask"):
            assert (await site.server.post(path, {})).json == {"error": words}
        reply = await site.server.post("/v1/chat/completions", {"messages": []})
        told = reply.json["error"]
        assert (told["type"], told["code"]) == ("authentication_error", "unauthorized")
        assert told["message"] == words
        assert reply.headers["x-should-retry"] == "false"
        reply = await site.server.post("/api/chat", {"messages": []})
        assert reply.body.decode() == f"T{words[1:]}"
        reply = await site.server.post("/api/messages", {"question": "Hi"})
        assert (reply.json["code"], reply.json["message"]) == (401, words)


class TestScopes:
    async def test_a_key_may_do_what_it_is_for_and_nothing_else(
        self, site: Deployment, document: Any
    ) -> None:
        scopes = {ALICE: {"chat"}, OPS: {"chat", "admin", "debug"}, WATCH: {"debug"}}
        needed: set[str] = set()
        for method, path, operation in guarded(document):
            if path == "/api/v1/keys" and method == "POST":
                continue  # it would work
            (scope,) = operation["security"][0]["key"]
            needed.add(scope)
            for key, allowed in scopes.items():
                reply = await site.server.call(method, path, body_of(operation), bearer(key))
                if scope not in allowed:
                    assert reply.status == 403, (method, path, key, reply)
                    assert f"the scope {scope}" in reply.body.decode()
                else:
                    assert reply.status not in (401, 403), (method, path, key, reply)
        assert needed == {"chat", "admin", "debug"}

    async def test_raw_requests_are_for_debugging(self, site: Deployment) -> None:
        ops = Caller(site, OPS)
        found = (await ops.asked("Why?"))["run"]["id"]
        raw = await ops.get(f"/api/v1/runs/{found}/raw")
        assert raw.status == 200
        assert raw.json["raw_request"]["messages"][-1]["content"] == "Why?"
        assert (await Caller(site, WATCH).get(f"/api/v1/runs/{found}/raw")).status == 404
        reply = await Caller(site, ALICE).get(f"/api/v1/runs/{found}/raw")
        assert reply.refused(403, "forbidden")["scope"] == "debug"


class TestOtherSites:
    async def test_a_preflight_needs_no_key_and_allows_one(self, site: Deployment) -> None:
        asked = {
            "Origin": APP,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
        }
        reply = await site.server.call("OPTIONS", "/api/v1/runs", None, asked)
        assert reply.status in (200, 204)
        assert reply.headers["access-control-allow-origin"] == APP
        assert "authorization" in reply.headers["access-control-allow-headers"].lower()

    async def test_may_read_that_they_are_turned_away(self, site: Deployment) -> None:
        for headers in ({}, bearer("wrong-key-0123456789")):
            reply = await site.server.call(
                "POST", "/api/v1/runs", {"message": "Hi"}, {"Origin": APP, **headers}
            )
            assert_turned_away(reply)
            assert reply.headers["access-control-allow-origin"] == APP
            exposed = reply.headers["access-control-expose-headers"].lower()
            assert "www-authenticate" in exposed
            assert "retry-after" in exposed

    async def test_that_are_foreign_are_refused_with_a_key_too(self, site: Deployment) -> None:
        headers = {**bearer(ALICE), "Origin": "https://evil.example"}
        reply = await site.server.call("POST", "/api/v1/sessions", {}, headers)
        reply.refused(403, "forbidden")
        headers = {**bearer(ALICE), "Host": "evil.example"}
        reply = await site.server.call("GET", "/api/v1/sessions", None, headers)
        reply.refused(400, "bad_request")


class TestManaging:
    @pytest.fixture
    def ops(self, site: Deployment) -> Caller:
        return Caller(site, OPS)

    async def test_a_key_works_at_once_and_is_shown_once(
        self, site: Deployment, ops: Caller
    ) -> None:
        body = {"owner": "dora", "name": "phone", "scopes": ["chat", "debug"], "concurrent_runs": 2}
        reply = await ops.post("/api/v1/keys", body)
        assert reply.status == 201
        assert reply.headers["cache-control"] == "no-store"
        made = reply.json
        key = made.pop("key")
        assert made | body == made
        assert (made["source"], made["revoked_at"], made["asks_per_minute"]) == (
            "store",
            None,
            None,
        )
        dora = Caller(site, key)
        run = (await dora.asked("Hi?"))["run"]
        assert (await ops.get(f"/api/v1/runs/{run['id']}")).status == 404
        listed = await ops.get("/api/v1/keys")
        assert made in listed.json["items"]
        assert key not in listed.body.decode()
        assert (await dora.get("/api/v1/keys")).status == 403

    async def test_a_revoked_key_is_turned_away_at_once(
        self, site: Deployment, ops: Caller
    ) -> None:
        made = (await ops.post("/api/v1/keys", {"owner": "dora"})).json
        dora = Caller(site, made["key"])
        assert (await dora.get("/api/v1/sessions")).status == 200
        for _ in range(2):
            assert (await ops.call("DELETE", f"/api/v1/keys/{made['id']}")).status == 204
            assert_turned_away(await dora.get("/api/v1/sessions"), "not valid")
        (listed,) = [
            key for key in (await ops.get("/api/v1/keys")).json["items"] if key["id"] == made["id"]
        ]
        assert listed["revoked_at"] is not None

    async def test_what_a_revoked_key_has_asked_is_its_owners(
        self, site: Deployment, ops: Caller
    ) -> None:
        first, second = [(await ops.post("/api/v1/keys", {"owner": "eve"})).json for _ in range(2)]
        run = (await Caller(site, first["key"]).asked("Hi?"))["run"]
        await ops.call("DELETE", f"/api/v1/keys/{first['id']}")
        reply = await Caller(site, second["key"]).get(f"/api/v1/runs/{run['id']}")
        assert reply.status == 200

    async def test_keys_of_the_environment_are_listed_and_stay(self, ops: Caller) -> None:
        items = (await ops.get("/api/v1/keys")).json["items"]
        given = [key for key in items if key["source"] == "environment"]
        assert [(key["id"], key["owner"]) for key in given] == [
            *(("env-1", "alice"), ("env-2", "bob"), ("env-3", "ops"), ("env-4", "watch"))
        ]
        reply = await ops.call("DELETE", "/api/v1/keys/env-1")
        assert "HOLDFAST_API_KEYS" in reply.refused(409, "conflict")["message"]

    @pytest.mark.parametrize(
        "body",
        [
            *({}, {"owner": ""}, {"owner": "a\n"}, {"owner": "x" * 256}, {"owner": "海" * 86}),
            *({"owner": 1}, {"owner": "a", "scopes": []}, {"owner": "a", "scopes": ["root"]}),
            *({"owner": "a", "scopes": ["chat", "chat"]}, {"owner": "a", "scopes": "chat"}),
            *({"owner": "a", "concurrent_runs": -1}, {"owner": "a", "asks_per_minute": 1.5}),
            *({"owner": "a", "key": "mine-0123456789abcdef"}, {"owner": "a", "name": "\x1b"}),
        ],
        ids=str,
    )
    async def test_a_key_that_cannot_be_is_refused(self, body: Any, ops: Caller) -> None:
        before = (await ops.get("/api/v1/keys")).json
        (await ops.post("/api/v1/keys", body)).refused(400, "bad_request")
        assert (await ops.get("/api/v1/keys")).json == before

    async def test_a_key_that_does_not_exist_cannot_be_revoked(self, ops: Caller) -> None:
        (await ops.call("DELETE", "/api/v1/keys/nope")).refused(404, "not_found")


class TestFirstKey:
    async def test_closes_the_server_at_once_and_after_a_restart(self, tmp_path: Path) -> None:
        async with Deployment(tmp_path) as site:
            local = (await site.asked("Hi?"))["run"]
            reply = await site.server.post("/api/v1/keys", {"owner": "alice"})
            alice = Caller(site, reply.json["key"])
            assert_turned_away(await site.server.get("/api/v1/sessions"))
            assert (await alice.get(f"/api/v1/runs/{local['id']}")).status == 404
            run = (await alice.asked("Hi?"))["run"]
            site.server.signal(signal.SIGKILL)
            await site.restart()
            assert_turned_away(await site.server.get("/api/v1/sessions"))
            assert (await alice.get(f"/api/v1/runs/{run['id']}")).status == 200
            key_id = reply.json["id"]
            done = await run_command(tmp_path, site, "revoke", key_id)
            assert (done.code, done.err.count("\n")) == (1, 1)
            assert "HOLDFAST_API_KEY is sent" in done.err
            for name in ("chat.db", "chat.db-wal", "server.log"):
                assert reply.json["key"].encode() not in (tmp_path / name).read_bytes()

    async def test_that_is_revoked_leaves_the_server_closed_until_a_restart(
        self, tmp_path: Path
    ) -> None:
        async with Deployment(tmp_path) as site:
            body = {"owner": "ops", "scopes": ["admin"]}
            made = (await site.server.post("/api/v1/keys", body)).json
            ops = Caller(site, made["key"])
            assert (await ops.call("DELETE", f"/api/v1/keys/{made['id']}")).status == 204
            assert_turned_away(await site.server.get("/api/v1/sessions"))
            await site.server.stop()
            await site.restart()
            assert (await site.server.get("/api/v1/sessions")).status == 200


async def run_command(folder: Path, site: Deployment, *words: str, key: str = "") -> Any:
    environ = {"HOLDFAST_URL": site.server.url, **({"HOLDFAST_API_KEY": key} if key else {})}
    return await run("keys", *words, folder=folder, environ=environ)


class TestStreams:
    async def test_a_key_that_is_revoked_meanwhile_reads_its_stream_to_the_end(
        self, site: Deployment
    ) -> None:
        ops = Caller(site, OPS)
        made = (await ops.post("/api/v1/keys", {"owner": "fay"})).json
        fay, gate = Caller(site, made["key"]), asyncio.Event()
        question = site.answers(completion_chunk(content="Ke"), gate, *completion("lp."))
        async with fay.stream("POST", "/api/v1/runs", {"message": question}) as stream:
            await stream.read_text("Ke")
            await ops.call("DELETE", f"/api/v1/keys/{made['id']}")
            reply = await fay.get(f"/api/v1/runs/{stream.run_id}")
            assert_turned_away(reply, "not valid")
            gate.set()
            await stream.rest()
        assert stream.text == "Kelp."


class TestCommand:
    async def test_works_on_the_database_while_no_server_runs(self, tmp_path: Path) -> None:
        assert (await run("keys", "list", folder=tmp_path)).err == "There are no keys.\n"
        assert not (tmp_path / "holdfast.db").exists()
        made = await run("keys", "create", "alice", "--name", "phone", folder=tmp_path)
        assert made.code == 0
        key = made.out.strip()
        assert made.out == f"{key}\n"
        assert len(key) == 46
        assert key not in made.err
        listed = await run("keys", "list", folder=tmp_path)
        head, row = listed.out.splitlines()
        assert head.split() == [
            *("ID", "OWNER", "NAME", "SCOPES", "RUNS", "ASKS/MIN", "CREATED", "REVOKED")
        ]
        key_id, *cells, created, revoked = row.split()
        assert cells == ["alice", "phone", "chat", "-", "-"]
        assert (created[-1], revoked) == ("Z", "-")
        done = await run("keys", "revoke", key_id, folder=tmp_path)
        assert (done.code, done.err) == (0, f"Key {key_id} is revoked.\n")
        listed = await run("keys", "list", folder=tmp_path)
        assert listed.out.splitlines()[1].split()[-1] != "-"
        assert key not in listed.out
        assert key.encode() not in (tmp_path / "holdfast.db").read_bytes()

    async def test_asks_the_server_that_has_the_database_open(self, tmp_path: Path) -> None:
        async with Deployment(tmp_path) as site:
            port = str(site.server.port)
            config = ("--config", "test.toml")
            environ = {"HOLDFAST_SERVER__PORT": port}
            made = await run(
                *("keys", "create", "ops", "--scopes", "chat, admin", *config),
                folder=tmp_path,
                environ=environ,
            )
            ops = Caller(site, made.out.strip())
            assert (await ops.get("/api/v1/keys")).status == 200
            done = await run("keys", "list", *config, folder=tmp_path, environ=environ)
            assert (done.code, done.out) == (1, "")
            assert "HOLDFAST_API_KEY" in done.err
            environ["HOLDFAST_API_KEY"] = made.out.strip()
            done = await run("keys", "list", *config, folder=tmp_path, environ=environ)
            assert (done.code, len(done.out.splitlines())) == (0, 2)
            made = await run(
                *("keys", "create", "alice", *config, "--concurrent-runs", "3"),
                *("--asks-per-minute", "0"),
                folder=tmp_path,
                environ=environ,
            )
            (_, _, row) = (
                await run("keys", "list", *config, folder=tmp_path, environ=environ)
            ).out.splitlines()
            key_id, *cells = row.split()
            assert cells[:5] == ["alice", "-", "chat", "3", "any"]
            alice = Caller(site, made.out.strip())
            assert (await alice.get("/api/v1/sessions")).status == 200
            await run("keys", "revoke", key_id, *config, folder=tmp_path, environ=environ)
            assert_turned_away(await alice.get("/api/v1/sessions"), "not valid")

    async def test_says_so_when_the_database_is_in_use_by_nobody_it_can_find(
        self, tmp_path: Path
    ) -> None:
        async with Deployment(tmp_path):
            environ = {"HOLDFAST_SERVER__PORT": "1"}
            done = await run(
                "keys", "list", "--config", "test.toml", folder=tmp_path, environ=environ
            )
        assert done.code == 1
        assert done.err.count("\n") == 1
        assert "no answer from http://127.0.0.1:1" in done.err
        assert "--url" in done.err

    async def test_a_key_that_cannot_be_is_told_in_a_line(self, tmp_path: Path) -> None:
        for words in (["", "--name", "x"], ["a", "--scopes", "root"], ["a", "--scopes", ""]):
            done = await run("keys", "create", *words, folder=tmp_path)
            assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)

    async def test_doctor_counts_them(self, tmp_path: Path) -> None:
        async def told(**environ: str) -> str:
            done = await run("doctor", folder=tmp_path, environ=environ)
            return done.out.splitlines()[1]

        assert await told() == ("ok   keys: none, so the server listens on this machine only")
        for owner in ("alice", "bob"):
            made = await run("keys", "create", owner, folder=tmp_path)
        key_id = made.err.split()[1]
        assert await told() == "ok   keys: 2 in the database"
        await run("keys", "revoke", key_id, folder=tmp_path)
        given = {"HOLDFAST_API_KEYS": f"alice:{ALICE}"}
        assert await told(**given) == "ok   keys: 1 in the database, 1 in HOLDFAST_API_KEYS"
        store = SqliteStore(f"sqlite:///{tmp_path}/holdfast.db")
        await store.open()
        assert await told() == "ok   keys: those in the database are told by holdfast keys list"
        await store.close()

    async def test_ask_and_show_send_the_key(self, tmp_path: Path) -> None:
        async with keyed(tmp_path) as site:
            (tmp_path / ".env").unlink()  # the server has read it
            environ = {"HOLDFAST_URL": site.server.url}
            done = await run("ask", "Why?", folder=tmp_path, environ=environ)
            assert (done.code, done.out) == (1, "")
            assert done.err.endswith("; HOLDFAST_API_KEY is sent\n")
            (tmp_path / ".env").write_text(f"HOLDFAST_API_KEY={ALICE}\n")
            done = await run("ask", "Why?", folder=tmp_path, environ=environ)
            assert (done.code, done.out) == (0, "Kelp holds fast.\n")
            done = await run("show", folder=tmp_path, environ=environ)
            assert done.code == 0
            assert "Kelp holds fast." in done.out
            environ["HOLDFAST_API_KEY"] = BOB
            done = await run("show", folder=tmp_path, environ=environ)
            assert (done.code, done.err) == (1, "holdfast: there is no such session\n")


class TestListening:
    """Who can be reached by others must have a key."""

    CONFIG = "[upstreams.docs]\nkind = 'library'\npath = '.'\n"
    REFUSAL = "where others can reach the server, and there is no key"

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "holdfast.toml").write_text(self.CONFIG)
        (tmp_path / "kelp.md").write_text("Kelp holds fast.")
        return tmp_path

    @pytest.mark.parametrize("host", ["0.0.0.0", "0", *EVERYWHERE])
    async def test_beyond_this_machine_is_refused_without_one(
        self, host: str, folder: Path
    ) -> None:
        done = await run("serve", "--host", host, "--port", "0", folder=folder)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert self.REFUSAL in done.err
        assert "holdfast keys create OWNER" in done.err
        assert "HOLDFAST_API_KEYS=OWNER:KEY" in done.err

    async def test_revoked_keys_are_no_keys(self, folder: Path) -> None:
        await run("keys", "create", "alice", folder=folder)
        listed = await run("keys", "list", folder=folder)
        await run("keys", "revoke", listed.out.splitlines()[1].split()[0], folder=folder)
        done = await run("serve", "--host", "0.0.0.0", "--port", "0", folder=folder)
        assert self.REFUSAL in done.err

    @pytest.mark.parametrize("stored", [True, False], ids=["stored", "environment"])
    async def test_beyond_this_machine_works_with_a_key(self, stored: bool, folder: Path) -> None:
        environ = {} if stored else {"HOLDFAST_API_KEYS": f"alice:{ALICE}"}
        if stored:
            await run("keys", "create", "alice", folder=folder)
        words = ("serve", "--host", "0.0.0.0", "--port", "0")
        async with Command(*words, folder=folder, environ=environ) as server:
            assert "http://0.0.0.0:" in await server.err_until("\n")
            assert (await server.stop(signal.SIGTERM)).code == 0

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.2", "127.1"])
    async def test_on_this_machine_needs_none(self, host: str, folder: Path) -> None:
        async with Command("serve", "--host", host, "--port", "0", folder=folder) as server:
            assert "Holdfast at http://127." in await server.err_until("\n")

    async def test_the_demo_stays_on_this_machine_and_needs_no_key(self, folder: Path) -> None:
        environ = {"HOLDFAST_SERVER__HOST": "0.0.0.0", "HOLDFAST_API_KEYS": f"alice:{ALICE}"}
        async with Command("demo", "--port", "0", folder=folder, environ=environ) as demo:
            text = await demo.out_until("/api/v1/runs\n")
        assert "http://127.0.0.1:" in text

    @pytest.mark.parametrize(
        "value", ["alice", f"alice:{ALICE}:root", "alice:short-secret-1", f"x:{ALICE},y:{ALICE}"]
    )
    async def test_keys_that_cannot_be_are_told_without_quoting_them(
        self, value: str, folder: Path
    ) -> None:
        done = await run("serve", folder=folder, environ={"HOLDFAST_API_KEYS": value})
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert done.err.startswith("holdfast: HOLDFAST_API_KEYS (environment)")
        assert ALICE not in done.err
        assert "short-secret" not in done.err


async def test_openapi_says_what_needs_a_key_and_which(document: Any) -> None:
    scheme = document["components"]["securitySchemes"]["key"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    open_paths = [
        path
        for path, methods in document["paths"].items()
        for operation in methods.values()
        if operation["security"] == []
    ]
    assert open_paths == ["/healthz", "/readyz"]
    for _, path, operation in guarded(document):
        ((needed, none)) = operation["security"]
        assert none == {}
        expected = "admin" if path.startswith("/api/v1/keys") else "chat"
        assert needed == {"key": ["debug" if path.endswith("/raw") else expected]}
        for status in ("401", "403", "429"):
            assert status in operation["responses"]
