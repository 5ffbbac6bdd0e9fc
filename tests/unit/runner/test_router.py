"""Choosing whom to ask."""

from typing import Any

import pytest

from holdfast.errors import BadRequest, ConfigError
from holdfast.runner.router import READ_CHARS, Router, given, has_code
from holdfast.settings import RouterSettings
from holdfast.upstreams.base import Upstream
from tests.support.scripted import ScriptedUpstream

BOTH = {"local": "docs", "cloud": "gpt"}
LONG = "Why? " * 400


def _router(*names: str, **settings: Any) -> Router:
    upstreams: dict[str, Upstream] = {name: ScriptedUpstream(name) for name in names}
    return Router(RouterSettings(**settings), upstreams, lambda: 0.0)


def _order(
    router: Router, name: str | None = None, message: str = "Why?", history_chars: int = 0
) -> list[str]:
    """Whom it asks, with the route of each."""
    route = router.route(name, message, history_chars)
    return [
        one.upstream.name + (f" ({one.route})" if one.route else "") for one in route.candidates
    ]


LOCAL_FIRST = ["docs (local_small)", "gpt (cloud_large)"]
CLOUD_FIRST = LOCAL_FIRST[::-1]


@pytest.mark.parametrize(
    ("names", "settings", "asked", "order", "reason"),
    [
        (["docs"], {}, None, ["docs"], "the only upstream"),
        (["docs", "gpt"], {}, None, ["docs"], "the first upstream configured"),
        (["docs", "gpt"], {}, "auto", ["docs"], "the first upstream configured"),
        (["docs", "gpt"], {}, "gpt", ["gpt"], "asked for by name"),
        (["docs", "gpt"], BOTH, "gpt", ["gpt"], "asked for by name"),
        (["docs", "gpt"], {"fallbacks": ["docs"]}, "gpt", ["gpt"], "asked for by name"),
        (["docs", "gpt"], {"default": "gpt"}, None, ["gpt"], "the default"),
        (["docs", "gpt"], {"default": "gpt"}, "auto", ["gpt"], "the default"),
        (["docs", "gpt"], {"default": "gpt"}, "docs", ["docs"], "asked for by name"),
        (["docs", "gpt"], {"default": "gpt", **BOTH}, None, ["gpt"], "the default"),
        (["docs", "gpt"], {"default": "gpt", **BOTH}, "auto", LOCAL_FIRST, "a short question"),
        (
            ["docs", "gpt"],
            {"default": "cloud_large", **BOTH},
            None,
            ["gpt (cloud_large)"],
            "the default",
        ),
        (["docs", "gpt"], {"cloud": "gpt"}, None, CLOUD_FIRST[:1], "cloud_large is the only route"),
        (
            ["docs", "gpt"],
            {"local": "docs"},
            None,
            LOCAL_FIRST[:1],
            "local_small is the only route",
        ),
        (["docs", "gpt"], BOTH, None, LOCAL_FIRST, "a short question"),
        (["docs", "gpt"], BOTH, "auto", LOCAL_FIRST, "a short question"),
        (["docs", "gpt"], BOTH, "local_small", LOCAL_FIRST[:1], "local_small was asked for"),
        (["docs", "gpt"], BOTH, "cloud_large", CLOUD_FIRST[:1], "cloud_large was asked for"),
        (["docs", "gpt", "x"], {"fallbacks": ["x", "gpt"]}, None, ["docs", "x", "gpt"], None),
        (["docs", "gpt", "x"], {"fallbacks": ["docs", "x"]}, None, ["docs", "x"], None),
        (
            ["docs", "gpt", "x"],
            {"fallbacks": ["docs", "x"], **BOTH},
            None,
            [*LOCAL_FIRST, "x"],
            None,
        ),
        (["docs", "gpt"], {"fallbacks": ["gpt"], "default": "docs"}, None, ["docs", "gpt"], None),
        (["docs", "gpt"], {"fall_through": False, **BOTH}, None, LOCAL_FIRST[:1], None),
        (["docs", "gpt"], {"fall_through": False, "fallbacks": ["gpt"]}, None, ["docs"], None),
        (["docs"], {"local": "docs", "cloud": "docs"}, None, LOCAL_FIRST[:1], "a short question"),
    ],
)
def test_a_question_finds_whom_to_ask(
    names: list[str], settings: dict[str, Any], asked: str | None, order: list[str], reason: str
) -> None:
    router = _router(*names, **settings)
    assert _order(router, asked) == order
    assert reason in (None, router.route(asked, "Why?").reason)


