"""Events: their bytes are a contract with the journal, with clients and with other nodes."""

from typing import Any

import msgspec
import pytest

from holdfast.events import (
    EVENT_TYPES,
    Entry,
    Event,
    Finish,
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
    decode,
    encode,
    join_log,
    split_log,
)

PINNED: list[tuple[Event, bytes]] = [
    (
        RunStart("r1", "s1", "m1", "q1", "docs"),
        b'{"type":"run-start","run_id":"r1","session_id":"s1","message_id":"m1",'
        b'"question_id":"q1","upstream":"docs"}',
    ),
    (
        RunStart("r1", "s1", "m1", "q1", "gpt", model="some-model", route_reason="the default"),
        b'{"type":"run-start","run_id":"r1","session_id":"s1","message_id":"m1",'
        b'"question_id":"q1","upstream":"gpt","model":"some-model","route_reason":"the default"}',
    ),
    (TextDelta("Kelp"), b'{"type":"text-delta","text":"Kelp"}'),
    (TextDelta(""), b'{"type":"text-delta","text":""}'),
    (
        TextDelta("Kelp [1], [2].", marks=((5, 8, 1), (10, 13, 2))),
        b'{"type":"text-delta","text":"Kelp [1], [2].","marks":[[5,8,1],[10,13,2]]}',
    ),
    (
        TextDelta('海带 "\\\n\r\t\0\u2028\x7f😀'),
        '{"type":"text-delta","text":"海带 \\"\\\\\\n\\r\\t\\u0000\u2028\x7f😀"}'.encode(),
    ),
    (TextReplace("All new."), b'{"type":"text-replace","text":"All new."}'),
    (
        TextReplace("[1]", marks=((0, 3, 1),)),
        b'{"type":"text-replace","text":"[1]","marks":[[0,3,1]]}',
    ),
    (ReasoningDelta("Hm."), b'{"type":"reasoning-delta","text":"Hm."}'),
    (References(()), b'{"type":"references","references":[]}'),
    (
        References((Reference(1), Reference(2, document_name="海带.md", text="…", score=0.5))),
        '{"type":"references","references":[{"ordinal":1},'
        '{"ordinal":2,"document_name":"海带.md","text":"…","score":0.5}]}'.encode(),
    ),
    (
        References(
            (
                Reference(
                    ordinal=3,
                    document_id="d",
                    document_name="n",
                    chunk_id="c",
                    text="t",
                    url="https://kelp.example/",
                    score=1.0,
                    positions=[[1, 2], "p"],
                    extra={"page": 7, "deep": {"er": [None, True]}},
                ),
            )
        ),
        b'{"type":"references","references":[{"ordinal":3,"document_id":"d","document_name":"n",'
        b'"chunk_id":"c","text":"t","url":"https://kelp.example/","score":1.0,'
        b'"positions":[[1,2],"p"],"extra":{"page":7,"deep":{"er":[null,true]}}}]}',
    ),
    (ToolCall(0), b'{"type":"tool-call","index":0}'),
    (
        ToolCall(1, id="call_1", name="look_up", arguments_delta='{"q":'),
        b'{"type":"tool-call","index":1,"id":"call_1","name":"look_up",'
        b'"arguments_delta":"{\\"q\\":"}',
    ),
    (Step("searching"), b'{"type":"step","label":"searching"}'),
    (
        Step("searching", "3 documents"),
        b'{"type":"step","label":"searching","detail":"3 documents"}',
    ),
    (Notice("fell_back", "local"), b'{"type":"notice","code":"fell_back","message":"local"}'),
    (Usage(), b'{"type":"usage"}'),
    (
        Usage(input_tokens=3, output_tokens=0, extra={"cached": 1}),
        b'{"type":"usage","input_tokens":3,"output_tokens":0,"extra":{"cached":1}}',
    ),
    (RunEnd(Outcome.COMPLETED), b'{"type":"run-end","outcome":"completed"}'),
    (
        RunEnd(Outcome.COMPLETED, finish=Finish.LENGTH),
        b'{"type":"run-end","outcome":"completed","finish":"length"}',
    ),
    (
        RunEnd(Outcome.INTERRUPTED, Reason.UPSTREAM_TRUNCATED, error="cut"),
        b'{"type":"run-end","outcome":"interrupted","reason":"upstream_truncated","error":"cut"}',
    ),
]


def _name(value: Any) -> str:
    return EVENT_TYPES.get(type(value), "")


