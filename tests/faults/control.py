"""A page of memory that the driver and the server share; it outlives the server's death."""

import mmap
import os
from pathlib import Path

_SIZE = 256
_ARMED, _PLACE = 0, 8


class ControlPage:
    """Tells the server that it may die now, and the driver where it was when it died."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        flags = os.O_RDWR | (os.O_CREAT | os.O_TRUNC if create else 0)
        file = os.open(path, flags, 0o600)
        try:
            os.ftruncate(file, _SIZE)
            self._page = mmap.mmap(file, _SIZE)
        finally:
            os.close(file)

    @property
    def armed(self) -> bool:
        return self._page[_ARMED] == 1

    def arm(self) -> None:
        self._page[_ARMED] = 1

    @property
    def place(self) -> str:
        return self._page[_PLACE:].rstrip(b"\0").decode()

    @place.setter
    def place(self, text: str) -> None:
        self._page[_PLACE:] = text.encode()[: _SIZE - _PLACE].ljust(_SIZE - _PLACE, b"\0")

    def close(self) -> None:
        self._page.close()
