"""What the corpus has no file for: states, limits, odd frames, the history."""

import json
from typing import Any

import pytest

from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Reason,
    ReasoningDelta,
    Reference,
    References,
    Step,
    TextDelta,
    TextReplace,
    Usage,
)
from holdfast.settings import LimitSettings
from holdfast.upstreams.anythingllm.decoder import AnythingLLMDecoder, SavedTurn, newest_turn
from holdfast.upstreams.base import Item
from tests.support.upstream_server import event

WHOLE = UpstreamEnd()


def chunk(text: Any, close: Any = False, **fields: Any) -> bytes:
    frame = {"uuid": "u", "sources": [], "type": "textResponseChunk", "error": False}
    return event({**frame, "textResponse": text, "close": close, **fields})


def final(**fields: Any) -> bytes:
    frame = {"uuid": "u", "type": "finalizeResponseStream", "close": True, "error": False}
    return event({**frame, "chatId": 1, **fields})


def full(text: Any, **fields: Any) -> bytes:
    return event({"id": "u", "type": "textResponse", "textResponse": text, "close": True, **fields})


def thought(text: Any) -> bytes:
    return event({"id": "u", "type": "agentThought", "thought": text, "error": None})


def abort(error: Any) -> bytes:
    return event({"id": "u", "type": "abort", "textResponse": None, "close": True, "error": error})


def agent_chunk(text: str) -> bytes:
    return event({"id": "u", "type": "textResponseChunk", "textResponse": text, "error": None})


def decode(*pieces: bytes, limits: LimitSettings | None = None) -> list[Item]:
    """What a decoder gives for a stream that ends by itself."""
    decoder = AnythingLLMDecoder(limits)
    items = [item for piece in pieces for item in decoder.feed(piece)]
    return items + decoder.finish()


def fed(*pieces: bytes) -> AnythingLLMDecoder:
    decoder = AnythingLLMDecoder()
    for piece in pieces:
        decoder.feed(piece)
    return decoder


def texts(items: list[Item]) -> str:
    return "".join(item.text for item in items if isinstance(item, TextDelta))


def ending(items: list[Item]) -> UpstreamEnd:
    end = items[-1]
    assert isinstance(end, UpstreamEnd)
    return end


def failure(text: str) -> UpstreamEnd:
    return UpstreamEnd(Reason.UPSTREAM_ERROR, error=text)


# ---------------------------------------------------------------------- the end


class TestEnd:
    def test_the_closing_frame_ends_without_eof(self) -> None:
        items = AnythingLLMDecoder().feed(chunk("a") + chunk("", True) + final())
        assert items == [TextDelta("a"), WHOLE]

    def test_nothing_after_the_closing_frame_counts(self) -> None:
        assert decode(chunk("a"), final(), chunk("b"), abort("late")) == [TextDelta("a"), WHOLE]

    def test_close_is_not_the_end(self) -> None:
        decoder = fed(chunk("a"), chunk("", True))
        assert not decoder.finished
        assert decoder.is_written
        assert decoder.feed(chunk("b")) == [TextDelta("b")]

    @pytest.mark.parametrize("last", [full("a"), abort("broken")])
    def test_a_short_turn_waits_for_nothing_but_a_closing_frame(self, last: bytes) -> None:
        decoder = fed(last)
        assert decoder.finished
        assert not decoder.ended
        assert ending(decoder.finish(UpstreamEnd(Reason.UPSTREAM_TRUNCATED))) in (
            WHOLE,
            failure("broken"),
        )

    def test_an_agents_answer_may_take_its_time_to_close(self) -> None:
        decoder = fed(thought("hm"), full("a", animate=False))
        assert not decoder.finished
        cut = UpstreamEnd(Reason.UPSTREAM_TRUNCATED, error="cut")
        assert decoder.finish(cut) == [WHOLE]

    def test_the_usage_comes_before_the_end_whatever_it_is(self) -> None:
        metrics = {"prompt_tokens": 3, "completion_tokens": 2, "model": "m"}
        items = decode(chunk("a"), abort("broken"), final(metrics=metrics))
        assert items[1:] == [Usage(3, 2, {"model": "m"}), failure("broken")]

    @pytest.mark.parametrize("metrics", [None, {}, {"prompt_tokens": 0, "model": None}, [1], "x"])
    def test_metrics_that_say_nothing(self, metrics: Any) -> None:
        assert decode(chunk("a"), final(metrics=metrics)) == [TextDelta("a"), WHOLE]

    def test_an_answer_without_text_that_was_saved_is_no_error_of_ours(self) -> None:
        assert decode(chunk("", True), final(chatId=7)) == [WHOLE]  # the run says that it is empty

    def test_what_it_said_besides_the_answer(self) -> None:
        decoder = fed(chunk("a"), final(chatId=7, metrics={"model": "m"}, outputs=[{"type": "x"}]))
        assert decoder.closing == {
            "id": "u",
            "chatId": 7,
            "outputs": [{"type": "x"}],
            "metrics": {"model": "m"},
        }
        assert AnythingLLMDecoder().closing is None


