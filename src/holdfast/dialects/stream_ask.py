r"""The stream-ask dialect: chunks, perhaps an error, and the sources at the end.

data: {"type":"chunk","content":"Kelp "}\n\n
event: error\ndata: {"message":"…"}\n\n
event: final_end\ndata: {"sources":[…],"session_id":…,"message_id":…,"status":…}\n\n
"""

from holdfast.dialects.naive import CLOSING_BYTES, NaiveEncoder, data, fitted
from holdfast.engine.fold import Answer


class StreamAskEncoder(NaiveEncoder):
    """Three kinds of frames; those that are no chunk are named events."""

    def chunk(self, content: str) -> bytes:
        """See `NaiveEncoder.chunk`."""
        return data({"type": "chunk", "content": content})

    def failure(self, error: str) -> bytes:
        """See `NaiveEncoder.failure`."""
        return b"event: error\n" + data({"message": error})

    def closing(self, answer: Answer) -> bytes:
        """See `NaiveEncoder.closing`."""
        said = {
            "session_id": self.about.session,
            "message_id": self.message_id,
            "status": answer.status,
        }
        room = CLOSING_BYTES - len(_final_end({"sources": [], **said}))
        return _final_end({"sources": fitted(answer.references, room), **said})

    def overhead(self) -> int:
        """See `NaiveEncoder.overhead`."""
        return len(self.chunk(""))


def _final_end(said: dict[str, object]) -> bytes:
    return b"event: final_end\n" + data(said)
