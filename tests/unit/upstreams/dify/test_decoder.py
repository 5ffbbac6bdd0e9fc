import json
from typing import Any

import pytest

from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Event,
    Finish,
    Notice,
    Reason,
    ReasoningDelta,
    References,
    Step,
    TextDelta,
    TextReplace,
    Usage,
)
from holdfast.settings import LimitSettings
from holdfast.upstreams.base import Item
from holdfast.upstreams.dify.decoder import DifyDecoder
from tests.support.upstream_server import event

DONE = UpstreamEnd()


def said(kind: str, **fields: Any) -> bytes:
    """One event as Dify sends it."""
    names = {"conversation_id": "c1", "message_id": "m1", "task_id": "t1"}
    return event({"event": kind, **names, **fields})


def message(answer: Any) -> bytes:
    return said("message", answer=answer)


def agent(answer: Any) -> bytes:
    return said("agent_message", answer=answer)


def thought(**fields: Any) -> bytes:
    return said("agent_thought", **{"id": "x1", "thought": "", "tool": "", **fields})


def workflow(kind: str, **data: Any) -> bytes:
    return said(kind, data=data)


def end(*resources: Any, **usage: Any) -> bytes:
    return said("message_end", metadata={"retriever_resources": list(resources), "usage": usage})


def source(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "position": number,
        "document_name": f"{number}.pdf",
        "segment_id": f"s{number}",
        "content": f"text {number}",
        **fields,
    }


def decode(*pieces: bytes, limits: LimitSettings | None = None) -> list[Item]:
    """What a decoder gives for a stream that ends by itself."""
    decoder = DifyDecoder(limits, base_url="https://dify.example/v1")
    return [item for piece in pieces for item in decoder.feed(piece)] + decoder.finish()


def texts(items: list[Item]) -> str:
    return "".join(item.text for item in items if isinstance(item, TextDelta))


def references(items: list[Item]) -> list[References]:
    return [item for item in items if isinstance(item, References)]


def ending(items: list[Item]) -> UpstreamEnd:
    last = items[-1]
    assert isinstance(last, UpstreamEnd)
    return last


# ---------------------------------------------------------------------- the end


def test_message_end_makes_the_answer_whole() -> None:
    assert decode(message("hi"), end()) == [TextDelta("hi"), DONE]


def test_without_a_terminal_marker_it_was_truncated() -> None:
    for stream in (b"", message("hi"), message("hi") + thought() + workflow("node_finished")):
        assert ending(decode(stream)).reason is Reason.UPSTREAM_TRUNCATED


@pytest.mark.parametrize("status", ["succeeded", "partial-succeeded"])
def test_the_end_of_a_workflow_makes_the_answer_whole(status: str) -> None:
    finished = workflow("workflow_finished", status=status, outputs={"answer": "hi"})
    assert decode(message("hi"), finished) == [TextDelta("hi"), DONE]
    assert decode(message("hi"), finished, end(prompt_tokens=1)) == [
        TextDelta("hi"),
        Usage(1),
        DONE,
    ]
    assert decode(message("hi"), end(prompt_tokens=1), finished) == [
        TextDelta("hi"),
        Usage(1),
        DONE,
    ]


@pytest.mark.parametrize("outputs", [None, {}, {"answer": None}, {"answer": 7}, "x"])
def test_a_workflow_that_ends_without_an_answer(outputs: Any) -> None:
    assert decode(workflow("workflow_finished", status="succeeded", outputs=outputs)) == [DONE]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"status": "failed", "error": "no credits"}, "no credits"),
        ({"status": "failed", "error": None}, "the workflow ended as failed"),
        ({"status": "stopped"}, "the answer was stopped in Dify"),
        ({}, "the workflow ended as nothing"),
        ({"status": ["succeeded"]}, "the workflow ended as nothing"),
    ],
)
def test_a_workflow_that_failed_is_no_success_whatever_follows(
    data: dict[str, Any], error: str
) -> None:
    failed = UpstreamEnd(Reason.UPSTREAM_ERROR, error=error)
    finished = workflow("workflow_finished", **data)
    assert decode(message("hi"), finished) == [TextDelta("hi"), failed]
    assert decode(message("hi"), finished, end()) == [TextDelta("hi"), failed]