# ---------------------------------------------------------------------- errors


class TestErrors:
    @pytest.mark.parametrize("error", [False, None, "", 0, [], {}])
    def test_values_that_are_no_error(self, error: Any) -> None:
        assert decode(chunk("a", error=error), final(error=error)) == [TextDelta("a"), WHOLE]

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            ("broken", "broken"),
            (True, "an error without a message"),
            ({"message": "m", "code": "c"}, "m (c)"),
            ("a\n  b", "a b"),
        ],
    )
    @pytest.mark.parametrize("make", [chunk, lambda text, **fields: full(text, **fields)])
    def test_an_error_on_any_frame(self, make: Any, error: Any, words: str) -> None:
        items = decode(chunk("a"), make("", error=error), final())
        assert items == [TextDelta("a"), failure(words)]

    def test_the_first_error_counts_and_later_text_does_not_undo_it(self) -> None:
        items = decode(chunk("a"), abort("one"), abort("two"), chunk("b"), final())
        assert items == [TextDelta("a"), TextDelta("b"), failure("one")]

    def test_an_error_never_overwrites_text(self) -> None:
        items = decode(chunk("a"), full("Sorry.", error="broken"), final(textResponse="Sorry."))
        assert items == [TextDelta("a"), failure("broken")]

    def test_an_abort_without_words(self) -> None:
        assert decode(abort(None)) == [
            failure("the upstream broke the answer off without saying why")
        ]

    def test_bold_errors_in_an_answer_are_its_text(self) -> None:
        text = "The log says:\n**ERROR**: MODEL_ERROR - no disk"
        assert decode(chunk(text), final()) == [TextDelta(text), WHOLE]

    def test_an_agent_may_speak_of_failures(self) -> None:
        text = "The agent model failed to respond: that was yesterday."
        items = decode(agent_chunk(text[:20]), agent_chunk(text[20:]), full(text, animate=False))
        assert ending(items) == WHOLE
        assert texts(items) == text

    def test_an_agent_that_failed_at_something_and_answers_all_the_same(self) -> None:
        failed = thought("Error encountered while running: no such tool")
        items = decode(failed, full("It rains.", animate=False))
        assert items[1:] == [TextDelta("It rains."), WHOLE]


# ---------------------------------------------------------------------- text


class TestText:
    @pytest.mark.parametrize("text", [None, "", 7, [], {"a": 1}, True])
    def test_what_is_no_text(self, text: Any) -> None:
        assert texts(decode(chunk(text), full(text), final(textResponse=text))) == ""

    def test_the_whole_text_again_is_not_said_again(self) -> None:
        items = decode(
            chunk("a "), chunk("b"), full("a b", animate=False), final(textResponse="a b")
        )
        assert items == [TextDelta("a "), TextDelta("b"), WHOLE]

    def test_other_white_space_around_it_is_no_rewrite(self) -> None:
        items = decode(chunk("\n\na\n"), full("a", animate=False), final(textResponse=" a"))
        assert items == [TextDelta("\n\na\n"), WHOLE]

    def test_other_words_replace_it(self) -> None:
        items = decode(chunk("a"), full("b", animate=False), final(textResponse="bc"))
        assert items == [TextDelta("a"), TextReplace("b"), TextDelta("c"), WHOLE]

    def test_a_whole_text_of_thoughts_alone_takes_nothing_away(self) -> None:
        items = decode(chunk("a"), final(textResponse="<think>b</think>"))
        assert items == [TextDelta("a"), ReasoningDelta("b"), WHOLE]

    def test_thoughts_that_the_whole_text_lacks_stay(self) -> None:
        items = decode(chunk("<think>x</think>a"), full("a", animate=False), final())
        assert items == [ReasoningDelta("x"), TextDelta("a"), WHOLE]

    def test_thoughts_in_other_words_are_left_out(self) -> None:
        items = decode(chunk("<think>x</think>a"), final(textResponse="<think>y</think>ab"))
        assert items == [ReasoningDelta("x"), TextDelta("a"), TextDelta("b"), WHOLE]

    @pytest.mark.parametrize("cause", [None, UpstreamEnd(Reason.CLIENT_CANCELLED)])
    def test_what_was_held_for_a_tag_comes_out(self, cause: UpstreamEnd | None) -> None:
        decoder = fed(chunk("a <thi"))
        assert decoder.finish(cause)[0] == TextDelta("<thi")
        decoder = fed(chunk("<think>a</th"))
        assert decoder.release() == [ReasoningDelta("</th")]
        assert decoder.release() == []

    def test_a_long_thought_of_an_agent_is_shortened(self) -> None:
        items = decode(thought("x" * 100), limits=LimitSettings(reference_bytes=10))
        assert items[0] == Step("agent", "x" * 7 + "…")

    @pytest.mark.parametrize("text", [None, "", 7, {"a": 1}])
    def test_a_thought_that_says_nothing(self, text: Any) -> None:
        assert not isinstance(decode(thought(text), chunk("a"))[0], Step)


