"""What clients ask and read in a round, and who of them cancels."""

import random
from collections.abc import Iterator
from typing import Any, Final

from tests.faults.script import Kind, question

LONG, BURST, SLOW, CHATS, QUESTIONS = 6, 3, 1, 4, 500
HELD_RUNS: Final = LONG + BURST + SLOW
CANCELLED: Final = 2
"""How many of the long answers are cancelled on the way."""

Group = list[dict[str, Any]]
"""Clients of one process, as `clients.py` takes them: one asks, others read the same run."""


def held_answers(choose: random.Random) -> Iterator[Group]:
    """Long answers, each read by three: some ask with one key at once, some follow."""
    counts = {Kind.LONG: LONG, Kind.BURST: BURST, Kind.SLOW: SLOW}
    names = [(kind, f"{kind}{place:02}") for kind, n in counts.items() for place in range(n)]
    cancelled = {name for _, name in choose.sample(names[: LONG + BURST], CANCELLED)}
    for number, (kind, name) in enumerate(names):
        asks = {
            "bodies": [{"message": question(kind, f"{name}.00")}],
            "keys": [f"key-{name}"],
        }
        group = [{"name": name, "first": number % 3, **asks}]
        if name in cancelled:
            group[0]["cancel_after"] = choose.randint(15, 80)
        if number % 4:
            group += [{"name": f"{name}-f{place}", "follow": name} for place in (1, 2)]
        else:
            group += [
                {"name": f"{name}-t{place}", "first": (number + place) % 3, **asks}
                for place in (1, 2)
            ]
        yield group


def chats(choose: random.Random, *, rolling: bool) -> Iterator[Group]:
    """Short questions, one after the other, each at any node."""
    kinds = [Kind.SHORT, Kind.SHORT, Kind.SHORT, Kind.ERROR, Kind.CUT, Kind.EMPTY]
    count = CHATS
    if rolling:
        kinds, count = [Kind.SHORT, Kind.STEADY, Kind.STEADY], 3 * CHATS
    for number in range(count):
        name = f"chat{number:02}"
        bodies = [
            {"message": question(choose.choice(kinds), f"{name}.{place:02}")}
            for place in range(QUESTIONS)
        ]
        keys = [f"key-{name}-{place:02}" for place in range(QUESTIONS)]
        yield [
            {"name": name, "bodies": bodies, "keys": keys},
            {"name": f"{name}-f", "follow": name},
        ]
