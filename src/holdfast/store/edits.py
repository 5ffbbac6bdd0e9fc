"""The writes of the port that are rare, as plain functions: statements that run one by one.

They hold for every database; an implementation of the port only decides how a statement is run.
Each looks first and writes then, so one that is refused has written nothing.
"""

from typing import Any, TypeAlias, assert_never

from holdfast.engine.run import Status
from holdfast.errors import Conflict, NotFound
from holdfast.events import Reference
from holdfast.store import statements as sql
from holdfast.store.driver import Driver
from holdfast.store.port import (
    CompleteMessage,
    CreateKey,
    CreateSession,
    Remember,
    RequestCancel,
    RevokeKey,
    SetFeedback,
    UpdateSession,
)
from holdfast.store.rows import (
    Row,
    from_json,
    key_row,
    reference_record,
    reference_row,
    session_row,
    to_json,
)

Edit: TypeAlias = (
    RequestCancel
    | CreateSession
    | UpdateSession
    | Remember
    | SetFeedback
    | CompleteMessage
    | CreateKey
    | RevokeKey
)

COMPLETED_BY = "completed_by"
EARLY_END = frozenset({"partial", "reason", "error"})
CLIENT = "client"

CLOSED = {
    Status.STREAMING: "the answer is still being written",
    Status.COMPLETE: "the answer is complete as it is",
    Status.FAILED: "nothing of this answer had arrived that could be completed",
}
"""Why an answer in this state cannot be completed."""


def apply(driver: Driver, edit: Edit) -> None:
    """Apply one write; raises what its class lists as refusals."""
    match edit:
        case RequestCancel(run_id):
            driver.change(sql.REQUEST_CANCEL, {"p_id": run_id})
        case CreateSession(session):
            driver.change(sql.INSERT_SESSION, session_row(session))
        case UpdateSession():
            _update_session(driver, edit)
        case Remember():
            _remember(driver, edit)
        case SetFeedback():
            _set_feedback(driver, edit)
        case CompleteMessage():
            _complete_message(driver, edit)
        case CreateKey(key):
            driver.change(sql.INSERT_KEY, key_row(key))
        case RevokeKey(key_id, revoked_at):
            revoked = {"p_id": key_id, "p_revoked_at": revoked_at}
            if not driver.change(sql.REVOKE_KEY, revoked):
                raise NotFound("there is no such key")
        case _:
            assert_never(edit)


def _update_session(driver: Driver, edit: UpdateSession) -> None:
    values = {
        "p_id": edit.session_id,
        "p_owner": edit.owner,
        "p_updated_at": edit.updated_at,
        "p_title": edit.title,
        "p_metadata": to_json(edit.metadata),
    }
    if not driver.change(sql.UPDATE_SESSION, values):
        raise NotFound("there is no such session")


def _remember(driver: Driver, edit: Remember) -> None:
    values = {
        "p_session_id": edit.session_id,
        "p_upstream": edit.upstream,
        "p_conversation": edit.conversation,
    }
    if not driver.change(sql.UPDATE_CONVERSATION, values):
        driver.change(sql.INSERT_CONVERSATION, values)


# ---------------------------------------------------------------------------- answers


def _set_feedback(driver: Driver, edit: SetFeedback) -> None:
    message = _own_message(driver, edit.owner, edit.message_id)
    if message["role"] != "assistant":
        ids = {"session_id": message["session_id"], "message_id": edit.message_id}
        raise Conflict("feedback is for answers, and this is a question", **ids)
    values = {"p_id": edit.message_id, "p_feedback": to_json(edit.feedback)}
    driver.change(sql.SET_FEEDBACK, values)


def _complete_message(driver: Driver, edit: CompleteMessage) -> None:
    message = _own_message(driver, edit.owner, edit.message_id, edit.session_id)
    if message["role"] != "assistant":
        raise Conflict("an answer can be completed, and this is a question")
    metadata = from_json(message["metadata"], dict, {})
    status = Status(message["status"])
    if status is Status.COMPLETE and metadata.get(COMPLETED_BY) == CLIENT:
        if _is_repeated(driver, edit, message["content"]):
            return
        raise Conflict("the answer was completed before, with other content")
    if status is Status.COMPLETE and edit.text == message["content"]:
        return  # what the upstream said is what the client has
    if status is not Status.PARTIAL:
        raise Conflict(CLOSED[status])
    if not edit.text.startswith(message["content"]):
        raise Conflict("the text does not begin with what is stored of the answer")
    values = {
        "p_id": edit.message_id,
        "p_content": edit.text,
        "p_metadata": to_json(_without_early_end(metadata) | {COMPLETED_BY: CLIENT}),
        "p_completed_at": edit.completed_at,
    }
    driver.change(sql.COMPLETE_MESSAGE, values)
    if edit.references is not None:
        _replace_references(driver, edit.message_id, edit.references)


def _without_early_end(metadata: dict[str, Any]) -> dict[str, Any]:
    """What the metadata say besides that the answer ended early; its outcome still tells that."""
    return {name: value for name, value in metadata.items() if name not in EARLY_END}


def _own_message(driver: Driver, owner: str, message_id: str, session_id: str | None = None) -> Row:
    found = driver.rows(sql.OWN_MESSAGE, {"p_id": message_id, "p_owner": owner})
    if not found or session_id not in (None, found[0]["session_id"]):
        raise NotFound("there is no such message")
    return found[0]


def _is_repeated(driver: Driver, edit: CompleteMessage, content: str) -> bool:
    if edit.text != content:
        return False
    if edit.references is None:
        return True
    stored = driver.rows(sql.REFERENCES_OF_MESSAGE, {"p_message_id": edit.message_id})
    given = _reference_rows(edit.message_id, edit.references)
    return [reference_record(row) for row in stored] == [reference_record(row) for row in given]


def _replace_references(driver: Driver, message_id: str, references: tuple[Reference, ...]) -> None:
    driver.change(sql.DELETE_REFERENCES, {"p_message_id": message_id})
    driver.change_many(sql.INSERT_REFERENCE, _reference_rows(message_id, references))


def _reference_rows(message_id: str, references: tuple[Reference, ...]) -> list[dict[str, Any]]:
    return [reference_row(message_id, place, item) for place, item in enumerate(references)]
