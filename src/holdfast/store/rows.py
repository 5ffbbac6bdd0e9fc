"""Records to rows and back."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from holdfast.engine.fold import Answer, ToolCallSoFar
from holdfast.engine.run import Status
from holdfast.events import Mark, Outcome, Reason, Reference, RunEnd, Usage, encode
from holdfast.store.port import FinishRun, KeyRecord, MessageRecord, RunRecord, SessionRecord

Row = Mapping[str, Any]
T = TypeVar("T")


def to_json(value: Any) -> str | None:
    """JSON text for a column, None for nothing."""
    return None if value is None else encode(value).decode()


def from_json(text: str | None, kind: type[T], default: T) -> T:
    """The value of a JSON column."""
    return msgspec.json.decode(text, type=kind) if text else default


def session_row(session: SessionRecord) -> dict[str, Any]:
    """A row of `sessions`."""
    row = msgspec.structs.asdict(session)
    row["metadata"] = to_json(session.metadata)
    return row


def session_record(row: Row) -> SessionRecord:
    """A row of `sessions` with its `live_run_id`."""
    return SessionRecord(**{**row, "metadata": from_json(row["metadata"], dict, None)})


def key_row(key: KeyRecord) -> dict[str, Any]:
    """A row of `api_keys`."""
    return msgspec.structs.asdict(key) | {"scopes": to_json(key.scopes)}


def key_record(row: Row) -> KeyRecord:
    """A row of `api_keys`."""
    return KeyRecord(**{**row, "scopes": from_json(row["scopes"], tuple[str, ...], ())})


def run_row(run: RunRecord) -> dict[str, Any]:
    """A row of `runs`, but for what the store adds."""
    return {name: getattr(run, name) for name in RunRecord.__struct_fields__}


def run_record(row: Row) -> RunRecord:
    """A row of `runs`; columns that the record does not have are left out."""
    return RunRecord(**{name: row[name] for name in RunRecord.__struct_fields__})


def finish_rows(write: FinishRun) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """The parameters that end a run: for `runs`, `messages` and `message_references`."""
    answer, end = write.answer, write.answer.end
    assert end is not None  # the runner folds run-end before it finishes
    shared = {
        "p_outcome": end.outcome.value,
        "p_reason": end.reason.value if end.reason else None,
        "p_error": end.error,
        "p_upstream": answer.upstream,
        "p_model": answer.model,
    }
    run = shared | {
        "p_id": write.run_id,
        "p_last_seq": write.append.last_seq,
        "p_request": kept(write.request),
        "p_response": kept(write.response),
        "p_ended_at": write.ended_at,
    }
    message = shared | {
        "p_id": write.message_id,
        "p_status": answer.status.value,
        "p_content": answer.text,
        "p_marks": to_json(answer.marks or None),
        "p_reasoning": answer.reasoning or None,
        "p_tool_calls": to_json(answer.tool_calls or None),
        "p_usage": to_json(answer.usage),
        "p_metadata": to_json(write.metadata),
        "p_completed_at": write.ended_at,
    }
    references = [
        reference_row(write.message_id, place, reference)
        for place, reference in enumerate(answer.references)
    ]
    return run, message, references


def kept(exchanged: Any) -> str | None:
    """What was said on the wire; it is for debugging, and must not cost an answer."""
    try:
        return to_json(exchanged)
    except (TypeError, ValueError) as error:
        return to_json({"not_kept": str(error).encode("utf-8", "replace").decode()})


def reference_row(message_id: str, place: int, reference: Reference) -> dict[str, Any]:
    """A row of `message_references`."""
    row = msgspec.structs.asdict(reference)
    row["positions"] = to_json(reference.positions)
    row["extra"] = to_json(reference.extra)
    return row | {"message_id": message_id, "place": place}


def reference_record(row: Row) -> Reference:
    """A row of `message_references`."""
    values = {name: row[name] for name in Reference.__struct_fields__}
    values["positions"] = from_json(row["positions"], list, None)
    values["extra"] = from_json(row["extra"], dict, None)
    return Reference(**values)


def message_record(
    row: Row, references: tuple[Reference, ...], versions: tuple[str, ...]
) -> MessageRecord:
    """A row of `messages` with what belongs to it."""
    outcome, reason = row["outcome"], row["reason"]
    answer = Answer(
        text=row["content"],
        marks=from_json(row["marks"], tuple[Mark, ...], ()),
        reasoning=row["reasoning"] or "",
        references=references,
        tool_calls=from_json(row["tool_calls"], tuple[ToolCallSoFar, ...], ()),
        usage=msgspec.json.decode(row["usage"], type=Usage) if row["usage"] else None,
        upstream=row["upstream"],
        model=row["model"],
        arrived=row["status"] in (Status.PARTIAL, Status.COMPLETE),
        end=RunEnd(Outcome(outcome), Reason(reason) if reason else None, None, row["error"])
        if outcome
        else None,
    )
    names = set(MessageRecord.__struct_fields__) & set(row)
    values = {name: row[name] for name in names}
    values["feedback"] = from_json(row["feedback"], dict, None)
    values["metadata"] = from_json(row["metadata"], dict, None)
    return MessageRecord(**values, answer=answer, versions=versions)
