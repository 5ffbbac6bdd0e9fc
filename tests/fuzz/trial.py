"""One try: bytes, and how they come and break off."""

from itertools import pairwise

import msgspec

SMALL: int = 20_000
"""Larger inputs do not come byte by byte."""


class Trial(msgspec.Struct, frozen=True):
    """What a target is tried with.

    Attributes:
        data: What was sent.
        variant: Which of the target's forms is tried.
        size: Of how many bytes each piece is; 0: the pieces end at `places`.
        places: Where pieces end, relative to the length.
        at: Where the stream breaks off and where a reader comes back, relative to the length.
        tail: Text that may be the beginning of something, with which an answer breaks off.
    """

    data: bytes
    variant: int = 0
    size: int = 0
    places: tuple[float, ...] = ()
    at: float = 0.5
    tail: str = ""

    def bounds(self, length: int) -> list[int]:
        """Where the pieces of something of this length end, from 0 on."""
        if self.size:
            size = self.size if length <= SMALL else max(self.size, length // 500)
            return [*range(0, length, size), length]
        return sorted({0, length, *(int(place * length) for place in self.places)})

    def pieces(self) -> list[bytes]:
        """The data as it comes."""
        return [self.data[start:end] for start, end in pairwise(self.bounds(len(self.data)))]

    def deltas(self) -> list[str]:
        """The data as text that comes in deltas."""
        text = self.text
        return [text[start:end] for start, end in pairwise(self.bounds(len(text)))]

    @property
    def text(self) -> str:
        """The data as text."""
        return self.data.decode("utf-8", "replace")

    def place(self, length: int) -> int:
        """Where something of this length is broken off."""
        return int(self.at * length)
