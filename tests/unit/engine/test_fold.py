"""The fold, event by event."""

from holdfast.engine.fold import Answer, Fold, ToolCallSoFar, fold
from holdfast.engine.run import Status
from holdfast.events import (
    Notice,
    Outcome,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    RunEnd,
    RunStart,
    Step,
    TextDelta,
    TextReplace,
    ToolCall,
    Usage,
)


def test_no_events_amount_to_an_empty_streaming_answer() -> None:
    assert fold([]) == Answer()
    assert fold([]).status is Status.STREAMING


def test_text_is_put_together_in_order() -> None:
    answer = fold([TextDelta("海"), TextDelta(""), TextDelta("带"), TextDelta("!")])
    assert (answer.text, answer.arrived) == ("海带!", True)


def test_marks_move_by_the_text_before_them() -> None:
    answer = fold(
        [
            TextDelta("ab [1]", marks=((3, 6, 1),)),
            TextDelta(" and "),
            TextDelta("[2][1]", marks=((0, 3, 2), (3, 6, 1))),
        ]
    )
    assert answer.marks == ((3, 6, 1), (11, 14, 2), (14, 17, 1))
    assert [answer.text[start:end] for start, end, _ in answer.marks] == ["[1]", "[2]", "[1]"]


def test_marks_count_code_points_and_not_bytes_or_utf16_units() -> None:
    answer = fold([TextDelta("😀海带"), TextDelta("[1]", marks=((0, 3, 1),))])
    assert answer.marks == ((3, 6, 1),)
    assert answer.text[3:6] == "[1]"


def test_a_replacement_forgets_the_text_and_the_marks_before_it() -> None:
    answer = fold(
        [
            TextDelta("old [1]", marks=((4, 7, 1),)),
            ReasoningDelta("hm"),
            References((Reference(1),)),
            TextReplace("new [2]", marks=((4, 7, 2),)),
            TextDelta(" [3]", marks=((1, 4, 3),)),
        ]
    )
    assert answer.text == "new [2] [3]"
    assert answer.marks == ((4, 7, 2), (8, 11, 3))
    assert answer.reasoning == "hm"
    assert answer.references == (Reference(1),)


def test_a_replacement_by_nothing_leaves_no_text_but_something_had_arrived() -> None:
    answer = fold([TextDelta("a"), TextReplace("")])
    assert (answer.text, answer.arrived) == ("", True)


def test_reasoning_is_kept_apart() -> None:
    answer = fold([ReasoningDelta("I "), TextDelta("A"), ReasoningDelta("think")])
    assert (answer.text, answer.reasoning) == ("A", "I think")


def test_p4_the_last_set_of_references_counts() -> None:
    first = Reference(1, text="a")
    second = Reference(2, text="b")
    assert fold([References((first,)), References((second, first))]).references == (second, first)
    assert fold([References((first,)), References(())]).references == ()


def test_tool_calls_are_put_together_by_index() -> None:
    answer = fold(
        [
            ToolCall(1, id="b", name="g"),
            ToolCall(0, id="a", name="f", arguments_delta="{"),
            ToolCall(1, arguments_delta="[]"),
            ToolCall(0, arguments_delta="}"),
        ]
    )
    assert {call.index: call for call in answer.tool_calls} == {
        0: ToolCallSoFar(0, "a", "f", "{}"),
        1: ToolCallSoFar(1, "b", "g", "[]"),
    }


def test_a_tool_call_keeps_its_first_names_when_later_pieces_have_none() -> None:
    (call,) = fold([ToolCall(0, id="a", name="f"), ToolCall(0, id="", name=None)]).tool_calls
    assert (call.id, call.name) == ("a", "f")


def test_the_last_usage_counts() -> None:
    assert fold([Usage(1, 1), Usage(2, 5)]).usage == Usage(2, 5)


def test_the_start_says_who_answers() -> None:
    answer = fold([RunStart("r", "s", "m", "q", "gpt", model="some-model")])
    assert (answer.upstream, answer.model, answer.arrived) == ("gpt", "some-model", False)


def test_steps_and_notices_are_no_part_of_the_answer() -> None:
    assert fold([Step("searching"), Notice("fell_back", "local")]) == Answer()


def test_a_notice_of_another_upstream_takes_back_what_the_one_before_gave() -> None:
    start = RunStart("r", "s", "m", "q", "gpt", model="some-model")
    notice = Notice("fallback", "gpt is down", upstream="docs")
    answer = fold([start, References((Reference(1),)), Usage(1, 1), References(()), notice])
    assert (answer.upstream, answer.model, answer.usage) == ("docs", None, None)
    assert not answer.arrived
    failed = RunEnd(Outcome.FAILED, Reason.UPSTREAM_ERROR)
    assert fold([failed], answer).status is Status.FAILED


def test_a_notice_of_another_upstream_keeps_what_is_there() -> None:
    notice = Notice("fallback", "gpt is down", upstream="docs")
    for event in (TextDelta("a"), ReasoningDelta("a"), ToolCall(0), References((Reference(1),))):
        answer = fold([event, notice])
        assert (answer.arrived, answer.upstream) == (True, "docs")


def test_the_end_gives_the_status() -> None:
    done = RunEnd(Outcome.COMPLETED)
    assert fold([TextDelta("a"), done]).status is Status.COMPLETE
    cut = RunEnd(Outcome.INTERRUPTED, Reason.UPSTREAM_TRUNCATED)
    assert fold([TextDelta("a"), cut]).status is Status.PARTIAL
    assert fold([cut]).status is Status.FAILED
    assert fold([TextDelta("a"), cut]).end == cut


def test_an_answer_taken_in_between_does_not_disturb_the_fold() -> None:
    folding = Fold()
    folding.add(TextDelta("a [1]", marks=((2, 5, 1),)))
    folding.add(ReasoningDelta("r"))
    early = folding.answer()
    folding.add(TextDelta("[2]", marks=((0, 3, 2),)))
    folding.add(ReasoningDelta("s"))
    late = folding.answer()
    assert (early.text, early.marks, early.reasoning) == ("a [1]", ((2, 5, 1),), "r")
    assert (late.text, late.marks, late.reasoning) == ("a [1][2]", ((2, 5, 1), (5, 8, 2)), "rs")
    assert folding.answer() == late
