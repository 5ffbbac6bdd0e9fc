"""Whether the upstreams answer."""

import asyncio
import time
from collections.abc import Mapping

from holdfast.runner.breaker import BreakerState
from holdfast.runner.router import Router
from holdfast.upstreams.base import Health, Upstream

CHECK_TIMEOUT_S = 5.0
FRESH_S = 15.0
"""How long a finding is good: a page that is opened often must not ask the upstreams each time."""


class HealthBoard:
    """The last findings, and how the last questions went."""

    def __init__(self, upstreams: Mapping[str, Upstream], router: Router) -> None:
        """Look after `upstreams`; `router` knows how they have been doing."""
        self._upstreams = upstreams
        self._router = router
        self._found: dict[str, Health] = {}
        self._looked = -FRESH_S
        self._lock = asyncio.Lock()

    async def look(self) -> Mapping[str, Health]:
        """The health of each upstream by name.

        They are asked at most every `FRESH_S` seconds; an open circuit breaker counts at once.
        """
        async with self._lock:
            if time.monotonic() - self._looked >= FRESH_S:
                names = list(self._upstreams)
                healths = await asyncio.gather(*(check(self._upstreams[name]) for name in names))
                self._found = dict(zip(names, healths, strict=True))
                self._looked = time.monotonic()
            found = self._found
        return {name: self._with_breaker(name, health) for name, health in found.items()}

    def _with_breaker(self, name: str, health: Health) -> Health:
        breaker = self._router.breakers[name]
        if health.ok and breaker.state(self._router.now()) is BreakerState.OPEN:
            return Health(False, f"the last {breaker.failures} questions failed")
        return health


async def check(upstream: Upstream) -> Health:
    """Ask one upstream whether it could answer; never raises."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await upstream.check()
    except TimeoutError:
        return Health(False, f"no answer within {CHECK_TIMEOUT_S:g} s")
    except Exception as error:
        return Health(False, f"{type(error).__name__}: {error}")