# ---------------------------------------------------------------------- odd frames


class TestOddFrames:
    @pytest.mark.parametrize(
        "odd", [b": hi\n\n", b"data:\n\n", b"data: [DONE]\n\n", b"data: {}\n\n"]
    )
    def test_what_says_nothing(self, odd: bytes) -> None:
        assert decode(odd, chunk("a"), odd, final()) == [TextDelta("a"), WHOLE]

    @pytest.mark.parametrize("odd", ["nonsense", "[1]", "17", '"text"', "{", "null"])
    def test_what_is_no_frame_ends_the_answer(self, odd: str) -> None:
        error = f"the upstream sent something that is not a frame of AnythingLLM: {odd}"
        assert decode(chunk("a"), event(odd), final()) == [TextDelta("a"), failure(error)]

    def test_text_that_was_cut_inside_a_character(self) -> None:
        frame = chunk("中").replace("中".encode(), b"\xe4\xb8")
        assert decode(frame, final()) == [TextDelta("\ufffd"), WHOLE]
        frame = chunk("x").replace(b'"x"', b'"\\ud83d"')
        assert decode(frame, final()) == [TextDelta("\ufffd"), WHOLE]

    def test_sources_that_hold_no_utf8_do_not_cost_the_text(self) -> None:
        frame = final(sources=[{"title": "x", "text": "y"}]).replace(b'"y"', b'"\xff\\ud83d"')
        items = decode(chunk("a"), frame)
        assert items[0] == TextDelta("a")
        assert isinstance(items[1], References)
        assert items[1].references[0].text == "\ufffd\ufffd"

    def test_deep_nesting_breaks_nothing(self) -> None:
        deep = "[" * 5_000 + "]" * 5_000
        for name in ("sources", "metrics", "error", "textResponse", "thought", "outputs"):
            for depth in (400, 900, 5_000):
                deep = "[" * depth + "]" * depth
                frame = f'{{"type":"finalizeResponseStream","chatId":1,"{name}":{deep}}}'
                assert isinstance(decode(event(frame))[-1], UpstreamEnd)
        nested = f'[{{"title":"a","id":{deep},"x":{deep}}},{{"title":"a","x":[{deep}]}}]'
        items = decode(event(f'{{"type":"x","sources":{nested}}}'))
        assert isinstance(items[-1], UpstreamEnd)

    def test_an_event_over_the_limit(self) -> None:
        items = decode(
            chunk("a"), final(sources=[{"text": "x" * 900}]), limits=LimitSettings(event_bytes=800)
        )
        error = "the upstream sent an event of more than limits.event_bytes (800)"
        assert items == [TextDelta("a"), UpstreamEnd(Reason.LIMIT, error=error)]

    @pytest.mark.parametrize(
        ("body", "error"),
        [
            (b"[]", "an answer that is not AnythingLLM's"),
            (b"", "an answer that is not AnythingLLM's"),
            (b'{"message": "Not Found"}', "Not Found"),
            (b'{"type": "abort"}', "the upstream broke the answer off without saying why"),
        ],
    )
    def test_json_that_is_no_answer(self, body: bytes, error: str) -> None:
        assert AnythingLLMDecoder().feed_whole(body) == [failure(error)]


