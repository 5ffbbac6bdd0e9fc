"""A client: a process of its own that writes down every byte it gets before it looks at it.

    python client.py PLAN

It speaks HTTP over a bare socket and knows nothing of the project. PLAN is a JSON object:

    port, folder  where the server is, and where the logs go
    name          what its files begin with
    bodies        what to ask, one question after the other, all in one session
    resume        "no": end when the connection breaks; "get" or "post": come back until the answer
                  is whole, by GET of the run's events or by POST with the cursor
    watch         instead of asking: look at sessions, runs and messages, over and over

`NAME.NN.request` is the request as it was sent, `NAME.NN.K.raw` what the connection K gave.
"""

import json
import os
import socket
import sys
import time
from typing import Any

HOST = "127.0.0.1"
RETRY_S = 0.02
GIVE_UP_S = 40.0
TRIES = 5
"""How many answers without a new event it takes before it goes for good."""


def request(method: str, path: str, body: bytes = b"", close: bool = True, **more: str) -> bytes:
    """An HTTP request."""
    headers = {"Host": HOST, **more}
    if body:
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    if close:
        headers["Connection"] = "close"
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines.insert(0, f"{method} {path} HTTP/1.1")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Log:
    """An append-only file; what is written is in the kernel's hands, whoever dies."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._file, data) :]


class Asking:
    """One question, asked until its answer is whole or as long as the plan says."""

    def __init__(self, plan: dict[str, Any], number: int, session: str | None) -> None:
        self._port = plan["port"]
        self._resume = plan["resume"]
        self._base = os.path.join(plan["folder"], f"{plan['name']}.{number:02}")
        body = dict(plan["bodies"][number])
        if session is not None:
            body["session_id"] = session
        self._request = request(
            "POST",
            "/api/v1/runs",
            json.dumps(body).encode(),
            Idempotency_Key=f"key-{plan['name']}-{number:02}",
        )
        self._seen = b""
        self.session: str | None = None

    def run(self) -> bool:
        """Ask; whether the answer came whole."""
        Log(f"{self._base}.request").write(self._request)
        give_up = time.monotonic() + GIVE_UP_S
        connection = tries = 0
        while tries < TRIES and time.monotonic() < give_up:
            seen = len(self._seen)
            try:
                with socket.create_connection((HOST, self._port), timeout=GIVE_UP_S) as link:
                    log = Log(f"{self._base}.{connection}.raw")
                    connection += 1
                    tries += 1
                    link.sendall(self._again())
                    self._read(link, log)
            except OSError:
                pass  # no server there, or it died: what came is written and counts
            if b"\nevent: run-end\n" in self._seen:
                return True
            if self._resume == "no":
                return False
            if len(self._seen) > seen:
                tries = 0
            time.sleep(RETRY_S)
        return False

    def _again(self) -> bytes:
        cursor = self._cursor()
        if cursor is None:
            return self._request
        if self._resume == "post":
            return request("POST", "/api/v1/runs", b"{}", Last_Event_ID=cursor)
        run_id = cursor.partition(".")[0]
        return request("GET", f"/api/v1/runs/{run_id}/events", Last_Event_ID=cursor)

    def _cursor(self) -> str | None:
        """The id of the last event that came whole."""
        last = self._seen.rpartition(b"id: ")[2]
        return last.partition(b"\n")[0].decode() if last else None

    def _read(self, link: socket.socket, log: Log) -> None:
        raw = b""
        try:
            while data := link.recv(65536):
                log.write(data)
                raw += data
        finally:
            self._take(raw)

    def _take(self, raw: bytes) -> None:
        head, _, body = raw.partition(b"\r\n\r\n")
        lower = head.lower()
        name = b"\r\nx-holdfast-session: "
        if name in lower:
            start = lower.index(name) + len(name)
            self.session = head[start:].partition(b"\r\n")[0].decode()
        events = b"".join(_chunks(body)).split(b"\n\n")[:-1]  # the last one may be cut
        self._seen += b"".join(e + b"\n\n" for e in events if not e.startswith(b":"))


def _chunks(body: bytes) -> list[bytes]:
    """The data of the chunks of a body that may be cut anywhere."""
    chunks: list[bytes] = []
    while True:
        size, line, body = body.partition(b"\r\n")
        if not line or not size or int(size, 16) == 0:
            return chunks
        length = int(size, 16)
        chunks.append(body[:length])
        body = body[length + 2 :]


def watch(plan: dict[str, Any]) -> None:
    """Look at everything that can be looked at, over one connection, until it breaks."""
    log = Log(os.path.join(plan["folder"], f"{plan['name']}.raw"))
    with socket.create_connection((HOST, plan["port"]), timeout=GIVE_UP_S) as link:
        while True:
            sessions = json.loads(_get(link, log, "/api/v1/sessions?limit=200"))["items"]
            for session in sessions:
                _get(link, log, f"/api/v1/sessions/{session['id']}/messages")
                if session["live_run_id"] is not None:
                    _get(link, log, f"/api/v1/runs/{session['live_run_id']}")
            time.sleep(RETRY_S)


def _get(link: socket.socket, log: Log, path: str) -> bytes:
    link.sendall(request("GET", path, close=False))
    raw = b""
    while True:
        data = link.recv(65536)
        if not data:
            raise ConnectionError("the server has gone")
        log.write(data)
        raw += data
        head, end, body = raw.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if end and len(body) >= int(length):
            return body


def main() -> None:
    plan = json.loads(sys.argv[1])
    if plan.get("watch"):
        try:
            watch(plan)
        except OSError:
            return
    session = None
    for number in range(len(plan["bodies"])):
        asking = Asking(plan, number, session)
        if not asking.run():
            return
        session = asking.session


if __name__ == "__main__":
    main()
