"""The promises, checked on what a round left behind.

The evidence comes from outside: the bytes that clients wrote down, the log of the upstream, the
database file at every kill and at the end, and what the restarted server says over HTTP.
"""

import json
from collections.abc import Iterator
from typing import Any

from holdfast.engine.fold import Answer, fold
from holdfast.events import decode, encode
from tests.faults.database import StoredRun
from tests.faults.evidence import Evidence, Kill, Violation
from tests.faults.points import POINTS
from tests.faults.script import HELD, OUTCOMES, name_of, script_of
from tests.faults.wire import Frame, frame_bytes, read_frames, stored_frame

RECOVERY_S = 10.0
"""By then no message of the dead server may be `streaming`."""
IN_FLIGHT = 20


def check(evidence: Evidence) -> list[Violation]:
    """All violations."""
    found: list[Violation] = []
    for promise, checks in _CHECKS:
        found += [Violation(promise, text) for text in checks(evidence)]
    return found


# ---------------------------------------------------------------------- the round itself


def _round(evidence: Evidence) -> Iterator[str]:
    """That the round was hard enough to prove anything, and that the kill was where it says."""
    live = len(evidence.at_kill.live)
    if live < IN_FLIGHT:
        yield f"only {live} runs were in flight"
    if not any(asked.before and asked.before.frames for asked in evidence.clients):
        yield "no client saw an event"
    if not any(b'"cursor"' in response.body for response in evidence.watched):
        yield "nobody looked at a run that was being written"
    for kill in evidence.kills:
        if kill.point is not None:
            yield from _phase(kill, evidence)
    if evidence.exit_code != 0:
        yield f"the server ended with {evidence.exit_code} after SIGTERM"
    for path in evidence.logs:
        text = path.read_text(errors="replace")
        if "Traceback" in text or " ERROR " in text:
            yield f"{path.name} has errors"


def _phase(kill: Kill, evidence: Evidence) -> Iterator[str]:
    """What the dead server says it was writing must be stored, or not, as the point has it."""
    assert kill.point is not None
    if kill.record is None:
        yield f"the server died elsewhere than at {kill.point}"
        return
    for write in kill.record["writes"]:
        if write["kind"] not in ("create", "append", "finish"):
            continue
        run = kill.image.runs.get(write["run_id"])
        last = len(run.log) if run is not None else 0
        if (last >= write["seq"]) != POINTS[kill.point].stored:
            yield f"at {kill.point} the stored log ends at {last}, the write at {write['seq']}"
    withheld = [kill.record["hint"]] if kill.record["hint"] else kill.record["writes"]
    if kill is evidence.kills[0] and POINTS[kill.point].stored:
        streams = [asked.before for asked in evidence.clients if asked.before is not None]
        seen = {frame.id for stream in streams for frame in stream.frames}
        for write in withheld:
            if f"{write['run_id']}.{write['seq']}".encode() in seen:
                yield f"at {kill.point} a client had event {write['seq']} already"


# ---------------------------------------------------------------------- the promises


def _p1_ask_first(evidence: Evidence) -> Iterator[str]:
    for asked in evidence.clients:
        answered = asked.before is not None and asked.before.response.status == 200
        if answered and asked.text not in evidence.at_kill.by_question:
            yield f"{asked.name} was answered, but its question was not stored"
    for log, image in (
        (evidence.upstream_at_kill, evidence.at_kill),
        (evidence.upstream, evidence.final),
    ):
        questions = map(image.question, image.runs.values())
        stored = {name_of(question) for question in questions if question is not None}
        for name in log.asked.keys() - stored:
            yield f"the upstream was asked {name}, but the question was not stored"


def _p2_write_ahead(evidence: Evidence) -> Iterator[str]:
    for asked in evidence.clients:
        run = evidence.at_kill.by_question.get(asked.text)
        if asked.before is not None:
            stored = stored_frames(run) if run is not None else []
            yield from prefix(asked.name, asked.before.frames, asked.before.tail, stored)
    for earlier, later in zip(
        [kill.image for kill in evidence.kills],
        [*[kill.image for kill in evidence.kills[1:]], evidence.final],
        strict=True,
    ):
        for run_id, run in earlier.runs.items():
            yield from _grown(run_id, run, later.runs.get(run_id))
    yield from _p2_watched(evidence)


def stored_frames(run: StoredRun) -> list[Frame]:
    """The events of a stored log as they must be on the wire."""
    return [stored_frame(run.row["id"], seq, line) for seq, line in enumerate(run.log, 1)]


def prefix(name: str, seen: list[Frame], tail: bytes, stored: list[Frame]) -> Iterator[str]:
    """What a client saw, a cut last event included, is a prefix of what was stored."""
    if len(seen) > len(stored):
        yield f"{name} saw {len(seen)} events, {len(stored)} were stored"
    for place, (one, other) in enumerate(zip(seen, stored, strict=False), 1):
        if one != other:
            yield f"{name} saw event {place} as {one}, stored is {other}"
            return
    expected = frame_bytes(stored[len(seen)]) if len(seen) < len(stored) else b""
    if tail and not expected.startswith(tail) and not tail.startswith(b":"):
        yield f"{name} saw the beginning of an event that was not stored: {tail!r}"