# ---------------------------------------------------------------------- silence, and the history


class TestSilence:
    def test_only_an_answer_that_has_begun_and_has_no_end_is_broken_off(self) -> None:
        assert not fed().is_broken_off
        assert not fed(thought("x"), chunk("<think>x")).is_broken_off
        assert fed(chunk("a")).is_broken_off
        assert fed(chunk("a"), chunk("", True)).is_broken_off
        assert fed(agent_chunk("a")).is_broken_off
        assert not fed(chunk("a"), abort("x")).is_broken_off
        assert not fed(agent_chunk("a"), full("a", animate=False)).is_broken_off
        assert not fed(chunk("a"), final()).is_broken_off

    def test_thoughts_and_tools_may_take_long(self) -> None:
        assert not fed().is_speaking
        assert not fed(chunk("<think>x")).is_speaking
        assert not fed(thought("x"), agent_chunk("a")).is_speaking
        assert fed(chunk("<think>x</think>a")).is_speaking
        assert fed(chunk("a"), chunk("", True)).is_speaking
        assert fed(thought("x"), full("a", animate=False)).is_speaking


def turn(question: Any, answer: Any, chat_id: Any = None, **fields: Any) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": question, "sentAt": 1, "chatId": chat_id},
        {"role": "assistant", "type": "chat", "content": answer, "chatId": chat_id, **fields},
    ]


def history(*turns: list[dict[str, Any]]) -> bytes:
    return json.dumps({"history": [item for one in turns for item in one]}).encode()


class TestHistory:
    @pytest.mark.parametrize(
        "body",
        [
            history(turn("old", "no", 1), turn("new", "yes", 2)),
            history(turn("new", "yes", 2), turn("old", "no", 1)),
            history(turn("old", "no"), turn("new", "yes")),
            history(turn(" new\n", "yes", 2)),
        ],
    )
    def test_the_newest_turn_in_any_order(self, body: bytes) -> None:
        saved = newest_turn(body, "new")
        assert saved is not None
        assert saved.content == "yes"

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"Bad Request",
            b"[]",
            b'{"error": "x"}',
            b'{"history": [1]}',
            b'{"history": []}',
            b'{"history": ' + b"[" * 5_000,
            history(turn("new", "no", 1), turn("another", "newer", 2)),
            history(turn(None, "x")),
            history(turn("new", "x")[1:]),
            history(turn("new", "x")[:1]),
        ],
    )
    def test_a_history_without_the_answer(self, body: bytes) -> None:
        assert newest_turn(body, "new") is None

    def test_the_rest_of_an_answer(self) -> None:
        decoder = fed(chunk("<think>x</think>It is "))
        saved = newest_turn(
            history(
                turn(
                    "q",
                    "<think>x</think>It is so.",
                    7,
                    sources=[{"title": "a", "text": "b"}],
                    metrics={"prompt_tokens": 3},
                )
            ),
            "q",
        )
        assert saved is not None
        assert decoder.is_begun_of(saved)
        items = decoder.take_saved(saved, is_whole=True)
        assert items == [
            TextDelta("so."),
            References((Reference(1, document_name="a", text="b", document_id=None),)),
            Usage(3),
            WHOLE,
        ]
        assert decoder.closing == {"chatId": 7, "metrics": {"prompt_tokens": 3}}
        assert decoder.take_saved(saved, is_whole=True) == []

    def test_what_is_not_certain_to_be_whole_does_not_end_it(self) -> None:
        decoder = fed(chunk("It "))
        assert decoder.take_saved(SavedTurn(content="It is"), is_whole=False) == [TextDelta("is")]
        cut = UpstreamEnd(Reason.UPSTREAM_TRUNCATED, error="cut")
        assert decoder.finish(cut) == [cut]

    @pytest.mark.parametrize(
        ("content", "is_begun"),
        [
            ("It is", True),
            ("It", True),
            ("It is so", True),
            ("I", False),
            ("So", False),
            (7, False),
        ],
    )
    def test_which_answer_is_ours(self, content: Any, is_begun: bool) -> None:
        assert fed(chunk("It ")).is_begun_of(SavedTurn(content=content)) is is_begun