def test_an_error_event_says_it_better_than_the_failed_workflow() -> None:
    items = decode(
        workflow("workflow_finished", status="failed", error="x"),
        event(
            {"event": "error", "code": "invalid_param", "message": "Run failed: x", "status": 400}
        ),
    )
    assert items == [
        UpstreamEnd(Reason.UPSTREAM_ERROR, error="Run failed: x (invalid_param)", status=400)
    ]


def test_nothing_follows_the_end() -> None:
    decoder = DifyDecoder()
    assert decoder.feed(end() + message("late")) == [DONE]
    assert decoder.ended
    assert decoder.finished
    assert decoder.feed(message("later")) == []


def test_a_cause_ends_an_answer_that_was_not_whole() -> None:
    cause = UpstreamEnd(Reason.UPSTREAM_TIMEOUT, error="silent")
    decoder = DifyDecoder()
    decoder.feed(message("hi"))
    assert decoder.finish(cause) == [cause]
    decoder = DifyDecoder()
    decoder.feed(message("hi") + workflow("workflow_finished", status="succeeded"))
    assert decoder.finish(cause) == [DONE]


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("fields", "error", "status"),
    [
        ({"code": "busy", "message": "Later", "status": 503}, "Later (busy)", 503),
        ({"code": "busy", "message": "", "status": "503"}, "busy", None),
        ({"message": {"error": "deep"}, "status": 200}, "deep", None),
        ({"status": True}, "an error without a message", None),
        ({}, "an error without a message", None),
    ],
)
def test_an_error_ends_the_answer(fields: dict[str, Any], error: str, status: int | None) -> None:
    items = decode(message("hi"), event({"event": "error", **fields}), message("late"), end())
    assert items == [
        TextDelta("hi"),
        UpstreamEnd(Reason.UPSTREAM_ERROR, error=error, status=status),
    ]


def test_an_error_body_that_comes_as_an_event_is_an_error() -> None:
    items = decode(event({"code": "not_found", "message": "App not found", "status": 404}))
    assert items == [
        UpstreamEnd(Reason.UPSTREAM_ERROR, error="App not found (not_found)", status=404)
    ]


@pytest.mark.parametrize("data", ["oops", "{", "[1]", "7", "null"])
def test_data_that_is_no_event_is_an_error(data: str) -> None:
    items = decode(message("hi"), event(data), message("late"))
    assert texts(items) == "hi"
    assert ending(items).reason is Reason.UPSTREAM_ERROR


def test_broken_data_does_not_matter_after_the_workflow_has_ended() -> None:
    finished = workflow("workflow_finished", status="succeeded")
    assert ending(decode(message("hi"), finished, event("{"))) == DONE


@pytest.mark.parametrize(
    "frame",
    [
        b"event: ping\n\n",
        b"data: ping\n\n",
        b"data:\n\n",
        b"data: [DONE]\n\n",
        b": hi\n\n",
        said("ping"),
        said("tts_message", audio="qq=="),
        said("something_new", answer="no", data={"text": "no"}),
        event({}),
        event({"event": None, "answer": "no"}),
    ],
)
def test_what_says_nothing_is_passed_over(frame: bytes) -> None:
    assert decode(frame, message("hi"), frame, end()) == [TextDelta("hi"), DONE]


def test_a_workflow_that_waits_for_somebody_is_not_whole() -> None:
    decoder = DifyDecoder()
    items = decoder.feed(message("I ask. ") + workflow("workflow_paused", reasons=[]))
    assert ending(items).reason is Reason.UPSTREAM_ERROR
    assert "input" in (ending(items).error or "")
    assert decoder.task is None


# ---------------------------------------------------------------------- text


@pytest.mark.parametrize("answer", [None, "", 7, ["x"], {"text": "x"}])
def test_an_answer_that_is_no_text_is_none(answer: Any) -> None:
    for kind in ("message", "agent_message", "message_file", "text_chunk"):
        assert decode(said(kind, answer=answer, data={"text": answer}), end()) == [DONE]


