"""The writes of the port that begin and end a run, as plain functions on a driver.

They hold for every database. Each looks first and writes then, so one that is refused has
written nothing.
"""

from typing import Any

from holdfast.errors import IdempotencyMismatch, NotFound, RunActive
from holdfast.store import statements as sql
from holdfast.store.driver import Driver
from holdfast.store.port import Append, CreateRun, DeleteSession, FinishRun, RunCreated, RunRecord
from holdfast.store.rows import finish_rows, run_record, run_row, session_row, to_json


def create_run(driver: Driver, write: CreateRun) -> RunCreated:
    """See `CreateRun`; raises its refusals."""
    run = write.run
    if run.idempotency_key is not None:
        earlier = _earlier_run(driver, run)
        if earlier is not None:
            return RunCreated(earlier, replayed=True)
    if write.question is None and not _has_question(driver, run):
        raise NotFound("there is no such question")
    if write.session is not None:
        driver.change(sql.INSERT_SESSION, session_row(write.session))
    else:
        _check_session(driver, run)
        if write.retire_from is not None:
            turns = {"p_session_id": run.session_id, "p_turn_id": write.retire_from}
            driver.change(sql.RETIRE_TURNS, turns)
            # Upstreams that keep conversations know those turns: they are given new ones.
            driver.change(sql.FORGET_CONVERSATIONS, {"p_session_id": run.session_id})
    _insert_messages(driver, write)
    driver.change(sql.INSERT_RUN, {**run_row(run), **driver.node})
    driver.append(Append(run.id, 1, 1, write.start + b"\n"))
    if write.session is None:
        touched = {"p_id": run.session_id, "p_updated_at": run.created_at, "p_title": write.title}
        driver.change(sql.TOUCH_SESSION, touched)
    return RunCreated(run, replayed=False)


def _check_session(driver: Driver, run: RunRecord) -> None:
    if not driver.rows(sql.OWN_SESSION, {"p_id": run.session_id, "p_owner": run.owner}):
        raise NotFound("there is no such session")
    live = driver.rows(sql.LIVE_RUN, {"p_session_id": run.session_id})
    if live:
        raise RunActive(
            "the session's last answer is still being written",
            session_id=run.session_id,
            run_id=live[0]["id"],
        )


def _earlier_run(driver: Driver, run: RunRecord) -> RunRecord | None:
    key = {"p_owner": run.owner, "p_idempotency_key": run.idempotency_key}
    rows = driver.rows(sql.RUN_BY_KEY, key)
    if not rows:
        return None
    earlier = run_record(rows[0])
    if earlier.fingerprint != run.fingerprint:
        raise IdempotencyMismatch(
            "this Idempotency-Key was used with another request",
            session_id=earlier.session_id,
            message_id=earlier.message_id,
            run_id=earlier.id,
        )
    return earlier


def _has_question(driver: Driver, run: RunRecord) -> bool:
    question = {"p_id": run.question_id, "p_session_id": run.session_id}
    return bool(driver.rows(sql.OWN_QUESTION, question))


def _insert_messages(driver: Driver, write: CreateRun) -> None:
    run = write.run
    shared: dict[str, Any] = {
        "session_id": run.session_id,
        "turn_id": run.question_id,
        "active": True,
        "version": 1,
        "created_at": run.created_at,
    }
    if write.question is not None:
        question = {
            "id": run.question_id,
            "role": "user",
            "status": "complete",
            "content": write.question,
            "metadata": to_json(write.metadata),
            "completed_at": run.created_at,
        }
        driver.change(sql.INSERT_MESSAGE, shared | question)
    else:
        shared["version"] = _retire_versions(driver, run)
    answer = {
        "id": run.message_id,
        "role": "assistant",
        "status": "streaming",
        "content": "",
        "run_id": run.id,
        "upstream": run.upstream,
        "model": run.model,
    }
    driver.change(sql.INSERT_MESSAGE, shared | answer)


def _retire_versions(driver: Driver, run: RunRecord) -> int:
    turn = {"p_session_id": run.session_id, "p_turn_id": run.question_id}
    version: int = driver.rows(sql.NEXT_VERSION, turn)[0]["version"]
    driver.change(sql.RETIRE_VERSIONS, turn)
    return version


def finish_run(driver: Driver, write: FinishRun) -> bool:
    """See `FinishRun`."""
    run, message, references = finish_rows(write)
    if driver.change(sql.END_RUN, run) == 0:
        return False
    log = write.log
    if log is None:
        log = driver.stored_log(write.run_id) + write.append.payload
    row = {"run_id": write.run_id, "last_seq": write.append.last_seq, "payload": driver.pack(log)}
    driver.change(sql.INSERT_LOG, row)
    driver.change(sql.END_MESSAGE, message)
    if references:
        driver.change_many(sql.INSERT_REFERENCE, references)
    driver.forget_journal(write.run_id)
    return True


def delete_session(driver: Driver, write: DeleteSession) -> None:
    """See `DeleteSession`; raises its refusal."""
    runs = driver.rows(sql.SESSION_RUNS, {"p_session_id": write.session_id})
    session = {"p_id": write.session_id, "p_owner": write.owner}
    if driver.change(sql.DELETE_SESSION, session) == 0:
        raise NotFound("there is no such session")
    for run in runs:
        driver.forget_journal(run["id"])
