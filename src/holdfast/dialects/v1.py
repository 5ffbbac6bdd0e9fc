r"""The v1 dialect: chat with every frame complete in itself.

    data: {"content":"Kelp ","session_id":"s1","model_used":"cloud_large"}\n\n
    data: {"content":"",…,"references":[…],"message_id":"…","status":"complete"}\n\n
    data: [DONE]\n\n

Every frame has `content`, the closing frame and one with an `error` too: clients take it unasked.
"""

from holdfast.dialects.base import DONE
from holdfast.dialects.naive import CLOSING_BYTES, NaiveEncoder, data, fitted
from holdfast.engine.fold import Answer


class V1Encoder(NaiveEncoder):
    """Text with session and model in each frame; the references in the last."""

    def chunk(self, content: str) -> bytes:
        """See `NaiveEncoder.chunk`."""
        return data(self._fields(content))

    def failure(self, error: str) -> bytes:
        """See `NaiveEncoder.failure`."""
        return data({**self._fields(""), "error": error})

    def closing(self, answer: Answer) -> bytes:
        """See `NaiveEncoder.closing`."""
        said = {"message_id": self.message_id, "status": answer.status}
        room = CLOSING_BYTES - len(data({**self._fields(""), "references": [], **said}))
        references = fitted(answer.references, room)
        return data({**self._fields(""), "references": references, **said}) + DONE

    def overhead(self) -> int:
        """See `NaiveEncoder.overhead`."""
        return len(self.chunk(""))

    def _fields(self, content: str) -> dict[str, object]:
        return {
            "content": content,
            "session_id": self.about.session,
            "model_used": self.model_used,
        }
