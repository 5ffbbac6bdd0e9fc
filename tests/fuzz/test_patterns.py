"""No pattern that reads what upstreams sent costs more than the length of the text.

A regular expression that goes back and forth takes minutes over some hundred kilobytes of the
right text, and nothing else in the process goes on meanwhile.
"""

import importlib
import re
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any, Final

import pytest

from tests.fuzz.hunt import TooSlow, bounded

PROJECT: Final = Path(__file__).parents[2]
LENGTH: Final = 100_000
ALLOWED_S: Final = 0.4
"""A pass over so much text takes a hundredth of it; a pass from each place takes far more."""
PUMPS: Final = (" ", "\n", "a", "A", "0", ":", "a ", "\na:b ")
_LITERALS: Final = re.compile(r"(?:\\[^\w\s]|[^\\\[\](){}.*+?|^$])+")


def patterns() -> dict[str, re.Pattern[Any]]:
    """The patterns of decoders and of what they are made of, by name."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (modules,) = [one["source_modules"] for one in contracts if one["id"] == "decoders"]
    return {
        f"{module}.{name}": value
        for module in modules
        for name, value in vars(importlib.import_module(module)).items()
        if isinstance(value, re.Pattern)
    }


def cost(pattern: re.Pattern[Any], text: str) -> float:
    """Seconds of computing for one search for every match."""
    searched = text if isinstance(pattern.pattern, str) else text.encode()
    start = process_time()
    try:
        with bounded(2 * ALLOWED_S):
            for _ in pattern.finditer(searched):
                pass
    except TooSlow:
        return 2 * ALLOWED_S
    return process_time() - start


def slow_texts(pattern: re.Pattern[Any]) -> Iterator[str]:
    """Texts over which it goes again and again, in short."""
    source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode()
    literals = [one.replace("\\", "") for one in _LITERALS.findall(source)]
    literals = [one for one in literals if one]
    for begun, pump in product(["", *PUMPS, *literals], [*PUMPS, *literals]):
        if cost(pattern, begun + pump * (LENGTH // len(pump)) + "!") > ALLOWED_S:
            yield f"{begun!r} and {pump!r} again and again"


@pytest.mark.parametrize("name", patterns())
def test_no_text_is_too_much_for_a_pattern(name: str) -> None:
    assert next(slow_texts(patterns()[name]), None) is None


@pytest.mark.parametrize(
    "source", [r"(?s)<think>.*?</think>", r"\s*<a>\s*(.*?)\s*</a>", r"(?m)^(\w+): *(\S.*?)\s*$"]
)
def test_a_pattern_that_goes_back_and_forth_is_found_out(source: str) -> None:
    assert next(slow_texts(re.compile(source)), None)
