"""The client with a key, and as a manager of keys."""

import pytest

from holdfast.client import AsyncClient, _reading
from holdfast.errors import ConfigError, Forbidden, NotFound, TooManyRequests, Unauthorized
from holdfast.events import Event, Outcome, RunEnd, RunStart, TextDelta
from tests.support.native_server import frames, in_turn, session_object
from tests.support.upstream_server import Script, ScriptedUpstream, Wire, stream, whole

KEY = "hf_0123456789abcdef"
RUN = "0192-run"
EVENTS: list[Event] = [
    RunStart(RUN, "0192-session", "0192-message", "0192-question", "docs"),
    TextDelta("Kelp."),
    RunEnd(Outcome.COMPLETED),
]
FRAMES = frames(RUN, EVENTS)


def refusal(status: int, code: str, **extra: object) -> Script:
    return whole({"error": {"code": code, "message": "No.", **extra}}, status)


def scripted(*scripts: Script) -> ScriptedUpstream:
    return ScriptedUpstream(in_turn(*scripts))


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reading, "FIRST_WAIT_S", 0.0)


async def test_every_request_sends_it_in_the_header_alone() -> None:
    cut = stream(FRAMES[0], end=[Wire.CLOSE])
    scripts = (
        cut,
        stream(*FRAMES[1:]),
        whole(session_object()),
        whole({"items": [], "next": None}),
    )
    async with (
        scripted(*scripts) as server,
        AsyncClient(server.base_url, api_key=KEY) as client,
    ):
        assert [event async for event in client.ask("Hi?")] == EVENTS
        await client.session("s")
        assert [message async for message in client.messages("s")] == []
    assert len(server.requests) == 4
    for request in server.requests:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert KEY not in request.path
        assert KEY.encode() not in request.body


@pytest.mark.parametrize("key", [None, ""])
async def test_without_one_there_is_no_such_header(key: str | None) -> None:
    async with (
        scripted(whole(session_object())) as server,
        AsyncClient(server.base_url, api_key=key) as client,
    ):
        await client.session("s")
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("key", ["a key", "key\r\nX: y", "clé", "\ud800"])
def test_what_can_be_no_key_is_refused_without_quoting_it(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AsyncClient(api_key=key)
    assert key not in caught.value.message


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (refusal(401, "unauthorized"), Unauthorized),
        (refusal(403, "forbidden", scope="admin"), Forbidden),
        (refusal(429, "too_many_requests", retry_after_s=7), TooManyRequests),
    ],
)
async def test_a_refusal_is_its_own_error(script: Script, error: type[Exception]) -> None:
    async with scripted(script, script) as server, AsyncClient(server.base_url) as client:
        with pytest.raises(error, match="No"):
            await anext(client.ask("Hi?"))
        with pytest.raises(error, match="No"):
            await client.keys()
    assert len(server.requests) == 2


async def test_a_key_that_is_revoked_in_the_middle_ends_it() -> None:
    cut = stream(FRAMES[0], end=[Wire.CLOSE])
    scripts = cut, refusal(401, "unauthorized")
    async with (
        scripted(*scripts) as server,
        AsyncClient(server.base_url, api_key=KEY) as client,
    ):
        entries = client.ask("Hi?")
        await anext(entries)
        with pytest.raises(Unauthorized):
            await anext(entries)


async def test_it_waits_out_a_limit_that_is_reached_in_the_middle() -> None:
    cut = stream(FRAMES[0], end=[Wire.CLOSE])
    limit = whole({"error": {"code": "too_many_requests", "message": "No."}}, 429, Retry_After="0")
    async with (
        scripted(cut, limit, stream(*FRAMES[1:])) as server,
        AsyncClient(server.base_url, api_key=KEY) as client,
    ):
        assert [event async for event in client.ask("Hi?")] == EVENTS


async def test_it_manages_keys() -> None:
    made = {"id": "1", "owner": "alice", "key": "hf_new"}
    gone: Script = [b"HTTP/1.1 204 No Content\r\n\r\n"]
    scripts = whole(made, 201), whole({"items": [{"id": "1"}], "next": None}), gone
    async with (
        scripted(*scripts, refusal(404, "not_found")) as server,
        AsyncClient(server.base_url, api_key=KEY) as client,
    ):
        assert await client.create_key("alice", scopes=["chat"], concurrent_runs=2) == made
        assert await client.keys() == [{"id": "1"}]
        await client.revoke_key("1")
        with pytest.raises(NotFound):
            await client.revoke_key("2")
    calls = [(request.method, request.path) for request in server.requests]
    assert calls == [
        ("POST", "/api/v1/keys"),
        ("GET", "/api/v1/keys"),
        ("DELETE", "/api/v1/keys/1"),
        ("DELETE", "/api/v1/keys/2"),
    ]
    assert server.requests[0].json == {"owner": "alice", "scopes": ["chat"], "concurrent_runs": 2}
