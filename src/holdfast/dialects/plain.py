r"""The plain dialect: text, and nothing else.

    data: {"content":"Kelp ","session_id":"…"}\n\n
    data: {"content":"holds."}\n\n
    data: [DONE]\n\n

At `[DONE]` the client loads the session's messages again; references and status are there. An
answer that ended early says `{"error":"…"}` before. The first frame also names the session, and
there is always one, of an answer without text, too.
"""

from holdfast.dialects.base import DONE, About
from holdfast.dialects.naive import NaiveEncoder, data
from holdfast.engine.fold import Answer


class PlainEncoder(NaiveEncoder):
    """Text, perhaps an error, and the end."""

    def __init__(self, about: About) -> None:
        """Begin before the first event."""
        super().__init__(about)
        self._named = False
        """Whether a frame has named the session."""

    def chunk(self, content: str) -> bytes:
        """See `NaiveEncoder.chunk`."""
        return self._frame("content", content)

    def failure(self, error: str) -> bytes:
        """See `NaiveEncoder.failure`."""
        return self._frame("error", error)

    def closing(self, answer: Answer) -> bytes:
        """See `NaiveEncoder.closing`."""
        return DONE if self._named else self.chunk("") + DONE

    def overhead(self) -> int:
        """See `NaiveEncoder.overhead`."""
        return len(data({"content": "", "session_id": self.about.session}))

    def _frame(self, name: str, text: str) -> bytes:
        if self._named:
            return data({name: text})
        self._named = True
        return data({name: text, "session_id": self.about.session})
