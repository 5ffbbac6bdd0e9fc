"""The hunt for inputs that break a law: hypothesis makes them, and what is found is made small."""

import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.mutations import Pool, trials
from tests.fuzz.targets import Target
from tests.fuzz.trial import Trial

ROUND: Final = 400
"""So many inputs are made with one seed."""
CPU_S: Final = 20.0
"""How much computing one input may cost; those that cost what they should need far less."""
REDUCE_S: Final = 20.0
PROJECT: Final = Path(__file__).parents[2]


class TooSlow(BaseException):
    """An input that costs more than it may; no part of what is checked may catch it."""


class Finding(msgspec.Struct, frozen=True):
    """A law that was broken."""

    signature: str
    """What was raised, and where: one for each bug, as far as that can be told."""
    trial: Trial
    story: str
    """The traceback."""


class Hunt:
    """The hunt in one target.

    Attributes:
        tried: How many inputs were tried.
        findings: What was found, by signature.
    """

    def __init__(self, target: Target, first_seed: int) -> None:
        """Prepare.

        Args:
            target: What is fuzzed.
            first_seed: Decides which inputs are tried.
        """
        self.tried = 0
        self.findings: dict[str, Finding] = {}
        self._target = target
        self._pool = Pool(target.seeds)
        self._seed = first_seed
        self._failed: tuple[Trial, BaseException] | None = None

    def run_for(self, seconds: float) -> None:
        """Hunt for some time; a round that has begun is brought to its end."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.run(ROUND, until=end)

    def run(self, inputs: int, *, until: float | None = None) -> None:
        """Try so many inputs, or less when a law is broken."""
        self._failed = None

        def attempt(trial: Trial) -> None:
            if until is not None and self._failed is None and time.monotonic() > until:
                return
            self._try(trial)

        hunted = given(trials(self._pool, self._target.variants))(attempt)
        hunted = settings(
            max_examples=inputs,
            database=None,
            deadline=None,
            derandomize=False,
            phases=[Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )(seed(self._seed)(hunted))
        self._seed += 1
        try:
            hunted()
        except Exception:  # what a law, or the code, raised; it is in `_failed`
            if self._failed is None:
                raise
            self._note(*self._failed)

    def _try(self, trial: Trial) -> None:
        self.tried += 1
        try:
            with bounded(CPU_S):
                self._target.check(trial)
        except TooSlow as error:
            self._note(trial, error)  # no hunt for a smaller one, which would be as slow
        except Exception as error:
            if signature_of(error) not in self.findings:
                self._failed = (trial, error)
                raise

    def _note(self, trial: Trial, error: BaseException) -> None:
        signature = signature_of(error)
        if signature in self.findings:
            return
        if not isinstance(error, TooSlow):
            trial = reduce(trial, lambda smaller: breaks(self._target, smaller) == signature)
        story = "".join(traceback.format_exception(error))
        self.findings[signature] = Finding(signature, trial, story)


def breaks(target: Target, trial: Trial) -> str | None:
    """The signature of what an input breaks; None if it breaks nothing."""
    try:
        with bounded(CPU_S):
            target.check(trial)
    except (Exception, TooSlow) as error:
        return signature_of(error)
    return None


def signature_of(error: BaseException) -> str:
    """What was raised, and in which line of the project."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if ".venv" not in frame.filename]
    ours = [frame for frame in ours if Path(frame.filename).is_relative_to(PROJECT)]
    last = ours[-1] if ours else frames[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    if isinstance(error, TooSlow):
        where = Path(last.filename).name  # the line is where it happened to be
    return f"{type(error).__name__} at {where}"


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Stop what costs more computing than this, also within a regular expression."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {seconds:g} s of computing")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def reduce(trial: Trial, still: Callable[[Trial], bool]) -> Trial:
    """A smaller input of the same effect: pieces are left out while that changes nothing."""
    end = time.monotonic() + REDUCE_S
    size = len(trial.data) // 2
    while size and time.monotonic() < end:
        at = 0
        while at < len(trial.data) and time.monotonic() < end:
            data = trial.data[:at] + trial.data[at + size :]
            smaller = msgspec.structs.replace(trial, data=data)
            if still(smaller):
                trial = smaller
            else:
                at += size
        size //= 2
    return trial
