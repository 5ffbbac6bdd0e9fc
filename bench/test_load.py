"""The generator must call every answer a fault that is not exactly what the upstream sent."""

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.measure import Tools

COMPILER = os.environ.get("CC", "cc")
CHUNKS = 3

pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason="no C compiler")

OPENAI_END = b"data: [DONE]\n\n"
NATIVE_END = b'id: r.9\nevent: run-end\ndata: {"type":"run-end","outcome":"completed"}\n\n'


def mark(number: int) -> str:
    return f"#{number:06d}@{1:018d};"


def chunk(text: str) -> bytes:
    return f'data: {{"choices":[{{"delta":{{"content": "{text}"}}}}]}}\n\n'.encode()


def delta(seq: int, text: str) -> bytes:
    data = f'{{"type":"text-delta","text":"{text}"}}'
    return f"id: r.{seq}\nevent: text-delta\ndata: {data}\n\n".encode()


def piece(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(*events: bytes, end: bytes = b"0\r\n\r\n", status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nServer: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(map(piece, events)) + end


CHUNKS_IN_ORDER = tuple(chunk(mark(number)) for number in range(CHUNKS))
DELTAS_IN_ORDER = tuple(delta(number + 2, mark(number)) for number in range(CHUNKS))
ALL_MARKS = "".join(map(mark, range(CHUNKS)))

WHOLE = {
    "openai": answer(*CHUNKS_IN_ORDER, OPENAI_END),
    "openai in one piece": answer(b"".join(CHUNKS_IN_ORDER) + OPENAI_END),
    "native": answer(b": hello\n\n", *DELTAS_IN_ORDER, NATIVE_END),
    "native merged": answer(delta(2, ALL_MARKS), NATIVE_END),
    "native split inside a mark": answer(
        delta(2, ALL_MARKS[:40]), delta(3, ALL_MARKS[40:]), NATIVE_END
    ),
}

FAULTS = {
    "openai, one missing": (answer(*CHUNKS_IN_ORDER[:2], OPENAI_END), "chunks are missing"),
    "openai, one in the middle missing": (
        answer(CHUNKS_IN_ORDER[0], CHUNKS_IN_ORDER[2], OPENAI_END),
        "out of order",
    ),
    "openai, one twice": (
        answer(CHUNKS_IN_ORDER[0], *CHUNKS_IN_ORDER, OPENAI_END),
        "out of order",
    ),
    "openai, swapped": (
        answer(CHUNKS_IN_ORDER[1], CHUNKS_IN_ORDER[0], CHUNKS_IN_ORDER[2], OPENAI_END),
        "out of order",
    ),
    "openai, foreign text": (
        answer(chunk("and " * 20), *CHUNKS_IN_ORDER, OPENAI_END),
        "not what was sent",
    ),
    "openai, text too long": (answer(*CHUNKS_IN_ORDER, chunk("and"), OPENAI_END), "unfinished"),
    "openai, text behind the end": (
        answer(*CHUNKS_IN_ORDER, OPENAI_END, CHUNKS_IN_ORDER[0]),
        "behind the end",
    ),
    "openai, two ends": (answer(*CHUNKS_IN_ORDER, OPENAI_END, OPENAI_END), "second end"),
    "openai, no marker": (answer(*CHUNKS_IN_ORDER), "no terminal marker"),
    "openai, unfinished last line": (
        answer(*CHUNKS_IN_ORDER, OPENAI_END, b"data"),
        "unfinished line",
    ),
    "openai, error": (answer(b'data: {"error":{"code":1}}\n\n', OPENAI_END), "error"),
    "openai, no terminating piece": (answer(*CHUNKS_IN_ORDER, OPENAI_END, end=b""), "cut"),
    "openai, half a terminating piece": (
        answer(*CHUNKS_IN_ORDER, OPENAI_END, end=b"0\r\n"),
        "cut",
    ),
    "openai, bytes behind the answer": (
        answer(*CHUNKS_IN_ORDER, OPENAI_END) + b"more\n",
        "bytes behind the end",
    ),
    "openai, wrong piece size": (
        answer(*CHUNKS_IN_ORDER, OPENAI_END).replace(
            b"\r\n%x\r\n" % len(CHUNKS_IN_ORDER[0]),
            b"\r\n%x\r\n" % (len(CHUNKS_IN_ORDER[0]) - 3),
            1,
        ),
        "piece too long",
    ),
    "openai, refused": (answer(*CHUNKS_IN_ORDER, OPENAI_END, status="503 Full"), "status"),
    "openai, silence": (b"", "cut"),
    "native, failed": (
        answer(*DELTAS_IN_ORDER, NATIVE_END.replace(b"completed", b"failed")),
        "wrong end",
    ),
    "native, no end": (answer(*DELTAS_IN_ORDER), "no terminal marker"),
    "native, id twice": (
        answer(DELTAS_IN_ORDER[0], delta(2, mark(1)), delta(3, mark(2)), NATIVE_END),
        "id does not rise",
    ),
    "native, rewritten": (
        answer(DELTAS_IN_ORDER[0].replace(b"text-delta", b"text-replace"), NATIVE_END),
        "rewritten",
    ),
}


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Tools.build(COMPILER, tmp_path_factory.mktemp("tools")).load


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def reply(listener: socket.socket, data: bytes, step: int) -> None:
    """Answers one question with `data`, `step` bytes to a packet, and closes."""
    connection, _ = listener.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.recv(65536)
        for at in range(0, len(data), step):
            try:
                connection.sendall(data[at : at + step])
            except OSError:
                return


def load_against(
    generator: Path, listener: socket.socket, name: str, data: bytes, step: int = 65536
) -> dict[str, Any]:
    port = listener.getsockname()[1]
    wire = name.split()[0].rstrip(",")
    thread = threading.Thread(target=reply, args=(listener, data, step))
    thread.start()
    command = [str(generator), f"--port={port}", f"--wire={wire}", f"--chunks={CHUNKS}"]
    done = subprocess.run([*command, "--deadline-s=10"], capture_output=True, text=True, timeout=20)
    thread.join()
    said: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if said["whole"] == 1 else 1)
    return said


@pytest.mark.parametrize("step", [1, 7, 65536])
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_is_whole_however_it_is_cut(
    generator: Path, listener: socket.socket, name: str, step: int
) -> None:
    said = load_against(generator, listener, name, WHOLE[name], step)
    assert said["fault"] == ""
    assert (said["whole"], said["chunks"]) == (1, CHUNKS)


@pytest.mark.parametrize("name", FAULTS)
def test_what_was_not_sent_is_a_fault(generator: Path, listener: socket.socket, name: str) -> None:
    data, fault = FAULTS[name]
    said = load_against(generator, listener, name, data)
    assert said["whole"] == 0
    assert fault in said["fault"]


@pytest.mark.parametrize("wire", ["openai", "native"])
def test_an_answer_cut_after_any_byte_is_a_fault(
    generator: Path, listener: socket.socket, wire: str
) -> None:
    data = WHOLE[wire]
    for size in range(0, len(data), 5):
        assert load_against(generator, listener, wire, data[:size])["whole"] == 0


def reply_to_readers(listener: socket.socket, answers: list[bytes], heads: list[bytes]) -> None:
    """Answers connection after connection; the first is not ended before all have asked."""
    connections = []
    for data in answers:
        connection, _ = listener.accept()
        connections.append(connection)
        heads.append(connection.recv(65536))
        connection.sendall(data[:-30])
    for connection, data in zip(connections, answers, strict=True):
        connection.sendall(data[-30:])
        connection.close()


def load_with_readers(
    generator: Path, listener: socket.socket, answers: list[bytes]
) -> tuple[dict[str, Any], list[bytes], list[str]]:
    """What the generator said of one run with readers, what it asked, and its lines before."""
    heads: list[bytes] = []
    port = listener.getsockname()[1]
    thread = threading.Thread(target=reply_to_readers, args=(listener, answers, heads))
    thread.start()
    command = [str(generator), f"--port={port}", "--wire=native", f"--chunks={CHUNKS}"]
    command += [f"--readers={len(answers) - 1}", f"--reader-port={port}", "--deadline-s=10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    thread.join()
    *before, said = done.stdout.splitlines()
    return json.loads(said), heads, before


def of_run(data: bytes) -> bytes:
    return data.replace(b"Server: x", b"X-Holdfast-Run: run-7")


def test_readers_ask_for_the_run_and_are_checked_like_the_asker(
    generator: Path, listener: socket.socket
) -> None:
    answers = [of_run(WHOLE["native"]), WHOLE["native merged"], WHOLE["native"]]
    said, heads, before = load_with_readers(generator, listener, answers)
    assert (said["asked"], said["whole"], said["chunks"]) == (3, 3, 3 * CHUNKS)
    assert heads[0].startswith(b"POST / HTTP/1.1\r\n")
    assert all(head.startswith(b"GET /api/v1/runs/run-7/events HTTP/1.1\r\n") for head in heads[1:])
    assert before == ["open"]
    assert said["lag_p50_us"] >= 0


def test_a_reader_that_gets_less_is_a_fault(generator: Path, listener: socket.socket) -> None:
    answers = [of_run(WHOLE["native"]), FAULTS["native, no end"][0]]
    said, _, _ = load_with_readers(generator, listener, answers)
    assert (said["asked"], said["whole"]) == (2, 1)
    assert "no terminal marker" in said["fault"]