@pytest.mark.parametrize(
    ("settings", "message", "history", "route", "reason"),
    [
        ({}, "Why?", 0, "local_small", "a short question"),
        ({}, "x" * 1_500, 0, "local_small", "a short question"),
        ({}, "x" * 1_501, 0, "cloud_large", "the question is long"),
        ({"long_question_chars": 3}, "Why?", 0, "cloud_large", "the question is long"),
        (
            {"long_question_chars": READ_CHARS * 2},
            "x" * READ_CHARS * 2 + "x",
            0,
            "cloud_large",
            "the question is long",
        ),
        ({}, "```\nx\n```", 0, "cloud_large", "the question has code in it"),
        ({"code": "local"}, "```\n" + LONG, 0, "local_small", "the question has code in it"),
        ({"code": "ignore"}, "```\nx\n```", 0, "local_small", "a short question"),
        ({}, "Why?", 10**9, "local_small", "a short question"),
        ({"long_history_chars": 9}, "Why?", 9, "local_small", "a short question"),
        ({"long_history_chars": 9}, "Why?", 10, "cloud_large", "the conversation is long"),
        (
            {"cloud_patterns": ["no", "(?:draw|write) a"]},
            "Please WRITE a poem",
            0,
            "cloud_large",
            "the question matches router.cloud_patterns[1]",
        ),
        (
            {"cloud_patterns": ["why"], "local_patterns": ["[?]$"]},
            f"```{LONG} why?",
            0,
            "local_small",
            "the question matches router.local_patterns[0]",
        ),
        ({"cloud_patterns": ["翻译"]}, "请翻译：海带", 0, "cloud_large", None),
        ({"local_patterns": ["last"]}, "x " * READ_CHARS + "last", 0, "local_small", None),
        (
            {"local_patterns": ["mid"]},
            "x" * READ_CHARS + "mid" + "x" * READ_CHARS,
            0,
            "cloud_large",
            None,
        ),
    ],
)
def test_the_first_rule_that_holds_decides(
    settings: dict[str, Any], message: str, history: int, route: str, reason: str | None
) -> None:
    chosen = _router("docs", "gpt", **BOTH, **settings).route(None, message, history)
    assert chosen.first.route == route
    assert reason in (None, chosen.reason)
    assert len(chosen.candidates) == 2


@pytest.mark.parametrize(
    "text",
    [
        "What is wrong?\n```python\nprint(1)\n```",
        "  ~~~\nls\n~~~",
        "def add(a, b):\n    return a + b;\n",
        'Traceback (most recent call last):\n  File "x.py", line 3, in <module>\nKeyError: 1',
        "int main() {\n  for (int i = 0; i < 3; i++) {\n  }\n}",
        "const x = 1;\nlet y = x;",
        "SELECT a\nFROM b;\nUPDATE b SET a = 1",
        "java.lang.NullPointerException\n  at a.b.C.d(C.java:1)\n  at a.b.E.f(E.java:2)",
        "<div>\n<p>Kelp</p>\n</div>",
        "import os\nfrom sys import path",
    ],
)
def test_code_is_known(text: str) -> None:
    assert has_code(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What is kelp?",
        "Why does `for (;;)` not end?",
        "class action lawsuits\nand what they cost",
        "1. Tides (twice a day);\n2. kelp (which holds on).\n\nReturn to me at noon;",
        "海带是什么？\n它怎么固定？",
        "import duties\nand export duties",
        "a < b > c",
        "From: me\nTo: you",
    ],
)
def test_prose_is_no_code(text: str) -> None:
    assert not has_code(text)


def _fail(router: Router, name: str) -> None:
    for _ in range(3):
        router.breakers[name].failed(0.0)


