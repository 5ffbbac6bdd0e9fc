"""From tables to upstreams that know each other."""

from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ConfigError
from holdfast.settings import Settings
from holdfast.upstreams.library import Library
from holdfast.upstreams.registry import connect, make_upstreams
from tests.support.scripted import ScriptedUpstream


def library(**more: Any) -> dict[str, Any]:
    return {"kind": "library", "path": "docs", **more}


GPT = {"kind": "openai", "base_url": "http://llm.example/v1", "model": "m"}


def test_a_library_finds_its_writer_wherever_it_stands(tmp_path: Path) -> None:
    upstreams = make_upstreams(
        Settings(upstreams={"a": library(writer="gpt"), "gpt": GPT, "b": library(writer="gpt")})
    )
    assert list(upstreams) == ["a", "gpt", "b"]
    for name in ("a", "b"):
        writing = upstreams[name]
        assert isinstance(writing, Library)
        assert writing.writer is upstreams["gpt"]


@pytest.mark.parametrize(
    ("upstreams", "message"),
    [
        (
            {"docs": library(writer="nope"), "gpt": GPT},
            "upstreams.docs.writer names 'nope'; there is docs, gpt",
        ),
        ({"docs": library(writer="docs")}, "upstreams.docs.writer leads back to 'docs'"),
        (
            {"a": library(writer="b"), "b": library(writer="c"), "c": library(writer="a")},
            "upstreams.a.writer leads back to 'a'",
        ),
        (
            {"a": library(writer="b"), "b": library(writer="b")},
            "upstreams.b.writer leads back to 'b'",
        ),
    ],
)
def test_writers_that_cannot_be_are_refused(
    upstreams: dict[str, dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_upstreams(Settings(upstreams=upstreams))
    assert caught.value.message == message


def test_a_library_may_ask_another_one() -> None:
    upstreams = make_upstreams(
        Settings(upstreams={"a": library(writer="b"), "b": library(writer="gpt"), "gpt": GPT})
    )
    first = upstreams["a"]
    assert isinstance(first, Library)
    assert first.writer is upstreams["b"]


def test_upstreams_that_ask_nobody_need_nothing() -> None:
    connect({"a": ScriptedUpstream("a")})
    connect({})
