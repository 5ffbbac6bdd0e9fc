"""Choosing the upstream that answers.

A question that names an upstream, or one of the routes `local_small` and `cloud_large`, is
answered by it or not at all. For all others there is an order in which upstreams are asked: the
one that `rules` choose, the other route, `router.fallbacks`. Those whose breaker is open come
last. Every choice has its reason, in words for people.
"""

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from holdfast.errors import BadRequest, ConfigError
from holdfast.runner.breaker import Breaker
from holdfast.settings import RouterSettings
from holdfast.settings.tables import AUTO, CLOUD_LARGE, LOCAL_SMALL, ROUTES
from holdfast.upstreams.base import Upstream

READ_CHARS: Final = 8_000
"""How much of a question patterns are looked for in: this much, half of it from either end."""
CODE_LINES: Final = 2
"""So many lines of code make a question one about code."""


# ---------------------------------------------------------------------------- the rules


class Look(NamedTuple):
    """What of a question is looked at."""

    message: str
    text: str
    """Of a very long message its beginning and its end: what is searched must be bounded."""
    history_chars: int = 0


class Rule(NamedTuple):
    """Where questions go of which something holds, and why."""

    route: str
    reason: str
    holds: Callable[[Look], bool]


def rules(settings: RouterSettings) -> list[Rule]:
    """The rules in their order; the first that holds decides, and the last one always does."""
    code = {"local": LOCAL_SMALL, "cloud": CLOUD_LARGE}.get(settings.code)
    question, history = settings.long_question_chars, settings.long_history_chars
    table = [
        *_pattern_rules(LOCAL_SMALL, "router.local_patterns", settings.local_patterns),
        *_pattern_rules(CLOUD_LARGE, "router.cloud_patterns", settings.cloud_patterns),
    ]
    if code is not None:
        table.append(Rule(code, "the question has code in it", lambda look: has_code(look.text)))
    table.append(
        Rule(CLOUD_LARGE, "the question is long", lambda look: len(look.message) > question)
    )
    if history is not None:
        table.append(
            Rule(CLOUD_LARGE, "the conversation is long", lambda look: look.history_chars > history)
        )
    table.append(Rule(LOCAL_SMALL, "a short question", lambda look: True))
    return table


def _pattern_rules(route: str, key: str, patterns: Sequence[str]) -> Iterator[Rule]:
    for place, pattern in enumerate(patterns):
        search = re.compile(pattern, re.IGNORECASE).search

        def holds(look: Look, search: Callable[[str], object] = search) -> bool:
            return search(look.text) is not None

        yield Rule(route, f"the question matches {key}[{place}]", holds)


_FENCE: Final = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_CODE_LINE: Final = re.compile(
    r"(?:async )?def \w+\(|class \w+[(:{ ]|import [\w.]+$|from [\w.]+ import |#include\b"
    r"|(?:public|private|protected|static|export|const|let|var|func|fn|function)\b.*[(={;]"
    r"|(?:if|for|while|switch|catch) ?\(.*\) ?\{?$|(?:try|else|finally) ?\{$"
    r"|(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE TABLE)\b.*"
    r"|Traceback \(most recent call last\)|File \".*\", line \d+|at [\w.$<>]+\(.*\)$"
    r"|return\b.*;$|\w[\w.\[\]]* ?[-+*/|&]?= ?.*;$|\w[\w.]*\(.*\);$|[\])}]+[;,]?$|</?\w.*>$"
)


def has_code(text: str) -> bool:
    """Whether there is program code in a text: a code block, or some lines that look like it."""
    if _FENCE.search(text):
        return True
    lines = [line for line in text.splitlines() if _CODE_LINE.match(line.strip())]
    return len(lines) >= CODE_LINES


def _both_ends(text: str) -> str:
    if len(text) <= READ_CHARS:
        return text
    return f"{text[: READ_CHARS // 2]}\n{text[-READ_CHARS // 2 :]}"


# ---------------------------------------------------------------------------- the choice


class Candidate(NamedTuple):
    """An upstream that may be asked."""

    upstream: Upstream
    breaker: Breaker
    route: str | None = None
    """`local_small` or `cloud_large`, where it was chosen as such."""

    @property
    def title(self) -> str:
        """How it is spoken of."""
        return _TITLES.get(self.route or "", self.upstream.name)

    @property
    def answering(self) -> str:
        """That it is the one who answers."""
        return _ANSWERING.get(self.route or "", f"{self.upstream.name} answers")


_TITLES: Final = {LOCAL_SMALL: "the local model", CLOUD_LARGE: "the cloud"}
_ANSWERING: Final = {LOCAL_SMALL: "answering locally", CLOUD_LARGE: "answering from the cloud"}


class Route(NamedTuple):
    """Whom to ask, in this order, and why, in words for people."""

    candidates: Sequence[Candidate]
    reason: str

    @property
    def first(self) -> Candidate:
        """The one that was chosen; the others are asked if it fails."""
        return self.candidates[0]


def given(upstream: Upstream) -> Route:
    """The route to an upstream that is not in the configuration."""
    return Route((Candidate(upstream, Breaker(1, 0.0)),), "given by the application")


