"""What the `anythingllm` upstream does about answers that go silent or break off."""

import asyncio
from collections.abc import Callable

import pytest

from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Reason,
    ReasoningDelta,
    Step,
    TextDelta,
    Usage,
)
from holdfast.upstreams.anythingllm.decoder import AnythingLLMDecoder
from holdfast.upstreams.anythingllm.upstream import AnythingLLM, _PatientSink
from holdfast.upstreams.base import Exchange
from tests.support.anythingllm import (
    AT,
    BROKEN,
    CHATS,
    GIVEN,
    REFERENCES,
    SILENT,
    SOURCE,
    STREAM,
    WHOLE,
    AnythingLLMServer,
    ask,
    ending,
    final,
    saved,
    says,
    texts,
)
from tests.support.sink import RecordingSink
from tests.support.upstream_server import (
    LAST_CHUNK,
    Request,
    Script,
    ScriptedUpstream,
    Wire,
    chunk,
    event,
    head,
    stream,
    whole,
)

# ---------------------------------------------------------------------- silence

SILENCE = UpstreamEnd(
    Reason.UPSTREAM_TIMEOUT,
    error="notes was silent for 0.02 s and never said that the answer was whole",
)


async def test_a_stream_that_never_ends_is_closed_and_read_from_the_history(
    make: Callable[..., AnythingLLM],
) -> None:
    """Nothing is saved before we hang up."""
    left = asyncio.Event()
    history = [left, *saved("Every month.", sources=[SOURCE], metrics={"prompt_tokens": 3})]
    exchange = Exchange()
    async with (
        AnythingLLMServer({STREAM: [SILENT], CHATS: [history]}) as server,
        asyncio.TaskGroup() as tasks,
    ):
        upstream = make(server.base_url, idle_timeout_s=0.02)
        answer = tasks.create_task(ask(upstream, exchange=exchange))
        await server.client_left()
        left.set()
        items = await answer
    assert items == [TextDelta("Every "), TextDelta("month."), REFERENCES, Usage(3), SILENCE]
    assert server.paths == [STREAM, CHATS]
    assert exchange.response == {"chatId": 9, "metrics": {"prompt_tokens": 3}}


@pytest.mark.parametrize("more", ["", " Or"])
async def test_p9_what_was_saved_when_we_hung_up_is_not_called_whole(
    make: Callable[..., AnythingLLM], more: str
) -> None:
    """AnythingLLM saves what a reader left of an answer like any other, sources and all."""
    script = stream(says("<think>hm</think>Every ") + says("month."), end=[Wire.STALL])
    metrics = {"prompt_tokens": 3}
    history = saved("<think>hm</think>Every month." + more, sources=[SOURCE], metrics=metrics)
    async with AnythingLLMServer({STREAM: [script], CHATS: [history]}) as server:
        items = await ask(make(server.base_url, idle_timeout_s=0.02))
    rest = [TextDelta(more)] if more else []
    assert items == [ReasoningDelta("hm"), *GIVEN[:2], *rest, REFERENCES, Usage(3), SILENCE]


async def test_silence_after_the_model_had_said_all_is_whole_with_what_the_history_has(
    make: Callable[..., AnythingLLM],
) -> None:
    said = says("Every ") + says("month.") + says("", close=True)
    script, history = stream(said, end=[Wire.STALL]), saved("Every month.", sources=[SOURCE])
    async with AnythingLLMServer({STREAM: [script], CHATS: [history]}) as server:
        items = await ask(make(server.base_url, idle_timeout_s=0.02))
    assert items == GIVEN


async def test_what_was_held_for_a_tag_comes_before_what_the_history_adds(
    make: Callable[..., AnythingLLM],
) -> None:
    script = stream(says("Every <thi"), end=[Wire.STALL])
    async with AnythingLLMServer({STREAM: [script], CHATS: [saved("Every <thing>.")]}) as server:
        items = await ask(make(server.base_url, idle_timeout_s=0.02))
    assert texts(items) == "Every <thing>."


async def test_the_history_of_a_session_is_asked_for_its_last_turn(
    make: Callable[..., AnythingLLM],
) -> None:
    chats = f"{AT}/chats?apiSessionId=s%2F1&limit=1&orderBy=desc"
    async with AnythingLLMServer(
        {f"{AT}/stream-chat": [SILENT], chats: [saved("Every month.")]}
    ) as server:
        items = await ask(make(server.base_url, threads=False, idle_timeout_s=0.02))
    assert texts(items) == "Every month."
    assert ending(items) == SILENCE
    assert server.paths == [f"{AT}/stream-chat", chats]


async def test_a_turn_may_be_saved_late(make: Callable[..., AnythingLLM]) -> None:
    late = [whole({"history": []}), saved("Never.", "Another?"), saved("Every month.")]
    async with AnythingLLMServer({STREAM: [SILENT], CHATS: late}) as server:
        items = await ask(make(server.base_url, idle_timeout_s=0.02))
    assert texts(items) == "Every month."
    assert ending(items) == SILENCE
    assert server.paths.count(CHATS) == 3


@pytest.mark.parametrize(
    "history",
    [
        whole({"history": []}),
        saved("Never."),
        saved("Ever"),
        saved("Every month.", "Another question?"),
        saved(None),
        whole("Bad Request", 400, "text/plain"),
        whole("<html>", 200, "text/html"),
        [Wire.RESET],
        [head(length=100), Wire.CLOSE],
    ],
)
async def test_a_history_without_the_answer_leaves_it_cut_off(
    make: Callable[..., AnythingLLM], history: Script
) -> None:
    async with AnythingLLMServer({STREAM: [SILENT], CHATS: [history]}) as server:
        items = await ask(make(server.base_url, idle_timeout_s=0.02))
    assert items == [TextDelta("Every "), SILENCE]


