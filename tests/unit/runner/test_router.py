"""Choosing the upstream."""

import pytest

from holdfast.errors import BadRequest, ConfigError
from holdfast.runner.router import Router
from holdfast.settings import RouterSettings
from holdfast.upstreams.base import Upstream
from tests.support.scripted import ScriptedUpstream


def _router(*names: str, **settings: str) -> Router:
    upstreams: dict[str, Upstream] = {name: ScriptedUpstream(name) for name in names}
    return Router(RouterSettings(**settings), upstreams)


@pytest.mark.parametrize(
    ("names", "settings", "asked", "chosen", "reason"),
    [
        (["docs"], {}, None, "docs", "the only upstream"),
        (["docs", "gpt"], {}, None, "docs", "the first upstream configured"),
        (["docs", "gpt"], {}, "auto", "docs", "the first upstream configured"),
        (["docs", "gpt"], {}, "gpt", "gpt", "asked for by name"),
        (["docs", "gpt"], {"default": "gpt"}, None, "gpt", "the default"),
        (["docs", "gpt"], {"default": "gpt"}, "docs", "docs", "asked for by name"),
        (["docs", "gpt"], {"cloud": "gpt"}, None, "gpt", "router.cloud"),
        (["docs", "gpt"], {"local": "gpt"}, None, "gpt", "router.local"),
        (["docs", "gpt"], {"local": "docs", "cloud": "gpt"}, None, "gpt", "router.cloud"),
        (["docs", "gpt"], {"cloud": "auto", "local": "gpt"}, None, "gpt", "router.local"),
    ],
)
def test_a_question_finds_its_upstream(
    names: list[str], settings: dict[str, str], asked: str | None, chosen: str, reason: str
) -> None:
    route = _router(*names, **settings).route(asked)
    assert (route.upstream.name, route.reason) == (chosen, reason)


@pytest.mark.parametrize("name", ["", "nope", "Docs", "docs "])
def test_an_upstream_that_is_not_there_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(BadRequest, match="there is docs, gpt"):
        _router("gpt", "docs").route(name)


@pytest.mark.parametrize("name", [None, "auto", "docs"])
def test_without_upstreams_no_question_can_be_taken(name: str | None) -> None:
    with pytest.raises(BadRequest, match="no upstream is configured"):
        _router().route(name)


@pytest.mark.parametrize("key", ["default", "local", "cloud"])
def test_settings_that_name_an_upstream_that_is_not_there_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"router\.{key} names 'nope'.*docs"):
        _router("docs", **{key: "nope"})
