"""What happens in a round: chosen by its seed, and the same for the same seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from tests.cluster import faults
from tests.cluster.cluster import NAMES
from tests.cluster.faults import Fault
from tests.cluster.nodes import CALM, IMPATIENT, PATIENT, Temper

Act = tuple[type[Fault], ...]
"""Faults at the same time, each at a node of its own."""

AT_A_NODE: Final[Sequence[type[Fault]]] = (
    faults.Kill,
    faults.Stop,
    faults.Cut,
    faults.HalfCut,
    faults.Stall,
    faults.StallUp,
    faults.StallDown,
    faults.LostAnswer,
    faults.Flicker,
    faults.Nap,
    faults.DiskFull,
)
EVERYWHERE: Final[Sequence[type[Fault]]] = (
    faults.HintsLost,
    faults.ListenersCut,
    faults.ConnectionsCut,
    faults.DatabaseFast,
    faults.DatabaseImmediate,
)
SHAPES: Final[Sequence[tuple[Act, ...]]] = (
    ((faults.Kill,), (faults.Kill,)),
    ((faults.Stop,),),
    ((faults.DatabaseFast,), (faults.DatabaseFast,)),
    ((faults.HintsLost,), (faults.ListenersCut,)),
    ((faults.Rolling,),),
    ((faults.Cut,), (faults.Flicker,)),
    ((faults.DatabaseImmediate,), (faults.DatabaseImmediate,)),
    ((faults.Stall,),),
    ((faults.LostAnswer,), (faults.LostAnswer,), (faults.StallDown,)),
    ((faults.DiskFull,),),
    ((faults.HalfCut,),),
    ((faults.StallUp,),),
    ((faults.Stop, faults.DatabaseImmediate),),
    ((faults.Kill, faults.Stop),),
    ((faults.HintsLost, faults.Kill),),
    ((faults.DatabaseGone,),),
    ((faults.Nap,), (faults.ConnectionsCut,), (faults.DiskFull, faults.Kill)),
    ((faults.ListenersCut, faults.Rolling),),
    ((faults.DatabaseAway,),),
)
"""After them, and with more rounds, acts are made up."""

BEFORE, HOLD = (20, 150), (5, 60)
"""How many events clients must see before a fault begins, and before it is made good."""


class Step(NamedTuple):
    """A part of an act."""

    after: int
    """How many more events clients must have seen."""
    fault: Fault


class Scheduled(NamedTuple):
    """An act as it is played."""

    steps: list[Step]
    hold: int
    """How many events clients must see while everything is wrong."""

    @property
    def healing(self) -> list[Fault]:
        """The faults in the order in which they can be made good."""
        found = [step.fault for step in self.steps]
        return sorted(found, key=lambda fault: fault.last_to_heal - fault.first_to_heal)

    def __str__(self) -> str:
        parts = [f"after {step.after} {step.fault}" for step in self.steps]
        return f"{' + '.join(parts)}, hold {self.hold}"


@dataclass(frozen=True)
class Plan:
    """What a round does; the seed decides everything that is left open."""

    seed: str
    acts: tuple[Act, ...]
    mutant: str | None = None

    @property
    def harmless(self) -> bool:
        """Whether every answer must come whole."""
        return all(kind.harmless for act in self.acts for kind in act)

    @property
    def temper(self) -> Temper:
        """How long its nodes wait."""
        if any(faults.DatabaseAway in act for act in self.acts):
            return PATIENT
        return CALM if self.harmless else IMPATIENT

    @property
    def rolling(self) -> bool:
        return any(faults.Rolling in act for act in self.acts)

    def schedule(self) -> list[Scheduled]:
        """The acts with places and numbers."""
        choose = random.Random(f"{self.seed} schedule")
        return [_schedule(act, choose) for act in self.acts]

    def __str__(self) -> str:
        return "; ".join(map(str, self.schedule()))


def _schedule(act: Act, choose: random.Random) -> Scheduled:
    places = choose.sample(range(len(NAMES)), len(NAMES))
    steps: list[Step] = []
    for number, kind in enumerate(act):
        after = choose.randint(*(BEFORE if number == 0 else HOLD))
        if any(step.fault.first_to_heal for step in steps):
            after = 0  # nobody sees anything
        steps.append(Step(after, kind(places.pop()) if kind in AT_A_NODE else kind()))
    still = any(step.fault.first_to_heal for step in steps)
    return Scheduled(steps, 0 if still else choose.randint(*HOLD))


def plan_rounds(rounds: int, seed: int) -> list[Plan]:
    """The plans of a run; the same for the same seed."""
    plans = []
    for number in range(rounds):
        name = f"{seed}-{number + 1}"
        acts = SHAPES[number] if number < len(SHAPES) else _made_up(random.Random(name))
        plans.append(Plan(name, acts))
    return plans


def _made_up(choose: random.Random) -> tuple[Act, ...]:
    acts = []
    for _ in range(choose.randint(1, 3)):
        act = choose.sample(AT_A_NODE, choose.randint(0, 2))
        if not act or choose.random() < 0.4:
            act.append(choose.choice(EVERYWHERE))
        acts.append(tuple(choose.sample(act, len(act))))
    return tuple(acts)