@pytest.mark.parametrize(("event", "data"), PINNED, ids=_name)
def test_the_json_of_every_event_is_pinned_byte_for_byte(event: Event, data: bytes) -> None:
    assert encode(event) == data


@pytest.mark.parametrize(("event", "data"), PINNED, ids=_name)
def test_every_event_comes_back_from_its_json(event: Event, data: bytes) -> None:
    assert decode(data) == event


def test_the_pinned_list_has_every_kind_of_event() -> None:
    assert {type(event) for event, _ in PINNED} == set(EVENT_TYPES)


def test_the_types_are_the_names_that_clients_know() -> None:
    assert sorted(EVENT_TYPES.values()) == [
        "notice",
        "reasoning-delta",
        "references",
        "run-end",
        "run-start",
        "step",
        "text-delta",
        "text-replace",
        "tool-call",
        "usage",
    ]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Outcome, "completed cancelled interrupted failed"),
        (
            Reason,
            "client_cancelled client_disconnected upstream_error upstream_empty upstream_timeout "
            "upstream_truncated upstream_unreachable limit storage_error server_shutdown "
            "server_crash",
        ),
        (Finish, "stop length tool_calls content_filter"),
    ],
)
def test_the_words_of_an_ending_are_pinned(kind: Any, words: str) -> None:
    assert [member.value for member in kind] == words.split()


@pytest.mark.parametrize("event", [event for event, _ in PINNED], ids=_name)
def test_events_cannot_be_changed(event: Event) -> None:
    field = event.__struct_fields__[0] if event.__struct_fields__ else "text"
    with pytest.raises(AttributeError):
        setattr(event, field, "other")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"null",
        b"[]",
        b'{"type":"text-delta"}',
        b'{"type":"text-delta","text":1}',
        b'{"type":"no-such-event"}',
        b'{"type":"run-end","outcome":"won"}',
        b'{"type":"text-delta","text":"a","marks":[[1,2]]}',
        b'{"type":"text-delta","text":"a"',
        b'{"type":"text-delta","text":"\xff"}',
    ],
)
def test_anything_else_is_not_an_event(data: bytes) -> None:
    # Invalid UTF-8 is the one thing for which msgspec has no error of its own.
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        decode(data)


def test_members_of_a_later_release_are_skipped() -> None:
    assert decode(b'{"type":"text-delta","text":"a","colour":"red"}') == TextDelta("a")


def test_an_event_never_has_a_raw_line_end_in_its_json() -> None:
    for event, _ in PINNED:
        assert not set(encode(event)) & set(b"\n\r\0")


def test_a_score_that_is_no_number_is_written_as_none() -> None:
    reference = Reference(1, score=float("nan"))
    assert decode(encode(References((reference,)))) == References((Reference(1),))


# ------------------------------------------------------------------------------ log


def _entries(first_seq: int, events: list[Event]) -> list[Entry]:
    return [Entry(seq, event, encode(event)) for seq, event in enumerate(events, first_seq)]


def test_a_log_is_one_line_per_entry() -> None:
    entries = _entries(1, [TextDelta("a\nb"), Step("c")])
    assert join_log(entries) == (
        b'{"type":"text-delta","text":"a\\nb"}\n{"type":"step","label":"c"}\n'
    )


@pytest.mark.parametrize("first_seq", [1, 2, 1_000_000])
def test_splitting_a_log_undoes_joining_it(first_seq: int) -> None:
    entries = _entries(first_seq, [event for event, _ in PINNED])
    assert split_log(join_log(entries), first_seq) == entries


def test_splitting_keeps_the_bytes_as_they_are() -> None:
    """A later release may write an event otherwise; what was stored goes out as it was."""
    line = b'{"text":"a","type":"text-delta","later":1}'
    (entry,) = split_log(line + b"\n", 7)
    assert (entry.seq, entry.data, entry.event) == (7, line, TextDelta("a"))


def test_joined_logs_can_be_put_one_behind_the_other() -> None:
    entries = _entries(1, [event for event, _ in PINNED])
    for cut in range(len(entries) + 1):
        assert split_log(join_log(entries[:cut]) + join_log(entries[cut:]), 1) == entries


def test_an_empty_log_has_no_entries() -> None:
    assert join_log([]) == b""
    assert split_log(b"", 1) == []


def test_a_damaged_line_raises_instead_of_being_skipped() -> None:
    with pytest.raises(msgspec.MsgspecError):
        split_log(b'{"type":"step","label":"a"}\nrubbish\n', 1)
