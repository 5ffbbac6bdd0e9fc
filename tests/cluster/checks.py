"""The promises, checked on what a round left behind.

The evidence comes from outside: the bytes that clients wrote down, the log of the upstream, the
tables in the middle of the round and at its end, and what the nodes say over HTTP when all is well
again.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from holdfast.engine.fold import fold
from holdfast.events import decode
from tests.cluster.evidence import Evidence, Glimpse
from tests.cluster.faults import Fenced, HintsLost
from tests.cluster.tables import claim_of
from tests.faults.checks import message_row, message_shape, prefix, reference_sets, stored_frames
from tests.faults.database import Image, StoredRun
from tests.faults.evidence import Violation
from tests.faults.script import OUTCOMES, name_of, script_of
from tests.faults.wire import read_frames

IN_FLIGHT: Final = 8
ROUGHLY_MS: Final = 2_000
CRASHED: Final = frozenset({"server_crash", "storage_error"})
"""Why answers may end early when a node loses its claim or the database."""


def check(evidence: Evidence) -> list[Violation]:
    """All violations."""
    found: list[Violation] = []
    for promise, checks in _CHECKS:
        found += [Violation(promise, text) for text in checks(evidence)]
    return found


# ---------------------------------------------------------------------- the round itself


def _round(evidence: Evidence) -> Iterator[str]:
    """That the round was hard enough to prove anything, and that nothing odd was seen in it."""
    live = evidence.glimpses[0].snapshot.image.live
    owners = {run.row["node_id"] for run in live}
    if len(live) < IN_FLIGHT or len(owners) < 3:
        yield f"only {len(live)} runs were in flight, at {len(owners)} nodes"
    moved = any(len(set(reader.ports)) > 1 for reader in evidence.clients)
    if evidence.plan.rolling and not moved:
        yield "no client went to another node"
    lost = any(HintsLost in act for act in evidence.plan.acts)
    if lost != bool(evidence.swallowed) or not evidence.passed:
        yield f"{evidence.passed} hints arrived, {evidence.swallowed} were lost"
    if any(evidence.exit_codes):
        yield f"nodes ended with {evidence.exit_codes} after SIGTERM"
    for path in evidence.logs:
        if path.exists() and "Traceback" in path.read_text(errors="replace"):
            yield f"{path} has a traceback"
    for reader in evidence.clients:
        for refusal in reader.refusals:
            yield f"{reader.name} was told {refusal}"


def _clocks(evidence: Evidence) -> Iterator[str]:
    """The nodes' clocks are hours apart, and nothing that is stored shows it."""
    image = evidence.final.image
    earliest, latest = (1000 * second for second in evidence.span)
    for run_id, run in image.runs.items():
        begun, ended = run.row["created_at"], run.row["ended_at"]
        if not earliest - ROUGHLY_MS <= begun <= (ended or latest) <= latest + ROUGHLY_MS:
            yield f"run {run_id} lasted from {begun} to {ended}, the round from {earliest}"
    for session, messages in evidence.messages.items():
        names = [name_of(one["content"]) for one in messages if one["role"] == "user"]
        if names != sorted(names, key=lambda name: int(name.partition(".")[2])):
            yield f"the questions of session {session} are in the order {names}"


# ---------------------------------------------------------------------- the promises


def _p1_ask_first(evidence: Evidence) -> Iterator[str]:
    for glimpse in evidence.glimpses:
        asked = glimpse.snapshot.image.by_question
        for reader in glimpse.clients:
            if reader.text is not None and reader.run_id is not None and reader.text not in asked:
                yield f"{glimpse.when}: {reader.name} was answered, its question was not stored"
    image = evidence.final.image
    stored = {
        name_of(question) for question in map(image.question, image.runs.values()) if question
    }
    for name in evidence.upstream.asked.keys() - stored:
        yield f"the upstream was asked {name}, but the question is not stored"


def _p2_write_ahead(evidence: Evidence) -> Iterator[str]:
    final = Glimpse("at the end", evidence.clients, evidence.final)
    glimpses = [*evidence.glimpses, final]
    for glimpse in glimpses:
        yield from (f"{glimpse.when}: {fault}" for fault in _seen_is_stored(glimpse))
    for earlier, later in pairwise(glimpses):
        for run_id, run in earlier.snapshot.image.runs.items():
            after = later.snapshot.image.runs.get(run_id)
            if after is None or after.log[: len(run.log)] != run.log:
                yield f"the stored log of {run_id} changed between {earlier.when} and {later.when}"
            elif run.ended and (after.row, after.log) != (run.row, run.log):
                yield f"the ended run {run_id} changed between {earlier.when} and {later.when}"


