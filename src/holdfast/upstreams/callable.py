"""The embedding developer's own generator as an upstream."""

import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from typing import Any, Final, TypeAlias, get_args

from holdfast.engine.run import UpstreamEnd
from holdfast.errors import UpstreamError
from holdfast.events import (
    MAX_ORDINAL,
    Event,
    Reason,
    Reference,
    References,
    RunEnd,
    RunStart,
    TextDelta,
    decode,
    encode,
)
from holdfast.upstreams.base import Ask, Exchange, GeneratorUpstream, Health, Item
from holdfast.upstreams.decoding.refusal import clean

Source: TypeAlias = Callable[[Ask], Any] | AsyncIterable[Any]
"""What `CallableUpstream` takes: see there."""

_EVENTS: Final = get_args(Event)

logger = logging.getLogger(__name__)


class CallableUpstream(GeneratorUpstream):
    """Streams what an async generator of yours yields.

    It may yield `str` (more of the answer), events of `holdfast.events` and lists of
    `Reference`. Its end is the answer's end, and an exception is the answer's error. When the
    run is cancelled the generator is closed, so its `finally` is the place to clean up.
    """

    kind = "callable"

    def __init__(self, source: Source, name: str | None = None) -> None:
        """Wrap a generator.

        Args:
            source: An async generator function that takes the `Ask` (or any callable that gives
                an async iterator, or an awaitable of one); or one async iterator, which answers
                one question.
            name: The upstream's name (default: the function's).
        """
        super().__init__(name or str(getattr(source, "__name__", "callable")))
        self._source = source
        self._is_spent = False

    async def items(self, ask: Ask, exchange: Exchange) -> AsyncGenerator[Sequence[Item], None]:
        """Write the answer to `ask`."""
        end = UpstreamEnd()
        source: AsyncIterator[Any] | None = None
        try:
            source = await self._start(ask)
            async for value in source:
                if value.__class__ is str:
                    if value:
                        yield (TextDelta(_storable(value)),)
                else:
                    yield (_item(value),)
        except UpstreamError as error:
            end = UpstreamEnd(error.reason, error=clean(error.message))
        except Exception as error:
            logger.warning("the callable upstream %s failed", self.name, exc_info=True)
            text = clean(f"{type(error).__name__}: {error}".removesuffix(": "))
            end = UpstreamEnd(Reason.UPSTREAM_ERROR, error=text)
        finally:
            await self._stop(source)
        yield (end,)

    async def check(self) -> Health:
        """It is there; whether it works, only asking tells."""
        return Health(ok=not self._is_spent)

    async def _start(self, ask: Ask) -> AsyncIterator[Any]:
        if isinstance(self._source, AsyncIterator) and self._is_spent:
            raise TypeError("this async iterator has been used; give a function to ask again")
        if isinstance(self._source, AsyncIterable):
            made: Any = self._source
            self._is_spent = isinstance(made, AsyncIterator)
        else:
            made = self._source(ask)
        if inspect.isawaitable(made):
            made = await made
        if not hasattr(made, "__aiter__"):
            raise TypeError(
                f"{self.name} must give an async iterator (async def with yield), "
                f"not {type(made).__name__}"
            )
        iterator: AsyncIterator[Any] = aiter(made)
        return iterator

    async def _stop(self, source: AsyncIterator[Any] | None) -> None:
        close = getattr(source, "aclose", None)
        if close is None:
            return
        try:
            await close()
        except Exception:
            logger.warning("closing the callable upstream %s failed", self.name, exc_info=True)


def _item(value: Any) -> Event:
    """The event for something that was yielded."""
    match value:
        case str():
            return TextDelta(_storable(value))
        case RunStart() | RunEnd():
            raise TypeError(
                f"a callable upstream may not yield {type(value).__name__}; runs begin and end "
                "by themselves"
            )
        case [*references] if all(isinstance(item, Reference) for item in references):
            return _checked(References(tuple(references)))
        case _ if isinstance(value, _EVENTS):
            return _checked(value)
        case _:
            raise TypeError(
                "a callable upstream yields str, events or lists of Reference, "
                f"not {type(value).__name__}"
            )


def _checked(event: Event) -> Event:
    """The event as it will be read back; raises if it could not be, before it is stored."""
    checked: Event = decode(encode(event))
    if isinstance(checked, References):
        for reference in checked.references:
            if not 0 < reference.ordinal <= MAX_ORDINAL:
                raise ValueError(
                    f"the ordinal of a reference is a number from 1 to {MAX_ORDINAL}, "
                    f"not {reference.ordinal}"
                )
    return checked


def _storable(text: str) -> str:
    """The text as UTF-8 can hold it: halves of surrogate pairs become U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