def test_text_has_no_marks_of_its_own() -> None:
    text = "a [1] ##0$$ [ID:0] 【1】 (ID: 3"
    assert decode(*map(message, text), end())[:-1] == [TextDelta(letter) for letter in text]


def test_what_tells_an_error_elsewhere_is_text_here() -> None:
    words = "**ERROR**: MODEL_ERROR - is what RAGFlow says"
    assert decode(message(words), end()) == [TextDelta(words), DONE]
    assert TextReplace(words) in decode(said("message_replace", answer=words), end())


@pytest.mark.parametrize(
    ("deltas", "whole", "items"),
    [
        (["a", "b"], "abc", [TextDelta("c")]),
        (["a", "b"], "ab", []),
        (["a", "b "], " ab", []),
        (["a", "b"], "x", [TextReplace("x")]),
        (["a"], None, []),
        (["<think>hm</think>a"], "<think>hm</think>ab", [TextDelta("b")]),
        (["<think>hm</think>a"], "<think>hm</think>x", [TextReplace("x")]),
    ],
)
def test_the_message_of_a_newer_agent_says_all_of_it_once_more(
    deltas: list[str], whole: Any, items: list[Event]
) -> None:
    decoder = DifyDecoder()
    decoder.feed(b"".join(map(agent, deltas)))
    assert decoder.feed(message(whole)) == items
    assert decoder.feed(end()) == [DONE]


def test_after_that_message_further_text_is_more_text() -> None:
    items = decode(agent("a"), message("a"), message("b"), agent("c"), end())
    assert texts(items) == "abc"


@pytest.mark.parametrize(
    ("reason", "words", "finish"),
    [
        ("output_moderation", " (output_moderation)", Finish.CONTENT_FILTER),
        ("other", " (other)", None),
        (None, "", None),
        (7, "", None),
    ],
)
def test_a_replacement_replaces_and_says_so(reason: Any, words: str, finish: Finish | None) -> None:
    replace = said("message_replace", answer="no", reason=reason)
    assert decode(message("secret"), replace, end()) == [
        TextDelta("secret"),
        Notice("answer_replaced", f"Dify put other words in place of its answer{words}"),
        TextReplace("no"),
        UpstreamEnd(finish=finish),
    ]


@pytest.mark.parametrize("answer", [None, 7])
def test_a_replacement_without_words_replaces_nothing(answer: Any) -> None:
    replace = said("message_replace", answer=answer)
    assert decode(message("hi"), replace, end()) == [TextDelta("hi"), DONE]


def test_a_replacement_may_take_all_words_away() -> None:
    assert TextReplace("") in decode(message("hi"), said("message_replace", answer=""), end())


def test_thoughts_in_the_text_are_reasoning_wherever_they_stand() -> None:
    items = decode(*map(message, ["a<thi", "nk>b</", "think>c", "<think>d"]), end())
    assert items == [
        TextDelta("a"),
        ReasoningDelta("b"),
        TextDelta("c"),
        ReasoningDelta("d"),
        DONE,
    ]


def test_thoughts_in_the_text_may_be_left_there() -> None:
    decoder = DifyDecoder(think_tags=False)
    assert texts(decoder.feed(message("<think>a</think>b"))) == "<think>a</think>b"