def _grown(run_id: str, before: StoredRun, after: StoredRun | None) -> Iterator[str]:
    """A stored log never changes; recovery adds the ending and nothing else."""
    if after is None or after.log[: len(before.log)] != before.log:
        yield f"the stored log of {run_id} changed"
    elif len(after.log) - len(before.log) not in ((0,) if before.ended else (0, 1)):
        yield f"the log of {run_id} grew from {len(before.log)} to {len(after.log)} events"


def _p2_watched(evidence: Evidence) -> Iterator[str]:
    """Snapshots and lists show what is stored, too."""
    for response in evidence.watched:
        if not response.whole or response.status != 200:
            continue
        body = response.json
        if "run" in body:
            yield from _shown_run(evidence, body)
        for message in body.get("items", ()):
            if "role" in message:
                yield from _shown_message(evidence, message)


def _shown_run(evidence: Evidence, body: dict[str, Any]) -> Iterator[str]:
    run_id, _, seq = body["run"]["cursor"].partition(".")
    run = evidence.at_kill.runs.get(run_id)
    if run is None or len(run.log) < int(seq):
        yield f"a snapshot shows run {run_id} up to {seq}, which was not stored"
        return
    answer = fold(map(decode, run.log[: int(seq)]))
    shown = body["message"]
    if (shown["content"], shown["references"]) != (answer.text, _plain(answer.references)):
        yield f"the snapshot of run {run_id} at {seq} is not the fold of its events"


def _shown_message(evidence: Evidence, message: dict[str, Any]) -> Iterator[str]:
    stored = evidence.at_kill.messages.get(message["id"])
    if stored is None:
        yield f"a list shows the message {message['id']}, which was not stored"
        return
    run = evidence.at_kill.runs.get(message["run_id"])
    text = run.text if run is not None else stored["content"]
    sets = [[]] if run is None else [[], *reference_sets(run)]
    if not text.startswith(message["content"]) or message["references"] not in sets:
        yield f"a list shows more of the message {message['id']} than was stored"


def _p3_one_ending(evidence: Evidence) -> Iterator[str]:
    final = evidence.final
    took = evidence.streaming_s
    if took > RECOVERY_S:
        yield f"messages were streaming {took:.1f} s after the restart"
    for kill in evidence.kills:
        for run in kill.image.runs.values():
            yield from (f"at the kill, run {run.row['id']}: {fault}" for fault in run.faults)
    for run_id, run in final.runs.items():
        yield from (f"run {run_id}: {fault}" for fault in run.faults)
        types = [json.loads(line)["type"] for line in run.log]
        if types.count("run-end") != 1 or types[-1] != "run-end" or not run.ended:
            yield f"run {run_id} is {run.row['status']} and has {types.count('run-end')} endings"
        elif types[0] != "run-start":
            yield f"run {run_id} begins with {types[0]}"
        else:
            yield from _one_message(evidence, run)
            yield from _outcome(evidence, run)
    for message in final.messages.values():
        if message["status"] == "streaming":
            yield f"the message {message['id']} is streaming"
    if final.journal_rows:
        yield f"no run is live, but the journal has {final.journal_rows} rows"


def _one_message(evidence: Evidence, run: StoredRun) -> Iterator[str]:
    """The message is the fold of the log, in the file and over HTTP."""
    run_id = run.row["id"]
    answer = fold(map(decode, run.log))
    row = evidence.final.messages.get(run.row["message_id"])
    if row is None:
        yield f"run {run_id} has no message"
        return
    expected = message_row(answer)
    stored = {name: row[name] for name in expected}
    if stored != expected:
        yield f"run {run_id}: the message is {stored}, the fold of its log {expected}"
    shown = evidence.runs.get(run_id, {}).get("message", {})
    if any(shown.get(name) != value for name, value in message_shape(answer).items()):
        yield f"run {run_id}: over HTTP the message is {shown}, the fold {message_shape(answer)}"
    listed = evidence.messages.get(run.row["session_id"], {}).get("items", [])
    if shown not in listed:
        yield f"run {run_id}: its message is not in the session's list"
    if not any(one["id"] == run.row["question_id"] for one in listed):
        yield f"run {run_id}: its question is not in the session's list"


def message_row(answer: Answer) -> dict[str, Any]:
    end = answer.end
    assert end is not None
    return {
        "status": answer.status.value,
        "content": answer.text,
        "reasoning": answer.reasoning or None,
        "outcome": end.outcome.value,
        "reason": end.reason.value if end.reason else None,
        "error": end.error,
        "marks": _text(answer.marks),
        "usage": _text(answer.usage),
    }


def _text(value: Any) -> str | None:
    return encode(value).decode() if value else None