def _seen_is_stored(glimpse: Glimpse) -> Iterator[str]:
    runs = glimpse.snapshot.image.runs
    for reader in glimpse.clients:
        if len(reader.run_ids) > 1:
            yield f"{reader.name} had events of the runs {sorted(reader.run_ids)}"
        for run_id in reader.run_ids:
            stored = stored_frames(runs[run_id]) if run_id in runs else []
            yield from prefix(reader.name, reader.frames, b"", stored)


def _p3_one_ending(evidence: Evidence) -> Iterator[str]:
    final = evidence.final
    for glimpse in evidence.glimpses:
        for run in glimpse.snapshot.image.runs.values():
            yield from (f"{glimpse.when}, run {run.row['id']}: {fault}" for fault in run.faults)
    for run_id, run in final.image.runs.items():
        yield from (f"run {run_id}: {fault}" for fault in run.faults)
        types = [json.loads(line)["type"] for line in run.log]
        if types.count("run-end") != 1 or types[-1] != "run-end" or not run.ended:
            yield f"run {run_id} is {run.row['status']} and has {types.count('run-end')} endings"
        elif types[0] != "run-start":
            yield f"run {run_id} begins with {types[0]}"
        else:
            yield from _message(evidence, run)
            yield from _outcome(evidence, run)
    for message in final.image.messages.values():
        if message["status"] == "streaming":
            yield f"the message {message['id']} is streaming"
    ended = {run_id for run_id, run in final.image.runs.items() if run.ended}
    rows = Counter(row["run_id"] for row in final.journal_rows if row["run_id"] in ended)
    for run_id, count in rows.items():
        yield f"run {run_id} has ended and {count} rows in the journal"
    if len(rows) < len({row["run_id"] for row in final.journal_rows}):
        yield "the journal has rows of runs that are live or unknown"


def _message(evidence: Evidence, run: StoredRun) -> Iterator[str]:
    """The message is the fold of the log, in the tables and over HTTP, references included."""
    run_id, image = run.row["id"], evidence.final.image
    answer = fold(map(decode, run.log))
    row = image.messages.get(run.row["message_id"])
    expected = message_row(answer)
    stored = {name: row[name] for name in expected} if row is not None else None
    if stored != expected:
        yield f"run {run_id}: the message is {stored}, the fold of its log {expected}"
    sets = reference_sets(run)
    places = [(one["ordinal"], one["text"], one["chunk_id"]) for one in (sets[-1] if sets else [])]
    rows = image.references.get(run.row["message_id"], [])
    if [(one["ordinal"], one["text"], one["chunk_id"]) for one in rows] != places:
        yield f"run {run_id}: stored are other references than the log has"
    shown = evidence.runs.get(run_id, {}).get("message", {})
    if any(shown.get(name) != value for name, value in message_shape(answer).items()):
        yield f"run {run_id}: over HTTP the message is {shown}, the fold {message_shape(answer)}"
    listed = evidence.messages.get(run.row["session_id"], [])
    if shown not in listed:
        yield f"run {run_id}: its message is not in the session's list"
    if not any(one["id"] == run.row["question_id"] for one in listed):
        yield f"run {run_id}: its question is not in the session's list"


def _outcome(evidence: Evidence, run: StoredRun) -> Iterator[str]:
    """How a run ended follows from its question, from who cancelled it, and from the faults."""
    run_id = run.row["id"]
    question = evidence.final.image.question(run)
    if question is None:
        yield f"run {run_id} has no question"
        return
    script = script_of(question)
    expected = OUTCOMES.get(script.kind, ("completed", None))
    ended = (run.row["outcome"], run.row["reason"])
    early, late = evidence.cancelled_early, {r.text for r in evidence.clients if r.cancelled}
    if ended == expected and question not in early:
        if run.text != script.text:
            yield f"run {run_id} has another text than the upstream sent"
        return
    if not script.text.startswith(run.text):
        yield f"run {run_id} has a text that the upstream did not send"
    if question in late and ended[1] == "client_cancelled":
        return
    if evidence.plan.harmless or ended[1] not in CRASHED:
        yield f"run {run_id}, of kind {script.kind}, ended as {ended}"
    elif ended[0] != ("interrupted" if run.text else "failed"):
        yield f"run {run_id} has {len(run.text)} characters of text and ended as {ended}"