def test_what_is_held_for_a_tag_is_released() -> None:
    decoder = DifyDecoder()
    assert decoder.feed(message("a <thi")) == [TextDelta("a ")]
    assert decoder.release() == [TextDelta("<thi")]


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"type": "image", "url": "https://f.example/a.png"}, "![image](https://f.example/a.png)"),
        (
            {"type": "audio", "url": "/files/a.mp3?sign=x"},
            "[audio](https://dify.example/files/a.mp3?sign=x)",
        ),
        (
            {"type": None, "url": "https://f.example/a b)(.x"},
            "[file](https://f.example/a%20b%29%28.x)",
        ),
        (
            {"type": "a](javascript:1)", "url": "https://f.example/a"},
            "[ajavascript1](https://f.example/a)",
        ),
    ],
)
def test_a_file_of_the_answer_is_a_link_in_it(fields: dict[str, Any], text: str) -> None:
    items = decode(message("Look:"), said("message_file", belongs_to="assistant", **fields), end())
    assert texts(items) == f"Look:\n\n{text}\n\n"
    assert texts(decode(said("message_file", **fields), end())) == f"{text}\n\n"


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "javascript:alert(1)"},
        {"url": "//["},
        {"url": ""},
        {"url": None},
        {"url": 7},
        {"url": "https://f.example/a", "belongs_to": "user"},
    ],
)
def test_what_is_no_file_of_the_answer_is_no_link(fields: dict[str, Any]) -> None:
    assert decode(said("message_file", type="image", **fields), end()) == [DONE]


# ---------------------------------------------------------------------- steps


def test_a_tool_is_a_step_once() -> None:
    used = {"tool": "search", "tool_input": '{"q": 1}'}
    items = decode(
        thought(),
        agent("I look it up."),
        thought(thought="I look it up.", **used),
        thought(thought="I look it up.", observation="18", **used),
        thought(id="x2", **used),
        end(),
    )
    step = Step("search", '{"q": 1}')
    assert items == [TextDelta("I look it up."), step, step, DONE]


def test_a_thought_that_was_not_said_is_a_step() -> None:
    items = decode(thought(thought="hm"), agent("a"), thought(thought="a"), end())
    assert items == [Step("thinking", "hm"), TextDelta("a"), DONE]


def test_nodes_and_logs_of_a_workflow_are_steps() -> None:
    items = decode(
        workflow("node_started", node_type="start", title="Start"),
        workflow("node_started", node_type="llm", title=" Write "),
        workflow("node_started", node_type="llm", title=None),
        workflow("node_started", node_type=["llm"], title="Odd"),
        workflow("agent_log", status="start", label="ROUND 1"),
        workflow("agent_log", status="success", label="ROUND 1"),
        end(),
    )
    assert items == [Step("Write", "llm"), Step("Odd"), Step("ROUND 1"), DONE]


def test_steps_are_bounded() -> None:
    (step, *_) = decode(thought(tool="x" * 9_999, tool_input="中" * 9_999), end())
    assert isinstance(step, Step)
    assert len(step.label) <= 200
    assert len((step.detail or "").encode()) <= 2_000


# ---------------------------------------------------------------------- references


def test_the_resources_of_the_answer_are_its_references_by_position() -> None:
    (given,) = references(decode(message("hi"), end(source(2), source(1, score=0.5))))
    assert [(one.ordinal, one.document_name, one.chunk_id) for one in given.references] == [
        (1, "1.pdf", "s1"),
        (2, "2.pdf", "s2"),
    ]
    assert (given.references[0].text, given.references[0].score) == ("text 1", 0.5)
    assert given.references[0].extra == {"position": 1}


@pytest.mark.parametrize("positions", [(1, 1), (2, "1"), (None, 1), (True, False)])
def test_where_positions_say_nothing_the_order_counts(positions: tuple[Any, Any]) -> None:
    sources = [source(7, position=positions[0]), source(8, position=positions[1])]
    (given,) = references(decode(end(*sources)))
    assert [one.chunk_id for one in given.references] == ["s7", "s8"]


def test_the_same_passage_is_one_reference() -> None:
    no_id = {"document_name": "a", "content": "x"}
    (given,) = references(decode(end(source(1), source(1), no_id, no_id, source(2))))
    assert [one.ordinal for one in given.references] == [1, 2, 3]


