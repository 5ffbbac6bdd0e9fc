"""What frames mean, one by one; `tests/corpus/ragflow` has whole answers of every version."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
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
from holdfast.upstreams.decoding.citations import CitationTranslator, Style
from holdfast.upstreams.ragflow.decoder import RagflowDecoder, refusal

SESSION = "5f0c2a9e"
DONE = b'data:{"code": 0, "message": "", "data": true}\n\n'
AGENT_DONE = b"data:[DONE]\n\n"
WHOLE = UpstreamEnd()


def frame(data: object, code: int = 0, **more: Any) -> bytes:
    return (
        f"data:{json.dumps({'code': code, 'data': data, **more}, ensure_ascii=False)}\n\n".encode()
    )


def so_far(answer: str, **more: Any) -> bytes:
    """The whole answer so far, as versions up to 0.23 send it."""
    return frame({"answer": answer, "reference": {}, "id": "m", "session_id": SESSION, **more})


def piece(answer: str = "", **more: Any) -> bytes:
    """A piece, as versions since 0.24 send it."""
    return so_far(answer, final=False, **more)


def last(answer: str = "", **more: Any) -> bytes:
    return so_far(answer, final=True, **more)


def event(name: str, **data: Any) -> bytes:
    """An event of an agent."""
    return f"data:{json.dumps({'event': name, 'data': data, 'session_id': SESSION})}\n\n".encode()


def failed(message: str = "it broke") -> bytes:
    return frame({"answer": f"**ERROR**: {message}", "reference": []}, 500, message=message)


def decode(*frames: bytes, limits: LimitSettings | None = None) -> list[Item]:
    decoder = RagflowDecoder(limits)
    items = [item for one in frames for item in decoder.feed(one)]
    return items + decoder.finish()


def failure(error: str) -> UpstreamEnd:
    return UpstreamEnd(Reason.UPSTREAM_ERROR, error=error)


def ending(items: list[Item]) -> UpstreamEnd:
    end = items[-1]
    assert isinstance(end, UpstreamEnd)
    return end


def texts(items: list[Item]) -> str:
    return "".join(item.text for item in items if isinstance(item, TextDelta))


# ---------------------------------------------------------------------- the answer


def test_whole_answers_become_deltas() -> None:
    assert decode(so_far("A"), so_far("A b"), so_far("A b"), so_far("A b c"), DONE) == [
        TextDelta("A"),
        TextDelta(" b"),
        TextDelta(" c"),
        WHOLE,
    ]


def test_only_another_answer_replaces_what_was_given() -> None:
    items = decode(so_far("A b."), so_far("A [ID:0] b."), so_far("A [ID:0] b. C"), DONE)
    assert items == [
        TextDelta("A b."),
        TextReplace("A [1] b.", ((2, 5, 1),)),
        TextDelta(" C"),
        WHOLE,
    ]


@pytest.mark.parametrize("end", ["", "A b", "\n\nA b\n", " A b"])
def test_the_same_answer_once_more_adds_nothing(end: str) -> None:
    assert decode(piece("A"), piece(" b"), last(end), DONE) == [
        TextDelta("A"),
        TextDelta(" b"),
        WHOLE,
    ]


def test_the_last_frame_may_say_more_than_the_pieces() -> None:
    assert decode(piece("A"), last("A b"), DONE) == [TextDelta("A"), TextDelta(" b"), WHOLE]
    assert decode(last("A"), DONE) == [TextDelta("A"), WHOLE]


def test_an_answer_that_shrinks_to_nothing_stays() -> None:
    assert decode(so_far("A"), so_far(""), so_far("<think>x</think>"), DONE) == [
        TextDelta("A"),
        ReasoningDelta("x"),
        WHOLE,
    ]


def test_a_mark_that_a_rewrite_completes_is_not_given_twice() -> None:
    items = decode(piece("A [ID"), last("A [ID:0]"), DONE)
    assert items == [TextDelta("A "), TextDelta("[1]", ((0, 3, 1),)), WHOLE]
    items = decode(piece("A [ID"), last("B [ID:0]"), DONE)
    assert items == [TextDelta("A "), TextReplace("B [1]", ((2, 5, 1),)), WHOLE]


def test_pieces_that_repeat_all_before_are_whole_answers() -> None:
    assert decode(piece("The valve"), piece("The valve is"), piece("The valve is red"), DONE) == [
        TextDelta("The valve"),
        TextDelta(" is"),
        TextDelta(" red"),
        WHOLE,
    ]


@pytest.mark.parametrize(
    "pieces",
    [
        ["ha", "haha"],
        ["The valve", "The valve"],
        ["The valve", " is", "The valve is"],
        ["The valve", "The pump"],
        ["", "The valve", "", "The valve"],
    ],
)
def test_pieces_that_look_alike_stay_pieces(pieces: list[str]) -> None:
    assert texts(decode(*map(piece, pieces), DONE)) == "".join(pieces)


def test_pieces_that_stop_repeating_are_pieces_after_all() -> None:
    pieces = ["foo foo foo", "foo foo foo foo", "foo bar"]
    assert texts(decode(*map(piece, pieces), DONE)) == "foo foo foo foofoo bar"


@pytest.mark.parametrize("answer", [None, 7, ["x"], {"a": "x"}, True])
def test_an_answer_that_is_no_text_is_none(answer: Any) -> None:
    frames = frame({"answer": answer}), frame({"answer": answer, "final": False})
    assert decode(*frames, DONE) == [WHOLE]


@pytest.mark.parametrize("data", [None, 7, "x", [], {}, {"x": 1}])
def test_frames_that_say_nothing_are_passed_over(data: Any) -> None:
    assert decode(frame(data), so_far("A"), DONE) == [TextDelta("A"), WHOLE]


def test_older_servers_name_the_members_otherwise() -> None:
    stream = b'data:{"retcode":0,"retmsg":"","data":{"answer":"A"}}\n\n'
    assert decode(stream, b'data:{"retcode":0,"retmsg":"","data":true}\n\n') == [
        TextDelta("A"),
        WHOLE,
    ]
    refused = b'data:{"retcode":102,"retmsg":"No such dialog","data":false}\n\n'
    assert decode(stream, refused) == [TextDelta("A"), failure("No such dialog")]


def test_what_was_said_besides_the_answer_is_kept() -> None:
    decoder = RagflowDecoder()
    decoder.feed(piece("A", chat_id="c", prompt="p", audio_binary="ff"))
    assert decoder.closing == {"id": "m", "session_id": SESSION, "chat_id": "c", "prompt": "p"}
    assert decoder.session == SESSION


# ---------------------------------------------------------------------- reasoning


def test_pieces_between_marks_are_thoughts() -> None:
    assert decode(
        piece(start_to_think=True),
        piece("a"),
        piece(" b"),
        piece(end_to_think=True),
        piece("C"),
        last(),
        DONE,
    ) == [ReasoningDelta("a"), ReasoningDelta(" b"), TextDelta("C"), WHOLE]


def test_a_frame_with_a_mark_may_hold_text() -> None:
    frames = piece("a", start_to_think=True), piece("C", end_to_think=True)
    assert decode(*frames, DONE) == [ReasoningDelta("a"), TextDelta("C"), WHOLE]


def test_tags_may_be_cut_in_two() -> None:
    assert decode(piece("<thi"), piece("nk>a</th"), piece("ink>C <"), DONE) == [
        ReasoningDelta("a"),
        TextDelta("C "),
        TextDelta("<"),
        WHOLE,
    ]
    assert decode(so_far("<thi"), so_far("<think>a</thi"), so_far("<think>a</think>C <"), DONE) == [
        ReasoningDelta("a"),
        TextDelta("C "),
        TextDelta("<"),
        WHOLE,
    ]


def test_thoughts_of_the_server_that_eats_letters_lose_none() -> None:
    """`rstrip("</think>")` takes off the letters t, h, i, n and k, too."""
    frames = [
        so_far("<think>I think</think>"),
        so_far("<think>I  with</think>"),
        so_far("<think>I  w nothing</think>A"),
    ]
    items = decode(*frames, DONE)
    thoughts = [item.text for item in items if isinstance(item, ReasoningDelta)]
    assert thoughts == ["I think", " with", " nothing"]


def test_thoughts_that_are_rewritten_stay_and_only_what_extends_them_is_given() -> None:
    items = decode(
        so_far("<think>One, two</think>"),
        so_far("<think>One</think>"),
        so_far("<think>Eins</think>"),
        so_far("<think>Eins, zwei</think>A"),
        DONE,
    )
    assert items == [ReasoningDelta("One, two"), ReasoningDelta(", zwei"), TextDelta("A"), WHOLE]


def test_a_closing_tag_alone_makes_a_thought_of_what_was_before_it() -> None:
    items = decode(so_far("Let me see."), so_far("Let me see.</think>A"), DONE)
    assert items == [
        TextDelta("Let me see."),
        ReasoningDelta("Let me see."),
        TextReplace("A"),
        WHOLE,
    ]
    prose = "It writes `</think>` there."
    assert decode(so_far(prose), DONE) == [TextDelta(prose), WHOLE]


def test_progress_is_a_step_and_no_text() -> None:
    frames = [piece("<retrieving>"), piece("Look<br/>"), piece("<br/>"), piece("</retrieving>")]
    assert decode(*frames, piece("A"), last("A"), DONE) == [
        Step("retrieving", "Look"),
        TextDelta("A"),
        WHOLE,
    ]
    whole = so_far("<retrieving>Look</retrieving>A")
    assert decode(whole, DONE) == [TextDelta("A"), WHOLE]


# ---------------------------------------------------------------------- the end


def test_without_a_terminal_marker_it_was_truncated() -> None:
    items = decode(piece("A ["))
    assert items[:-1] == [TextDelta("A "), TextDelta("[")]
    assert ending(items).reason is Reason.UPSTREAM_TRUNCATED


@pytest.mark.parametrize("marker", [DONE, AGENT_DONE, b'data: {"code":0,"data":true}\n\n'])
def test_any_terminal_marker_ends_it(marker: bytes) -> None:
    decoder = RagflowDecoder()
    assert decoder.feed(piece("A") + marker + piece("late")) == [TextDelta("A"), WHOLE]
    assert decoder.ended
    assert decoder.finished


@pytest.mark.parametrize(
    ("held", "kept"),
    [("a [ID:", "[ID:"), ("a **ERR", "**ERR"), ("a <thi", "<thi"), ("a <retr", "<retr")],
)
@pytest.mark.parametrize("cause", [None, UpstreamEnd(Reason.UPSTREAM_TIMEOUT)])
def test_what_is_held_comes_out_at_every_end(
    held: str, kept: str, cause: UpstreamEnd | None
) -> None:
    ends: list[Callable[[RagflowDecoder], list[Item]]] = [
        lambda decoder: decoder.finish(cause)[:-1],
        lambda decoder: decoder.release(),
        lambda decoder: decoder.feed(DONE)[:-1],
        lambda decoder: decoder.feed(failed() + DONE)[:-1],
    ]
    for end in ends:
        decoder = RagflowDecoder()
        assert decoder.feed(piece(held)) == [TextDelta("a ")]
        assert end(decoder) == [TextDelta(kept)]


# ---------------------------------------------------------------------- errors


def test_an_error_frame_takes_nothing_back_and_is_read_past() -> None:
    decoder = RagflowDecoder()
    assert decoder.feed(so_far("A") + failed()) == [TextDelta("A")]
    assert not decoder.ended
    assert decoder.feed(DONE) == [failure("it broke")]


def test_text_after_an_error_is_kept_but_rewrites_nothing() -> None:
    items = decode(so_far("A"), failed(), so_far("A b"), so_far("something else"), DONE)
    assert items == [TextDelta("A"), TextDelta(" b"), failure("it broke")]


def test_the_first_error_counts() -> None:
    assert ending(decode(failed("one"), failed("two"), DONE)) == failure("one")
    told = piece("A\n**ERROR**: TIMEOUT - slow")
    assert ending(decode(told, failed("two"), DONE)) == failure("TIMEOUT - slow")
    assert ending(decode(failed("one"), told, DONE)) == failure("one")


def test_an_error_in_a_whole_answer_leaves_it() -> None:
    assert decode(so_far("A b"), so_far("A b\n**ERROR**: TIMEOUT - slow"), DONE) == [
        TextDelta("A b"),
        failure("TIMEOUT - slow"),
    ]


@pytest.mark.parametrize("whole", ["**ERROR**: gone", "A [ID:0]\n**ERROR**: gone"])
def test_an_error_never_replaces_text(whole: str) -> None:
    assert decode(so_far("A b"), so_far(whole), DONE) == [TextDelta("A b"), failure("gone")]


def test_an_error_told_as_text_ends_a_stream_that_breaks_off() -> None:
    assert ending(decode(piece("A"), piece("**ERROR**: "))) == failure("an error without a message")
    assert decode(piece("A"), piece("**ERROR**: AUTH_ERROR - no")) == [
        TextDelta("A"),
        failure("AUTH_ERROR - no"),
    ]


def test_prose_about_errors_is_text() -> None:
    prose = "The log has **ERROR**: lines, such as **ERROR**: disk full."
    assert decode(piece(prose), last(prose), DONE) == [TextDelta(prose), WHOLE]


@pytest.mark.parametrize("data", [b"{", b"oops", b"[1]", b'"x"', b"null", b"7", b"{}"])
def test_data_that_is_no_frame_is_an_error_but_not_the_end(data: bytes) -> None:
    items = decode(piece("A"), b"data:" + data + b"\n\n", piece("B"), DONE)
    assert texts(items) == "AB"
    assert ending(items).reason is Reason.UPSTREAM_ERROR


@pytest.mark.parametrize("keep_alive", [b": ping\n\n", b"data:\n\n", b"event: x\ndata:  \n\n"])
def test_keep_alives_are_passed_over(keep_alive: bytes) -> None:
    assert decode(keep_alive, piece("A"), keep_alive, DONE) == [TextDelta("A"), WHOLE]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"code": 102, "message": "Session not found!"}, "Session not found!"),
        ({"code": 0, "data": False, "message": "`Authorization` can't be empty"}, None),
        ({"code": 100, "message": "<Unauthorized '401: Unauthorized'>", "data": None}, None),
        ({"code": 500, "message": "", "data": {"answer": "**ERROR**: E"}}, "E"),
        ({"code": 500, "message": {"x": 1}, "data": "x"}, "error 500"),
        ({"code": 401}, "error 401"),
        ({"code": "x"}, "error x"),
        ({"code": "\n"}, "error"),
        ({"retcode": 102, "retmsg": "No"}, "No"),
        ({"code": 0, "data": "**ERROR**: E"}, "E"),
    ],
)
def test_a_refusal_in_words(told: dict[str, Any], words: str | None) -> None:
    assert refusal(told) == (words or told["message"])


@pytest.mark.parametrize("told", [{}, {"code": 0}, {"code": 0, "data": False}, {"code": None}])
def test_what_is_no_refusal(told: dict[str, Any]) -> None:
    assert refusal(told) is None


# ---------------------------------------------------------------------- references


def chunk(name: str) -> dict[str, Any]:
    return {"id": name, "content": f"text of {name}"}


def found(items: list[Item]) -> list[list[tuple[int, str | None]]]:
    return [
        [(one.ordinal, one.chunk_id) for one in item.references]
        for item in items
        if isinstance(item, References)
    ]


def test_references_by_place_replace_those_before() -> None:
    items = decode(
        piece("A [ID:1]", reference={"chunks": [chunk("a"), chunk("b"), chunk("c")]}),
        last(reference={"chunks": [chunk("x"), chunk("y")], "doc_aggs": []}),
        DONE,
    )
    assert found(items) == [[(1, "a"), (2, "b"), (3, "c")], [(1, "x"), (2, "y")]]


def test_the_same_references_again_are_no_news() -> None:
    reference = {"chunks": [chunk("a")]}
    items = decode(piece("A", reference=reference), last(reference=reference), DONE)
    assert found(items) == [[(1, "a")]]


def test_an_old_agents_references_may_be_a_bare_list() -> None:
    assert found(decode(so_far("A ##0$$", reference=[chunk("a")]), DONE)) == [[(1, "a")]]


@pytest.mark.parametrize(
    "reference", [None, {}, [], {"chunks": []}, {"chunks": {}}, {"chunks": None}, "x", 7]
)
def test_no_references_are_no_event(reference: Any) -> None:
    assert found(decode(last("A", reference=reference), DONE)) == []


def test_a_broken_item_keeps_the_places_of_the_others() -> None:
    assert found(decode(last("A", reference={"chunks": [None, chunk("b"), 7]}), DONE)) == [
        [(1, None), (2, "b"), (3, None)]
    ]


def test_references_come_before_the_answer_that_cites_them() -> None:
    items = decode(so_far("A [ID:7] [ID:0]", reference={"chunks": [chunk("a")]}), DONE)
    assert items[1] == TextDelta("A [ID:7] [1]", ((9, 12, 1),))


def test_references_are_bounded() -> None:
    limits = LimitSettings(references=2, reference_bytes=10)
    items = decode(last("A", reference={"chunks": [chunk("a" * 50)] * 9}), DONE, limits=limits)
    assert isinstance(items[0], References)
    assert [len(one.text.encode()) <= 10 for one in items[0].references] == [True, True]


def test_an_agents_marks_name_keys_and_number_by_the_first_mark() -> None:
    items = decode(
        event("message", content="B [ID:9], A [ID:4]"),
        event(
            "message_end", reference={"chunks": {"4": chunk("a"), "7": chunk("c"), "9": chunk("b")}}
        ),
        AGENT_DONE,
    )
    assert texts(items) == "B [1], A [2]"
    assert found(items) == [[(1, "b"), (2, "a"), (3, "c")]]


def test_what_marks_mean_can_be_set() -> None:
    decoder = RagflowDecoder(citations=CitationTranslator(Style.NONE))
    assert decoder.feed(event("message", content="[ID:4]")) == [TextDelta("[ID:4]")]


# ---------------------------------------------------------------------- agents


def test_an_agents_work_is_told_as_steps() -> None:
    node = {"component_id": "R:1", "component_name": "Look up", "component_type": "Retrieval"}
    assert decode(
        event("workflow_started", inputs={}),
        event("node_started", **node, thoughts="Searching"),
        event("node_finished", **node, error=None),
        event("message", content="A"),
        event("message_end"),
        event("workflow_finished", usage={"prompt_tokens": 3, "completion_tokens": 4}),
        AGENT_DONE,
    ) == [Step("Look up", "Searching"), TextDelta("A"), Usage(3, 4), WHOLE]


def test_a_node_whose_start_was_not_told_is_told_at_its_end() -> None:
    node = {"component_id": "R:1", "component_type": "Retrieval"}
    assert decode(event("node_finished", **node), AGENT_DONE) == [Step("Retrieval"), WHOLE]
    assert decode(event("node_finished"), AGENT_DONE) == [Step("node"), WHOLE]


def test_what_an_agent_asks_its_user_is_the_answer_if_there_is_no_other() -> None:
    asked = event("user_inputs", tips="Which **date**?", inputs={})
    waiting = Step("waiting for input", "Which **date**?")
    assert decode(asked, AGENT_DONE) == [waiting, TextDelta("Which **date**?"), WHOLE]
    assert decode(event("message", content="A"), asked, AGENT_DONE) == [
        TextDelta("A"),
        waiting,
        WHOLE,
    ]
    cut_off = decode(asked)
    assert cut_off[0] == waiting
    assert texts(cut_off) == ""


def test_inputs_without_tips_are_asked_for_by_their_names() -> None:
    asked = event("user_inputs", inputs={"a": {"name": "Date"}, "b": {}, "c": 7}, tips=None)
    assert texts(decode(asked, AGENT_DONE)) == "Date, b, c"
    assert texts(decode(event("user_inputs", inputs=[1]), AGENT_DONE)) == ""


def test_an_event_with_a_code_is_an_error() -> None:
    told = {"event": "message", "data": {"content": "Error 102: no\n\n"}, "code": 102}
    stream = f"data:{json.dumps({**told, 'message': 'no'})}\n\n".encode()
    assert decode(event("message", content="A"), stream) == [TextDelta("A"), failure("no")]


@pytest.mark.parametrize("content", [None, 7, ["x"], ""])
def test_a_message_that_is_no_text_is_none(content: Any) -> None:
    assert decode(event("message", content=content), AGENT_DONE) == [WHOLE]


@pytest.mark.parametrize("name", ["ping", "", "workflow_started", "thinking"])
def test_other_events_are_passed_over(name: str) -> None:
    stream = f'data:{{"event":"{name}","data":"x"}}\n\ndata:{{"event":7}}\n\n'.encode()
    assert decode(stream, AGENT_DONE) == [WHOLE]


# ---------------------------------------------------------------------- a session first


def test_a_greeting_is_kept_back_and_gives_its_session() -> None:
    decoder = RagflowDecoder()
    decoder.awaits_session = True
    greeting = frame({"answer": "Hi!", "reference": {}, "id": None, "session_id": SESSION})
    assert decoder.feed(greeting + DONE) == []
    assert decoder.begin_anew()
    assert decoder.session == SESSION
    assert not decoder.begin_anew()
    assert decoder.feed(piece("A") + DONE) == [TextDelta("A"), WHOLE]


def test_an_old_agents_greeting_looks_like_an_answer() -> None:
    decoder = RagflowDecoder(agent=True)
    decoder.awaits_session = True
    running = frame({"answer": "*'Begin'* is running", "running_status": True})
    assert decoder.feed(running + so_far("Hi") + so_far("Hi!") + DONE) == [
        Step("*'Begin'* is running")
    ]
    assert decoder.begin_anew()


def test_an_answer_without_a_session_before_is_one() -> None:
    chat, agent = RagflowDecoder(), RagflowDecoder(agent=True)
    chat.awaits_session = agent.awaits_session = True
    assert chat.feed(so_far("A") + DONE) == [TextDelta("A"), WHOLE]
    assert agent.feed(event("message", content="A") + AGENT_DONE) == [TextDelta("A"), WHOLE]
    assert not chat.begin_anew()
    assert not agent.begin_anew()


def test_a_greeting_to_a_known_session_is_an_answer() -> None:
    greeting = frame({"answer": "Hi!", "reference": {}, "id": None, "session_id": SESSION})
    assert decode(greeting, DONE) == [TextDelta("Hi!"), WHOLE]


BROKE_OVER_MESSAGES = failed("async_chat() got multiple values for argument 'messages'")


def test_messages_that_a_server_breaks_down_over_are_no_error() -> None:
    decoder = RagflowDecoder()
    decoder.offers_messages = True
    assert decoder.feed(BROKE_OVER_MESSAGES + DONE) == []
    assert decoder.begin_anew()
    assert not decoder.offers_messages
    assert decoder.feed(piece("A") + DONE) == [TextDelta("A"), WHOLE]
    assert ending(decode(BROKE_OVER_MESSAGES, DONE)).reason is Reason.UPSTREAM_ERROR


def test_a_stream_that_broke_before_it_was_asked_anew_is_no_answer() -> None:
    decoder = RagflowDecoder()
    decoder.offers_messages = True
    decoder.feed(BROKE_OVER_MESSAGES)
    cause = UpstreamEnd(Reason.UPSTREAM_UNREACHABLE)
    assert decoder.finish(cause) == [cause]
    assert not decoder.begin_anew()


@pytest.mark.parametrize("session", ["", None, 7, "x" * 501])
def test_a_session_that_cannot_be_is_none(session: Any) -> None:
    decoder = RagflowDecoder()
    decoder.feed(so_far("A").replace(f'"{SESSION}"'.encode(), json.dumps(session).encode()))
    assert decoder.session is None


# ---------------------------------------------------------------------- in one piece


def whole(body: object) -> list[Item]:
    return RagflowDecoder().feed_whole(json.dumps(body).encode())


def test_an_answer_in_one_piece() -> None:
    data = {"answer": "<think>a</think>B [ID:0]", "reference": {"chunks": [chunk("a")]}}
    items = whole({"code": 0, "data": data})
    assert isinstance(items[0], References)
    assert items[1:] == [ReasoningDelta("a"), TextDelta("B [1]", ((2, 5, 1),)), WHOLE]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"code": 102, "message": "Session not found!"}, "Session not found!"),
        ({"code": 0, "data": None}, "the upstream sent JSON that is not an answer"),
        ({"code": 0, "data": True}, "the upstream sent JSON that is not an answer"),
        ({"code": 500, "data": {"answer": "**ERROR**: E"}}, "E"),
        ([1], "the upstream sent JSON that is not an answer"),
        ({"detail": "x"}, "the upstream sent JSON that is not an answer"),
    ],
)
def test_json_that_is_no_answer_is_an_error(body: object, error: str) -> None:
    assert whole(body) == [failure(error)]


def test_an_event_over_the_limit_ends_the_run_by_limit() -> None:
    items = decode(piece("A"), piece("x" * 500), DONE, limits=LimitSettings(event_bytes=400))
    assert texts(items) == "A"
    assert ending(items).reason is Reason.LIMIT
