"""The dialects by name."""

from collections.abc import Callable, Mapping
from typing import Final

from holdfast.dialects.base import Encoder
from holdfast.dialects.native import NativeEncoder

DIALECTS: Final[Mapping[str, Callable[[str], Encoder]]] = {"native": NativeEncoder}
"""How an encoder for a run is made, from the run's id."""