def test_what_a_retrieval_finds_is_known_before_the_answer() -> None:
    found = {"metadata": {"segment_id": "s1", "position": 1}, "title": "1.pdf", "content": "text 1"}
    other = {"metadata": {"segment_id": "s2"}, "title": "2.pdf", "content": "text 2"}
    node = {"node_type": "knowledge-retrieval"}
    items = decode(
        workflow("node_finished", **node, outputs={"result": [found]}),
        workflow("node_finished", **node, outputs={"result": [found, other]}),
        workflow("node_finished", node_type="llm", outputs={"result": [found]}),
        message("hi"),
        end(source(2)),
    )
    assert [[one.chunk_id for one in given.references] for given in references(items)] == [
        ["s1"],
        ["s1", "s2"],
        ["s2"],
    ]
    assert isinstance(items[0], References)
    assert items[0].references[0].document_name == "1.pdf"


def test_the_same_references_again_are_no_news() -> None:
    found = {**source(1), "metadata": None}
    items = decode(
        workflow("node_finished", node_type="knowledge-retrieval", outputs={"result": [found]}),
        end(source(1)),
    )
    assert len(references(items)) == 1


@pytest.mark.parametrize("resources", [None, [], "x", [None], [7], [{}]])
def test_no_references_are_no_event(resources: Any) -> None:
    frame = said("message_end", metadata={"retriever_resources": resources})
    assert decode(message("hi"), frame) == [TextDelta("hi"), DONE]


@pytest.mark.parametrize("metadata", [None, 7, [], {"usage": 7}, {"usage": None}])
def test_metadata_of_odd_shapes_cost_nothing(metadata: Any) -> None:
    assert decode(said("message_end", metadata=metadata)) == [DONE]


def test_references_are_bounded() -> None:
    limits = LimitSettings(references=3, reference_bytes=10)
    sources = [source(n, content="x" * 100) for n in range(1, 50)]
    (given,) = references(decode(end(*sources), limits=limits))
    assert [one.ordinal for one in given.references] == [1, 2, 3]
    assert all(len(one.text.encode()) <= 10 for one in given.references)


# ---------------------------------------------------------------------- names


def test_the_names_that_dify_gives_are_kept() -> None:
    decoder = DifyDecoder()
    assert (decoder.conversation, decoder.task, decoder.closing) == (None, None, None)
    decoder.feed(message("hi"))
    assert (decoder.conversation, decoder.task) == ("c1", "t1")
    decoder.feed(end(prompt_tokens=1))
    assert (decoder.conversation, decoder.task) == ("c1", None)
    assert decoder.closing == {
        "conversation_id": "c1",
        "message_id": "m1",
        "usage": {"prompt_tokens": 1},
    }


@pytest.mark.parametrize(
    "last", [end(), said("error"), workflow("workflow_finished", status="failed")]
)
def test_a_task_that_is_over_is_none(last: bytes) -> None:
    decoder = DifyDecoder()
    decoder.feed(message("hi") + last)
    assert decoder.task is None


@pytest.mark.parametrize("name", ["", "x" * 201, "ä", 7, None, ["t"]])
def test_a_name_that_cannot_be_is_not_kept(name: Any) -> None:
    decoder = DifyDecoder()
    decoder.feed(said("message", answer="a", task_id=name, conversation_id=name))
    assert (decoder.task, decoder.conversation) == (None, None)


# ---------------------------------------------------------------------- in one piece


def whole(body: object) -> list[Item]:
    return DifyDecoder().feed_whole(json.dumps(body).encode())


def test_a_blocking_answer() -> None:
    body = {
        "event": "message",
        "answer": "<think>hm</think>hi",
        "metadata": {"usage": {"prompt_tokens": 1}, "retriever_resources": [source(1)]},
    }
    kinds = [type(item) for item in whole(body)]
    assert kinds == [ReasoningDelta, TextDelta, References, Usage, UpstreamEnd]


@pytest.mark.parametrize(
    ("body", "error", "status"),
    [
        ({"code": "x", "message": "no", "status": 400}, "no (x)", 400),
        ({"answer": None}, "an answer that is not Dify's", None),
        ([1], "an answer that is not Dify's", None),
        ("text", "text", None),
    ],
)
def test_json_that_is_no_answer_is_an_error(body: object, error: str, status: int | None) -> None:
    assert whole(body) == [UpstreamEnd(Reason.UPSTREAM_ERROR, error=error, status=status)]
