"""The reading of what clients wrote down: a checker that reads wrongly proves nothing."""

from tests.faults.wire import Frame, frame_bytes, read_frames, read_responses

FRAMES = [
    Frame(b"run.1", b"run-start", b'{"type":"run-start"}'),
    Frame(b"run.2", b"text-delta", '{"text":"海\\n\\n🌊"}'.encode()),
    Frame(b"run.3", b"run-end", b'{"type":"run-end"}'),
]
PARTS = [b": ok\n\n", frame_bytes(FRAMES[0]) + frame_bytes(FRAMES[1]), frame_bytes(FRAMES[2])]
CHUNKS = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*PARTS, b""])
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS
SNAPSHOT = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def test_a_stream_cut_after_any_byte_gives_its_whole_events_and_the_rest() -> None:
    body = b"".join(PARTS)
    for cut in range(len(STREAM) + 1):
        for response in read_responses(STREAM[:cut]):
            assert body.startswith(response.body)
            assert response.whole == (cut == len(STREAM))
            frames, tail = read_frames(response.body)
            assert frames == FRAMES[: len(frames)]
            assert response.body.endswith(tail)
            assert b"\n\n" not in tail
    assert read_frames(read_responses(STREAM)[0].body) == (FRAMES, b"")


def test_responses_over_one_connection_are_told_apart() -> None:
    responses = read_responses(SNAPSHOT + STREAM + SNAPSHOT[:-1])
    assert [response.whole for response in responses] == [True, True, False]
    assert responses[0].json == {}
