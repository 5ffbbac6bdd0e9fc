"""Holdfast keeps AI answers: durable, resumable streams in front of any LLM or RAG service."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.embed import Holdfast as Holdfast

__version__ = "0.1.0"

__all__ = ["Holdfast", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the engine when it is asked for, not with every submodule."""
    if name == "Holdfast":
        from holdfast.embed import Holdfast

        return Holdfast
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