async def test_a_history_that_does_not_come_is_given_up(
    make: Callable[..., AnythingLLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.upstreams.anythingllm.upstream.HISTORY_TIMEOUT_S", 0.02)
    async with AnythingLLMServer({STREAM: [SILENT], CHATS: [[Wire.STALL]]}) as server:
        items = await ask(make(server.base_url, idle_timeout_s=0.02))
        await server.client_left(2)
    assert ending(items) == SILENCE


@pytest.mark.parametrize(
    "before",
    [
        b"",
        says("<think>Let me see"),
        event({"id": "u", "type": "agentThought", "thought": "Searching."}),
    ],
)
async def test_what_may_take_long_is_waited_for(
    make: Callable[..., AnythingLLM], before: bytes
) -> None:
    """Ten times as long as an answer may be silent that has begun."""
    go = asyncio.Event()
    script: Script = [
        head(),
        chunk(before or b": \n\n"),
        go,
        chunk(final(textResponse="Yes.")),
        LAST_CHUNK,
    ]
    async with AnythingLLMServer({STREAM: [script]}) as server:
        asyncio.get_running_loop().call_later(0.1, go.set)
        items = await ask(make(server.base_url, idle_timeout_s=0.01))
    assert texts(items) == "Yes."
    assert ending(items) == WHOLE
    assert server.paths == [STREAM]


async def test_an_agent_whose_closing_frame_does_not_come_is_whole(
    make: Callable[..., AnythingLLM],
) -> None:
    frame = {"id": "u", "type": "textResponse", "textResponse": "Yes.", "close": True}
    script = stream(event({**frame, "animate": False}), end=[Wire.STALL])
    async with AnythingLLMServer({STREAM: [script]}) as server:
        items = await ask(make(server.base_url, idle_timeout_s=0.02))
        await server.client_left()
    assert items == [TextDelta("Yes."), WHOLE]
    assert server.paths == [STREAM]


class BusySink(RecordingSink):
    """Full until it was looked at so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def is_full(self) -> bool:
        self.left -= 1
        return self.left >= 0


async def test_a_run_that_takes_nothing_is_not_silent() -> None:
    decoder = AnythingLLMDecoder()
    decoder.feed(says("Every "))
    sink = BusySink(5)
    with pytest.raises(TimeoutError):
        async with _PatientSink(sink, decoder, 0.001):
            await asyncio.Event().wait()
    assert sink.left < 0


# ---------------------------------------------------------------------- streams that break


@pytest.mark.parametrize("cut", BROKEN.values(), ids=BROKEN.keys())
async def test_what_breaks_off_is_completed_but_not_called_whole(
    make: Callable[..., AnythingLLM], cut: Callable[[bytes], Script]
) -> None:
    """A server that lost its reader saves what it has, and nothing tells whether that is all."""
    history = saved("Every month", sources=[SOURCE])
    async with AnythingLLMServer({STREAM: [cut(says("Every "))], CHATS: [history]}) as server:
        items = await ask(make(server.base_url))
    assert items[:-1] == [TextDelta("Every "), TextDelta("month"), REFERENCES]
    assert ending(items).reason is Reason.UPSTREAM_TRUNCATED
    assert server.paths == [STREAM, CHATS]


@pytest.mark.parametrize("cut", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize(
    "said",
    [
        says("Every ") + says("month.") + says("", close=True),
        says("Every ", uuid=None, id="u"),
        event({"type": "agentThought", "thought": "Hm."}) + says("Every "),
    ],
    ids=["the model had said all", "an agent", "an agent who thought"],
)
async def test_what_was_certainly_saved_whole_is_whole(
    make: Callable[..., AnythingLLM], cut: Callable[[bytes], Script], said: bytes
) -> None:
    history = saved("Every month.", sources=[SOURCE])
    async with AnythingLLMServer({STREAM: [cut(said)], CHATS: [history]}) as server:
        items = await ask(make(server.base_url))
    assert [item for item in items if not isinstance(item, Step)] == GIVEN


@pytest.mark.parametrize("cut", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("said", [b": hi\n\n", says("<think>hm"), event({"type": "agentThought"})])
async def test_what_breaks_off_before_any_text_was_not_saved(
    make: Callable[..., AnythingLLM], cut: Callable[[bytes], Script], said: bytes
) -> None:
    async with AnythingLLMServer({STREAM: [cut(said)]}) as server:
        items = await ask(make(server.base_url))
    assert ending(items).reason is Reason.UPSTREAM_TRUNCATED
    assert server.paths == [STREAM]


@pytest.mark.parametrize("cut", BROKEN.values(), ids=BROKEN.keys())
async def test_a_stream_cut_at_every_byte_keeps_its_whole_events(
    make: Callable[..., AnythingLLM], cut: Callable[[bytes], Script]
) -> None:
    recorded = (
        says("维修 ") + says("<think>") + says("😀</think>[1]") + says("", close=True) + final()
    )
    nothing = whole({"history": []})
    asked = 0

    def script(request: Request) -> Script:
        nonlocal asked
        if request.path == CHATS:
            return nothing
        asked += 1
        return cut(recorded[:asked])

    async with ScriptedUpstream(script) as server:
        upstream = make(server.base_url)
        for place in range(1, len(recorded) + 1):
            items = await ask(upstream)
            decoder = AnythingLLMDecoder()
            expected = decoder.feed(recorded[: recorded.rfind(b"\n\n", 0, place) + 2])
            expected += decoder.finish()
            assert items[:-1] == expected[:-1], place
            assert ending(items).reason is ending(expected).reason, place