@pytest.mark.parametrize(
    ("settings", "down", "order", "reason"),
    [
        (
            BOTH,
            ["docs"],
            CLOUD_FIRST,
            "a short question; the local model is down, answering from the cloud",
        ),
        (BOTH, ["gpt"], LOCAL_FIRST, "a short question"),
        (BOTH, ["docs", "gpt"], LOCAL_FIRST, "a short question"),
        (
            {"local": "gpt", "cloud": "docs"},
            ["gpt"],
            None,
            "a short question; the local model is down, answering from the cloud",
        ),
        (
            {"default": "gpt", "fallbacks": ["docs", "x"]},
            ["gpt", "docs"],
            ["x", "gpt", "docs"],
            "the default; gpt is down, x answers",
        ),
        ({**BOTH, "fall_through": False}, ["docs"], LOCAL_FIRST[:1], "a short question"),
    ],
)
def test_who_is_down_comes_last_and_the_reason_says_so(
    settings: dict[str, Any], down: list[str], order: list[str] | None, reason: str
) -> None:
    router = _router("docs", "gpt", "x", **settings)
    for name in down:
        _fail(router, name)
    if order is not None:
        assert _order(router) == order
    assert router.route(None, "Why?").reason == reason


def test_cloud_is_down_is_told_in_those_words() -> None:
    router = _router("docs", "gpt", **BOTH)
    _fail(router, "gpt")
    reason = "the question is long; the cloud is down, answering locally"
    assert router.route(None, LONG).reason == reason


@pytest.mark.parametrize("name", ["docs", "local_small"])
def test_who_is_asked_for_is_asked_although_it_is_down(name: str) -> None:
    router = _router("docs", "gpt", **BOTH)
    _fail(router, "docs")
    assert [one.upstream.name for one in router.route(name).candidates] == ["docs"]


def test_who_was_down_is_tried_again_after_its_time() -> None:
    now = 0.0
    upstreams: dict[str, Upstream] = {name: ScriptedUpstream(name) for name in ("docs", "gpt")}
    router = Router(
        RouterSettings(local="docs", cloud="gpt", breaker_open_s=9.0), upstreams, lambda: now
    )
    _fail(router, "docs")
    assert _order(router) == CLOUD_FIRST
    now = 9.0
    assert _order(router) == LOCAL_FIRST


@pytest.mark.parametrize(
    ("settings", "name", "weighed"),
    [
        ({**BOTH, "long_history_chars": 9}, None, True),
        ({**BOTH, "long_history_chars": 9}, "auto", True),
        ({**BOTH, "long_history_chars": 9}, "docs", False),
        ({**BOTH, "long_history_chars": 9}, "local_small", False),
        ({**BOTH, "long_history_chars": 9, "default": "gpt"}, None, False),
        ({**BOTH, "long_history_chars": 9, "default": "gpt"}, "auto", True),
        ({"local": "docs", "long_history_chars": 9}, None, False),
        (BOTH, None, False),
    ],
)
def test_the_history_is_weighed_only_where_it_can_matter(
    settings: dict[str, Any], name: str | None, weighed: bool
) -> None:
    assert _router("docs", "gpt", **settings).weighs_history(name) is weighed


@pytest.mark.parametrize("name", ["", "nope", "Docs", "docs "])
def test_an_upstream_that_is_not_there_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(BadRequest, match="there is docs, gpt"):
        _router("gpt", "docs").route(name)


@pytest.mark.parametrize(
    ("name", "key"), [("local_small", "router.local"), ("cloud_large", "router.cloud")]
)
def test_a_route_that_leads_nowhere_is_refused_with_the_key_that_lacks(name: str, key: str) -> None:
    with pytest.raises(BadRequest, match=f"nothing is {name} here: {key} is not set.*docs"):
        _router("docs").route(name)


@pytest.mark.parametrize("name", [None, "auto", "docs", "local_small"])
def test_without_upstreams_no_question_can_be_taken(name: str | None) -> None:
    with pytest.raises(BadRequest, match="no upstream is configured"):
        _router().route(name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"default": "nope"}, r"router\.default names 'nope'; there is docs"),
        ({"local": "nope"}, r"router\.local names 'nope'; there is docs"),
        ({"cloud": "nope"}, r"router\.cloud names 'nope'; there is docs"),
        ({"cloud": "auto"}, r"router\.cloud names 'auto'; there is docs"),
        ({"fallbacks": ["docs", "nope"]}, r"router\.fallbacks\[1\] names 'nope'; there is docs"),
        ({"default": "local_small"}, r"router\.default is 'local_small', but .* is not set"),
    ],
)
def test_settings_that_name_what_is_not_there_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        _router("docs", **settings)


def test_an_upstream_of_the_applications_own_stands_alone() -> None:
    own = ScriptedUpstream("docs")
    route = given(own)
    assert [one.upstream for one in route.candidates] == [own]
    assert (route.reason, route.first.route) == ("given by the application", None)