class Router:
    """Knows the upstreams by name, and how they have been doing.

    Attributes:
        breakers: The circuit breaker of each upstream, by name.
        now: The clock that they go by.
    """

    def __init__(
        self,
        settings: RouterSettings,
        upstreams: Mapping[str, Upstream],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Check that the names in `settings` exist.

        Args:
            settings: The router's table.
            upstreams: All upstreams by name.
            now: A clock that does not go back, in seconds.

        Raises:
            ConfigError: A name is none of an upstream, or nothing is meant by a route.
        """
        self.now = now
        self.breakers = {
            name: Breaker(settings.breaker_failures, settings.breaker_open_s) for name in upstreams
        }
        self._upstreams = upstreams
        self._settings = settings
        self._rules = rules(settings)
        self._routes = {LOCAL_SMALL: settings.local, CLOUD_LARGE: settings.cloud}
        check_router(settings, upstreams)

    def weighs_history(self, name: str | None) -> bool:
        """Whether a question that names `name` may go elsewhere after a long history."""
        settings = self._settings
        return (
            settings.long_history_chars is not None
            and None not in (settings.local, settings.cloud)
            and (name or settings.default) == AUTO
        )

    def route(self, name: str | None = None, message: str = "", history_chars: int = 0) -> Route:
        """Whom to ask.

        Args:
            name: What the question names: an upstream, a route, `auto`, or nothing.
            message: The question.
            history_chars: How much was said before it, where `weighs_history` says so.

        Raises:
            BadRequest: There is nothing of that name, or no upstream at all.
        """
        if not self._upstreams:
            raise BadRequest("no upstream is configured")
        if name is not None and name not in ROUTES:
            if name not in self._upstreams:
                raise BadRequest(f"there is no upstream {name!r}; {known(self._upstreams)}")
            return Route((self._candidate(name),), "asked for by name")
        if name in self._routes:
            if self._routes[name] is None:
                raise BadRequest(f"{_missing(name)}; {known(self._upstreams)}")
            return Route((self._routed(name),), f"{name} was asked for")
        chosen, reason = self._choose(name, Look(message, _both_ends(message), history_chars))
        return self._with_others(chosen, reason)

    def _choose(self, name: str | None, look: Look) -> tuple[list[Candidate], str]:
        """Whom to ask for a question that leaves it open, and the other route, if there is one."""
        default = self._settings.default
        configured = [route for route, target in self._routes.items() if target is not None]
        if name is None and default != AUTO:
            return [self._named(default)], "the default"
        if len(configured) > 1:
            rule = next(rule for rule in self._rules if rule.holds(look))
            configured.sort(key=lambda route: route != rule.route)
            return [self._routed(route) for route in configured], rule.reason
        if configured:
            return [self._routed(configured[0])], f"{configured[0]} is the only route"
        if default != AUTO:
            return [self._named(default)], "the default"
        only = len(self._upstreams) == 1
        first = self._candidate(next(iter(self._upstreams)))
        return [first], "the only upstream" if only else "the first upstream configured"

    def _with_others(self, chosen: list[Candidate], reason: str) -> Route:
        """The chosen ones and the fallbacks, each once, those that are down at the end."""
        if not self._settings.fall_through:
            return Route(chosen[:1], reason)
        others = [self._candidate(name) for name in self._settings.fallbacks]
        order: dict[str, Candidate] = {}
        for one in (*chosen, *others):
            order.setdefault(one.upstream.name, one)
        now = self.now()
        ready = [one for one in order.values() if one.breaker.admits(now)]
        down = [one for one in order.values() if not one.breaker.admits(now)]
        if ready and ready[0] is not chosen[0]:
            reason = f"{reason}; {chosen[0].title} is down, {ready[0].answering}"
        return Route([*ready, *down], reason)

    def _named(self, name: str) -> Candidate:
        return self._routed(name) if name in self._routes else self._candidate(name)

    def _routed(self, route: str) -> Candidate:
        target = self._routes[route]
        assert target is not None
        return self._candidate(target, route)

    def _candidate(self, name: str, route: str | None = None) -> Candidate:
        return Candidate(self._upstreams[name], self.breakers[name], route)


def check_router(settings: RouterSettings, upstreams: Collection[str]) -> None:
    """Pass if all names in `settings` are those of upstreams.

    Raises:
        ConfigError: One is not, or a route is the default and leads nowhere.
    """
    for key, name in settings.names():
        if name not in upstreams:
            raise ConfigError(f"{key} names {name!r}; {known(upstreams)}")
    default = settings.default
    leads_to = {LOCAL_SMALL: settings.local, CLOUD_LARGE: settings.cloud}
    if default in leads_to and leads_to[default] is None:
        raise ConfigError(f"router.default is {default!r}, but {_missing(default)}")


def known(upstreams: Collection[str]) -> str:
    """What there is, for somebody who named something else."""
    if not upstreams:
        return "no upstream is configured"
    return "there is " + ", ".join(sorted(upstreams))


def _missing(route: str) -> str:
    key = {LOCAL_SMALL: "local", CLOUD_LARGE: "cloud"}[route]
    return f"nothing is {route} here: router.{key} is not set"