def _p5_resume(evidence: Evidence) -> Iterator[str]:
    """Everybody got all events, each once, in order, whichever nodes they were connected to."""
    for reader in evidence.clients:
        run_id = reader.run_id
        run = evidence.final.image.runs.get(run_id) if run_id is not None else None
        if run is None:
            yield f"{reader.name} was not answered"
        elif reader.frames != stored_frames(run):
            parts = [len(read_frames(r.body)[0]) for r in reader.responses]
            yield f"{reader.name} got {parts} events, the log has {len(run.log)}, or they differ"
    for run_id, run in evidence.final.image.runs.items():
        shown = evidence.streams.get(run_id)
        if shown is None or read_frames(shown.body) != (stored_frames(run), b""):
            yield f"run {run_id}: over HTTP its events are not those stored"


def _p7_ask_once(evidence: Evidence) -> Iterator[str]:
    image = evidence.final.image
    for name, times in evidence.upstream.asked.items():
        if times > 1:
            yield f"the upstream was asked {name} {times} times"
    for question, times in Counter(map(image.question, image.runs.values())).items():
        if times > 1:
            yield f"{question} has {times} runs"
    runs: dict[str, set[str]] = defaultdict(set)
    for reader in evidence.clients:
        if reader.text is not None and reader.run_id is not None:
            runs[reader.text].add(reader.run_id)
    for question, found in runs.items():
        if len(found) > 1:
            yield f"{question} was answered with the runs {sorted(found)}"
    for reader in evidence.clients:
        if reader.text is not None:
            yield from _asked_again(evidence, reader.name, reader.text)


def _asked_again(evidence: Evidence, name: str, question: str) -> Iterator[str]:
    run = evidence.final.image.by_question.get(question)
    answer = evidence.again[name]
    if run is None or answer.status != 200:
        yield f"{name}, asked again, is answered with {answer.status}"
    elif read_frames(answer.body) != (stored_frames(run), b""):
        yield f"{name}, asked again, is not the same answer"


def _p10_stop_means_stop(evidence: Evidence) -> Iterator[str]:
    image = evidence.healed.image
    for run in image.runs.values():
        question = image.question(run) or ""
        if run.ended and evidence.upstream_when_healed.left_open(question, name_of(question)):
            yield f"the answer {name_of(question)} has ended, the upstream goes on"
    for text in evidence.cancelled_early:
        ending = evidence.final.image.by_question.get(text)
        if ending is None or ending.row["reason"] is None:
            yield f"{text} was cancelled and came to its end"


def _fencing(evidence: Evidence) -> Iterator[str]:
    """Nothing changed under a claim after it was over."""
    for fenced in evidence.fenced:
        yield from _since(fenced, evidence.final.image)
    for glimpse in evidence.glimpses:
        for run_id in sorted(glimpse.snapshot.orphans):
            if glimpse.when == "healed":
                yield f"run {run_id} is live and nobody's"


def _since(fenced: Fenced, final: Image) -> Iterator[str]:
    for run_id, run in final.runs.items():
        if claim_of(run) in fenced.claims and run_id not in fenced.runs:
            yield f"run {run_id} was begun under a claim that was over: {claim_of(run)}"
    for run_id, before in fenced.runs.items():
        after = final.runs.get(run_id)
        message_id = before.row["message_id"]
        same = (
            after is not None
            and (after.row, after.log) == (before.row, before.log)
            and final.messages[message_id] == fenced.image.messages[message_id]
            and final.references.get(message_id) == fenced.image.references.get(message_id)
        )
        if not same:
            yield f"run {run_id} changed after its owner had lost its claim: {claim_of(before)}"


_CHECKS: Final = (
    ("round", _round),
    ("clocks", _clocks),
    ("P1", _p1_ask_first),
    ("P2", _p2_write_ahead),
    ("P3", _p3_one_ending),
    ("P5", _p5_resume),
    ("P7", _p7_ask_once),
    ("P10", _p10_stop_means_stop),
    ("fencing", _fencing),
)