def message_shape(answer: Answer) -> dict[str, Any]:
    end = answer.end
    assert end is not None
    return {
        "status": answer.status.value,
        "content": answer.text,
        "marks": _plain(answer.marks),
        "references": _plain(answer.references),
        "outcome": end.outcome.value,
        "reason": end.reason.value if end.reason else None,
    }


def _plain(value: Any) -> Any:
    return json.loads(encode(value))


def _outcome(evidence: Evidence, run: StoredRun) -> Iterator[str]:
    """How a run ended, and what it says, follows from its question and from the kill."""
    run_id = run.row["id"]
    question = evidence.final.question(run)
    if question is None:
        yield f"run {run_id} has no question"
        return
    script = script_of(question)
    ended = (run.row["outcome"], run.row["reason"])
    before = evidence.at_kill.runs.get(run_id)
    if before is not None and not before.ended:
        if ended != ("interrupted" if before.text else "failed", "server_crash"):
            yield f"run {run_id} was live when the server died, and ended as {ended}"
        if not script.text.startswith(run.text):
            yield f"run {run_id} has a text that the upstream did not send"
    elif ended != OUTCOMES.get(script.kind, ("completed", None)):
        yield f"run {run_id}, of kind {script.kind}, ended as {ended}"
    elif run.text != script.text:
        yield f"run {run_id} has another text than the upstream sent"


def _p4_references(evidence: Evidence) -> Iterator[str]:
    """References are those of the log's last set: in the file, over HTTP, and expected at all."""
    interrupted = 0
    for run_id, run in evidence.final.runs.items():
        sets = reference_sets(run)
        expected = sets[-1] if sets else []
        interrupted += bool(expected) and run.row["reason"] == "server_crash"
        shown = evidence.runs.get(run_id, {}).get("message", {}).get("references")
        if shown != expected:
            yield f"run {run_id}: over HTTP the references are {shown}, the log has {expected}"
        names = ("ordinal", "text", "chunk_id", "document_id", "document_name", "url", "score")
        rows = evidence.final.references.get(run.row["message_id"], [])
        stored = [{name: row[name] for name in names} for row in rows]
        if stored != [{name: one.get(name) for name in names} for one in expected]:
            yield f"run {run_id}: stored are the references {stored}, the log has {expected}"
        yield from _scripted_references(evidence, run, sets)
    if not interrupted:
        yield "no answer that the kill cut off has references"


def _scripted_references(
    evidence: Evidence, run: StoredRun, sets: list[list[dict[str, Any]]]
) -> Iterator[str]:
    """The log has the sets that the upstream sent; all of them if the answer is complete."""
    question = evidence.final.question(run)
    sent = script_of(question).references if question is not None else ()
    stored = tuple(len(one) for one in sets)
    if stored != (sent if run.row["outcome"] == "completed" else sent[: len(stored)]):
        yield f"run {run.row['id']} has {stored} references, the upstream sent {sent}"


def reference_sets(run: StoredRun) -> list[list[dict[str, Any]]]:
    events = map(json.loads, run.log)
    return [event["references"] for event in events if event["type"] == "references"]


def _p5_resume(evidence: Evidence) -> Iterator[str]:
    resumed = 0
    for asked in evidence.clients:
        run = evidence.final.by_question.get(asked.text)
        if run is None or not asked.resumed:
            continue
        resumed += 1
        if asked.frames != stored_frames(run):
            parts = [len(stream.frames) for stream in asked.streams]
            yield f"{asked.name} got {parts} events, the log has {len(run.log)}, or they differ"
    if not resumed:
        yield "no client resumed"
    for run_id, run in evidence.final.runs.items():
        if read_frames(evidence.streams[run_id].body) != (stored_frames(run), b""):
            yield f"run {run_id}: over HTTP its events are not those stored"


def _p7_ask_once(evidence: Evidence) -> Iterator[str]:
    for name, times in evidence.upstream.asked.items():
        if times > 1:
            yield f"the upstream was asked {name} {times} times"
    for asked in evidence.clients:
        run = evidence.final.by_question.get(asked.text)
        answer = evidence.again[asked.name]
        if run is None or answer.status != 200:
            yield f"{asked.name}, asked again, is answered with {answer.status}"
            continue
        if read_frames(answer.body) != (stored_frames(run), b""):
            yield f"{asked.name}, asked again, is not the same answer"


_CHECKS = (
    ("round", _round),
    ("P1", _p1_ask_first),
    ("P2", _p2_write_ahead),
    ("P3", _p3_one_ending),
    ("P4", _p4_references),
    ("P5", _p5_resume),
    ("P7", _p7_ask_once),
)


def ahead(evidence: Evidence) -> int:
    """How many runs the upstream had sent more of than was committed when the kill came."""
    count = 0
    for run in evidence.at_kill.live:
        question = evidence.at_kill.question(run)
        if question is not None and script_of(question).kind in HELD:
            sent = evidence.upstream_at_kill.sent_text(name_of(question), question)
            count += len(sent) > len(run.text)
    return count
